"""What a downstream task is: the one object that fine-tuning asks, and where the rows of its examples are.

`tasks/registry.py` has the tasks by name. To add one, subclass `sentences.SentenceTask` (texts and pairs of texts with
a label or a number) or `DownstreamTask` itself, in a file of your own: docs/extending.md.
"""

import hashlib
import inspect
import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from jaxmlm.data import Tokenizer
from jaxmlm.directories import expanded
from jaxmlm.errors import InputError
from jaxmlm.fields import source_hash
from jaxmlm.models import Model
from jaxmlm.synthetic import tasks as sample
from jaxmlm.training.task import Eval, Task

SAMPLE = "sample:"
"""As `data`: the generated tasks."""
TFDS = "tfds:"
"""As `data`: TensorFlow Datasets."""
SAMPLE_TASKS = ("cola", "rte", "squad")
"""The tasks that `sample:` has."""
GENERATED = " (generated)"
"""Follows the name of what is scored on generated data."""


class TaskData(NamedTuple):
    """Where the rows of a task are: what a task's `read` gets.

    Attributes:
        data: a directory, sample: or tfds:; None if the task needs none.
        train: another training file than the task's own.
        dev: another dev file than the task's own.
        regression: whether whole numbers as labels are regression targets (of a table of one's own).

    """

    data: str | None = None
    train: str | None = None
    dev: str | None = None
    regression: bool = False


class EncodingOptions(NamedTuple):
    """How examples become rows of tokens.

    Attributes:
        length: the most tokens of a row.
        stride: tokens between the starts of two windows of a long text, in tasks that read windows.
        limit: keep so many training examples, the same for every seed and model; None: all.
        token_types: whether the encoder has token types.

    """

    length: int
    stride: int = 64
    limit: int | None = None
    token_types: bool = False


@dataclass(frozen=True)
class DownstreamTask(ABC):
    """A task to fine-tune on: how its examples are read, encoded, learned and scored. It must be hashable.

    What `read` returns is of the task's own kind, and is handed to the other methods as `examples`; what `encode`
    returns is handed to `objective`.

    Attributes:
        name: what the command line, the results and the reports call the task.

    """

    name: str

    head: ClassVar[str]
    """The head under which the encoder learns: "classify", "answer" or "tokens" (`models.with_head`)."""
    benchmark: ClassVar[str] = ""
    """The benchmark whose average counts this task, as "GLUE"."""
    has_test_sets: ClassVar[bool] = False
    """Whether `test_sets` gives the rows of a benchmark's test server."""
    predicts_files: ClassVar[bool] = False
    """Whether `unlabelled` reads a file of rows to predict."""

    @property
    def method(self) -> str:
        """The method of a loaded model that predicts as this task does."""
        return {"answer": "answer", "tokens": "tag"}.get(self.head, "classify")

    @property
    def sizes(self) -> tuple[int, int] | None:
        """Training and dev examples, for estimates of the cost; None: not known before they are read."""
        return None

    @abstractmethod
    def read(self, data: TaskData) -> Any:
        """Read the training and dev examples.

        Raises:
            InputError: a file is missing or wrong.

        """

    @abstractmethod
    def encode(self, examples: Any, tokenizer: Tokenizer, options: EncodingOptions) -> Any:
        """Encode the examples, once for all fine-tunings of a grid."""

    @abstractmethod
    def labels(self, examples: Any) -> tuple[str, ...]:
        """The names of the head's outputs, one each."""

    @abstractmethod
    def metrics(self, examples: Any) -> tuple[str, ...]:
        """The metrics that the dev evaluation gives, the main one first."""

    @abstractmethod
    def objective(self, encoded: Any, init: Callable[[Any], Model], *, batch: int, seed: int) -> Task:
        """What is trained: batches, loss and evaluations.

        The evaluation "dev" gives the metrics, and a score "degenerate" of 1 where all predictions are the same. Its
        `save` writes dev.tsv (index, prediction, label), or scores.tsv (id, and what each example adds to each score),
        which `jaxmlm compare` reads.

        Args:
            encoded: what `encode` returned.
            init: makes the model from a key.
            batch: rows of a step.
            seed: of the order of the rows.

        """

    def notes(self, examples: Any, options: EncodingOptions) -> tuple[str, ...]:
        """What of the examples is not as the task's makers have it; part of every result."""
        return ()

    def is_generated(self, data: TaskData) -> bool:
        """Whether the examples are generated ones, which share no more than their format with the task's own."""
        return False

    def result_scores(self, scores: dict[str, float]) -> dict[str, float]:
        """The scores of a result, given those of all evaluations: averages that the benchmark takes are added."""
        return scores

    def finished(self, model: Model, examples: Any) -> Model:
        """The fine-tuned model as it is saved."""
        return model

    def test_sets(self, data: TaskData) -> Mapping[str, Any]:
        """The rows that a benchmark's test server asks for, by the name of the prediction file."""
        raise InputError(f"test: {self.name} has no test server: leave out --test")

    def unlabelled(self, path: Path, examples: Any) -> Any:
        """The rows of a file to predict."""
        raise InputError(f"predict takes sentences, not {self.name}: load the model and call {self.method}")

    def prediction(self, name: str, rows: Any, tokenizer: Tokenizer, options: EncodingOptions, batch: int) -> Eval:
        """An evaluation of a saved model whose `save` writes NAME.tsv: the predictions for rows without labels."""
        raise InputError(f"predict takes sentences, not {self.name}: load the model and call {self.method}")

    def directory(self, data: TaskData) -> Path:
        """The directory that `data` names.

        Raises:
            InputError: none is named, or it is not one that this task can be read from.

        """
        if not data.data or data.data.startswith((SAMPLE, TFDS)):
            raise InputError(f"data is {data.data!r} and {self.name} is read from a directory: give --data DIRECTORY")
        return expanded(data.data)


