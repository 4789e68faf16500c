"""The audit of anyone's collator: rows before and after it, as arrays. `jaxmlm.tools.collators` calls the collator."""

import math
from typing import Any, NamedTuple

import numpy as np

from jaxmlm.errors import InputError
from jaxmlm.masking.audit import SIGMAS

NO_LABEL = -100
"""The label of a token that is not predicted, as PyTorch's cross-entropy has it."""


class Rows(NamedTuple):
    """Padded rows of token ids.

    Attributes:
        ids: [R, L] token ids.
        special: [R, L] bool: special tokens, padding aside.
        padding: [R, L] bool.
        word: [R, L] bool: a word starts here.

    """

    ids: np.ndarray
    special: np.ndarray
    padding: np.ndarray
    word: np.ndarray


class Collated(NamedTuple):
    """What a collator made of the rows in one pass over them: inputs and labels [R, L]."""

    inputs: np.ndarray
    labels: np.ndarray


def audit_collated(
    rows: Rows, epochs: list[Collated], mask_id: int, special_ids: np.ndarray, rate: float
) -> dict[str, Any]:
    """Measure what a collator does to rows.

    Args:
        rows: as they were.
        epochs: what became of them, each time that they were read.
        mask_id: id of [MASK].
        special_ids: [V] bool, which ids are special.
        rate: the masking rate that was asked for.

    Returns:
        "shares": of the maskable tokens that are selected, asked and got, and of the selected that became [MASK],
        another token, or stayed, each with its interval "low" to "high"; "special": how many special tokens and
        padding were selected or changed, and how many random tokens are special ones; "words": of the words of several
        tokens of which some are selected, the share that is cut; "positions" and "lengths": how often a token is
        selected, by position and by the number of tokens of its word, with "bias", the largest distance from the rate
        got in standard errors; "repeats": rows masked as in the first pass, and how many chance alone explains; "ok".

    Raises:
        InputError: labels are not the ids that were there, or ids changed that have no label.

    """
    maskable = ~rows.special & ~rows.padding
    for one in epochs:
        _check(rows, one, maskable)
    selected = np.stack([one.labels != NO_LABEL for one in epochs])
    inputs = np.stack([one.inputs for one in epochs])
    text = selected & maskable
    n = maskable.sum(-1)
    got, low, high = _ratio(text.sum((0, 2)), n * len(epochs))
    shares = {"selected": {"asked": rate, "got": got, "low": low, "high": high, "ok": low <= rate <= high}}
    masked = inputs == mask_id
    same = inputs == rows.ids
    for name, where in (("masked", masked), ("random", ~masked & ~same), ("same", ~masked & same)):
        part, low, high = _ratio((text & where).sum((0, 2)), text.sum((0, 2)))
        shares[name] = {"got": part, "low": low, "high": high}
    changed = inputs != rows.ids
    special = {
        "special tokens": int(((selected | changed) & rows.special).sum()),
        "padding": int(((selected | changed) & rows.padding).sum()),
        "random tokens that are special": int(special_ids[inputs[text & ~masked & ~same]].sum()),
    }
    words = _words(rows.word & maskable, maskable, text)
    positions, bias = _by_position(text, maskable)
    repeats = _repeats(selected, rows.word, maskable, rate)
    return {
        "rows": len(rows.ids),
        "tokens": int(n.sum()),
        "epochs": len(epochs),
        "shares": shares,
        "special": special,
        "words": words["words"],
        "positions": {"selected": positions, "bias": bias, "ok": bias <= SIGMAS},
        "lengths": words["lengths"],
        "repeats": repeats,
        "rows without a prediction": int((~text.any(-1)).sum()),
        "ok": shares["selected"]["ok"]
        and not any(special.values())
        and bias <= SIGMAS
        and words["lengths"]["ok"]
        and repeats["ok"],
    }


def _repeats(selected: np.ndarray, word: np.ndarray, maskable: np.ndarray, rate: float) -> dict[str, Any]:
    """Rows masked as in the first pass: more than chance explains are a fault.

    Chance is that of independent draws for whole words, which repeat more often than draws for their tokens: a row of
    few words repeats a mask now and then, and at a rate of 1 always.
    """
    again = sum(int(((selected[0] == other).all(-1) & selected[0].any(-1)).sum()) for other in selected[1:])
    words = (maskable & (word | _starts(maskable))).sum(-1)
    some = np.where(words > 0, (rate**2 + (1 - rate) ** 2) ** words - (1 - rate) ** (2 * words), 0.0)
    passes = len(selected) - 1
    chance = float(some.sum()) * passes
    most = chance + SIGMAS * math.sqrt(chance) + 0.01 * len(maskable) * passes
    return {"rows": again, "of": len(maskable) * passes, "chance": round(chance, 1), "ok": again <= most}


