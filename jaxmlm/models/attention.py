"""Bidirectional self-attention: tokens of the same segment see each other."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmlm.models.layers import dropout, lift
from jaxmlm.parallel import gathered, spec


class Attention(nnx.Module):
    """Multi-head self-attention. Kernels are stored as [D, 3, H, K] and [H, K, D]."""

    def __init__(self, key: Key[Array, ""], width: int, heads: int, scale: float, rope: bool, drop: float):
        in_key, out_key = jax.random.split(key)
        size = width // heads
        shape = (width, 3, heads, size)
        self.qkv = nnx.Param(scale * jax.random.normal(in_key, shape, out_sharding=spec("embed", None, "heads", None)))
        self.qkv_bias = nnx.Param(jnp.zeros(shape[1:], out_sharding=spec(None, "heads", None)))
        out = spec("heads", None, "embed")
        self.out = nnx.Param(scale * jax.random.normal(out_key, (heads, size, width), out_sharding=out))
        self.out_bias = nnx.Param(jnp.zeros(width))
        self.rope, self.drop = rope, drop

    def __call__(
        self, x: Float[Array, "B L D"], visible: Bool[Array, "B 1 L L"], key: Key[Array, ""] | None
    ) -> Float[Array, "B L D"]:
        """Attend from every token to the visible ones."""
        qkv_kernel = gathered(self.qkv[...], "embed", None, "heads", None).astype(x.dtype)
        out_kernel = gathered(self.out[...], "heads", None, "embed").astype(x.dtype)
        sharded = spec("batch", None, None, "heads", None)
        qkv = jnp.einsum("BLD,DcHK->BLcHK", x, qkv_kernel, out_sharding=sharded)
        qkv = qkv + lift(self.qkv_bias[...], qkv)
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        if self.rope:
            q, k = _rotate(q), _rotate(k)
        attended = attend(q, k, v, visible, self.drop, key)
        out = jnp.einsum("BLHK,HKD->BLD", attended, out_kernel, out_sharding=spec("batch", None, None))
        return out + lift(self.out_bias[...], out)


def attend(
    q: Float[Array, "B L H K"],
    k: Float[Array, "B L H K"],
    v: Float[Array, "B L H K"],
    visible: Bool[Array, "B 1 L L"],
    drop: float = 0.0,
    key: Key[Array, ""] | None = None,
) -> Float[Array, "B L H K"]:
    """softmax(q k^T / sqrt(K)) v over the visible tokens, the softmax in float32; the reference path."""
    scores = jnp.einsum("BLHK,BMHK->BHLM", q, k).astype(jnp.float32) * q.shape[-1] ** -0.5
    # A row that sees nothing (padding) stays finite: the lowest number, not minus infinity.
    scores = jnp.where(visible, scores, jnp.finfo(jnp.float32).min)
    shares = dropout(key, drop, jax.nn.softmax(scores, axis=-1)).astype(v.dtype)
    return jnp.einsum("BHLM,BMHK->BLHK", shares, v)


def visibility(segments: Int[Array, "B L"]) -> Bool[Array, "B 1 L L"]:
    """Which token sees which: those of its own segment; segment 0, padding, is seen by nobody else."""
    return (segments[:, None, :, None] == segments[:, None, None, :]) & (segments > 0)[:, None, None, :]


def _rotate(x: Float[Array, "B L H K"]) -> Float[Array, "B L H K"]:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864), base 10,000, halves rotated against each other."""
    half = x.shape[-1] // 2
    frequency = 10_000.0 ** (-jnp.arange(half) / half)
    angle = (jnp.arange(x.shape[1])[:, None] * frequency[None, :])[None, :, None, :]
    cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
