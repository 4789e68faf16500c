"""The loop: restore or start, step, log, evaluate, save. Reads top to bottom; nothing hooks into it."""

import itertools
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmlm.errors import InputError, Preempted
from jaxmlm.logs import Log
from jaxmlm.parallel import abstract, check_sizes, jit, place
from jaxmlm.parallel.hosts import is_primary
from jaxmlm.preemption import all_hosts_stop, raise_if_all_hosts_stop, stoppable
from jaxmlm.rng import make_key
from jaxmlm.training.best import Best
from jaxmlm.training.checkpoint import Checkpoints, DamagedCheckpoint
from jaxmlm.training.finite import NotFinite, NotFiniteAt, explained
from jaxmlm.training.intervals import Loop, due_after
from jaxmlm.training.meter import Line, Meter
from jaxmlm.training.optim import Optim, swap_average
from jaxmlm.training.sinks import find_sinks
from jaxmlm.training.step import TrainState, init_state, make_step
from jaxmlm.training.task import Batch, Task, evaluate

Scores = dict[str, dict[str, float]]
"""The metrics of each evaluation, by its name."""


@dataclass
class Trained:
    """The result of `train`.

    Attributes:
        state: the last state, or the best; with `optim.ema` its model is the average of the weights.
        evals: its metrics, by the name of the evaluation.
        loss: mean training loss of the last line of the log.
        seconds: spent, from the start of each process to its last checkpoint.
        tokens: trained on in all, padding included.
        tokens_per_second: of this process's steps, without compilation, evaluations and checkpoints.
        evals_by_step: the metrics of all evaluations of this process.

    """

    state: TrainState
    evals: Scores
    loss: float
    seconds: float
    tokens: int
    tokens_per_second: float
    evals_by_step: dict[int, Scores]


@stoppable()
def train(
    task: Task,
    optim: Optim,
    loop: Loop,
    mesh: jax.sharding.Mesh,
    directory: Path | None = None,
    stage: str = "train",
    predictions: Path | None = None,
) -> Trained:
    """Train a task to its last step, from the newest checkpoint in `directory` if there is one.

    With the same versions and the same device layout a resumed run is bit for bit the uninterrupted one: a step depends
    on the state and its own number only.

    Args:
        task: what is learned and how it is evaluated.
        optim: the optimizer and its learning rate.
        loop: length, batch size, intervals.
        mesh: the devices.
        directory: directory of the run, for checkpoints and log; None: nothing is written.
        stage: what the terminal calls the work.
        predictions: directory for the prediction files of the final evaluation (see `Eval.save`).

    Raises:
        InputError: the mesh does not divide the batch, `loop` names a metric or a sink that does not exist, or it asks
            for the best state of a run that saves checkpoints.
        Diverged: a loss, a weight or the optimizer's state is not finite.
        Preempted: a signal came; the state is saved, on all hosts at the same step (see jaxmlm/preemption.py).

    """
    check_sizes(mesh.shape, [loop.rows])
    if loop.best and loop.save_every and directory is not None:
        raise InputError(
            "loop.best keeps the best state in memory, and a resumed run would not have it: set loop.save_every to 0"
        )
    while True:
        try:
            return _train(task, optim, loop, mesh, directory, stage, predictions)
        except DamagedCheckpoint as error:
            _set_aside(error, loop, directory, stage)


def _train(
    task: Task,
    optim: Optim,
    loop: Loop,
    mesh: jax.sharding.Mesh,
    directory: Path | None,
    stage: str,
    predictions: Path | None,
) -> Trained:
    started = time.perf_counter()
    best = Best(loop.best, task.evals)
    optimizer = optim.transformation(loop.steps)
    # Closed whatever happens: a save under way is finished, also when the run is interrupted.
    saves = (
        closing(Checkpoints(directory / "checkpoints", keep=loop.keep))
        if directory is not None and loop.save_every
        else nullcontext()
    )
    with jax.set_mesh(mesh), explained(task, directory), saves as checkpoints:
        key = make_key(loop.seed)
        first = (checkpoints.latest() if checkpoints is not None else None) or 0
        step_fn = make_step(task, optimizer, loop.accumulate)
        batches = _batches(task, first, loop.steps, mesh)
        begun = [*itertools.islice(batches, 1)]
        make = partial(init_state, task, optimizer)
        like = abstract(make, key)
        with _log(loop, directory, stage, first) as log:
            with _compiling(step_fn, like, begun, key, mesh):  # which takes as long as making or reading the state
                state = _averaged(checkpoints.restore(like)) if checkpoints is not None and first else make(key)
            meter = Meter(checkpoints.notes() if checkpoints is not None and first else None, started)
            write_line = _line_writer(meter, log, optim, loop)
            evaluator = _Evaluator(task, mesh, log)
            loss = meter.carried_means().get("loss", float("nan")) if first == loop.steps else float("nan")

            raise_if_all_hosts_stop("before the first step")
            if log.lacks_evaluation(first, loop.eval_every) and first < loop.steps:  # a signal came within it
                best.offer(evaluator(state, first), _averaged(state))
            for step, batch in itertools.chain(begun, batches):
                done = step + 1
                state, metrics = step_fn(state, batch, key)
                if step == first:
                    jax.block_until_ready(metrics)  # compiled: from here on the clock runs
                    meter.start(done)
                if meter.line_is_due:  # the line before is read while this step runs
                    loss = write_line()
                meter.add(done, batch["ids"].size, metrics)
                due = due_after(done, loop, all_hosts_stop())
                if due.log:
                    meter.close_line()
                if due.wait and meter.line_is_due:
                    loss = write_line()
                if due.evaluate:
                    with meter.paused(), suppress(Preempted):  # by a signal, once more: first the state is saved
                        best.offer(evaluator(state, done), _averaged(state))
                stop = due.stop or (due.evaluate and all_hosts_stop())
                if checkpoints is not None and (due.save or stop):
                    with meter.paused():
                        _save(checkpoints, _averaged(state), meter, done)
                if stop:
                    kept = "and saved" if checkpoints is not None else "and not saved"
                    raise Preempted(f"stopped by a signal at step {done}, {kept}: run the same command again")

            if checkpoints is not None and loop.steps == 0 and checkpoints.latest() is None:
                checkpoints.save(_averaged(state))
            evals = evaluator(state, loop.steps, predictions)
            state = _averaged(state)
            if best.beats(evals):
                state = best.state
                evals = best.evals
                if predictions is not None:
                    evaluator.run(state, int(state.step), predictions)
    return Trained(state, evals, loss, meter.seconds, meter.tokens, meter.tokens_per_second, evaluator.by_step)


