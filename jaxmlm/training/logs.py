"""What a run says while it runs: JSON lines in a file; a progress bar on a terminal, plain lines elsewhere."""

import json
import sys
import time
from pathlib import Path
from types import TracebackType

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxmlm.parallel.hosts import told_by_all


class Log:
    """The log of one stage of work of `total` steps. A context manager.

    >>> with Log(None, "pretrain", 100) as log:
    ...     log.record({"step": 50, "loss": 6.1234, "tokens_per_second": 20000.0}, at=50)
    """

    def __init__(self, path: Path | None, stage: str, total: int):
        self.path, self.stage, self.total = path, stage, total
        self.quiet = jax.process_index() != 0
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
        )
        self._plain = not console.is_terminal and total > 0
        self._said = 0.0
        self._task = self._bar.add_task(stage, total=total or None, note="")

    def __enter__(self) -> "Log":
        if not self.quiet:
            if self.path is not None and self.path.is_file():
                with open(self.path, "rb+") as f:  # a last line that a kill or a full disk cut short gives way
                    f.truncate(f.read().rfind(b"\n") + 1)
            self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def record(self, values: dict, at: int) -> None:
        """Append a line to the log and show it; `at` is the step reached."""
        if self.quiet:
            return
        if self.path is not None:
            with open(self.path, "a") as f:
                f.write(json.dumps(values) + "\n")
        self.show(at, values)

    def lacks_judgement(self, step: int, every: int) -> bool:
        """Whether the judgement that is due at this step is not in the log, as after a stop within it."""
        if self.path is None or not every or not step or step % every:
            return False
        known = not self.quiet and self.path.is_file()
        lines = [json.loads(line) for line in self.path.read_text().splitlines()] if known else []
        return told_by_all(not any("eval" in line and line["step"] == step for line in lines))[0]

    def show(self, at: int, values: dict) -> None:
        """Show a line without keeping it; without a terminal at most one every ten seconds."""
        note = "  ".join(f"{_SHOWN[key]} {_short(value)}" for key, value in values.items() if key in _SHOWN)
        self._bar.update(self._task, completed=at, note=note)
        if self._plain and not self.quiet and (time.monotonic() - self._said > 10 or at == self.total):
            self._said = time.monotonic()
            print(f"{self.stage}: {at}/{self.total}  {note}", file=sys.stderr, flush=True)


_SHOWN = {
    "loss": "loss",
    "tokens_per_second": "tokens/s",
    "documents": "documents",
    "tokens_done": "tokens",
    "seconds_left": "s left",
}


def _short(value: int | float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3f}"
