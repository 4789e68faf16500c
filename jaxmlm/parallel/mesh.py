"""The device mesh: `data` x `fsdp` x `tensor`, all explicit."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
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

    def over(self, devices: int, slices: int = 1) -> dict[str, int]:
        """The sizes of the axes on so many devices.

        Raises:
            InputError: they do not use exactly these devices, or slices, connected by the network only, cannot share
                the data axis.

        """
        rest = self.fsdp * self.tensor
        data = devices // rest if self.data == -1 else self.data
        if data < 1 or data * rest != devices:
            raise InputError(
                f"the mesh data={self.data} fsdp={self.fsdp} tensor={self.tensor} does not use exactly the {devices} "
                f"devices there are: choose sizes whose product is {devices} (data=-1 takes the rest)"
            )
        if data % slices:
            raise InputError(
                f"the mesh data={data} does not divide over {slices} slices, each of which holds complete copies of "
                f"the model: choose mesh.data as a multiple of {slices}"
            )
        return {"data": data, "fsdp": self.fsdp, "tensor": self.tensor}


def make_mesh(config: Mesh = Mesh(), devices: list | None = None) -> jax.sharding.Mesh:  # noqa: B008
    """The mesh of this configuration over all devices, or over those given."""
    devices = list(jax.devices() if devices is None else devices)
    slices: dict[int, list] = {}
    for device in devices:
        slices.setdefault(getattr(device, "slice_index", 0) if device.platform == "tpu" else 0, []).append(device)
    sizes = config.over(len(devices), len(slices))
    shape = (sizes["data"] // len(slices), config.fsdp, config.tensor)
    # Each slice is laid out by its own topology; an axis of the mesh may take a part of an axis of that.
    parts = [mesh_utils.create_device_mesh(shape, part, allow_split_physical_axes=True) for part in slices.values()]
    return jax.sharding.Mesh(np.concatenate(parts), tuple(sizes), axis_types=(AxisType.Explicit,) * 3)


def undivided(mesh: Mapping[str, int], sizes: Sequence[tuple[str, int, str]]) -> list[tuple[str, int, str]]:
    """Those of these sizes, each with its name and its logical axis, that a mesh with these axes does not divide."""
    return [one for one in sizes if one[1] % _parts(mesh, one[2])]


def _parts(mesh: Mapping[str, int], logical: str) -> int:
    axes = RULES[logical]
    return math.prod(mesh[axis] for axis in ((axes,) if isinstance(axes, str) else axes))


def check_sizes(mesh: Mapping[str, int], sizes: Sequence[tuple[str, int, str]]) -> None:
    """Refuse a mesh that does not divide these sizes.

    Args:
        mesh: the sizes of its axes.
        sizes: what it must divide, each with its name and its logical axis.

    Raises:
        InputError: it does not. The message has the nearest mesh of as many devices that divides them all; of rows,
            or where there is no such mesh, also the nearest size.

    """
    if not (bad := undivided(mesh, sizes)):
        return
    name, size, logical = bad[0]
    into = _parts(mesh, logical)
    nearest = max(1, round(size / into)) * into
    devices = math.prod(mesh.values())
    ways = itertools.product(*[[n for n in range(1, devices + 1) if devices % n == 0]] * len(mesh))
    others = [dict(zip(mesh, way, strict=True)) for way in ways if math.prod(way) == devices]
    if fitting := [other for other in others if not undivided(other, sizes)]:
        best = min(fitting, key=lambda other: sum(abs(math.log(other[axis] / mesh[axis])) for axis in mesh))
        flags = " ".join(f"--mesh.{axis} {n}" for axis, n in best.items())
        advice = f"{f'take {nearest}, or ' if logical == 'batch' else ''}the nearest mesh that does is {flags}"
    else:
        advice = f"no mesh of {devices} devices divides it and all else: take {nearest}"
    axes = " ".join(f"{axis}={n}" for axis, n in mesh.items())
    raise InputError(f"{name} is {size}, which the mesh {axes} does not divide into {into} parts: {advice}")


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
