"""The results of a study: the lines of its results.jsonl, and from them the scores of every point of the grid.

The replicate is the pre-training seed: scores of several tuning seeds are averaged first.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxmlm.runs.results import Result, read_results
from jaxmlm.runs.statistics import Series, Spread, spread
from jaxmlm.studies.labels import all_numbers, changes_encoder, format_value, label_of, label_of_control, named_values
from jaxmlm.tasks import babylm
from jaxmlm.tasks.downstream import GENERATED

TOKENS_PER_WORD = "bound/tokens_per_word"
"""The series by which tokenizers are told apart."""
PROBES = {"probe/part of speech": "part of speech", "probe/relation": "relation"}
"""The probes that stand in the first table, and their headings."""


@dataclass(frozen=True, kw_only=True)
class CellResult(Result):
    """One line of a study's results.jsonl: a result, and the cell that it is of.

    Attributes:
        cell: the cell's name.
        values: its varied values, by path.
        control: whether the encoder was not pre-trained.
        seed: the pre-training seed.
        given: of a control, whether it is the encoder from which the runs continue; None: its weights are random.

    """

    cell: str
    values: dict[str, Any]
    control: bool
    seed: int
    given: bool | None = None

    @property
    def label(self) -> str:
        """The label of the cell's point of the grid; the controls of all seeds have one label."""
        return label_of_control(self.values, bool(self.given)) if self.control else label_of(self.values)

    @property
    def tuning(self) -> str:
        """The task, and which of its fine-tunings this is."""
        return self.task + (f", tuning seed {self.tuning_seed}" if self.stage == "finetune" else "")


@dataclass(frozen=True)
class ScoreSeries:
    """The scores of all finished cells in one metric.

    Attributes:
        name: a task; "finetune", the mean over the tasks; "blimp", "blimp/field/NAME", "babylm/TASK",
            "probe/NAME" (of the last layer), "probe/NAME/layer/1" or "heldout/loss@0.15".
        metric: which score it is.
        by_label: the scores by label and pre-training seed.
        higher_is_better: whether a higher score is better.
        generated: whether the examples are generated, and not those of the benchmark with this name.

    """

    name: str
    metric: str
    by_label: Series
    higher_is_better: bool = True
    generated: bool = False

    @property
    def suffix(self) -> str:
        """What stands behind the name where a score is shown."""
        return GENERATED if self.generated else ""

    @property
    def unit(self) -> str:
        """The unit of differences: of a score that is a share, points of a hundred; of a loss, nats."""
        return "points" if self.higher_is_better else "nats"

    def shown(self, value: float, sign: str = "") -> str:
        """A score as it stands in a sentence: a share times 100 with one decimal, a loss with three.

        >>> ScoreSeries("rte", "accuracy", {}).shown(0.7153), ScoreSeries("bound", "bound", {}, False).shown(0.05, "+")
        ('71.5', '+0.050')
        """
        scale, digits = (100, 1) if self.higher_is_better else (1, 3)
        return f"{round(scale * value, digits) + 0.0:{sign}.{digits}f}"  # + 0.0 turns -0.0 into +0.0

    def spread(self, label: str) -> Spread | None:
        """Mean, standard deviation and number of a label's scores; None where there are none."""
        return spread(self.by_label.get(label, {}).values())

    def best_labels(self, labels: Iterable[str]) -> list[str]:
        """The labels with the best mean, several where they share it, whether or not it is beyond noise."""
        means = {label: found.mean for label in labels if (found := self.spread(label))}
        if not means:
            return []
        best = max(means.values()) if self.higher_is_better else min(means.values())
        return [label for label, mean in means.items() if math.isclose(mean, best, rel_tol=1e-9)]  # but for rounding


