"""The one place that makes PRNG keys: every random number of the project comes from a key of it by fold_in or split."""

from typing import Any

import jax


def make_key(seed: Any) -> jax.Array:
    """Make the PRNG key of a seed, a threefry key whatever JAX's default implementation is.

    `jax.random.key` takes the implementation that JAX_DEFAULT_PRNG_IMPL names. Under vmap the bits of `rbg`, which is
    usual on TPUs, depend on the size of the batch, so that an example would get another mask in another batch or on
    another mesh. Threefry's bits depend on the key alone.

    Args:
        seed: An integer, or a scalar integer array.

    Returns:
        A scalar key array.

    >>> str(jax.random.key_impl(make_key(0)))
    'threefry2x32'
    """
    return jax.random.key(seed, impl="threefry2x32")


def step_key(seed: int, step: Any) -> jax.Array:
    """Make the key from which all masks of a training step follow, as `mask_batch` takes it.

    Args:
        seed: of the run.
        step: an integer, or a scalar integer array.

    >>> bool((step_key(1, 2) == jax.random.fold_in(make_key(1), 2)).all())
    True
    """
    return jax.random.fold_in(make_key(seed), step)
