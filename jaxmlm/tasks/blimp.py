"""BLiMP: does the model find the grammatical sentence of a minimal pair more probable than the other one?"""

from pathlib import Path
from typing import Any, NamedTuple

from jaxmlm.data.tokenizer import Tokenizer
from jaxmlm.directories import expanded
from jaxmlm.errors import InputError
from jaxmlm.tasks import file_formats
from jaxmlm.tasks.choices import Choice, Outcome, averages, rows_of
from jaxmlm.tasks.choices import evaluation as evaluation_of
from jaxmlm.training.task import Eval

FIELDS = {"s-selection": "argument_structure"}
"""Names of linguistics_term that the BLiMP paper's twelve fields put under another."""
_TEXTS = ("sentence_good", "sentence_bad")


class MinimalPair(NamedTuple):
    """A minimal pair, the set (UID) it is of, and that set's field (linguistics_term)."""

    set: str
    field: str
    good: str
    bad: str

    @property
    def choice(self) -> Choice:
        """The pair as a choice between its sentences."""
        return Choice(self.set, self.field, (self.good, self.bad), (0, 0))


def read(directory: str | Path, pairs_per_set: int | None = None) -> list[MinimalPair]:
    """The first pairs of every `*.jsonl` in the directory (or its `data` or `blimp`), in order of file name."""
    directory = expanded(directory)
    sets = next(
        (found for sub in ("", "data", "blimp") if (found := file_formats.named(directory / sub, ".jsonl"))), None
    )
    if not directory.exists():
        raise InputError(f"{directory} is missing: give the directory of the BLiMP sets")
    if sets is None:
        raise InputError(f"{directory}: no .jsonl files: expected the BLiMP sets, one file each")
    return [pair_of(item, at) for path in sets for at, item in file_formats.json_lines(path, pairs_per_set)]


def pair_of(item: Any, where: str) -> MinimalPair:
    """The minimal pair in a JSON object; `where` is its place, for errors."""
    uid, term, good, bad = file_formats.texts_of(item, ("UID", "linguistics_term", *_TEXTS), where, "BLiMP lines")
    return MinimalPair(uid, FIELDS.get(term, term), good, bad)


def rows(pairs: list[MinimalPair], tokenizer: Tokenizer) -> list[list[int]]:
    """The token ids of all sentences, special tokens included: the good one of a pair, then the bad one."""
    return rows_of([pair.choice for pair in pairs], tokenizer).ids


def evaluation(
    directory: str | Path, tokenizer: Tokenizer, *, pairs_per_set: int | None, batch: int, pll_word: bool = False
) -> Eval:
    """Accuracy by pseudo-log-likelihood of a masked language model (`.logits_at`).

    Scores: "accuracy" (mean over the sets), "field/<name>" and "set/<UID>"; "same" counts the pairs that
    the tokenizer cannot distinguish. Those and equal scores count one half. `batch` masked copies are scored at once.
    """
    pairs = [pair.choice for pair in read(directory, pairs_per_set)]

    def score(outcome: Outcome) -> dict[str, float]:
        return averages(pairs, outcome.right) | {"same": float(outcome.same.sum())}

    return evaluation_of(pairs, rows_of(pairs, tokenizer), tokenizer, batch, score, pll_word=pll_word)
