"""The marks of documents: by their words alone, so that any thread and any machine makes the same."""

from typing import Any, NamedTuple

import numpy as np

from jaxmlm.data.cleaning.config import Clean
from jaxmlm.data.cleaning.evaluation_sets import EvaluationSet, read
from jaxmlm.data.cleaning.near_duplicates import BANDS, band_keys
from jaxmlm.data.cleaning.ngrams import WordHashes, ngrams

MARK = np.dtype([("sets", "<u4"), ("bands", "<u8", (BANDS,))])
"""What is known of a document: a bit for each evaluation set that it holds a run of, and the keys of its bands."""


TABLE_BITS = 25


class Marks(NamedTuple):
    """Of some documents: MARK of each [D], and which runs of the evaluation sets were found, as their numbers."""

    documents: np.ndarray
    found: list[np.ndarray]


class Marker:
    """Marks documents.

    Args:
        clean: what to look for.

    Raises:
        InputError: an evaluation set is not there or is damaged.

    """

    def __init__(self, clean: Clean):
        self._clean = clean
        self._hashes = WordHashes()
        self.sets: list[EvaluationSet] = [read(text) for text in clean.evaluation_sets]
        self.runs = sum(len(evaluated.ngrams) for evaluated in self.sets)
        """Of all sets: a run is numbered by its place in its set, behind those of the sets before."""
        # A search among millions of runs takes a microsecond. Most that are not there are not in a table by 25 bits.
        self._tables: dict[int, np.ndarray] = {}
        for evaluated in self.sets:
            table = self._tables.setdefault(evaluated.n, np.zeros(1 << TABLE_BITS, bool))
            table[_entries(evaluated.ngrams)] = True

    def __call__(self, texts: list[str]) -> Marks:
        """Mark documents."""
        words = [self._hashes(text) for text in texts]
        marks = np.zeros(len(texts), MARK)
        if self._clean.near_duplicates:
            marks["bands"] = band_keys(words)
        found = []
        for i, document in enumerate(words):
            likely = {n: _likely(ngrams(document, n), table) for n, table in self._tables.items()}
            places = []
            before = 0
            for bit, evaluated in enumerate(self.sets):
                held = _places(likely[evaluated.n], evaluated.ngrams)
                if len(held):
                    marks["sets"][i] |= 1 << bit
                    places.append(held + before)
                before += len(evaluated.ngrams)
            found.append(np.concatenate(places) if places else np.zeros(0, np.int64))
        return Marks(marks, found)

    def table(self, found: np.ndarray, documents: list[int]) -> list[dict[str, Any]]:
        """What was found of each set.

        Args:
            found: whether each run of all sets was [runs].
            documents: how many documents hold a run of each set.

        """
        rows = []
        before = 0
        for evaluated, count in zip(self.sets, documents, strict=True):
            here = found[before : before + len(evaluated.ngrams)]
            before += len(evaluated.ngrams)
            each = np.repeat(here, np.diff(evaluated.first))
            hits = np.bincount(evaluated.passage[each], minlength=evaluated.passages)
            rows.append(
                {
                    "set": evaluated.name,
                    "words": evaluated.n,
                    "passages": evaluated.passages,
                    "touched": int((hits > 0).sum()),
                    "found": int((2 * hits >= evaluated.runs).sum()),
                    "documents": count,
                }
            )
        return rows


def _entries(runs: np.ndarray) -> np.ndarray:
    return (runs >> np.uint64(64 - TABLE_BITS)).astype(np.int64)


def _likely(runs: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Those runs that may be in a set."""
    return runs[table[_entries(runs)]]


def _places(runs: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The places of runs in a sorted array, each once, of those that are there."""
    at = np.searchsorted(among, runs)
    at[at == len(among)] = 0
    return np.unique(at[among[at] == runs])
