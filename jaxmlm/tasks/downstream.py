"""The data of a task by its name: read and encoded once for all points of a grid and all seeds.

`data` is a folder of the official files, sample: (the generated tasks), or tfds: (TensorFlow Datasets).
"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from jaxmlm.data import Tokenizer
from jaxmlm.errors import InputError
from jaxmlm.synthetic import tasks as sample
from jaxmlm.tasks import from_tfds, glue, sentences, squad, table

SAMPLE = "sample:"
"""Named as a folder of task data: the generated one."""
TFDS = "tfds:"
"""Named as a folder of task data: TensorFlow Datasets."""
TWINS = ("cola", "rte", "squad")
"""The tasks that sample: has."""
GENERATED = " (generated)"
"""Stands behind the name of what is scored on generated data."""


class TaskData(NamedTuple):
    """A task and where its rows are.

    `train` and `dev` are other files than the official ones; `regression` is for a table of one's own.

    `data` is a folder, sample: or tfds:; a table of one's own has none.
    """

    task: str
    data: str | None = None
    train: str | None = None
    dev: str | None = None
    regression: bool = False

    @property
    def is_squad(self) -> bool:
        """Whether questions are asked, not sentences judged."""
        return self.task in squad.TASKS

    @property
    def generated(self) -> bool:
        """Whether the rows are generated ones, which share no more than their format with the task's own."""
        return self.data == SAMPLE and (self.is_squad or self.task in glue.TASKS)

    @property
    def mark(self) -> dict[str, bool]:
        """What a line of results says beside its scores: that the data are generated, where they are."""
        return {"generated": True} if self.generated else {}

    @property
    def folder(self) -> Path:
        """The folder of the official files; InputError if none is named."""
        if not self.data:
            twin = f", or --data {SAMPLE} for a generated task in its format" if self.task in TWINS else ""
            raise InputError(
                f"{self.task} needs its data: give --data FOLDER with the official files, or --data {TFDS}{twin}"
            )
        if self.data.startswith(SAMPLE) and (self.data != SAMPLE or self.task not in TWINS):
            raise InputError(
                f"data is {self.data!r} for {self.task}: {SAMPLE} alone is generated data, of {', '.join(TWINS)}; "
                f"give --data FOLDER with the official files, or --data {TFDS}"
            )
        return folder_of(self.data)


def called(row: Mapping[str, Any]) -> str:
    """The task of a line of results as it is shown.

    >>> called({"task": "rte", "generated": True}), called({"task": "rte"})
    ('rte (generated)', 'rte')
    """
    return row["task"] + (GENERATED if row.get("generated") else "")


def folder_of(data: str) -> Path:
    """The folder of task data."""
    if data.startswith(TFDS):
        raise InputError(f"{data!r} is no folder: give one, or {SAMPLE}")
    return Path(_sample().name) if data == SAMPLE else Path(data).expanduser()


@cache
def _sample() -> tempfile.TemporaryDirectory:
    """The generated tasks, written anew by each process (0.2 s), so that a refused command leaves no file behind."""
    folder = tempfile.TemporaryDirectory(prefix="jaxmlm-sample-")
    sample.write(Path(folder.name), 0)
    return folder


def check(source: TaskData) -> None:
    """Read the task's rows, so that what is wrong with them shows before any training."""
    official = source.task in (*glue.TASKS, *squad.TASKS)
    if source.data and source.data.startswith(TFDS) and source.data != TFDS:
        raise InputError(f"data is {source.data!r}: write {TFDS} alone, the task says which data set it is")
    if source.data == TFDS and (source.train or source.dev) and official:
        raise InputError(f"train and dev name files, and data is {TFDS}: leave them out, or give a folder as --data")
    (squads_of if source.is_squad else sets_of)(source)


@lru_cache(maxsize=1)
def sets_of(source: TaskData) -> table.Sets:
    """The rows of a task of sentences."""
    if source.task not in glue.TASKS:
        return table.own(Path(source.task).expanduser(), source.dev, source.regression)
    if source.data == TFDS:
        return from_tfds.sets(source.task)
    found = glue.sets(glue.TASKS[source.task], source.folder, source.train, source.dev)
    return found._replace(notes=_generated(found.table.name)) if source.generated else found


@lru_cache(maxsize=1)
def squads_of(source: TaskData) -> tuple[tuple[squad.Squad, squad.Squad], tuple[str, ...]]:
    """The train and the dev questions of a SQuAD, and in notes what of them is not official."""
    if source.data == TFDS:
        return from_tfds.squads(source.task), ()
    files = squad.files_in(source.folder, source.task, source.train, source.dev)
    train, dev = (squad.read(file, squad.TASKS[source.task].unanswerable) for file in files)
    if source.generated:
        return (train, dev), _generated("SQuAD")
    mended = (
        f"{name}: texts of {file.name} with half of a surrogate pair, which is read as U+FFFD: {part.mended:,}"
        for name, part, file in zip(("train", "dev"), (train, dev), files, strict=True)
        if part.mended
    )
    return (train, dev), (*squad.notes(files, source.task), *mended)


def _generated(name: str) -> tuple[str, ...]:
    return (f"generated data in the format of {name}: their scores are not scores of {name}",)


def tests_of(source: TaskData) -> dict[str, table.Examples]:
    """The rows that GLUE's test server asks of a task, by the name of the prediction file."""
    if source.data == TFDS:
        return from_tfds.tests(source.task)
    return glue.tests(glue.TASKS[source.task], source.folder)


@lru_cache(maxsize=1)
def encoded(
    source: TaskData, tokenizer: Tokenizer, length: int, limit: int | None, types: bool
) -> tuple[sentences.EncodedSentences, tuple[str, ...]]:
    """The encoded rows of a task of sentences, and notes on what is not whole."""
    sets = sets_of(source)
    data = sentences.prepare(sets, tokenizer, length, limit, types)
    few = len(data.train.rows) < len(sets.train)
    limited = (f"train: {len(data.train.rows):,} of {len(sets.train):,} rows (limit)",) if few else ()
    return data, (*sets.notes, *limited)


@lru_cache(maxsize=1)
def windowed(
    source: TaskData, tokenizer: Tokenizer, length: int, stride: int, limit: int | None, types: bool
) -> tuple[squad.EncodedSquad, tuple[str, ...]]:
    """The windows of a SQuAD, and notes on what is not whole."""
    squads, notes = squads_of(source)
    limited = (f"train: {limit:,} questions (limit)",) if limit else ()
    return squad.prepare(squads, tokenizer, length, stride, limit, source.task, types), (*notes, *limited)


def unlabelled(path: str | Path, of: table.Table) -> table.Examples:
    """The rows of a file to predict: the columns of the task's texts, a label or none."""
    path = Path(path).expanduser()
    return table.read(replace(of, header=()), table.fields_of(path), path, labelled=False)


def forget() -> None:
    """Read everything again: files may have changed since."""
    for remembered in (sets_of, squads_of, encoded, windowed):
        remembered.cache_clear()
