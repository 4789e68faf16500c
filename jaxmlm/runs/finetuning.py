"""A checkpoint fine-tuned on a task, through the one training loop: a grid of settings, each with several seeds.

    WORKDIR/finetune.json  results.jsonl  predictions/NAME/dev.tsv  model/ (the best one)  test/TASK.tsv

Every finished fine-tuning is a line of results.jsonl and is found again: a grid that was killed is resumed.
"""

import hashlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlm import hub
from jaxmlm.directories import expanded
from jaxmlm.errors import Diverged, InputError
from jaxmlm.fields import describe
from jaxmlm.models import EncoderConfig, Model, with_head
from jaxmlm.parallel import Mesh, hosts, local_rows, make_mesh
from jaxmlm.preemption import raise_if_all_hosts_stop, stoppable
from jaxmlm.runs.comparison import summarise, value_of
from jaxmlm.runs.finetune_config import Finetune, settings, values_of
from jaxmlm.runs.loading import LoadedModel, load, put_back, save
from jaxmlm.runs.recipes import recipe
from jaxmlm.runs.results import Result, read_results
from jaxmlm.runs.workdir import append_results, check_workdir, claim_workdir, read_metadata, write_metadata
from jaxmlm.tasks import downstream
from jaxmlm.tasks.downstream import display_name, examples_sha256, task_hash
from jaxmlm.training import Loop, Task, Trained, evaluate, train
from jaxmlm.training.checkpoint import fingerprint


def check(config: Finetune) -> None:
    """Read the task's examples, so that what is wrong with them shows before any training."""
    _check_recipe(config)
    task = config.downstream
    examples = downstream.examples_of(task, config.task_data)
    if config.test:
        task.test_sets(config.task_data)
    if config.predict:
        task.unlabelled(expanded(config.predict), examples)


def _check_recipe(config: Finetune) -> None:
    """Refuse a config that names a recipe without its settings: only the command line fills them in."""
    if not config.recipe:
        return
    usual = Finetune(config.task)
    own = recipe(config.recipe, config.task_name)
    sets = [f.name for f in fields(own) if f.name != "recipe" and getattr(own, f.name) != getattr(usual, f.name)]
    if all(getattr(config, name) == getattr(usual, name) for name in sets):
        raise InputError(
            f"{config.task}: recipe={config.recipe!r} sets nothing by itself: start from jaxmlm.runs.recipe("
            f"{config.recipe!r}, {config.task!r})"
        )


@stoppable()
def finetune(checkpoint: str, config: Finetune) -> dict[str, Any]:
    """Fine-tune a checkpoint on a task: every point of the grid, once for each seed.

    Args:
        checkpoint: a run's directory, one of its steps, a directory in the `transformers` format, or hf:org/name.
        config: the task, the grid, the seeds.

    Returns:
        {"rows": a result for each fine-tuning (`Result`), "summary": for each point mean, sd, median, best and the
        number of degenerate ones, best mean first, "select", "notes", "model": the directory of the best model}, and
        "test" and "predicted", the files of predictions, where they were asked for.

    Raises:
        InputError: the task, its examples, the checkpoint or the directory are not as they must be.

    """
    downstream.forget()
    hosts.assert_same("configurations", {"checkpoint": checkpoint, **describe(config)})
    raise_if_all_hosts_stop("before anything was begun")
    check(config)
    hosts.assert_same("examples", {config.task_name: sha256_of_examples(config)}, hosts.SAME_FILES)
    checkpoint = str(hub.local(checkpoint))
    directory = expanded(config.workdir) if config.workdir else None
    identity = _identity(checkpoint, config)
    if directory is None:
        return _finetune(checkpoint, config, None, identity)
    check_workdir(directory, "finetune.json", identity)
    _check_examples(directory, config)
    with claim_workdir(directory, "fine-tuning"):
        check_workdir(directory, "finetune.json", identity)  # another command may have begun one meanwhile
        return _finetune(checkpoint, config, directory, identity)


def _check_examples(directory: Path, config: Finetune) -> None:
    """Refuse a directory whose results are of other examples: files of the same path can change."""
    record = directory / "finetune.json"
    if not record.is_file() or not record.stat().st_size:
        return
    now = sha256_of_examples(config)
    if read_metadata(record).get("examples", now) != now:  # those of earlier versions do not say
        raise InputError(
            f"{directory} holds a fine-tuning on other examples of {config.task} than its files have now: put them "
            "back, or name another --workdir"
        )


