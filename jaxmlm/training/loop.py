"""The loop: restore or start, step, log, evaluate, save. Reads top to bottom; nothing hooks into it."""

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlm.errors import InputError, Preempted
from jaxmlm.logs import Log
from jaxmlm.parallel import abstract, check_sizes, place
from jaxmlm.preemption import stop_agreed, stop_before, stoppable
from jaxmlm.rng import make_key
from jaxmlm.training.budget import seconds
from jaxmlm.training.checkpoint import Checkpoints
from jaxmlm.training.optimizers import Optim
from jaxmlm.training.step import TrainState, init_state, make_step
from jaxmlm.training.task import Batch, Mean, Task, evaluate


@dataclass(frozen=True)
class Loop:
    """How long, how much at a time, and what is done how often (in steps; 0 is never)."""

    steps: int = 1000
    batch: int = 32
    """Rows in a step, over all devices."""
    seed: int = 0
    """Of the initial weights, the order of the rows, masks and dropout."""
    save_every: int = 500
    """A checkpoint is written this often and at the end; 0: no checkpoint at all."""
    eval_every: int = 0
    """Held-out judgements this often; at the end always."""
    log_every: int = 50
    accumulate: int = 1
    """Parts of the batch that are worked off one after the other, for less memory."""
    budget: str | None = None
    """Train for about this long, as 24h or 90m: 50 steps are timed once, and `steps` becomes what fits."""
    best: str | None = None
    """A judgement and its score, as dev/accuracy: what is left at the end is the best judged state, not the last."""

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch < 1 or self.log_every < 1:
            raise InputError(
                f"loop: steps must be at least 0, batch and log_every at least 1; got {self.steps}, {self.batch}, "
                f"{self.log_every}"
            )
        if self.accumulate < 1 or self.batch % self.accumulate:
            raise InputError(
                f"loop.accumulate is {self.accumulate}: it must be at least 1 and divide loop.batch {self.batch}"
            )
        if self.budget is not None:
            seconds(self.budget)

    @property
    def rows(self) -> tuple[str, int, str]:
        """What a mesh must divide: (what it is, how many, its logical axis)."""
        part = f" / loop.accumulate {self.accumulate}" if self.accumulate > 1 else ""
        return f"loop.batch {self.batch}{part}", self.batch // self.accumulate, "batch"


@dataclass
class Trained:
    """What came out: the state, its judgements, the last training loss, what it cost, all judgements by step.

    `tokens` were trained on in all, padding included, and `seconds` spent, from the start of each process to its last
    checkpoint. `tokens_per_second` is of this process's steps, without compilation, judgements and checkpoints.
    """

    state: TrainState
    evals: dict[str, dict[str, float]]
    loss: float
    seconds: float
    tokens: int
    tokens_per_second: float
    judged: dict[int, dict[str, dict[str, float]]]


