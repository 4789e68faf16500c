"""The configuration of a fine-tuning: what a user sets, the grid that it stands for, what its results are found by."""

import itertools
import json
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, NamedTuple

import tyro

from jaxmlm.checks import (
    COUNT,
    NATURAL,
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_SHARE,
    SHARE,
    TINY,
    Range,
    check_choices,
    check_numbers,
    integers,
)
from jaxmlm.errors import InputError
from jaxmlm.fields import describe
from jaxmlm.models import EncoderConfig
from jaxmlm.tasks.downstream import DownstreamTask, EncodingOptions, TaskData, generated_mark, task_hash
from jaxmlm.tasks.registry import benchmark_tasks, find_task
from jaxmlm.training import AdamW, Optim
from jaxmlm.wording import hint

_ALWAYS_NAMED = ("data", "learning_rate", "epochs", "batch", "length", "stride", "warmup", "weight_decay", "limit")
"""The settings that every result names; any other is named where it is not at its default."""
_NO_SETTING = ("task", "seeds", "recipe", "workdir", "test", "predict", "intermediate_task")

_EPOCHS = Range(TINY, 10_000.0, "be above 0 and at most 10,000")

TaskOption = Annotated[
    str | DownstreamTask,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="NAME",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: isinstance(value, str | DownstreamTask),
        str_from_instance=lambda value: [str(value)],
    ),
]
"""A task by its name on the command line, and in Python also the task itself."""


class Point(NamedTuple):
    """One point of a grid."""

    learning_rate: float
    batch: int
    epochs: float


def values_of(value: Any) -> tuple[Any, ...]:
    """The values of a field that may be one value or several.

    >>> values_of(16), values_of((16, 32))
    ((16,), (16, 32))
    """
    return value if isinstance(value, tuple) else (value,)


