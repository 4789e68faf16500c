"""Which rows the project's TPU kernels for attention take. Without Pallas, whose import takes a third of a second."""

import jax.numpy as jnp

LANES = 128
"""Columns of a register of the TPU."""
SHORT = 256
"""Tokens of the longest row whose scores stand in vector memory as a whole."""
QUERIES = 128
"""Queries of a tile of a long row's scores."""
VECTOR_MEMORY = 15 * 2**20
"""Bytes of a chip's vector memory that a kernel may fill; a program is given 16 MiB."""


def fits_fused(length: int, heads: int, head_size: int, dtype: str) -> bool:
    """Whether a kernel can attend: in rows of this length, with so many heads on a device."""
    # Whole registers, filled by one head or by several.
    if length % LANES or (LANES % head_size and head_size % LANES) or heads * head_size % LANES:
        return False
    itemsize = jnp.dtype(dtype).itemsize
    if length <= SHORT:
        # The backward pass holds seven arrays of a row, each twice to load the next, and some ten scores of a head.
        return 14 * length * heads * head_size * itemsize + 40 * length**2 <= VECTOR_MEMORY
    if length % (4 * LANES) and length >= 8 * LANES:  # a tile would have all keys of the row, and be too large
        return False
    # The backward pass holds a row of a group of heads: queries, the gradient of their output, their own and its sum in
    # float32; of a tile keys, values and their gradients, each twice to load the next; and what the compiler keeps of
    # scores, four tiles a head and four more (libtpu for a v4, whose memory is the smallest).
    columns = max(LANES, head_size)
    keys = 4 * stripe(length)
    row = length * (columns * (3 * itemsize + 4) + 64)
    tile = 8 * keys * columns * itemsize
    scores = 4 * (1 + max(1, LANES // head_size)) * keys * QUERIES * 4
    return row + tile + scores <= VECTOR_MEMORY


def pays_fused(length: int, drops: bool) -> bool:
    """Whether these kernels are the ones to take on a TPU: long rows without attention dropout are left to others."""
    return length <= SHORT or drops


def stripe(length: int) -> int:
    """Keys of each of the four stripes of a long row's tile: 128, or all of a quarter of the row that has no 128s."""
    quarter = length // 4
    return LANES if quarter % LANES == 0 else quarter
