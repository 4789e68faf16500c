"""How many tokens are selected, and which: whole units of a random order, taken from a random offset on.

An example of eight maskable tokens in five units, `a a`, `b`, `c c c`, `d`, `e`. Shuffled, and closed to a circle:

    order    d  c  c  c  a  a  e  b
    place    0  1  2  3  4  5  6  7
                      ^ offset = 3

To select 4 of the 8 tokens, take each unit whose FIRST token lies on one of the 4 places from the offset on (3, 4, 5,
6): `a a` and `e`. `c c c` begins before them and is left out; a unit that begins on the last of them would be taken
whole. The offset is uniform, so each unit is selected with probability 4 / 8 exactly, whatever its length.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key


class UnitOrder(NamedTuple):
    """The maskable tokens of an example in a random order of its units, read as a circle.

    Attributes:
        order: [L] the position of the token at each place; the tokens that are not maskable come last.
        index_in_unit: [L] the index of that token in its unit.
        count: how many tokens are maskable.
        offset: the place from which selections are counted.

    """

    order: jax.Array
    index_in_unit: jax.Array
    count: jax.Array
    offset: jax.Array | int


class Selection(NamedTuple):
    """The tokens of the units that were taken; the first `count` of the P slots are filled.

    Attributes:
        positions: [P] where the tokens stand in the example.
        index_in_unit: [P] the index of each token in its unit.
        count: how many slots are filled.

    """

    positions: jax.Array
    index_in_unit: jax.Array
    count: jax.Array


def budget(rate: float | Float[Array, ""], count: Int[Array, ""], u: float | Float[Array, ""]) -> Int[Array, ""]:
    """How many of `count` tokens a rate selects: floor(rate * count + u), as in fairseq.

    Args:
        rate: the share that is asked for.
        count: the number of maskable tokens.
        u: uniform in [0, 1) for rate * count in expectation (in short examples often 0), or 0.5 for the nearest number.

    """
    return jnp.minimum(jnp.floor(jnp.float32(rate) * count.astype(jnp.float32) + u).astype(jnp.int32), count)


def shuffle_units(
    key: Key[Array, ""],
    index_in_unit: Int[Array, " L"],
    maskable: Bool[Array, " L"],
    offset_key: Key[Array, ""] | None,
) -> UnitOrder:
    """Put the units into a uniformly random order.

    Args:
        key: of the order.
        index_in_unit: [L] the index of each token in its unit.
        maskable: [L] which tokens may be selected.
        offset_key: of the offset; None counts from place 0, which is as good where every unit is one token.

    """
    at = jnp.arange(maskable.shape[0])
    count = maskable.sum()
    # 31 random bits for each unit sort before the unmaskable tokens. Two equal draws among L happen with probability
    # L^2 / 2^32, and then the earlier unit goes first: the sort is stable, so a unit's tokens stay together.
    drawn = (jax.random.bits(key, maskable.shape, jnp.uint32) >> 1)[at - index_in_unit]
    _, order, index_in_unit = jax.lax.sort(
        (jnp.where(maskable, drawn, jnp.uint32(0xFFFFFFFF)), at, index_in_unit), num_keys=1
    )
    offset = 0 if offset_key is None else jax.random.randint(offset_key, (), 0, jnp.maximum(count, 1), jnp.int32)
    return UnitOrder(order, index_in_unit, count, offset)


def take_units(units: UnitOrder, begin: int | Int[Array, ""], length: Int[Array, ""], max_tokens: int) -> Selection:
    """Take the units whose first token lies on the places [begin, begin + length), counted from the offset.

    Each unit is taken with probability length / count exactly, so none is favoured, and the expected number of tokens
    is `length`. Units are taken whole, so the number differs from `length` by less than the longest unit, and may be 0.

    Args:
        units: the order of the units.
        begin: the first place.
        length: how many places.
        max_tokens: P, the largest number of tokens that can be taken (static).

    """
    order, index_in_unit, maskable, offset = units
    at = jnp.arange(order.shape[0])
    circle = jnp.maximum(maskable, 1)
    # Where the unit of each token starts, counted from `begin`; far away if it is not maskable.
    start = jnp.where(at < maskable, (at - index_in_unit - offset - begin) % circle, at.shape[0])
    first = start.min()
    count = (start < length).sum()
    place = (offset + begin + first + jnp.arange(max_tokens)) % circle
    return Selection(order[place], index_in_unit[place], count)
