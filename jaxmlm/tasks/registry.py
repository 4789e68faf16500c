"""The downstream tasks by name: GLUE, BabyLM, SQuAD, tagging, a user's tables, and tasks that a user registers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxmlm.data import Tokenizer
from jaxmlm.directories import expanded
from jaxmlm.errors import InputError
from jaxmlm.tasks import babylm_finetuning, from_tfds, glue, squad, table, tagging
from jaxmlm.tasks.downstream import DownstreamTask, EncodingOptions, OfficialTask, TaskData, generated_note, limited_to
from jaxmlm.tasks.sentences import SentenceTask
from jaxmlm.tasks.table import Examples, Sets
from jaxmlm.training.task import Task
from jaxmlm.user_code import find_object
from jaxmlm.wording import hint


@dataclass(frozen=True)
class GlueTask(OfficialTask, SentenceTask):
    """A task of GLUE: its table, and where its official files are."""

    files: glue.Glue = glue.TASKS["cola"]

    benchmark = "GLUE"
    has_test_sets = True

    @property
    def sizes(self) -> tuple[int, int]:
        """The official numbers of training and dev rows."""
        return self.files.rows

    def read(self, data: TaskData) -> Sets:
        """The rows of the official files, or of TensorFlow Datasets."""
        if self.from_tfds(data):
            return from_tfds.sets(self.name)
        found = glue.sets(self.files, self.directory(data), data.train, data.dev)
        return found._replace(notes=generated_note(found.table.name)) if self.is_generated(data) else found

    def test_sets(self, data: TaskData) -> Mapping[str, Examples]:
        """The rows that GLUE's test server asks for, by the name of the prediction file."""
        return from_tfds.tests(self.name) if self.from_tfds(data) else glue.tests(self.files, self.directory(data))

    def result_scores(self, scores: dict[str, float]) -> dict[str, float]:
        """The scores, and for MNLI the mean of its two dev sets, as GLUE counts it."""
        if "mm/accuracy" not in scores:
            return scores
        return scores | {"average": (scores["accuracy"] + scores["mm/accuracy"]) / 2}


@dataclass(frozen=True)
class TableTask(SentenceTask):
    """A .csv or .tsv file of the user's: columns text, label, perhaps text_b and id. Its name is its path."""

    def read(self, data: TaskData) -> Sets:
        """The rows of the file; the dev rows of another file, or a tenth."""
        if data.train:
            raise InputError(
                f"train is {data.train!r}, and the training rows are those of {self.name}: leave out --train"
            )
        return table.own(expanded(self.name), data.dev, data.regression)


SquadPair = tuple[tuple[squad.Squad, squad.Squad], tuple[str, ...]]
"""The training and the dev questions of a SQuAD, and in notes what of them is not official."""


@dataclass(frozen=True)
class SquadTask(OfficialTask):
    """SQuAD v1.1 or v2.0: answers to questions are spans of a paragraph."""

    version: squad.Version = squad.TASKS["squad"]

    head = "answer"

    @property
    def sizes(self) -> tuple[int, int]:
        """The official numbers of training and dev questions."""
        return self.version.questions

    def read(self, data: TaskData) -> SquadPair:
        """The questions of the official files, or of TensorFlow Datasets."""
        if self.from_tfds(data):
            return from_tfds.squads(self.name), ()
        files = squad.files_in(self.directory(data), self.name, data.train, data.dev)
        train, dev = (squad.read(file, self.version.unanswerable) for file in files)
        if self.is_generated(data):
            return (train, dev), generated_note("SQuAD")
        mended = (
            f"{name}: texts of {file.name} with half of a surrogate pair, which is read as U+FFFD: {part.mended:,}"
            for name, part, file in zip(("train", "dev"), (train, dev), files, strict=True)
            if part.mended
        )
        return (train, dev), (*squad.notes(files, self.name), *mended)

    def labels(self, examples: SquadPair) -> tuple[str, ...]:
        """Start and end of the answer."""
        return ("start", "end")

    def metrics(self, examples: SquadPair) -> tuple[str, ...]:
        """The main metric of this version alone: F1, of v2.0 at the threshold that suits the dev set best."""
        return (self.version.main,)

    def notes(self, examples: SquadPair, options: EncodingOptions) -> tuple[str, ...]:
        """What is not official, and the limit on training questions."""
        return (*examples[1], *limited_to(options.limit, len(examples[0][0].questions), "questions"))

    def encode(self, examples: SquadPair, tokenizer: Tokenizer, options: EncodingOptions) -> squad.EncodedSquad:
        """Cut the questions into windows."""
        length, stride, limit, token_types = options
        return squad.encode(examples[0], tokenizer, length, stride, limit, self.name, token_types)

    def objective(self, encoded: squad.EncodedSquad, init: Callable[[Any], Any], *, batch: int, seed: int) -> Task:
        """Cross-entropy of the first and the last token of the answer."""
        return squad.objective(encoded, init, batch=batch, seed=seed)


