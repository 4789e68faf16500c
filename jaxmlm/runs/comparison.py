"""What fine-tunings say: what the seeds of a setting came to, and whether one checkpoint beats another."""

import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmlm.directories import expanded
from jaxmlm.errors import InputError, reading
from jaxmlm.runs.results import read_results
from jaxmlm.runs.statistics import compare_seeds
from jaxmlm.runs.workdir import read_metadata
from jaxmlm.tasks.downstream import GENERATED, display_name
from jaxmlm.tasks.entities import Spans, span_f1
from jaxmlm.tasks.file_formats import read_table
from jaxmlm.tasks.metrics import METRICS
from jaxmlm.tasks.registry import benchmark_tasks, find_task

Score = Callable[[np.ndarray, np.ndarray], float]
DRAWS = 2000
"""Resamplings of the dev rows in a bootstrap."""


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """For each point of the grid, the best mean first: mean, sd, median, best, how many, how many degenerate."""
    points: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        points.setdefault(row["settings"], []).append(row)
    summary = []
    for key, mine in points.items():
        values = [value_of(row) for row in mine if row["scores"]]
        plain = json.loads(key)
        summary.append(
            {
                **{name: plain[name] for name in ("learning_rate", "batch", "epochs")},
                "main": mine[0]["main"],
                "n": len(mine),
                "degenerate": sum(row["degenerate"] for row in mine),
                "mean": statistics.fmean(values) if values else None,
                "sd": statistics.stdev(values) if len(values) > 1 else None,
                "median": statistics.median(values) if values else None,
                "best": max(values, default=None),
                "settings": key,
            }
        )
    summary.sort(key=lambda one: -np.inf if one["mean"] is None else one["mean"], reverse=True)
    notes = list(dict.fromkeys(note for row in rows for note in row["notes"]))
    return {"summary": summary, "select": rows[0]["select"], "notes": notes}


def say(result: dict[str, Any]) -> Iterator[str]:
    """The lines under a result's rows: what the seeds came to, what was chosen how, what was not complete."""
    which = {"last": "the last state of each run", "best": "the best of each run's epochs on dev"}[result["select"]]
    for one in result["summary"]:
        head = f"learning rate {one['learning_rate']:g}, batch {one['batch']}, epochs {one['epochs']:g}"
        sd = "" if one["sd"] is None else f" (sd {one['sd']:.4f})"
        values = "no result"
        if one["mean"] is not None:
            values = f"{one['main']} mean {one['mean']:.4f}{sd}, median {one['median']:.4f}, best {one['best']:.4f}"
        yield f"{head}: {values}, {one['degenerate']} of {one['n']} degenerate"
    yield f"scored: {which}"
    yield from (f"note: {note}" for note in result["notes"])
    if "model" in result:
        yield f"best model: {result['model']}"
    yield from (f"for the test server: {path}" for path in result.get("test", []))
    yield from (f"predicted: {path}" for path in result.get("predicted", []))


def say_average(result: dict[str, Any]) -> Iterator[str]:
    """The table of several tasks of a benchmark, in points, and their average."""
    shown = {name: display_name({"task": name, **found}) for name, found in result["tasks"].items()}
    wide = max(6, *map(len, shown.values()))
    yield f"{'task':{wide}} {'score':>6} {'sd':>5}  runs  of"
    for name, found in result["tasks"].items():
        sd = "" if found["sd"] is None else f"{100 * found['sd']:.1f}"
        metrics = [part for part in found if part in METRICS or part == "mm/accuracy"]
        of = ", ".join(f"{part} {100 * found[part]:.1f}" for part in metrics)
        worse = f", {found['degenerate']} degenerate" if found["degenerate"] else ""
        yield f"{shown[name]:{wide}} {100 * found['score']:6.1f} {sd:>5}  {found['n']:4}  {of}{worse}"
    benchmark = find_task(next(iter(shown))).benchmark
    count = len(result["tasks"])
    every = len(benchmark_tasks(benchmark))
    generated = GENERATED if any(found.get("generated") for found in result["tasks"].values()) else ""
    yield f"average over {count} of the {every} tasks of {benchmark}{generated}: {100 * result['average']:.1f}"
    if "wnli" in result["tasks"]:
        yield f"without WNLI, over {count - 1}{generated}: {100 * result['without_wnli']:.1f}"
    yield from (f"note: {note}" for note in result["notes"])


def benchmark_score(row: dict[str, Any]) -> float:
    """What a benchmark counts of a result: its main metric, or the average where it has several.

    >>> benchmark_score({"main": "f1", "scores": {"f1": 0.8, "accuracy": 0.7, "average": 0.75}})
    0.75
    """
    return row["scores"].get("average", value_of(row))


def value_of(row: dict[str, Any]) -> float:
    """The main score of a line of results; below all others if the run diverged."""
    return row["scores"].get(row["main"], -math.inf)


