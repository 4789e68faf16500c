"""The report of a study: a page that stands alone, its table for the terminal, its summary for --json."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.text import Text

from jaxmlm.json_files import write_text
from jaxmlm.runs import tables
from jaxmlm.studies import verdict as words
from jaxmlm.studies.results import (
    Comparison,
    Measure,
    Results,
    Row,
    Spread,
    against_control,
    collect,
    leaders,
    pairs,
    row_label,
)
from jaxmlm.studies.results import text as plain


@dataclass(frozen=True)
class Report:
    """What a report is drawn from.

    rows: of results.jsonl. curves: cell -> log lines {"step", "loss", "tokens"}. provenance: for the foot.
    sentences: `statistics.label(values)` -> the pieces of one sentence, each with its state: plain, mask
    (drawn as [MASK]), random (the piece that stands there now) or keep (predicted, but unchanged).
    """

    title: str
    rows: list[Row]
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    sentences: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    provenance: dict[str, str] = field(default_factory=dict)
    note: str = ""


class Column(NamedTuple):
    """A column of the first table: its heading, and its measure times `scale`, rounded to one decimal."""

    heading: str
    measure: Measure
    scale: float


def write(folder: Path, report: Report) -> dict[str, Any]:
    """Write folder/report.html, one file that refers to no other, and return the summary."""
    # Here, because the terminal's table and the summary need no matplotlib, which takes a second to import.
    from jaxmlm.studies import page

    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "report.html", page.html(report))
    return summary(report.rows)


def verdict(rows: Sequence[Row]) -> str:
    """What was found and how sure it is, in words; the last sentence is the verdict itself."""
    return " ".join(words.sentences(collect(rows)))


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """The numbers for --json: per value its held-out losses, scores, speed and cost; the pairs; the verdict.

    Scores are on their own scale (shares and correlations, not times 100); sd and intervals are None where
    one seed gives none; tokens_per_second is the mean over pre-trainings, tokens and seconds are sums over cells.
    tokens counts an example once, whatever the rows_per_example that the model is shown of it.
    """
    results = collect(rows)
    controls = {x: _one(results, x) for x in results.controls}
    compared = [name for name in ("blimp", "finetune") if name in results.measures]
    every = {
        name: (pairs(results, m), against_control(results, m)) for name in compared if (m := results.measures[name])
    }
    return {
        "rates" if results.paths == ("masking.rate",) else "values": {x: _one(results, x) for x in results.labels},
        "control": next(iter(controls.values())) if len(controls) == 1 else None,
        "controls": controls,
        "pairs": [_pair(name, pair) for name, (found, _) in every.items() for pair in found],
        "control_pairs": [_pair(name, pair) for name, (_, found) in every.items() for pair in found],
        "missing": results.missing,
        "notes": results.notes,
        "sentences": (said := words.sentences(results)),
        "verdict": " ".join(said),
    }


def _one(results: Results, name: str) -> dict[str, Any]:
    mine = [row for row in results.rows if row_label(row) == name]
    trained = [row for row in mine if row["stage"] == "pretrain"]
    speeds = [row["tokens_per_second"] for row in trained if row.get("tokens_per_second")]
    held, scores = {}, {}
    for key, measure in results.measures.items():
        found = measure.spread(name)
        if found is not None and key.startswith("heldout/"):
            held[key.removeprefix("heldout/")] = found._asdict()
        elif found is not None and key in ("blimp", "finetune", *results.tasks):
            scores[key] = {"metric": measure.metric} | found._asdict()
            if measure.generated:
                scores[key]["generated"] = True
    return {
        "values": (results.values | results.controls)[name],
        "heldout": held,
        "scores": scores,
        "blimp_fields": {key: found._asdict() for key, m in results.fields().items() if (found := m.spread(name))},
        "tokens": sum(row.get("tokens") or 0 for row in trained),
        "rows_per_example": _views(results, name),
        "tokens_per_second": sum(speeds) / len(speeds) if speeds else None,
        "seconds": sum(row.get("seconds") or 0.0 for row in mine),
    }


def _pair(name: str, pair: Comparison) -> dict[str, Any]:
    cleaned = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in pair._asdict().items()}
    return {"measure": name} | cleaned | {"beyond_noise": pair.sure}


def columns(results: Results) -> list[Column]:
    """The score columns of the first table, those that have a number."""
    found = results.measures
    listed = []
    if "heldout/perplexity" in found:
        listed.append(Column("perplexity (15 % masks)", found["heldout/perplexity"], 1.0))
    listed += [Column(task + found[task].mark, found[task], 100.0) for task in results.tasks if task in found]
    if len(results.tasks) > 1 and "finetune" in found:
        listed.append(Column("tuned mean" + found["finetune"].mark, found["finetune"], 100.0))
    if "blimp" in found:
        listed.append(Column("BLiMP" + found["blimp"].mark, found["blimp"], 100.0))
    return listed


def entry(column: Column, name: str) -> str:
    """One cell of the first table: mean ± sd (n)."""
    found: Spread | None = column.measure.spread(name)
    if found is None:
        return "–"
    sd = "" if found.sd is None else f" ± {column.scale * found.sd:.1f}"
    return f"{column.scale * found.mean:.1f}{sd} ({found.n})"


def heads(results: Results) -> list[str]:
    """The headings of the varied paths, and of what one example costs where a run shows it more than once."""
    cost = ["rows per example"] if _many_views(results) else []
    return ([heading(path) for path in results.paths] or ["run"]) + cost


def heading(path: str) -> str:
    """A dotted path in words.

    >>> heading("loop.save_every")
    'loop save every'
    """
    return path.replace(".", " ").replace("_", " ")


def points(results: Results, name: str) -> list[str]:
    """A label's value on every varied path, as text, and what `heads` adds."""
    cost = [str(_views(results, name) or "")] if _many_views(results) else []
    if name in results.controls:
        first, *others = [plain(results.controls[name].get(path, "")) for path in results.paths] or [""]
        what = name.split(", ")[0]
        return [f"{what}, {first}" if first else what, *others] + cost
    return ([plain(results.values[name].get(path, "")) for path in results.paths] or [name]) + cost


def _views(results: Results, name: str) -> int | None:
    """How many rows a value's runs make of one example; None where nothing was trained, or an old run did not say."""
    mine = (row for row in results.rows if row["stage"] == "pretrain" and row_label(row) == name)
    return next((row["views"] for row in mine if row.get("views")), None)


def _many_views(results: Results) -> bool:
    return any((_views(results, name) or 1) > 1 for name in results.labels)


def names(results: Results) -> list[str]:
    """The rows of the first table: the values in order, then the controls."""
    return [*results.labels, *results.controls]


def table(rows: Sequence[Row]) -> tables.Tables:
    """The first table for the terminal: mean ± sd (n), scores times 100, bold where best beyond noise."""
    results = collect(rows)
    left = [
        tables.Column(head, [points(results, name)[i] for name in names(results)])
        for i, head in enumerate(heads(results))
    ]
    drawn = []
    for column in columns(results):
        best = leaders(results, column.measure)
        cells = [Text(entry(column, name), style="bold" if name in best else "") for name in names(results)]
        drawn.append(tables.Column(column.heading, cells))
    title = "scores × 100, mean ± sd (n pre-training seeds); bold: best beyond noise"
    return tables.Tables(title, left, drawn)
