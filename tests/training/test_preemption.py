"""A signal at any moment: the step is finished and saved, and the run that goes on ends as the one nobody stopped."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax
import pytest
from jax.experimental import multihost_utils

from jaxmlm.data import Data
from jaxmlm.errors import Preempted
from jaxmlm.parallel import Mesh, make_mesh
from jaxmlm.preemption import all_hosts_stop, stop_requested, stoppable
from jaxmlm.runs.run import Run
from jaxmlm.tools.prepare import prepare
from jaxmlm.training import Checkpoints, Eval, Loop, Optim, evaluate, train
from tests.training.test_loop import assert_equal, batch_at, linear_task

STEPS = 6
LOOP = Loop(STEPS, 8, save_every=4, log_every=4, eval_every=2)
OPTIM = Optim(learning_rate=0.01)


def signalled(number: int = signal.SIGTERM) -> None:
    """What the system does to this process."""
    os.kill(os.getpid(), number)


def judged(when: int | None = None, number: int = signal.SIGTERM) -> Eval:
    """An evaluation of three batches; in its `when`-th batch of all a signal comes."""
    seen = []

    def batches():
        for i in range(3):
            seen.append(i)
            if len(seen) == when:
                signalled(number)
            yield batch_at(i)

    return Eval(
        batches, lambda model, batch: {"x": model(batch["x"]).sum(-1)}, lambda out: {"x": float(out["x"].sum())}
    )


def one_device() -> jax.sharding.Mesh:
    return make_mesh(Mesh(), jax.devices()[:1])


def lines(directory: Path) -> list[dict[str, Any]]:
    read = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "tokens_per_second"} for line in read]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Any, Path]:
    """The run that nobody stops."""
    directory = tmp_path_factory.mktemp("whole")
    return train(linear_task(evals={"x": judged()}), OPTIM, LOOP, one_device(), directory), directory


def at_step(stop: int, number: int):
    def at(step: int):
        if step == stop:  # asked for by the thread that reads ahead
            signalled(number)
        return batch_at(step)

    return at


@pytest.mark.parametrize(
    ("task", "reached"),
    [
        (lambda: linear_task(at_step(3, signal.SIGTERM), evals={"x": judged()}), range(2, 5)),
        (lambda: linear_task(at_step(5, signal.SIGINT), evals={"x": judged()}), range(4, 7)),
        (lambda: linear_task(evals={"x": judged(2)}), [2]),  # within the evaluation of step 2
        (lambda: linear_task(evals={"x": judged(5)}), [4]),  # of step 4, where a checkpoint is due too
        (lambda: linear_task(evals={"x": judged(9)}), [6]),  # the last one
    ],
)
def test_a_stopped_run_goes_on_to_the_same_end(task, reached, whole, tmp_path):
    with pytest.raises(Preempted, match="stopped by a signal"):
        train(task(), OPTIM, LOOP, one_device(), tmp_path)
    saved = [int(directory.name) for directory in (tmp_path / "checkpoints").iterdir()]
    assert max(saved) in reached
    done = train(linear_task(evals={"x": judged()}), OPTIM, LOOP, one_device(), tmp_path)
    assert_equal(done.state, whole[0].state)
    assert (done.loss, done.evals) == (whole[0].loss, whole[0].evals)
    assert lines(tmp_path) == lines(whole[1])


def test_nothing_is_trained_after_a_signal_that_came_before(tmp_path):
    with stoppable():
        signalled()
        with pytest.raises(Preempted, match="before the first step"):
            train(linear_task(), OPTIM, LOOP, one_device(), tmp_path)
    assert not (tmp_path / "log.jsonl").exists()


def test_a_run_without_checkpoints_says_that_it_saved_nothing():
    with pytest.raises(Preempted, match="and not saved"):
        train(linear_task(at_step(4, signal.SIGTERM)), OPTIM, LOOP, one_device())


def test_an_evaluation_alone_stops():
    with stoppable(), jax.set_mesh(one_device()), pytest.raises(Preempted, match="within an evaluation"):
        evaluate(judged(2), linear_task().init(jax.random.key(0)), one_device())


def test_handlers_are_put_back_and_are_not_ours_to_take_in_threads():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stoppable():
        with stoppable():
            signalled(signal.SIGINT)
        assert stop_requested() and all_hosts_stop()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert not stop_requested() and not all_hosts_stop()  # what a notebook runs next, after Ctrl-C, is not stopped
    with stoppable():
        assert not all_hosts_stop()

    def elsewhere():
        with stoppable():
            assert signal.getsignal(signal.SIGINT) == before[0]

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()


def test_preparing_text_stops_and_goes_on(tmp_path, monkeypatch):
    from jaxmlm.synthetic import world

    documents, times = world.documents, []

    def signals_once(seed: int, count: int):
        for i, document in enumerate(documents(seed, count)):
            if i == 700 and not times:
                times.append(i)
                signalled()
            yield document

    monkeypatch.setattr(world, "documents", signals_once)
    run = Run(workdir=str(tmp_path / "run"), data=Data(text="sample:1500", vocab=300, length=16))
    with pytest.raises(Preempted, match="while it prepared the text"):
        prepare(run)
    assert not list(tmp_path.rglob("manifest.json"))
    whole = prepare(dataclasses.replace(run, workdir=str(tmp_path / "whole")))
    assert {**prepare(run), "store": ""} == {**whole, "store": ""}


FOREIGN = """
import ctypes, os, signal
from jaxmlm.preemption import all_hosts_stop, install_handlers, stoppable
from jaxmlm.signals import handler_address, set_handler_address
told = []
as_jax = ctypes.CFUNCTYPE(None, ctypes.c_int)(told.append)
address = ctypes.cast(as_jax, ctypes.c_void_p).value
set_handler_address(signal.SIGTERM, address)
with stoppable():
    os.kill(os.getpid(), signal.SIGINT)
    assert all_hosts_stop() and told == [signal.SIGTERM], told