class Predictions(NamedTuple):
    """The dev predictions of one setting: ids and labels [n], predictions [seeds, n], numbers or class numbers."""

    ids: list[str]
    written: list[str]
    """The labels as they are written: of `labels` class 1 alone may count."""
    labels: np.ndarray
    predictions: dict[int, np.ndarray]


def compare(one: str | Path, other: str | Path, draws: int = DRAWS) -> dict[str, Any]:
    """Is the first fine-tuned checkpoint better than the second on the same dev rows? By a paired bootstrap.

    Of each the setting with the best mean counts, its score the mean over its seeds. The dev rows are resampled, the
    same ones for both; the differences give the 95 % interval and a two-sided p. That is the noise of the dev set; a
    t test gives the noise of the seeds.

    Args:
        one: the workdir of a `finetune`.
        other: that of another one on the same task.
        draws: resamplings of the dev rows.

    Returns:
        {"task", "main", "rows": [], "a", "b", "difference", "half", "low", "high", "p", "dev_rows", "seeds",
        "seed_p"}; where the task writes scores.tsv, "by_score", which for SQuAD has exact match too.

    Raises:
        InputError: the two are of different tasks or dev rows, or a file is missing.

    """
    directories = [expanded(path) for path in (one, other)]
    best = [_best(directory) for directory in directories]
    (task, main, lines), (other_task, _, _) = best
    about = {"task": task, "main": main, "rows": [], **({"generated": True} if lines[0].get("generated") else {})}
    if task != other_task:
        raise InputError(
            f"{directories[0]} is fine-tuned on {task}, {directories[1]} on {other_task}: compare the same task"
        )
    rows = [rows for _, _, rows in best]
    path = directories[0] / lines[0]["predictions"] / "scores.tsv"
    if not path.is_file():
        if main not in METRICS:
            raise InputError(f"{task}: rows are not compared by {main}: let the task's save write scores.tsv as well")
        return {**about, **_compared(directories, rows, main, METRICS[main], draws)}
    with reading(path, "the scores of a fine-tuning"):
        header = read_table(path)[0]
    names = dict.fromkeys((main, *(name for name in (main.replace("f1", "exact"),) if name in header)))
    found = {name: _compared(directories, rows, name, None, draws) for name in names}
    return {**about, **found[main], "by_score": found}


def _compared(
    directories: list[Path], rows: list[list[dict[str, Any]]], name: str, score: Score | None, draws: int
) -> dict[str, Any]:
    """The bootstrap of one score, and a t test over the seeds; without a `score` the mean over the questions."""
    classes: dict[str, int] = {}
    second = _second_label(directories) if score and name == "f1" else None
    a, b = (
        _of_rows(directory, mine, name, classes, second) if score else _of_scores(directory, mine, name)
        for directory, mine in zip(directories, rows, strict=True)
    )
    if score is None:
        score = _mean if next(iter(a.predictions.values())).ndim == 1 else _entity_f1
    if len(a.ids) != len(b.ids):
        raise InputError(
            f"{directories[0]} is evaluated on {len(a.ids)} rows, {directories[1]} on {len(b.ids)}: compare the same"
        )
    for x, y, left, right in zip(a.ids, b.ids, a.written, b.written, strict=True):
        if (x, left) != (y, right):
            label = f"the label of {x!r} is {left!r} here and {right!r} there"
            raise InputError(
                f"{directories[0]} and {directories[1]} were evaluated on different rows: "
                f"{label if x == y else f'{x!r} here is {y!r} there'}"
            )
    difference = paired_bootstrap(score, a.labels, list(a.predictions.values()), list(b.predictions.values()), draws)
    seeds = compare_seeds(
        "a",
        "b",
        {
            which: {seed: score(part.labels, said) for seed, said in part.predictions.items()}
            for which, part in (("a", a), ("b", b))
        },
    )
    return {
        "dev_rows": len(a.ids),
        "seeds": [len(a.predictions), len(b.predictions)],
        **difference,
        "seed_p": None if math.isnan(seeds.p) else seeds.p,
    }


def _mean(_: np.ndarray, scores: np.ndarray) -> float:
    return float(scores.mean())


def _entity_f1(_: np.ndarray, counts: np.ndarray) -> float:
    return span_f1(counts)


def paired_bootstrap(
    score: Score, labels: np.ndarray, a: Sequence[np.ndarray], b: Sequence[np.ndarray], draws: int = DRAWS
) -> dict[str, float]:
    """Scores of predictions a and b (one array a seed) on the same labels, and how sure their difference is.

    `half` is half the 95 % interval, p two-sided, at least 1 / (draws + 1). The draws are always the same.

    >>> labels = np.arange(100) % 2
    >>> found = paired_bootstrap(METRICS["accuracy"], labels, [labels], [1 - labels])
    >>> found["difference"], found["half"], found["p"] < 0.001
    (1.0, 0.0, True)
    """

    def mean(rows: np.ndarray, parts: Sequence[np.ndarray]) -> float:
        return statistics.fmean(score(labels[rows], part[rows]) for part in parts)

    everything = np.arange(len(labels))
    random = np.random.Generator(np.random.Philox(0))
    scores = mean(everything, a), mean(everything, b)
    drawn = np.empty(draws)
    for i in range(draws):
        rows = random.integers(0, len(labels), len(labels))
        drawn[i] = mean(rows, a) - mean(rows, b)
    low, high = np.quantile(drawn, [0.025, 0.975])
    tail = int(min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0)))
    return {
        "a": scores[0],
        "b": scores[1],
        "difference": scores[0] - scores[1],
        "half": float(high - low) / 2,
        "low": float(low),
        "high": float(high),
        "p": min(1.0, 2 * (tail + 1) / (draws + 1)),
    }


