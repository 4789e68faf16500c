"""What every model is made of: linear layers with sharded parameters, layer norm, dropout.

Why not `nnx.Linear`, `nnx.LayerNorm` and `nnx.Dropout`: here a parameter is partitioned by logical axes where it is
made, gathered where it is used (`parallel.gathered`) and cast to the dtype of its input, a layer norm computes in
float32 and returns the dtype of its input, and dropout is a function of its key, with no random state in the module.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend.random import threefry2x32_p
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Key, UInt

from jaxmlm.parallel import gathered, out_spec, platform, without_mesh

Dtype = Literal["float32", "bfloat16"]
Activation = Literal["gelu", "gelu_tanh", "geglu", "geglu_tanh"]
"""Exact GELU or its tanh approximation, alone or gating a second map (GeGLU, Shazeer 2020, arXiv 2002.05202)."""


class Dense(nnx.Module):
    """x @ kernel + bias over the last axis: kernel [in, out], stored by the logical axes, used in x's dtype."""

    def __init__(
        self,
        key: Key[Array, ""],
        shape: tuple[int, int],
        axes: tuple[str | None, str | None],
        init: float,
        bias: bool = True,
    ):
        self.kernel = nnx.Param(init * jax.random.normal(key, shape, jnp.float32, out_sharding=out_spec(*axes)))
        bias_spec = out_spec(_used(axes[1]))
        self.bias = nnx.Param(jnp.zeros(shape[1:], jnp.float32, out_sharding=bias_spec)) if bias else None
        self.axes = axes

    def __call__(self, x: Float[Array, "*B F"]) -> Float[Array, "*B D"]:
        """Map the last axis of x."""
        kernel = gathered(self.kernel[...], *self.axes).astype(x.dtype)
        out = out_spec("batch", *(None,) * (x.ndim - 2), _used(self.axes[1]))
        y = product("...f,fd->...d", x, kernel, out)
        return y if self.bias is None else y + lift(self.bias[...], y)


