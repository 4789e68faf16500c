"""The figures of a report: drawn once, as SVG for the page and as PNG for the documents."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation, Transform

from jaxmlm.plotting import DASHES, INK, MARKERS, WIDTH, legend, over_layers, save, styled
from jaxmlm.runs.statistics import Spread
from jaxmlm.studies.drawing import colours_of, group_numbers, labels_in
from jaxmlm.studies.heat_maps import loss_matrix, score_map
from jaxmlm.studies.labels import all_numbers, path_in_words
from jaxmlm.studies.likelihood import RATES, curve, envelopes, mean_curve, seeds_of
from jaxmlm.studies.results import PROBES, ScoreSeries, StudyResults
from jaxmlm.studies.training_figures import Curves, held_out_losses, training_losses


def save_all(results: StudyResults, curves: Curves, directory: Path) -> list[Path]:
    """Write every figure of a report as directory/NAME.png; no text of the data is in them."""
    drawn = {
        "likelihood": likelihood_curves(results),
        "scores": scores(results, score_names(results)),
        "losses": training_losses(results, curves),
        "along": held_out_losses(results, curves),
        "map": score_map(results),
        "matrix": loss_matrix(results),
        "fields": blimp_fields(results),
        "probes": probe_curves(results),
    }
    paths = []
    for name, figure in drawn.items():
        if figure is not None:
            paths.append(directory / f"{name}.png")
            save(figure, paths[-1])
    return paths


def score_names(results: StudyResults) -> list[str]:
    """The series that have a panel against the varied value: those of the verdict first."""
    tasks = [task for task in results.tasks if task in results.series]
    first = ["blimp"] if len(tasks) == 1 else ["blimp", "finetune"]
    return [name for name in [*first, *PROBES] if name in results.series] + tasks


def title(series: ScoreSeries) -> str:
    """A heading: name, metric and unit.

    >>> title(ScoreSeries("rte", "accuracy", {}))
    'rte, accuracy × 100'
    """
    if series.name == "blimp":
        return f"BLiMP{series.suffix}, accuracy (%)"
    if series.name in PROBES:
        return f"probe of {series.metric}, accuracy (%)"
    if series.name == "finetune":
        return f"fine-tuning{series.suffix}, mean × 100"
    return f"{series.name}{series.suffix}, {series.metric} × 100"


@styled
def likelihood_curves(results: StudyResults) -> Figure | None:
    """Held-out loss over the rate: every model, its seeds, the lower envelope and its area; a column for each group.

    Below it, on a scale of its own, what each model loses against the envelope.
    """
    curves = {label: one for label in results.all_labels if (one := mean_curve(results, label)) is not None}
    groups = {group: shown for group, labels in results.groups.items() if (shown := [x for x in labels if x in curves])}
    if not groups:
        return None
    lower = {group: found for group, labels in groups.items() if (found := envelopes(results, labels))}
    rows = 2 if lower else 1
    figure = Figure(figsize=(WIDTH * max(1.0, 0.72 * len(groups)), 1.4 + 2.2 * rows))
    panels = figure.subplots(rows, len(groups), squeeze=False, sharex=True, sharey="row")
    colours = colours_of(results) | dict.fromkeys(results.controls, INK)
    handles: dict[str, Any] = {}
    for column, (group, labels) in zip(panels.T, groups.items(), strict=True):
        axes = column[0]
        controls = dict.fromkeys(control for x in labels if (control := results.control_of(x)) in curves)
        for number, label in enumerate([*labels, *controls]):
            seeds = seeds_of(results, label)
            if len(seeds) > 1:
                for one in (curve(results, label, seed) for seed in seeds):
                    if one is not None:
                        axes.plot(RATES, one, lw=0.6, alpha=0.5, color=colours[label])
            marker = "x" if label in results.controls else MARKERS[number % len(MARKERS)]
            [line] = axes.plot(RATES, curves[label], marker=marker, ms=4, lw=1.4, color=colours[label])
            handles[results.short_label(label)] = line
        if group in lower:
            mean = np.mean(list(lower[group].values()), axis=0)
            axes.fill_between(RATES, mean, color=INK, alpha=0.1, lw=0)
            [handles["lower envelope"]] = axes.plot(RATES, mean, color=INK, lw=2.2, ls=":")
            column[1].axhline(0, color=INK, lw=2.2, ls=":")
            for number, label in enumerate(labels):
                marker = MARKERS[number % len(MARKERS)]
                above = _above(results, label, lower[group])
                column[1].plot(RATES, above, marker=marker, ms=4, lw=1.4, color=colours[label])
        axes.set(xlim=(0, 1), title=group)
        axes.set_ylim(bottom=0)
        column[-1].set_xlabel("masking rate")
    panels[0, 0].set_ylabel("nats per masked token")
    if lower:
        panels[1, 0].set_ylabel("above the envelope")
    legend(figure, handles)
    return figure


def _above(results: StudyResults, label: str, lower: Mapping[int, np.ndarray]) -> np.ndarray:
    """What a model's curve lies above the lower envelope of its seed, in the mean over the seeds."""
    curves = {seed: curve(results, label, seed) for seed in lower}
    found = [one - lower[seed] for seed, one in curves.items() if one is not None]
    return np.mean(found, axis=0) if found else np.full(len(RATES), np.nan)


