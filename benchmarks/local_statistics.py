"""What counts of neighbouring tokens prefer in BLiMP: python benchmarks/local_statistics.py STORE BLIMP

STORE is the token store of a run or a study, BLIMP a directory of minimal pairs. A small encoder first learns which
tokens stand beside each other, so fields in which that is misleading fall below chance. Accuracy in % by four scores of
a sentence, each without any training: its length (fewer tokens win; equal ones are 50), the sum of the tokens' log
probabilities, the same given the token before, and given both neighbours. A Markdown table, a field or a set in a row.
"""

import sys
from collections import defaultdict
from typing import Any

import numpy as np

from jaxmlm.data.store import Store
from jaxmlm.tasks import blimp

Counts = tuple[np.ndarray, np.ndarray]


def counts_of(keys: np.ndarray) -> Counts:
    """The distinct keys, sorted, and how often each occurs."""
    return np.unique(keys, return_counts=True)


def look_up(counts: Counts, keys: np.ndarray) -> np.ndarray:
    """How often each key occurred."""
    known, number = counts
    place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[place] == keys, number[place], 0)


def scores(text: np.ndarray, vocab: int, sentences: list[list[int]], separator: int) -> dict[str, np.ndarray]:
    """The scores of sentences [S] by the counts of a text [T].

    Seen counts have a weight of 3/4 against the unigrams, pairs of neighbours n / (n + 5) against those of one side.
    """
    unigrams = np.bincount(text, minlength=vocab)
    before = counts_of(text[:-1] * vocab + text[1:])
    around = counts_of((text[:-2] * vocab + text[1:-1]) * vocab + text[2:])
    neighbours = counts_of(text[:-2] * vocab + text[2:])

    lengths = np.array([len(ids) for ids in sentences])
    flat = np.concatenate([[separator, *ids, separator] for ids in sentences])
    sentence = np.repeat(np.arange(len(sentences)), lengths + 2)
    inside = np.flatnonzero(flat != separator)
    left, token, right = flat[inside - 1], flat[inside], flat[inside + 1]

    alone = (unigrams[token] + 1) / (len(text) + vocab)
    from_left = 0.75 * look_up(before, left * vocab + token) / np.maximum(unigrams[left], 1) + 0.25 * alone
    from_right = 0.75 * look_up(before, token * vocab + right) / np.maximum(unigrams[right], 1) + 0.25 * alone
    seen = look_up(neighbours, left * vocab + right)
    both = look_up(around, (left * vocab + token) * vocab + right) / np.maximum(seen, 1)
    share = seen / (seen + 5)
    window = share * both + (1 - share) * (from_left + from_right) / 2

    def total(probability: np.ndarray) -> np.ndarray:
        return np.bincount(sentence[inside], np.log(probability), len(sentences))

    return {"length": -lengths, "alone": total(alone), "given the left": total(from_left), "given both": total(window)}


def main(store_directory: str, blimp_directory: str) -> None:
    """Print the table."""
    store = Store(store_directory)
    tokens: Any = store.tokens("train")
    text = np.asarray(tokens[:]).astype(np.int64)
    pairs = blimp.read(blimp_directory)
    sentences = store.tokenizer.encode_batch([text for pair in pairs for text in (pair.good, pair.bad)])
    found = scores(text, store.tokenizer.size, sentences, store.tokenizer.sep_id)

    by_set = defaultdict(list)
    for i, pair in enumerate(pairs):
        by_set[pair.field, pair.set].append(i)
    right = {name: np.where(s[::2] == s[1::2], 0.5, s[::2] > s[1::2]) for name, s in found.items()}
    rows = {key: [100 * right[name][of].mean() for name in right] for key, of in by_set.items()}

    print("| field, set |", " | ".join(right), "|")
    print("|---|" + "---|" * len(right))
    for field in sorted({field for field, _ in rows}):
        sets = {name: row for (of, name), row in rows.items() if of == field}
        for name, row in {f"**{field}**": np.mean(list(sets.values()), axis=0), **sets}.items():
            print(f"| {name} |", " | ".join(f"{x:.0f}" for x in row), "|")
    print("| **all** |", " | ".join(f"{x:.1f}" for x in np.mean(list(rows.values()), axis=0)), "|")


if __name__ == "__main__":
    main(*sys.argv[1:])