@stoppable()
def train(
    task: Task,
    optim: Optim,
    loop: Loop,
    mesh: jax.sharding.Mesh,
    folder: Path | None = None,
    stage: str = "train",
    predictions: Path | None = None,
) -> Trained:
    """Train a task to its last step, from the newest checkpoint in `folder` if there is one.

    The judgements of what is left at the end write their prediction files (see `Eval.save`) into `predictions`.

    A signal ends it after the step, saved, by Preempted (see jaxmlm/preemption.py), on all hosts at the same step.
    Same versions and same device layout: the resumed run is bit for bit the uninterrupted one, for a step depends
    on the state and its own number only.
    """
    started = time.perf_counter()
    check_sizes(mesh, [loop.rows])
    if loop.best and loop.best.partition("/")[0] not in task.evals:
        raise InputError(
            f"loop.best is {loop.best!r}: the judgements there are, each with /SCORE: {', '.join(task.evals)}"
        )
    optimizer = optim.transformation(loop.steps)
    learning_rate = optim.rate(loop.steps)
    judges = {name: jax.jit(judge.predict) for name, judge in task.evals.items()}
    # Closed whatever happens: a save under way is finished, also when the run is interrupted.
    saves = closing(Checkpoints(folder / "checkpoints")) if folder is not None and loop.save_every else nullcontext()
    log_file = folder / "log.jsonl" if folder is not None else None

    with jax.set_mesh(mesh), Log(log_file, stage, loop.steps) as log, saves as checkpoints:
        key = make_key(loop.seed)
        first = (checkpoints.latest() if checkpoints is not None else None) or 0
        step_fn = make_step(task, optimizer, loop.accumulate)
        batches = _batches(task, first, loop.steps, mesh)
        coming = [*itertools.islice(batches, 1)]
        make = partial(init_state, task, optimizer)
        like = abstract(make, key)
        with _compiling(step_fn, like, coming, key, mesh):  # which takes as long as making or reading the state
            state = checkpoints.restore(like) if checkpoints is not None and first else make(key)
        clock, loss = _Clock(), float("nan")
        pending: list[tuple[int, dict[str, Mean]]] = []
        at, best = {}, _Best(loop.best)
        # The sums of what was trained since the last line of the log, or, at the last step, of that line: with them a
        # run that was stopped logs and returns what it would have. So with tokens and seconds.
        notes = checkpoints.notes() if checkpoints is not None and first else {}
        carried, tokens = notes.get("window", []), notes.get("tokens", 0)
        started -= notes.get("seconds", 0.0)
        if carried and first == loop.steps:
            loss = _means(carried)["loss"]
        due: tuple[int, int, list[tuple[int, dict[str, Mean]]]] | None = None

        def tell(done: int, tokens: int, steps: list[tuple[int, dict[str, Mean]]]) -> float:
            """Log the mean of the steps up to `done`, where `tokens` were trained on in all; their loss."""
            carried[:] = _sums(carried + [metrics for _, metrics in steps])
            means, timed = _means(carried), steps[done - len(steps) == first :]
            if done < loop.steps:
                carried.clear()
            speed = clock.lap(sum(size for size, _ in timed))
            _check_finite(means, done)
            rounded = {name: round(mean, 5) for name, mean in means.items()}
            rate = learning_rate(jax.device_put(np.int32(done - 1)))
            line = {
                "step": done,
                **rounded,
                "tokens": tokens,
                "learning_rate": rate,
                "tokens_per_second": round(speed, 1),
            }
            log.record(line, done)
            return means["loss"]

        stop_before("the first step")
        if log.lacks_judgement(first, loop.eval_every) and first < loop.steps:  # a signal came within it
            at[first] = _judge(task, judges, state, mesh, log, first)
            best.offer(at[first], state)
        for step, batch in itertools.chain(coming, batches):
            state, metrics = step_fn(state, batch, key)
            if step == first:
                jax.block_until_ready(metrics)  # compiled: from here on the clock runs
                clock.start()
            if due:  # what came before is read while this step runs
                loss, due = tell(*due), None
            pending.append((batch["ids"].size, metrics))
            tokens += batch["ids"].size
            done = step + 1
            if done % loop.log_every == 0 or done == loop.steps:
                due, pending = (done, tokens, pending), []
            judged = loop.eval_every and done % loop.eval_every == 0 and done < loop.steps
            saved = loop.save_every and (done % loop.save_every == 0 or done == loop.steps)
            stop = stop_agreed()
            if due and (judged or saved or stop or done == loop.steps):  # no step is under way: nothing would be gained
                loss, due = tell(*due), None
            if judged:
                with clock.paused(), suppress(Preempted):  # by a signal, once more: what was trained is saved first
                    at[done] = _judge(task, judges, state, mesh, log, done)
                    best.offer(at[done], state)
            stop = stop or bool(judged and stop_agreed())
            if checkpoints is not None and (saved or stop):
                with clock.paused():
                    window = _sums(carried + [metrics for _, metrics in pending])
                    _check_finite(_means(window), done)  # a diverged state takes the place of no good checkpoint
                    spent = time.perf_counter() - started
                    checkpoints.save(state, {"window": window, "tokens": tokens, "seconds": spent})
            if stop:
                kept = "and saved" if checkpoints is not None else "and not saved"
                raise Preempted(f"stopped by a signal at step {done}, {kept}: run the same command again")

        if checkpoints is not None and loop.steps == 0 and checkpoints.latest() is None:
            checkpoints.save(state)
        evals = at[loop.steps] = _judge(task, judges, state, mesh, log, loop.steps, predictions)
        if best.beats(evals):
            state, evals = best.state, best.evals
            if predictions is not None:
                _judge(task, judges, state, mesh, log, int(state.step), predictions)
    return Trained(state, evals, loss, time.perf_counter() - started, tokens, clock.speed, at)


