"""Runs of words of a text, as numbers of 64 bits."""

import functools
import hashlib
import re
import sys
import unicodedata

import numpy as np

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_MOST_KEPT = 1 << 20


class WordHashes:
    """The words of a text as numbers, without case and punctuation (Brown et al. 2020, appendix C).

    A text without words, as one of punctuation, is one word as a whole.

    >>> WordHashes()("The cat, the CAT!").tolist()[:2] == WordHashes()("the cat").tolist()
    True
    """

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def __call__(self, text: str) -> np.ndarray:
        """The words of a text in order [W], uint64."""
        text = unicodedata.normalize("NFKC", text).casefold()
        words = _word().findall(text) or [text]
        known = self._known
        if len(known) > _MOST_KEPT:
            known = self._known = {}  # threads that share it have the old one
        for word in set(words).difference(known):
            known[word] = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest())
        return np.fromiter(map(known.__getitem__, words), np.uint64, len(words))


@functools.cache
def _word() -> re.Pattern[str]:
    """A word: letters, digits and _, with the combining marks on them, which are the vowels of many scripts."""
    marks = "".join(char for char in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(char)[0] == "M")
    # The range of all marks is looked at first: the class of them takes five times as long, after each word.
    return re.compile(rf"\w+(?:(?=[{marks[0]}-{marks[-1]}])[\w{marks}]+)?")


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
