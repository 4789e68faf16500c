"""Attention of short rows as one TPU kernel: neither scores nor the bits of dropout leave the chip's own memory.

Per token and layer the scores of 16 heads x 128 tokens are as large as four hidden states, and a training step writes
and reads them some ten times. Here a row's queries, keys and values are read once, and all that is made of them stays
in vector memory. Scores stand with the keys in rows and the queries in columns: a block of threefry's bits serves four
keys at a distance of a quarter of the row (`layers.dropout`), which fills all columns that way.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmlm.models.dropout_kernel import block_bits
from jaxmlm.parallel import spec, without_mesh

LANES = 128
"""Columns of a register of the TPU."""


class _Settings(NamedTuple):
    """What a kernel is compiled for.

    Attributes:
        heads: H of a device.
        drop: of 65,536, how many attention probabilities are dropped.
        window: tokens attend to those at most window // 2 away; None: to all of their segment.
        interpret: run the kernel step by step on any backend.

    """

    heads: int
    drop: int
    window: int | None
    interpret: bool


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

    Args:
        qkv: queries, keys and values, as one product makes them, and with E = H x K: as separate arrays, or with an
            axis of K, they would be copied into another layout.
        heads: H.
        segments: a token attends to those of its own segment; none attends to segment 0.
        rope: the table of rotary positions, by which queries and keys are rotated within the kernel.
        window: with a window, only to those at most window // 2 tokens away; None: to all of the segment.
        is_global: with a window, true takes all of the segment all the same.
        drop: of 65,536, how many attention probabilities are dropped.
        key: for dropout; None is evaluation.
        interpret: run the kernel's program step by step on any backend, slowly.

    """
    words = jnp.zeros(2, jnp.uint32) if key is None else jax.random.key_data(key)[:2]
    whole = jnp.ones((), bool) if is_global is None else is_global
    tables = () if rope is None else (_rotation(rope),)

    def local(
        first_row: Any, first_head: Any, qkv: Array, segments: Array, words: Array, whole: Array, *tables: Array
    ) -> Array:
        words = jax.lax.bitcast_convert_type(words, jnp.int32)
        scalars = jnp.stack([words[0], words[1], jnp.int32(first_row), jnp.int32(first_head), jnp.int32(whole)])
        own_heads = heads * qkv.shape[3] // width
        settings = _Settings(own_heads, 0 if key is None else drop, window, interpret)
        return _attend(settings, scalars, segments[:, None].astype(jnp.int32), tables, qkv)

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


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(settings: _Settings, scalars: Array, segments: Array, tables: tuple[Array, ...], qkv: Array) -> Array:
    return _call(settings, _forward, scalars, segments, tables, qkv)


def _attend_forward(settings: _Settings, scalars: Array, segments: Array, tables: tuple[Array, ...], qkv: Array) -> Any:
    return _attend(settings, scalars, segments, tables, qkv), (scalars, segments, tables, qkv)


def _attend_backward(settings: _Settings, kept: tuple[Any, ...], gradient: Array) -> tuple[Any, ...]:
    scalars, segments, tables, qkv = kept
    no_gradient = jax.tree.map(jnp.zeros_like, tables)  # of constants
    return None, None, no_gradient, _call(settings, _backward, scalars, segments, tables, qkv, gradient)


_attend.defvjp(_attend_forward, _attend_backward)


