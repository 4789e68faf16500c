"""Attention as one TPU kernel: neither scores nor the bits of dropout leave the chip's own memory.

Per token and layer the scores of 16 heads x 128 tokens are as large as four hidden states, and a training step writes
and reads them some ten times. Here a row's queries, keys and values are read once, and all that is made of them stays
in vector memory: of short rows all scores, of long ones a tile of them at a time.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmlm.models import long_rows, short_rows
from jaxmlm.models.kernel_parts import Settings
from jaxmlm.models.kernel_sizes import SHORT
from jaxmlm.parallel import spec, without_mesh


def fused_attention(
    qkv: Float[Array, "B 3 L E"],
    heads: int,
    segments: Int[Array, "B L"],
    rope: Float[Array, "L 2 half"] | None = None,
    window: int | None = None,
    is_global: Bool[Array, ""] | None = None,
    drop: int = 0,
    key: Key[Array, ""] | None = None,
    interpret: bool = False,
) -> Float[Array, "B L E"]:
    """What `attention.attend` gives, with the same dropout; each device works on its own rows and heads.

    In long rows a query that sees nothing, which is padding, attends to nothing, where `attend` gives it a mean.

    Args:
        qkv: queries, keys and values, as one product makes them, and with E = H x K: as separate arrays, or with an
            axis of K, they would be copied into another layout.
        heads: H.
        segments: a token attends to those of its own segment; none attends to segment 0.
        rope: the table of rotary positions, by which queries and keys are rotated, of short rows within the kernel.
        window: with a window, only to those at most window // 2 tokens away; None: to all of the segment.
        is_global: with a window, true takes all of the segment all the same.
        drop: of 65,536, how many attention probabilities are dropped.
        key: for dropout; None is evaluation.
        interpret: run the kernel's program step by step on any backend, slowly.

    """
    words = jnp.zeros(2, jnp.uint32) if key is None else jax.random.key_data(key)[:2]
    whole = jnp.full((), window is None) if is_global is None else is_global
    tables = () if rope is None else (rope,)

    def local(
        first_row: Any, first_head: Any, qkv: Array, segments: Array, words: Array, whole: Array, *tables: Array
    ) -> Array:
        words = jax.lax.bitcast_convert_type(words, jnp.int32)
        scalars = jnp.stack([words[0], words[1], jnp.int32(first_row), jnp.int32(first_head), jnp.int32(whole)])
        own_heads = heads * qkv.shape[3] // width
        settings = Settings(own_heads, 0 if key is None else drop, window, interpret)
        segments = segments[:, None].astype(jnp.int32)
        if qkv.shape[2] <= SHORT:
            return short_rows.attend(settings, scalars, segments, tuple(map(_rotation, tables)), qkv)
        return long_rows.attend(settings, scalars, segments, _rotated(qkv, *tables) if tables else qkv)

    width = qkv.shape[3]
    arguments = (qkv, segments, words, whole, *tables)
    if without_mesh():
        return local(0, 0, *arguments)
    batch_axes, heads_axis = spec("batch", "heads")

    def on_device(qkv: Array, *others: Array) -> Array:
        # Dropout depends on the place in the whole batch and among all heads.
        first_row = jax.lax.axis_index(batch_axes) * qkv.shape[0]
        first_head = jax.lax.axis_index(heads_axis) * (heads * qkv.shape[3] // width)
        return local(first_row, first_head, qkv, *others)

    return jax.shard_map(
        on_device,
        in_specs=(
            spec("batch", None, None, "heads"),
            spec("batch", None),
            spec(None),
            spec(),
            *[spec(None, None, None) for _ in tables],
        ),
        out_specs=spec("batch", None, "heads"),
        check_vma=False,
    )(*arguments)


def _rotation(rope: Float[Array, "L 2 half"]) -> Float[Array, "2 L K"]:
    """Cosines, and sines that are negative in the first half: x cos + swapped x sin rotates the halves of x."""
    cos = rope[:, 0]
    sin = rope[:, 1]
    return jnp.stack([jnp.concatenate([cos, cos], axis=-1), jnp.concatenate([-sin, sin], axis=-1)])


def _rotated(qkv: Float[Array, "B 3 L E"], rope: Float[Array, "L 2 half"]) -> Float[Array, "B 3 L E"]:
    """Queries and keys rotated by their positions, values as they are; without an axis of K, which would be a copy."""
    width = qkv.shape[3]
    half = rope.shape[-1]
    cos, sin = (jnp.tile(x, width // (2 * half))[None, None] for x in _rotation(rope))
    in_first_half = jnp.arange(width) % (2 * half) < half
    exact = qkv.astype(jnp.float32)
    swapped = jnp.where(in_first_half, jnp.roll(exact, -half, axis=-1), jnp.roll(exact, half, axis=-1))
    values = jnp.arange(3)[:, None, None] == 2
    return jnp.where(values, qkv, (exact * cos + swapped * sin).astype(qkv.dtype))
