"""How many tokens are selected, and which: an arc of the circle on which the units lie in a random order."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key


class Circle(NamedTuple):
    """The maskable tokens of an example laid around a circle, its units one after another in a random order.

    order [L]: the position of the token at each place of the circle, then those that are not maskable; within [L]:
    the place of that token in its unit; n: how many are maskable; zero: the place from which arcs are counted.
    """

    order: jax.Array
    within: jax.Array
    n: jax.Array
    zero: jax.Array | int


class Arc(NamedTuple):
    """The units that start on an arc: positions [P] and places in their units, within [P]; the first `count` count."""

    positions: jax.Array
    within: jax.Array
    count: jax.Array


def budget(rate: float | Float[Array, ""], n: Int[Array, ""], u: float | Float[Array, ""]) -> Int[Array, ""]:
    """floor(rate * n + u) of n tokens. With u uniform in [0, 1): rate * n in expectation, in short rows often 0."""
    return jnp.minimum(jnp.floor(rate * n + u).astype(jnp.int32), n)


def lay(
    key: Key[Array, ""], within: Int[Array, " L"], maskable: Bool[Array, " L"], zero_key: Key[Array, ""] | None
) -> Circle:
    """Lay the units out in a uniformly random order; `within` is the place of each token in its unit.

    Without `zero_key` arcs are counted from the first unit, which is as good where every unit is one token.
    """
    at, n = jnp.arange(maskable.shape[0]), maskable.sum()
    # 31 random bits for each unit sort before the unmaskable tokens. Two equal draws among L happen with probability
    # L^2 / 2^32, and then the earlier unit goes first: the sort is stable, so a unit's tokens stay together.
    drawn = (jax.random.bits(key, maskable.shape) >> 1)[at - within]
    _, order, within = jax.lax.sort((jnp.where(maskable, drawn, jnp.uint32(0xFFFFFFFF)), at, within), num_keys=1)
    zero = 0 if zero_key is None else jax.random.randint(zero_key, (), 0, jnp.maximum(n, 1))
    return Circle(order, within, n, zero)


def arc(circle: Circle, begin: int | Int[Array, ""], length: Int[Array, ""], most: int) -> Arc:
    """The units whose first token lies on the arc [begin, begin + length), counted from the circle's zero.

    As the zero is uniform, each unit is on an arc of `length` with probability length / n exactly, whatever its size:
    no unit is cut, none favoured, and the expected number of tokens is `length`. The arc holds whole units, so the
    number differs from `length` by less than the longest of them, and may be 0; `most` must be its largest value.
    """
    order, within, n, zero = circle
    at, around = jnp.arange(order.shape[0]), jnp.maximum(n, 1)
    # Where the unit of each token starts, counted from `begin`; far away if it is not maskable.
    start = jnp.where(at < n, (at - within - zero - begin) % around, at.shape[0])
    first = start.min()
    count = (start < length).sum()
    place = (zero + begin + first + jnp.arange(most)) % around
    return Arc(order[place], within[place], count)