def say_comparison(result: dict[str, Any]) -> Iterator[str]:
    """The lines that `jaxmlm compare` prints."""
    for name, found in result.get("by_score", {result["main"]: result}).items():
        points = {part: 100 * found[part] for part in ("a", "b", "difference", "half")}
        word = "better" if points["difference"] > 0 else "worse" if points["difference"] < 0 else "no better"
        by = f" by {abs(points['difference']):.1f}" if points["difference"] else ""
        by += f" +- {points['half']:.1f} (95 % interval)"
        yield (
            f"{display_name(result)}, {name}: {points['a']:.1f} and {points['b']:.1f}: {word}{by}, "
            f"p = {found['p']:.2g} over {found['dev_rows']:,} dev rows"
        )
    told = "" if result["seed_p"] is None else f", p = {result['seed_p']:.2g} over the seeds"
    yield f"seeds: {result['seeds'][0]} and {result['seeds'][1]}{told}"


def _best(directory: Path) -> tuple[str, str, list[dict[str, Any]]]:
    """Task, main score and the finished lines of the best setting."""
    rows = [row for row in read_results(directory / "results.jsonl") if row["scores"] and "predictions" in row]
    if not rows:
        raise InputError(f"{directory} has no predictions of a fine-tuning: give the --workdir of `jaxmlm finetune`")
    key = summarise(rows)["summary"][0]["settings"]
    return rows[0]["task"], rows[0]["main"], [row for row in rows if row["settings"] == key]


def _of_scores(directory: Path, rows: list[dict[str, Any]], name: str) -> Predictions:
    """What each example adds to a score, as scores.tsv has it."""
    found = {}
    ids = []
    for row in rows:
        path = directory / row["predictions"] / "scores.tsv"
        if not path.is_file():
            raise InputError(f"{path} is missing: run the fine-tuning again in a new --workdir")
        with reading(path, "the scores of a fine-tuning"):
            header, *lines = read_table(path)
            ids = [line[0] for line in lines]
            # F1 of entities is not a mean over sentences: it is made of their counts.
            columns = [header.index(part) for part in Spans._fields] if name not in header else header.index(name)
            found[row["tuning_seed"]] = np.array(lines)[:, columns].astype(float)
    return Predictions(ids, [""] * len(ids), np.zeros(len(ids)), found)


def _second_label(directories: list[Path]) -> str | None:
    """The name of class 1 in the predictions of fine-tunings, as a best model has it; None if there is none."""
    found = []
    for record in (directory / "model" / "run.json" for directory in directories):
        names = read_metadata(record).get("labels", ()) if record.is_file() else ()
        found += [str(names[1])] if len(names) > 1 else []
    if len(set(found)) > 1:
        raise InputError(
            f"class 1 is {found[0]!r} in {directories[0]}, {found[1]!r} in {directories[1]}: compare the same task"
        )
    return found[0] if found else None


def _of_rows(
    directory: Path, rows: list[dict[str, Any]], main: str, classes: dict[str, int], second: str | None
) -> Predictions:
    numbers = main in ("spearman", "pearson")
    found = {}
    ids = []
    truth = []
    labels = np.zeros(0)
    positive = "1" if second is None else second  # as GLUE's tasks have it

    def values(texts: Sequence[str]) -> np.ndarray:
        if numbers:
            return np.array([float(text) for text in texts])
        if main == "f1":  # of class 1
            return np.array([int(text == positive) for text in texts])
        return np.array([classes.setdefault(text, len(classes)) for text in texts])

    for row in rows:
        path = directory / row["predictions"] / "dev.tsv"
        if not path.is_file():
            raise InputError(f"{path} is missing: run the fine-tuning again in a new --workdir")
        with reading(path, "the predictions of a fine-tuning"):
            ids, said, truth = (list(column) for column in zip(*read_table(path)[1:], strict=True))
            found[row["tuning_seed"]], labels = values(said), values(truth)
    if main == "f1" and second is None and not any(part.any() for part in (labels, *found.values())):
        raise InputError(
            f"{directory / 'model' / 'run.json'} is missing, which says what class 1 is called, and no label or "
            "prediction is '1': F1 cannot be computed; run the fine-tuning again in a new --workdir"
        )
    return Predictions(ids, truth, labels, found)
