"""Which differences between the points of a study are beyond noise: paired t tests over pre-training seeds."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence

from jaxmlm.runs.statistics import Comparison, Series, compare_seeds
from jaxmlm.studies.results import ScoreSeries, StudyResults

MIN_SEEDS = 3
"""With fewer pre-training seeds there is a tendency and no verdict."""


def compare_pairs(results: StudyResults, series: ScoreSeries) -> list[Comparison]:
    """Every pair within a group, the better first; all of them are one family."""
    pairs = []
    for labels in results.groups.values():
        present = [label for label in labels if label in series.by_label]
        for a, b in itertools.combinations(present, 2):
            difference = compare_seeds(a, b, series.by_label).difference
            b_is_better = difference != 0 and (difference < 0) == series.higher_is_better
            pairs.append((b, a) if b_is_better else (a, b))
    return _family(pairs, series.by_label)


def compare_with_controls(results: StudyResults, series: ScoreSeries) -> list[Comparison]:
    """Every label minus its encoder without pre-training; all of them are one family."""
    pairs = []
    for label in results.labels:
        control = results.control_of(label)
        if control is not None and label in series.by_label and control in series.by_label:
            pairs.append((label, control))
    return _family(pairs, series.by_label)


def best_beyond_noise(results: StudyResults, series: ScoreSeries) -> set[str]:
    """The labels that beat every other of their group beyond noise, and do not fall behind their control."""
    comparisons = compare_pairs(results, series)
    winners = (winner_of(comparisons, labels) for labels in results.groups.values())
    return {label for label in winners if label is not None and _ahead_of_control(results, series, label)}


def winner_of(comparisons: Sequence[Comparison], labels: Sequence[str]) -> str | None:
    """The label of a group that beats each of the others beyond noise; None where there is none.

    It need not have the best mean: means are over the seeds that each label has, comparisons over those that both have.
    """
    pairs = [one for one in comparisons if one.a in labels]
    compared = {label for one in pairs for label in (one.a, one.b)}
    wins = Counter(one.a for one in pairs if one.sure)
    return next((label for label, won in wins.items() if won == len(compared) - 1), None)


def _ahead_of_control(results: StudyResults, series: ScoreSeries, label: str) -> bool:
    control = results.control_of(label)
    if control not in series.by_label:
        return True
    lead = compare_seeds(label, str(control), series.by_label).difference
    return lead > 0 if series.higher_is_better else lead < 0


def _family(pairs: Sequence[tuple[str, str]], series: Series) -> list[Comparison]:
    """The comparisons of a family; a pair with under `MIN_SEEDS` seeds has no error bar and does not count in it."""
    alone = [compare_seeds(a, b, series) for a, b in pairs]
    counts = [one.seeds >= MIN_SEEDS and not math.isnan(one.p) for one in alone]
    size = sum(counts)
    no_error_bar = dict.fromkeys(("low", "high", "p", "adjusted"), math.nan)
    return [
        compare_seeds(one.a, one.b, series, size) if counted else one._replace(**no_error_bar)
        for one, counted in zip(alone, counts, strict=True)
    ]