@styled
def scores(results: StudyResults, names: Sequence[str]) -> Figure | None:
    """Score against the first path, a panel for each series: mean and sd over seeds, each seed a dot."""
    if not names or not results.paths:
        return None
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    if columns == 1:
        size = (WIDTH, 3.3 * rows)
    else:
        size = (0.72 * WIDTH * columns, 0.85 * 3.3 * rows)
    figure = Figure(figsize=size)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    handles: dict[str, Any] = {}
    for axes, name in zip(panels, names, strict=False):
        _score_panel(axes, results, results.series[name])
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    if handles and (len(names) > 1 or len(results.groups) > 1):
        legend(figure, handles)
    return figure


def _score_panel(axes: Axes, results: StudyResults, series: ScoreSeries) -> None:
    """One panel: a line for each group, the groups a little beside each other, and the controls as levels."""
    x = _x_of_values(axes, results)
    colours = colours_of(results)
    groups = len(results.groups)
    for number, (group, labels) in enumerate(results.groups.items()):
        points = 13 * (number - (groups - 1) / 2)
        transform = _shifted(axes, points)
        marker = MARKERS[number % len(MARKERS)]
        present = {label: spread for label in labels if (spread := series.spread(label))}
        _score_line(
            axes,
            [x[results.short_label(label)] for label in present],
            list(present.values()),
            label=group or None,
            marker=marker if group else None,
            ls=DASHES[number % len(DASHES)],
            transform=transform,
        )
        for label, spread in present.items():
            at = x[results.short_label(label)]
            look = {"color": colours[label], "zorder": 3}
            mean = 100 * spread.mean
            deviation = 100 * (spread.sd or 0.0)
            axes.plot([at, at], [mean - deviation, mean + deviation], "_-", ms=8, lw=2, transform=transform, **look)
            axes.plot([at], [mean], marker, ms=8, transform=transform, **look)
            if spread.n > 1:
                seeds = [100 * score for score in series.by_label[label].values()]
                axes.update_datalim([(at, score) for score in seeds])
                beside = _shifted(axes, points + 6)
                axes.plot([at] * len(seeds), seeds, "o", ms=3, alpha=0.6, transform=beside, **look)
    _control_levels(axes, results, series)
    axes.margins(x=0.08 + 0.03 * (groups - 1), y=0.08)
    axes.autoscale_view()
    _widen(axes)
    axes.set_xticks(list(x.values()), list(x))
    axes.minorticks_off()
    axes.tick_params(axis="x", labelrotation=45 if len(x) > 6 or sum(map(len, x)) > 36 else 0)
    axes.set_xlabel(path_in_words(results.paths[0]))
    axes.set_title(title(series), loc="left")


def _x_of_values(axes: Axes, results: StudyResults) -> dict[str, float]:
    """Where each value of the first path stands; numbers over a wide range get a logarithmic axis."""
    path = results.paths[0]
    values: dict[str, Any] = {results.short_label(label): results.values[label].get(path) for label in results.labels}
    if not all_numbers(values.values()):
        return {value: float(number) for number, value in enumerate(values)}
    x = {value: float(number) for value, number in values.items()}
    if min(x.values()) > 0 and max(x.values()) >= 20 * min(x.values()):
        axes.set_xscale("log")
    return x


