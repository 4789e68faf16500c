"""A checkpoint that chooses between sentences: BLiMP's minimal pairs, and BabyLM's tasks. Nothing of it is trained."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax

from jaxmlm.checks import COUNT, check_numbers
from jaxmlm.directories import expanded
from jaxmlm.errors import InputError
from jaxmlm.parallel import hosts
from jaxmlm.runs.loading import LoadedModel, longest_input
from jaxmlm.runs.results import Result
from jaxmlm.tasks import babylm, blimp
from jaxmlm.tasks.downstream import SAMPLE, directory_of, examples_sha256
from jaxmlm.training import Batch, Eval, Log
from jaxmlm.training import evaluate as run_eval


@dataclass(frozen=True)
class BabyLM:
    """One of BabyLM's zero-shot tasks."""

    directory: str
    """Directory of BabyLM's evaluation data."""
    task: str
    """Name of the task, as in `tasks.babylm.TASKS`."""
    fast: bool = False
    """Whether to take the small sets."""
    batch: int = 256
    """Batch size: masked copies in one pass of the model."""
    pll_word: bool = False
    """Whether to mask, with a token, those of its word that follow it."""


@dataclass(frozen=True)
class ZeroShot:
    """What the cells of a study are evaluated on without fine-tuning: minimal pairs and BabyLM's zero-shot tasks."""

    blimp: str | None = SAMPLE
    """Directory of the BLiMP sets; sample: reads generated ones, None: there are none."""
    pairs: int | None = 200
    """Minimal pairs to take from each set."""
    batch: int = 256
    """Batch size: masked copies in one pass of the model."""
    babylm: str | None = None
    """Directory of BabyLM's evaluation data, for its zero-shot tasks: all their rows, scored as its pipeline does."""
    fast: bool = False
    """Whether to take BabyLM's small sets."""
    babylm_tasks: tuple[str, ...] = ()
    """BabyLM's tasks to take, as blimp and supplement; none named: all that are there."""
    pll_word: bool = False
    """Whether to mask, with a token, those of its word that follow it and would give it away (Kauf and Ivanova 2023,
    arXiv 2305.10588)."""

    def __post_init__(self) -> None:
        check_numbers(self, "zero_shot.", pairs=COUNT, batch=COUNT)

    @property
    def tasks(self) -> list[BabyLM]:
        """BabyLM's tasks that are there, or those that are named.

        Raises:
            InputError: the directory is not BabyLM's, or lacks a task.

        """
        if self.babylm is None:
            return []
        names = babylm.tasks_in(self.babylm, self.fast, self.babylm_tasks)
        return [BabyLM(self.babylm, name, self.fast, self.batch, self.pll_word) for name in names]

    @property
    def parts(self) -> list[tuple[str, str, "ZeroShot | BabyLM"]]:
        """Single evaluations, each with its result's stage and task; their settings identify the results."""
        pairs = replace(self, babylm=None, fast=False, babylm_tasks=())
        found: list[tuple[str, str, ZeroShot | BabyLM]] = [] if self.blimp is None else [("blimp", "blimp", pairs)]
        return [*found, *(("babylm", task.task, task) for task in self.tasks)]


def check_sentences(config: ZeroShot) -> None:
    """Read all rows; say once which of BabyLM's tasks the directory lacks.

    Raises:
        InputError: a set is missing, or a row is broken.

    """
    if config.blimp is not None:
        blimp.read(directory_of(config.blimp), config.pairs)
    for task in config.tasks:
        babylm.read(task.directory, task.task, task.fast)
    missing = babylm.missing_from(config.babylm, config.fast) if config.babylm and not config.babylm_tasks else ""
    if missing:
        _note(f"not in {config.babylm}, and not evaluated: {missing}")


