"""The kernel for long rows: a tile of scores at a time, as flash attention does (Dao 2023, arXiv 2307.08691).

A tile has the keys of as many of threefry's blocks as fill it, four stripes at a distance of a quarter of the row, so
each block is computed once in a pass; a row's keys stand as [4, L / 4, E] for that. The forward pass keeps the
logarithm of each query's sum. The backward pass makes all three gradients in one go over the tiles: those of keys and
values add up while the loop goes over the queries, those of queries stay in vector memory until the last tile.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Int

from jaxmlm.models.kernel_parts import (
    LOWEST,
    Scalars,
    Settings,
    Tile,
    dropout_factors,
    of_keys,
    product,
    read_scalars,
    visible,
)
from jaxmlm.models.kernel_sizes import LANES, QUERIES, stripe


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend(
    settings: Settings, scalars: Int[Array, "S"], segments: Int[Array, "B 1 L"], qkv: Float[Array, "B 3 L E"]
) -> Float[Array, "B L E"]:
    """What a device's rows attend to; queries and keys are rotated already."""
    return _forward(settings, scalars, segments, qkv)[0]


def _attend_forward(settings: Settings, scalars: Array, segments: Array, qkv: Array) -> Any:
    out, log_sums = _forward(settings, scalars, segments, qkv)
    return out, (scalars, segments, qkv, out, log_sums)


def _attend_backward(settings: Settings, residuals: tuple[Array, ...], gradient: Array) -> tuple[Any, ...]:
    scalars, segments, qkv, out, log_sums = residuals
    return None, None, _backward(settings, scalars, segments, qkv, out, log_sums, gradient)


attend.defvjp(_attend_forward, _attend_backward)


class _Sizes(NamedTuple):
    """Of a row and of what a kernel takes of it at a time.

    Attributes:
        length: L.
        head: K, columns of a head.
        together: heads that fill whole registers.
        blocks: keys of a stripe, a block of threefry each.

    """

    length: int
    head: int
    together: int
    blocks: int

    @property
    def columns(self) -> int:
        """Columns of the heads that are taken together."""
        return self.together * self.head


