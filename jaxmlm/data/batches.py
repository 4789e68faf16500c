"""`batch_at(step)`: which rows a step reads is arithmetic, so a resume needs no iterator state.

epoch, number = divmod(step, rows // batch); the rows are permutation(seed, epoch)[number * batch : (number + 1) *
batch], each in O(1). The last rows % batch rows of an epoch's order are left out; every epoch has another order. The
format `sentences` has an order of its own: see `SentenceRows`.
"""

from dataclasses import dataclass

import numpy as np

from jaxmlm.data.rows import RowFormat, Rows
from jaxmlm.errors import InputError

EPOCH_SEEDS = 1_000_003
"""A prime by which a seed is multiplied before the epoch is added: epochs of nearby seeds have no order in common."""


@dataclass(frozen=True)
class Batches:
    """Batches of the rows that a split is cut into.

    Of each global batch this host reads the rows [host * B / hosts, (host + 1) * B / hosts).

    Args:
        row_format: the rows: see `open_rows`.
        batch: rows of a global batch, B.
        seed: decides the order of each epoch.
        host: number of this host.
        hosts: number of hosts.

    Raises:
        InputError: there are fewer rows than in a batch, too many for their ids, or B does not divide over the hosts.

    >>> from jaxmlm.data.rows import PackedRows
    >>> batches = Batches(PackedRows(np.arange(10, 22), cls_id=2, length=4), batch=2)
    >>> batches.at(0)["ids"].tolist()
    [[2, 10, 11, 12], [2, 19, 20, 21]]
    """

    row_format: RowFormat
    batch: int
    seed: int = 0
    host: int = 0
    hosts: int = 1

    def __post_init__(self) -> None:
        if self.rows < self.batch:
            raise InputError(
                f"loop.batch is {self.batch}, but the text has only {self.rows} rows: set loop.batch or "
                "data.length lower, or give more text"
            )
        if self.rows >= 1 << 31:
            raise InputError(
                f"the text has {self.rows:,} rows, and ids count to 2,147,483,647: make data.length longer, or the "
                "text into several stores"
            )
        if self.batch % self.hosts:
            raise InputError(f"loop.batch {self.batch} does not divide over {self.hosts} hosts: take a multiple")

    @property
    def rows(self) -> int:
        """The number of rows of the split."""
        return self.row_format.rows

    @property
    def left_out(self) -> int:
        """The number of rows that an epoch leaves out, others each time: they do not fill a batch."""
        return self.rows % self.batch

    def at(self, step: int) -> Rows:
        """Return this host's rows of the batch of a step: {"ids": int32 [B / hosts, L], "example": int32 [B / hosts]}.

        With units also "unit" uint8, in formats with padding also "segments" int32 (0: padding), of the same shape as
        "ids".
        """
        epoch, number = divmod(step, self.rows // self.batch)
        seed = (self.seed * EPOCH_SEEDS + epoch) % 2**32
        share = self.batch // self.hosts
        local = slice(self.host * share, (self.host + 1) * share)
        return self.row_format.batch(number, self.batch, local, seed)

    def take(self, index: np.ndarray) -> Rows:
        """Return the rows with these ids, at full length."""
        return self.row_format.take(index)
