"""Sentences of which the first should be the most probable one to the model: minimal pairs, and choices among several.

By their pseudo-log-likelihoods (tasks/likelihood.py). Nothing is trained.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmlm.data.inputs import with_special_tokens
from jaxmlm.data.tokenizer import Tokenizer
from jaxmlm.tasks.likelihood import Copies, predict
from jaxmlm.training.task import Eval


class Choice(NamedTuple):
    """Sentences, of which the first is the right one.

    Attributes:
        set: the set that it is of.
        field: the field that the set is of; empty: none.
        options: the sentences.
        begins: where in each sentence the part begins that is scored, in characters; what is before is context.

    """

    set: str
    field: str
    options: tuple[str, ...]
    begins: tuple[int, ...]

    @property
    def scored(self) -> tuple[str, ...]:
        """The parts that are scored."""
        return tuple(option[begin:] for option, begin in zip(self.options, self.begins, strict=True))


class Rows(NamedTuple):
    """Sentences as token ids, special tokens included; the position from which each is scored; how many were cut."""

    ids: list[list[int]]
    begins: list[int]
    cut: int


class Outcome(NamedTuple):
    """What a model makes of choices: [C] each, `nats` [C, K].

    Attributes:
        nats: log-likelihoods of the options; -inf where a choice has fewer than K.
        chosen: the most probable option; of equal ones the first.
        right: 1 where that is the first option alone; a share of 1 where others are as probable.
        same: whether the tokenizer cannot tell another option from the first.

    """

    nats: np.ndarray
    chosen: np.ndarray
    right: np.ndarray
    same: np.ndarray


def rows_of(choices: Sequence[Choice], tokenizer: Tokenizer, most: int | None = None) -> Rows:
    """The token ids of all options, one after the other.

    Args:
        choices: what is encoded.
        tokenizer: of the model.
        most: tokens of the longest row; longer ones lose their beginning. None: nothing is cut.

    """
    options = [option for choice in choices for option in choice.options]
    begins = [begin for choice in choices for begin in choice.begins]
    if any(begins):
        encoded = [tokenizer.encode_offsets(option) for option in options]
        found = [ids for ids, _ in encoded]
        # A token that begins before and ends within the scored part belongs to it.
        first = [sum(end <= begin for _, end in offsets) for (_, offsets), begin in zip(encoded, begins, strict=True)]
    else:
        found = tokenizer.encode_batch(options)
        first = begins
    room = max(map(len, found)) if most is None else most - len(with_special_tokens(tokenizer, []).ids)
    lost = [max(0, len(ids) - room) for ids in found]
    rows = [with_special_tokens(tokenizer, ids[less:]).ids for ids, less in zip(found, lost, strict=True)]
    starts = [max(0, start - less) for start, less in zip(first, lost, strict=True)]
    return Rows(rows, [1 + start for start in starts], sum(less > 0 for less in lost))


def evaluation(
    choices: Sequence[Choice],
    rows: Rows,
    tokenizer: Tokenizer,
    batch: int,
    score: Callable[[Outcome], dict[str, float]],
    save: Callable[[Outcome, Path], None] | None = None,
    pll_word: bool = False,
) -> Eval:
    """An evaluation of a masked language model (`.logits_at`).

    Args:
        choices: what is scored.
        rows: their options, as `rows_of` gives them.
        tokenizer: of the model.
        batch: masked copies in a model pass.
        score: metrics of an outcome.
        save: writes prediction files into a directory.
        pll_word: see `likelihood.Copies`.

    """
    copies = Copies(rows.ids, tokenizer, batch, rows.begins, pll_word)

    def outcome(outputs: Mapping[str, np.ndarray]) -> Outcome:
        return outcome_of(choices, rows.ids, copies.sums(outputs))

    def saved(outputs: Mapping[str, np.ndarray], directory: Path) -> None:
        if save is not None:
            save(outcome(outputs), directory)

    return Eval(copies.batches, predict, lambda outputs: score(outcome(outputs)), saved, size=len(copies))


def outcome_of(choices: Sequence[Choice], ids: Sequence[Sequence[int]], likelihoods: np.ndarray) -> Outcome:
    """The outcome of choices, out of the token ids and the log-likelihoods of all their options.

    >>> pair = Choice("a", "", ("good", "bad"), (0, 0))
    >>> found = outcome_of([pair, pair, pair], [[1], [2], [1], [2], [1], [1]], np.array([-1.0, -2, -3, -3, -3, -2]))
    >>> found.right.tolist(), found.chosen.tolist(), found.same.tolist()
    ([1.0, 0.5, 0.5], [0, 0, 0], [False, False, True])
    """
    counts = np.array([len(choice.options) for choice in choices])
    starts = np.cumsum(counts) - counts
    nats = np.full((len(choices), counts.max()), -np.inf)
    same = np.zeros(nats.shape, bool)
    for number, (start, count) in enumerate(zip(starts.tolist(), counts.tolist(), strict=True)):
        nats[number, :count] = likelihoods[start : start + count]
        same[number, :count] = [ids[start] == ids[start + k] for k in range(count)]
    nats = np.where(same, nats[:, :1], nats)  # they differ by rounding only
    tied = nats == nats.max(1, keepdims=True)
    right = np.where(tied[:, 0], 1 / np.maximum(tied.sum(1), 1), 0.0)
    return Outcome(nats, nats.argmax(1), right, np.asarray(same[:, 1:].any(1)))


def averages(choices: Sequence[Choice], right: np.ndarray) -> dict[str, float]:
    """Means of `right` [C] over each set; over a field's sets; over all sets.

    >>> a, b = Choice("a", "f", (), ()), Choice("b", "f", (), ())
    >>> averages([a, b, b], np.array([1.0, 0.0, 0.5]))
    {'accuracy': 0.625, 'field/f': 0.625, 'set/a': 1.0, 'set/b': 0.25}
    """
    sets: dict[str, list[float]] = {}
    for choice, value in zip(choices, right, strict=True):
        sets.setdefault(choice.set, []).append(float(value))
    means = {name: float(np.mean(values)) for name, values in sets.items()}
    field_of = {choice.set: choice.field for choice in choices}
    fields = {
        f"field/{field}": float(np.mean([means[name] for name in means if field_of[name] == field]))
        for field in sorted(set(field_of.values()) - {""})
    }
    overall = float(np.mean(list(means.values())))
    return {"accuracy": overall, **fields, **{f"set/{name}": mean for name, mean in means.items()}}
