"""One table from logical axes to mesh axes.

Data parallelism, FSDP and tensor parallelism are one program: the sizes of the mesh axes choose between
them, this table says what each axis carries.
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
    """The partition of an array whose axes have these logical names (None: not partitioned).

    >>> tuple(spec("batch", None, "heads"))
    (('data', 'fsdp'), None, 'tensor')
    """
    return PartitionSpec(*(None if name is None else RULES[name] for name in logical))


def gathered(parameter: jax.Array, *logical: str | None) -> jax.Array:
    """A stored parameter as it is used: its `embed` axis whole on every device, the others as stored.

    This is FSDP's all-gather, written where it happens; its transpose is the reduce-scatter of the gradient. That of a
    parameter that is `apart` leaves the gradient apart.
    """
    used = spec(*(None if name == "embed" else name for name in logical))
    if jax.typeof(parameter).sharding.spec.reduced:
        used = PartitionSpec(*used, reduced=frozenset(RULES["batch"]))
    return jax.sharding.reshard(parameter, used)


def keep_unreduced(x: jax.Array) -> jax.Array:
    """An array with a gradient of which every device keeps what its own rows add, until it is `joined`.

    Where gradients are summed in a loop, they so go from device to device once, as the sum.
    """
    partitions = jax.typeof(x).sharding.spec.partitions
    cut = {axis for axes in partitions for axis in ((axes,) if isinstance(axes, str) else axes or ())}
    return jax.sharding.reshard(x, PartitionSpec(*partitions, reduced=frozenset(RULES["batch"]) - cut))


def all_reduce(gradient: jax.Array) -> jax.Array:
    """A gradient that is keep_unreduced, added up over all devices."""
    return jax.sharding.reshard(gradient, PartitionSpec(*jax.typeof(gradient).sharding.spec.partitions))
