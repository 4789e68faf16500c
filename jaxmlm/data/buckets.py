"""Length buckets: batches of rows of similar length: few compiled shapes, little padding."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from jaxmlm.errors import InputError

EDGES = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144)
"""Padded lengths, from 32 on each at most half as long again as the one before."""


def edges_to(length: int, among: Sequence[int] = EDGES) -> tuple[int, ...]:
    """Padded lengths for rows of at most `length` tokens.

    >>> edges_to(100)
    (16, 32, 48, 64, 96, 100)
    """
    return (*(edge for edge in among if edge < length), length)


class Buckets:
    """Batches of `batch` row numbers, each batch with the one padded length that its rows need.

    `lengths` [n] are the rows' token counts, `edges` the padded lengths in rising order. Row number -1 is
    padding (weight 0), which only an epoch's last batch can have: nothing is dropped.

    >>> buckets = Buckets([3, 9, 4, 2, 8], batch=2, edges=(4, 10), seed=0)
    >>> [(rows.tolist(), length) for rows, length in buckets.all()]
    [([0, 2], 4), ([3, 1], 10), ([4, -1], 10)]
    """

    def __init__(self, lengths: Sequence[int] | np.ndarray, batch: int, edges: Sequence[int], seed: int = 0):
        self.batch, self.edges, self.seed = batch, np.asarray(edges), seed
        lengths = np.asarray(lengths)
        if not len(lengths) or lengths.max() > edges[-1] or batch < 1:
            raise ValueError(f"need rows of at most {edges[-1]} tokens and batches of at least one row")
        self._bucket = np.searchsorted(self.edges, lengths)
        self.steps_per_epoch = -(-len(lengths) // batch)
        self._epoch = lru_cache(maxsize=2)(self._plan)  # of two epochs, for a thread that fetches ahead

    def at(self, step: int) -> tuple[np.ndarray, int]:
        """The rows [batch] of a training step and their padded length; pure in the step.

        Every epoch (`steps_per_epoch` steps) holds each row once, in an order of its own.
        """
        epoch, k = divmod(step, self.steps_per_epoch)
        batches, order = self._epoch(epoch)
        return self._batch(batches[order[k]])

    def all(self) -> Iterator[tuple[np.ndarray, int]]:
        """Each row once, shorter buckets first, for evaluation; the last batch is filled up with -1."""
        for rows in _cut(np.argsort(self._bucket, kind="stable"), self.batch):
            yield self._batch(rows)

    def _batch(self, rows: np.ndarray) -> tuple[np.ndarray, int]:
        length = int(self.edges[self._bucket[rows].max()])
        return np.concatenate([rows, np.full(self.batch - len(rows), -1)]), length

    def _plan(self, epoch: int) -> tuple[list[np.ndarray], np.ndarray]:
        """The epoch's batches and the order in which they come.

        Rows that do not fill a batch of their bucket are carried into the next larger one.
        """
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch])))
        batches = []
        carried = np.zeros(0, int)
        for bucket in range(len(self.edges)):
            rows = np.concatenate([carried, random.permutation(np.flatnonzero(self._bucket == bucket))])
            full = len(rows) // self.batch * self.batch
            batches += _cut(rows[:full], self.batch)
            carried = rows[full:]
        if len(carried):
            batches.append(carried)
        return batches, random.permutation(len(batches))


def by_length(lengths: Sequence[int], rows: int = 32, length: int = 512) -> Iterator[np.ndarray]:
    """Batches of row numbers for inference, the longest rows first.

    A batch has `rows` rows at most, of rows of more than `length` tokens fewer: so many that their L x L attention
    scores take no more memory than those of `rows` rows of `length` tokens, and one at least.

    >>> [batch.tolist() for batch in by_length([9, 1024, 7, 8192, 1024], rows=8)]
    [[3], [1, 4], [0, 2]]
    """
    order = np.argsort([-one for one in lengths], kind="stable")
    start = 0
    while start < len(order):
        longest = lengths[order[start]]
        end = start + max(1, min(rows, rows * length**2 // longest**2))
        yield order[start:end]
        start = end


def filled(rows: np.ndarray) -> np.ndarray:
    """Row numbers with the first one for each padding row (-1): what a model computes there stays finite.

    >>> filled(np.array([7, 3, -1])).tolist()
    [7, 3, 7]
    """
    return np.where(rows < 0, rows[0], rows)


def pad(sequences: Sequence[Sequence[int]] | Sequence[np.ndarray], length: int, fill: int) -> np.ndarray:
    """The sequences as int32 [B, length], filled up on the right.

    >>> pad([[5, 6], [7]], 3, fill=0).tolist()
    [[5, 6, 0], [7, 0, 0]]
    """
    out = np.full((len(sequences), length), fill, np.int32)
    for row, sequence in zip(out, sequences, strict=True):
        row[: len(sequence)] = sequence
    return out


def chosen(rows: int, limit: int | None) -> np.ndarray:
    """The first `limit` row numbers of a fixed permutation, whatever the seed; all without a limit.

    >>> sorted(chosen(3, None).tolist()), len(chosen(3, 2))
    ([0, 1, 2], 2)
    """
    if limit is not None and limit < 1:
        raise InputError(f"the limit on training rows is {limit}: give 1 or more, or leave it out")
    return np.random.Generator(np.random.Philox(0)).permutation(rows)[:limit]


def _cut(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]
