"""What every part of a model is made of: sharded parameters, linear maps, layer norm, dropout."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from jaxmlm.parallel import gathered, spec

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
        scale: float,
        bias: bool = True,
    ):
        self.kernel = nnx.Param(scale * jax.random.normal(key, shape, out_sharding=spec(*axes)))
        self.bias = nnx.Param(jnp.zeros(shape[1:], out_sharding=spec(_used(axes[1])))) if bias else None
        self.axes = axes

    def __call__(self, x: Float[Array, "*B F"]) -> Float[Array, "*B D"]:
        """Map the last axis of x."""
        kernel = gathered(self.kernel[...], *self.axes).astype(x.dtype)
        out = spec("batch", *(None,) * (x.ndim - 2), _used(self.axes[1]))
        y = jnp.einsum("...f,fd->...d", x, kernel, out_sharding=out)
        return y if self.bias is None else y + lift(self.bias[...], y)


class LayerNorm(nnx.Module):
    """Layer norm over the last axis, in float32 whatever the dtype of x."""

    def __init__(self, width: int, epsilon: float, bias: bool = True):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width)) if bias else None
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Normalise the last axis of x."""
        y = x.astype(jnp.float32)
        mean = y.mean(-1, keepdims=True)
        variance = jnp.square(y - mean).mean(-1, keepdims=True)
        y = (y - mean) * jax.lax.rsqrt(variance + self.epsilon)
        y = y * lift(self.scale[...], y)
        return (y if self.bias is None else y + lift(self.bias[...], y)).astype(x.dtype)


def gelu(kind: Activation, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The GELU in this kind of activation."""
    return jax.nn.gelu(x, approximate=kind.endswith("tanh"))


def lift(parameter: Float[Array, "..."], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """A parameter for the last axes of x in x's rank and dtype: broadcasting is written, never guessed."""
    return jax.lax.expand_dims(parameter, range(x.ndim - parameter.ndim)).astype(x.dtype)


def dropout(key: Key[Array, ""] | None, rate: float, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Drop entries of x, sharded like x; without a key (evaluation) or at rate 0 x itself."""
    if key is None or rate == 0.0:
        return x
    kept = jax.random.bernoulli(key, 1.0 - rate, x.shape, out_sharding=jax.typeof(x).sharding.spec)
    return jnp.where(kept, x / (1.0 - rate), jnp.zeros((), x.dtype))


def _used(axis: str | None) -> str | None:
    return None if axis == "embed" else axis