TASKS: dict[str, DownstreamTask] = {
    **{name: GlueTask(name, files.table, files) for name, files in glue.TASKS.items()},
    **{name: SquadTask(name, version) for name, version in squad.TASKS.items()},
    **babylm_finetuning.TASKS,
    **tagging.TASKS,
}
"""The tasks by name; `register_task` adds to them."""
BENCHMARKS = {"glue": "GLUE", "babylm": "BabyLM"}
"""What the command line calls all tasks of a benchmark."""
_BUILT_IN = frozenset(TASKS)


def register_task(task: Any) -> DownstreamTask:
    """Make a task known by its name, as in `Finetune("boolq")`; of two of one name the later one counts.

    Args:
        task: an instance of a subclass of `SentenceTask` or `DownstreamTask`, a frozen dataclass (docs/extending.md).

    Returns:
        The task.

    Raises:
        InputError: it is not a task, cannot be hashed, or has the name of one of the package.

    """
    if not isinstance(task, DownstreamTask):
        raise InputError(
            f"task is a {type(task).__name__}: give the name of a task, or an instance of a subclass of SentenceTask "
            "or DownstreamTask"
        )
    try:
        hash(task)
    except TypeError as error:
        raise InputError(f"task {task.name}: {error}: make {type(task).__name__} a frozen dataclass") from error
    if task.name in _BUILT_IN and task != TASKS[task.name]:
        raise InputError(f"task {task.name!r} is one of jaxmlm's own: give yours another name")
    TASKS[task.name] = task
    return task


def find_task(name: str | DownstreamTask) -> DownstreamTask:
    """The task of a name; a table or a task in a Python file by its path.

    Args:
        name: a name in `TASKS`, the path of a .csv or .tsv, or FILE.py:NAME, a task that this file defines as NAME.

    Raises:
        InputError: there is no such task.

    >>> find_task("rte").benchmark, find_task("my.csv").head
    ('GLUE', 'classify')
    """
    if isinstance(name, DownstreamTask):
        return register_task(name)
    if name in TASKS:
        return TASKS[name]
    if table.is_table(name):
        return TableTask(name)
    file, colon, _ = name.rpartition(":")
    if colon and file.endswith(".py"):
        return register_task(find_object(name, "--task: a task"))
    raise InputError(_no_task(name))


def benchmark_tasks(benchmark: str) -> list[str]:
    """The tasks that a benchmark takes an average of, in its order.

    >>> benchmark_tasks("GLUE")[:2], len(benchmark_tasks("GLUE"))
    (['cola', 'sst2'], 9)
    """
    return [name for name, task in TASKS.items() if task.benchmark == benchmark]


def _no_task(name: str) -> str:
    if expanded(name).is_file() or "/" in name or Path(name).suffix[1:].isalpha():
        return f"{name} is not a table that can be read: {table.FORMATS}; or FILE.py:NAME, a task of your own"
    return (
        f"no task {name!r}{hint(name.lower(), TASKS)}; there are {', '.join(TASKS)}, and tables: {table.FORMATS}; a "
        "task of your own is FILE.py:NAME"
    )
