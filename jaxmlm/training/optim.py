"""The learning rate over the steps, and all that is done to the gradients."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmlm.checks import INSIDE, POSITIVE, POSITIVE_SHARE, SHARE, check_choices, check_numbers
from jaxmlm.errors import InputError
from jaxmlm.parallel import jitted
from jaxmlm.training.optimizers import AdamW, Optimizer, check_optimizer, names_of


@dataclass(frozen=True)
class Optim:
    """The optimizer, its learning rate over the steps, and what is done to gradients and weights beside it."""

    learning_rate: float = 1e-3
    """Peak learning rate, reached after the warm-up."""
    warmup: float = 0.06
    """Share of the steps in which the learning rate rises linearly from 0."""
    optimizer: Optimizer = field(default_factory=AdamW)
    """The optimizer: AdamW, Lamb, Lion, Adafactor, Muon, or a class of your own (see `Optimizer`)."""
    layer_decay: float = 1.0
    """Layer-wise decay for fine-tuning: factor on the learning rate for each layer further from the head."""
    schedule: Literal["linear", "cosine", "wsd", "wsd_sqrt", "inverse_sqrt", "constant"] = "linear"
    """Learning rate after the warm-up: linear or cosine decay to 0 at the last step; warm-up, stable, decay (constant,
    then linear decay, or 1 - sqrt decay, to 0 in the last steps: Hägele et al. 2024, arXiv 2405.18392); 1 / sqrt(step);
    constant."""
    decay: float = 0.1
    """Share of the steps, at the end, in which the schedules wsd and wsd_sqrt decay."""
    clip: float | None = None
    """Global norm to which larger gradients are scaled down; None: no clipping, as in the paper."""
    ema: float | None = None
    """Decay of an exponential moving average of the weights, which is then evaluated and saved; None: no average."""

    def __post_init__(self) -> None:
        check_choices(self, "optim.")
        check_numbers(self, "optim.", learning_rate=POSITIVE, warmup=SHARE, layer_decay=POSITIVE_SHARE)
        check_numbers(self, "optim.", decay=SHARE, clip=POSITIVE, ema=INSIDE)
        if self.schedule in ("wsd", "wsd_sqrt") and self.warmup + self.decay > 1:
            raise InputError(
                f"optim.decay is {self.decay:g}: it must be between 0 and 1, and together with optim.warmup "
                f"{self.warmup:g} at most 1"
            )
        check_optimizer(self.optimizer)

    @property
    def slots(self) -> int:
        """Arrays of the optimizer's state that are as large as the parameters."""
        return self.optimizer.slots + (self.ema is not None)

    def rate(self, steps: int) -> Callable[[Any], float]:
        """The learning rate over a run.

        Args:
            steps: steps of the run.

        Returns:
            a function from a step (from 0) to the learning rate of its update.

        """
        factor = replace(self, learning_rate=1.0)._factor(steps)
        return lambda step: self.learning_rate * float(factor(step))

    def transformation(self, steps: int) -> optax.GradientTransformation:
        """The optax transformation of a run.

        A step whose gradients are not finite is skipped, and counted in the state. The peak learning rate is in the
        state: settings that differ in nothing else share one compiled step.

        Args:
            steps: steps of the run.

        """
        peak = self.learning_rate
        shared = replace(self, learning_rate=1.0)._shared(steps)

        def init(params: Any) -> Any:
            made = jitted(shared.init, params)  # sharded like them
            return optax.tree.set(made, step_size=jnp.full((), peak, jnp.float32))

        return optax.GradientTransformation(init, shared.update)

    @lru_cache(maxsize=4)  # noqa: B019 (a configuration, bounded): equal ones share what is compiled for them
    def _factor(self, steps: int) -> Callable[[Any], Any]:
        """The learning rate at a step divided by the peak, jitted."""
        warm = max(1, round(self.warmup * steps))
        rise = optax.linear_schedule(0.0, 1.0, warm)
        left = max(1, steps - warm)
        fall = max(1, min(round(self.decay * steps), left))
        after: dict[str, Any] = {
            "linear": optax.linear_schedule(1.0, 0.0, left),
            "cosine": optax.cosine_decay_schedule(1.0, left),
            "wsd": optax.linear_schedule(1.0, 0.0, fall, transition_begin=left - fall),
            "wsd_sqrt": lambda step: 1.0 - jnp.sqrt(jnp.clip((step - (left - fall)) / fall, 0.0, 1.0)),
            "inverse_sqrt": lambda step: jnp.sqrt(warm / (warm + step)),
            "constant": optax.constant_schedule(1.0),
        }
        joined: Any = optax.join_schedules([rise, after[self.schedule]], [warm])
        # The update of step 0 takes the learning rate of 1 / warm, not 0: no step is lost.
        return jax.jit(lambda step: joined(step + (step < warm)))

    @lru_cache(maxsize=4)  # noqa: B019 (as above)
    def _shared(self, steps: int) -> optax.GradientTransformation:
        """The transformation for a peak of 1 until its state says another."""
        optimizer = self.optimizer.build(self._factor(steps))
        update = optax.chain(optimizer, optax.inject_hyperparams(optax.scale)(step_size=1.0))
        if self.clip is not None:
            update = optax.chain(optax.clip_by_global_norm(self.clip), update)
        if self.layer_decay < 1:
            update = optax.chain(update, optax.stateless(partial(_by_layer, self.layer_decay)))
        if self.ema is not None:
            update = optax.chain(update, _average_of_weights(self.ema))
        return optax.apply_if_finite(update, max_consecutive_errors=steps)