def _score_line(axes: Axes, x: list[float], spreads: list[Spread], **look: Any) -> None:
    """The line through the means. It is shifted, and shifted lines do not count when the axes choose their limits."""
    means = [100 * spread.mean for spread in spreads]
    for at, mean, spread in zip(x, means, spreads, strict=True):
        deviation = 100 * (spread.sd or 0.0)
        axes.update_datalim([(at, mean - deviation), (at, mean + deviation)])
    axes.plot(x, means, color=INK, alpha=0.55, lw=1.2, ms=5, zorder=2, **look)


def _control_levels(axes: Axes, results: StudyResults, series: ScoreSeries) -> None:
    """The score of each control as a dashed level, its standard deviation as a band."""
    for number, label in enumerate(results.controls):
        spread = series.spread(label)
        if spread is None:
            continue
        dashes = (0, (5, 4, *(1, 4) * number))
        axes.axhline(100 * spread.mean, color=INK, ls=dashes, lw=1.3, label=label)
        if spread.sd:
            axes.axhspan(100 * (spread.mean - spread.sd), 100 * (spread.mean + spread.sd), color=INK, alpha=0.08, lw=0)


def _widen(axes: Axes) -> None:
    """Show at least one point of score: on a smaller scale rounding would look like a difference."""
    low, high = axes.get_ylim()
    if high - low < 1.0:
        axes.set_ylim((low + high) / 2 - 0.5, (low + high) / 2 + 0.5)


def _shifted(axes: Axes, points: float) -> Transform:
    """Data coordinates moved to the right by so many points, on any scale."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return axes.transData + ScaledTranslation(points / 72, 0, figure.dpi_scale_trans)


@styled
def blimp_fields(results: StudyResults) -> Figure | None:
    """BLiMP accuracy by linguistic field: every pre-training seed a dot, the mean a bar, chance a line."""
    fields = results.blimp_fields()
    labels = labels_in(results, fields)
    if not labels:
        return None
    colours = colours_of(results) | dict.fromkeys(results.controls, INK)
    groups = group_numbers(results)
    figure = Figure(figsize=(WIDTH, 1.3 + len(fields) * (0.22 + 0.13 * len(labels))))
    axes = figure.subplots()
    handles: dict[str, Any] = {}
    for row, series in enumerate(fields.values()):
        for number, label in enumerate(labels):
            seeds = [100 * score for score in series.by_label.get(label, {}).values()]
            if not seeds:
                continue
            y = row + 0.8 * ((number + 0.5) / len(labels) - 0.5)
            half = 0.3 / len(labels)
            marker = "x" if label in results.controls else MARKERS[groups[label] % len(MARKERS)]
            dots = axes.plot(seeds, [y] * len(seeds), marker, color=colours[label], ms=4.5, alpha=0.75, lw=0)
            axes.plot([np.mean(seeds)] * 2, [y - half, y + half], color=colours[label], lw=2.5)
            handles.setdefault(label, dots[0])
        if row:
            axes.axhline(row - 0.5, color=INK, alpha=0.15, lw=0.8)
    axes.axvline(50, color=INK, lw=1, ls=":")
    axes.set(ylim=(len(fields) - 0.5, -0.5), xlabel="accuracy (%); dotted: chance")
    axes.set_yticks(range(len(fields)), [name.replace("_", " ") for name in fields])
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    legend(figure, {label: handles[label] for label in labels if label in handles})
    return figure


def probe_curves(results: StudyResults) -> Figure | None:
    """Accuracy of the linear probes over the layers, means over pre-training seeds, controls last."""
    probes = results.probes()
    labels = labels_in(results, probes)
    if not labels:
        return None
    panels = {}
    for name in probes:
        layers = results.probe_layers(name).values()
        curves = {label: [found.mean for one in layers if (found := one.spread(label))] for label in labels}
        majority = next(iter(results.series[f"probe/{name}/majority"].by_label.values()))
        panels[name] = (curves, next(iter(majority.values())))
    return over_layers(panels, results.controls)
