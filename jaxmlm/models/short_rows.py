"""The kernel for short rows: a row with all its heads at a time, its scores whole in vector memory."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

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
from jaxmlm.models.kernel_sizes import LANES


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend(
    settings: Settings,
    scalars: Int[Array, "S"],
    segments: Int[Array, "B 1 L"],
    tables: tuple[Float[Array, "2 L K"], ...],
    qkv: Float[Array, "B 3 L E"],
) -> Float[Array, "B L E"]:
    """What a device's rows attend to; queries and keys are rotated by the table, if there is one."""
    return _call(settings, _forward, scalars, segments, tables, qkv)[:, 0]


def _attend_forward(settings: Settings, scalars: Array, segments: Array, tables: tuple[Array, ...], qkv: Array) -> Any:
    return attend(settings, scalars, segments, tables, qkv), (scalars, segments, tables, qkv)


def _attend_backward(settings: Settings, residuals: tuple[Any, ...], gradient: Array) -> tuple[Any, ...]:
    scalars, segments, tables, qkv = residuals
    no_gradient = jax.tree.map(jnp.zeros_like, tables)  # of constants
    return None, None, no_gradient, _call(settings, _backward, scalars, segments, tables, qkv, gradient)


attend.defvjp(_attend_forward, _attend_backward)


