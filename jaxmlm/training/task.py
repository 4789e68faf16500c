"""What is learned and how it is judged: pure functions, like an optax transformation."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmlm.errors import Preempted
from jaxmlm.models import Model
from jaxmlm.parallel import fetch, local_rows, place
from jaxmlm.preemption import stop_agreed

Batch = dict[str, Any]


class Mean(NamedTuple):
    """A sum and what it is divided by, kept apart: means of means are wrong when counts differ."""

    total: jax.Array
    count: jax.Array


class Eval(NamedTuple):
    """A held-out judgement.

    `batches()` yields batches with "weight" [B], 0 on padding rows, which the runner drops. `predict(model, batch)`
    runs jitted and returns arrays [B, ...]. `score` gets them joined, in order, on the host; so does `save`, which
    writes them into an existing folder as prediction files, in the format of the task's official scripts. `size`: how
    many batches there are, for who waits; 0: not said.
    """

    batches: Callable[[], Iterator[Batch]]
    predict: Callable[[Model, Batch], dict[str, jax.Array]]
    score: Callable[[dict[str, np.ndarray]], dict[str, float]]
    save: Callable[[dict[str, np.ndarray], Path], None] | None = None
    size: int = 0


class Task(NamedTuple):
    """An objective.

    `init(key)` makes the model, `loss(model, batch, key, step)` gives the loss as a `Mean` and further metrics,
    `batch_at(step)` this host's rows, `evals` by name, `epoch` the steps that show every row once. `prepare(batch, key,
    step)` makes of a batch on the devices what `loss` gets, all of it or a part of its rows: what is drawn there does
    not depend on the parts. `key` is that of the seed and the step, in `loss` also of the part.
    """

    init: Callable[[jax.Array], Model]
    loss: Callable[[Model, Batch, jax.Array, jax.Array], tuple[Mean, dict[str, Mean]]]
    batch_at: Callable[[int], Batch]
    evals: Mapping[str, Eval]
    epoch: int
    prepare: Callable[[Batch, jax.Array, jax.Array], Batch] = lambda batch, key, step: batch


def evaluate(
    judge: Eval,
    model: Model,
    mesh: jax.sharding.Mesh,
    predict: Callable | None = None,
    folder: Path | None = None,
) -> dict[str, float]:
    """Run one `Eval` over all its batches; with a `folder` its prediction files are written there.

    `predict`: its jitted prediction, to keep it over several calls.
    """
    predict = predict or jax.jit(judge.predict)
    outputs, weights = [], []
    for batch in judge.batches():
        if stop_agreed():
            raise Preempted("stopped by a signal within an evaluation: run the same command again")
        weights.append(batch["weight"])
        placed, row = place(local_rows((batch, np.arange(len(batch["weight"]))), mesh), mesh)
        outputs.append((predict(model, placed), row))
        if len(outputs) > 2:  # keep the device busy, and only small results on it
            outputs[-3] = _fetched(*outputs[-3])
    outputs[-2:] = [_fetched(*one) for one in outputs[-2:]]
    kept = np.concatenate(weights) > 0
    joined = jax.tree.map(lambda *parts: np.concatenate(parts)[kept], *outputs)
    if folder is not None and judge.save is not None and jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        judge.save(joined, folder)
    return judge.score(joined)


def _fetched(outputs: Any, row: jax.Array) -> Any:
    """Outputs on the host in the order of their rows: of neighbouring rows a host has, devices may lie far apart."""
    found, row = fetch((outputs, row))
    order = np.argsort(row)
    return jax.tree.map(lambda x: x[order], found)
