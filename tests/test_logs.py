"""What is written and shown while a run runs."""

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from jaxmlm import logs
from jaxmlm.errors import InputError
from jaxmlm.logs import Log, read_log


def strict(text: str):
    """JSON as the standard has it: NaN and infinity are errors."""

    def refused(name: str):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refused)


def test_a_number_that_is_not_finite_is_null_in_the_log_and_named(tmp_path):
    with Log(tmp_path / "log.jsonl", "stage", 2) as log:
        log.record({"step": 1, "loss": 2.0}, at=1)
        log.record({"step": 2, "eval": "heldout", "loss": 1e4, "perplexity": math.inf, "accuracy": math.nan}, at=2)
    first, second = map(strict, (tmp_path / "log.jsonl").read_text().splitlines())
    assert first == {"step": 1, "loss": 2.0}
    assert second["perplexity"] is None and second["not_finite"] == ["perplexity", "accuracy"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"documents": 9, "tokens_done": 12_345, "seconds_left": 0.0}, "9 documents  12,345 tokens"),
        ({"documents": 1, "tokens_done": 1, "seconds_left": 61.4}, "1 document  1 token  61 s left"),
        ({"loss": 6.1234, "tokens_per_second": 99.0}, "loss 6.123  tokens/s 99"),
        ({"loss": 123.456, "tokens_per_second": 20_000.4}, "loss 123.456  tokens/s 20,000"),
        ({"documents": 0, "other": 3}, "0 documents"),
    ],
)
def test_counts_are_shown_as_counts(values, said, capsys):
    with Log(None, "prepare", 5) as log:
        log.show(5, values)
    assert capsys.readouterr().err == f"prepare: 5/5  {said}\n"


def test_the_end_is_told_once(capsys):
    """An evaluation after the last step is a line of the log that says nothing more on the terminal."""
    with Log(None, "pretrain", 5) as log:
        log.show(5, {"loss": 6.1})
        log.show(5, {"heldout/loss": 6.2})
    assert capsys.readouterr().err == "pretrain: 5/5  loss 6.100\n"


@pytest.mark.parametrize("width", [50, 60, 80, 120])
def test_the_count_is_whole_on_any_terminal(width):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, height=10)
    progress = logs.bar(console)
    task = progress.add_task(
        "[12/27] rate=0.15 layers=2 seed=0: pretrain", total=23_000, note="loss 6.123  tokens/s 20"
    )
    progress.update(task, completed=4_000)
    console.print(progress.get_renderable())
    shown = [line for line in out.getvalue().splitlines() if line.strip()]
    assert len(shown) == 1 and "4000/23000" in Path(shown[0]).as_posix().replace(" ", "")
    short = logs.bar(console)
    task = short.add_task("pretrain", total=400, note="loss 6.1")
    short.update(task, completed=40)
    console.print(short.get_renderable())
    shown = out.getvalue().splitlines()[-1]
    assert "pretrain" in shown and " 40/400" in shown and "loss 6.1" in shown


def test_a_terminal_that_draws_no_bar_gets_lines(monkeypatch, capsys):
    """That of an editor, TERM=dumb: a bar would be drawn when all is done."""
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(logs, "Console", lambda stderr: Console(stderr=stderr, force_terminal=True))
    with Log(None, "pretrain", 100) as log:
        log.show(50, {"loss": 6.1})
        assert capsys.readouterr().err == "pretrain: 50/100  loss 6.100\n"
        log.show(100, {"loss": 6.0})
    assert capsys.readouterr().err == "pretrain: 100/100  loss 6.000\n"


def test_a_line_without_a_step_is_named(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"stdp": 2, "loss": 2.0}\n')
    with pytest.raises(InputError, match=r"log.jsonl, line 2 has no step: it is damaged"):
        read_log(path)
    assert len(read_log(tmp_path / "none")) == 0
