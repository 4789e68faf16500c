"""What is learned and how it is evaluated: pure functions, like an optax transformation."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmlm.models import Model
from jaxmlm.parallel import fetch, jit, local_rows, place
from jaxmlm.preemption import raise_if_all_hosts_stop

Batch = dict[str, Any]


class Mean(NamedTuple):
    """A mean as its sum and its count: means of means are wrong where counts differ.

    Attributes:
        total: [] sum over the rows or tokens of a batch.
        count: [] what the sum is divided by.

    """

    total: jax.Array
    count: jax.Array


class Eval(NamedTuple):
    """An evaluation on held-out data.

    Attributes:
        batches: yields batches with "weight" [B], 0 on padding rows, which are dropped.
        predict: (model, batch) to arrays [B, ...]; runs jitted.
        score: from the joined predictions, in order and on the host, to metrics by name.
        save: writes the joined predictions into an existing directory, in the format of the task's official scripts.
        size: number of batches, for progress bars; 0: not known.

    """

    batches: Callable[[], Iterator[Batch]]
    predict: Callable[[Model, Batch], dict[str, jax.Array]]
    score: Callable[[dict[str, np.ndarray]], dict[str, float]]
    save: Callable[[dict[str, np.ndarray], Path], None] | None = None
    size: int = 0


class Task(NamedTuple):
    """An objective.

    Attributes:
        init: makes the model of a key, sharded under the current mesh.
        loss: (model, batch, key, step) to the loss as a `Mean` and further metrics. The key is that of the seed, the
            step and, with gradient accumulation, the micro-batch.
        batch_at: the rows of a step that this host reads; pure, so that a resumed run needs no state of an iterator.
        evals: the evaluations by name.
        epoch: steps that show every row once.
        corrupt: (batch, key, step) to the batch that `loss` gets, on the devices, as by masking. It sees the whole
            batch: what it draws does not depend on the micro-batches. The key is that of the seed and the step.

    """

    init: Callable[[jax.Array], Model]
    loss: Callable[[Model, Batch, jax.Array, jax.Array], tuple[Mean, dict[str, Mean]]]
    batch_at: Callable[[int], Batch]
    evals: Mapping[str, Eval]
    epoch: int
    corrupt: Callable[[Batch, jax.Array, jax.Array], Batch] = lambda batch, key, step: batch


def evaluate(
    task_eval: Eval,
    model: Model,
    mesh: jax.sharding.Mesh,
    predict: Callable | None = None,
    directory: Path | None = None,
) -> dict[str, float]:
    """Run an evaluation over all its batches.

    Args:
        task_eval: the evaluation.
        model: what is evaluated.
        mesh: the devices.
        predict: the jitted `task_eval.predict`, for who calls this several times.
        directory: directory for its prediction files; None: none are written.

    Returns:
        the metrics by name.

    Raises:
        Preempted: a signal came.

    """
    predict = predict or jit(task_eval.predict)
    outputs = []
    weights = []
    for batch in task_eval.batches():
        raise_if_all_hosts_stop("within an evaluation")
        weights.append(batch["weight"])
        placed, row = place(local_rows((batch, np.arange(len(batch["weight"]))), mesh), mesh)
        outputs.append((predict(model, placed), row))
        if len(outputs) > 2:  # keep the device busy, and only small results on it
            outputs[-3] = _fetched(*outputs[-3])
    outputs[-2:] = [_fetched(*one) for one in outputs[-2:]]
    kept = np.concatenate(weights) > 0
    joined = jax.tree.map(lambda *parts: np.concatenate(parts)[kept], *outputs)
    if directory is not None and task_eval.save is not None and jax.process_index() == 0:
        directory.mkdir(parents=True, exist_ok=True)
        task_eval.save(joined, directory)
    return task_eval.score(joined)


def _fetched(outputs: Any, row: jax.Array) -> Any:
    """Outputs on the host in the order of their rows: neighbouring rows of a host may be on devices far apart."""
    found, row = fetch((outputs, row))
    order = np.argsort(row)
    return jax.tree.map(lambda x: x[order], found)
