"""One table from logical axes to mesh axes.

Data parallelism, FSDP and tensor parallelism are one program: the sizes of the mesh axes choose between them, this
table says what each axis carries. Where no mesh is set (`jax.set_mesh`) there is nothing to partition, and everything
here but the table does nothing: a model is then plain JAX code on one device.
"""

import jax
from jax.sharding import PartitionSpec

RULES: dict[str, str | tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "embed": "fsdp",  # of a stored parameter; gathered again where the parameter is used
    "heads": "tensor",
    "mlp": "tensor",
    "vocab": "tensor",
}


def spec(*logical: str | None) -> PartitionSpec:
    """Look up how an array is partitioned, with or without a mesh.

    Args:
        logical: the logical name of each axis of the array, or None for an axis that is not partitioned.

    Returns:
        The mesh axes of each axis.

    Raises:
        KeyError: a name is not in `RULES`.

    >>> tuple(spec("batch", None, "heads"))
    (('data', 'fsdp'), None, 'tensor')
    """
    return PartitionSpec(*(None if name is None else RULES[name] for name in logical))


def without_mesh() -> bool:
    """Whether no mesh is set: the models then run as plain JAX code."""
    return jax.sharding.get_abstract_mesh().empty


def out_spec(*logical: str | None) -> PartitionSpec | None:
    """The `spec` of a result, as JAX's functions take it for `out_sharding`; None where no mesh is set."""
    return None if without_mesh() else spec(*logical)


def shard(x: jax.Array, *logical: str | None) -> jax.Array:
    """An array laid out by these logical axes; the array itself where no mesh is set."""
    return x if without_mesh() else jax.sharding.reshard(x, spec(*logical))


def gathered(parameter: jax.Array, *logical: str | None) -> jax.Array:
    """A stored parameter as it is used: its `embed` axis whole on every device, the others as stored.

    This is FSDP's all-gather, written where it happens; its transpose is the reduce-scatter of the gradient. The
    gradient of a parameter that was marked by `keep_unreduced` stays unreduced.

    Args:
        parameter: as it is stored.
        logical: the logical name of each of its axes.

    Returns:
        The parameter without its partition over `fsdp`; itself where no mesh is set.

    """
    if without_mesh():
        return parameter
    used = spec(*(None if name == "embed" else name for name in logical))
    if jax.typeof(parameter).sharding.spec.reduced:
        used = PartitionSpec(*used, reduced=frozenset(RULES["batch"]))
    return jax.sharding.reshard(parameter, used)


def keep_unreduced(parameter: jax.Array) -> jax.Array:
    """Mark a parameter so that its gradient stays per-device (unreduced) until `all_reduce`.

    Where gradients are summed in a loop, as over micro-batches, only their sum then goes from device to device.

    Args:
        parameter: as it is stored; its value does not change.

    Returns:
        The parameter; its gradient has on every device what the device's own rows add to it.

    """
    if jax.sharding.get_abstract_mesh().size <= 1:  # of no mesh it is 0
        return parameter
    partitions = jax.typeof(parameter).sharding.spec.partitions
    cut = {axis for axes in partitions for axis in ((axes,) if isinstance(axes, str) else axes or ())}
    return jax.sharding.reshard(parameter, PartitionSpec(*partitions, reduced=frozenset(RULES["batch"]) - cut))


def all_reduce(gradient: jax.Array) -> jax.Array:
    """Sum the gradient of a parameter that was marked by `keep_unreduced` over all devices.

    Args:
        gradient: unreduced.

    Returns:
        The gradient of all rows, partitioned as the parameter is stored.

    """
    if without_mesh():
        return gradient
    return jax.sharding.reshard(gradient, PartitionSpec(*jax.typeof(gradient).sharding.spec.partitions))