@dataclass(frozen=True)
class StudyResults:
    """The results of a study in order; made by `collect`.

    Attributes:
        results: the results, each once.
        paths: the varied paths.
        values: for each label its point of the grid, without the controls.
        controls: the same for the encoders that were not pre-trained.
        groups: labels that differ in the first path only, by the values of the others ("" where one path varies).
        tasks: the downstream tasks.
        series: the scores by name.
        missing: what is unfinished, in words.
        notes: what a reader must know of the numbers, in words.

    """

    results: list[CellResult]
    paths: tuple[str, ...]
    values: dict[str, dict[str, Any]]
    controls: dict[str, dict[str, Any]]
    groups: dict[str, list[str]]
    tasks: tuple[str, ...]
    series: dict[str, ScoreSeries]
    missing: list[str]
    notes: list[str]

    @property
    def diverged(self) -> dict[str, str]:
        """The cells whose pre-training diverged before there was a model to evaluate, and why."""
        return {one.cell: str(one.diverged) for one in self.results if one.has_no_model}

    @property
    def labels(self) -> list[str]:
        """The labels in order, without the controls."""
        return list(self.values)

    @property
    def all_labels(self) -> list[str]:
        """The labels in order, then the controls."""
        return [*self.values, *self.controls]

    def of_label(self, label: str) -> list[CellResult]:
        """The results of all cells of a label."""
        return [result for result in self.results if result.label == label]

    def control_of(self, label: str) -> str | None:
        """The control of a label: the same encoder without pre-training; None if it was not evaluated."""
        encoder = {path: value for path, value in self.values[label].items() if changes_encoder(path)}
        return next((name for name, values in self.controls.items() if values == encoder), None)

    def short_label(self, label: str) -> str:
        """The value on the first path: what tells a label from the others of its group."""
        values = self.values.get(label)
        return format_value(values[self.paths[0]]) if values else label

    @property
    def has_other_words(self) -> bool:
        """Whether encoders are compared per word: their tokenizers differ, or there is a general text."""
        found = self.series.get(TOKENS_PER_WORD)
        rates = {value for values in found.by_label.values() for value in values.values()} if found else ()
        return len(rates) > 1 or "general/bits_per_word" in self.series

    def heldout_losses(self) -> dict[float, ScoreSeries]:
        """Held-out loss by the rate at which it was measured."""
        found = self._with_prefix("heldout/loss@")
        return {float(rate): found[rate] for rate in sorted(found, key=float)}

    def blimp_fields(self) -> dict[str, ScoreSeries]:
        """BLiMP accuracy by linguistic field."""
        return self._with_prefix("blimp/field/")

    def probes(self) -> dict[str, ScoreSeries]:
        """Accuracy of the probes at the last layer."""
        return {name: one for name, one in self._with_prefix("probe/").items() if "/" not in name}

    def probe_layers(self, name: str) -> dict[int, ScoreSeries]:
        """Accuracy of a probe by layer."""
        found = {int(layer): one for layer, one in self._with_prefix(f"probe/{name}/layer/").items()}
        return dict(sorted(found.items()))

    def _with_prefix(self, prefix: str) -> dict[str, ScoreSeries]:
        return {name.removeprefix(prefix): one for name, one in self.series.items() if name.startswith(prefix)}


def read_cell_results(path: Path) -> list[CellResult]:
    """Read the results.jsonl of a study; no file has none."""
    return [CellResult.from_json(line) for line in read_results(path)]


def collect(results: Iterable[CellResult]) -> StudyResults:
    """Order the results of a study.

    Args:
        results: the lines of its results.jsonl. Of a line that was written twice the last counts. Scores that are not
            finite numbers are left out.

    Returns:
        The results; `missing` names what is unfinished, not finite or diverged.

    """
    last = {(one.cell, one.stage, one.task, one.tuning_seed): one for one in results}
    kept = list(last.values())
    points = {one.label: one.values for one in kept if not one.control}
    controls = {one.label: one.values for one in kept if one.control}
    paths = tuple(dict.fromkeys(path for point in points.values() for path in point))
    every = list(points.values())
    values = dict(sorted(points.items(), key=lambda item: _sort_key(item[1], paths, every)))
    tasks = tuple(dict.fromkeys(one.task for one in kept if one.stage == "finetune"))
    return StudyResults(
        results=kept,
        paths=paths,
        values=values,
        controls=controls,
        groups=_groups(values, paths),
        tasks=tasks,
        series=_all_series(kept, tasks),
        missing=_missing(kept),
        notes=_notes(kept),
    )


def _sort_key(point: Mapping[str, Any], paths: Sequence[str], points: list[dict[str, Any]]) -> list[float]:
    """Numbers in their order, other values in the order in which they were first seen."""
    key = []
    for path in paths:
        seen = [other.get(path) for other in points]
        key.append(float(point[path] if all_numbers(seen) else seen.index(point.get(path))))
    return key


