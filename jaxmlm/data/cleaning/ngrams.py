"""Runs of words of a text, as numbers of 64 bits."""

import hashlib
import re
import unicodedata

import numpy as np

_WORD = re.compile(r"\w+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_MOST_KEPT = 1 << 20


class WordHashes:
    """The words of a text as numbers, without case and punctuation (Brown et al. 2020, appendix C).

    >>> WordHashes()("The cat, the CAT!").tolist()[:2] == WordHashes()("the cat").tolist()
    True
    """

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def __call__(self, text: str) -> np.ndarray:
        """The words of a text in order [W], uint64."""
        words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
        known = self._known
        if len(known) > _MOST_KEPT:
            known = self._known = {}  # threads that share it have the old one
        for word in set(words).difference(known):
            known[word] = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest())
        return np.fromiter(map(known.__getitem__, words), np.uint64, len(words))


def ngrams(words: np.ndarray, n: int) -> np.ndarray:
    """The runs of n words [W - n + 1] as numbers that are the same for the same runs; none where W < n.

    >>> ngrams(np.arange(5, dtype=np.uint64), 4).shape, ngrams(np.arange(3, dtype=np.uint64), 4).shape
    ((2,), (0,))
    """
    count = max(len(words) - n + 1, 0)
    found = np.zeros(count, np.uint64)
    for k in range(n):
        found = found * _FACTOR + words[k : k + count]
    found ^= found >> np.uint64(31)
    return found * _FACTOR