class WeightAverageState(NamedTuple):
    """The moving average of the weights, and the number of updates in it."""

    average: Any
    count: jax.Array


def swap_average(model: Any, opt_state: Any) -> tuple[Any, Any]:
    """Swap the weights and their moving average, for evaluation; twice, or without an average, it changes nothing.

    >>> swap_average({"w": 1.0}, WeightAverageState({"w": 2.0}, 3))
    ({'w': 2.0}, WeightAverageState(average={'w': 1.0}, count=3))
    """
    is_average = lambda node: isinstance(node, WeightAverageState)  # noqa: E731
    found = [node for node in jax.tree.leaves(opt_state, is_leaf=is_average) if is_average(node)]
    if not found:
        return model, opt_state
    swapped = found[0]._replace(average=model)
    return found[0].average, jax.tree.map(
        lambda node: swapped if is_average(node) else node, opt_state, is_leaf=is_average
    )


def _average_of_weights(decay: float) -> optax.GradientTransformation:
    """Averages the weights after each update, which it leaves as it is; the first updates count more, as in TensorFlow:
    the decay is at most (1 + n) / (10 + n) after n of them, so that the initial weights are forgotten."""

    def init(params: Any) -> WeightAverageState:
        return WeightAverageState(jax.tree.map(jnp.copy, params), jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, WeightAverageState]:
        kept = jnp.minimum(decay, (1.0 + state.count) / (10.0 + state.count))
        new = optax.apply_updates(params, updates)
        average = jax.tree.map(lambda old, new: new + kept * (old - new), state.average, new)
        return updates, WeightAverageState(average, state.count + 1)

    return optax.GradientTransformation(init, update)


def _by_layer(decay: float, updates: Any, _: Any) -> Any:
    """Updates of the last layer times `decay`, of the one below times its square, of the embeddings a power more."""
    paths = jax.tree_util.tree_leaves_with_path(updates)
    layers = next(leaf.shape[0] for path, leaf in paths if "blocks" in names_of(path))
    stacked = decay ** jnp.arange(layers, 0, -1.0)

    def scaled(path: tuple, update: jax.Array) -> jax.Array:
        names = names_of(path)
        if "blocks" in names:
            return update * jax.lax.expand_dims(stacked, range(1, update.ndim))
        if "encoder" not in names:
            return update
        return update * decay ** (1 if "final_norm" in names else layers + 1)

    return jax.tree_util.tree_map_with_path(scaled, updates)
