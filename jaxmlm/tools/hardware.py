"""What chips can do: peaks for MFU and rooflines, memory, and the names of TPU topologies."""

import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlm.errors import InputError


class Chip(NamedTuple):
    """A chip by its documentation: dense bf16 FLOP/s, bytes of memory (of a TPU those that a program gets), bytes/s of
    memory, and bytes/s that it sends to other chips of its slice or box (one direction, all links); 0: unknown.
    """

    name: str
    flops: float
    memory: float
    bandwidth: float
    links: float = 0.0


GIB = 2**30
T = 1e12
G = 1e9
# docs.cloud.google.com/tpu/docs/{v2,v3,v4,v5e,v5p,v6e,tpu7x}; the makers' data sheets. Where JAX sees a TPU chip as
# two devices (v2, v3, TPU7x), this is one of the two.
CHIPS = {
    "TPU v2": Chip("TPU v2 (half a chip)", 23 * T, 8 * GIB, 350 * G),
    "TPU v3": Chip("TPU v3 (half a chip)", 61.5 * T, 16 * GIB, 450 * G),
    "TPU v4": Chip("TPU v4", 275 * T, 31.25 * GIB, 1200 * G, 300 * G),
    "TPU v5 lite": Chip("TPU v5e", 197 * T, 15.75 * GIB, 819 * G, 200 * G),
    "TPU v5": Chip("TPU v5p", 459 * T, 95.25 * GIB, 2765 * G, 600 * G),
    "TPU v6 lite": Chip("TPU v6e", 918 * T, 31.25 * GIB, 1640 * G, 400 * G),
    "TPU7x": Chip("TPU7x (half a chip)", 1153.5 * T, 95.25 * GIB, 3690 * G, 300 * G),
    "Tesla T4": Chip("T4", 65 * T, 16 * G, 320 * G),  # float16: it has no bf16
    "Tesla V100": Chip("V100", 125 * T, 32 * G, 900 * G, 150 * G),  # float16
    "NVIDIA L40S": Chip("L40S", 362 * T, 48 * G, 864 * G),
    "NVIDIA L4": Chip("L4", 121 * T, 24 * G, 300 * G),
    "NVIDIA A10G": Chip("A10G", 70 * T, 24 * G, 600 * G),
    "NVIDIA A100": Chip("A100", 312 * T, 80 * G, 2039 * G, 300 * G),
    "NVIDIA H100 PCIe": Chip("H100 PCIe", 756 * T, 80 * G, 2039 * G),
    "NVIDIA H100": Chip("H100", 989.4 * T, 80 * G, 3350 * G, 450 * G),
    "NVIDIA H200": Chip("H200", 989.4 * T, 141 * G, 4800 * G, 450 * G),
    "NVIDIA B200": Chip("B200", 2250 * T, 180 * G, 8000 * G, 900 * G),
    "NVIDIA GeForce RTX 3090": Chip("RTX 3090", 71 * T, 24 * G, 936 * G),
    "NVIDIA GeForce RTX 4090": Chip("RTX 4090", 165 * T, 24 * G, 1008 * G),
}
"""By the beginning of what JAX calls the device (`device_kind`)."""


def chip_of(kind: str) -> Chip | None:
    """The chip that JAX calls so, by the longest name that it begins with; None for one that the table has not.

    >>> chip_of("NVIDIA H100 80GB HBM3").name, chip_of("TPU v5 lite").name, chip_of("TPU v5p").name
    ('H100', 'TPU v5e', 'TPU v5p')
    >>> chip_of("NVIDIA L40S").name, chip_of("NVIDIA L40"), chip_of("TPU v4 lite")
    ('L40S', None, None)
    """
    kind = {"TPU v5e": "TPU v5 lite", "TPU v5p": "TPU v5", "TPU v6e": "TPU v6 lite"}.get(kind, kind)
    fitting = [name for name in CHIPS if re.match(re.escape(name) + r"(?!\w| lite)", kind)]
    return CHIPS[max(fitting, key=len)] if fitting else None


