"""What the loop measures, what is due after a step, and the best state, each by itself."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlm.errors import InputError
from jaxmlm.training import Loop, Mean, TrainState
from jaxmlm.training import meter as meter_module
from jaxmlm.training.best import Best
from jaxmlm.training.finite import NotFiniteAt
from jaxmlm.training.intervals import due_after
from jaxmlm.training.meter import Meter


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time, which a test sets."""
    now = [100.0]
    monkeypatch.setattr(meter_module.time, "perf_counter", lambda: now[0])
    return now


def metrics(total: float, count: float) -> dict[str, Mean]:
    return {"loss": Mean(np.float32(total), np.float32(count))}  # pyright: ignore[reportArgumentType]


def test_a_line_is_sums_over_counts_and_not_a_mean_of_means(clock):
    meter = Meter()
    meter.add(1, 64, metrics(6.0, 1.0))
    meter.add(2, 64, metrics(6.0, 3.0))
    meter.close_line()
    assert meter.read().means == {"loss": 3.0}


def test_the_speed_of_a_short_line_is_that_of_the_start(clock):
    """The last line is read at once, and would have a speed of millions."""
    meter = Meter()
    meter.start(1)
    for step, seconds in ((1, 2.0), (2, 2.0), (3, 0.001)):
        meter.add(step, 64, metrics(1.0, 1.0))
        meter.close_line()
        clock[0] += seconds
        line = meter.read()
    assert line.tokens_per_second == pytest.approx(128 / 4.001)


def test_the_first_step_compiles_and_is_not_timed(clock):
    meter = Meter()
    clock[0] += 50.0
    meter.start(1)
    meter.add(1, 64, metrics(1.0, 1.0))
    clock[0] += 2.0
    meter.add(2, 64, metrics(1.0, 1.0))
    meter.close_line()
    assert meter.read().tokens_per_second == 32.0
    with meter.paused():
        clock[0] += 1000.0
    clock[0] += 1.0
    meter.add(3, 64, metrics(1.0, 1.0))
    meter.close_line()
    line = meter.read()
    assert (line.step, line.tokens, line.tokens_per_second) == (3, 192, 64.0)
    assert meter.tokens_per_second == pytest.approx(128 / 3)
    assert meter.seconds == 1053.0


def test_a_checkpoint_carries_the_line_that_is_not_complete(clock):
    """A run that was stopped within a line logs the line that it would have logged, to the last bit."""
    values = [(0.1, 3.0), (0.7, 1.0), (0.2, 5.0), (0.9, 2.0)]
    straight = Meter()
    for step, (total, count) in enumerate(values, 1):
        straight.add(step, 8, metrics(total, count))
    straight.close_line()

    stopped = Meter()
    for step, (total, count) in enumerate(values[:2], 1):
        stopped.add(step, 8, metrics(total, count))
    clock[0] += 7.0
    resumed = Meter(stopped.notes())
    for step, (total, count) in enumerate(values[2:], 3):
        resumed.add(step, 8, metrics(total, count))
    resumed.close_line()
    assert resumed.read().means == straight.read().means
    assert resumed.tokens == 32 and resumed.seconds == 7.0


def test_the_last_line_can_be_read_again_from_the_checkpoint():
    meter = Meter()
    meter.add(1, 8, metrics(3.0, 2.0))
    meter.close_line()
    meter.read(last=1)
    assert Meter(meter.notes()).carried_means() == {"loss": 1.5}


@pytest.mark.parametrize("read", [lambda meter: meter.close_line() or meter.read(), Meter.notes], ids=["line", "save"])
def test_a_loss_that_is_not_finite_is_neither_logged_nor_saved(read):
    meter = Meter()
    for step, loss in enumerate([1.0, 2.0, float("nan"), 1.0], 1):
        meter.add(step, 8, metrics(loss, 1.0))
    with pytest.raises(NotFiniteAt, match="not finite: the loss") as caught:
        read(meter)
    assert caught.value.step == 3


def test_what_is_due_after_a_step():
    loop = Loop(steps=25, log_every=5, eval_every=10, save_every=20)
    due = {done: due_after(done, loop) for done in range(1, 26)}
    assert [done for done in due if due[done].log] == [5, 10, 15, 20, 25]
    assert [done for done in due if due[done].evaluate] == [10, 20]  # the last state is evaluated after the loop
    assert [done for done in due if due[done].save] == [20, 25]
    assert [done for done in due if due[done].wait] == [10, 20, 25]
    assert not any(one.stop for one in due.values())


def test_a_signal_saves_and_stops_at_any_step():
    due = due_after(3, Loop(steps=25, log_every=5, save_every=20), stop=True)
    assert due.save and due.stop and due.wait and not due.log and not due.evaluate


def test_zero_disables_evaluations_and_checkpoints():
    loop = Loop(steps=4, log_every=1, eval_every=0, save_every=0)
    assert not any(due_after(done, loop).evaluate or due_after(done, loop).save for done in range(1, 5))
    assert due_after(2, loop, stop=True).save  # the loop, which has no directory for it, says so


def state(step: int) -> TrainState:
    return TrainState(jnp.asarray(step), {"w": jnp.full(2, float(step))}, {"moment": jnp.zeros(2)})


def test_of_equally_good_states_the_first_is_kept_without_its_optimizer():
    best = Best("dev/accuracy", {"dev", "test"})
    for step, accuracy in enumerate([0.5, 0.8, 0.8, 0.7]):
        best.offer({"dev": {"accuracy": accuracy}, "test": {"accuracy": -accuracy}}, state(step))
    assert int(best.state.step) == 1 and best.state.model["w"].tolist() == [1, 1] and best.state.opt_state is None
    assert best.beats({"dev": {"accuracy": 0.8}}) and not best.beats({"dev": {"accuracy": 0.81}})


def test_a_metric_that_is_not_a_number_never_wins():
    best = Best("dev/accuracy", {"dev"})
    for step, accuracy in enumerate([float("nan"), 0.1, float("nan")]):
        best.offer({"dev": {"accuracy": accuracy}}, state(step))
    assert int(best.state.step) == 1


def test_without_a_metric_no_state_is_kept():
    best = Best(None, {"dev"})
    best.offer({"dev": {"accuracy": 1.0}}, state(1))
    assert best.state is None and not best.beats({"dev": {"accuracy": 0.0}})


@pytest.mark.parametrize("offered", [0, 1])
def test_a_metric_that_an_evaluation_does_not_have_is_refused(offered):
    """Also where the final state alone is evaluated."""
    best = Best("dev/nosuch", {"dev"})
    judged = best.beats if offered == 0 else lambda evals: best.offer(evals, state(1))
    with pytest.raises(InputError, match="loop.best is 'dev/nosuch': the metrics of dev are accuracy, loss"):
        judged({"dev": {"accuracy": 1.0, "loss": 0.0}})


def test_a_metric_of_no_evaluation_is_refused():
    with pytest.raises(InputError, match="loop.best is 'train/loss': the evaluations there are.*: dev"):
        Best("train/loss", ["dev"])


def test_the_kept_state_is_a_copy():
    """The loop donates its state to the next step."""
    best, given = Best("dev/accuracy", {"dev"}), state(1)
    best.offer({"dev": {"accuracy": 1.0}}, given)
    given.model["w"].delete()
    assert best.state.model["w"].tolist() == [1, 1]
