"""A checkpoint fine-tuned on a task, through the one training loop: a grid of settings, each with several seeds.

    WORKDIR/finetune.json  results.jsonl  predictions/NAME/dev.tsv  model/ (the best one)  test/TASK.tsv

Every finished fine-tuning is a line of results.jsonl and is found again: a grid that was killed goes on.
"""

import hashlib
import itertools
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlm.errors import InputError
from jaxmlm.json_files import read_jsonl
from jaxmlm.models import Classifier, EncoderConfig, Model, SpanPredictor
from jaxmlm.parallel import Mesh, hosts, local_rows, make_mesh
from jaxmlm.paths import describe, hint
from jaxmlm.preemption import stop_before, stoppable
from jaxmlm.runs.comparison import summarise, value_of
from jaxmlm.runs.loading import LoadedModel, load, save
from jaxmlm.runs.workdir import append_results, check_workdir, write_metadata
from jaxmlm.tasks import downstream, glue, sentences, squad, table
from jaxmlm.training import Loop, Optim, Task, Trained, evaluate, train
from jaxmlm.training.checkpoint import fingerprint

_FIRST = ("data", "learning_rate", "epochs", "batch", "length", "stride", "warmup", "weight_decay", "limit")
"""The settings that every line of results names; one that came later is named where it is not at its default."""
_NO_SETTING = ("task", "seeds", "recipe", "workdir", "test", "predict", "start")


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
    """cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli, squad, squad2, or a .csv or .tsv: text (text_b) label. On the
    command line also glue, all nine of it, or several as rte,mrpc: a table and GLUE's average."""
    data: str | None = None
    """Folder with the official files or zips (glue_data or the task's own), needed by every task but a table; tfds: is
    TensorFlow Datasets' copy, sample: a generated cola, rte or squad, whose scores are called generated."""
    train: str | None = None
    """Another file of the task's folder than the official one, as a part of it: results are labelled so."""
    dev: str | None = None
    """The same for dev; of a file of one's own, the file to judge on (else a tenth of the rows)."""
    regression: bool = False
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
    predict: str | None = None
    """A .csv or .tsv with the task's text columns and no labels: write what the best model says of its rows."""

    def __post_init__(self) -> None:
        if not (self.task in glue.TASKS or self.task in squad.TASKS or self.is_own):
            raise InputError(_no_task(self.task))
        if self.start is not None and self.start not in glue.TASKS:
            raise InputError(f"start: no task {self.start!r}{hint(self.start, glue.TASKS)}")
        wanting = next((name for name in ("start", "test", "predict") if getattr(self, name)), None)
        if wanting and self.workdir is None:
            raise InputError(f"{wanting} needs a folder for models: give --workdir FOLDER")
        if self.predict and self.task in squad.TASKS:
            raise InputError(f"predict takes sentences, not {self.task}: load the model and call answer")
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
        return table.is_table(self.task)

    @property
    def source(self) -> downstream.TaskData:
        """The task and where its rows are."""
        return downstream.TaskData(self.task, self.data, self.train, self.dev, self.regression)

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


def _no_task(name: str) -> str:
    if Path(name).expanduser().is_file() or "/" in name or Path(name).suffix[1:].isalpha():
        return f"{name} is not a table that can be read: {table.FORMATS}"
    names = (*squad.TASKS, *glue.TASKS)
    return f"no task {name!r}{hint(name.lower(), names)}; there are {', '.join(names)}, and tables: {table.FORMATS}"


def check(config: Finetune) -> None:
    """Read the task's rows, so that what is wrong with them shows before any training."""
    _check_recipe(config)
    downstream.check(config.source)
    if config.test:
        downstream.tests_of(config.source)
    if config.predict:
        downstream.unlabelled(config.predict, downstream.sets_of(config.source).table)