def _finetune(checkpoint: str, config: Finetune, directory: Path | None, identity: dict[str, Any]) -> dict[str, Any]:
    """Fine-tune, in a directory that this command holds."""
    if directory is not None:
        hosts.check_shared_directory(directory)
        if config.intermediate_task:
            first = _intermediate(config)
            before = finetune(checkpoint, replace(first, workdir=str(directory / first.task_name)))
            if "model" not in before:
                raise InputError(
                    f"every run of the intermediate task {first.task} diverged: give a lower --learning-rate"
                )
            checkpoint = before["model"]
    mesh = make_mesh(Mesh())
    with jax.set_mesh(mesh):
        loaded = load(checkpoint)
        fits(config, loaded.config, mesh)
        if directory is None and hosts.is_primary():
            print(
                "note: nothing is kept: --workdir DIRECTORY keeps the best model and its predictions", file=sys.stderr
            )
        if directory is not None:
            record = {"config": describe(config), "examples": sha256_of_examples(config)}
            write_metadata(directory, "finetune.json", identity, record)
        rows = list(_rows(loaded, config, mesh, directory))
        result = {"rows": rows, **summarise(rows)}
        if directory is not None and hosts.broadcast_from_primary((directory / "model").exists()):
            result |= {"workdir": str(directory), "model": str(directory / "model")}
            if config.test:
                test_sets = config.downstream.test_sets(config.task_data)
                result["test"] = _predict(directory, config, mesh, test_sets, directory / "test")
            if config.predict:
                path = expanded(config.predict)
                rows = config.downstream.unlabelled(path, _examples(config))
                result["predicted"] = _predict(directory, config, mesh, {path.stem: rows}, directory / "predicted")
    return result


def fits(config: Finetune, model: EncoderConfig, mesh: jax.sharding.Mesh) -> None:
    """Refuse a batch that the devices do not divide, and texts longer than the encoder reads."""
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    if uneven := [batch for batch in values_of(config.batch) if batch % devices]:
        raise InputError(
            f"{config.task}: batch size {uneven[0]} is not divisible by {devices} devices: give a multiple of them"
        )
    if model.positions == "learned" and config.length > model.max_positions:
        raise InputError(
            f"{config.task}: length {config.length} is above the {model.max_positions} positions of the encoder: "
            "lower it"
        )


def _identity(checkpoint: str, config: Finetune) -> dict[str, Any]:
    """What all results in a directory must share to be comparable, so that the best can be chosen."""
    first = None if config.intermediate_task is None else _intermediate(config)
    source = task_hash(config.downstream)
    return {
        "checkpoint": os.path.realpath(checkpoint),
        "weights": fingerprint(Path(checkpoint)),
        "task": config.task_name,
        "data": config.data,
        "dev": config.dev,
        "regression": config.regression,
        "intermediate_task": None if first is None else [first.task_name, settings(first)],
        **({} if source is None else {"task_source": source}),
    }


def _intermediate(config: Finetune) -> Finetune:
    """The fine-tuning on the intermediate task: its recipe with what was given next to it, or the grid's
    first point.
    """
    task = str(config.intermediate_task)
    if config.recipe:
        own = recipe(config.recipe, config.task_name)
        names = [field.name for field in fields(config)]
        given = {name: getattr(config, name) for name in names if getattr(config, name) != getattr(own, name)}
        usual = replace(recipe(config.recipe, task), **given)
    else:
        usual = config.grid[0]
    return replace(
        usual,
        task=task,
        intermediate_task=None,
        train=None,
        dev=None,
        regression=False,
        test=False,
        predict=None,
        seeds=config.seeds[:1],
    )


def _rows(
    loaded: LoadedModel, config: Finetune, mesh: jax.sharding.Mesh, directory: Path | None
) -> Iterator[dict[str, Any]]:
    """A result for each fine-tuning, run or found; the best model so far is saved in the directory."""
    path = None if directory is None else directory / "results.jsonl"
    if directory is not None and hosts.is_primary():
        put_back(directory / "model")
    done = hosts.broadcast_from_primary(read_results(path) if path else [])
    found = {(row["settings"], row["tuning_seed"]): row for row in done}
    best = max((value_of(row) for row in found.values()), default=-np.inf)
    jobs = [(point, seed) for point in config.grid for seed in config.seeds]
    for number, (point, seed) in enumerate(jobs, 1):
        key = settings(point)
        if (key, seed) not in found:
            raise_if_all_hosts_stop(f"before fine-tuning {number} of {len(jobs)}")
            name = f"{hashlib.sha256(key.encode()).hexdigest()[:8]}-seed{seed}"
            predictions = None if directory is None else directory / "predictions" / name
            result, tuned = _tune(loaded, point, seed, mesh, f"[{number}/{len(jobs)}] ", predictions)
            if directory is not None and path is not None:
                row = replace(result, settings=key, predictions=f"predictions/{name}").to_json()
                no_model = not hosts.broadcast_from_primary((directory / "model").exists())
                if tuned is not None and (value_of(row) > best or no_model):
                    best = value_of(row)
                    save(_finished(loaded, point, tuned, row, directory / "model"))
                append_results(path, [row])
            else:
                row = replace(result, settings=key).to_json()
            found[key, seed] = row
        yield found[key, seed]


