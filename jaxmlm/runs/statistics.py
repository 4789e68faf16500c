"""Differences between models and their intervals: over pre-training or tuning seeds, by t tests (scipy)."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.05
Series = dict[str, dict[int, float]]
"""Scores by label and seed."""


class Spread(NamedTuple):
    """Mean and sample standard deviation (None for one value) over n pre-training seeds."""

    mean: float
    sd: float | None
    n: int


class Comparison(NamedTuple):
    """`a` minus `b`: the mean difference, its t interval, p, and p adjusted for its family (nan: no error bar).

    The pairs that are looked at together are a family of m: intervals are of 1 - 5 % / m and p is multiplied by m
    (Bonferroni), so that an interval excludes 0 where the adjusted p is below 5 %, and there only.
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    adjusted: float
    seeds: int
    paired: bool

    @property
    def sure(self) -> bool:
        """Beyond noise: the adjusted p is below 5 %, and the adjusted interval excludes 0."""
        return self.adjusted < LEVEL


def spread(values: Iterable[float]) -> Spread | None:
    """Mean, sample standard deviation and count.

    >>> spread([1.0, 2.0, 3.0])
    Spread(mean=2.0, sd=1.0, n=3)
    """
    found = np.asarray(list(values), np.float64)
    if found.size == 0:
        return None
    return Spread(float(found.mean()), float(found.std(ddof=1)) if found.size > 1 else None, int(found.size))


def compare_seeds(a: str, b: str, series: Series, family: int = 1) -> Comparison:
    """`a` minus `b` by paired differences over the seeds both have; Welch's t where they share under two.

    Args:
        a: the first label.
        b: the second.
        series: scores by label and seed.
        family: how many such pairs are looked at together.

    """
    x = series[a]
    y = series[b]
    shared = sorted(x.keys() & y.keys())
    paired = len(shared) >= 2
    if paired:
        differences = np.array([x[seed] - y[seed] for seed in shared])
        n = len(shared)
        mean = float(differences.mean())
        error = float(differences.std(ddof=1)) / math.sqrt(n)
        freedom = n - 1.0
    else:
        left, right = np.array(list(x.values())), np.array(list(y.values()))
        n = min(left.size, right.size)
        mean = float(left.mean() - right.mean())
        if n < 2:
            return Comparison(a, b, mean, math.nan, math.nan, math.nan, math.nan, n, False)
        u = left.var(ddof=1) / left.size
        v = right.var(ddof=1) / right.size
        error = math.sqrt(u + v)
        freedom = (u + v) ** 2 / (u**2 / (left.size - 1) + v**2 / (right.size - 1)) if error else 1.0
    # Equal differences in every seed are rounding (a classifier stuck at one class), not certainty.
    if error <= 1e-9 * max(1.0, abs(mean)):
        p = 1.0 if abs(mean) <= 1e-9 else math.nan
        edge = 0.0 if p == 1.0 else math.nan
        return Comparison(a, b, mean, edge, edge, p, p, n, paired)
    half = float(stats.t.ppf(1 - LEVEL / family / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, freedom))
    return Comparison(a, b, mean, mean - half, mean + half, p, min(1.0, family * p), n, paired)
