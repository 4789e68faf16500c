"""How the stream of a split is cut into rows. Row i is the same tokens for ever, so it is the example with id i."""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from jaxmlm.data.buckets import edges_to
from jaxmlm.data.permutation import shuffled
from jaxmlm.data.store import Stream

BLOCK = 1 << 20  # pieces that are packed into rows at once, which bounds the memory that it takes
Rows = dict[str, np.ndarray]
Tokens = np.ndarray | Stream


@dataclass(frozen=True)
class Packed:
    """<cls> and length - 1 consecutive tokens of the stream, over the borders of documents."""

    tokens: Tokens
    cls_id: int
    length: int
    units: Tokens | None = None

    @property
    def rows(self) -> int:
        """How many rows the split has; the tokens after the last whole row belong to none."""
        return len(self.tokens) // (self.length - 1)

    def take(self, index: np.ndarray) -> Rows:
        """The rows with these ids; with units also "unit" uint8 [B, L]."""
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

    def batch(self, places: np.ndarray, last: int, seed: int) -> Rows:
        """The rows at these places of an epoch."""
        return self.take(shuffled(places, self.rows, seed))


class Pieces:
    """Documents cut into pieces of at most length - 2 tokens, none of which crosses a border: <cls> piece <sep>.

    `counts` [N] are the documents' tokens, each with its separator.
    """

    def __init__(
        self, tokens: Tokens, counts: np.ndarray, special: tuple[int, int, int], length: int, units: Tokens | None
    ):
        self.tokens, self.units, self.length, self.width = tokens, units, length, length - 2
        self.cls_id, self.sep_id, self.pad_id = special
        counts = counts.astype(np.int64)
        self._start = np.cumsum(counts) - counts
        self._text = counts - 1  # without the separator
        self._last = np.cumsum(-(-self._text // self.width))  # the number of pieces up to a document's last
        self.pieces = int(self._last[-1]) if len(counts) else 0

    def where(self, pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each piece the place of its first token in the stream, and its number of tokens."""
        document = np.searchsorted(self._last, pieces, "right")
        behind = self._last[document] - pieces  # it and those after it
        before = -(-self._text[document] // self.width) - behind
        start = before * self.width
        return self._start[document] + start, np.minimum(self.width, self._text[document] - start)

    def lay(self, pieces: np.ndarray, row: np.ndarray, rows: int, length: int) -> Rows:
        """Rows [B, L] with these pieces in them, side by side; `row` [P], in rising order, is the row of each."""
        start, size = self.where(pieces)
        full = size + 2
        first = np.searchsorted(row, np.arange(rows))  # the first piece of each row
        before = np.cumsum(full) - full
        place = row * length + before - before[first][row]  # of its <cls>, in the rows laid end to end
        ids = np.full(rows * length, self.pad_id, np.int32)
        segments = np.zeros(rows * length, np.int32)
        inside = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        to, source = np.repeat(place + 1, size) + inside, np.repeat(start, size) + inside
        ids[to], ids[place], ids[place + size + 1] = self.tokens[source], self.cls_id, self.sep_id
        number = np.arange(len(pieces)) - first[row] + 1
        segments[to], segments[place], segments[place + size + 1] = np.repeat(number, size), number, number
        laid: Rows = {"ids": ids, "segments": segments}
        if self.units is not None:
            unit = np.full(len(ids), 3, np.uint8)
            unit[to] = self.units[source]
            unit[place + 1] = 3  # a piece may start within a word or phrase
            laid["unit"] = unit
        return {name: value.reshape(rows, length) for name, value in laid.items()}


class Documents(Pieces):
    """Pieces side by side in a row as long as they fit, each a segment of its own (padding is segment 0)."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        firsts = [
            block + _packed(self.where(np.arange(block, min(block + BLOCK, self.pieces)))[1] + 2, self.length)
            for block in range(0, self.pieces, BLOCK)
        ]
        self._first = np.concatenate([*firsts, [self.pieces]])  # piece of each row, and the end
        self.rows = len(self._first) - 1

    def take(self, index: np.ndarray) -> Rows:
        """The rows with these ids, with "segments" int32 [B, L]."""
        many = self._first[index + 1] - self._first[index]
        row = np.repeat(np.arange(len(index)), many)
        pieces = np.arange(len(row)) + np.repeat(self._first[index] - np.cumsum(many) + many, many)
        return {**self.lay(pieces, row, len(index), self.length), "example": index.astype(np.int32)}

    def batch(self, places: np.ndarray, last: int, seed: int) -> Rows:
        """The rows at these places of an epoch."""
        return self.take(shuffled(places, self.rows, seed))


class Sentences(Pieces):
    """A row for each piece. Rows of like length come together: a batch is padded to the longest bucket in it."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.rows = self.pieces
        self.edges = np.array(edges_to(self.length))
        bucket = np.concatenate([
            np.searchsorted(self.edges, self.where(np.arange(block, min(block + BLOCK, self.pieces)))[1] + 2).astype(
                np.uint8
            )
            for block in range(0, self.pieces, BLOCK)
        ] or [np.zeros(0, np.uint8)])  # fmt: skip
        self._order = np.argsort(bucket, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(bucket, minlength=len(self.edges)))])

    def take(self, index: np.ndarray, length: int | None = None) -> Rows:
        """The rows with these ids, padded to `length`; with "segments" int32 [B, L]: 1, and 0 for padding."""
        laid = self.lay(index, np.arange(len(index)), len(index), length or self.length)
        return {**laid, "example": index.astype(np.int32)}

    def batch(self, places: np.ndarray, last: int, seed: int) -> Rows:
        """The rows at these places of an epoch: bucket after bucket, each shuffled.

        What does not fill a batch of its bucket begins the first batch of the next.
        """
        bucket = np.searchsorted(self._starts, places, "right") - 1
        index = np.empty_like(places)
        for b in np.unique(bucket):
            here, many = bucket == b, int(self._starts[b + 1] - self._starts[b])
            index[here] = self._order[self._starts[b] + shuffled(places[here] - self._starts[b], many, seed)]
        return self.take(index, int(self.edges[np.searchsorted(self._starts, last, "right") - 1]))


Cut = Packed | Documents | Sentences
"""A format: `rows` is how many there are, `take(index)` are those with these ids, `batch(...)` those of a step."""


def _packed(sizes: np.ndarray, most: int) -> np.ndarray:
    """The first piece of each row, when each row takes the next pieces as long as they fit.

    Where a row ends follows from where it starts: from row 0, as many rows again are found in each round.

    >>> _packed(np.array([3, 3, 4, 9, 1]), most=10).tolist()
    [0, 3]
    """
    ends = np.cumsum(sizes)
    after = np.searchsorted(ends, ends - sizes + most, "right")
    after = np.append(after, len(sizes))
    first = np.zeros(1, np.int64)
    while first[-1] < len(sizes):
        first, after = np.concatenate([first, after[first]]), after[after]
    return first[: np.searchsorted(first, len(sizes))]


def _runs(tokens: Tokens, starts: np.ndarray, width: int) -> np.ndarray:
    return tokens.runs(starts, width) if isinstance(tokens, Stream) else sliding_window_view(tokens, width)[starts]