@dataclass(frozen=True)
class Finetune:
    """Fine-tuning on one task; several learning rates, batches or epochs are a grid.

    >>> len(Finetune("rte", learning_rate=(1e-5, 2e-5), batch=(16, 32)).grid)
    4
    """

    task: TaskOption = "cola"
    """Task to fine-tune on: cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli, squad, squad2, ner, upos, a .csv or
    .tsv file (columns text, label, perhaps text_b), babylm-rte and others of BabyLM, or FILE.py:NAME, a task of your
    own. On the command line also glue or babylm, all of it, or several as rte,mrpc: a table and the average."""
    data: str | None = None
    """Directory of the official files or zips (glue_data or the task's own; of BabyLM's tasks evaluation_data), or
    of tagged sentences (ner) or a treebank (upos), which every task but a table needs; tfds: reads TensorFlow Datasets'
    copy, sample: a generated cola, rte or squad, whose scores are called generated."""
    train: str | None = None
    """Training file to use instead of the official one; results say so."""
    dev: str | None = None
    """Dev file to use instead of the official one; of a table of your own, the dev file (default: a random tenth)."""
    regression: bool = False
    """Treat whole-number labels of a table of your own as regression targets."""
    recipe: str = ""
    """Published recipe whose grid to start from: paper, roberta, 24hbert or mosaicbert, for BabyLM's tasks babylm, for
    SQuAD paper, bert, run_qa or spanbert; options given next to it win."""
    intermediate_task: str | None = None
    """Task to fine-tune on first; the best model of it is then fine-tuned on the task (mnli for rte, mrpc and stsb)."""
    learning_rate: float | tuple[float, ...] = 5e-4
    """Peak learning rate, or several to try."""
    epochs: float | tuple[float, ...] = 3.0
    """Passes over the training examples, or several numbers to try."""
    batch: int | tuple[int, ...] = 16
    """Batch size in rows, or several to try."""
    length: int = 128
    """Maximum tokens of an input: longer ones are truncated (sentences) or become overlapping windows (SQuAD)."""
    stride: int = 64
    """Tokens between the starts of two windows of a SQuAD paragraph."""
    warmup: float = 0.06
    """Share of the steps in which the learning rate rises to its peak."""
    weight_decay: float = 0.01
    """Weight decay, decoupled as in AdamW."""
    clip: float | None = None
    """Maximum global norm of the gradients, to which larger ones are scaled down; None: no clipping."""
    layer_decay: float = 1.0
    """Layer-wise learning-rate decay: multiplier per layer, from the top down."""
    pool: Literal["first", "mean"] | None = None
    """What a classifier of sentences reads: the first token, or the mean over all; None: as the encoder's model.pool
    says."""
    select: Literal["last", "best"] = "last"
    """State of a fine-tuning that is scored: the last one, or the best on dev of those after each epoch."""
    limit: int | None = None
    """Number of training examples to use, the same ones in every run; None: all."""
    seeds: tuple[int, ...] = (0,)
    """Tuning seeds, one fine-tuning for each: the new head, the order of the examples, dropout."""
    workdir: str | None = None
    """Directory for results, predictions and the best model; None: nothing is written."""
    test: bool = False
    """Write the prediction files for GLUE's test server, by the best model."""
    predict: str | None = None
    """A .csv or .tsv file with the task's text columns and no labels (ner, upos: a file of words), for whose rows the
    best model's predictions are written."""

    def __post_init__(self) -> None:
        check_choices(self, "finetune: ")
        check_numbers(self, "finetune: ", learning_rate=POSITIVE, epochs=_EPOCHS, warmup=SHARE, clip=POSITIVE)
        check_numbers(self, "finetune: ", weight_decay=NOT_NEGATIVE, layer_decay=POSITIVE_SHARE, seeds=NATURAL)
        check_numbers(self, "finetune: ", batch=COUNT, length=integers(8), stride=COUNT, limit=COUNT)
        if self.workdir == "":
            raise InputError("finetune: workdir is empty: name a directory, or leave it out")
        task = find_task(self.task)
        if task.name != self.task:  # a task of the user's is known by its name from here on
            object.__setattr__(self, "task", task.name)
        glue = benchmark_tasks("GLUE")
        if self.intermediate_task is not None and self.intermediate_task not in glue:
            raise InputError(
                f"intermediate_task: no task {self.intermediate_task!r}{hint(self.intermediate_task, glue)}"
            )
        wanting = next((name for name in ("intermediate_task", "test", "predict") if getattr(self, name)), None)
        if wanting and self.workdir is None:
            raise InputError(f"{wanting} needs a directory for models: give --workdir DIRECTORY")
        if self.predict and not task.predicts_files:
            raise InputError(f"predict takes sentences, not {self.task}: load the model and call {task.method}")
        if self.test and not task.has_test_sets:
            raise InputError(f"test: GLUE's server takes {', '.join(glue)}, not {self.task}: leave out --test")
        learning_rates = values_of(self.learning_rate)
        batches = values_of(self.batch)
        epochs = values_of(self.epochs)
        if not (self.seeds and learning_rates and batches and epochs):
            raise InputError("finetune: give at least one learning rate, batch, number of epochs and seed")
        for learning_rate in learning_rates:
            self.optim(learning_rate)

    def optim(self, learning_rate: float) -> Optim:
        """AdamW and its schedule for one learning rate of the grid."""
        return Optim(
            learning_rate,
            self.warmup,
            AdamW(weight_decay=self.weight_decay),
            clip=self.clip,
            layer_decay=self.layer_decay,
        )

    def encoder(self, given: EncoderConfig) -> EncoderConfig:
        """The configuration of an encoder under the new head."""
        return replace(given, pool=self.pool) if self.pool else given

    @property
    def task_name(self) -> str:
        """The name of the task."""
        return str(self.task)

    @property
    def downstream(self) -> DownstreamTask:
        """The task itself."""
        return find_task(self.task)

    @property
    def task_data(self) -> TaskData:
        """Where the examples of the task are."""
        return TaskData(self.data, self.train, self.dev, self.regression)

    @property
    def mark(self) -> dict[str, bool]:
        """What a result says next to its scores where the data are generated."""
        return generated_mark(self.downstream, self.task_data)

    def encoding(self, token_types: bool) -> EncodingOptions:
        """How examples become rows of tokens for an encoder with or without token types."""
        return EncodingOptions(self.length, self.stride, self.limit, token_types)

    @property
    def grid(self) -> list["Finetune"]:
        """Every combination of the learning rates, batches and epochs, one value of each."""
        axes = (values_of(self.learning_rate), values_of(self.batch), values_of(self.epochs))
        return [replace(self, learning_rate=r, batch=b, epochs=e) for r, b, e in itertools.product(*axes)]

    @property
    def point(self) -> Point:
        """The point of a grid of one.

        Raises:
            InputError: the grid has several.

        """
        axes = (values_of(self.learning_rate), values_of(self.batch), values_of(self.epochs))
        points = [Point(*values) for values in itertools.product(*axes)]
        if len(points) != 1:
            raise InputError(f"{self.task}: {len(points)} combinations of learning rate, batch and epochs: give one")
        return points[0]


def settings(config: Finetune) -> str:
    """What a result was made with, next to its task and seed, as JSON: results are found again by it."""
    defaults = {field.name: field.default for field in fields(config)}
    named = {key: value for key, value in describe(config).items() if key != "class" and key not in _NO_SETTING}
    kept = {key: value for key, value in named.items() if key in _ALWAYS_NAMED or value != describe(defaults[key])}
    if (source := task_hash(config.downstream)) is not None:
        kept["task_source"] = source
    return json.dumps(kept, sort_keys=True)
