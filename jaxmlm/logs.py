"""The log of a run: JSON lines in a file, a progress bar on a terminal (plain lines elsewhere), further sinks."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from jaxmlm.errors import InputError
from jaxmlm.json_files import drop_truncated_line, read_jsonl, to_json, write_text
from jaxmlm.parallel.hosts import all_gather_json
from jaxmlm.wording import counted


@runtime_checkable
class Sink(Protocol):
    """Where lines of the log go. A sink is made and written to by the primary process alone."""

    def write(self, values: dict[str, Any], step: int) -> None:
        """Write a line of the log: metrics of training, or with "eval" (its name) those of an evaluation."""
        ...

    def close(self) -> None:
        """Finish: the run ends, also by an error."""
        ...


class JsonLines:
    """A file of JSON lines. A number that is not finite is null there, and its name stands in `not_finite`.

    Args:
        path: the file.
        step: the step from which the work starts or resumes. Lines of later steps come again, and are dropped.
        total: steps of the work: the evaluation of the last one comes again too.

    """

    def __init__(self, path: Path, step: int = 0, total: int = 0):
        self.path = path
        known = read_log(path)
        kept = [one for one in known if one["step"] < step or (one["step"] == step and not (_is_final(one, total)))]
        if len(kept) < len(known):
            write_text(path, "".join(to_json(one) + "\n" for one in kept))
        drop_truncated_line(path)

    def write(self, values: dict[str, Any], step: int) -> None:
        """Append a line."""
        bad = [name for name, value in values.items() if isinstance(value, float) and not math.isfinite(value)]
        with open(self.path, "a") as file:
            file.write(to_json({**values, **({"not_finite": bad} if bad else {})}) + "\n")

    def close(self) -> None:
        """Every line is written."""


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the complete lines of a log; no file has none.

    Raises:
        InputError: a line has no step.

    """
    lines = read_jsonl(path)
    for number, line in enumerate(lines, 1):
        if type(line.get("step")) is not int:
            raise InputError(f"{path}, line {number} has no step: it is damaged, or was edited: delete that line")
    return lines


def _is_final(line: dict[str, Any], total: int) -> bool:
    return "eval" in line and line["step"] == total


def scalars(values: dict[str, Any]) -> dict[str, float]:
    """The numbers of a line of the log under the names that plots group by: train/NAME, or EVAL/NAME.

    >>> scalars({"step": 50, "loss": 6.5}), scalars({"step": 50, "eval": "heldout", "loss": 6.25})
    ({'train/loss': 6.5}, {'heldout/loss': 6.25})
    """
    group = values.get("eval", "train")
    return {
        f"{group}/{name}": value for name, value in values.items() if name != "step" and isinstance(value, int | float)
    }


class Log:
    """The log of one stage of work: JSON lines in a file, a progress bar, further sinks. A context manager.

    Only the primary process writes.

    Args:
        path: file of JSON lines; None: the terminal alone.
        stage: what the terminal calls the work.
        total: steps of the work; 0: not known.
        sinks: make the further sinks.
        step: the step from which the work starts or resumes; lines of the file that come again are dropped.

    >>> with Log(None, "pretrain", 100) as log:
    ...     log.record({"step": 50, "loss": 6.1234, "tokens_per_second": 20000.0}, at=50)
    """

    def __init__(
        self, path: Path | None, stage: str, total: int, sinks: Sequence[Callable[[], Sink]] = (), step: int = 0
    ):
        self.path = path
        self.stage = stage
        self.total = total
        self.quiet = jax.process_index() != 0
        self._step = step
        self._make = sinks
        self._sinks: list[Sink] = []
        console = Console(stderr=True)
        self._bar = bar(console)
        self._plain = not draws_bars(console) and total > 0
        self._said = 0.0
        self._ended = False
        self._task = self._bar.add_task(stage, total=total or None, note="")

    def __enter__(self) -> "Log":
        if not self.quiet:
            if self.path is not None:
                self._sinks.append(JsonLines(self.path, self._step, self.total))
            self._sinks += [make() for make in self._make]
            self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()
        for sink in self._sinks:
            sink.close()

    def record(self, values: dict, at: int) -> None:
        """Write a line to all sinks and show it; `at` is the step reached."""
        if self.quiet:
            return
        for sink in self._sinks:
            sink.write(values, at)
        self.show(at, values)

    def warn(self, message: str) -> None:
        """Say something on the terminal that must not be overlooked."""
        if not self.quiet:
            self._bar.console.print(f"{self.stage}: {message}", highlight=False, markup=False, soft_wrap=True)

    def lacks_evaluation(self, step: int, every: int) -> bool:
        """Whether the evaluation that is due at this step is not in the log, as after a stop within it."""
        if self.path is None or not every or not step or step % every:
            return False
        known = not self.quiet and self.path.is_file()
        lines = read_log(self.path) if known else []
        return all_gather_json(not any("eval" in line and line["step"] == step for line in lines))[0]

    def show(self, at: int, values: dict) -> None:
        """Show a line without keeping it; without a terminal at most one every ten seconds."""
        note = "  ".join(said for key, value in values.items() if key in _SHOWN and (said := _SHOWN[key](value)))
        self._bar.update(self._task, completed=at, note=note)
        ended = at == self.total and (note or not self._ended)  # an evaluation after the last step has no note
        if self._plain and not self.quiet and (time.monotonic() - self._said > 10 or ended):
            self._said = time.monotonic()
            self._ended = at == self.total
            print(f"{self.stage}: {at}/{self.total}  {note}", file=sys.stderr, flush=True)


def draws_bars(console: Console) -> bool:
    """Whether it is a terminal that can draw a line anew; that of an editor (TERM=dumb) cannot."""
    return console.is_terminal and not console.is_dumb_terminal


def bar(console: Console) -> Progress:
    """The progress bar of a stage: where the terminal is narrow, its notes give way, then its name, never its count."""
    name = Column(no_wrap=True, overflow="ellipsis", max_width=max(16, console.width - 40))
    return Progress(
        TextColumn("{task.description}", table_column=name),
        BarColumn(12),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        console=console,
        disable=not draws_bars(console),
        expand=True,
    )


_SHOWN: dict[str, Callable[[float], str]] = {
    "loss": lambda value: f"loss {value:.3f}",
    "tokens_per_second": lambda value: f"tokens/s {value:,.0f}" if value else "",
    "documents": lambda value: counted(int(value), "document"),
    "tokens_done": lambda value: counted(int(value), "token"),
    "seconds_left": lambda value: f"{value:,.0f} s left" if value >= 1 else "",
}
"""What is shown of a line, and how."""
