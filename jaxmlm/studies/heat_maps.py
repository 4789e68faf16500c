"""The figures of a report that are grids of numbers: the loss matrix, and a score over two varied numbers."""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from jaxmlm.plotting import WIDTH, styled
from jaxmlm.studies.drawing import labels_in
from jaxmlm.studies.labels import all_numbers, format_value, path_in_words
from jaxmlm.studies.likelihood import BOUND
from jaxmlm.studies.results import ScoreSeries, StudyResults

BEST = "#D55E00"
"""Colour of the frame around the best cell."""


@styled
def loss_matrix(results: StudyResults) -> Figure | None:
    """Held-out loss, trained at the row, evaluated at the column; shade: nats above the column's best."""
    losses = results.heldout_losses()
    labels = labels_in(results, losses)
    if not labels:
        return None
    trained = sum(label not in results.controls for label in labels)
    means = np.full((len(labels), len(losses)), np.nan)
    for row, label in enumerate(labels):
        for column, series in enumerate(losses.values()):
            if spread := series.spread(label):
                means[row, column] = spread.mean
    above = means - np.fmin.reduce(means[: trained or None])  # NaN, without a warning, where none has a loss
    # The control is a vocabulary's width away: the shades are for the trained cells.
    darkest = max(float(np.nanmax(above[:trained])) if trained else 0.0, 0.05)
    figure = Figure(figsize=(WIDTH, 1.2 + 0.42 * len(labels)))
    axes = figure.subplots()
    for row, column in np.ndindex(*means.shape):
        if not math.isnan(means[row, column]):
            nats = float(above[row, column])
            _cell(axes, row, column, f"{means[row, column]:.2f}", min(nats / darkest, 1.0), row < trained and nats == 0)
    axes.set(xlabel="evaluated at masks of", ylabel="trained at")
    _ticks(axes, labels, [f"{100 * rate:g} %" for rate in losses])
    return figure


def of_map(results: StudyResults) -> ScoreSeries | None:
    """The score that `score_map` shows: the bound, else BLiMP, else the mean of the tasks; None: none is there."""
    found = (results.series.get(name) for name in (BOUND, "blimp", "finetune"))
    return next((series for series in found if series and not results.values.keys().isdisjoint(series.by_label)), None)


@styled
def score_map(results: StudyResults) -> Figure | None:
    """A score over two varied numbers, means over seeds; None where not just two numbers are varied."""
    series = of_map(results)
    points = list(results.values.values())
    axes_of = [sorted({point[path] for point in points}) for path in results.paths if _is_number(path, points)]
    if series is None or len(results.paths) != 2 or len(axes_of) != 2 or min(map(len, axes_of)) < 2:
        return None
    rows, columns = axes_of
    means = np.full((len(rows), len(columns)), np.nan)
    for label, point in results.values.items():
        if spread := series.spread(label):
            row, column = (values.index(point[path]) for path, values in zip(results.paths, axes_of, strict=True))
            means[row, column] = spread.mean
    worse = np.nanmax(means) - means if series.higher_is_better else means - np.nanmin(means)
    darkest = max(float(np.nanmax(worse)), 1e-9)
    figure = Figure(figsize=(1.6 + 0.9 * len(columns), 1.2 + 0.6 * len(rows)))
    axes = figure.subplots()
    for row, column in np.ndindex(*means.shape):
        if not math.isnan(means[row, column]):
            is_worse = float(worse[row, column])
            _cell(axes, row, column, series.shown(float(means[row, column])), is_worse / darkest, is_worse == 0)
    axes.set(xlabel=path_in_words(results.paths[1]), ylabel=path_in_words(results.paths[0]))
    _ticks(axes, [format_value(value) for value in rows], [format_value(value) for value in columns])
    return figure


def _is_number(path: str, points: Sequence[dict[str, object]]) -> bool:
    return all(path in point for point in points) and all_numbers(point[path] for point in points)


def _cell(axes: Axes, row: int, column: int, text: str, darkness: float, best: bool) -> None:
    shade = matplotlib.colormaps["YlGnBu"](0.08 + 0.75 * darkness)
    frame = BEST if best else "none"
    axes.add_patch(Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, facecolor=shade, edgecolor=frame, lw=2.5))
    axes.text(
        column,
        row,
        text,
        ha="center",
        va="center",
        weight="bold" if best else "normal",
        color="#ffffff" if darkness > 0.55 else "#111111",
    )


def _ticks(axes: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Names for rows and columns, the first row above; no lines between the cells."""
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
