"""A rate that changes over the run: a factor in (0, 1] of the step, computed inside the jitted step.

Ankner et al. 2023 (arXiv 2305.15096) find that a rate that falls linearly from 30 % to 15 % beats a constant one:
`Masking(0.30, schedule=LinearDecay(end=0.5, steps=...))`. In the studies of docs/results it did not.
"""

from dataclasses import dataclass, is_dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from jaxmlm.checks import INT32, check_constant
from jaxmlm.errors import InputError

Step = int | Integer[Array, ""]


@dataclass(frozen=True)
class Constant:
    """The rate itself, always."""

    def __call__(self, step: Step) -> Float[Array, ""] | float:
        """The factor at a step."""
        return 1.0


@dataclass(frozen=True)
class LinearDecay:
    """From 1 at the first step to `end` at step `steps` along a straight line, then constant.

    >>> float(LinearDecay(end=0.5, steps=100)(50))
    0.75
    """

    end: float
    steps: int

    def __post_init__(self) -> None:
        _check((self.steps,), (self.end,))

    def __call__(self, step: Step) -> Float[Array, ""] | float:
        """The factor at a step."""
        return 1.0 - (1.0 - self.end) * _progress(step, self.steps)


@dataclass(frozen=True)
class CosineDecay:
    """From 1 at the first step to `end` at step `steps` along half a cosine, then constant."""

    end: float
    steps: int

    def __post_init__(self) -> None:
        _check((self.steps,), (self.end,))

    def __call__(self, step: Step) -> Float[Array, ""] | float:
        """The factor at a step."""
        return self.end + (1.0 - self.end) * (1.0 + jnp.cos(jnp.pi * _progress(step, self.steps))) / 2.0


@dataclass(frozen=True)
class Stairs:
    """1 at first, and `factors[i]` from step `steps[i]` on.

    >>> [float(Stairs((10, 20), (0.5, 0.25))(step)) for step in (9, 10, 25)]
    [1.0, 0.5, 0.25]
    """

    steps: tuple[int, ...]
    factors: tuple[float, ...]

    def __post_init__(self) -> None:
        _check(self.steps, self.factors)

    def __call__(self, step: Step) -> Float[Array, ""] | float:
        """The factor at a step."""
        passed = (jnp.asarray(self.steps) <= jnp.full(len(self.steps), step)).sum()
        return jnp.asarray((1.0, *self.factors), jnp.float32)[passed]


@dataclass(frozen=True)
class Piecewise:
    """Straight lines through (steps[i], factors[i]), constant before the first and after the last.

    >>> round(float(Piecewise((0, 10, 20), (0.5, 1.0, 0.5))(15)), 3)
    0.75
    """

    steps: tuple[int, ...]
    factors: tuple[float, ...]

    def __post_init__(self) -> None:
        _check(self.steps, self.factors)

    def __call__(self, step: Step) -> Float[Array, ""] | float:
        """The factor at a step."""
        points = jnp.asarray(self.steps, jnp.float32), jnp.asarray(self.factors, jnp.float32)
        return jnp.interp(jnp.asarray(step, jnp.float32), *points)


Schedule = Constant | LinearDecay | CosineDecay | Stairs | Piecewise


def check_schedule(schedule: Any) -> None:
    """Refuse what a masking cannot take as `masking.schedule`.

    Args:
        schedule: what a configuration gives.

    Raises:
        InputError: it cannot be called with a step, or cannot be a constant of a compiled program.

    """
    kind = type(schedule)
    if not callable(schedule) or not is_dataclass(schedule) or kind.__hash__ is None:
        raise InputError(
            f"masking.schedule is a {kind.__name__}: give a schedule, as LinearDecay(end=0.5, steps=9), or a "
            "frozen dataclass with __call__(step)"
        )
    check_constant("masking.schedule", schedule)


def _progress(step: Step, steps: int) -> Float[Array, ""]:
    return jnp.clip(jnp.asarray(step, jnp.float32) / steps, 0.0, 1.0)


def _check(steps: tuple[int, ...], factors: tuple[float, ...]) -> None:
    if not factors or len(steps) != len(factors):
        raise InputError(f"masking.schedule: got {len(steps)} steps and {len(factors)} factors: give as many of each")
    if not all(0 < factor <= 1 for factor in factors):
        raise InputError(
            f"masking.schedule: factors of the rate must lie in (0, 1]; got {', '.join(f'{f:g}' for f in factors)}: "
            "masking.rate is the largest value, the factors scale it down"
        )
    if any(a >= b for a, b in zip((-1, *steps), steps)):  # noqa: B905 (pairs of neighbours)
        raise InputError(f"masking.schedule: steps must rise from 0 on; got {steps}")
    if steps[-1] > INT32:
        raise InputError(f"masking.schedule: steps end at {INT32:,}; got {steps[-1]:,}")
    if len(steps) == 1 and steps[0] < 1:
        raise InputError(f"masking.schedule: it must last at least 1 step; got {steps[0]}")