def _check_recipe(config: Finetune) -> None:
    """Refuse a recipe that is named and not followed: the command line alone fills in what a name stands for."""
    if config.recipe:
        from jaxmlm.runs.recipes import recipe

        usual, own = Finetune(config.task), recipe(config.recipe, config.task)
        sets = [f.name for f in fields(own) if f.name != "recipe" and getattr(own, f.name) != getattr(usual, f.name)]
        if all(getattr(config, name) == getattr(usual, name) for name in sets):
            raise InputError(
                f"{config.task}: recipe={config.recipe!r} sets nothing by itself: start from jaxmlm.studies.recipe("
                f"{config.recipe!r}, {config.task!r})"
            )


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
    downstream.forget()
    hosts.assert_same("configurations", {"checkpoint": checkpoint, **describe(config)})
    stop_before("anything was begun")
    check(config)
    folder = Path(config.workdir).expanduser() if config.workdir else None
    identity = _identity(checkpoint, config)
    if folder is not None:
        check_workdir(folder, "finetune.json", identity)
        hosts.check_shared_directory(folder)
        if config.start:
            first = _first(config)
            before = finetune(checkpoint, replace(first, workdir=str(folder / first.task)))
            if "model" not in before:
                raise InputError(f"every run of the start on {first.task} diverged: give a lower --learning-rate")
            checkpoint = before["model"]
    mesh = make_mesh(Mesh())
    with jax.set_mesh(mesh):
        loaded = load(checkpoint)
        fits(config, loaded.config, mesh)
        if folder is not None:
            write_metadata(folder, "finetune.json", identity, {"config": describe(config)})
        rows = list(_rows(loaded, config, mesh, folder))
        result = {"rows": rows, **summarise(rows)}
        if folder is not None and hosts.broadcast_from_primary((folder / "model").exists()):
            result |= {"workdir": str(folder), "model": str(folder / "model")}
            if config.test:
                rows_of = downstream.tests_of(config.source)
                result["test"] = _answer(folder, config, mesh, rows_of, folder / "test")
            if config.predict:
                rows_of = {Path(config.predict).stem: downstream.unlabelled(config.predict, _table(config))}
                result["predicted"] = _answer(folder, config, mesh, rows_of, folder / "predicted")
    return result


def fits(config: Finetune, model: EncoderConfig, mesh: jax.sharding.Mesh) -> None:
    """Refuse a batch that the devices do not divide, and texts longer than the encoder reads."""
    devices, most = mesh.shape["data"] * mesh.shape["fsdp"], model.max_positions
    if uneven := [batch for batch in _each(config.batch) if batch % devices]:
        raise InputError(
            f"{config.task}: a batch of {uneven[0]} rows is not to be divided among {devices} devices: give another"
        )
    if model.positions == "learned" and config.length > most:
        raise InputError(
            f"{config.task}: length {config.length} is above the {most} positions of the encoder: lower it"
        )


def _identity(checkpoint: str, config: Finetune) -> dict[str, Any]:
    """What all results of a folder have in common, so that the best of them is the best."""
    start = None if config.start is None else [config.start, settings(_first(config))]
    return {"checkpoint": str(Path(checkpoint).resolve()), "weights": fingerprint(Path(checkpoint)),
            "task": config.task, "data": config.data, "dev": config.dev, "numbers": config.regression,
            "start": start}  # fmt: skip


def _first(config: Finetune) -> Finetune:
    """The fine-tuning on the task that is learned before: its recipe with what was given beside, else the first point
    of the grid."""
    from jaxmlm.runs.recipes import recipe

    task = str(config.start)
    if config.recipe:
        own = recipe(config.recipe, config.task)
        names = [field.name for field in fields(config)]
        given = {name: getattr(config, name) for name in names if getattr(config, name) != getattr(own, name)}
        usual = replace(recipe(config.recipe, task), **given)
    else:
        usual = config.grid[0]
    return replace(usual, task=task, start=None, train=None, dev=None, numbers=False, test=False, predict=None,
                   seeds=config.seeds[:1])  # fmt: skip


def _rows(
    loaded: LoadedModel, config: Finetune, mesh: jax.sharding.Mesh, folder: Path | None
) -> Iterator[dict[str, Any]]:
    """A line of results for each fine-tuning, run or found; the best model so far stands in the folder."""
    path = None if folder is None else folder / "results.jsonl"
    done = hosts.broadcast_from_primary(read_jsonl(path) if path else [])
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
            if folder is not None and path is not None:
                if tuned is not None and (
                    value_of(row) > best or not hosts.broadcast_from_primary((folder / "model").exists())
                ):
                    best = value_of(row)
                    save(_whole(loaded, point, tuned, row, folder / "model"))
                append_results(path, [row])
            found[key, seed] = row
        yield found[key, seed]


