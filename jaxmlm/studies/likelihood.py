"""The likelihood bound in a study: the curve of the loss over the rate, and the price of not specialising.

The bound holds for a predictor that sees how many tokens are masked, so also for one that takes at each rate the model
that is best there. Its curve is the lower envelope of the models' curves: the distance of a model to it is what is lost
by one model for all rates.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxmlm.runs.statistics import Series
from jaxmlm.studies.results import ScoreSeries, StudyResults
from jaxmlm.tasks.bound import BINS, curve_name

BOUND = "bound/bound"
"""The series of the bound."""
PRICE = "bound/price"
"""The series of what one model loses against the lower envelope."""
HALVES = (0, 1)
RATES = tuple((number + 0.5) / BINS for number in range(BINS))
"""The middle of each part of the rates."""
HOW_TO_READ = (
    "Each curve is the mean loss of a model on held-out text over the masking rate; the area under it is the "
    "likelihood bound, an upper bound of the negative log-likelihood in nats per token, which weighs all rates alike.",
    "The lower envelope takes at each rate the model that is best there, chosen on one half of the text and scored on "
    "the other; the area between it and a curve is the price of not specialising.",
    "A bound is not an order of encoders: BLiMP and fine-tuning scores stand beside it.",
)


def curve(results: StudyResults, label: str, seed: int, name: str = "curve") -> np.ndarray | None:
    """The loss [BINS] of one cell over the rates; None where a part of it is missing.

    Args:
        results: of the study.
        label: the point of the grid.
        seed: the pre-training seed.
        name: "curve", or "half/0" and "half/1" for one half of the text.

    """
    points = []
    for number in range(BINS):
        series = results.series.get(f"bound/{curve_name(name, number)}")
        value = None if series is None else series.by_label.get(label, {}).get(seed)
        if value is None:
            return None
        points.append(value)
    return np.array(points)


def mean_curve(results: StudyResults, label: str) -> np.ndarray | None:
    """The curve [BINS] of a label, the mean over its seeds; None where no seed has one."""
    found = [one for seed in seeds_of(results, label) if (one := curve(results, label, seed)) is not None]
    return np.mean(found, axis=0) if found else None


def seeds_of(results: StudyResults, label: str) -> list[int]:
    """The pre-training seeds of a label that have a bound."""
    series = results.series.get(BOUND)
    return [] if series is None else sorted(series.by_label.get(label, {}))


def envelope(halves: Mapping[str, np.ndarray]) -> np.ndarray:
    """The lower envelope of models: at each rate the one that is best there on one half, scored on the other half.

    Args:
        halves: by label the curves [2, BINS] of both halves of the text.

    Returns:
        the mean [BINS] over both halves.

    >>> left = np.array([[1.0, 4.0], [1.0, 4.0]])
    >>> right = np.array([[2.0, 3.0], [0.5, 3.0]])  # better at the first rate in the second half only
    >>> envelope({"left": left, "right": right}).tolist()
    [1.5, 3.0]
    """
    every = np.stack(list(halves.values()))
    scored = []
    for half in HALVES:
        best = every[:, 1 - half].argmin(0)
        scored.append(np.take_along_axis(every[:, half], best[None], 0)[0])
    return np.mean(scored, axis=0)


def envelopes(results: StudyResults, labels: Sequence[str]) -> dict[int, np.ndarray]:
    """The lower envelope of a group of labels, for each seed that two of them share."""
    found = {}
    for seed in sorted({seed for label in labels for seed in seeds_of(results, label)}):
        halves = _halves(results, labels, seed)
        if len(halves) > 1:
            found[seed] = envelope(halves)
    return found


def price(results: StudyResults) -> ScoreSeries | None:
    """What each label loses against the lower envelope of its group and seed, in nats per token.

    It may come out a little below 0: the envelope is scored on the half on which its models were not chosen.
    """
    by_label: Series = {}
    for labels in results.groups.values():
        for seed, lower in envelopes(results, labels).items():
            for label, halves in _halves(results, labels, seed).items():
                by_label.setdefault(label, {})[seed] = float(halves.mean() - lower.mean())
    return ScoreSeries(PRICE, "nats", by_label, higher_is_better=False) if by_label else None


def price_sentences(results: StudyResults) -> list[str]:
    """The price of not specialising, in a sentence for each group of labels."""
    found = price(results)
    said = []
    for group, labels in results.groups.items():
        lower = envelopes(results, labels)
        if found is None or not lower:
            continue
        prices = [(label, one.mean) for label in labels if (one := found.spread(label))]
        cheapest = ", ".join(f"{results.short_label(label)} {found.shown(value)}" for label, value in prices)
        where = f", at {group}" if group else ""
        level = float(np.mean([one.mean() for one in lower.values()]))
        said.append(
            f"Price of not specialising{where}: the lower envelope of the models is {level:.3f} nats per token, and "
            f"one model for all rates loses {cheapest}."
        )
    return said


def _halves(results: StudyResults, labels: Sequence[str], seed: int) -> dict[str, np.ndarray]:
    """By label the curves [2, BINS] of both halves of the text, where they are complete."""
    found = {}
    for label in labels:
        curves = [curve(results, label, seed, f"half/{half}") for half in HALVES]
        complete = [one for one in curves if one is not None]
        if len(complete) == len(HALVES):
            found[label] = np.stack(complete)
    return found
