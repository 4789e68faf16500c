"""The device mesh: `data` x `fsdp` x `tensor`, all explicit."""

from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding

from jaxmlm.errors import InputError
from jaxmlm.parallel.rules import spec


@dataclass(frozen=True)
class Mesh:
    """How many devices each mesh axis takes."""

    data: int = -1
    """Copies of the model, each with its part of the batch; -1: all devices that the other axes leave."""
    fsdp: int = 1
    """Parts into which each copy's parameters and optimizer state are cut."""
    tensor: int = 1
    """Parts into which heads, mlp and vocabulary of a layer are cut."""


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
    shape = (data, config.fsdp, config.tensor)
    return jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=(AxisType.Explicit,) * 3, devices=devices)


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


def mine(batch: Any) -> Any:
    """Of a batch that every host has whole, the rows that are this host's to place."""
    host, hosts = jax.process_index(), jax.process_count()
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
