"""One training step, jitted: gradients of sum / count, update, metrics."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmlm.models import Model
from jaxmlm.parallel import all_reduce, jit, keep_unreduced, spec
from jaxmlm.training.optimizers import decayed
from jaxmlm.training.task import Batch, Mean, Task


@jax.tree_util.register_dataclass
@dataclass
class TrainState:
    """All that a checkpoint holds."""

    step: Any
    model: Any
    opt_state: Any


def init_state(task: Task, optimizer: optax.GradientTransformation, key: jax.Array) -> TrainState:
    """The state before the first step."""
    model: Any = task.init(key)
    return TrainState(jnp.zeros((), jnp.int32), model, optimizer.init(model))


def make_step(task: Task, optimizer: optax.GradientTransformation, accumulate: int = 1) -> Callable:
    """The training step, jitted.

    The same loss and update give the same function, compiled once: the fine-tunings of a grid share it.

    Args:
        task: gives the loss; its gradient is that of sum / count over the whole batch.
        optimizer: makes updates of the gradients.
        accumulate: micro-batches, computed one after the other for less memory.

    Returns:
        `step(state, batch, key) -> (state, metrics)`. The state is donated. `key` is that of the seed: the step folds
        its own number in, so nothing random has a state. `metrics` are `Mean`s: the loss, the metrics of the task,
        the global norms `grad_norm`, `param_norm` and `update_norm`, and `skipped_updates`.

    """
    return _step_of(task.loss, task.corrupt, optimizer.update, accumulate)


@lru_cache(maxsize=4)
def _step_of(loss_of: Callable, corrupt: Callable, update: Callable, accumulate: int) -> Callable:
    def step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, dict[str, Mean]]:
        key = jax.random.fold_in(key, state.step)
        batch = corrupt(batch, key, state.step)

        def total(model: Model, rows: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, Mean]]:
            loss, metrics = loss_of(model, rows, key, state.step)
            return loss.total, {"loss": loss, **metrics}

        gradients = jax.grad(total, has_aux=True)
        if accumulate == 1:
            grads, metrics = gradients(state.model, batch, key)
        else:
            grads, metrics = _accumulated(gradients, state.model, batch, key, accumulate)
        grads = jax.tree.map(lambda g: g / jnp.maximum(metrics["loss"].count, 1.0), grads)
        updates, opt_state = update(grads, state.opt_state, state.model)
        model = optax.apply_updates(state.model, updates)
        metrics |= {
            "grad_norm": _finite_norm(grads),
            "param_norm": _finite_norm(model),
            "update_norm": _finite_norm(updates),
        }
        if isinstance(opt_state, optax.ApplyIfFiniteState):
            # Divided by nothing: of several steps the metric is the sum.
            metrics["skipped_updates"] = Mean(1.0 - opt_state.last_finite, jnp.zeros(()))
        return TrainState(state.step + 1, model, opt_state), metrics

    return jit(step, donate_argnums=0)


def _accumulated(
    gradients: Callable, model: Model, batch: Batch, key: jax.Array, accumulate: int
) -> tuple[Any, dict[str, Mean]]:
    """The sums of gradients and metrics over the micro-batches."""
    micro_batches = jax.tree.map(lambda x: _micro_batches(x, accumulate), batch)
    keys = jax.random.split(key, accumulate)
    # What a micro-batch adds to the gradients of matrices stays where it is: they go from chip to chip once, at the
    # end. Those of biases and layer norms are small, and JAX cannot keep sums of elementwise products unreduced.
    matrices = decayed(model)
    model = jax.tree.map(lambda x, named: keep_unreduced(x) if named and x.ndim > 1 else x, model, matrices)
    like = jax.eval_shape(gradients, model, *jax.tree.map(lambda x: x[0], (micro_batches, keys)))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype, out_sharding=x.sharding), like)

    def add(sums: Any, one: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, gradients(model, *one)), None

    (grads, metrics), _ = jax.lax.scan(add, zeros, (micro_batches, keys))
    return jax.tree.map(all_reduce, grads), metrics


def _finite_norm(tree: Any) -> Mean:
    """The global norm; of several steps the mean over those in which it is finite."""
    norm = optax.tree.norm(tree)
    finite = jnp.isfinite(norm)
    return Mean(jnp.where(finite, norm, 0.0), finite.astype(jnp.float32))


def _micro_batches(x: jax.Array, count: int) -> jax.Array:
    """The rows [B, ...] as [A, B / A, ...]: row i goes to micro-batch i % A, so that no row leaves its device."""
    rest = x.shape[1:]
    out = spec("batch", *(None,) * (1 + len(rest)))
    return jnp.reshape(x, (x.shape[0] // count, count, *rest), out_sharding=out).swapaxes(0, 1)
