"""Counting word n-grams in passes, and their PMI (Levine et al. 2021, arXiv 2010.01825, equation 3)."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int32

_BLOCK = 1 << 25  # places of which the n-grams are sorted at once: 8 bytes each


class Ngrams(NamedTuple):
    """N-grams and how often they occur; entry n - 1 of each list is for those of n words.

    `prefix` and `suffix` hold, for n > 1, which of the n-grams of n - 1 words the first and the last n - 1 words
    are; for n = 1 both are the word. `totals` are the windows of n words in the corpus, pruned n-grams included.
    """

    totals: list[int]
    counts: list[np.ndarray]
    prefix: list[np.ndarray]
    suffix: list[np.ndarray]


def count(
    streams: Sequence[Int32[np.ndarray, "..."]],
    longest: int = 5,
    least: int = 11,
    progress: Callable[[int], None] = lambda n: None,
) -> Ngrams:
    """Count the n-grams of 1 to `longest` words that occur `least` times or more in all streams together.

    A pass for each length. A-priori pruning: an n-gram can only be that frequent if its first and its last n - 1
    words are, so a pass looks at pairs of those that the pass before kept.

    >>> found = count([np.array([0, 1, 0, 1, -1, 1], np.int32)], longest=2, least=2)
    >>> found.prefix[1], found.suffix[1], found.counts[1], found.totals
    (array([0], dtype=int32), array([1], dtype=int32), array([2]), [5, 3])
    """
    size = 1 + max((int(words.max(initial=-1)) for words in streams), default=-1)
    times = np.zeros(size + 1, np.int64)
    for words in streams:
        for block in _blocks(len(words)):
            times += np.bincount(words[block].astype(np.int64) + 1, minlength=size + 1)
    times = times[1:]
    word = np.flatnonzero(times >= least).astype(np.int32)
    ids = np.full(size + 1, -1, np.int32)  # the last entry is that of word -1
    ids[word] = np.arange(len(word))
    at = [ids[words] for words in streams]  # at each place the number of the n-gram that starts there, -1 for none
    found = Ngrams([_windows(streams, n) for n in range(1, longest + 1)], [times[word]], [word], [word])
    progress(1)
    for n in range(2, longest + 1):
        base = len(found.counts[-1])
        keys = np.zeros(0, np.int64)
        times = np.zeros(0, np.int64)
        for part in at:
            for block in _blocks(len(part) - 1):
                pairs = _pairs(part, block, base)[1]
                pairs.sort()
                keys, times = _add(keys, times, *_runs(pairs, np.ones(len(pairs), np.int8)))
        keys = keys[times >= least]
        times = times[times >= least]
        found.counts.append(times)
        found.prefix.append((keys // max(base, 1)).astype(np.int32))
        found.suffix.append((keys % max(base, 1)).astype(np.int32))
        if n < longest:
            at = [_places(part, keys, base) for part in at]
        progress(n)
    return found


def score(ngrams: Ngrams, power: int = 2) -> list[Float64[np.ndarray, "..."]]:
    """PMI of every n-gram: the minimum over its segmentations s of power * log p(ngram) - sum of log p(s).

    p is the share among the windows of the same length. A segmentation has two parts or more, so the best one is
    a cut into two, each of which is whole or segmented again in its best way.
    """
    best = []
    scores = []
    for n, times in enumerate(ngrams.counts, start=1):
        own = np.log(times / max(ngrams.totals[n - 1], 1))
        head = tail = np.arange(len(times))
        heads = {}
        tails = {}
        for k in range(n - 1, 0, -1):  # which n-gram the first and the last k words are
            heads[k] = head = ngrams.prefix[k][head]
            tails[k] = tail = ngrams.suffix[k][tail]
        cuts = [best[k - 1][heads[k]] + best[n - k - 1][tails[n - k]] for k in range(1, n)]
        cut = np.max(cuts, axis=0) if cuts else np.full(len(times), -np.inf)
        best.append(np.maximum(own, cut))
        scores.append(power * own - cut)
    return scores


def _blocks(length: int) -> Iterator[slice]:
    for start in range(0, length, _BLOCK):
        yield slice(start, min(start + _BLOCK, length))


def _windows(streams: Sequence[np.ndarray], n: int) -> int:
    """How often n words stand together with no break between them."""
    total = 0
    for words in streams:
        runs = np.diff(np.concatenate([[-1], np.flatnonzero(words < 0), [len(words)]])) - 1
        total += int(np.maximum(runs - n + 1, 0).sum())
    return total


def _pairs(part: np.ndarray, block: slice, base: int) -> tuple[np.ndarray, np.ndarray]:
    """Where in a block two kept n-grams start beside each other, and the key of the pair."""
    left, right = part[block], part[block.start + 1 : block.stop + 1]
    where = np.flatnonzero((left >= 0) & (right >= 0))
    return where + block.start, left[where].astype(np.int64) * base + right[where]


def _places(part: np.ndarray, keys: np.ndarray, base: int) -> np.ndarray:
    """Which of these pairs starts at each place, -1 for none."""
    out = np.full(max(len(part) - 1, 0), -1, np.int32)
    ended = np.append(keys, -1)
    for whole in _blocks(len(out)):
        for start in range(whole.start, whole.stop, 1 << 22):
            where, pairs = _pairs(part, slice(start, min(start + (1 << 22), whole.stop)), base)
            place = np.searchsorted(keys, pairs)
            hit = ended[place] == pairs
            out[where[hit]] = place[hit]
    return out


def _runs(keys: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted keys, each once, with the sum of their times."""
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(0, int)
    return keys[first], np.add.reduceat(times, first, dtype=np.int64) if len(first) else np.zeros(0, np.int64)


def _add(keys: np.ndarray, times: np.ndarray, more: np.ndarray, their: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not len(keys):
        return more, their
    keys = np.concatenate([keys, more])
    times = np.concatenate([times, their])
    order = np.argsort(keys, kind="stable")
    return _runs(keys[order], times[order])
