"""A checkpoint fine-tuned on a task, through the one training loop: a grid of settings, each with several seeds.

    WORKDIR/finetune.json  results.jsonl  predictions/NAME/dev.tsv  model/ (the best one)  test/TASK.tsv

Every finished fine-tuning is a line of results.jsonl and is found again: a grid that was killed goes on.
"""

import hashlib
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlm.data import Tokenizer
from jaxmlm.errors import InputError
from jaxmlm.models import Classifier, Model, SpanPredictor
from jaxmlm.parallel import Mesh, hosts, make_mesh, mine
from jaxmlm.paths import describe, hint
from jaxmlm.preemption import stop_before, stoppable
from jaxmlm.samples import tasks as sample
from jaxmlm.studies.tuned import summarise, value_of
from jaxmlm.tasks import glue, sentences, squad, table
from jaxmlm.tasks.run import Loaded, append_rows, claim, load, read_rows, save, unclaimed
from jaxmlm.training import Loop, Optim, Task, Trained, evaluate, train

SAMPLE = "sample:"
"""Named as a folder of task data: the generated one."""
_FIRST = ("data", "learning_rate", "epochs", "batch", "length", "stride", "warmup", "weight_decay", "limit")
"""The settings that every line of results names; one that came later is named where it is not at its default."""
_NO_SETTING = ("task", "seeds", "recipe", "workdir", "test", "start")


class Point(NamedTuple):
    """One point of a grid."""

    learning_rate: float
    batch: int
    epochs: float