def _finished(
    loaded: LoadedModel, config: Finetune, tuned: Trained, row: dict[str, Any], directory: Path
) -> LoadedModel:
    """The fine-tuned model as a checkpoint."""
    task = config.downstream
    examples = _examples(config)
    about = {
        "task": config.task_name,
        "scores": row["scores"],
        "settings": row["settings"],
        "base": str(loaded.directory.absolute()),
        **config.mark,
    }
    model = task.finished(tuned.state.model, examples)
    labels = task.labels(examples)
    return loaded._replace(
        model=model,
        config=config.encoder(loaded.config),
        kind=task.head,
        labels=labels,
        directory=directory,
        about=about,
    )


def _examples(config: Finetune) -> Any:
    return downstream.examples_of(config.downstream, config.task_data)


def sha256_of_examples(config: Finetune) -> str | None:
    """Hash of the examples; None if generated: those never change, but name a file that differs per process."""
    return None if config.downstream.is_generated(config.task_data) else examples_sha256(_examples(config))


def _predict(
    directory: Path, config: Finetune, mesh: jax.sharding.Mesh, rows_of: Mapping[str, Any], to: Path
) -> list[str]:
    """Write the best model's predictions for rows without labels: files as GLUE's test server takes them."""
    best = load(directory / "model")
    options = config.encoding(best.config.token_types > 1)._replace(limit=None)
    batch = config.grid[0].point.batch
    written = []
    for name, rows in rows_of.items():
        evaluation = config.downstream.prediction(name, rows, best.tokenizer, options, batch)
        evaluate(evaluation, best.model, mesh, directory=to)
        written.append(str(to / f"{name}.tsv"))
    return written


def tune(loaded: LoadedModel, config: Finetune, seed: int, mesh: jax.sharding.Mesh, stage: str = "") -> dict[str, Any]:
    """One fine-tuning, of one point of a grid: a result."""
    return _tune(loaded, config, seed, mesh, stage)[0].to_json()


def _tune(
    loaded: LoadedModel,
    config: Finetune,
    seed: int,
    mesh: jax.sharding.Mesh,
    stage: str,
    predictions: Path | None = None,
) -> tuple[Result, Trained | None]:
    objective, main, notes = make_task(loaded, config, seed)
    task = objective._replace(batch_at=lambda step: local_rows(objective.batch_at(step), mesh))
    learning_rate, batch, epochs = config.point
    steps = max(1, round(epochs * task.epoch))
    optim = config.optim(learning_rate)
    best = config.select == "best"
    loop = Loop(
        steps,
        batch,
        seed,
        save_every=0,
        eval_every=task.epoch if best else 0,
        log_every=max(1, steps // 10),
        best=f"dev/{main}" if best else None,
    )
    result = Result(
        stage="finetune",
        task=config.task_name,
        tuning_seed=seed,
        main=main,
        steps=steps,
        select=config.select,
        degenerate=True,
        notes=notes,
        generated=config.downstream.is_generated(config.task_data) or None,
    )
    title = f"{stage}{display_name(result.to_json())} seed {seed}"
    started = time.perf_counter()
    try:
        done = train(task, optim, loop, mesh, None, title, predictions)
    except Diverged as error:  # a run that diverges is a result of a grid, not its end
        return replace(result, notes=[*notes, str(error)]), None
    scores = dict(done.evals["dev"])
    degenerate = bool(scores.pop("degenerate", 0.0))
    for name, more in done.evals.items():
        if name != "dev":
            scores |= {f"{name}/{key}": value for key, value in more.items() if key != "degenerate"}
    scores = config.downstream.result_scores(scores)
    result = replace(
        result,
        scores={**scores, "train_loss": done.loss},
        seconds=round(time.perf_counter() - started, 2),
        tokens_per_second=round(done.tokens_per_second, 1),
        degenerate=degenerate,
        chosen_step=int(done.state.step),
    )
    if best:
        by_step = {str(step): evals["dev"][main] for step, evals in done.evals_by_step.items()}
        result = replace(result, by_step=by_step)
    return result, done


def make_task(loaded: LoadedModel, config: Finetune, seed: int) -> tuple[Task, str, list[str]]:
    """The objective of fine-tuning this encoder, a copy of it under a new head; its main metric; notes on its examples.

    Every host makes complete batches.
    """
    task = config.downstream
    examples = _examples(config)
    options = config.encoding(loaded.config.token_types > 1)
    outputs = len(task.labels(examples))

    def init(key: jax.Array) -> Model:
        encoder = jax.tree.map(jnp.copy, loaded.encoder)  # the first step donates its buffers
        encoder.config = config.encoder(encoder.config)
        return jax.jit(with_head, static_argnums=(0, 2))(task.head, encoder, outputs, key)

    encoded = downstream.encoded(task, config.task_data, loaded.tokenizer, options)
    objective = task.objective(encoded, init, batch=config.point.batch, seed=seed)
    return objective, task.metrics(examples)[0], [*task.notes(examples, options)]
