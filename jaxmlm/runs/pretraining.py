"""Pre-train: from a configuration to a directory with checkpoints, a log and results.

WORKDIR/run.json  log.jsonl  tokenizer.model (or .json)  checkpoints/STEP/  results.jsonl  DONE
"""

import statistics
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jax

from jaxmlm.data import Tokenizer
from jaxmlm.data.new_words import parts_of_new
from jaxmlm.data.opening import open_store
from jaxmlm.errors import InputError
from jaxmlm.fields import describe
from jaxmlm.json_files import read_jsonl
from jaxmlm.models import EncoderConfig, MaskedLM
from jaxmlm.models.encoder_config import RUNTIME_FIELDS
from jaxmlm.models.formats import format_for
from jaxmlm.models.new_rows import with_new_rows
from jaxmlm.parallel import check_sizes, hosts, jit, make_mesh
from jaxmlm.preemption import raise_if_all_hosts_stop, stoppable
from jaxmlm.rng import make_key
from jaxmlm.runs import epochs
from jaxmlm.runs.loading import load
from jaxmlm.runs.results import Result, read_results
from jaxmlm.runs.run import Run, check_length, identity
from jaxmlm.runs.text_of_run import check_text, text_of
from jaxmlm.runs.workdir import append_results, check_workdir, claim_workdir, read_metadata, write_metadata
from jaxmlm.tasks.mlm import diverged, mlm_task
from jaxmlm.training import Task, steps_within, train
from jaxmlm.training.sinks import find_sinks


@stoppable()
def pretrain(run: Run, stage: str = "pretrain") -> dict[str, Any]:
    """Pre-train, or resume, or read what a finished run gave.

    Args:
        run: the configuration.
        stage: what the progress lines call it.

    Returns:
        {"workdir", "rows": the results (`Result`): what pre-training cost, and the held-out scores}.

    Raises:
        InputError: the configuration, the text or the directory are not as they must be.

    """
    directory = Path(run.workdir)
    hosts.assert_same("configurations", describe(replace(run, data=replace(run.data, store=None))))
    raise_if_all_hosts_stop("before anything was begun")
    find_sinks(run.loop.sinks)
    if _is_done(run):
        return _result(directory, stage)
    if not run.loop.budget:  # of which the steps are not known yet
        epochs.check(run, run.loop.steps * run.loop.batch * run.data.length, epochs.size(run))
    with claim_workdir(directory, "run"):
        if not _is_done(run):  # nor has another command done it meanwhile
            _pretrain(run, stage)
    return _result(directory, stage)


def _is_done(run: Run) -> bool:
    """Whether the run is finished; refuses a directory that holds another one."""
    directory = Path(run.workdir)
    check_workdir(directory, "run.json", identity(run))
    return hosts.broadcast_from_primary((directory / "DONE").exists())


def _pretrain(run: Run, stage: str) -> None:
    """Pre-train or resume, in a directory that this command holds."""
    directory = Path(run.workdir)
    hosts.check_shared_directory(directory)
    mesh = make_mesh(run.mesh)
    check_sizes(mesh.shape, run.sizes)
    with jax.set_mesh(mesh):
        start, given, whole = _start(run, make_key(run.loop.seed)) if run.init else (None, None, run)
    check_sizes(mesh.shape, whole.model.sizes)
    if (why := _why_not_exported(whole)) and hosts.is_primary():
        print(f"note: this model cannot be exported: {why}", file=sys.stderr, flush=True)
    store = open_store(run.text, directory, f"{stage}: prepare", run.needs_phrases)
    hosts.assert_same("texts", text_of(store, run.needs_phrases), hosts.SAME_FILES)
    check_text(directory, store, run.needs_phrases)
    with jax.set_mesh(mesh):
        if start is not None and given is not None and run.data.new_words:
            start = with_new_rows(start, given.size, parts_of_new(store.tokenizer, given))
        task = mlm_task(store, run.data, run.masking, whole.model, run.loop.batch, run.loop.seed, start)
    vocab = store.tokenizer.size if start is None else start.encoder.vocab
    same = identity(run)
    if run.loop.budget:
        steps = _steps(run, task, mesh, directory)
        run, whole = (replace(r, loop=replace(r.loop, steps=steps)) for r in (run, whole))
    write_metadata(
        directory,
        "run.json",
        same,
        {"config": describe(whole), "vocab": vocab, **text_of(store, run.needs_phrases)},
    )
    if hosts.is_primary():
        store.tokenizer.save(directory)
    done = train(task, run.optim, run.loop, mesh, directory, stage)
    results = [
        Result(
            "pretrain",
            "mlm",
            scores={"loss": done.loss} if run.loop.steps else {},
            seconds=round(done.seconds, 2),
            tokens=done.tokens,
            tokens_per_second=round(done.tokens_per_second, 1) or _logged_speed(directory),
            views=run.masking.views,
            diverged=(diverged(done.evals["heldout"], vocab) or None) if run.loop.steps else None,
        ),
        Result("heldout", "mlm", scores=done.evals["heldout"]),
    ]
    append_results(directory / "results.jsonl", [result.to_json() for result in results])
    if hosts.is_primary():
        (directory / "DONE").touch()


