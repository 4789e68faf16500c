"""The data of a task by its name: read and encoded once for all points of a grid and all seeds.

`data` is a folder of the official files, sample: (the generated tasks), or tfds: (TensorFlow Datasets).
"""

import tempfile
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from jaxmlm.data import Tokenizer
from jaxmlm.errors import InputError
from jaxmlm.samples import tasks as sample
from jaxmlm.tasks import from_tfds, glue, sentences, squad, table

SAMPLE = "sample:"
"""Named as a folder of task data: the generated one."""
TFDS = "tfds:"
"""Named as a folder of task data: TensorFlow Datasets."""


class Source(NamedTuple):
    """A task and where its rows are: `train` and `dev` are other files than the official ones, `numbers` for one's own.

    `data` is a folder, sample: or tfds:.
    """

    task: str
    data: str = SAMPLE
    train: str | None = None
    dev: str | None = None
    numbers: bool = False

    @property
    def is_squad(self) -> bool:
        """Whether questions are asked, not sentences judged."""
        return self.task in squad.TASKS


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


def check(source: Source) -> None:
    """Read the task's rows, so that what is wrong with them shows before any training."""
    if source.data.startswith(TFDS) and source.data != TFDS:
        raise InputError(f"data is {source.data!r}: write {TFDS} alone, the task says which data set it is")
    if source.data == TFDS and (source.train or source.dev) and source.task in (*glue.TASKS, *squad.TASKS):
        raise InputError(f"train and dev name files, and data is {TFDS}: leave them out, or give a folder as --data")
    (squads_of if source.is_squad else sets_of)(source)


@lru_cache(maxsize=1)
def sets_of(source: Source) -> table.Sets:
    """The rows of a task of sentences."""
    if source.task not in glue.TASKS:
        return table.own(Path(source.task).expanduser(), source.dev, source.numbers)
    if source.data == TFDS:
        return from_tfds.sets(source.task)
    found = glue.sets(glue.TASKS[source.task], folder_of(source.data), source.train, source.dev)
    return found._replace(notes=()) if source.data == SAMPLE else found


@lru_cache(maxsize=1)
def squads_of(source: Source) -> tuple[tuple[squad.Squad, squad.Squad], tuple[str, ...]]:
    """The train and the dev questions of a SQuAD, and in notes what of them is not official."""
    if source.data == TFDS:
        return from_tfds.squads(source.task), ()
    files = squad.files_in(folder_of(source.data), source.task, source.train, source.dev)
    train, dev = (squad.read(file, squad.TASKS[source.task].unanswerable) for file in files)
    return (train, dev), () if source.data == SAMPLE else tuple(squad.notes(files, source.task))


def tests_of(source: Source) -> dict[str, table.Rows]:
    """The rows that GLUE's test server asks of a task, by the name of the prediction file."""
    if source.data == TFDS:
        return from_tfds.tests(source.task)
    return glue.tests(glue.TASKS[source.task], folder_of(source.data))


@lru_cache(maxsize=1)
def encoded(
    source: Source, tokenizer: Tokenizer, length: int, limit: int | None, types: bool
) -> tuple[sentences.Prepared, tuple[str, ...]]:
    """The encoded rows of a task of sentences, and notes on what is not whole."""
    sets = sets_of(source)
    data = sentences.prepare(sets, tokenizer, length, limit, types)
    few = len(data.train.rows) < len(sets.train)
    limited = (f"train: {len(data.train.rows):,} of {len(sets.train):,} rows (limit)",) if few else ()
    return data, (*sets.notes, *limited)


@lru_cache(maxsize=1)
def windowed(
    source: Source, tokenizer: Tokenizer, length: int, stride: int, limit: int | None, types: bool
) -> tuple[squad.Prepared, tuple[str, ...]]:
    """The windows of a SQuAD, and notes on what is not whole."""
    squads, notes = squads_of(source)
    limited = (f"train: {limit:,} questions (limit)",) if limit else ()
    return squad.prepare(squads, tokenizer, length, stride, limit, source.task, types), (*notes, *limited)


def unlabelled(path: str | Path, of: table.Table) -> table.Rows:
    """The rows of a file to predict: the columns of the task's texts, a label or none."""
    path = Path(path).expanduser()
    return table.read(replace(of, header=()), table.fields_of(path), path, labelled=False)


def forget() -> None:
    """Read everything again: files may have changed since."""
    for remembered in (sets_of, squads_of, encoded, windowed):
        remembered.cache_clear()