def _groups(values: Mapping[str, Mapping[str, Any]], paths: Sequence[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for label, point in values.items():
        others = {path: point.get(path) for path in paths[1:]}
        groups[", ".join(named_values(others))].append(label)
    return dict(groups)


def _all_series(results: list[CellResult], tasks: tuple[str, ...]) -> dict[str, ScoreSeries]:
    stages = ("heldout", "bound", "general", "blimp", "probe")
    found = [series for stage in stages for series in _series_of_stage(results, stage)]
    for task in babylm.TASKS:
        of_task = [one for one in results if one.stage == "babylm" and one.task == task]
        if of_task:
            scores = _by_label(of_task, lambda one: one.scores.get(one.main or ""))
            found.append(ScoreSeries(f"babylm/{task}", str(of_task[0].main), scores))
    tuned = [one for one in results if one.stage == "finetune" and not _is_copy(one, results)]
    for task in tasks:
        of_task = [one for one in tuned if one.task == task]
        scores = _by_label(of_task, lambda one: one.scores.get(one.main or ""))
        found.append(ScoreSeries(task, str(of_task[0].main), scores, generated=_is_generated(of_task)))
    series = _comparable(
        {one.name: one for one in found if one.by_label}, {one.label for one in results if one.control}
    )
    if tasks and all(task in series for task in tasks):
        mean = _mean_over([series[task].by_label for task in tasks])
        if mean:
            generated = _is_generated(tuned)
            series["finetune"] = ScoreSeries("finetune", "mean of the main scores", mean, generated=generated)
    return series


def _is_copy(one: CellResult, results: list[CellResult]) -> bool:
    """Whether it is of an encoder as it was given, under another seed than the first: such a one is fine-tuned once."""
    return bool(one.given) and one.seed != min(other.seed for other in results if other.label == one.label)


def _comparable(series: dict[str, ScoreSeries], controls: set[str]) -> dict[str, ScoreSeries]:
    """Drop controls with a different tokenizer from per-token series; their tokens are not comparable."""
    found = series.get(TOKENS_PER_WORD)
    if found is None:
        return series
    usual = [values for label, values in found.by_label.items() if label not in controls]
    have = {value for values in usual for value in values.values()}
    others = {
        label
        for label in controls & found.by_label.keys()
        if have and not have.intersection(found.by_label[label].values())
    }
    per_token = ("heldout/", "general/bound", "bound/bound", "bound/part", "bound/curve", "bound/half")
    return {
        name: replace(one, by_label={label: values for label, values in one.by_label.items() if label not in others})
        if name.startswith(per_token)
        else one
        for name, one in series.items()
    }


def _series_of_stage(results: list[CellResult], stage: str) -> list[ScoreSeries]:
    """A series for each score that a stage gives; single sets of BLiMP are left out."""
    of_stage = [one for one in results if one.stage == stage]
    found = []
    for score in dict.fromkeys(score for one in of_stage for score in one.scores):
        if score.startswith("set/"):
            continue
        name = "blimp" if (stage, score) == ("blimp", "accuracy") else f"{stage}/{score}"
        scores = _by_label(of_stage, lambda one, score=score: one.scores.get(score))
        higher_is_better = stage in ("blimp", "probe") or score.startswith("accuracy")
        found.append(ScoreSeries(name, score, scores, higher_is_better, _is_generated(of_stage)))
    return found


def _by_label(results: Iterable[CellResult], score: Callable[[CellResult], float | None]) -> Series:
    """Finite scores by label and seed, averaged over tuning seeds."""
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in results:
        value = score(one)
        if value is not None and math.isfinite(value):
            found[one.label][one.seed].append(float(value))
    return {
        label: {seed: float(np.mean(values)) for seed, values in sorted(by_seed.items())}
        for label, by_seed in found.items()
    }


def _mean_over(tasks: list[Series]) -> Series:
    """The mean over tasks, of the seeds that have a score in each of them."""
    mean: Series = {}
    for label in dict.fromkeys(label for series in tasks for label in series):
        seeds = set.intersection(*(set(series.get(label, {})) for series in tasks))
        if seeds:
            mean[label] = {seed: float(np.mean([series[label][seed] for series in tasks])) for seed in sorted(seeds)}
    return mean


def _is_generated(results: Iterable[CellResult]) -> bool:
    return any(one.generated for one in results)


def _missing(results: list[CellResult]) -> list[str]:
    """The stages that a cell has no result of yet, and the scores that are left out."""
    have: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for one in results:
        have[one.cell].add((one.stage, one.task))
    without_model = {one.cell for one in results if one.has_no_model}
    every = dict.fromkeys((one.stage, one.task) for one in results)
    lines = []
    for cell, of_cell in {one.cell: one for one in results if one.cell not in without_model}.items():
        lacking = [
            f"{stage} {task}" if stage in ("finetune", "babylm") or " at " in task else stage
            for stage, task in every
            if (stage, task) not in have[cell] and not (of_cell.control and stage in ("pretrain", "heldout"))
        ]
        if lacking:
            lines.append(f"{cell} has no result yet for: {', '.join(lacking)}")
    for one in results:
        bad = [name for name, value in one.scores.items() if value is None or not math.isfinite(value)]
        if bad:
            lines.append(f"{one.cell}, {one.task}: not a finite number, left out: {', '.join(bad)}")
        if one.main and one.main not in one.scores:
            why = one.notes or ["no reason is given"]
            lines.append(f"{one.cell}, {one.tuning}: no {one.main}, so left out: {why[-1]}")
    return lines


def _notes(results: list[CellResult]) -> list[str]:
    """Fine-tunings on partial data, pre-trainings that diverged, and fine-tunings that learned nothing."""
    lines = []
    for one in results:
        # The last note of a fine-tuning without a score says why, which `missing` has.
        notes = one.notes or []
        lines += [f"{one.task}: {note}" for note in (notes if one.scores else notes[:-1])]
        if one.diverged:
            lines.append(f"{one.cell}: the pre-training diverged: {one.diverged}")
        if one.degenerate and one.scores:
            lines.append(f"{one.cell}, {one.tuning}: one class, or one number, for all of dev")
    return list(dict.fromkeys(lines))
