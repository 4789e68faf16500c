"""BabyLM's seven fine-tuning tasks: JSON lines in its evaluation data, and its prediction files.

As evaluation-pipeline-2025 has them (github.com/babylm, finetune): GLUE and SuperGLUE without what few learn from, dev
cut in two, MNLI and QQP with 10,000 training rows.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxmlm.errors import InputError
from jaxmlm.tasks import babylm, sentences
from jaxmlm.tasks.downstream import DownstreamTask, TaskData
from jaxmlm.tasks.file_formats import json_lines, texts_of
from jaxmlm.tasks.sentences import EncodedSentences, SentenceTask
from jaxmlm.tasks.table import Examples, Sets, Table
from jaxmlm.training.task import Eval, Task

DIRECTORY = "glue_filtered"
_TEXTS = ("first", "second")


@dataclass(frozen=True)
class BabyLMTask(SentenceTask):
    """One of the tasks: two texts, put together out of fields of a JSON object, and a class number.

    Attributes:
        name: babylm- and what BabyLM calls the task.
        table: the classes and the metrics.
        first: fields of the first text.
        second: fields of the second text.
        template: how the fields of the first text are put together.
        rows: official numbers of training and dev rows; None: not known.

    """

    first: tuple[str, ...] = ()
    second: tuple[str, ...] = ()
    template: str = "{}"
    rows: tuple[int | None, int] = (None, 0)

    benchmark = "BabyLM"

    @property
    def sizes(self) -> tuple[int, int] | None:
        """The official numbers of training and dev rows."""
        train, dev = self.rows
        return None if train is None else (train, dev)

    @property
    def short(self) -> str:
        """What BabyLM calls the task."""
        return self.name.removeprefix("babylm-")

    def read(self, data: TaskData) -> Sets:
        """The rows of TASK.train.jsonl and TASK.valid.jsonl in BabyLM's evaluation data."""
        directory = babylm.root_of(self.directory(data)) / DIRECTORY
        found = []
        notes = []
        for part, given, official in zip(("train", "valid"), (data.train, data.dev), self.rows, strict=True):
            path = directory / (given or f"{self.short}.{part}.jsonl")
            if not path.is_file():
                raise InputError(self._missing(path))
            found.append(self._rows(path))
            if official is not None and len(found[-1]) != official:
                notes.append(f"{part}: {len(found[-1]):,} rows of {path.name}, officially {official:,}")
        return Sets(found[0], {"dev": found[1]}, tuple(notes))

    def _missing(self, path: Path) -> str:
        """What is said of a file that is not there: small copies of the data lack the training rows of two tasks."""
        others = [name for name in TASKS if (path.parent / f"{name.removeprefix('babylm-')}.train.jsonl").is_file()]
        named = f", or name the tasks that have theirs: --task {','.join(others)}" if others else ""
        return f"{path} is missing: get it with BabyLM's evaluation data{named}"

    def _rows(self, path: Path) -> Examples:
        """The rows of a file; InputError names the line of what is wrong."""
        classes = len(self.table.labels) if self.table else 0

        def read() -> Iterator[Mapping[str, Any]]:
            for where, item in json_lines(path):
                fields = texts_of(item, (*self.first, *self.second), where, f"lines of {self.short}")
                label = item.get("label")
                if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < classes:
                    raise InputError(f"{where}: label is {label!r}, expected a whole number from 0 to {classes - 1}")
                text = self.template.format(*fields[: len(self.first)])
                yield {"first": text, "second": " ".join(fields[len(self.first) :]), "label": label}

        return self.examples(read())

    def objective(self, encoded: EncodedSentences, init: Callable[[Any], Any], *, batch: int, seed: int) -> Task:
        """Cross-entropy of the class; the dev evaluation also writes predictions.json, as BabyLM takes them."""
        task = sentences.objective(encoded, init, batch=batch, seed=seed)
        return task._replace(evals={name: self._saving(made) for name, made in task.evals.items()})

    def _saving(self, made: Eval) -> Eval:
        def save(outputs: dict[str, np.ndarray], directory: Path) -> None:
            if made.save is not None:
                made.save(outputs, directory)
            chosen = outputs["predictions"][np.argsort(outputs["row"])].tolist()
            lines = [{"id": f"{self.short}_{number}", "pred": int(one)} for number, one in enumerate(chosen)]
            text = json.dumps({self.short: {"predictions": lines}})
            (directory / "predictions.json").write_text(text, encoding="utf-8")

        return made._replace(save=save)


def _task(
    name: str,
    first: str,
    second: str,
    rows: tuple[int | None, int],
    template: str = "{}",
    labels: str = "0 1",
    metrics: tuple[str, ...] = ("accuracy", "f1", "matthews"),
) -> BabyLMTask:
    table = Table(f"BabyLM {name}", _TEXTS, "label", tuple(labels.split()), metrics=metrics)
    return BabyLMTask(f"babylm-{name}", table, tuple(first.split()), tuple(second.split()), template, rows)


_F1 = ("f1", "accuracy", "matthews")
TASKS: dict[str, DownstreamTask] = {
    task.name: task
    for task in (
        _task("boolq", "question", "passage", (None, 1635)),
        _task("mnli", "premise", "hypothesis", (10_000, 4908), labels="0 1 2", metrics=("accuracy",)),
        _task("mrpc", "sentence1", "sentence2", (3668, 204), metrics=_F1),
        _task("multirc", "question answer", "paragraph", (None, 2424), "Question: {} Answer: {}"),
        _task("qqp", "question1", "question2", (10_000, 20_215), metrics=_F1),
        _task("rte", "sentence1", "sentence2", (2490, 139)),
        _task("wsc", "span2_text span1_text", "text", (554, 52), 'Does "{}" refer to "{}" in this passage?'),
    )
}
"""The tasks by name."""