def _each(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


@dataclass(frozen=True)
class Finetune:
    """Fine-tuning on one task. Several learning rates, batches or epochs are a grid: every combination is run."""

    task: str = "cola"
    """cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli, squad, squad2, or a .csv or .tsv: text (text_b) label."""
    data: str = SAMPLE
    """Folder with the official files or zips (glue_data or the task's own); sample: is the generated task."""
    train: str | None = None
    """Another file of the task's folder than the official one, as a part of it: results are labelled so."""
    dev: str | None = None
    """The same for dev; of a file of one's own, the file to judge on (else a tenth of the rows)."""
    numbers: bool = False
    """The labels of a file of one's own are numbers to predict, though they are whole."""
    recipe: str = ""
    """Start from the grid of paper, roberta, 24hbert or mosaicbert, for SQuAD from that of paper, bert, run_qa or
    spanbert; options given beside it win."""
    start: str | None = None
    """Fine-tune on this task first, and go on from its best model (as mnli, for rte, mrpc and stsb)."""
    learning_rate: float | tuple[float, ...] = 5e-4
    epochs: float | tuple[float, ...] = 3.0
    batch: int | tuple[int, ...] = 16
    length: int = 128
    """Longer inputs are cut (sentences) or become overlapping windows (SQuAD)."""
    stride: int = 64
    """Tokens between the starts of two windows of a SQuAD paragraph."""
    warmup: float = 0.06
    weight_decay: float = 0.01
    clip: float | None = None
    """The greatest norm of a step's gradients; a larger one is scaled down to it."""
    layer_decay: float = 1.0
    """Each layer's learning rate is this share of that of the layer above it."""
    select: Literal["last", "best"] = "last"
    """What is scored of a fine-tuning: its last state, or the best on dev of those after each epoch."""
    limit: int | None = None
    """Train on this many rows only, always the same ones."""
    seeds: tuple[int, ...] = (0,)
    """One fine-tuning for each: the new head, the order of the rows, dropout."""
    workdir: str | None = None
    """Folder for results, predictions and the best model; nothing is written without it."""
    test: bool = False
    """Write the prediction files for GLUE's test server, by the best model."""

    def __post_init__(self) -> None:
        if not (self.task in glue.TASKS or self.task in squad.TASKS or self.is_own):
            names = (*squad.TASKS, *glue.TASKS)
            raise InputError(f"no task {self.task!r}{hint(self.task, names)}; there are {', '.join(names)}")
        if self.start is not None and self.start not in glue.TASKS:
            raise InputError(f"start: no task {self.start!r}{hint(self.start, glue.TASKS)}")
        if (self.start or self.test) and self.workdir is None:
            raise InputError(f"{'start' if self.start else 'test'} needs a folder for models: give --workdir FOLDER")
        if self.test and self.task not in glue.TASKS:
            raise InputError(f"test: GLUE's server takes {', '.join(glue.TASKS)}, not {self.task}: leave out --test")
        rates, batches, epochs = _each(self.learning_rate), _each(self.batch), _each(self.epochs)
        if not (self.seeds and rates and batches and epochs):
            raise InputError("finetune: give at least one learning rate, batch, number of epochs and seed")
        if min(batches) < 1 or min(epochs) <= 0 or self.length < 8:
            raise InputError(
                f"finetune: batch must be at least 1, epochs above 0, length at least 8; got {min(batches)}, "
                f"{min(epochs):g} and {self.length}"
            )
        for rate in rates:
            Optim(rate, self.warmup, self.weight_decay, clip=self.clip, layer_decay=self.layer_decay)

    @property
    def is_own(self) -> bool:
        """Whether the task is a file of the user's."""
        return self.task.endswith((".csv", ".tsv"))

    @property
    def grid(self) -> list["Finetune"]:
        """Every combination of the learning rates, batches and epochs, one value of each."""
        axes = (_each(self.learning_rate), _each(self.batch), _each(self.epochs))
        return [replace(self, learning_rate=r, batch=b, epochs=e) for r, b, e in itertools.product(*axes)]

    @property
    def point(self) -> Point:
        """The one point of a grid of one."""
        points = [Point(*p) for p in itertools.product(*map(_each, (self.learning_rate, self.batch, self.epochs)))]
        if len(points) != 1:
            raise InputError(f"{self.task}: {len(points)} combinations of learning rate, batch and epochs: give one")
        return points[0]


def folder_of(data: str) -> Path:
    """The folder of task data."""
    return Path(_sample().name) if data == SAMPLE else Path(data).expanduser()


@cache
def _sample() -> tempfile.TemporaryDirectory:
    """The generated tasks, written anew by each process (0.2 s), so that a refused command leaves no file behind."""
    folder = tempfile.TemporaryDirectory(prefix="jaxmlm-sample-")
    sample.write(Path(folder.name), 0)
    return folder


def check(config: Finetune) -> None:
    """Read the task's files, so that what is wrong with them shows before any training."""
    if config.task in squad.TASKS:
        for file in _squad_files(config):
            squad.read(file, squad.TASKS[config.task].unanswerable)
    else:
        sets_of(config)
    if config.test:
        glue.tests(glue.TASKS[config.task], folder_of(config.data))


def _squad_files(config: Finetune) -> tuple[Path, Path]:
    return squad.files_in(folder_of(config.data), config.task, config.train, config.dev)


def sets_of(config: Finetune) -> table.Sets:
    """The rows of a task of sentences."""
    return _sets(config.task, config.data, config.train, config.dev, config.numbers)


@lru_cache(maxsize=1)
def _sets(task: str, data: str, train: str | None, dev: str | None, numbers: bool) -> table.Sets:
    if task not in glue.TASKS:
        return table.own(Path(task).expanduser(), dev, numbers)
    found = glue.sets(glue.TASKS[task], folder_of(data), train, dev)
    return found._replace(notes=()) if data == SAMPLE else found


def settings(config: Any) -> str:
    """What a line of results was made with, beside its task and seed: lines are found again by it."""
    usual = {field.name: field.default for field in fields(config)}
    named = {key: value for key, value in describe(config).items() if key != "class" and key not in _NO_SETTING}
    kept = {key: value for key, value in named.items() if key in _FIRST or value != describe(usual[key])}
    return json.dumps(kept, sort_keys=True)


@stoppable()
def finetune(checkpoint: str, config: Finetune) -> dict[str, Any]:
    """Fine-tune a checkpoint on a task: every point of the grid, once for each seed.

    Returns {"rows": a line of results for each fine-tuning, "summary": for each point mean, sd, median, best and the
    number of degenerate ones, best mean first, "select", "notes", "model": the folder of the best one's model}.
    """
    _sets.cache_clear()  # files may have changed since
    hosts.agree("configurations", {"checkpoint": checkpoint, **describe(config)})
    stop_before("anything was begun")
    check(config)
    folder = Path(config.workdir).expanduser() if config.workdir else None
    identity = {"checkpoint": str(Path(checkpoint).resolve()), "task": config.task}
    if folder is not None:
        unclaimed(folder, "finetune.json", identity)
        hosts.share(folder)
        if config.start:
            checkpoint = _first(checkpoint, config, folder)
    mesh = make_mesh(Mesh())
    with jax.set_mesh(mesh):
        loaded = load(checkpoint)
        _fits(loaded, config, mesh)
        if folder is not None:
            claim(folder, "finetune.json", identity, {"config": describe(config)})
        rows = list(_rows(loaded, config, mesh, folder))
        result = {"rows": rows, **summarise(rows)}
        if folder is not None and hosts.told_by_first((folder / "model").exists()):
            result |= {"workdir": str(folder), "model": str(folder / "model")}
            if config.test:
                result["test"] = _answer(folder, config, mesh)
    return result


def _fits(loaded: Loaded, config: Finetune, mesh: jax.sharding.Mesh) -> None:
    devices, most = mesh.shape["data"] * mesh.shape["fsdp"], loaded.config.most_positions
    if uneven := [batch for batch in _each(config.batch) if batch % devices]:
        raise InputError(f"a batch of {uneven[0]} rows is not to be divided among {devices} devices: give --batch")
    if loaded.config.positions == "learned" and config.length > most:
        raise InputError(f"length {config.length} is above the {most} positions of {loaded.folder}: give --length")


def _first(checkpoint: str, config: Finetune, folder: Path) -> str:
    """The model of the task that is learned before."""
    from jaxmlm.studies.recipes import recipe

    task = str(config.start)
    usual = recipe(config.recipe, task) if config.recipe else replace(config, task=task)
    first = replace(
        usual, data=config.data, start=None, train=None, dev=None, test=False, limit=config.limit,
        seeds=config.seeds[:1], workdir=str(folder / task),
    )  # fmt: skip
    return finetune(checkpoint, first)["model"]


def _rows(loaded: Loaded, config: Finetune, mesh: jax.sharding.Mesh, folder: Path | None) -> Iterator[dict[str, Any]]:
    """A line of results for each fine-tuning, run or found; the best model so far stands in the folder."""
    path = None if folder is None else folder / "results.jsonl"
    done = hosts.told_by_first(read_rows(path) if path else [])
    found = {(row["settings"], row["tuning_seed"]): row for row in done}
    best = max((value_of(row) for row in found.values()), default=-np.inf)
    jobs = [(point, seed) for point in config.grid for seed in config.seeds]
    for number, (point, seed) in enumerate(jobs, 1):
        key = settings(point)
        if (key, seed) not in found:
            stop_before(f"fine-tuning {number} of {len(jobs)}")
            name = f"{hashlib.sha256(key.encode()).hexdigest()[:8]}-seed{seed}"
            predictions = None if folder is None else folder / "predictions" / name
            row, tuned = _tune(loaded, point, seed, mesh, f"[{number}/{len(jobs)}] ", predictions)
            row |= {"settings": key, **({"predictions": f"predictions/{name}"} if folder else {})}
            if folder is not None and path is not None and tuned is not None:
                if value_of(row) > best or not hosts.told_by_first((folder / "model").exists()):
                    best = value_of(row)
                    save(_whole(loaded, point, tuned, row, folder / "model"))
                append_rows(path, [row])
            found[key, seed] = row
        yield found[key, seed]


def _whole(loaded: Loaded, config: Finetune, tuned: Trained, row: dict[str, Any], folder: Path) -> Loaded:
    """The fine-tuned model as a checkpoint; a predicted number in its own range, as others expect it of a model."""
    model, about = tuned.state.model, {"task": config.task, "scores": row["scores"], "settings": row["settings"]}
    if config.task in squad.TASKS:
        return loaded._replace(model=model, kind="answer", labels=("start", "end"), folder=folder, about=about)
    found = sets_of(config).table
    if not found.labels:
        half, middle = (found.high - found.low) / 2, (found.high + found.low) / 2
        out = model.out
        out.kernel[...], out.bias[...] = out.kernel[...] * half, out.bias[...] * half + middle
    labels = found.labels or (found.label,)
    return loaded._replace(model=model, kind="classify", labels=labels, folder=folder, about=about)


def _answer(folder: Path, config: Finetune, mesh: jax.sharding.Mesh) -> list[str]:
    """Write the prediction files for the test server, by the best model."""
    task, best = glue.TASKS[config.task], load(folder / "model")
    written = []
    for name, rows in glue.tests(task, folder_of(config.data)).items():
        data = sentences.prepare(
            table.Sets(rows, {name: rows}), best.tokenizer, config.length, types=best.config.token_types > 1
        )
        # The saved model gives numbers in their own range.
        plain = data._replace(table=task.table if task.table.labels else replace(task.table, low=-1.0, high=1.0))
        judge = sentences.evaluation(plain, data.judged[name], config.grid[0].point.batch, name)
        evaluate(judge, best.model, mesh, folder=folder / "test")
        written.append(str(folder / "test" / f"{name}.tsv"))
    return written


def tune(loaded: Loaded, config: Finetune, seed: int, mesh: jax.sharding.Mesh, stage: str = "") -> dict[str, Any]:
    """One fine-tuning, of one point of a grid: a line of results."""
    return _tune(loaded, config, seed, mesh, stage)[0]


def _tune(
    loaded: Loaded, config: Finetune, seed: int, mesh: jax.sharding.Mesh, stage: str, predictions: Path | None = None
) -> tuple[dict[str, Any], Trained | None]:
    whole, main, notes = make_task(loaded, config, seed)
    task = whole._replace(batch_at=lambda step: mine(whole.batch_at(step), mesh))
    rate, batch, epochs = config.point
    steps = max(1, round(epochs * task.epoch))
    optim = Optim(rate, config.warmup, config.weight_decay, clip=config.clip, layer_decay=config.layer_decay)
    best = config.select == "best"
    loop = Loop(
        steps, batch, seed, save_every=0, eval_every=task.epoch if best else 0, log_every=max(1, steps // 10),
        best=f"dev/{main}" if best else None,
    )  # fmt: skip
    started = time.perf_counter()
    row = {"stage": "finetune", "task": config.task, "tuning_seed": seed, "main": main, "scores": {},
           "seconds": None, "tokens": None, "tokens_per_second": None, "steps": steps, "select": config.select,
           "degenerate": True, "notes": notes}  # fmt: skip
    try:
        done = train(task, optim, loop, mesh, None, f"{stage}{config.task} seed {seed}", predictions)
    except FloatingPointError as error:  # a run that diverges is a result of a grid, not its end
        return row | {"notes": [*notes, str(error)]}, None
    scores = dict(done.evals["dev"])
    row["degenerate"] = bool(scores.pop("degenerate", 0.0))
    for name, more in done.evals.items():
        if name != "dev":
            scores |= {f"{name}/{key}": value for key, value in more.items() if key != "degenerate"}
    if "mm/accuracy" in scores:  # as GLUE counts the two sets of MNLI
        scores["average"] = (scores["accuracy"] + scores["mm/accuracy"]) / 2
    row |= {"scores": {**scores, "train_loss": done.loss}, "seconds": round(time.perf_counter() - started, 2),
            "tokens_per_second": round(done.tokens_per_second, 1), "chosen_step": int(done.state.step)}  # fmt: skip
    if best:
        row["by_step"] = {str(step): judged["dev"][main] for step, judged in done.judged.items()}
    return row, done


def make_task(loaded: Loaded, config: Finetune, seed: int) -> tuple[Task, str, list[str]]:
    """The task of fine-tuning this encoder, a copy of it under a new head; its main score; what is not whole.

    Every host makes whole batches.
    """

    def init(key: jax.Array) -> Model:
        encoder = jax.tree.map(jnp.copy, loaded.encoder)  # the first step gives its buffers away
        if config.task in squad.TASKS:
            return jax.jit(SpanPredictor)(encoder, key)
        return jax.jit(Classifier, static_argnums=1)(encoder, data.table.classes, key)

    if config.task in squad.TASKS:
        files = _squad_files(config)
        task = squad.task(
            files, loaded.tokenizer, init, name=config.task, batch=config.point.batch, length=config.length,
            stride=config.stride, seed=seed, limit=config.limit, types=loaded.config.token_types > 1,
        )  # fmt: skip
        limited = [f"train: {config.limit:,} questions (limit)"] if config.limit else []
        notes = [] if config.data == SAMPLE else squad.notes(files, config.task)
        return task, squad.TASKS[config.task].main, [*notes, *limited]
    sets = sets_of(config)
    data = _data(_Same(sets), loaded.tokenizer, config.length, config.limit, loaded.config.token_types > 1)
    task = sentences.task(data, init, batch=config.point.batch, seed=seed)
    few = len(data.train.rows) < len(sets.train)
    limited = [f"train: {len(data.train.rows):,} of {len(sets.train):,} rows (limit)"] if few else []
    return task, sets.table.metrics[0], [*sets.notes, *limited]


@dataclass(frozen=True, eq=False)
class _Same:
    """The object itself as a key: rows are compared by being the same ones."""

    sets: table.Sets

    def __hash__(self) -> int:
        return id(self.sets)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.sets is other.sets


@lru_cache(maxsize=1)
def _data(same: _Same, tokenizer: Tokenizer, length: int, limit: int | None, types: bool) -> sentences.Prepared:
    """A task's rows, encoded once for all points of a grid and all seeds."""
    return sentences.prepare(same.sets, tokenizer, length, limit, types)