assert handler_address(signal.SIGTERM) == address
with stoppable():
    set_handler_address(signal.SIGTERM, address)  # as when the processes join within the body
    install_handlers()
    os.kill(os.getpid(), signal.SIGTERM)
    assert all_hosts_stop() and told == [signal.SIGTERM] * 2, told
"""


def test_a_handler_of_c_is_told_of_either_signal_and_put_back():
    assert subprocess.run([sys.executable, "-c", FOREIGN], stderr=subprocess.DEVNULL).returncode == 0


LONG = """
import hashlib
from jaxmlm.preemption import stoppable
with stoppable():
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 29)  # minutes, as XLA may take, in which Python runs no handler
"""


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_at_once_even_within_a_long_c_call(second):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", LONG], **pipes) as busy:
        guard = threading.Timer(60, busy.kill)
        guard.start()
        assert busy.stdout.readline() == "busy\n"
        time.sleep(0.2)  # now it is within the call
        busy.send_signal(signal.SIGTERM)
        assert "a second signal stops at once" in busy.stderr.readline()
        busy.send_signal(second)
        assert busy.communicate() == ("", "") and busy.returncode == -second
        guard.cancel()


LAST = """
import os, signal
from jaxmlm.preemption import stoppable
with stoppable(last=True):
    os.kill(os.getpid(), signal.SIGTERM)
for number in (signal.SIGTERM, signal.SIGINT):
    os.kill(os.getpid(), number)
raise SystemExit(75)
"""


def test_a_signal_that_comes_when_the_exit_code_is_decided_does_not_change_it():
    assert subprocess.run([sys.executable, "-c", LAST], stderr=subprocess.PIPE).returncode == 75


def test_a_save_does_not_count_as_a_call_that_agrees_on_a_stop(tmp_path, monkeypatch):
    """JAX has one counter for it: Orbax, asking at the step's number, would set a point that no later call meets."""
    asked = []
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", lambda call: bool(asked.append(call)))
    train(linear_task(), OPTIM, Loop(2, 8, save_every=1), one_device(), tmp_path)
    assert Checkpoints(tmp_path / "checkpoints", read=True).latest() == 2 and not asked


def test_a_checkpoint_keeps_its_notes(tmp_path):
    mesh = one_device()
    state = train(linear_task(), OPTIM, Loop(1, 8, save_every=0), mesh).state
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, {"window": [{"loss": (0.1 + 0.2, 3.0)}], "tokens": 7})
    checkpoints.close()
    assert Checkpoints(tmp_path, read=True).notes() == {"window": [{"loss": [0.1 + 0.2, 3.0]}], "tokens": 7}
