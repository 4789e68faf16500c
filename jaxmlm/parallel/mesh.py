"""The device mesh: `data` x `fsdp` x `tensor`, all explicit."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxmlm.checks import COUNT, check_numbers
from jaxmlm.errors import InputError
from jaxmlm.parallel.rules import RULES, spec


@dataclass(frozen=True)
class Mesh:
    """How many devices each mesh axis takes."""

    data: int = -1
    """Copies of the model, each with its part of the batch; -1: all devices that the other axes leave. Of several
    slices each has whole copies: only the sum of the gradients goes from slice to slice."""
    fsdp: int = 1
    """Parts into which each copy's parameters and optimizer state are cut."""
    tensor: int = 1
    """Parts into which heads, mlp and vocabulary of a layer are cut."""

    def __post_init__(self) -> None:
        check_numbers(self, "mesh.", fsdp=COUNT, tensor=COUNT)
        if self.data != -1:
            check_numbers(self, "mesh.", data=COUNT)


def make_mesh(config: Mesh = Mesh(), devices: list | None = None) -> jax.sharding.Mesh:  # noqa: B008
    """The mesh of this configuration over all devices, or over those given."""
    devices = list(jax.devices() if devices is None else devices)
    rest = config.fsdp * config.tensor
    data = len(devices) // max(rest, 1) if config.data == -1 else config.data
    if min(data, config.fsdp, config.tensor) < 1 or data * rest != len(devices):
        raise InputError(
            f"the mesh data={config.data} fsdp={config.fsdp} tensor={config.tensor} does not use exactly the "
            f"{len(devices)} devices there are: choose sizes whose product is {len(devices)} (data=-1 takes the rest)"
        )
    slices: dict[int, list] = {}
    for device in devices:
        slices.setdefault(getattr(device, "slice_index", 0) if device.platform == "tpu" else 0, []).append(device)
    check_slices(data, len(slices))
    shape, axes, kinds = (
        (data // len(slices), config.fsdp, config.tensor),
        ("data", "fsdp", "tensor"),
        AxisType.Explicit,
    )
    # Each slice is laid out by its own topology; an axis of the mesh may take a part of an axis of that.
    parts = [mesh_utils.create_device_mesh(shape, part, allow_split_physical_axes=True) for part in slices.values()]
    return jax.sharding.Mesh(np.concatenate(parts), axes, axis_types=(kinds,) * 3)


def check_slices(data: int, slices: int) -> None:
    """Refuse a data axis that slices, connected by the network only, cannot share."""
    if data % slices:
        raise InputError(
            f"the mesh data={data} does not divide over {slices} slices, each of which holds complete copies of the "
            f"model: choose mesh.data as a multiple of {slices}"
        )


def check_sizes(mesh: jax.sharding.Mesh, sizes: Sequence[tuple[str, int, str]]) -> None:
    """Refuse a mesh that does not divide these sizes, each with its name and its logical axis.

    InputError with the nearest mesh of as many devices that divides them all, or else with the nearest size.
    """
    shape = (mesh.shape["data"], mesh.shape["fsdp"], mesh.shape["tensor"])

    def parts(logical: str, shape: tuple[int, ...]) -> int:
        axes = RULES[logical]
        named: dict[str, int] = dict(zip(("data", "fsdp", "tensor"), shape, strict=True))
        return math.prod(named[axis] for axis in ((axes,) if isinstance(axes, str) else axes))

    def wrong(shape: tuple[int, ...]) -> list[tuple[str, int, str]]:
        return [one for one in sizes if one[1] % parts(one[2], shape)]

    if not (bad := wrong(shape)):
        return
    name, size, logical = bad[0]
    into = parts(logical, shape)
    ways = itertools.product(*[[n for n in range(1, mesh.size + 1) if mesh.size % n == 0]] * 3)
    fitting = [way for way in ways if math.prod(way) == mesh.size and not wrong(way)]
    if fitting:
        data, fsdp, tensor = min(
            fitting, key=lambda way: sum(abs(math.log(a / b)) for a, b in zip(way, shape, strict=True))
        )
        advice = f"the nearest mesh that does is --mesh.data {data} --mesh.fsdp {fsdp} --mesh.tensor {tensor}"
    else:
        advice = f"no mesh of {mesh.size} devices divides it and all else: take {max(1, round(size / into)) * into}"
    raise InputError(
        f"{name} is {size}, which the mesh data={shape[0]} fsdp={shape[1]} tensor={shape[2]} does not divide into "
        f"{into} parts: {advice}"
    )


def host_shard(mesh: jax.sharding.Mesh) -> tuple[int, int]:
    """(i, n): this host places the i-th of n equal shares of a batch's rows; hosts that tensor joins have the same."""
    if jax.process_count() == 1:
        return 0, 1
    lines = mesh.devices.reshape(-1, mesh.shape["tensor"])
    have: dict[int, list[int]] = {}
    for row, line in enumerate(lines):
        for process in {device.process_index for device in line}:
            have.setdefault(process, []).append(row)
    shares = sorted({tuple(rows) for rows in have.values()})
    if sum(map(len, shares)) != len(lines) or len({len(share) for share in shares}) > 1:
        raise InputError(
            f"the mesh {dict(mesh.shape)} divides rows of a batch among hosts of {jax.local_device_count()} devices "
            "each: choose mesh.tensor so that it divides a host's devices, or a multiple of them"
        )
    return shares.index(tuple(have[jax.process_index()])), len(shares)


def platform() -> str:
    """Of the devices that a program is traced for: "tpu" too where it is compiled ahead of time, beside no TPU."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def place(batch: Any, mesh: jax.sharding.Mesh) -> Any:
    """This host's rows of a batch (leading axis B) as arrays over the whole mesh."""

    def put(x: Any) -> jax.Array:
        sharding = NamedSharding(mesh, spec("batch", *(None,) * (x.ndim - 1)))
        return jax.make_array_from_process_local_data(sharding, x)

    return jax.tree.map(put, batch)


def abstract(make: Callable, *arguments: Any) -> Any:
    """What a function would make of these, as abstract arrays on the mesh: nothing is compiled or computed.

    Each lies as its type says; whole on every device if that says nothing.
    """
    mesh = jax.sharding.get_mesh()

    def placed(x: Any) -> jax.ShapeDtypeStruct:
        where = x.sharding.spec if x.sharding is not None else PartitionSpec()
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, where))

    return jax.tree.map(placed, jax.eval_shape(make, *arguments))


def local_rows(batch: Any, mesh: jax.sharding.Mesh) -> Any:
    """Of a batch that every host has whole, the rows that are this host's to place."""
    host, hosts = host_shard(mesh)
    if hosts == 1:
        return batch

    def part(x: Any) -> Any:
        if len(x) % hosts:
            raise InputError(f"a batch of {len(x)} rows does not divide over {hosts} hosts: take a multiple")
        return x[host * len(x) // hosts : (host + 1) * len(x) // hosts]

    return jax.tree.map(part, batch)


def fetch(arrays: Any) -> Any:
    """Arrays of the whole mesh on every host, as NumPy's."""
    if jax.process_count() == 1:
        return jax.device_get(arrays)
    return multihost_utils.process_allgather(arrays, tiled=True)