def _call(
    settings: Settings,
    of_head: Any,
    scalars: Array,
    segments: Array,
    tables: tuple[Array, ...],
    qkv: Array,
    gradient: Array | None = None,
) -> Array:
    """Run a kernel over the rows of the batch."""
    batch, _, length, width = qkv.shape
    backward = [] if gradient is None else [gradient]
    parts = 3 if backward else 1  # of the result: the gradients of queries, keys and values, or what is attended to
    row = pl.BlockSpec((1, length, width), lambda b: (b, 0, 0))

    def part(i: int) -> pl.BlockSpec:
        return pl.BlockSpec((1, 1, length, width), lambda b: (b, i, 0, 0))

    def kernel(scalars: Any, segments: Any, *rest: Any) -> None:
        *inputs, out = rest
        table = inputs.pop(0)[...] if tables else None
        numbers = read_scalars(scalars)
        tile = Tile(*(jax.lax.broadcasted_iota(jnp.int32, (length, length), axis) for axis in (0, 1)))
        seen = visible(settings.window, numbers.whole, tile, of_keys(segments[0], length), segments[0])
        _over_heads(settings, partial(of_head, settings, _Row(seen, numbers, table)), inputs, out)

    whole_table = pl.BlockSpec((2, length, width // settings.heads), lambda b: (0, 0, 0))
    return pl.pallas_call(
        kernel,
        grid=(batch,),
        in_specs=[
            pl.BlockSpec(memory_space=pltpu.SMEM),
            pl.BlockSpec((1, 1, length), lambda b: (b, 0, 0)),
            *[whole_table for _ in tables],
            *[part(i) for i in range(3)],
            *[row for _ in backward],
        ],
        out_specs=pl.BlockSpec((1, parts, length, width), lambda b: (b, 0, 0, 0)),
        out_shape=jax.ShapeDtypeStruct((batch, parts, length, width), qkv.dtype),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),
        cost_estimate=pl.CostEstimate(
            flops=2 * (5 if backward else 2) * batch * length**2 * width,
            transcendentals=batch * settings.heads * length**2,
            bytes_accessed=(3 + len(backward) + parts) * batch * length * width * qkv.dtype.itemsize,
        ),
        interpret=settings.interpret,
        name=f"attention{of_head.__name__}",
    )(scalars, segments, *tables, qkv, qkv, qkv, *backward)


class _Row(NamedTuple):
    """What the heads of a row share.

    Attributes:
        visible: [keys, queries] bool, which key each query attends to.
        scalars: what dropout depends on.
        table: [2, L, K], cosines and signed sines (`fused_attention`), or None.

    """

    visible: Array
    scalars: Scalars
    table: Array | None


def _forward(settings: Settings, row: _Row, head: Array, q: Array, k: Array, v: Array) -> tuple[Array]:
    """softmax(q k^T / sqrt(K)) v of one head."""
    q = _rotate(row.table, q)
    k = _rotate(row.table, k)
    kept = _probabilities(q, k, row.visible) * _factors(settings, row, head)
    return (product(kept.astype(v.dtype), v, (0, 0)),)


def _backward(
    settings: Settings, row: _Row, head: Array, q: Array, k: Array, v: Array, gradient: Array
) -> tuple[Array, Array, Array]:
    """The gradients of one head. Scores are computed again: reading them would take longer."""
    q = _rotate(row.table, q)
    k = _rotate(row.table, k)
    probabilities = _probabilities(q, k, row.visible)
    factors = _factors(settings, row, head)
    d_probabilities = product(v, gradient, (1, 1)) * factors
    mean = (probabilities * d_probabilities).sum(0, keepdims=True)
    d_scores = jnp.where(row.visible, probabilities * (d_probabilities - mean), 0.0) * q.shape[-1] ** -0.5
    d_scores = d_scores.astype(q.dtype)
    dq = _rotate_back(row.table, product(d_scores, k, (0, 0)))
    dk = _rotate_back(row.table, product(d_scores, q, (1, 0)))
    return dq, dk, product((probabilities * factors).astype(v.dtype), gradient, (1, 0))


def _over_heads(settings: Settings, of_head: Any, inputs: list[Any], out: Any) -> None:
    """Apply a function to each head: of its number and its [L, K] of every input, to its [L, K] of every part of `out`.

    So many heads at a time as fill whole registers.
    """
    size = out.shape[-1] // settings.heads
    together = max(1, LANES // size)

    def some_heads(group: Array, carry: None) -> None:
        columns = pl.ds(pl.multiple_of(group * (together * size), LANES), together * size)
        blocks = [x[(*(0,) * (len(x.shape) - 2), slice(None), columns)] for x in inputs]
        found = []
        for i in range(together):
            own = slice(i * size, (i + 1) * size)
            found.append(of_head(group * together + i, *(block[:, own] for block in blocks)))
        for i, parts in enumerate(zip(*found, strict=True)):
            out[0, i, :, columns] = jnp.concatenate(parts, axis=-1).astype(out.dtype)

    jax.lax.fori_loop(0, settings.heads // together, some_heads, None)


def _probabilities(q: Array, k: Array, visible: Array) -> Array:
    """[keys, queries]: the attention probabilities of a head."""
    scores = product(k, q * q.shape[-1] ** -0.5, (1, 1))
    scores = jnp.where(visible, scores, LOWEST)
    weights = jnp.exp(scores - scores.max(0, keepdims=True))
    return weights * (1.0 / weights.sum(0, keepdims=True))


def _factors(settings: Settings, row: _Row, head: Array) -> Array | float:
    length = row.visible.shape[0]
    queries = jax.lax.broadcasted_iota(jnp.int32, (length // 4, length), 1)
    return dropout_factors(settings.drop, row.scalars, head, length, 0, queries)


def _rotate(table: Float[Array, "2 L K"] | None, x: Float[Array, "L K"]) -> Float[Array, "L K"]:
    """Rotary positions, as `attention` applies them."""
    if table is None:
        return x
    exact = x.astype(jnp.float32)
    return (exact * table[0] + _swap(exact) * table[1]).astype(x.dtype)


def _rotate_back(table: Float[Array, "2 L K"] | None, x: Float[Array, "L K"]) -> Float[Array, "L K"]:
    """The gradient of `_rotate`, in float32."""
    return x if table is None else x * table[0] + _swap(x * table[1])


def _swap(x: Float[Array, "L K"]) -> Float[Array, "L K"]:
    half = x.shape[-1] // 2
    return jnp.concatenate([x[:, half:], x[:, :half]], axis=-1)
