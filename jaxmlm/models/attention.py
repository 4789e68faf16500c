"""Bidirectional self-attention: tokens of the same segment see each other, in a window or at any distance."""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmlm.models.layers import dropout, lift
from jaxmlm.models.splash import FITS, splash, suits
from jaxmlm.parallel import gathered, platform, spec

Kernel = Literal["auto", "plain", "splash"]


class AttentionInputs(NamedTuple):
    """What a layer's attention goes by: who sees whom [B, 1, L, L], and the rope of rotary positions [L, 2, K / 2].

    `segments` [B, L] and `whole`, whether a layer of a windowed encoder sees its whole document, say the first again.
    """

    visible: Array
    rope: Array | None
    segments: Array
    whole: Array | None = None


class Attention(nnx.Module):
    """Multi-head self-attention. Kernels are stored as [D, 3, H, K] and [H, K, D]."""

    def __init__(
        self,
        key: Key[Array, ""],
        width: int,
        heads: int,
        scale: float,
        drop: float,
        bias: bool = True,
        window: int | None = None,
        kernel: Kernel = "plain",
    ):
        in_key, out_key = jax.random.split(key)
        size = width // heads
        shape = (width, 3, heads, size)
        self.qkv = nnx.Param(scale * jax.random.normal(in_key, shape, out_sharding=spec("embed", None, "heads", None)))
        self.qkv_bias = nnx.Param(jnp.zeros(shape[1:], out_sharding=spec(None, "heads", None))) if bias else None
        out = spec("heads", None, "embed")
        self.out = nnx.Param(scale * jax.random.normal(out_key, (heads, size, width), out_sharding=out))
        self.out_bias = nnx.Param(jnp.zeros(width)) if bias else None
        self.drop, self.window, self.kernel = drop, window, kernel

    def __call__(
        self,
        x: Float[Array, "B L D"],
        inputs: AttentionInputs,
        key: Key[Array, ""] | None,
        at: Int[Array, "B P"] | None = None,
    ) -> Float[Array, "B P D"]:
        """Attend from every token, or from those at these positions, to the visible ones."""
        if at is None:
            q, k, v = self._project(x, 0, 3)
            if inputs.rope is not None:
                q, k = _rotate(q, inputs.rope[None]), _rotate(k, inputs.rope[None])
            attended = self._attend(q, k, v, inputs, key)
        else:
            (q,), (k, v) = self._project(pick(x, at), 0, 1), self._project(x, 1, 3)
            if inputs.rope is not None:
                rope = inputs.rope.at[at].get(out_sharding=spec("batch", None, None, None))
                q, k = _rotate(q, rope), _rotate(k, inputs.rope[None])
            visible = jnp.take_along_axis(inputs.visible, at[:, None, :, None], axis=2)
            attended = attend(q, k, v, visible, self.drop, key)
        kernel = gathered(self.out[...], "heads", None, "embed").astype(x.dtype)
        out = jnp.einsum("BLHK,HKD->BLD", attended, kernel, out_sharding=spec("batch", None, None))
        return out if self.out_bias is None else out + lift(self.out_bias[...], out)

    def _project(self, x: Float[Array, "B L D"], begin: int, end: int) -> list[Float[Array, "B L H K"]]:
        """Of queries, keys and values (0, 1, 2) those from `begin` to `end`, in one product."""
        kernel = gathered(self.qkv[...], "embed", None, "heads", None)[:, begin:end].astype(x.dtype)
        sharded = spec("batch", None, None, "heads", None)
        found = jnp.einsum("BLD,DcHK->BLcHK", x, kernel, out_sharding=sharded)
        found = found if self.qkv_bias is None else found + lift(self.qkv_bias[...][begin:end], found)
        return [found[:, :, i] for i in range(end - begin)]

    def _attend(self, q: Array, k: Array, v: Array, inputs: AttentionInputs, key: Array | None) -> Array:
        def plain(q: Array, k: Array, v: Array) -> Array:
            return attend(q, k, v, inputs.visible, self.drop, key)

        drops = key is not None and self.drop > 0  # which the kernel cannot, as other lengths
        fits = suits(q.shape[1]) if self.kernel == "auto" else q.shape[1] % FITS == 0
        if self.kernel == "plain" or drops or not fits:
            return plain(q, k, v)
        fast = partial(splash, segments=inputs.segments, window=self.window, whole=inputs.whole)
        # Chosen when the program is lowered, so that one compiled ahead of time for a TPU has the kernel.
        other = plain if self.kernel == "auto" else partial(fast, interpret=True)
        return jax.lax.platform_dependent(q, k, v, tpu=fast, default=other)