def _call(
    settings: _Settings,
    of_head: Any,
    scalars: Array,
    segments: Array,
    tables: tuple[Array, ...],
    qkv: Array,
    gradient: Array | None = None,
) -> Array:
    """Run a kernel over the rows of the batch, a row with all its heads at a time."""
    batch, _, length, width = qkv.shape
    backward = [] if gradient is None else [gradient]
    parts = 3 if backward else 1  # of the result: the gradients of queries, keys and values, or what is attended to
    row = pl.BlockSpec((1, length, width), lambda b: (b, 0, 0))

    def part(i: int) -> pl.BlockSpec:
        return pl.BlockSpec((1, 1, length, width), lambda b: (b, i, 0, 0))

    def kernel(scalars: Any, segments: Any, *rest: Any) -> None:
        *inputs, out = rest
        table = inputs.pop(0)[...] if tables else None
        row = _Row(_visible(settings, scalars, segments), _place(scalars), table)
        _over_heads(settings, partial(of_head, settings, row), inputs, out)

    whole_table = pl.BlockSpec((2, length, width // settings.heads), lambda b: (0, 0, 0))
    result = pl.pallas_call(
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
    return result if backward else result[:, 0]


class _Place(NamedTuple):
    """What the dropout of a row depends on: the key's two words, the row's place in the batch, its first head."""

    first_word: Array
    second_word: Array
    row: Array
    first_head: Array


class _Row(NamedTuple):
    """What the heads of a row share.

    Attributes:
        visible: [keys, queries] bool, which key each query attends to.
        place: what dropout depends on.
        table: [2, L, K], what `_rotation` gives, or None.

    """

    visible: Array
    place: _Place
    table: Array | None


def _forward(settings: _Settings, row: _Row, head: Array, q: Array, k: Array, v: Array) -> tuple[Array]:
    """softmax(q k^T / sqrt(K)) v of one head."""
    q = _rotate(row.table, q)
    k = _rotate(row.table, k)
    kept = _probabilities(q, k, row.visible) * _dropout_factors(settings, row, head)
    return (_product(kept.astype(v.dtype), v, (0, 0)),)


def _backward(
    settings: _Settings, row: _Row, head: Array, q: Array, k: Array, v: Array, gradient: Array
) -> tuple[Array, Array, Array]:
    """The gradients of one head. Scores are computed again: reading them would take longer."""
    q = _rotate(row.table, q)
    k = _rotate(row.table, k)
    probabilities = _probabilities(q, k, row.visible)
    factors = _dropout_factors(settings, row, head)
    d_probabilities = _product(v, gradient, (1, 1)) * factors
    mean = (probabilities * d_probabilities).sum(0, keepdims=True)
    d_scores = jnp.where(row.visible, probabilities * (d_probabilities - mean), 0.0) * q.shape[-1] ** -0.5
    d_scores = d_scores.astype(q.dtype)
    dq = _rotate_back(row.table, _product(d_scores, k, (0, 0)))
    dk = _rotate_back(row.table, _product(d_scores, q, (1, 0)))
    return dq, dk, _product((probabilities * factors).astype(v.dtype), gradient, (1, 0))


def _over_heads(settings: _Settings, of_head: Any, inputs: list[Any], out: Any) -> None:
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


def _rotation(rope: Float[Array, "L 2 half"]) -> Float[Array, "2 L K"]:
    """Cosines, and sines that are negative in the first half: x cos + swapped x sin rotates the halves of x."""
    cos = rope[:, 0]
    sin = rope[:, 1]
    return jnp.stack([jnp.concatenate([cos, cos], axis=-1), jnp.concatenate([-sin, sin], axis=-1)])


def _rotate(table: Array | None, x: Float[Array, "L K"]) -> Float[Array, "L K"]:
    """Rotary positions, as `attention` applies them."""
    if table is None:
        return x
    exact = x.astype(jnp.float32)
    return (exact * table[0] + _swap(exact) * table[1]).astype(x.dtype)


def _rotate_back(table: Array | None, x: Float[Array, "L K"]) -> Float[Array, "L K"]:
    """The gradient of `_rotate`, in float32."""
    return x if table is None else x * table[0] + _swap(x * table[1])


def _swap(x: Float[Array, "L K"]) -> Float[Array, "L K"]:
    half = x.shape[-1] // 2
    return jnp.concatenate([x[:, half:], x[:, :half]], axis=-1)


def _visible(settings: _Settings, scalars: Any, segments: Any) -> Array:
    """[keys, queries] bool: which key each query attends to, as `attention.visibility` says."""
    length = segments.shape[-1]
    of_query = jnp.broadcast_to(segments[0], (length, length))
    visible = (of_query == of_query.T) & (of_query > 0)
    if settings.window is None:
        return visible
    place = [jax.lax.broadcasted_iota(jnp.int32, (length, length), axis) for axis in (0, 1)]
    near = jnp.abs(place[0] - place[1]) <= settings.window // 2
    return visible & (near | (scalars[4] > 0))


def _probabilities(q: Array, k: Array, visible: Array) -> Array:
    """[keys, queries]: the attention probabilities of a head."""
    scores = _product(k, q * q.shape[-1] ** -0.5, (1, 1))
    # A row that sees nothing (padding) stays finite: the lowest number, not minus infinity.
    scores = jnp.where(visible, scores, jnp.finfo(jnp.float32).min)
    weights = jnp.exp(scores - scores.max(0, keepdims=True))
    return weights * (1.0 / weights.sum(0, keepdims=True))


def _place(scalars: Any) -> _Place:
    return _Place(scalars[0], scalars[1], scalars[2] + pl.program_id(0), scalars[3])


def _dropout_factors(settings: _Settings, row: _Row, head: Array) -> Array | float:
    """[keys, queries]: 0 for what `layers.dropout` drops in [B, H, queries, keys], else the factor of what it keeps."""
    if settings.drop == 0:
        return 1.0
    place = row.place
    keys, queries = row.visible.shape
    shape = (keys // 4, queries)
    block, query = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
    inner = (place.first_head + head) * (shape[0] * queries) + query * shape[0] + block
    bits = jnp.concatenate(block_bits(place.first_word, place.second_word, place.row, inner), axis=0)
    return jnp.where(bits.astype(jnp.int32) >= settings.drop, 2**16 / (2**16 - settings.drop), 0.0)


def _product(a: Array, b: Array, summed: tuple[int, int]) -> Array:
    """A product over one axis of each, in float32."""
    return jax.lax.dot_general(a, b, (((summed[0],), (summed[1],)), ((), ())), preferred_element_type=jnp.float32)
