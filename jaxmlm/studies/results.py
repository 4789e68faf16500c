"""What the rows of a study say: replicates, spreads, comparisons. The replicate is the pre-training seed."""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxmlm.runs.statistics import Comparison, Series, Spread, compare_seeds, spread
from jaxmlm.tasks.downstream import GENERATED

CONTROL, GIVEN = "not pre-trained", "as it was given"
"""What a control is called: an encoder of random weights, and one that the runs go on from."""
SEEDS = 3
"""With fewer pre-training seeds there is a tendency and no verdict."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """One number that every finished cell has: series[label][seed], tuning seeds already averaged."""

    name: str
    metric: str
    series: Series
    higher: bool = True
    generated: bool = False
    """Of generated data, not of those of the task or benchmark that it is named after."""

    @property
    def mark(self) -> str:
        """What stands behind the name where a score is shown."""
        return GENERATED if self.generated else ""

    def spread(self, label: str) -> Spread | None:
        """Mean, sd and n of one value of the varied axis; None where no cell of it has this number."""
        return spread(self.series.get(label, {}).values())

    def best(self, labels: Iterable[str]) -> str | None:
        """The label with the best mean, whether or not it is beyond noise."""
        means = {label: found.mean for label in labels if (found := self.spread(label))}
        return (max if self.higher else min)(means, key=means.__getitem__) if means else None


@dataclass(frozen=True)
class Results:
    """The rows of a study, ordered; made by `collect`. `values`: label -> its point on the varied axes.

    controls: the same for the encoders that were not pre-trained. groups: labels that differ in the first path only,
    by the values of the others ("" when one path varies).
    """

    rows: list[Row]
    paths: tuple[str, ...]
    values: dict[str, dict[str, Any]]
    controls: dict[str, dict[str, Any]]
    groups: dict[str, list[str]]
    tasks: tuple[str, ...]
    measures: dict[str, Measure]
    missing: list[str]
    notes: list[str]

    @property
    def labels(self) -> list[str]:
        """Every value of the varied axes, in order, without the controls."""
        return list(self.values)

    def control_of(self, label: str) -> str | None:
        """The control of a value: the same encoder without pre-training; None if it was not judged."""
        encoder = {path: value for path, value in self.values[label].items() if shapes(path)}
        return next((name for name, values in self.controls.items() if values == encoder), None)

    def short(self, label: str) -> str:
        """The value on the first path: what tells a label from the others of its group."""
        return text(self.values[label][self.paths[0]]) if self.values.get(label) else label

    def losses(self) -> dict[float, Measure]:
        """Held-out loss by the rate at which it was measured."""
        prefix = "heldout/loss@"
        found = {k.removeprefix(prefix): m for k, m in self.measures.items() if k.startswith(prefix)}
        return {float(rate): found[rate] for rate in sorted(found, key=float)}

    def fields(self) -> dict[str, Measure]:
        """BLiMP accuracy by linguistic field."""
        prefix = "blimp/field/"
        return {k.removeprefix(prefix): m for k, m in self.measures.items() if k.startswith(prefix)}


def text(value: object) -> str:
    """A value of a varied path as it is written everywhere.

    >>> text(0.4), text(0.125), text(23000), text("word")
    ('0.40', '0.125', '23000', 'word')
    """
    if isinstance(value, float):
        return f"{value:.2f}" if 0 < value < 1 and round(value, 2) == value else f"{value:g}"
    return str(value)


def label(values: Mapping[str, Any]) -> str:
    """The name of one point on the varied axes: the key of `Report.sentences` and of the summary.

    >>> label({"masking.rate": 0.4}), label({"masking.rate": 0.4, "model.layers": 2})
    ('0.40', 'rate=0.40,layers=2')
    """
    if not values:
        return "base"
    if len(values) == 1:
        return text(next(iter(values.values())))
    leaves = [path.rsplit(".", 1)[-1] for path in values]
    names = leaves if len(set(leaves)) == len(leaves) else list(values)
    return ",".join(f"{name}={text(value)}" for name, value in zip(names, values.values(), strict=True))


def shapes(path: str) -> bool:
    """Whether a varied path makes another encoder before any training, which then is a control of its own.

    >>> shapes("model.layers"), shapes("masking.rate")
    (True, False)
    """
    return path.split(".")[0] in ("model", "init", "data")


def row_label(row: Row) -> str:
    """The label of a row's cell; the controls of all seeds are one label."""
    if not row["control"]:
        return label(row["values"])
    name = GIVEN if row.get("given") else CONTROL
    return ", ".join([name, *(f"{path.rsplit('.', 1)[-1]} {text(value)}" for path, value in row["values"].items())])


