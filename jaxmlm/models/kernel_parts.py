"""What the kernels of short and of long rows share, all of it computed in a TPU's vector memory.

Scores stand with the keys in rows and the queries in columns: a block of threefry's bits serves four keys at a distance
of a quarter of the row (`layers.dropout`), which fills all columns that way.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float, Int

from jaxmlm.models.dropout_kernel import block_bits

LOWEST = float(jnp.finfo(jnp.float32).min)
"""The score of a key that is not seen: finite, so that a row that sees nothing (padding) stays finite."""


class Settings(NamedTuple):
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


class Scalars(NamedTuple):
    """Numbers that a kernel reads, as one array of int32 in its scalar memory, in this order.

    Attributes:
        first_word: of the two of dropout's key.
        second_word: the other.
        row: the place in the whole batch of a device's first row; as it is read, of the program's own row.
        first_head: the place of its first head among all.
        whole: 1 where a layer with a window attends to the whole segment all the same.

    """

    first_word: Array
    second_word: Array
    row: Array
    first_head: Array
    whole: Array


class Tile(NamedTuple):
    """The keys and queries of a tile of scores, by their places in the row.

    Attributes:
        keys: [keys, queries].
        queries: [keys, queries].

    """

    keys: Int[Array, "keys queries"]
    queries: Int[Array, "keys queries"]


def visible(
    window: int | None,
    whole: Array,
    tile: Tile,
    key_segments: Int[Array, "keys queries"],
    query_segments: Int[Array, "1 queries"],
) -> Bool[Array, "keys queries"]:
    """Which key each query attends to, as `attention.visibility` says."""
    seen = (key_segments == query_segments) & (key_segments > 0)
    if window is None:
        return seen
    near = jnp.abs(tile.keys - tile.queries) <= window // 2
    return seen & (near | (whole > 0))


def of_keys(segments: Int[Array, "1 keys"], queries: int) -> Int[Array, "keys queries"]:
    """The segments of keys, for each of so many queries."""
    return jnp.broadcast_to(segments, (queries, segments.shape[1])).T


def dropout_factors(
    drop: int,
    scalars: Scalars,
    head: Array,
    length: int,
    first_block: Array | int,
    queries: Int[Array, "blocks queries"],
) -> Float[Array, "keys queries"] | float:
    """0 for what `layers.dropout` drops in [B, H, queries, keys], else the factor of what it keeps.

    Args:
        drop: of 65,536, how many are dropped.
        scalars: the key, the row, and where a device's heads begin.
        head: of the device's.
        length: L, of the whole row.
        first_block: of threefry, of those of a query; block i serves the keys i, L / 4 + i, L / 2 + i and 3 L / 4 + i,
            and the result has the keys in that order: all the first ones, all the second ones, and so on.
        queries: their places in the row.

    """
    if drop == 0:
        return 1.0
    blocks = length // 4
    block = first_block + jax.lax.broadcasted_iota(jnp.int32, queries.shape, 0)
    inner = ((scalars.first_head + head) * length + queries) * blocks + block
    bits = block_bits(scalars.first_word, scalars.second_word, scalars.row, inner)
    return jnp.where(jnp.concatenate(bits, axis=0).astype(jnp.int32) >= drop, 2**16 / (2**16 - drop), 0.0)


def read_scalars(scalars: Any) -> Scalars:
    """What a kernel finds in its scalar memory, where the first axis of its grid goes over rows."""
    found = Scalars(*(scalars[i] for i in range(len(Scalars._fields))))
    return found._replace(row=found.row + pl.program_id(0))


def product(a: Array, b: Array, summed: tuple[int, int]) -> Array:
    """A product over one axis of each, in float32."""
    return jax.lax.dot_general(a, b, (((summed[0],), (summed[1],)), ((), ())), preferred_element_type=jnp.float32)