def sha256_of_sentences(config: "ZeroShot | BabyLM") -> str | None:
    """SHA-256 of the rows that are evaluated; None of generated ones."""
    if isinstance(config, BabyLM):
        return examples_sha256(babylm.read(config.directory, config.task, config.fast))
    if config.blimp in (None, SAMPLE):
        return None
    return examples_sha256(blimp.read(directory_of(config.blimp), config.pairs))


def zero_shot(
    loaded: LoadedModel, config: "ZeroShot | BabyLM", mesh: jax.sharding.Mesh, predictions: str | None = None
) -> dict[str, Any]:
    """BLiMP accuracy, or the scores of one of BabyLM's tasks: a result.

    Args:
        loaded: the model.
        config: minimal pairs, or a task.
        mesh: the devices.
        predictions: directory results/MODEL/REVISION of BabyLM's pipeline; None: no predictions are written.

    """
    if isinstance(config, ZeroShot):
        return minimal_pairs(loaded, config, mesh)
    return babylm_task(loaded, config, mesh, predictions)


def minimal_pairs(loaded: LoadedModel, config: ZeroShot, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """BLiMP accuracy: a result."""
    needs_head(loaded)
    started = time.perf_counter()
    directory = directory_of(config.blimp or SAMPLE)
    pairs = blimp.evaluation(
        directory, loaded.tokenizer, pairs_per_set=config.pairs, batch=config.batch, pll_word=config.pll_word
    )
    row = to_row("blimp", "blimp", "accuracy", run_eval(shown(pairs, "blimp"), fast(loaded), mesh), started)
    return row | ({"generated": True} if config.blimp == SAMPLE else {})


def babylm_task(
    loaded: LoadedModel, config: BabyLM, mesh: jax.sharding.Mesh, predictions: str | None = None
) -> dict[str, Any]:
    """Scores of one of BabyLM's tasks: a result."""
    needs_head(loaded)
    started = time.perf_counter()
    name = config.task
    rows = babylm.read(config.directory, name, config.fast)
    made = babylm.prepare(
        rows,
        name,
        loaded.tokenizer,
        batch=config.batch,
        most=longest_input(loaded.config),
        fast=config.fast,
        pll_word=config.pll_word,
    )
    directory = None if predictions is None else expanded(predictions) / babylm.place_of(name, config.fast)
    scores = run_eval(shown(made.eval, f"babylm {name}"), fast(loaded), mesh, directory=directory)
    main = "spearman" if "spearman" in scores else "accuracy"
    row = to_row("babylm", name, main, scores, started)
    for note in made.notes:
        _note(note)
    return row | ({"notes": made.notes} if made.notes else {})


def _note(text: str) -> None:
    if hosts.is_primary():
        print(f"note: {text}", file=sys.stderr, flush=True)


def shown(what: Eval, stage: str) -> Eval:
    """The same evaluation, which shows its progress."""

    def batches() -> Iterator[Batch]:
        with Log(None, f"evaluate {stage}", what.size) as log:
            for number, batch in enumerate(what.batches(), 1):
                yield batch
                log.show(number, {})

    return what._replace(batches=batches)


def to_row(stage: str, task: str, main: str, scores: dict[str, float], started: float) -> dict[str, Any]:
    """A result, as a line of results.jsonl."""
    seconds = round(time.perf_counter() - started, 2)
    return Result(stage, task, main=main, scores=scores, seconds=seconds).to_json()


def needs_head(loaded: LoadedModel) -> None:
    """Refuse a model that predicts no tokens."""
    if loaded.kind != "mlm":
        raise InputError(
            f"the model in {loaded.directory} has no masked-LM head ({loaded.kind}): minimal pairs and texts need one; "
            "--treebank does not"
        )


def fast(loaded: LoadedModel) -> Any:
    """The model, on the CPU with its blocks unstacked: a stack of them is copied in every call."""
    if jax.default_backend() != "cpu":
        return loaded.model
    model = jax.tree.map(lambda x: x, loaded.model)
    model.encoder = loaded.encoder.unstacked()
    return model
