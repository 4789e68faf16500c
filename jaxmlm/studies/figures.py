"""The pictures of a report: drawn once, as SVG for the page and as PNG for the documents."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.transforms import ScaledTranslation, Transform

from jaxmlm.plotting import DASHES, INK, MARKERS, PALETTE, STYLE, WIDTH, styled
from jaxmlm.studies.report import Report
from jaxmlm.studies.results import Measure, Results, collect, numeric, row_label


def save_all(report: Report, folder: Path) -> list[Path]:
    """Write every figure of the report as folder/NAME.png; no sentence of the data is in them."""
    results = collect(report.rows)
    drawn = {
        "scores": scores(results, score_names(results)),
        "losses": losses(results, report.curves),
        "matrix": matrix(results),
        "fields": fields(results),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in drawn.items():
        if figure is not None:
            paths.append(folder / f"{name}.png")
            with matplotlib.rc_context(STYLE):
                figure.savefig(paths[-1], dpi=160, facecolor="white", metadata={"Software": None})
    return paths


def score_names(results: Results) -> list[str]:
    """The measures worth a panel against the varied value: the verdict's first."""
    tasks = [task for task in results.tasks if task in results.measures]
    first = ["blimp"] + (["finetune"] if len(tasks) != 1 else [])
    return [name for name in first if name in results.measures] + tasks


def colours(results: Results) -> dict[str, str]:
    """One colour per value of the first path, the same in every figure; a scale when the values are many."""
    shorts = list(dict.fromkeys(results.short(name) for name in results.labels))
    if len(shorts) <= len(PALETTE):
        chosen: Sequence[str] = PALETTE
    else:
        scale = matplotlib.colormaps["plasma"](np.linspace(0.22, 0.85, len(shorts)))
        chosen = [to_hex(colour) for colour in scale]
    by = dict(zip(shorts, chosen, strict=False))
    return {name: by[results.short(name)] for name in results.labels}


def _group_index(results: Results) -> dict[str, int]:
    return {name: i for i, labels in enumerate(results.groups.values()) for name in labels}


@styled
def scores(results: Results, names: Sequence[str]) -> Figure | None:
    """Score against the first path, a panel per measure: mean and sd over seeds, each seed a dot."""
    if not names or not results.paths:
        return None
    columns = min(3, len(names))
    lines = math.ceil(len(names) / columns)
    scale = 1.0 if columns == 1 else 0.72
    figure = Figure(figsize=(WIDTH * columns * scale, 3.3 * lines * (1.0 if columns == 1 else 0.85)))
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        _score_panel(axes, results, results.measures[name])
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    shown: dict[str, Any] = {}
    for axes in panels[: len(names)]:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            shown.setdefault(name, handle)
    if len(names) > 1 or len(results.groups) > 1:
        figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=max(1, min(3, len(shown))))
    return figure


