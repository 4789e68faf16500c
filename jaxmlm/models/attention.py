"""Bidirectional self-attention: tokens attend to those of their own segment, in a window or at any distance."""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmlm.models.kernel_sizes import fits_fused, pays_fused
from jaxmlm.models.layers import dropout, dropped_of_65536, lift, product
from jaxmlm.models.splash import BLOCK, pays, splash
from jaxmlm.parallel import gathered, out_spec, platform, without_mesh

Kernel = Literal["auto", "plain", "fused", "splash"]


class AttentionInputs(NamedTuple):
    """What the attention of a layer reads beside its hidden states.

    Attributes:
        visible: [B, 1, L, L] bool, which token attends to which.
        rope: [L, 2, K / 2], the table of rotary positions, or None with learned ones.
        segments: [B, L], the documents; what `visible` is made of, for kernels that take no mask.
        is_global: bool, whether a layer of an encoder with a window attends to the whole document, for the same.

    """

    visible: Array
    rope: Array | None
    segments: Array
    is_global: Array | None = None


class Attention(nnx.Module):
    """Multi-head self-attention. Kernels are stored as [D, 3, H, K] and [H, K, D]."""

    def __init__(
        self,
        key: Key[Array, ""],
        width: int,
        heads: int,
        init: float,
        dropout: float,
        bias: bool = True,
        window: int | None = None,
        kernel: Kernel = "plain",
    ):
        in_key, out_key = jax.random.split(key)
        head_size = width // heads
        qkv_shape = (width, 3, heads, head_size)
        qkv_spec = out_spec("embed", None, "heads", None)
        self.qkv = nnx.Param(init * jax.random.normal(in_key, qkv_shape, jnp.float32, out_sharding=qkv_spec))
        bias_spec = out_spec(None, "heads", None)
        self.qkv_bias = nnx.Param(jnp.zeros(qkv_shape[1:], jnp.float32, out_sharding=bias_spec)) if bias else None
        kernel_spec = out_spec("heads", None, "embed")
        out = jax.random.normal(out_key, (heads, head_size, width), jnp.float32, out_sharding=kernel_spec)
        self.out = nnx.Param(init * out)
        self.out_bias = nnx.Param(jnp.zeros(width, jnp.float32)) if bias else None
        self.dropout = dropout
        self.window = window
        self.kernel = kernel

    def __call__(
        self,
        x: Float[Array, "B L D"],
        inputs: AttentionInputs,
        key: Key[Array, ""] | None,
        positions: Int[Array, "B P"] | None = None,
    ) -> Float[Array, "B P D"]:
        """Attend to the visible tokens.

        Args:
            x: hidden states of every token.
            inputs: who attends to whom.
            key: for dropout; None is evaluation.
            positions: attend from the tokens at these positions only, without dropout; None: from all.

        """
        kernel = gathered(self.out[...], "heads", None, "embed").astype(x.dtype)
        where = out_spec("batch", None, None)
        if positions is None and self._fuses(x, key):
            attended = self._attend_fused(x, inputs, key)
            out = jnp.einsum("BLE,ED->BLD", attended, _flat(kernel, 0, "heads", None), out_sharding=where)
        else:
            attended = (
                self._attend_from_all(x, inputs, key) if positions is None else self._attend_from(x, inputs, positions)
            )
            out = product("BLHK,HKD->BLD", attended, kernel, where)
        return out if self.out_bias is None else out + lift(self.out_bias[...], out)

    def _fuses(self, x: Float[Array, "B L D"], key: Key[Array, ""] | None) -> bool:
        """Whether a kernel of our own attends: on a TPU, or anywhere when it is asked for (by tests)."""
        length = x.shape[1]
        auto = self.kernel == "auto" and platform() == "tpu" and pays_fused(length, self._drops(key))
        if not auto and self.kernel != "fused":
            return False
        heads, head_size, _ = self.out.shape
        tensor = 1 if without_mesh() else jax.sharding.get_abstract_mesh().shape["tensor"]
        return fits_fused(length, heads // tensor, head_size, str(x.dtype))

    def _drops(self, key: Key[Array, ""] | None) -> bool:
        return key is not None and self.dropout > 0

    def _attend_fused(
        self, x: Float[Array, "B L D"], inputs: AttentionInputs, key: Key[Array, ""] | None
    ) -> Float[Array, "B L E"]:
        # Imported here, as in `splash`.
        from jaxmlm.models.fused_attention import fused_attention

        kernel = gathered(self.qkv[...], "embed", None, "heads", None).astype(x.dtype)
        kernel = _flat(kernel, 2, None, None, "heads")
        where = out_spec("batch", None, None, "heads")
        qkv = jnp.einsum("BLD,DcE->BcLE", x, kernel, out_sharding=where)
        if self.qkv_bias is not None:
            bias = _flat(self.qkv_bias[...], 1, None, "heads")
            qkv = qkv + lift(bias[:, None], qkv)
        return fused_attention(
            qkv,
            self.out.shape[0],
            inputs.segments,
            inputs.rope,
            self.window,
            inputs.is_global,
            dropped_of_65536(self.dropout),
            key,
            interpret=platform() != "tpu",
        )

    def _attend_from_all(
        self, x: Float[Array, "B L D"], inputs: AttentionInputs, key: Key[Array, ""] | None
    ) -> Float[Array, "B L H K"]:
        q, k, v = self._project(x, 0, 3)
        if inputs.rope is not None:
            rope = inputs.rope[None]
            q = _rotate(q, rope)
            k = _rotate(k, rope)

        def plain(q: Array, k: Array, v: Array) -> Array:
            return attend(q, k, v, inputs.visible, self.dropout, key)

        # What `splash` cannot compute: attention dropout, and other lengths.
        fits = pays(q.shape[1]) if self.kernel == "auto" else q.shape[1] % BLOCK == 0
        if self.kernel in ("plain", "fused") or self._drops(key) or not fits:
            return plain(q, k, v)
        on_tpu = partial(splash, segments=inputs.segments, window=self.window, is_global=inputs.is_global)
        # Chosen when the program is lowered, so that one compiled ahead of time for a TPU has the kernel.
        elsewhere = plain if self.kernel == "auto" else partial(on_tpu, interpret=True)
        return jax.lax.platform_dependent(q, k, v, tpu=on_tpu, default=elsewhere)

    def _attend_from(
        self, x: Float[Array, "B L D"], inputs: AttentionInputs, positions: Int[Array, "B P"]
    ) -> Float[Array, "B P H K"]:
        (q,) = self._project(take_positions(x, positions), 0, 1)
        k, v = self._project(x, 1, 3)
        if inputs.rope is not None:
            own_rope = inputs.rope.at[positions].get(out_sharding=out_spec("batch", None, None, None))
            q = _rotate(q, own_rope)
            k = _rotate(k, inputs.rope[None])
        visible = jnp.take_along_axis(inputs.visible, positions[:, None, :, None], axis=2)
        return attend(q, k, v, visible)

    def _project(self, x: Float[Array, "B L D"], begin: int, end: int) -> list[Float[Array, "B L H K"]]:
        """Compute those from `begin` to `end` of queries, keys and values (0, 1, 2), in one product."""
        kernel = gathered(self.qkv[...], "embed", None, "heads", None)[:, begin:end].astype(x.dtype)
        sharding = out_spec("batch", None, None, "heads", None)
        projected = product("BLD,DcHK->BLcHK", x, kernel, sharding)
        if self.qkv_bias is not None:
            projected = projected + lift(self.qkv_bias[...][begin:end], projected)
        # The gradient of a split is a concatenation, that of slices pads and adds.
        return [x.squeeze(2) for x in jax.lax.split(projected, [1] * (end - begin), axis=2)]


def _flat(x: Array, axis: int, *logical: str | None) -> Array:
    """A parameter with heads and their columns, `axis` and the next, as one axis; `logical` are those of the result."""
    shape = (*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :])
    where = out_spec(*logical)
    if where is not None:  # a parameter marked by `keep_unreduced` stays so
        where = PartitionSpec(*where, reduced=jax.typeof(x).sharding.spec.reduced)
    return jnp.reshape(x, shape, out_sharding=where)


