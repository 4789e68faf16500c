"""What a run measures while it trains: metrics of the steps since the last line of the log, tokens, seconds."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmlm.training.finite import NotFiniteAt
from jaxmlm.training.task import Mean

Metrics = dict[str, Mean]
SHORT = 1.0
"""Log intervals of fewer seconds report the average speed since the start."""
MAX_SKIPPED = 20
"""Updates skipped in a row, for gradients that are not finite, after which training ends."""


class Line(NamedTuple):
    """A line of the log: the step reached, the means of its steps, the tokens trained on in all, tokens per second."""

    step: int
    means: dict[str, float]
    tokens: int
    tokens_per_second: float


class _Steps(NamedTuple):
    """The steps of one log line; their metrics may still be being computed on the devices."""

    last: int
    tokens: int
    sizes: list[int]
    metrics: list[Metrics]

    @property
    def first(self) -> int:
        return self.last - len(self.metrics) + 1


class Meter:
    """The measurements of a run; a resumed run continues those of its checkpoint.

    Metrics stay on the devices until `read`, which is called while the next step runs. The sums of a line that is not
    complete are part of a checkpoint: a run that was stopped logs what it would have.

    >>> meter = Meter()
    >>> meter.add(1, 64, {"loss": Mean(np.float32(6.0), np.float32(2.0))})
    >>> meter.close_line()
    >>> meter.read().means, meter.tokens
    ({'loss': 3.0}, 64)
    """

    def __init__(self, notes: dict[str, Any] | None = None, started: float | None = None):
        notes = notes or {}
        self.tokens: int = notes.get("tokens", 0)
        """Tokens trained on in all starts of the run, padding included."""
        self._carried: list[Any] = notes.get("window", [])
        self._started = (time.perf_counter() if started is None else started) - notes.get("seconds", 0.0)
        self._sizes: list[int] = []
        self._metrics: list[Metrics] = []
        self._line: _Steps | None = None
        self._done = 0
        self._skipped_in_a_row: int = notes.get("skipped_in_a_row", 0)
        self._timed_from: int | None = None
        self._timed_since = 0.0
        self._timed_seconds = 0.0
        self._timed_tokens = 0

    @property
    def seconds(self) -> float:
        """Seconds that were spent in all starts of the run, up to their last checkpoints."""
        return time.perf_counter() - self._started

    @property
    def tokens_per_second(self) -> float:
        """Of all lines of this start, without the first step (which compiles), evaluations and checkpoints."""
        return self._timed_tokens / self._timed_seconds if self._timed_seconds else 0.0

    @property
    def line_is_due(self) -> bool:
        """Whether a line was closed and not read."""
        return self._line is not None

    def start(self, step: int) -> None:
        """Start the clock after the first step of this start, which compiled and is not timed."""
        self._timed_from = step
        self._timed_since = time.perf_counter()

    def add(self, done: int, tokens: int, metrics: Metrics) -> None:
        """Add a step.

        Args:
            done: steps done, this one included.
            tokens: in its batch.
            metrics: what the step returned; they are not read here.

        """
        self.tokens += tokens
        self._sizes.append(0 if done == self._timed_from else tokens)
        self._metrics.append(metrics)
        self._done = done

    def close_line(self) -> None:
        """End the line of the log with the last step that was added."""
        self._line = _Steps(self._done, self.tokens, self._sizes, self._metrics)
        self._sizes = []
        self._metrics = []

    def read(self, last: int | None = None) -> Line:
        """Read the closed line from the devices; waits for its last step.

        Args:
            last: the last step of the run. The sums of its line stay part of the checkpoint, for who reads it again.

        Raises:
            NotFiniteAt: a loss or a weight is not finite, or so were the gradients of `MAX_SKIPPED` steps in a row.

        """
        line = self._line
        assert line is not None, "no line is closed"
        self._line = None
        metrics = jax.device_get(line.metrics)
        self._skipped_in_a_row = _check_finite(metrics, line.first, self._skipped_in_a_row)
        sums = _sums(self._carried + metrics)
        self._carried = sums if line.last == last else []
        now = time.perf_counter()
        passed = now - self._timed_since
        tokens = sum(line.sizes)
        self._timed_since = now
        self._timed_seconds += passed
        self._timed_tokens += tokens
        # A short interval times badly: its line is read one step late, or at once if it is the last.
        speed = tokens / passed if passed >= SHORT else self.tokens_per_second
        return Line(line.last, _means(sums), line.tokens, speed)

    def carried_means(self) -> dict[str, float]:
        """The means of the unfinished line in the checkpoint; after the last step, those of the last line."""
        return _means(self._carried)

    def notes(self) -> dict[str, Any]:
        """What a checkpoint keeps, for `Meter(notes)` of the run that resumes from it.

        Raises:
            NotFiniteAt: as `read`: a diverged state must not take the place of a good checkpoint.

        """
        metrics = jax.device_get(self._metrics)
        skipped = _check_finite(metrics, self._done - len(metrics) + 1, self._skipped_in_a_row)
        window = _sums(self._carried + metrics)
        return {"window": window, "tokens": self.tokens, "seconds": self.seconds, "skipped_in_a_row": skipped}

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time within as training."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._timed_since += time.perf_counter() - began


def _sums(metrics: list[Any]) -> list[dict[str, Any]]:
    """The totals and counts of some steps as one, added in order: bit for bit the same when it is done in parts."""
    names = metrics[0] if metrics else {}
    sums = {
        name: (sum(float(one[name][0]) for one in metrics), sum(float(one[name][1]) for one in metrics))
        for name in names
    }
    return [sums] if sums else []


def _means(sums: list[dict[str, Any]]) -> dict[str, float]:
    return {name: total / max(count, 1.0) for one in sums for name, (total, count) in one.items()}


def _check_finite(metrics: list[Metrics], first: int, skipped: int) -> int:
    """Refuse steps that are not finite.

    Args:
        metrics: of steps one after the other, on the host.
        first: the first of them.
        skipped: number of updates skipped in a row before it.

    Returns:
        the number of updates skipped in a row at the end.

    """
    for step, one in enumerate(metrics, first):
        if not np.isfinite(one["loss"].total):
            raise NotFiniteAt(step, ["the loss"])
        if "param_norm" in one and not one["param_norm"].count:
            raise NotFiniteAt(step, ["the weights"])
        skipped = skipped + 1 if "skipped_updates" in one and one["skipped_updates"].total else 0
        if skipped >= MAX_SKIPPED:
            raise NotFiniteAt(step, [f"the gradients of {skipped} steps in a row"])
    return skipped
