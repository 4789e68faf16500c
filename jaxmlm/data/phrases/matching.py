"""Where the phrases of a list stand in a text, and which of those that overlap are units: whole arrays at a time."""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
from jaxtyping import Bool, Int32

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers cannot know
_SEED = 0x2010_01825


class Trie(NamedTuple):
    """Phrases for look-up. `words` are theirs, in the order of their ids; entry d of `edges` holds, sorted,
    node * len(words) + word of all beginnings of d + 2 words; `rows` which phrase such a beginning is, or -1."""

    words: pa.StringArray
    edges: list[np.ndarray]
    rows: list[np.ndarray]


def trie(phrases: pa.StringArray | pa.ChunkedArray) -> Trie:
    """Phrases (words with one space between) as a trie; phrases of one word are left out, they are units anyway."""
    split = pc.split_pattern(phrases, " ")
    split = split.combine_chunks() if isinstance(split, pa.ChunkedArray) else split
    lengths = pc.list_value_length(split).to_numpy()
    coded = pc.list_flatten(split).dictionary_encode()
    word = coded.indices.to_numpy().astype(np.int64)
    base = len(coded.dictionary)
    first = np.cumsum(lengths) - lengths
    node = word[first]
    edges = []
    rows = []
    for depth in range(2, int(lengths.max(initial=0)) + 1):
        long = np.flatnonzero(lengths >= depth)
        found, node[long] = np.unique(node[long] * base + word[first[long] + depth - 1], return_inverse=True)
        row = np.full(len(found), -1)
        ends = long[lengths[long] == depth]
        row[node[ends]] = ends
        edges.append(found)
        rows.append(row)
    return Trie(coded.dictionary, edges, rows)


class Found(NamedTuple):
    """Every place in a text where a phrase stands: first word, number of words, row of the phrase in its list."""

    start: np.ndarray
    length: np.ndarray
    row: np.ndarray


def find(trie: Trie, words: Int32[np.ndarray, " T"]) -> Found:
    """All occurrences of the phrases, overlapping or not; `words` are ids of the trie, -1 for any other word."""
    at = np.flatnonzero(words >= 0)
    node = words[at].astype(np.int64)
    found = []
    for depth, (edges, rows) in enumerate(zip(trie.edges, trie.rows, strict=True), start=2):
        inside = at + depth - 1 < len(words)
        at = at[inside]
        node = node[inside]
        word = words[at + depth - 1]
        known = word >= 0
        at = at[known]
        key = node[known] * len(trie.words) + word[known]
        node = np.searchsorted(edges, key)
        hit = np.append(edges, -1)[node] == key
        at = at[hit]
        node = node[hit]
        whole = rows[node] >= 0
        found.append((at[whole], np.full(whole.sum(), depth), rows[node[whole]]))
    none = (np.zeros(0, int),) * 3
    return Found(*(np.concatenate(parts) for parts in zip(none, *found, strict=True)))


def match(found: Found, words: int, overlap: str = "random", offset: int = 0) -> Bool[np.ndarray, " T"]:
    """For each of so many words: does a unit begin here? A phrase is one unit, any word outside one also.

    A phrase within a longer one is part of that. Of phrases that overlap otherwise, "random" takes one at random (a
    function of its place in the text, to which `offset` is added), "longest" the longest, then the leftmost.

    >>> two = trie(pa.array(["by the way", "the way out", "the way"]))
    >>> text = pc.index_in(pa.array("by the way out".split()), two.words).to_numpy()
    >>> match(find(two, text), 4).tolist() in ([True, False, False, True], [True, True, False, False])
    True
    >>> match(find(two, text), 4, "longest").tolist()
    [True, False, False, True]
    """
    start, length = settle(found.start, found.length, words, overlap, offset)
    begins = np.ones(words, bool)
    for k in range(1, int(length.max(initial=1))):
        begins[start[length > k] + k] = False
    return begins


def covered(begins: Bool[np.ndarray, " T"]) -> Bool[np.ndarray, " T"]:
    """Which words are in a unit of two words or more.

    >>> covered(np.array([True, True, False, False, True])).tolist()
    [False, True, True, True, False]
    """
    return ~begins | np.append(~begins[1:], False)


def settle(
    start: np.ndarray, length: np.ndarray, words: int, overlap: str = "random", offset: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Occurrences (start, length) that do not overlap, in the order of the text of so many words.

    "random": an occurrence within another goes; then all are visited in an order that is a function of `offset` +
    start, and one is taken if no word of it is taken. "longest": the same, the longest first, from left to right.
    """
    order = np.lexsort((-length, start))
    start = start[order]
    length = length[order]
    return _random(start, length, offset) if overlap == "random" else _longest(start, length, words)


def _random(start: np.ndarray, length: np.ndarray, offset: int) -> tuple[np.ndarray, np.ndarray]:
    if not len(start):
        return start, length
    end = start + length
    # Whatever starts earlier, or here and is longer, stands before it.
    outer = np.concatenate([[True], end[1:] > np.maximum.accumulate(end)[:-1]])
    start, end = start[outer], end[outer]
    turn = _mixed(start + offset)
    taken = [np.zeros((2, 0), start.dtype)]
    while len(start):
        # Starts and ends both rise, so those that overlap are neighbours. Who comes before all of them is taken.
        first = np.ones(len(start), bool)
        gone = np.zeros(len(start), bool)
        reach = []
        for k in range(1, len(start)):
            beside = start[k:] < end[:-k]
            if not beside.any():
                break
            reach.append(beside)
            first[k:] &= ~beside | (turn[k:] < turn[:-k])
            first[:-k] &= ~beside | (turn[:-k] < turn[k:])
        for k, beside in enumerate(reach, start=1):
            gone[k:] |= beside & first[:-k]
            gone[:-k] |= beside & first[k:]
        taken.append(np.stack([start[first], end[first]]))
        left = ~(first | gone)
        start = start[left]
        end = end[left]
        turn = turn[left]
    start, end = np.concatenate(taken, axis=1)
    order = np.argsort(start)
    return start[order], (end - start)[order]


def _longest(start: np.ndarray, length: np.ndarray, words: int) -> tuple[np.ndarray, np.ndarray]:
    free = np.ones(words, bool)
    begins = np.zeros(words, np.int8)
    for n in range(int(length.max(initial=0)), 0, -1):
        at = start[length == n]
        for k in range(n):
            at = at[free[at + k]]
        at = _leftmost(at, n)
        begins[at] = n
        for k in range(n):
            free[at + k] = False
    start = np.flatnonzero(begins)
    return start, begins[start].astype(int)


def _leftmost(start: np.ndarray, n: int) -> np.ndarray:
    """From left to right, each that does not overlap the last one taken: the orbit of the first under `after`.

    Its members up to 2^k steps away, moved by 2^k steps, give those up to 2^(k + 1): no loop over occurrences.
    """
    after = np.append(np.searchsorted(start, start + n), len(start))
    reached = np.zeros(len(start) + 1, bool)
    reached[:1] = True
    while not (after == len(start)).all():
        reached[after[reached]] = True
        after = after[after]
    return start[reached[:-1]]


def _mixed(place: np.ndarray) -> np.ndarray:
    """64 well-mixed bits of each place (splitmix64), no two the same."""
    x = place.astype(np.uint64) + np.uint64(_SEED)
    x *= np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