def attend(
    q: Float[Array, "B P H K"],
    k: Float[Array, "B L H K"],
    v: Float[Array, "B L H K"],
    visible: Bool[Array, "B 1 P L"],
    dropout_rate: float = 0.0,
    key: Key[Array, ""] | None = None,
) -> Float[Array, "B P H K"]:
    """softmax(q k^T / sqrt(K)) v over the visible tokens, the softmax in float32.

    On an accelerator without dropout JAX's own function, which it may fuse; else the einsums below, the reference. On
    the CPU they take half the time of that function: one transposition of each input, and the division comes last.

    Args:
        q: queries.
        k: keys.
        v: values.
        visible: which key each query attends to. The output of a query that sees none (padding) is finite.
        dropout_rate: of the attention probabilities.
        key: for dropout; None is evaluation.

    """
    if platform() != "cpu" and (key is None or dropout_rate == 0.0):
        return jax.nn.dot_product_attention(q, k, v, mask=visible)
    q = (q * q.shape[-1] ** -0.5).swapaxes(1, 2)
    k = k.swapaxes(1, 2)
    v = v.swapaxes(1, 2)
    scores = jnp.einsum("BHLK,BHMK->BHLM", q, k).astype(jnp.float32)
    # A row that sees nothing (padding) stays finite: the lowest number, not minus infinity.
    scores = jnp.where(visible, scores, jnp.finfo(jnp.float32).min)
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    total = weights.sum(-1, keepdims=True)
    attended = jnp.einsum("BHLM,BHMK->BHLK", dropout(key, dropout_rate, weights).astype(v.dtype), v)
    return (attended / total.astype(v.dtype)).swapaxes(1, 2)