def _starts(maskable: np.ndarray) -> np.ndarray:
    """Where a run of maskable tokens starts."""
    return maskable & ~np.concatenate([np.zeros((len(maskable), 1), bool), maskable[:, :-1]], 1)


def _check(rows: Rows, one: Collated, maskable: np.ndarray) -> None:
    if one.inputs.shape != rows.ids.shape or one.labels.shape != rows.ids.shape:
        raise InputError(
            f"the collator makes inputs {one.inputs.shape} and labels {one.labels.shape} of rows {rows.ids.shape}: "
            "it must keep rows and their order"
        )
    labelled = one.labels != NO_LABEL
    wrong = labelled & (one.labels != rows.ids)
    if wrong.any():
        row, at = np.argwhere(wrong)[0]
        raise InputError(
            f"the collator's labels are not the ids that were there: {int(wrong.sum())} of them, as in row {row} at "
            f"position {at} {one.labels[row, at]} for {rows.ids[row, at]}: label a predicted token with its id and "
            f"all others with {NO_LABEL}"
        )
    outside = (one.inputs != rows.ids) & ~labelled & maskable
    if outside.any():
        row, at = np.argwhere(outside)[0]
        raise InputError(
            f"the collator changes ids outside its labels: {int(outside.sum())} of them, as in row {row} at position "
            f"{at} {rows.ids[row, at]} to {one.inputs[row, at]}: what the model sees changed must have a label"
        )


def _ratio(part: np.ndarray, of: np.ndarray) -> tuple[float, float, float]:
    """A share of sums over rows [R], and the interval that the spread of the rows gives it."""
    share = float(part.sum() / max(of.sum(), 1))
    # Not below the spread of independent draws: a few rows show too little of it, and an exact count none.
    spread = max(float(((part - share * of) ** 2).sum()), 1.0)
    half = SIGMAS * math.sqrt(spread) / max(float(of.sum()), 1.0)
    return round(share, 6), round(max(share - half, 0.0), 6), round(min(share + half, 1.0), 6)


def _by_position(text: np.ndarray, maskable: np.ndarray) -> tuple[list[float], float]:
    """How often each position is selected, and the largest distance from the row's own share in standard errors."""
    share = text.sum((0, 2)) / np.maximum(maskable.sum(-1) * len(text), 1)
    wanted = (share[:, None] * maskable).sum(0) * len(text)
    spread = (share * (1 - share))[:, None] * maskable
    error = np.sqrt(np.maximum(spread.sum(0) * len(text), 1e-9))
    count = maskable.sum(0) * len(text)
    hits = text.sum((0, 1))
    off = np.where(count >= 50, np.abs(hits - wanted) / error, 0.0)
    return [round(float(x), 5) for x in hits / np.maximum(count, 1)], round(float(off.max()), 2)


def _words(word: np.ndarray, maskable: np.ndarray, text: np.ndarray) -> dict[str, Any]:
    """Words that are cut, and how often the tokens of words of each length are selected."""
    rows, length = maskable.shape
    number = np.where(maskable, np.cumsum(word | _starts(maskable), 1) + np.arange(rows)[:, None] * (length + 1), 0)
    size = np.bincount(number.ravel(), minlength=rows * (length + 1) + length)
    size[0] = 0
    cut = touched = 0
    for one in text:
        hits = np.bincount(number.ravel(), one.ravel(), minlength=len(size))
        several = size > 1
        touched += int((several & (hits > 0)).sum())
        cut += int((several & (hits > 0) & (hits < size)).sum())
    sizes = np.where(maskable, size[number], 0)
    overall = text.sum() / max(maskable.sum() * len(text), 1)
    lengths = {}
    worst = 0.0
    for each in np.unique(sizes[maskable]):
        here = sizes == each
        part = (text & here).sum((0, 2))
        of = here.sum(-1) * len(text)
        share, low, high = _ratio(part, of)
        lengths[str(int(each))] = {"tokens": int(here.sum()), "selected": share, "low": low, "high": high}
        if here.sum() >= 50:
            error = max((high - low) / (2 * SIGMAS), 1e-9)
            worst = max(worst, abs(share - overall) / error)
    share = cut / max(touched, 1)
    half = SIGMAS * math.sqrt(max(share * (1 - share), 1e-9) / max(touched, 1))
    return {
        "words": {
            "of several tokens": int((size > 1).sum()),
            "touched": touched,
            "cut": round(share, 5),
            "low": round(max(share - half, 0.0), 5),
            "high": round(min(share + half, 1.0), 5),
        },
        "lengths": {"selected": lengths, "bias": round(float(worst), 2), "ok": bool(worst <= SIGMAS)},
    }
