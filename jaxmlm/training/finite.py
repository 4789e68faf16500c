"""What happens when a number is not finite: named, explained, never saved."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jaxmlm.errors import Diverged
from jaxmlm.training.task import Task

SHOWN = 8
"""Example ids that are named of a step's rows."""


class NotFinite(ArithmeticError):
    """Numbers that must be finite are not.

    Attributes:
        names: what holds them.

    """

    def __init__(self, names: Sequence[str]):
        super().__init__(f"not finite: {', '.join(names[:3])}{' and others' if len(names) > 3 else ''}")
        self.names = names


class NotFiniteAt(NotFinite):
    """The first step at which numbers are not finite.

    Attributes:
        step: it, from 1.
        names: what holds them.

    """

    def __init__(self, step: int, names: Sequence[str]):
        super().__init__(names)
        self.step = step


@contextmanager
def explained(task: Task, directory: Path | None) -> Iterator[None]:
    """Say of numbers that are not finite in which rows that happened, what is safe, and what to do.

    Args:
        task: what is trained.
        directory: directory of the run; None: it writes nothing.

    Raises:
        Diverged: in place of a `NotFiniteAt`.

    """
    try:
        yield
    except NotFiniteAt as error:
        lower = "set a lower optim.learning_rate, or optim.clip 1.0"
        why = f"step {error.step}: {error}"
        raise Diverged(f"{why}{_rows(task, error.step)}: {lower}{_kept(directory)}", why) from error


def _rows(task: Task, step: int) -> str:
    ids = [str(one) for one in task.batch_at(step - 1).get("example", [])]
    return f" (rows {', '.join(ids[:SHOWN])}{', ...' if len(ids) > SHOWN else ''})" if ids else ""


def _kept(directory: Path | None) -> str:
    """What can be trained from."""
    if directory is None:
        return ""
    steps = [int(path.name) for path in directory.glob("checkpoints/*") if path.name.isdigit()]
    if not steps:
        return ", and another --workdir"
    return f", and another --workdir; --init {directory}/checkpoints/{max(steps)} starts from the last good checkpoint"