def take_positions(x: Float[Array, "B L D"], positions: Int[Array, "B P"]) -> Float[Array, "B P D"]:
    """The hidden states at these positions of each row."""
    return jnp.take_along_axis(x, positions[:, :, None], axis=1)


def visibility(segments: Int[Array, "B L"], window: int | None = None) -> Bool[Array, "B 1 L L"]:
    """Which token attends to which: to those of its own segment; none attends to segment 0, which is padding.

    With a window only to those at most window // 2 tokens away, as ModernBERT counts it.
    """
    visible = (segments[:, None, :, None] == segments[:, None, None, :]) & (segments > 0)[:, None, None, :]
    if window is None:
        return visible
    position = jnp.arange(segments.shape[1])
    return visible & (jnp.abs(position[:, None] - position[None, :]) <= window // 2)[None, None]


def segment_positions(segments: Int[Array, "B L"]) -> Int[Array, "B L"]:
    """The position of every token in its own document, counted from 0.

    >>> segment_positions(jnp.array([[1, 1, 1, 2, 2, 0]])).tolist()
    [[0, 1, 2, 0, 1, 0]]
    """
    position = jnp.arange(segments.shape[1], dtype=jnp.int32)[None]
    starts = jnp.pad(segments[:, 1:] != segments[:, :-1], ((0, 0), (1, 0)))
    return position - jax.lax.cummax(jnp.where(starts, position, 0), axis=1)


def rope_table(length: int, head_size: int, base: float) -> Float[Array, "L 2 half"]:
    """Cosines and sines of rotary position embeddings (Su et al. 2021, arXiv 2104.09864).

    Made by NumPy, a constant of the program: cosines within it are computed again for every row and head by XLA's CPU
    compiler, which fuses them into their uses.
    """
    half = head_size // 2
    angles = np.arange(length)[:, None] * base ** (-np.arange(half) / half)
    return jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], 1), jnp.float32)


def _rotate(x: Float[Array, "B L H K"], rope: Float[Array, "_ L 2 half"]) -> Float[Array, "B L H K"]:
    """Rotary positions: the halves of each head rotated against each other."""
    half = x.shape[-1] // 2
    rope = rope[:, :, None].astype(x.dtype)
    cos = rope[..., 0, :]
    sin = rope[..., 1, :]
    a = x[..., :half]
    b = x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
