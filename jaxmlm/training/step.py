"""One training step, jitted: gradients of sum / count, update, metrics."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmlm.models import Model
from jaxmlm.training.task import Batch, Mean, Task


@jax.tree_util.register_dataclass
@dataclass
class TrainState:
    """All that a checkpoint holds."""

    step: Any
    model: Any
    opt_state: Any


def init_state(task: Task, optimizer: optax.GradientTransformation, key: jax.Array) -> TrainState:
    """The state before the first step; the optimizer's part is made sharded like the model."""
    model = task.init(key)
    return TrainState(jnp.zeros((), jnp.int32), model, jax.jit(optimizer.init)(model))


def make_step(task: Task, optimizer: optax.GradientTransformation) -> Callable:
    """`step(state, batch, key) -> (state, metrics)`; the state is donated; metrics are `Mean`s.

    `key` is that of the seed: the step folds its own number in, so nothing random has a state.
    """

    def step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, dict[str, Mean]]:
        def total(model: Model) -> tuple[jax.Array, tuple[Mean, dict[str, Mean]]]:
            loss, metrics = task.loss(model, batch, jax.random.fold_in(key, state.step), state.step)
            return loss.total, (loss, metrics)

        grads, (loss, metrics) = jax.grad(total, has_aux=True)(state.model)
        grads = jax.tree.map(lambda g: g / jnp.maximum(loss.count, 1.0), grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.model)
        model = optax.apply_updates(state.model, updates)
        return TrainState(state.step + 1, model, opt_state), {"loss": loss, **metrics}

    return jax.jit(step, donate_argnums=0)
