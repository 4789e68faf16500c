"""Figures: their style, how they are written, and those that stand alone."""

import io
import math
import re
import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's colours, without black and without yellow, which is too light on white.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
MARKERS = "osD^vPX"
DASHES = ("-", "--", ":", "-.")
WIDTH = 5.2
# Stands for the page's text colour, so that one SVG serves light and dark; nearly black in a PNG.
INK = "#0a0b0c"
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "jaxmlm",
    "font.size": 10,
    "axes.titlesize": 11,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.12,
    "text.parse_math": False,  # names of values may have dollar signs
} | dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), INK)
styled = matplotlib.rc_context(STYLE)


def legend(figure: Figure, handles: Mapping[str, Any]) -> None:
    """A legend under the figure: as many columns as the longest label leaves room for, the figure higher by its rows.

    The height of a figure has one row in it. A label that is longer than the figure is wide is broken into lines.
    """
    width = figure.get_figwidth()
    beside, character, line = 0.6, 0.08, 0.2  # inches: the handle of a label and the gaps, a character, a row
    labels = [textwrap.fill(label, int((width - beside) / character)) for label in handles]
    parts = [label.split("\n") for label in labels]
    longest = max((len(part) for label in parts for part in label), default=0)
    columns = max(1, min(len(labels), int(width / (beside + character * longest))))
    rows = math.ceil(len(labels) / columns) * max(map(len, parts), default=1)
    figure.set_figheight(figure.get_figheight() + line * (rows - 1))
    figure.legend(list(handles.values()), labels, loc="outside lower center", ncols=columns)


def svg(figure: Figure, name: str, title: str) -> str:
    """A figure as inline SVG whose ids begin with `name`, in the page's own text colour."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    body = buffer.getvalue()
    body = re.sub(r"<metadata>.*?</metadata>", "", body[body.index("<svg") :], flags=re.DOTALL)
    head, rest = body.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    rest = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", rest).replace(INK, "currentColor")
    label = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return f'<svg {box.group() if box else ""} role="img" aria-label="{label}">{rest}'


def audit_figures(found: dict[str, dict[str, Any]], directory: Path) -> list[Path]:
    """Draw what `jaxmlm audit` measured: selection by position and by unit length, and units selected entirely."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.2 * WIDTH, 3.6))
        by_position, by_length, whole = figure.subplots(1, 3)
        kinds = list(dict.fromkeys(kind for one in found.values() for kind in one["whole"]))
        handles: dict[str, Any] = {}
        for i, (name, one) in enumerate(found.items()):
            look: Any = {"color": PALETTE[i % len(PALETTE)], "lw": 1.2}
            share = 100 * np.array(one["positions"])
            dashes = DASHES[i // len(PALETTE) % 4]
            [handles[name]] = by_position.plot(np.flatnonzero(share), share[share > 0], ls=dashes, **look)
            lengths = {int(n): row for n, row in one["lengths"].items() if row["units"] >= 50}  # rarer ones say little
            middle = [100 * row["selected"] for row in lengths.values()]
            half = [50 * (row["high"] - row["low"]) for row in lengths.values()]
            by_length.errorbar(list(lengths), middle, half, marker=MARKERS[i % 7], ms=4, capsize=2, **look)
            bar = 0.8 / len(found)
            values = [100 * one["whole"].get(kind, math.nan) for kind in kinds]
            whole.bar(np.arange(len(kinds)) + bar * (i - (len(found) - 1) / 2), values, bar, color=look["color"])
        by_position.set(xlabel="position in the row", title="selected, %", ylim=(0, None))
        by_length.set(xlabel="tokens in the unit", title="units selected, % (intervals)", ylim=(0, None))
        by_length.xaxis.set_major_locator(MaxNLocator(integer=True))
        whole.set(title="selected entirely, %")
        whole.set_xticks(
            range(len(kinds)), [kind.replace(" of", "\nof").replace(" in", "\nin") for kind in kinds], fontsize=8
        )
        legend(figure, handles)
        path = directory / "audit.png"
        figure.savefig(path, dpi=150)
    return [path]


@styled
def over_layers(probes: dict[str, tuple[dict[str, list[float]], float]], controls: Collection[str] = ()) -> Figure:
    """Accuracy of linear probes over the layers: a line for each encoder, and the majority class as a level.

    Args:
        probes: by probe the shares by encoder ("layer": this encoder) and layer, and the share of the majority class.
        controls: encoders that the others are compared with, drawn in the colour of the text.

    """
    columns = min(4, max(len(probes), 1))
    lines = math.ceil(len(probes) / columns) or 1
    figure = Figure(figsize=(0.55 * WIDTH * columns, 2.3 * lines + 0.4))
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    handles: dict[str, Any] = {}
    for axes, (name, (curves, majority)) in zip(panels, probes.items(), strict=False):
        for i, (label, values) in enumerate(curves.items()):
            shown = "this encoder" if label == "layer" else label
            dashes, marker, colour = (some[i % len(some)] for some in (DASHES, MARKERS, PALETTE))
            if label in controls:
                dashes, marker, colour = "--", "x", INK
            [handles[shown]] = axes.plot([100 * v for v in values], dashes, marker=marker, ms=4, color=colour)
        handles["majority"] = axes.axhline(100 * majority, color=INK, lw=1, ls=":")
        axes.set_title(name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in panels[len(probes) :]:
        axes.set_visible(False)
    for axes in panels[-columns:]:
        axes.set_xlabel("layer (0: embeddings)")
    for axes in panels[::columns]:
        axes.set_ylabel("accuracy, %")
    legend(figure, handles)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write one figure as a .png file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, dpi=160, facecolor="white", metadata={"Software": None})
