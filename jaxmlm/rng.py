"""The one place that makes PRNG keys: every random number of the project comes from a key of it by fold_in or split."""

from typing import Any

import jax

from jaxmlm.errors import InputError


def make_key(seed: Any) -> jax.Array:
    """Make the PRNG key of a seed, a threefry key whatever JAX's default implementation is.

    `jax.random.key` takes the implementation that JAX_DEFAULT_PRNG_IMPL names. Under vmap the bits of `rbg`, which is
    usual on TPUs, depend on the size of the batch, so that an example would get another mask in another batch or on
    another mesh. Threefry's bits depend on the key alone.

    Args:
        seed: An integer, or a scalar integer array.

    Returns:
        A scalar key array.

    Raises:
        InputError: a setting of JAX gives the same keys other bits, see `check_random_bits`.

    >>> str(jax.random.key_impl(make_key(0)))
    'threefry2x32'
    """
    check_random_bits()
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


def check_random_bits() -> None:
    """Refuse the one setting of JAX under which the same threefry key gives other bits.

    Raises:
        InputError: it is set. Masks and weights would differ from those of other machines with the same seed.

    """
    if not getattr(jax.config, "jax_threefry_partitionable", True):
        raise InputError(
            "JAX_THREEFRY_PARTITIONABLE is off, and the random numbers of a seed are others then: unset it"
        )