class Topology(NamedTuple):
    """A slice of a TPU pod as `v5e:4x4` names it."""

    generation: str
    sizes: tuple[int, ...]

    @property
    def name(self) -> str:
        """As libtpu takes it."""
        return f"{self.generation}:{'x'.join(map(str, self.sizes))}"

    @property
    def chip(self) -> Chip:
        """Each of its chips, or half a chip."""
        return CHIPS[GENERATIONS[self.generation].device_kind]

    @property
    def chips(self) -> int:
        """Of one slice."""
        return int(np.prod(self.sizes))

    @property
    def devices(self) -> int:
        """As JAX sees one slice."""
        return self.chips * GENERATIONS[self.generation].devices

    @property
    def options(self) -> dict[str, Any]:
        """What libtpu needs besides the name."""
        options: dict[str, Any] = {"chip_config_name": "megacore"} if self.generation in ("v4", "v5p") else {}
        if self.chips == 1:
            options["chips_per_host_bounds"] = (1, 1, 1)
        return options


class Generation(NamedTuple):
    """A generation of TPUs that libtpu compiles for."""

    device_kind: str
    """As JAX calls its devices: a key of `CHIPS`."""
    largest: int
    """Chips of a whole pod."""
    slices: tuple[str, ...]
    """Those that are for rent, the smallest first."""
    devices: int = 1
    """As JAX sees them, of one chip."""

    @property
    def dimensions(self) -> int:
        """Of its topologies."""
        return self.slices[0].count("x") + 1


_2D = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_3D = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
GENERATIONS = {
    "v2": Generation("TPU v2", 256, ("2x2", "4x4", "8x8", "16x16"), devices=2),
    "v3": Generation("TPU v3", 1024, ("2x2", "4x4", "8x8", "16x16", "32x32"), devices=2),
    "v4": Generation("TPU v4", 4096, _3D),
    "v5e": Generation("TPU v5 lite", 256, _2D),
    "v5p": Generation("TPU v5", 8960, _3D),
    "v6e": Generation("TPU v6 lite", 256, _2D),
    "tpu7x": Generation("TPU7x", 9216, _3D, devices=2),
}
"""By the name that `--topology` takes."""


def topology(text: str) -> Topology:
    """Read `v5e:4x4`; InputError with the names there are for another one.

    >>> topology("v5p:2x2x2")
    Topology(generation='v5p', sizes=(2, 2, 2))
    """
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", text.strip().lower())
    generation = found[1] if found else ""
    if generation not in GENERATIONS:
        names = ", ".join(f"{name}:{one.slices[-4]}" for name, one in GENERATIONS.items())
        raise InputError(f"--topology {text!r}: no TPU is called so; one of each kind that there is: {names}")
    sizes = tuple(int(size) for size in found[2].split("x")) if found else ()
    known = GENERATIONS[generation]
    if len(sizes) != known.dimensions or not 0 < np.prod(sizes, dtype=float) <= known.largest:
        names = ", ".join(f"{generation}:{size}" for size in known.slices)
        raise InputError(f"--topology {text!r}: {generation} has {names} and the like, at most {known.largest} chips")
    return Topology(generation, sizes)


def peak_flops(devices: Sequence[Any], dtype: str = "float32", seconds: float = 1.0) -> tuple[float | None, str]:
    """FLOP/s of devices of one kind at most, and where that number is from.

    Args:
        devices: the devices.
        dtype: the type of the matrix product that is measured on a CPU.
        seconds: how long it is measured.

    Returns:
        The number for all of them, None where the chip is unknown, and its source.

    """
    device = devices[0]
    if device.platform == "cpu":  # several CPU devices share the cores
        return measured_peak(dtype, seconds), "the best matrix product, measured"
    chip = chip_of(device.device_kind)
    if chip is None:
        return None, ""
    return chip.flops * len(devices), f"{chip.name}, bf16, by its documentation"


def measured_peak(dtype: str = "float32", seconds: float = 1.0) -> float:
    """FLOP/s of the best large matrix product on this device: the peak of a CPU, which no table has."""
    size = 1024
    each = []
    a = jnp.ones((size, size), dtype)
    product = jax.jit(lambda a: a @ a)
    jax.block_until_ready(product(a))
    until = time.perf_counter() + seconds
    while len(each) < 5 or time.perf_counter() < until:
        started = time.perf_counter()
        jax.block_until_ready(product(a))
        each.append(time.perf_counter() - started)
    return 2 * size**3 / min(each)


def peak_memory(program: jax.stages.Compiled) -> int:
    """Bytes that a compiled program needs on each device at its fullest moment: arguments, results and temporaries."""
    return int(program.memory_analysis().peak_memory_in_bytes)  # type: ignore[union-attr]