def _sizes(settings: Settings, qkv: Array) -> _Sizes:
    length, width = qkv.shape[2:]
    head = width // settings.heads
    return _Sizes(length, head, max(1, LANES // head), stripe(length))


def _forward(settings: Settings, scalars: Array, segments: Array, qkv: Array) -> tuple[Array, Array]:
    """What the queries attend to, [B, L, E], and the logarithms of their sums, [B, groups of heads, heads, L]."""
    sizes = _sizes(settings, qkv)
    length, columns = sizes.length, sizes.columns
    batch, groups = qkv.shape[0], qkv.shape[3] // columns
    quarters = qkv.reshape(batch, 3, 4, length // 4, -1)

    def whole(part: int) -> pl.BlockSpec:
        return _resident((1, 1, 4, length // 4, columns), lambda b, g, i: (b, part, 0, 0, g))

    return pl.pallas_call(
        partial(_forward_kernel, settings, sizes),
        grid=(batch, groups, length // QUERIES),
        in_specs=[
            pl.BlockSpec(memory_space=pltpu.SMEM),
            pl.BlockSpec((1, 1, QUERIES), lambda b, g, i: (b, 0, i)),
            pl.BlockSpec((1, 4, length // 4), lambda b, g, i: (b, 0, 0)),
            pl.BlockSpec((1, 1, QUERIES, columns), lambda b, g, i: (b, 0, i, g)),
            whole(1),
            whole(2),
        ],
        out_specs=[
            pl.BlockSpec((1, QUERIES, columns), lambda b, g, i: (b, i, g)),
            pl.BlockSpec((1, 1, sizes.together, QUERIES), lambda b, g, i: (b, g, 0, i)),
        ],
        out_shape=[
            jax.ShapeDtypeStruct((batch, length, qkv.shape[3]), qkv.dtype),
            jax.ShapeDtypeStruct((batch, groups, sizes.together, length), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * 3),
        cost_estimate=_cost(settings, qkv, products=2, arrays=4),
        interpret=settings.interpret,
        name="attention_forward",
    )(scalars, segments, segments.reshape(batch, 4, length // 4), qkv, quarters, quarters)


def _forward_kernel(
    settings: Settings,
    sizes: _Sizes,
    scalars: Any,
    query_segments: Any,
    key_segments: Any,
    q: Any,
    k: Any,
    v: Any,
    out: Any,
    log_sums: Any,
) -> None:
    """One tile's queries attend to all keys of the row."""
    numbers = read_scalars(scalars)
    first_head = pl.program_id(1) * sizes.together
    first_query = pl.program_id(2) * QUERIES
    queries = [x * sizes.head**-0.5 for x in _heads(sizes, q[0, 0])]

    def over_keys(i: Array | int, carry: Any) -> Any:
        tile = _tile(sizes, i, first_query)
        seen = _visible(settings, sizes, numbers, tile, i, key_segments, query_segments[0])
        keys = _heads(sizes, _stripes(sizes, k, i))
        values = _heads(sizes, _stripes(sizes, v, i))
        found = []
        for head, (highest, total, attended) in enumerate(carry):
            scores = jnp.where(seen, product(keys[head], queries[head], (1, 1)), LOWEST)
            higher = jnp.maximum(highest, scores.max(0, keepdims=True))
            scale = jnp.exp(highest - higher)
            weights = jnp.where(seen, jnp.exp(scores - higher), 0.0)
            total = total * scale + weights.sum(0, keepdims=True)
            kept = (weights * _factors(settings, sizes, numbers, first_head + head, i, tile)).astype(v.dtype)
            attended = attended * scale + product(values[head], kept, (0, 0))
            found.append((higher, total, attended))
        return tuple(found)

    nothing = (
        jnp.full((1, QUERIES), LOWEST, jnp.float32),
        jnp.zeros((1, QUERIES), jnp.float32),
        jnp.zeros((sizes.head, QUERIES), jnp.float32),
    )
    tiles = sizes.length // (4 * sizes.blocks)
    found = (nothing,) * sizes.together
    # The number of an only tile is known to the compiler, as stripes of odd widths need.
    found = over_keys(0, found) if tiles == 1 else jax.lax.fori_loop(0, tiles, over_keys, found)
    attended = []
    logs = []
    for highest, total, weighted in found:
        total = jnp.where(total > 0, total, 1.0)  # a query that sees nothing (padding) attends to nothing
        attended.append((weighted / total).T)
        logs.append(highest + jnp.log(total))
    out[0] = jnp.concatenate(attended, axis=-1).astype(out.dtype)
    log_sums[0, 0] = jnp.concatenate(logs, axis=0)


def _backward(
    settings: Settings, scalars: Array, segments: Array, qkv: Array, out: Array, log_sums: Array, gradient: Array
) -> Array:
    """The gradients of queries, keys and values, [B, 3, L, E]."""
    sizes = _sizes(settings, qkv)
    length, columns = sizes.length, sizes.columns
    batch, groups = qkv.shape[0], qkv.shape[3] // columns
    quarters = qkv.reshape(batch, 3, 4, length // 4, -1)
    # The mean of the gradients of a query's probabilities, weighted by them, is that of its output times the output.
    parts = out.astype(jnp.float32) * gradient.astype(jnp.float32)
    means = parts.reshape(batch, length, groups, sizes.together, sizes.head).sum(-1).transpose(0, 2, 3, 1)

    def part(i: int) -> pl.BlockSpec:
        return pl.BlockSpec((1, 1, 4, sizes.blocks, columns), lambda b, g, tile: (b, i, 0, tile, g))

    per_query = _resident((1, 1, sizes.together, length), lambda b, g, i: (b, g, 0, 0))
    of_queries = _resident((1, length, columns), lambda b, g, i: (b, 0, g))
    of_tile = pl.BlockSpec((1, 4, sizes.blocks, columns), lambda b, g, i: (b, 0, i, g))
    d_keys = jax.ShapeDtypeStruct((batch, 4, length // 4, qkv.shape[3]), qkv.dtype)
    dq, dk, dv = pl.pallas_call(
        partial(_backward_kernel, settings, sizes),
        grid=(batch, groups, length // (4 * sizes.blocks)),
        in_specs=[
            pl.BlockSpec(memory_space=pltpu.SMEM),
            pl.BlockSpec((1, 1, length), lambda b, g, i: (b, 0, 0)),
            pl.BlockSpec((1, 4, length // 4), lambda b, g, i: (b, 0, 0)),
            _resident((1, 1, length, columns), lambda b, g, i: (b, 0, 0, g)),
            part(1),
            part(2),
            of_queries,
            per_query,
            per_query,
        ],
        out_specs=[of_queries, of_tile, of_tile],
        out_shape=[jax.ShapeDtypeStruct(out.shape, qkv.dtype), d_keys, d_keys],
        scratch_shapes=[pltpu.VMEM((length, columns), jnp.float32)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        cost_estimate=_cost(settings, qkv, products=5, arrays=7),
        interpret=settings.interpret,
        name="attention_backward",
    )(scalars, segments, segments.reshape(batch, 4, length // 4), qkv, quarters, quarters, gradient, log_sums, means)
    return jnp.stack([dq, dk.reshape(out.shape), dv.reshape(out.shape)], axis=1)


def _backward_kernel(
    settings: Settings,
    sizes: _Sizes,
    scalars: Any,
    query_segments: Any,
    key_segments: Any,
    q: Any,
    k: Any,
    v: Any,
    gradient: Any,
    log_sums: Any,
    means: Any,
    dq: Any,
    dk: Any,
    dv: Any,
    sums: Any,
) -> None:
    """What all queries of the row say of one tile's keys and values, and these of them. Scores are computed again."""
    numbers = read_scalars(scalars)
    first_head = pl.program_id(1) * sizes.together
    tiles = sizes.length // (4 * sizes.blocks)
    own = pl.program_id(2) if tiles > 1 else 0
    keys = _heads(sizes, _stripes(sizes, k, 0))
    values = _heads(sizes, _stripes(sizes, v, 0))

    def over_queries(j: Array, carry: Any) -> Any:
        rows = pl.ds(pl.multiple_of(j * QUERIES, QUERIES), QUERIES)
        tile = _tile(sizes, own, j * QUERIES)
        seen = _visible(settings, sizes, numbers, tile, own, key_segments, query_segments[0, :, rows])
        queries = _heads(sizes, q[0, 0, rows, :])
        gradients = _heads(sizes, gradient[0, rows, :])
        d_queries = []
        found = []
        for head, (d_keys, d_values) in enumerate(carry):
            one = slice(head, head + 1)
            scores = product(keys[head], queries[head] * sizes.head**-0.5, (1, 1))
            weights = jnp.where(seen, jnp.exp(scores - log_sums[0, 0, one, rows]), 0.0)
            factors = _factors(settings, sizes, numbers, first_head + head, own, tile)
            d_weights = product(values[head], gradients[head], (1, 1)) * factors
            d_scores = weights * (d_weights - means[0, 0, one, rows]) * sizes.head**-0.5
            d_scores = d_scores.astype(q.dtype)
            d_queries.append(product(d_scores, keys[head], (0, 0)))
            d_keys = d_keys + product(d_scores, queries[head], (1, 0))
            d_values = d_values + product((weights * factors).astype(q.dtype), gradients[head], (1, 0))
            found.append((d_keys, d_values))
        total = jnp.concatenate(d_queries, axis=-1) + jnp.where(own == 0, 0.0, sums[rows, :])
        sums[rows, :] = total

        @pl.when(own == tiles - 1)
        def _() -> None:
            dq[0, rows, :] = total.astype(dq.dtype)

        return tuple(found)

    nothing = (jnp.zeros((4 * sizes.blocks, sizes.head), jnp.float32),) * 2
    found = jax.lax.fori_loop(0, sizes.length // QUERIES, over_queries, (nothing,) * sizes.together)
    for out, of_heads in zip((dk, dv), zip(*found, strict=True), strict=True):
        together = jnp.concatenate(of_heads, axis=-1).astype(out.dtype)
        out[0] = together.reshape(out.shape[1:])


def _resident(shape: tuple[int, ...], index: Any) -> pl.BlockSpec:
    """What stays for a whole row, in one copy: the next row's need not lie beside it."""
    return pl.BlockSpec(shape, index, pipeline_mode=pl.Buffered(1))


def _heads(sizes: _Sizes, x: Float[Array, "L columns"]) -> list[Float[Array, "L K"]]:
    return [x[:, i * sizes.head : (i + 1) * sizes.head] for i in range(sizes.together)]


def _stripe(sizes: _Sizes, tile: Array | int) -> Any:
    """Where the stripes of this tile lie in each quarter of the row."""
    if isinstance(tile, int):
        return pl.ds(tile * sizes.blocks, sizes.blocks)
    return pl.ds(pl.multiple_of(tile * sizes.blocks, sizes.blocks), sizes.blocks)


def _stripes(sizes: _Sizes, x: Any, tile: Array | int) -> Float[Array, "keys columns"]:
    """The keys or values of this tile, of those that a block of [1, 1, 4, L / 4, columns] holds."""
    return x[0, 0, :, _stripe(sizes, tile), :].reshape(4 * sizes.blocks, sizes.columns)


def _tile(sizes: _Sizes, tile: Array | int, first_query: Array | int) -> Tile:
    """The places of a tile's keys and queries."""
    block, query = (jax.lax.broadcasted_iota(jnp.int32, (sizes.blocks, QUERIES), axis) for axis in (0, 1))
    first_keys = [tile * sizes.blocks + i * (sizes.length // 4) for i in range(4)]
    keys = jnp.concatenate([block + first for first in first_keys], axis=0)
    return Tile(keys, jnp.concatenate([query + first_query] * 4, axis=0))


def _visible(
    settings: Settings, sizes: _Sizes, numbers: Scalars, tile: Tile, own: Array | int, keys: Any, queries: Array
) -> Bool[Array, "keys queries"]:
    """Which key of this tile each of its queries attends to, by the segments of both."""
    stripes = [keys[0, i : i + 1, _stripe(sizes, own)] for i in range(4)]
    key_segments = jnp.concatenate([of_keys(x, QUERIES) for x in stripes], axis=0)
    return visible(settings.window, numbers.whole, tile, key_segments, queries)


def _factors(
    settings: Settings, sizes: _Sizes, numbers: Scalars, head: Array, own: Array | int, tile: Tile
) -> Float[Array, "keys queries"] | float:
    """What dropout makes of this tile's probabilities."""
    queries = tile.queries[: sizes.blocks]
    return dropout_factors(settings.drop, numbers, head, sizes.length, own * sizes.blocks, queries)


def _cost(settings: Settings, qkv: Array, products: int, arrays: int) -> pl.CostEstimate:
    batch, _, length, width = qkv.shape
    return pl.CostEstimate(
        flops=2 * products * batch * length**2 * width,
        transcendentals=batch * settings.heads * length**2,
        bytes_accessed=arrays * batch * length * width * qkv.dtype.itemsize,
    )