def _logged_speed(directory: Path) -> float | None:
    """Tokens per second by the log, for a run whose training had ended before this start."""
    logged = hosts.broadcast_from_primary(read_jsonl(directory / "log.jsonl") if hosts.is_primary() else [])
    speeds = [line["tokens_per_second"] for line in logged if line.get("tokens_per_second")]
    return round(statistics.median(speeds), 1) if speeds else None


def _result(directory: Path, stage: str) -> dict[str, Any]:
    """What `pretrain` returns: the results in its directory; says so where the run diverged."""
    rows = hosts.broadcast_from_primary(read_results(directory / "results.jsonl") if hosts.is_primary() else [])
    for why in (row["diverged"] for row in rows if row.get("diverged") and hosts.is_primary()):
        print(f"{stage}: the run diverged ({why}): try a lower optim.learning_rate", file=sys.stderr)
    return {"workdir": str(directory), "rows": rows}


def _why_not_exported(run: Run) -> str:
    """Why `jaxmlm export` will refuse the model of this run; an empty string if it will not."""
    own = not (run.init or run.data.tokenizer)
    if own and (run.data.model_type != "unigram" or run.data.byte_fallback):
        return (
            "transformers has no tokenizer of the same ids: data.model_type unigram without data.byte_fallback has one"
        )
    try:
        format_for(run.model, "mlm")
    except InputError as error:
        return str(error)
    return ""


def _steps(run: Run, task: Task, mesh: Any, directory: Path) -> int:
    """The steps that the budget of a run allows, `most_epochs` at most: as measured when it was started first."""
    if (directory / "run.json").is_file():
        return read_metadata(directory / "run.json")["config"]["loop"]["steps"]
    steps = steps_within(str(run.loop.budget), task, run.optim, mesh, run.loop.accumulate)
    most = epochs.most_steps(run)
    if most is None or steps <= most:
        return steps
    if hosts.is_primary():
        print(
            f"note: loop.budget {run.loop.budget} is time for {steps:,} steps, and {most:,} read the text most_epochs "
            f"{run.most_epochs:g} times: the run ends there",
            file=sys.stderr,
            flush=True,
        )
    return most


def _start(run: Run, key: jax.Array) -> tuple[MaskedLM, Tokenizer, Run]:
    """The model to continue from, its tokenizer, and the run with its sizes; a bare encoder gets a new head."""
    found = load(str(run.init), run.model)
    usual = EncoderConfig()
    for field_ in fields(EncoderConfig):
        name = field_.name
        asked = getattr(run.model, name)
        have = getattr(found.config, name)
        if name not in RUNTIME_FIELDS and asked not in (have, getattr(usual, name)):
            raise InputError(f"model.{name} is {asked!r} and the encoder in {run.init} has {have!r}: leave it out")
    check_length(found.config, run.data.length)
    model = found.model if found.kind == "mlm" else jit(MaskedLM)(found.encoder, key)
    return model, found.tokenizer, replace(run, model=found.config)
