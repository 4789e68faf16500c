"""How many steps fit into a time: measured once before a run, whose `steps` it then is."""

import re
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxmlm.errors import InputError
from jaxmlm.parallel import place
from jaxmlm.rng import make_key
from jaxmlm.training.optim import Optim
from jaxmlm.training.step import init_state, make_step
from jaxmlm.training.task import Task

TIMED = 50
"""Steps that are timed, after those that compile."""
_UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}


def seconds(budget: str) -> float:
    """The seconds of a time as people write it.

    >>> seconds("24h"), seconds("1h30m"), seconds("0.5h")
    (86400.0, 5400.0, 1800.0)
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", budget)
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != budget or not total > 0:
        raise InputError(f"loop.budget is {budget!r}: write a time above 0 as 24h, 90m or 1h30m")
    return total


def steps_within(
    budget: str, task: Task, optim: Optim, mesh: jax.sharding.Mesh, accumulate: int = 1, timed: int = TIMED
) -> int:
    """Measure how many training steps fit into a time.

    Evaluations, checkpoints and compilation are not counted. The measured steps are thrown away.

    Args:
        budget: the time, as 24h.
        task: what is trained.
        optim: the optimizer.
        mesh: the devices.
        accumulate: micro-batches per step.
        timed: steps that are measured.

    Returns:
        the number of steps, at least 1; that of the primary process on all.

    """
    batches = [task.batch_at(i) for i in range(timed)]
    of_each_length = {batch["ids"].shape: batch for batch in batches}.values()
    with jax.set_mesh(mesh):
        optimizer = optim.transformation(timed)
        key = make_key(0)
        state = init_state(task, optimizer, key)
        step = make_step(task, optimizer, accumulate)
        for batch in of_each_length:  # compiled
            state, _ = step(state, place(batch, mesh), key)
        jax.block_until_ready(state)
        started = time.perf_counter()
        for batch in batches:
            state, _ = step(state, place(batch, mesh), key)
        jax.block_until_ready(state)
    each = (time.perf_counter() - started) / timed
    steps = max(1, int(seconds(budget) / each))
    if jax.process_count() > 1:
        steps = int(multihost_utils.broadcast_one_to_all(np.int32(steps)))
    return steps
