"""The length of a run and its intervals, and what is due after a step: a function of the step alone, as a resumed run
needs."""

from dataclasses import dataclass
from typing import NamedTuple

from jaxmlm.checks import COUNT, NATURAL, check_numbers
from jaxmlm.errors import InputError
from jaxmlm.training.budget import seconds


@dataclass(frozen=True)
class Loop:
    """Training length, batch size, and intervals in steps (0 disables)."""

    steps: int = 1000
    """Training steps."""
    batch: int = 32
    """Rows of a step, over all devices."""
    seed: int = 0
    """Seed of the initial weights, the order of the rows, masks and dropout."""
    save_every: int = 500
    """Steps between checkpoints; one is also written at the end; 0: no checkpoint at all."""
    keep: tuple[int, ...] = ()
    """Steps whose checkpoints are written and kept for good; of all others the two newest are kept."""
    eval_every: int = 0
    """Steps between evaluations; the final state is always evaluated."""
    log_every: int = 50
    """Steps between lines of the log; a line holds the means over them."""
    accumulate: int = 1
    """Micro-batches per step (gradient accumulation), for less memory."""
    budget: str | None = None
    """Time to train for, as 24h or 90m: 50 steps are timed once, and `steps` becomes what fits."""
    best: str | None = None
    """Metric, as dev/accuracy: the evaluated state with its highest value is kept at the end, not the last state."""
    fallback: bool = True
    """Whether a damaged newest checkpoint is set aside, and the one before it is used."""
    sinks: tuple[str, ...] = ()
    """Where the log goes beside log.jsonl: tensorboard, wandb, or a sink of your own as FILE.py:NAME."""

    def __post_init__(self) -> None:
        check_numbers(self, "loop.", steps=NATURAL, seed=NATURAL, save_every=NATURAL, eval_every=NATURAL)
        check_numbers(self, "loop.", batch=COUNT, log_every=COUNT, accumulate=COUNT, keep=COUNT)
        if self.keep and not self.save_every:
            raise InputError("loop.keep names steps to keep, and loop.save_every 0 writes no checkpoint: leave out one")
        if self.batch % self.accumulate:
            raise InputError(
                f"loop.accumulate is {self.accumulate}: it must be at least 1 and divide loop.batch {self.batch}"
            )
        if self.budget is not None:
            seconds(self.budget)

    @property
    def rows(self) -> tuple[str, int, str]:
        """What a mesh must divide: (what it is, how many, its logical axis)."""
        name = f"loop.batch {self.batch} / loop.accumulate {self.accumulate}" if self.accumulate > 1 else "loop.batch"
        return name, self.batch // self.accumulate, "batch"


class Due(NamedTuple):
    """What to do after a step, in this order.

    Attributes:
        log: a line of the log ends with this step.
        wait: the line is read at once, not while the next step runs.
        evaluate: evaluate the state. That of the last step is evaluated after the loop.
        save: write a checkpoint.
        stop: leave, after a signal.

    """

    log: bool
    wait: bool
    evaluate: bool
    save: bool
    stop: bool


def due_after(done: int, loop: Loop, stop: bool = False) -> Due:
    """What is due when `done` steps are done.

    Args:
        done: number of steps done, from 1.
        loop: the intervals.
        stop: whether a signal asks to stop.

    >>> due_after(100, Loop(steps=1000, log_every=50, save_every=500))
    Due(log=True, wait=False, evaluate=False, save=False, stop=False)
    """
    last = done == loop.steps
    evaluate = _divides(loop.eval_every, done) and not last
    save = bool(loop.save_every) and (last or _divides(loop.save_every, done) or done in loop.keep)
    return Due(
        log=last or _divides(loop.log_every, done),
        wait=last or evaluate or save or stop,  # no other step runs meanwhile, so reading the line late gains nothing
        evaluate=evaluate,
        save=save or stop,
        stop=stop,
    )


def _divides(every: int, done: int) -> bool:
    return bool(every) and done % every == 0