def _score_panel(axes: Axes, results: Results, measure: Measure) -> None:
    colour, path = colours(results), results.paths[0]
    firsts = list(dict.fromkeys(results.short(name) for name in results.labels))
    raw: dict[str, Any] = {results.short(name): results.values[name].get(path) for name in results.labels}
    number = numeric(raw.values())
    at = {short: float(raw[short]) if number else float(firsts.index(short)) for short in firsts}
    if number and min(at.values()) > 0 and max(at.values()) >= 20 * min(at.values()):
        axes.set_xscale("log")
    for i, (group, labels) in enumerate(results.groups.items()):
        aside = 13 * (i - (len(results.groups) - 1) / 2)
        here, beside = _shift(axes, aside), _shift(axes, aside + 6)
        found = [(name, spread) for name in labels if (spread := measure.spread(name))]
        x = [at[results.short(name)] for name, _ in found]
        y = [100 * spread.mean for _, spread in found]
        sds = [100 * (spread.sd or 0.0) for _, spread in found]
        line = {"color": INK, "alpha": 0.55, "lw": 1.2, "ls": DASHES[i % 4], "transform": here, "zorder": 2}
        # Shifted lines do not count when the axes choose their limits.
        around = [(value, mean + sd) for value, mean, sd in zip(x, y, sds, strict=True) for sd in (-sd, sd)]
        if around:
            axes.update_datalim(around)
        axes.plot(x, y, label=group or None, marker=MARKERS[i % 7] if group else None, ms=5, **line)
        for (name, spread), value, mean, sd in zip(found, x, y, sds, strict=True):
            look = {"color": colour[name], "zorder": 3}
            axes.plot([value] * 2, [mean - sd, mean + sd], "_-", ms=8, lw=2, transform=here, **look)
            axes.plot([value], [mean], MARKERS[i % 7], ms=8, transform=here, **look)
            if spread.n > 1:
                seeds = [100 * score for score in measure.series[name].values()]
                axes.update_datalim([(value, score) for score in seeds])
                axes.plot([value] * len(seeds), seeds, "o", ms=3, alpha=0.6, transform=beside, **look)
    for i, name in enumerate(results.controls):
        control = measure.spread(name)
        if control is None:
            continue
        axes.axhline(100 * control.mean, color=INK, ls=(0, (5, 4, *(1, 4) * i)), lw=1.3, label=name)
        if control.sd:
            low, high = 100 * (control.mean - control.sd), 100 * (control.mean + control.sd)
            axes.axhspan(low, high, color=INK, alpha=0.08, lw=0)
    axes.margins(x=0.08 + 0.03 * (len(results.groups) - 1), y=0.08)
    axes.autoscale_view()
    low, high = axes.get_ylim()
    if high - low < 1.0:  # Below a point the scale would make a mountain of rounding.
        axes.set_ylim((low + high) / 2 - 0.5, (low + high) / 2 + 0.5)
    axes.set_xticks([at[short] for short in firsts], firsts)
    axes.minorticks_off()
    axes.tick_params(axis="x", labelrotation=45 if len(firsts) > 6 or sum(map(len, firsts)) > 36 else 0)
    axes.set_xlabel(path.replace(".", " ").replace("_", " "))
    axes.set_title(title(measure), loc="left")


def _shift(axes: Axes, right: float) -> Transform:
    """Data coordinates moved to the right by so many points, on any scale."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return axes.transData + ScaledTranslation(right / 72, 0, figure.dpi_scale_trans)


def title(measure: Measure) -> str:
    """A measure's name, metric and unit for a heading."""
    if measure.name == "blimp":
        return f"BLiMP{measure.mark}, accuracy (%)"
    if measure.name == "finetune":
        return f"fine-tuning{measure.mark}, mean × 100"
    return f"{measure.name}{measure.mark}, {measure.metric} × 100"


@styled
def losses(results: Results, curves: dict[str, list[dict[str, Any]]]) -> Figure | None:
    """Training loss against the tokens seen (or the step), averaged in bins; a line per cell."""
    curves = {cell: [point for point in points if point.get("loss") is not None] for cell, points in curves.items()}
    curves = {cell: points for cell, points in curves.items() if points}
    if not curves:
        return None
    colour, group = colours(results), _group_index(results)
    labels = {row["cell"]: row_label(row) for row in results.rows}
    tokens = all(point.get("tokens") for points in curves.values() for point in points)
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.subplots()
    seen: dict[str, Line2D] = {}
    for cell, points in curves.items():
        name = labels.get(cell, "unfinished")
        x = [point["tokens"] / 1e6 if tokens else point["step"] for point in points]
        bins = np.array_split(np.arange(len(points)), min(len(points), 150))
        drawn = axes.plot(
            [np.mean([x[i] for i in b]) for b in bins],
            [np.mean([points[i]["loss"] for i in b]) for b in bins],
            color=colour.get(name, INK),
            ls=DASHES[group.get(name, 0) % 4],
            lw=1.3,
            alpha=0.85,
        )
        seen.setdefault(name, drawn[0])
    order = [name for name in [*results.labels, *results.controls, "unfinished"] if name in seen]
    figure.legend(
        [seen[name] for name in order],
        order,
        loc="outside lower center",
        ncols=min(5 if len(results.paths) < 2 else 2, len(order)),
    )
    axes.set_xlabel("training tokens (millions)" if tokens else "step")
    axes.set_ylabel("training loss (nats)")
    return figure