def _set_aside(error: DamagedCheckpoint, loop: Loop, directory: Path | None, stage: str) -> None:
    """Move a damaged newest checkpoint out of the way and say so; raise the error where that is not possible."""
    if not loop.fallback or directory is None:
        raise error
    with closing(Checkpoints(directory / "checkpoints")) as checkpoints:
        there = checkpoints.set_aside(error.step) if error.step == checkpoints.latest() else None
    if there is None:
        raise error
    if is_primary():
        print(f"{stage}: {error}; set aside as {there}", file=sys.stderr, flush=True)


def _save(checkpoints: Checkpoints, state: TrainState, meter: Meter, done: int) -> None:
    notes = meter.notes()
    try:
        checkpoints.save(state, notes)
    except NotFinite as error:
        raise NotFiniteAt(done, error.names) from error


def _averaged(state: TrainState) -> TrainState:
    """The state as it is evaluated and saved: with `optim.ema` weights and average change places; twice is nothing."""
    return TrainState(state.step, *swap_average(state.model, state.opt_state))


def _log(loop: Loop, directory: Path | None, stage: str, first: int) -> Log:
    sinks = find_sinks(loop.sinks)
    if directory is None:
        return Log(None, stage, loop.steps)
    made = [partial(make, directory, stage, first) for make in sinks]
    return Log(directory / "log.jsonl", stage, loop.steps, made, first)


def _line_writer(meter: Meter, log: Log, optim: Optim, loop: Loop) -> Callable[[], float]:
    """A function that reads the line that is due, logs it, and returns its loss."""
    learning_rate = optim.rate(loop.steps)

    def write() -> float:
        line = meter.read(loop.steps)
        log.record(_values(line, learning_rate(jax.device_put(np.int32(line.step - 1)))), line.step)
        if skipped := round(line.means.get("skipped_updates", 0.0)):
            log.warn(f"step {line.step}: {skipped} updates skipped since the last line: gradients were not finite")
        return line.means["loss"]

    return write


def _values(line: Line, learning_rate: float) -> dict[str, Any]:
    """A line as it is logged."""
    rounded = {
        name: float(f"{mean:.6g}") if name.endswith("_norm") else round(mean, 5) for name, mean in line.means.items()
    }
    return {
        "step": line.step,
        **rounded,
        "tokens": line.tokens,
        "learning_rate": learning_rate,
        "tokens_per_second": round(line.tokens_per_second, 1),
    }


class _Evaluator:
    """Runs and logs the evaluations of a task, whose predictions it compiles once."""

    def __init__(self, task: Task, mesh: jax.sharding.Mesh, log: Log):
        self.by_step: dict[int, Scores] = {}
        self._evals = task.evals
        self._predict: Mapping[str, Callable] = {name: jit(one.predict) for name, one in task.evals.items()}
        self._mesh = mesh
        self._log = log

    def __call__(self, state: TrainState, step: int, predictions: Path | None = None) -> Scores:
        """Evaluate a state of the loop and keep the metrics in `by_step`."""
        scores = self.by_step[step] = self.run(_averaged(state), step, predictions)
        return scores

    def run(self, state: TrainState, step: int, predictions: Path | None = None) -> Scores:
        """Evaluate the model of a state."""
        scores = {
            name: evaluate(self._evals[name], state.model, self._mesh, predict, predictions)
            for name, predict in self._predict.items()
        }
        for name, score in scores.items():
            self._log.record({"step": step, "eval": name, **{k: round(v, 5) for k, v in score.items()}}, step)
        return scores


@contextmanager
def _compiling(
    step_fn: Any, like: TrainState, batches: list[tuple[int, Batch]], key: jax.Array, mesh: jax.sharding.Mesh
) -> Iterator[None]:
    """Compile the step for such a state and the first batches while the body runs; the first call finds it."""

    def compiled(batch: Batch) -> None:
        with jax.set_mesh(mesh):
            step_fn.lower(like, batch, key).compile()

    with ThreadPoolExecutor(1) as pool:
        under_way = [pool.submit(compiled, batch) for _, batch in batches]
        yield
        for one in under_way:
            one.result()


def _batches(task: Task, first: int, last: int, mesh: jax.sharding.Mesh) -> Iterator[tuple[int, Batch]]:
    """The batches of the steps, which a thread places on the devices one step ahead."""

    def load(step: int) -> Batch:
        with jax.set_mesh(mesh):
            return place(task.batch_at(step), mesh)

    with ThreadPoolExecutor(1) as pool:
        coming = [pool.submit(load, step) for step in range(first, min(first + 2, last))]
        for step in range(first, last):
            batch = coming.pop(0).result()
            if step + 2 < last:
                coming.append(pool.submit(load, step + 2))
            yield step, batch
