"""No bad state over a good one: what is not finite is named, and neither saved nor logged twice."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmlm.errors import Diverged
from jaxmlm.training import Batch, Loop, Optim, meter, train
from tests.training.test_loop import (
    OPTIM,
    STEPS,
    Killed,
    batch_at,
    counting_eval,
    devices,
    killed_at,
    linear_task,
    lines,
)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    def at(step: int) -> Batch:
        return batch_at(step) | ({"x": np.full((8, 8), np.nan, np.float32)} if step == 2 else {})

    with pytest.raises(Diverged, match="step 3: not finite: the loss: set a lower optim.learning_rate.*--workdir"):
        train(linear_task(at), OPTIM, Loop(STEPS, 8, log_every=1, save_every=3), devices(1, 1, 1), tmp_path)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]
    assert not list((tmp_path / "checkpoints").glob("3*"))


def test_no_checkpoint_of_a_diverged_state_is_written(tmp_path):
    """Nor NaN into its notes: it would take the place of a good one before the log says what happened."""

    def at(step: int) -> Batch:
        return batch_at(step) | ({"x": np.full((8, 8), np.nan, np.float32)} if step == 3 else {})

    with pytest.raises(Diverged, match="step 4: not finite: the loss.*--init .*checkpoints/2 starts from"):
        train(linear_task(at), OPTIM, Loop(STEPS, 8, log_every=6, save_every=2), devices(1, 1, 1), tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").glob("[0-9]*")] == ["2"]


@dataclass(frozen=True)
class Breaking:
    """An optimizer that writes infinity into its state, which no update shows, or into the weights, at step 3."""

    where: str
    slots = 1

    def build(self, schedule: Callable) -> optax.GradientTransformation:
        def init(params: Any) -> Any:
            return jnp.zeros((), jnp.int32), jnp.zeros(3)

        def update(updates: Any, state: Any, params: Any = None) -> Any:
            step, moment = state[0] + 1, state[1]
            bad = jnp.where(step == 3, jnp.inf, 0.0)
            if self.where == "state":
                return updates, (step, moment + bad)
            return jax.tree.map(lambda x: x + bad, updates), (step, moment)

        return optax.GradientTransformation(init, update)


@pytest.mark.parametrize(
    ("where", "said"),
    [("state", r"step 4: not finite: \['opt_state'\]"), ("weights", "step 3: not finite: the weights")],
)
def test_no_bad_state_takes_the_place_of_a_good_one(where, said, tmp_path):
    """Though the loss of every step is finite; the run resumes nowhere, and says from where another may start."""
    optim = Optim(0.01, optimizer=Breaking(where))
    loop = Loop(4, 8, log_every=4, save_every=2)
    for _ in range(2):  # the same command, again
        with pytest.raises(Diverged, match=rf"{said}.*checkpoints/2 starts from the last good checkpoint"):
            train(linear_task(), optim, loop, devices(1, 1, 1), tmp_path)
        assert [path.name for path in (tmp_path / "checkpoints").glob("[0-9]*")] == ["2"]


def test_updates_skipped_in_a_row_end_the_run(tmp_path, monkeypatch):
    """Counted over lines of the log and over a restart."""
    monkeypatch.setattr(meter, "MAX_SKIPPED", 4)
    at = lambda step: batch_at(step) | {"bad": np.full(8, float(step > 0), np.float32), "example": np.arange(8) + 10}  # noqa: E731
    loop = Loop(STEPS, 8, log_every=2, save_every=2)
    with pytest.raises(Killed):
        train(
            linear_task(lambda step: at(step) if step < 3 else killed_at(3)(step)),
            OPTIM,
            loop,
            devices(1, 1, 1),
            tmp_path,
        )
    with pytest.raises(Diverged, match=r"step 5: not finite: the gradients of 4 steps in a row \(rows 10, .*17\): "):
        train(linear_task(at), OPTIM, loop, devices(1, 1, 1), tmp_path)


def test_a_resumed_run_logs_no_step_twice(tmp_path):
    """Killed at several places, also within the evaluation of a step that is saved, and after the last one."""
    evals = lambda: counting_eval([])  # noqa: E731
    loop = Loop(STEPS, 8, log_every=1, save_every=3, eval_every=2)
    train(linear_task(evals=evals()), OPTIM, loop, devices(1, 1, 1), tmp_path / "straight")
    directory = tmp_path / "killed"
    for step in (2, 4, 5):
        with pytest.raises(Killed):
            train(linear_task(killed_at(step), evals=evals()), OPTIM, loop, devices(1, 1, 1), directory)
    for _ in range(2):  # the second time all steps are done, and only the last evaluation is made again
        train(linear_task(evals=evals()), OPTIM, loop, devices(1, 1, 1), directory)
        timeless = [
            [{**one, "tokens_per_second": 0} for one in lines(tmp_path / name)] for name in ("straight", "killed")
        ]
        assert timeless[0] == timeless[1]
