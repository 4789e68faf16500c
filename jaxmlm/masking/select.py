"""How many tokens are selected, and which."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key


def budget(key: Key[Array, ""], rate: float, maskable: Bool[Array, " L"]) -> Int[Array, ""]:
    """floor(rate * n + u) of n maskable tokens, u uniform in [0, 1): rate * n in expectation; at least 1 if n > 0."""
    n = maskable.sum()
    count = jnp.floor(rate * n + jax.random.uniform(key)).astype(jnp.int32)
    return jnp.clip(count, jnp.minimum(n, 1), n)


def draw(key: Key[Array, ""], maskable: Bool[Array, " L"], most: int) -> Int[Array, " P"]:
    """`most` distinct positions: a uniform random order of the maskable ones, then the others."""
    # 31 random bits sort before the unmaskable ones; two equal draws among L happen with probability L^2 / 2^32
    # and then the earlier position goes first.
    order = jnp.where(maskable, jax.random.bits(key, maskable.shape) >> 1, jnp.uint32(0xFFFFFFFF))
    return jnp.argsort(order)[:most]
