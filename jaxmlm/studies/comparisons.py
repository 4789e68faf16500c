"""Which differences between the points of a study are beyond noise: paired t tests over pre-training seeds."""

import itertools
import math
from collections.abc import Sequence

import numpy as np

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
    found = set()
    for labels in results.groups.values():
        present = [label for label in labels if label in series.by_label]
        best = series.best_label(present)
        if best is None or len(present) < 2:
            continue
        beaten = {one.b for one in comparisons if one.a == best and one.sure}
        if beaten >= set(present) - {best} and _ahead_of_control(results, series, best):
            found.add(best)
    return found


def _ahead_of_control(results: StudyResults, series: ScoreSeries, label: str) -> bool:
    control = series.spread(results.control_of(label) or "")
    if control is None:
        return True
    lead = float(np.mean(list(series.by_label[label].values()))) - control.mean
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