@styled
def matrix(results: Results) -> Figure | None:
    """Held-out loss, trained at the row, evaluated at the column; shade: nats above the column's best."""
    found = results.losses()
    names = [name for name in [*results.labels, *results.controls] if any(name in m.series for m in found.values())]
    trained = [name for name in names if name not in results.controls]
    if not found or not names:
        return None
    means = np.array([[s.mean if (s := m.spread(name)) else np.nan for m in found.values()] for name in names])
    lowest = np.nanmin(means[: len(trained)] if trained else means, axis=0)
    over = means - lowest
    # The control is a vocabulary's width away: shading is scaled to the trained cells.
    top = max(float(np.nanmax(over[: len(trained)])) if trained else 0.0, 0.05)
    figure = Figure(figsize=(WIDTH, 1.2 + 0.42 * len(names)))
    axes = figure.subplots()
    shade = matplotlib.colormaps["YlGnBu"]
    for i, j in np.ndindex(*means.shape):
        if math.isnan(means[i, j]):
            continue
        dark = min(float(over[i, j]) / top, 1.0)
        best = names[i] not in results.controls and over[i, j] == 0
        axes.add_patch(
            Rectangle(
                (j - 0.48, i - 0.46),
                0.96,
                0.92,
                facecolor=shade(0.08 + 0.75 * dark),
                edgecolor="#D55E00" if best else "none",
                lw=2.5,
            )
        )
        axes.text(
            j,
            i,
            f"{means[i, j]:.2f}",
            ha="center",
            va="center",
            weight="bold" if best else "normal",
            color="#ffffff" if dark > 0.55 else "#111111",
        )
    axes.set(
        xlim=(-0.5, len(found) - 0.5),
        ylim=(len(names) - 0.5, -0.5),
        xlabel="evaluated at",
        ylabel="trained at",
    )
    axes.set_xticks(range(len(found)), [f"{100 * rate:g} % masks" for rate in found])
    axes.set_yticks(range(len(names)), names)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


@styled
def fields(results: Results) -> Figure | None:
    """BLiMP accuracy by linguistic field: every pre-training seed a dot, the mean a bar, chance a line."""
    found = results.fields()
    names = [name for name in [*results.labels, *results.controls] if any(name in m.series for m in found.values())]
    if not found or not names:
        return None
    colour, group = colours(results) | dict.fromkeys(results.controls, INK), _group_index(results)
    figure = Figure(figsize=(WIDTH, 1.3 + len(found) * (0.22 + 0.13 * len(names))))
    axes = figure.subplots()
    shown: dict[str, Line2D] = {}
    for i, measure in enumerate(found.values()):
        for j, name in enumerate(names):
            seeds = [100 * value for value in measure.series.get(name, {}).values()]
            if not seeds:
                continue
            y = i + 0.8 * ((j + 0.5) / len(names) - 0.5)
            marker = "x" if name in results.controls else MARKERS[group[name] % 7]
            dots = axes.plot(seeds, [y] * len(seeds), marker, color=colour[name], ms=4.5, alpha=0.75, lw=0)
            shown.setdefault(name, dots[0])
            axes.plot([np.mean(seeds)] * 2, [y - 0.3 / len(names), y + 0.3 / len(names)], color=colour[name], lw=2.5)
        if i:
            axes.axhline(i - 0.5, color=INK, alpha=0.15, lw=0.8)
    axes.axvline(50, color=INK, lw=1, ls=":")
    axes.set(ylim=(len(found) - 0.5, -0.5), xlabel="accuracy (%); dotted: chance")
    axes.set_yticks(range(len(found)), [name.replace("_", " ") for name in found])
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    order = [name for name in names if name in shown]
    figure.legend(
        [shown[name] for name in order],
        order,
        loc="outside lower center",
        ncols=min(5 if len(results.paths) < 2 else 2, len(order)),
    )
    return figure