class OfficialTask(DownstreamTask):
    """A task with official files, which are read from a directory, TensorFlow Datasets, or for some are generated."""

    def is_generated(self, data: TaskData) -> bool:
        """Whether `data` is sample:."""
        return data.data == SAMPLE

    def directory(self, data: TaskData) -> Path:
        """The directory of the official files."""
        if not data.data:
            twin = f", or --data {SAMPLE} for a generated task in its format" if self.name in SAMPLE_TASKS else ""
            raise InputError(
                f"{self.name} needs its data: give --data DIRECTORY with the official files, or --data {TFDS}{twin}"
            )
        if data.data.startswith(SAMPLE) and (data.data != SAMPLE or self.name not in SAMPLE_TASKS):
            raise InputError(
                f"data is {data.data!r} for {self.name}: {SAMPLE} alone is generated data, of "
                f"{', '.join(SAMPLE_TASKS)}; give --data DIRECTORY with the official files, or --data {TFDS}"
            )
        return directory_of(data.data)

    def from_tfds(self, data: TaskData) -> bool:
        """Whether the rows are those of TensorFlow Datasets."""
        if data.data and data.data.startswith(TFDS) and data.data != TFDS:
            raise InputError(f"data is {data.data!r}: write {TFDS} alone, the task says which data set it is")
        if data.data == TFDS and (data.train or data.dev):
            raise InputError(
                f"train and dev name files, and data is {TFDS}: leave them out, or give a directory as --data"
            )
        return data.data == TFDS


@lru_cache(maxsize=2)
def examples_of(task: DownstreamTask, data: TaskData) -> Any:
    """The examples of a task, read once."""
    return task.read(data)


def examples_sha256(examples: Any) -> str:
    """SHA-256 of all texts, labels and names in a task's examples, by which their files are known again.

    >>> examples_sha256((["a text"], np.array([1]))) == examples_sha256((["a text"], np.array([0])))
    False
    """
    return hashlib.sha256(json.dumps(examples, default=_plain, skipkeys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """What stands for a value in that hash; of an object of a user's own its class alone, as its `repr` may be new."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return type(value).__qualname__


@lru_cache(maxsize=1)
def encoded(task: DownstreamTask, data: TaskData, tokenizer: Tokenizer, options: EncodingOptions) -> Any:
    """The encoded examples of a task, encoded once for all points of a grid and all seeds."""
    return task.encode(examples_of(task, data), tokenizer, options)


def forget() -> None:
    """Read everything again: files may have changed since."""
    for remembered in (examples_of, encoded):
        remembered.cache_clear()


def generated_mark(task: DownstreamTask, data: TaskData) -> dict[str, bool]:
    """What a result says beside its scores: that the data are generated, where they are."""
    return {"generated": True} if task.is_generated(data) else {}


def generated_note(name: str) -> tuple[str, ...]:
    """The note of results on generated data in the format of a task."""
    return (f"generated data in the format of {name}: their scores are not scores of {name}",)


def limited_to(limit: int | None, examples: int, what: str) -> tuple[str, ...]:
    """The note of a limit on training examples, where there are more.

    >>> limited_to(40, 1200, "rows"), limited_to(40, 30, "rows")
    (('train: 40 of 1,200 rows (limit)',), ())
    """
    if limit is None or limit >= examples:
        return ()
    return (f"train: {limit:,} of {examples:,} {what} (limit)",)


def display_name(row: Mapping[str, Any]) -> str:
    """The task of a result as it is shown.

    >>> display_name({"task": "rte", "generated": True}), display_name({"task": "rte"})
    ('rte (generated)', 'rte')
    """
    return row["task"] + (GENERATED if row.get("generated") else "")


def directory_of(data: str) -> Path:
    """The directory that holds task data: the one named, or that of the generated tasks.

    Raises:
        InputError: TensorFlow Datasets are named, which have none.

    """
    if data.startswith(TFDS):
        raise InputError(f"{data!r} is not a directory: give one, or {SAMPLE}")
    return Path(_sample().name) if data == SAMPLE else expanded(data)


@cache
def _sample() -> tempfile.TemporaryDirectory:
    """The generated tasks, written anew by each process (0.2 s), so that a refused command leaves no file behind."""
    directory = tempfile.TemporaryDirectory(prefix="jaxmlm-sample-")
    sample.write(Path(directory.name), 0)
    return directory


def task_hash(task: DownstreamTask) -> str | None:
    """SHA-256 of the fields of a user's task and of the files that define it; None for one of the package.

    It is part of what results are found again by, so that those of an edited task are not taken for its results.
    """
    own = [kind for kind in type(task).__mro__ if kind.__module__.split(".")[0] not in ("jaxmlm", "abc", "builtins")]
    if not own:
        return None
    fields = [
        f"{name}={_source(value) if inspect.isfunction(value) else value!r}" for name, value in vars(task).items()
    ]
    return hashlib.sha256("\n".join([*fields, *map(_source, own)]).encode()).hexdigest()


def _source(part: Any) -> str:
    """The hash of the file of a class or function; of one typed in at a prompt, which has none, its name."""
    return source_hash(part).get("source") or str(part.__qualname__)
