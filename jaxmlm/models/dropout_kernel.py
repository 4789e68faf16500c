"""Which entries dropout keeps, drawn by a TPU kernel: a byte an entry is written, where XLA writes each random word.

XLA computes a block of threefry's bits again for each of the four entries that it serves, or writes the words, their
halves and the comparison to memory one after the other. Within a kernel all of that stays in registers.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.extend.random import threefry2x32_p
from jaxtyping import Array, Float, Int, Int8, Key, UInt

from jaxmlm.parallel import spec, without_mesh

ROWS = 128
"""Rows of the last two axes that are drawn at a time."""


def kept(
    key: Key[Array, ""], drop: int, x: Float[Array, "B *H L F"], interpret: bool = False
) -> Int8[Array, "B *H L F"]:
    """1 for what dropout keeps and 0 for what it drops, as `layers.dropout` draws them; each device draws its own.

    Args:
        key: of this draw.
        drop: of 65,536, how many entries are dropped.
        x: hidden states [B, L, D] or attention probabilities [B, H, L, L], of which only shape and sharding count.
        interpret: run the kernel's program step by step on any backend, slowly.

    """
    words = jax.lax.bitcast_convert_type(jax.random.key_data(key)[:2], jnp.int32)

    def local(words: Array, like: Array, first_row: Any, first_head: Any) -> Array:
        batch, *middle, length, last = like.shape
        heads = middle[0] if middle else 1
        scalars = jnp.stack([words[0], words[1], jnp.int32(first_row), jnp.int32(first_head)])
        tile = min(length, ROWS)

        def draw(scalars: Any, out: Any) -> None:
            shape = (tile, last // 4)
            query = pl.program_id(2) * tile + jax.lax.broadcasted_iota(jnp.int32, shape, 0)
            row = scalars[2] + pl.program_id(0)
            head = scalars[3] + pl.program_id(1)
            inner = (head * length + query) * shape[1] + jax.lax.broadcasted_iota(jnp.int32, shape, 1)
            bits = jnp.concatenate(block_bits(scalars[0], scalars[1], row, inner), axis=1)
            below = jax.lax.shift_right_logical(bits.astype(jnp.int32) - drop, 31)  # the sign: a TPU v4 cannot compare
            out[0, 0] = (1 - below).astype(jnp.int8)

        mask = pl.pallas_call(
            draw,
            grid=(batch, heads, length // tile),
            in_specs=[pl.BlockSpec(memory_space=pltpu.SMEM)],
            out_specs=pl.BlockSpec((1, 1, tile, last), lambda row, head, part: (row, head, part, 0)),
            out_shape=jax.ShapeDtypeStruct((batch, heads, length, last), jnp.int8),
            compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * 3),
            cost_estimate=pl.CostEstimate(flops=0, transcendentals=0, bytes_accessed=like.size),
            interpret=interpret,
            name="dropout_mask",
        )(scalars)
        return mask.reshape(like.shape)

    if without_mesh():
        return local(words, x, 0, 0)
    axes = jax.typeof(x).sharding.spec
    batch_axes, heads_axis = axes[0], axes[1] if x.ndim == 4 else None

    def on_device(words: Array, like: Array) -> Array:
        first_row = jax.lax.axis_index(batch_axes) * like.shape[0] if batch_axes else 0
        first_head = jax.lax.axis_index(heads_axis) * like.shape[1] if heads_axis else 0
        return local(words, like, first_row, first_head)

    return jax.shard_map(on_device, in_specs=(spec(None), axes), out_specs=axes, check_vma=False)(words, x)


def fits(x: Float[Array, "..."]) -> bool:
    """Whether the kernel can draw for an array: whole registers of 8 rows and 128 columns, complete on each device."""
    if x.ndim not in (3, 4) or x.shape[-1] % 128 or x.shape[-2] % 8 or x.shape[-2] % min(x.shape[-2], ROWS):
        return False
    return without_mesh() or tuple(jax.typeof(x).sharding.spec[-2:]) == (None, None)


def block_bits(first: Array, second: Array, outer: Array, inner: Int[Array, "..."]) -> list[UInt[Array, "..."]]:
    """The four numbers of 16 bits of threefry's blocks, within a kernel.

    Args:
        first: of the key's two words, as int32.
        second: the other.
        outer: the row of the batch, one half of the counter.
        inner: the place within the row, the other half.

    """
    counters = (jnp.broadcast_to(x, inner.shape) for x in (first, second, outer, inner))
    words = threefry2x32_p.bind(*(jax.lax.bitcast_convert_type(x, jnp.uint32) for x in counters))
    return [half for word in words for half in (word & 0xFFFF, word >> 16)]
