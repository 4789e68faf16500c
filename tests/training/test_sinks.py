"""Where the log goes beside its file: a user's sink here, TensorBoard and W&B in tests/parity."""

from pathlib import Path
from typing import Any

import pytest

from jaxmlm.errors import InputError
from jaxmlm.training import Loop, train
from jaxmlm.training.sinks import find_sinks
from jaxmlm.wording import install_command
from tests.training.test_loop import OPTIM, STEPS, Killed, counting_eval, devices, killed_at, linear_task, lines

MADE: list["Recorder"] = []


class Recorder:
    """A user's sink."""

    def __init__(self, directory: Path, stage: str, step: int):
        self.arguments = (directory, stage, step)
        self.written: list[tuple[int, dict[str, Any]]] = []
        self.closed = False
        MADE.append(self)

    def write(self, values: dict[str, Any], step: int) -> None:
        self.written.append((step, values))

    def close(self) -> None:
        self.closed = True


def test_a_sink_gets_each_line_of_the_log_and_where_a_run_resumes(tmp_path):
    MADE.clear()
    loop = Loop(STEPS, 8, log_every=1, save_every=2, eval_every=2, sinks=(f"{__name__}:Recorder",))
    with pytest.raises(Killed):
        train(linear_task(killed_at(5), evals=counting_eval([])), OPTIM, loop, devices(1, 1, 1), tmp_path)
    train(linear_task(evals=counting_eval([])), OPTIM, loop, devices(1, 1, 1), tmp_path)
    killed, resumed = MADE
    assert killed.closed and resumed.closed
    assert killed.arguments == (tmp_path, "train", 0) and resumed.arguments == (tmp_path, "train", 4)
    assert [values for _, values in resumed.written] == lines(tmp_path)[-len(resumed.written) :]
    assert all(step == values["step"] for step, values in killed.written + resumed.written)
    assert any("eval" in values for _, values in resumed.written)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("csv", "loop.sinks: no sink 'csv': there are tensorboard, wandb; name one of your own as FILE.py:NAME"),
        ("no_such_module:Sink", "a sink: no_such_module cannot be imported: ModuleNotFoundError: No module named"),
        ("math:Sink", "loop.sinks: a sink: math defines no 'Sink'"),
        ("missing.py:Sink", "loop.sinks: a sink: missing.py is missing: FILE.py:NAME takes"),
        (":Sink", "a sink of your own is named FILE.py:NAME or MODULE:NAME; got ':Sink'"),
    ],
)
def test_a_sink_that_is_not_there_is_refused_before_the_first_step(name, message, tmp_path):
    with pytest.raises(InputError, match=message):
        train(linear_task(), OPTIM, Loop(STEPS, 8, sinks=(name,)), devices(1, 1, 1), tmp_path)


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        find_sinks(["tensorboard"])
    assert str(caught.value).endswith("tensorboard needs tensorboardX: " + install_command("tensorboard"))