def numeric(values: Iterable[object]) -> bool:
    """Whether values lie on a line of numbers."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def collect(rows: Sequence[Row]) -> Results:
    """Rows of results.jsonl -> results. A row written twice counts once, the last.

    Numbers that are not finite are left out, and named in `missing` as unfinished cells are, and as fine-tunings that
    diverged.
    """
    last = {(row["cell"], row["stage"], row["task"], row.get("tuning_seed")): row for row in rows}
    kept = list(last.values())
    points = {row_label(row): row["values"] for row in kept if not row["control"]}
    controls = {row_label(row): row["values"] for row in kept if row["control"]}
    paths = tuple(dict.fromkeys(path for point in points.values() for path in point))
    values = dict(sorted(points.items(), key=lambda item: _ranks(item[1], paths, list(points.values()))))
    groups: dict[str, list[str]] = defaultdict(list)
    for name, point in values.items():
        rest = {path: point.get(path) for path in paths[1:]}
        groups[", ".join(f"{path.rsplit('.', 1)[-1]} {text(v)}" for path, v in rest.items())].append(name)
    tasks = tuple(dict.fromkeys(row["task"] for row in kept if row["stage"] == "finetune"))
    measures = _measures(kept, tasks)
    return Results(kept, paths, values, controls, dict(groups), tasks, measures, _missing(kept), _notes(kept))


def _ranks(point: Mapping[str, Any], paths: Sequence[str], points: list[dict[str, Any]]) -> list[float]:
    ranks = []
    for path in paths:
        seen = [other.get(path) for other in points]
        ranks.append(float(point[path] if numeric(seen) else seen.index(point.get(path))))
    return ranks


def _series(rows: Iterable[Row], score: Callable[[Row], float | None]) -> Series:
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        value = score(row)
        if value is not None and math.isfinite(value):
            found[row_label(row)][row["seed"]].append(float(value))
    return {name: {seed: float(np.mean(v)) for seed, v in sorted(by.items())} for name, by in found.items()}


def _measures(rows: list[Row], tasks: tuple[str, ...]) -> dict[str, Measure]:
    found = {}

    def add(name: str, metric: str, series: Series, of: Iterable[Row], higher: bool = True) -> None:
        if series:
            found[name] = Measure(name, metric, series, higher, any(row.get("generated") for row in of))

    for stage in ("heldout", "blimp"):
        mine = [row for row in rows if row["stage"] == stage]
        for key in dict.fromkeys(key for row in mine for key in row["scores"]):
            if not key.startswith("set/"):
                name = "blimp" if (stage, key) == ("blimp", "accuracy") else f"{stage}/{key}"
                higher = stage == "blimp" or key.startswith("accuracy")
                add(name, key, _series(mine, lambda row, key=key: row["scores"].get(key)), mine, higher)
    tuned = [row for row in rows if row["stage"] == "finetune"]
    for task in tasks:
        mine = [row for row in tuned if row["task"] == task]
        add(task, str(mine[0]["main"]), _series(mine, lambda row: row["scores"].get(row["main"])), mine)
    if tasks and all(task in found for task in tasks):
        every = [found[task].series for task in tasks]
        mean: Series = {}
        for name in dict.fromkeys(name for series in every for name in series):
            seeds = set.intersection(*(set(series.get(name, {})) for series in every))
            if seeds:
                mean[name] = {s: float(np.mean([series[name][s] for series in every])) for s in sorted(seeds)}
        add("finetune", "mean of the main scores", mean, tuned)
    return found


def _missing(rows: list[Row]) -> list[str]:
    cells = {row["cell"]: row for row in rows}
    have = defaultdict(set)
    for row in rows:
        have[row["cell"]].add((row["stage"], row["task"]))
    every = dict.fromkeys((row["stage"], row["task"]) for row in rows)
    lines = []
    for cell, row in cells.items():
        needed = [step for step in every if not (row["control"] and step[0] in ("pretrain", "heldout"))]
        lacking = [
            stage if stage != "finetune" else f"finetune {task}"
            for stage, task in needed
            if (stage, task) not in have[cell]
        ]
        if lacking:
            lines.append(f"{cell} has no result yet for: {', '.join(lacking)}")
    for row in rows:
        bad = [key for key, value in row["scores"].items() if value is None or not math.isfinite(value)]
        if bad:
            lines.append(f"{row['cell']}, {row['task']}: not a finite number, left out: {', '.join(bad)}")
        if row.get("main") and row["main"] not in row["scores"]:
            why = row.get("notes") or ["no reason is given"]
            lines.append(f"{row['cell']}, {_tuning(row)}: no {row['main']}, so left out: {why[-1]}")
    return lines


def _notes(rows: list[Row]) -> list[str]:
    """What the fine-tunings were not whole in, and those that learned nothing."""
    lines = []
    for row in rows:
        # The last note of a fine-tuning without a score says why, which `missing` has.
        notes = row.get("notes", []) if row["scores"] else row.get("notes", [])[:-1]
        lines += [f"{row['task']}: {note}" for note in notes]
        if row.get("diverged"):
            lines.append(f"{row['cell']}: the pre-training diverged: {row['diverged']}")
        if row.get("degenerate") and row["scores"]:
            lines.append(f"{row['cell']}, {_tuning(row)}: one class, or one number, for all of dev")
    return list(dict.fromkeys(lines))


def _tuning(row: Row) -> str:
    return row["task"] + (f", tuning seed {row['tuning_seed']}" if row["stage"] == "finetune" else "")


def _family(names: Sequence[tuple[str, str]], series: Series) -> list[Comparison]:
    """The comparisons of a family; with fewer than `SEEDS` seeds a pair has no error bar, and does not count in it."""
    alone = [compare_seeds(a, b, series) for a, b in names]
    able = [pair.seeds >= SEEDS and not math.isnan(pair.p) for pair in alone]
    none = dict.fromkeys(("low", "high", "p", "adjusted"), math.nan)
    return [
        compare_seeds(pair.a, pair.b, series, sum(able)) if counts else pair._replace(**none)
        for pair, counts in zip(alone, able, strict=True)
    ]


def pairs(results: Results, measure: Measure) -> list[Comparison]:
    """Every pair within a group, the better first; all of them are one family."""
    names = []
    for labels in results.groups.values():
        for a, b in itertools.combinations([name for name in labels if name in measure.series], 2):
            difference = compare_seeds(a, b, measure.series).difference
            names.append((b, a) if (difference < 0) == measure.higher and difference != 0 else (a, b))
    return _family(names, measure.series)


def against_control(results: Results, measure: Measure) -> list[Comparison]:
    """Every value minus its encoder that was not pre-trained; all of them are one family."""
    both = [(x, results.control_of(x)) for x in results.labels if x in measure.series]
    return _family([(x, c) for x, c in both if c is not None and c in measure.series], measure.series)


def leaders(results: Results, measure: Measure) -> set[str]:
    """The labels that beat every other of their group beyond noise (and do not fall behind the control)."""
    every, found = pairs(results, measure), set()
    for labels in results.groups.values():
        present = [name for name in labels if name in measure.series]
        best = measure.best(present)
        if best is None or len(present) < 2:
            continue
        won = {pair.b for pair in every if pair.a == best and pair.sure}
        control = measure.spread(results.control_of(best) or "")
        sign, mean = (1 if measure.higher else -1), measure.series[best].values()
        ahead = control is None or sign * (float(np.mean(list(mean))) - control.mean) > 0
        if ahead and won >= set(present) - {best}:
            found.add(best)
    return found
