"""The figures of how training went: the loss of the batches, and that of held-out text along the way."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxmlm.plotting import DASHES, INK, WIDTH, legend, styled
from jaxmlm.studies.drawing import colours_of, group_numbers
from jaxmlm.studies.results import StudyResults
from jaxmlm.tasks.mlm import HELD_OUT_RATES, named

Curves = Mapping[str, Sequence[Mapping[str, Any]]]
"""For each cell the lines of its log: {"step", "tokens", "loss"}; of held-out text {"step", "tokens", "loss@RATE"}."""
BINS = 150
"""Points of a training curve; the losses between them are averaged."""


@styled
def training_losses(results: StudyResults, curves: Curves) -> Figure | None:
    """Training loss against the tokens seen (or the step), averaged in bins; a line per cell."""
    finite = {cell: [line for line in lines if line.get("loss") is not None] for cell, lines in curves.items()}
    finite = {cell: lines for cell, lines in finite.items() if lines}
    if not finite:
        return None
    colours = colours_of(results)
    groups = group_numbers(results)
    labels = {one.cell: one.label for one in results.results}
    by_tokens = all(line.get("tokens") for lines in finite.values() for line in lines)
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.subplots()
    handles: dict[str, Any] = {}
    for cell, lines in finite.items():
        label = labels.get(cell, "unfinished")
        x = [line["tokens"] / 1e6 if by_tokens else line["step"] for line in lines]
        y = [line["loss"] for line in lines]
        curve = axes.plot(
            _binned(x),
            _binned(y),
            color=colours.get(label, INK),
            ls=DASHES[groups.get(label, 0) % len(DASHES)],
            lw=1.3,
            alpha=0.85,
        )
        handles.setdefault(label, curve[0])
    order = [label for label in [*results.all_labels, "unfinished"] if label in handles]
    legend(figure, {label: handles[label] for label in order})
    axes.set_xlabel("training tokens (millions)" if by_tokens else "step")
    axes.set_ylabel("training loss (nats)")
    return figure


def _binned(values: Sequence[int | float]) -> list[float]:
    """Means of at most `BINS` bins."""
    return [float(np.mean(one)) for one in np.array_split(np.asarray(values), min(len(values), BINS))]


@styled
def held_out_losses(results: StudyResults, curves: Curves) -> Figure | None:
    """Held-out loss against the tokens seen, a panel for each rate of the masks: means over seeds; thin: each seed."""
    labels = {one.cell: one.label for one in results.results}
    panels = {rate: _along(labels, curves, f"loss@{named(rate)}") for rate in HELD_OUT_RATES}
    panels = {rate: found for rate, found in panels.items() if found}
    if not panels:
        return None
    figure = Figure(figsize=(0.72 * WIDTH * len(panels), 3.6))
    colours = colours_of(results)
    groups = group_numbers(results)
    handles: dict[str, Any] = {}
    for axes, (rate, found) in zip(figure.subplots(1, len(panels), squeeze=False).ravel(), panels.items(), strict=True):
        for label in (label for label in results.labels if label in found):
            seeds = found[label]
            look = {"color": colours[label], "ls": DASHES[groups[label] % len(DASHES)]}
            for points in seeds:
                axes.plot(*zip(*points, strict=True), lw=0.6, alpha=0.5, **look)
            shared = sorted(set.intersection(*(set(dict(points)) for points in seeds)))
            means = [float(np.mean([dict(points)[tokens] for points in seeds])) for tokens in shared]
            [handles[label]] = axes.plot(shared, means, lw=1.4, marker="o", ms=3, **look)
        axes.set(title=f"{100 * rate:g} % masks", xlabel="training tokens (millions)")
    figure.axes[0].set_ylabel("held-out loss (nats)")
    legend(figure, handles)
    return figure


def _along(labels: Mapping[str, str], curves: Curves, key: str) -> dict[str, list[list[tuple[float, float]]]]:
    """For each label its cells' losses as points (millions of tokens, nats), of cells with more than one."""
    found: dict[str, list[list[tuple[float, float]]]] = {}
    for cell, lines in curves.items():
        points = [(line["tokens"] / 1e6, line[key]) for line in lines if line.get(key) is not None]
        if cell in labels and len(points) > 1:
            found.setdefault(labels[cell], []).append(points)
    return found
