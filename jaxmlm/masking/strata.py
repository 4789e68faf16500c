"""Where each row of a batch stands in the law of its masking rate: one row in each of B equal strata.

The rows of a batch share the strata 0 to B - 1 out among themselves, whatever the seed: the mean rate of a batch is
that of the law within half a stratum. Which row gets which follows from (seed, step) and the row's place in the GLOBAL
batch, so it is the same on any mesh and after any resume.

The permutation is such that parts of a batch are stratified too: the rows of one device (places that follow each
other), and of them those of one micro-batch (every A-th). So the predictions that a device makes at a time are bounded
near their mean, and need no more room than that (`pool_slots`).
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Key

_RATES = 0xFFFFFFFE  # an id that no example has: their draws are other ones


def draw(key: Key[Array, ""], places: Integer[Array, " B"], rows: int) -> Float[Array, " B"]:
    """Draw the points u in [0, 1) at which the law's inverse CDF gives the rates.

    Args:
        key: of the step.
        places: [B] of each row in the global batch, from 0.
        rows: of the global batch.

    Returns:
        [B] for each row: uniform in [0, 1) by itself, and one in each interval [s / rows, (s + 1) / rows).

    """
    own_key = jax.random.fold_in(key, _RATES)
    shift = jax.random.randint(jax.random.fold_in(own_key, rows), (), 0, rows, jnp.int32)
    stratum = (jnp.asarray(permutation(rows))[places] + shift) % rows
    inside = jax.vmap(lambda place: jax.random.uniform(jax.random.fold_in(own_key, place), dtype=jnp.float32))(places)
    return jnp.minimum((stratum.astype(jnp.float32) + inside) / rows, 1 - 2.0**-24)


@lru_cache(maxsize=16)
def permutation(rows: int) -> np.ndarray:
    """The order in which strata are dealt to the places of a batch, before it is rotated at random.

    Bit r of a point (from the highest) is the parity of the bits c of the place for which the binomial C(c, r) is odd:
    the second dimension of Sobol's sequence. Any w columns next to each other of the first w rows of that matrix have
    determinant 1. So, where `rows` is a power of 2, the 2^w places that agree in all but w neighbouring bits have one
    point in each of 2^w equal intervals: these are the rows of a device, and the rows of its micro-batches. For
    other numbers the first `rows` points are ranked, which is nearly as even.

    >>> permutation(8).tolist()
    [0, 4, 6, 2, 5, 1, 3, 7]
    """
    bits = max(1, (rows - 1).bit_length())
    places = np.arange(rows)
    points = np.zeros(rows, int)
    for r in range(bits):
        odd = sum(1 << c for c in range(bits) if r & ~c == 0)  # Lucas: C(c, r) is odd
        points |= (np.bitwise_count(places & odd) & 1).astype(int) << (bits - 1 - r)
    return points.argsort().argsort().astype(np.int32)


def pool_slots(most: np.ndarray, devices: int, micro_batches: int) -> int:
    """The most predictions that a device can have to make in a micro-batch.

    Exact: the largest sum of `most` over the rows of a device in a micro-batch, over devices, micro-batches and all
    rotations of the strata. With rows / (devices * micro_batches) = R rows it is at most about R times the mean of
    `most`, and the difference of its ends once.

    Args:
        most: [rows] the most predictions of a row in each stratum.
        devices: among which the rows of a batch are divided, in order.
        micro_batches: into which every device divides its rows, dealing them out in turn.

    >>> pool_slots(np.arange(8), devices=2, micro_batches=1)  # of 0 + ... + 7 = 28
    16
    """
    rows = len(most)
    places = np.arange(rows)
    group = places // (rows // devices) * micro_batches + places % micro_batches
    strata = np.zeros((devices * micro_batches, rows))
    strata[group, permutation(rows)] = 1
    # The sums under every rotation are a circular correlation.
    spectrum = np.conj(np.fft.rfft(np.unique(strata, axis=0))) * np.fft.rfft(most)
    return int(np.rint(np.fft.irfft(spectrum, rows)).max())
