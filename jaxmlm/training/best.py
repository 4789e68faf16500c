"""The best evaluated state of a run."""

import math
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp

from jaxmlm.errors import InputError
from jaxmlm.training.step import TrainState


class Best:
    """A copy of the state with the highest value of a metric so far; of equally good ones the first.

    Args:
        metric: EVAL/METRIC, as dev/accuracy; None: no state is kept.
        evals: names of the evaluations there are.

    Raises:
        InputError: there is no such evaluation; when a state is offered: it has no such metric.

    """

    def __init__(self, metric: str | None, evals: Collection[str]) -> None:
        self.eval, _, self.metric = (metric or "").partition("/")
        if metric and self.eval not in evals:
            raise InputError(
                f"loop.best is {metric!r}: the evaluations there are, each with /METRIC: {', '.join(evals)}"
            )
        self.evals: dict[str, dict[str, float]] = {}
        self.state: Any = None

    def offer(self, evals: dict[str, dict[str, float]], state: TrainState) -> None:
        """Keep this state if it is better than the one kept; without its optimizer: it is not trained on."""
        if self.eval and not self.beats(evals):
            step, model = jax.tree.map(jnp.copy, (state.step, state.model))
            self.evals = evals
            self.state = TrainState(step, model, None)

    def beats(self, evals: dict[str, dict[str, float]]) -> bool:
        """Whether the state kept is at least as good as one with these metrics."""
        if not self.eval:
            return False
        other = self._value(evals)
        if not self.evals:
            return False
        kept = self._value(self.evals)
        return not (other > kept or math.isnan(kept))

    def _value(self, evals: dict[str, dict[str, float]]) -> float:
        """The value of the metric."""
        scores = evals[self.eval]
        if self.metric not in scores:
            name = f"{self.eval}/{self.metric}"
            raise InputError(f"loop.best is {name!r}: the metrics of {self.eval} are {', '.join(scores)}")
        return scores[self.metric]