class LayerNorm(nnx.Module):
    """Layer norm over the last axis, in float32 whatever the dtype of x."""

    def __init__(self, width: int, norm_eps: float, bias: bool = True):
        self.scale = nnx.Param(jnp.ones(width, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(width, jnp.float32)) if bias else None
        self.norm_eps = norm_eps

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Normalise the last axis of x."""
        y = x.astype(jnp.float32)
        mean = y.mean(-1, keepdims=True)
        variance = jnp.square(y - mean).mean(-1, keepdims=True)
        y = (y - mean) * jax.lax.rsqrt(variance + self.norm_eps)
        y = y * lift(self.scale[...], y)
        return (y if self.bias is None else y + lift(self.bias[...], y)).astype(x.dtype)


def product(
    formula: str,
    x: Float[Array, "..."],
    kernel: Float[Array, "..."],
    out_sharding: PartitionSpec | None,
    dtype: jax.typing.DTypeLike | None = None,
) -> Float[Array, "..."]:
    """Multiply the last axes of x by those axes of the kernel: `jnp.einsum`, and on one CPU device two matrices.

    Of rows in two axes XLA's CPU compiler makes a transposed copy of the result's gradient, to get that of the kernel:
    of the logits that takes longer than the product itself.

    Args:
        formula: as `jnp.einsum` takes it; what is summed over comes last in x, and first or last in the kernel.
        x: rows.
        kernel: a parameter.
        out_sharding: of the result.
        dtype: of the result; None is that of x.

    >>> product("BLD,VD->BLV", jnp.ones((2, 3, 4)), jnp.ones((5, 4)), None).shape
    (2, 3, 5)

    """
    if platform() != "cpu" or jax.sharding.get_abstract_mesh().size > 1:
        return jnp.einsum(formula, x, kernel, out_sharding=out_sharding, preferred_element_type=dtype)
    axes, result = formula.split(",")[1].split("->")
    summed = sum(axis not in result for axis in axes)
    replicated = None if without_mesh() else PartitionSpec(None, None)
    *lead, inner = *x.shape[: x.ndim - summed], math.prod(x.shape[x.ndim - summed :])
    rows = jnp.reshape(x, (-1, inner), out_sharding=replicated)
    if axes[0] in result:  # the kernel's summed axes come last
        free = kernel.shape[:-summed]
        matrix = jnp.reshape(kernel, (-1, inner), out_sharding=replicated).T
    else:
        free = kernel.shape[summed:]
        matrix = jnp.reshape(kernel, (inner, -1), out_sharding=replicated)
    y = jnp.matmul(rows, matrix, preferred_element_type=dtype)
    return jnp.reshape(y, (*lead, *free), out_sharding=out_sharding)


def gelu(kind: Activation, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The GELU in this kind of activation."""
    return jax.nn.gelu(x, approximate=kind.endswith("tanh"))


def lift(parameter: Float[Array, "..."], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """A parameter for the last axes of x in x's rank and dtype: broadcasting is written, never guessed."""
    return jax.lax.expand_dims(parameter, range(x.ndim - parameter.ndim)).astype(x.dtype)


def dropout(key: Key[Array, ""] | None, rate: float, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Drop entries of x, sharded like x.

    What is drawn depends on the key and the index of the entry in x, so it is the same on every mesh.

    Args:
        key: of this draw; None (evaluation) returns x itself.
        rate: probability that an entry becomes 0, rounded to 1 / 65,536; the others are scaled by 1 / (1 - rate) of the
            rounded rate. 0 returns x itself.
        x: any array.

    """
    drop = dropped_of_65536(rate)
    if key is None or drop == 0:
        return x
    return jnp.where(_keeps(key, drop, x), x * (2**16 / (2**16 - drop)), jnp.zeros((), x.dtype))


def _keeps(key: Key[Array, ""], drop: int, x: Float[Array, "*B F"]) -> Bool[Array, "*B F"]:
    """Which entries of x stay; on a TPU a kernel draws them where it can, the same ones."""
    if platform() == "tpu":
        from jaxmlm.models import dropout_kernel  # here: Pallas takes a third of a second to import

        if dropout_kernel.fits(x):
            return dropout_kernel.kept(key, drop, x) > 0
    return _draw(key, x) >= drop


def dropped_of_65536(rate: float) -> int:
    """The dropout rate as a number of 16 bits: an entry whose random bits are lower is dropped."""
    return round(rate * 2**16)


def _draw(key: Key[Array, ""], x: Float[Array, "*B F"]) -> UInt[Array, "*B F"]:
    """16 random bits for every entry of x, sharded like x.

    Why threefry's primitive and not `jax.random.bits`: that spends a block of 64 bits on each number, whatever its
    width, and dropout draws more numbers than all else. Here a block serves four entries, those a quarter of the last
    axis apart. `jax.extend.random` offers the primitive, without the stability of `jax.random`.
    """
    *lead, last = x.shape
    shape = (*lead, -(-last // 4))
    sharding = None if without_mesh() else jax.typeof(x).sharding
    index = [jax.lax.broadcasted_iota(jnp.uint32, shape, axis, out_sharding=sharding) for axis in range(x.ndim)]
    inner = index[-1]  # the index within the row, which 32 bits can hold; the row is the block's other half
    for axis in range(x.ndim - 2, 0, -1):
        inner = inner + index[axis] * np.uint32(math.prod(shape[axis + 1 :]))
    outer = index[0] if x.ndim > 1 else jnp.zeros_like(inner)
    first, second = jax.random.key_data(key)[:2]
    words = threefry2x32_p.bind(
        *(jnp.broadcast_to(k, shape, out_sharding=sharding) for k in (first, second)), outer, inner
    )
    if platform() == "tpu":  # whose compiler would otherwise compute each block for each of its four entries
        words = jax.lax.optimization_barrier(words)
    halves = [half for word in words for half in (word & 0xFFFF, word >> 16)]
    return jnp.concatenate(halves, axis=-1)[..., :last]


def _used(axis: str | None) -> str | None:
    return None if axis == "embed" else axis
