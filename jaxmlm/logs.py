"""What a run says while it runs: JSON lines in a file; a progress bar on a terminal, plain lines elsewhere."""

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from jaxmlm.json_files import drop_truncated_line, read_jsonl, to_json
from jaxmlm.parallel.hosts import all_gather_json
from jaxmlm.paths import counted


class Log:
    """The log of one stage of work of `total` steps. A context manager.

    >>> with Log(None, "pretrain", 100) as log:
    ...     log.record({"step": 50, "loss": 6.1234, "tokens_per_second": 20000.0}, at=50)
    """

    def __init__(self, path: Path | None, stage: str, total: int):
        self.path, self.stage, self.total = path, stage, total
        self.quiet = jax.process_index() != 0
        console = Console(stderr=True)
        self._bar = bar(console)
        self._plain = not console.is_terminal and total > 0
        self._said = 0.0
        self._task = self._bar.add_task(stage, total=total or None, note="")

    def __enter__(self) -> "Log":
        if not self.quiet:
            if self.path is not None:
                drop_truncated_line(self.path)
            self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def record(self, values: dict, at: int) -> None:
        """Append a line to the log and show it; `at` is the step reached.

        A number that is not finite is null in the log, and its name stands in `not_finite`.
        """
        if self.quiet:
            return
        if self.path is not None:
            bad = [name for name, value in values.items() if isinstance(value, float) and not math.isfinite(value)]
            with open(self.path, "a") as file:
                file.write(to_json({**values, **({"not_finite": bad} if bad else {})}) + "\n")
        self.show(at, values)

    def lacks_judgement(self, step: int, every: int) -> bool:
        """Whether the judgement that is due at this step is not in the log, as after a stop within it."""
        if self.path is None or not every or not step or step % every:
            return False
        known = not self.quiet and self.path.is_file()
        lines = read_jsonl(self.path) if known else []
        return all_gather_json(not any("eval" in line and line["step"] == step for line in lines))[0]

    def show(self, at: int, values: dict) -> None:
        """Show a line without keeping it; without a terminal at most one every ten seconds."""
        note = "  ".join(said for key, value in values.items() if key in _SHOWN and (said := _SHOWN[key](value)))
        self._bar.update(self._task, completed=at, note=note)
        if self._plain and not self.quiet and (time.monotonic() - self._said > 10 or at == self.total):
            self._said = time.monotonic()
            print(f"{self.stage}: {at}/{self.total}  {note}", file=sys.stderr, flush=True)


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
        disable=not console.is_terminal,
        expand=True,
    )


_SHOWN: dict[str, Callable[[float], str]] = {
    "loss": lambda value: f"loss {value:.3f}",
    "tokens_per_second": lambda value: f"tokens/s {value:,.0f}",
    "documents": lambda value: counted(int(value), "document"),
    "tokens_done": lambda value: counted(int(value), "token"),
    "seconds_left": lambda value: f"{value:,.0f} s left" if value >= 1 else "",
}
"""What is shown of a line, and how."""