def _whole(loaded: LoadedModel, config: Finetune, tuned: Trained, row: dict[str, Any], folder: Path) -> LoadedModel:
    """The fine-tuned model as a checkpoint; a predicted number in its own range, as others expect it of a model."""
    model, base = tuned.state.model, str(loaded.folder.absolute())
    about = {"task": config.task, "scores": row["scores"], "settings": row["settings"], "base": base}
    about |= config.source.mark
    if config.task in squad.TASKS:
        return loaded._replace(model=model, kind="answer", labels=("start", "end"), folder=folder, about=about)
    found = _table(config)
    if not found.labels:
        half, middle = (found.high - found.low) / 2, (found.high + found.low) / 2
        out = model.out
        out.kernel[...], out.bias[...] = out.kernel[...] * half, out.bias[...] * half + middle
    labels = found.labels or (found.label,)
    return loaded._replace(model=model, kind="classify", labels=labels, folder=folder, about=about)


def _table(config: Finetune) -> table.Table:
    return downstream.sets_of(config.source).table


def _answer(
    folder: Path, config: Finetune, mesh: jax.sharding.Mesh, asked: Mapping[str, table.Examples], to: Path
) -> list[str]:
    """Write what the best model says of rows without labels: files as GLUE's test server takes them."""
    best, task = load(folder / "model"), _table(config)
    # The saved model gives numbers in their own range.
    plain = task if task.labels else replace(task, low=-1.0, high=1.0)
    written = []
    for name, rows in asked.items():
        data = sentences.prepare(
            table.Sets(rows, {name: rows}), best.tokenizer, config.length, types=best.config.token_types > 1
        )._replace(table=plain)
        judge = sentences.evaluation(data, data.judged[name], config.grid[0].point.batch, name)
        evaluate(judge, best.model, mesh, folder=to)
        written.append(str(to / f"{name}.tsv"))
    return written


def tune(loaded: LoadedModel, config: Finetune, seed: int, mesh: jax.sharding.Mesh, stage: str = "") -> dict[str, Any]:
    """One fine-tuning, of one point of a grid: a line of results."""
    return _tune(loaded, config, seed, mesh, stage)[0]


def _tune(
    loaded: LoadedModel,
    config: Finetune,
    seed: int,
    mesh: jax.sharding.Mesh,
    stage: str,
    predictions: Path | None = None,
) -> tuple[dict[str, Any], Trained | None]:
    whole, main, notes = make_task(loaded, config, seed)
    task = whole._replace(batch_at=lambda step: local_rows(whole.batch_at(step), mesh))
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
           "degenerate": True, "notes": notes, **config.source.mark}  # fmt: skip
    try:
        done = train(task, optim, loop, mesh, None, f"{stage}{downstream.called(row)} seed {seed}", predictions)
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


def make_task(loaded: LoadedModel, config: Finetune, seed: int) -> tuple[Task, str, list[str]]:
    """The task of fine-tuning this encoder, a copy of it under a new head; its main score; what is not whole.

    Every host makes whole batches.
    """

    def init(key: jax.Array) -> Model:
        encoder = jax.tree.map(jnp.copy, loaded.encoder)  # the first step gives its buffers away
        if config.source.is_squad:
            return jax.jit(SpanPredictor)(encoder, key)
        return jax.jit(Classifier, static_argnums=1)(encoder, _table(config).classes, key)

    batch, types = config.point.batch, loaded.config.token_types > 1
    if config.source.is_squad:
        cut, notes = downstream.windowed(
            config.source, loaded.tokenizer, config.length, config.stride, config.limit, types
        )
        return squad.task(cut, init, batch=batch, seed=seed), squad.TASKS[config.task].main, [*notes]
    data, notes = downstream.encoded(config.source, loaded.tokenizer, config.length, config.limit, types)
    return sentences.task(data, init, batch=batch, seed=seed), data.table.metrics[0], [*notes]