def attend(
    q: Float[Array, "B P H K"],
    k: Float[Array, "B L H K"],
    v: Float[Array, "B L H K"],
    visible: Bool[Array, "B 1 P L"],
    drop: float = 0.0,
    key: Key[Array, ""] | None = None,
) -> Float[Array, "B P H K"]:
    """softmax(q k^T / sqrt(K)) v over the visible tokens, the softmax in float32.

    On an accelerator without dropout JAX's own function, which it may fuse; else the einsums below, the reference. On
    the CPU they take half the time of that function: one transposition of each input, and the division comes last.
    """
    if platform() != "cpu" and (key is None or drop == 0.0):
        return jax.nn.dot_product_attention(q, k, v, mask=visible)
    q, k, v = (x.swapaxes(1, 2) for x in (q * q.shape[-1] ** -0.5, k, v))
    scores = jnp.einsum("BHLK,BHMK->BHLM", q, k).astype(jnp.float32)
    # A row that sees nothing (padding) stays finite: the lowest number, not minus infinity.
    scores = jnp.where(visible, scores, jnp.finfo(jnp.float32).min)
    shares = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    total = shares.sum(-1, keepdims=True)
    attended = jnp.einsum("BHLM,BHMK->BHLK", dropout(key, drop, shares).astype(v.dtype), v)
    return (attended / total.astype(v.dtype)).swapaxes(1, 2)


def pick(x: Float[Array, "B L D"], at: Int[Array, "B P"]) -> Float[Array, "B P D"]:
    """The tokens at these positions."""
    return jnp.take_along_axis(x, at[:, :, None], axis=1)


def visibility(segments: Int[Array, "B L"], window: int | None = None) -> Bool[Array, "B 1 L L"]:
    """Which token sees which: those of its own segment; segment 0, padding, is seen by nobody else.

    With a window only those at most window // 2 tokens away, as ModernBERT counts it.
    """
    seen = (segments[:, None, :, None] == segments[:, None, None, :]) & (segments > 0)[:, None, None, :]
    if window is None:
        return seen
    at = jnp.arange(segments.shape[1])
    return seen & (jnp.abs(at[:, None] - at[None, :]) <= window // 2)[None, None]


def segment_positions(segments: Int[Array, "B L"]) -> Int[Array, "B L"]:
    """The place of every token in its own document, counted from 0.

    >>> segment_positions(jnp.array([[1, 1, 1, 2, 2, 0]])).tolist()
    [[0, 1, 2, 0, 1, 0]]
    """
    at = jnp.arange(segments.shape[1], dtype=jnp.int32)[None]
    begins = jnp.pad(segments[:, 1:] != segments[:, :-1], ((0, 0), (1, 0)))
    return at - jax.lax.cummax(jnp.where(begins, at, 0), axis=1)


def rope_table(length: int, size: int, base: float) -> Float[Array, "L 2 half"]:
    """Cosines and sines of rotary positions (Su et al. 2021, arXiv 2104.09864) for heads of this size.

    Made by NumPy, a constant of the program: cosines within it are computed again for every row and head by XLA's CPU
    compiler, which fuses them into their uses.
    """
    half = size // 2
    angles = np.arange(length)[:, None] * base ** (-np.arange(half) / half)
    return jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], 1), jnp.float32)


def _rotate(x: Float[Array, "B L H K"], rope: Float[Array, "_ L 2 half"]) -> Float[Array, "B L H K"]:
    """Rotary positions: the halves of each head rotated against each other."""
    half, rope = x.shape[-1] // 2, rope[:, :, None].astype(x.dtype)
    cos, sin = rope[..., 0, :], rope[..., 1, :]
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
