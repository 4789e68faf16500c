"""BLiMP: does the model find the grammatical sentence of a minimal pair more probable than the other one?

By their pseudo-log-likelihoods (tasks/likelihood.py). Nothing is trained.
"""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmlm.data.inputs import with_special_tokens
from jaxmlm.data.tokenizer import Tokenizer
from jaxmlm.errors import InputError
from jaxmlm.tasks import file_formats
from jaxmlm.tasks.likelihood import Copies, predict
from jaxmlm.training.task import Eval

FIELDS = {"s-selection": "argument_structure"}
"""Names of linguistics_term that the BLiMP paper's twelve fields put under another."""


class MinimalPair(NamedTuple):
    """A minimal pair, the set (UID) it is of, and that set's field (linguistics_term)."""

    set: str
    field: str
    good: str
    bad: str


def read(folder: str | Path, pairs_per_set: int | None = None) -> list[MinimalPair]:
    """The first pairs of every `*.jsonl` in the folder (or its `data` or `blimp`), in order of file name."""
    folder = Path(folder)
    sets = next((found for sub in ("", "data", "blimp") if (found := file_formats.named(folder / sub, ".jsonl"))), None)
    if sets is None:
        raise InputError(f"{folder}: no .jsonl files: expected the BLiMP sets, one file each")
    pairs = []
    for path in sets:
        before = len(pairs)
        with path.open("rb") as file:
            written = ((number, line) for number, line in file_formats.lines(file) if line.strip())
            for number, line in islice(written, pairs_per_set):
                pairs.append(_pair(line, f"{path}:{number}"))
        if len(pairs) == before:
            raise InputError(f"{path}: empty: expected one JSON object a line")
    return pairs


def _pair(line: bytes, where: str) -> MinimalPair:
    try:
        item, _ = file_formats.json_of(line)
    except ValueError as e:  # not JSON, or not UTF-8
        raise InputError(f"{where}: not a JSON object: {e}") from e
    names = ("UID", "linguistics_term", "sentence_good", "sentence_bad")
    for name in names:
        if not isinstance(item, dict) or not isinstance(item.get(name), str):
            raise InputError(f"{where}: no text {name!r}: BLiMP lines have {', '.join(names)}")
    uid, term, good, bad = (str(item[name]) for name in names)
    return MinimalPair(uid, FIELDS.get(term, term), good, bad)


def rows(pairs: list[MinimalPair], tokenizer: Tokenizer) -> list[list[int]]:
    """The token ids of all sentences, special tokens included: the good one of a pair, then the bad one."""
    texts = [text for pair in pairs for text in (pair.good, pair.bad)]
    return [with_special_tokens(tokenizer, ids).ids for ids in tokenizer.encode_batch(texts)]


def evaluation(folder: str | Path, tokenizer: Tokenizer, *, pairs_per_set: int | None, batch: int) -> Eval:
    """Accuracy by pseudo-log-likelihood of a masked language model (`.logits_at`).

    Scores: "accuracy" (mean over the sets), "field/<name>" and "set/<UID>"; "same" counts the pairs that
    the tokenizer cannot tell apart. Those and equal scores count one half. `batch` masked copies are scored at once.
    """
    pairs = read(folder, pairs_per_set)
    sentences = rows(pairs, tokenizer)
    same = np.array([sentences[i] == sentences[i + 1] for i in range(0, len(sentences), 2)])
    copies = Copies(sentences, tokenizer, batch)

    def score(outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
        likelihood = copies.sums(outputs)
        good, bad = likelihood[0::2], likelihood[1::2]
        return scores(pairs, np.where(same | (good == bad), 0.5, good > bad)) | {"same": float(same.sum())}

    return Eval(copies.batches, predict, score, size=len(copies))


def scores(pairs: list[MinimalPair], right: np.ndarray) -> dict[str, float]:
    """Means of `right` [pairs] over each set; over a field's sets; over all sets.

    >>> pairs = [MinimalPair("a", "f", "", ""), MinimalPair("b", "f", "", ""), MinimalPair("b", "f", "", "")]
    >>> scores(pairs, np.array([1.0, 0.0, 0.5]))
    {'accuracy': 0.625, 'field/f': 0.625, 'set/a': 1.0, 'set/b': 0.25}
    """
    sets: dict[str, list[float]] = {}
    for pair, value in zip(pairs, right, strict=True):
        sets.setdefault(pair.set, []).append(float(value))
    means = {name: float(np.mean(values)) for name, values in sets.items()}
    field_of = {pair.set: pair.field for pair in pairs}
    fields = {
        f"field/{field}": float(np.mean([means[name] for name in means if field_of[name] == field]))
        for field in sorted(set(field_of.values()))
    }
    overall = float(np.mean(list(means.values())))
    return {"accuracy": overall, **fields, **{f"set/{name}": mean for name, mean in means.items()}}
