"""How the stream of a split is cut into rows. Row i is the same tokens for ever, so it is the example with id i.

A row format says how many rows there are, what is in each, and which of them make a batch: batch `number` of an epoch,
whose order follows from `seed`. Rows are int32 "ids" [B, L] and "example" [B], their ids; with units also "unit" uint8
[B, L]; formats with padding also have "segments" int32 [B, L], 0 for padding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from jaxmlm.data.buckets import edges_to
from jaxmlm.data.config import Format
from jaxmlm.data.permutation import shuffled
from jaxmlm.data.store import Stream, TokenSplits
from jaxmlm.errors import InputError

AT_ONCE = 1 << 20
"""Blocks of which the lengths are looked up at once, which bounds the memory that it takes."""
Rows = dict[str, np.ndarray]
Tokens = np.ndarray | Stream


@runtime_checkable
class RowFormat(Protocol):
    """How a split is cut into rows, and which of them make a batch.

    Attributes:
        rows: number of rows, R.

    """

    @property
    def rows(self) -> int:
        """The number of rows."""
        ...

    def take(self, index: np.ndarray) -> Rows:
        """Return the rows with these ids [B], at full length."""
        ...

    def batch(self, number: int, size: int, local: slice, seed: int) -> Rows:
        """Return rows of a batch of an epoch.

        Args:
            number: of the batch, below R // size.
            size: rows of the global batch, B.
            local: which of these B rows are wanted.
            seed: decides the order of the epoch.

        """
        ...


def open_rows(
    store: TokenSplits, split: str, length: int, format: Format = "packed", phrases: bool = False
) -> RowFormat:
    """Cut a split of a store into rows.

    Args:
        store: the token store.
        split: "train" or "valid".
        length: tokens of a row, special ones included.
        format: as `Data.format`.
        phrases: whether the rows have the unit bits that the phrase list of the store gave.

    Raises:
        InputError: a file of the store is damaged, it was prepared without phrases, or what is held out is less than
            a row.

    """
    units = store.units(split) if phrases else None
    if phrases and units is None:
        raise InputError(
            f"the token store {store.directory} was prepared without phrases: run jaxmlm prepare with a masking that "
            "needs them, or name another --data.store"
        )
    vocabulary = store.tokenizer
    tokens = store.tokens(split)
    if format == "packed":
        rows = PackedRows(tokens, vocabulary.cls_id, length, units)
    else:
        kind = DocumentRows if format == "documents" else SentenceRows
        special = (vocabulary.cls_id, vocabulary.sep_id, vocabulary.pad_id)
        rows = kind(tokens, store.documents(split)["tokens"], special, length, units)
    if split == "valid" and not rows.rows:  # of few documents as many tokens are held out as a row had
        raise InputError(
            f"the token store {store.directory} holds out {len(tokens)} tokens, no row of {length}, as it was prepared "
            "for shorter rows: name another --data.store, or delete this one to make it again"
        )
    return rows


@dataclass(frozen=True)
class PackedRows:
    """<cls> and length - 1 consecutive tokens of the stream, over the borders of documents."""

    tokens: Tokens
    cls_id: int
    length: int
    units: Tokens | None = None

    @property
    def rows(self) -> int:
        """The number of rows; the tokens after the last complete row belong to none."""
        return len(self.tokens) // (self.length - 1)

    def take(self, index: np.ndarray) -> Rows:
        """Return the rows with these ids."""
        width = self.length - 1
        ids = np.empty((len(index), self.length), np.int32)
        ids[:, 0] = self.cls_id
        ids[:, 1:] = _runs(self.tokens, index * width, width)
        rows = {"ids": ids, "example": index.astype(np.int32)}
        if self.units is not None:
            # A row that starts within a word or phrase has the rest of it as a unit, not as a part of <cls>.
            rows["unit"] = np.full(ids.shape, 3, np.uint8)
            rows["unit"][:, 2:] = _runs(self.units, index * width + 1, width - 1)
        return rows

    def batch(self, number: int, size: int, local: slice, seed: int) -> Rows:
        """Return rows of a batch of an epoch: see `RowFormat`."""
        return self.take(shuffled(_places(number, size)[local], self.rows, seed))


class Blocks:
    """Documents cut into blocks of at most length - 2 tokens, none of which crosses a border: <cls> tokens <sep>.

    Args:
        tokens: the stream of a split [T].
        counts: the tokens of each document, the separator counted [N].
        special: the ids of <cls>, <sep> and <pad>.
        length: tokens of a row.
        units: the unit bits beside the tokens [T], if there are any.

    Attributes:
        blocks: number of blocks.

    """

    def __init__(
        self, tokens: Tokens, counts: np.ndarray, special: tuple[int, int, int], length: int, units: Tokens | None
    ):
        self.tokens = tokens
        self.units = units
        self.length = length
        self.width = length - 2
        self.cls_id, self.sep_id, self.pad_id = special
        counts = counts.astype(np.int64)
        self._start = np.cumsum(counts) - counts
        self._text = counts - 1  # without the separator
        self._last = np.cumsum(-(-self._text // self.width))  # the number of blocks up to a document's last
        self.blocks = int(self._last[-1]) if len(counts) else 0

    def where(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return of each block [P] the place of its first token in the stream, and its number of tokens."""
        document = np.searchsorted(self._last, blocks, "right")
        behind = self._last[document] - blocks  # it and those after it
        before = -(-self._text[document] // self.width) - behind
        start = before * self.width
        return self._start[document] + start, np.minimum(self.width, self._text[document] - start)

    def lengths(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the lengths of all blocks, <cls> and <sep> counted, some at a time: the first of them, lengths."""
        for first in range(0, self.blocks, AT_ONCE):
            blocks = np.arange(first, min(first + AT_ONCE, self.blocks))
            yield first, self.where(blocks)[1] + 2

    def lay(self, blocks: np.ndarray, row: np.ndarray, rows: int, length: int) -> Rows:
        """Lay blocks side by side in rows.

        Args:
            blocks: which ones [P].
            row: the row of each, in rising order [P].
            rows: number of rows, B.
            length: tokens of a row, L.

        Returns:
            "ids", "segments" and, with units, "unit", each [B, L].

        """
        start, size = self.where(blocks)
        full = size + 2
        first = np.searchsorted(row, np.arange(rows))  # the first block of each row
        before = np.cumsum(full) - full
        place = row * length + before - before[first][row]  # of its <cls>, in the rows laid end to end
        inside = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        to = np.repeat(place + 1, size) + inside

        ids = np.full(rows * length, self.pad_id, np.int32)
        source = np.repeat(start, size) + inside
        ids[to] = self.tokens[source]
        ids[place] = self.cls_id
        ids[place + size + 1] = self.sep_id

        segments = np.zeros(rows * length, np.int32)
        segment = np.arange(len(blocks)) - first[row] + 1
        segments[to] = np.repeat(segment, size)
        segments[place] = segment
        segments[place + size + 1] = segment

        laid: Rows = {"ids": ids, "segments": segments}
        if self.units is not None:
            unit = np.full(len(ids), 3, np.uint8)
            unit[to] = self.units[source]
            unit[place + 1] = 3  # a block may start within a word or phrase
            laid["unit"] = unit
        return {name: value.reshape(rows, length) for name, value in laid.items()}


class DocumentRows(Blocks):
    """Blocks side by side in a row as long as they fit, each a segment of its own."""

    def __init__(
        self, tokens: Tokens, counts: np.ndarray, special: tuple[int, int, int], length: int, units: Tokens | None
    ):
        super().__init__(tokens, counts, special, length, units)
        firsts = [first + _packed(lengths, length) for first, lengths in self.lengths()]
        self._first = np.concatenate([*firsts, [self.blocks]])  # block of each row, and the end
        self.rows = len(self._first) - 1

    def take(self, index: np.ndarray) -> Rows:
        """Return the rows with these ids."""
        many = self._first[index + 1] - self._first[index]
        row = np.repeat(np.arange(len(index)), many)
        blocks = np.arange(len(row)) + np.repeat(self._first[index] - np.cumsum(many) + many, many)
        return {**self.lay(blocks, row, len(index), self.length), "example": index.astype(np.int32)}

    def batch(self, number: int, size: int, local: slice, seed: int) -> Rows:
        """Return rows of a batch of an epoch: see `RowFormat`."""
        return self.take(shuffled(_places(number, size)[local], self.rows, seed))


class SentenceRows(Blocks):
    """A row for each block. Rows of like length come together: a batch is padded to the longest bucket in it.

    An epoch's order goes bucket after bucket, from short rows to long ones, each bucket shuffled; what does not fill a
    batch of its bucket begins the first batch of the next. The batches of that order come in a random order.
    """

    def __init__(
        self, tokens: Tokens, counts: np.ndarray, special: tuple[int, int, int], length: int, units: Tokens | None
    ):
        super().__init__(tokens, counts, special, length, units)
        self.rows = self.blocks
        self.edges = np.array(edges_to(length))
        bucket = np.zeros(self.rows, np.uint8)
        for first, lengths in self.lengths():
            bucket[first : first + len(lengths)] = np.searchsorted(self.edges, lengths)
        self._order = np.argsort(bucket, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(bucket, minlength=len(self.edges)))])

    def take(self, index: np.ndarray, length: int | None = None) -> Rows:
        """Return the rows with these ids, padded to `length`; None: to full length."""
        laid = self.lay(index, np.arange(len(index)), len(index), length or self.length)
        return {**laid, "example": index.astype(np.int32)}

    def batch(self, number: int, size: int, local: slice, seed: int) -> Rows:
        """Return rows of a batch of an epoch: see `RowFormat`. L is that of the longest bucket of the global batch."""
        number = int(shuffled(np.array([number]), self.rows // size, seed)[0])
        places = _places(number, size)
        # The last rows of the order are the longest: those that fill no batch are left out from anywhere in it.
        left_out = self.rows % size
        left_out_from = int(np.random.Philox(seed).random_raw()) % (self.rows - left_out + 1)
        places += left_out * (places >= left_out_from)
        length = int(self.edges[self._bucket_of(places[-1:])[0]])
        return self.take(self._rows_at(places[local], seed), length)

    def _bucket_of(self, places: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._starts, places, "right") - 1

    def _rows_at(self, places: np.ndarray, seed: int) -> np.ndarray:
        """The rows at these places of an epoch's order."""
        buckets = self._bucket_of(places)
        index = np.empty_like(places)
        for bucket in np.unique(buckets):
            here = buckets == bucket
            start = self._starts[bucket]
            size = int(self._starts[bucket + 1] - start)
            index[here] = self._order[start + shuffled(places[here] - start, size, seed)]
        return index


def _places(number: int, size: int) -> np.ndarray:
    """The places of a batch in the order of its epoch."""
    return np.arange(number * size, (number + 1) * size)


def _packed(sizes: np.ndarray, most: int) -> np.ndarray:
    """The first block of each row, when each row takes the next blocks as long as they fit.

    Where a row ends follows from where it starts: from row 0, as many rows again are found in each round.

    >>> _packed(np.array([3, 3, 4, 9, 1]), most=10).tolist()
    [0, 3]
    """
    ends = np.cumsum(sizes)
    after = np.searchsorted(ends, ends - sizes + most, "right")
    after = np.append(after, len(sizes))
    first = np.zeros(1, np.int64)
    while first[-1] < len(sizes):
        first = np.concatenate([first, after[first]])
        after = after[after]
    return first[: np.searchsorted(first, len(sizes))]


def _runs(tokens: Tokens, starts: np.ndarray, width: int) -> np.ndarray:
    return tokens.runs(starts, width) if isinstance(tokens, Stream) else sliding_window_view(tokens, width)[starts]