@contextmanager
def _compiling(
    step_fn: Any, like: TrainState, batches: list[tuple[int, Batch]], key: jax.Array, mesh: jax.sharding.Mesh
) -> Iterator[None]:
    """Compile the step for such a state and the first of these batches beside the body; the first call finds it."""

    def compiled(batch: Batch) -> None:
        with jax.set_mesh(mesh):
            step_fn.lower(like, batch, key).compile()

    with ThreadPoolExecutor(1) as pool:
        under_way = [pool.submit(compiled, batch) for _, batch in batches]
        yield
        for one in under_way:
            one.result()


def _batches(task: Task, first: int, last: int, mesh: jax.sharding.Mesh) -> Iterator[tuple[int, Batch]]:
    """Batches of the steps, placed on the devices one step ahead by a thread."""

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


def _judge(
    task: Task,
    judges: dict,
    state: TrainState,
    mesh: jax.sharding.Mesh,
    log: Log,
    step: int,
    predictions: Path | None = None,
) -> dict:
    scores = {name: evaluate(task.evals[name], state.model, mesh, judge, predictions) for name, judge in judges.items()}
    for name, score in scores.items():
        log.record({"step": step, "eval": name, **{k: round(v, 5) for k, v in score.items()}}, step)
    return scores


def _sums(pending: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The totals and counts of some steps in one, added in order: in parts they come to the same bits."""
    host = jax.device_get(pending)
    names = host[0] if host else {}
    sums = {name: (sum(float(m[name][0]) for m in host), sum(float(m[name][1]) for m in host)) for name in names}
    return [sums] if sums else []


def _means(pending: list[dict[str, Any]]) -> dict[str, float]:
    return {name: total / max(count, 1.0) for sums in _sums(pending) for name, (total, count) in sums.items()}


def _check_finite(means: dict[str, float], done: int) -> None:
    """End a run that has diverged.

    Raises:
        FloatingPointError: the mean loss of some steps, the last of which is `done`, is not finite.

    """
    if means and not np.isfinite(means["loss"]):
        raise FloatingPointError(f"the loss is {means['loss']} at step {done}: try a lower optim.learning_rate")


class _Best:
    """The best judged state so far, a copy; of equally good ones the first. Without a name none is kept."""

    def __init__(self, name: str | None) -> None:
        self.judgement, _, self.score = (name or "").partition("/")
        self.evals: dict[str, dict[str, float]] = {}
        self.state: Any = None

    def offer(self, evals: dict[str, dict[str, float]], state: TrainState) -> None:
        if self.judgement and not self.beats(evals):
            # The optimizer's part is not copied: what is kept is judged and saved, not trained on.
            step, model = jax.tree.map(jnp.copy, (state.step, state.model))
            self.evals, self.state = evals, TrainState(step, model, None)

    def beats(self, evals: dict[str, dict[str, float]]) -> bool:
        if not self.evals:
            return False
        mine, other = (e[self.judgement][self.score] for e in (self.evals, evals))
        return not other > mine


class _Clock:
    """Seconds of training alone, and the tokens that they trained on."""

    def __init__(self) -> None:
        self.total, self.tokens, self._since = 0.0, 0, 0.0

    @property
    def speed(self) -> float:
        """Tokens per second of all laps."""
        return self.tokens / self.total if self.total else 0.0

    def start(self) -> None:
        self._since = time.perf_counter()

    def lap(self, tokens: int) -> float:
        """Tokens per second since the last lap."""
        now = time.perf_counter()
        passed, self._since = now - self._since, now
        self.total += passed
        self.tokens += tokens
        return tokens / passed

    def paused(self) -> "_Clock":
        return self

    def __enter__(self) -> None:
        self._paused = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._since += time.perf_counter() - self._paused
