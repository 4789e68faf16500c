"""The optimiser: AdamW with warm-up and a schedule; by default linear decay, as the paper (after Izsak et al. 2021)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxmlm.errors import InputError


@dataclass(frozen=True)
class Optim:
    """AdamW and its learning rate over the steps."""

    learning_rate: float = 1e-3
    """The peak, reached after the warm-up."""
    warmup: float = 0.06
    """Share of the steps in which the rate rises linearly from 0."""
    weight_decay: float = 0.01
    """Decoupled, of everything but biases and layer norms."""
    b1: float = 0.9
    b2: float = 0.98
    epsilon: float = 1e-6
    layer_decay: float = 1.0
    """For fine-tuning: each layer's rate is this share of that of the layer above it; the head has the whole rate."""
    schedule: Literal["linear", "wsd", "inverse_sqrt", "constant"] = "linear"
    """After the warm-up: fall to 0 at the last step; stay at the peak and fall in the last part of the steps (warm-up,
    stable, decay: Hu et al. 2024, arXiv 2404.06395); fall as 1 / sqrt(step); stay."""
    decay: float = 0.1
    """Share of the steps in which schedule wsd falls, at the end."""
    clip: float | None = None
    """Gradients whose global norm is above this are scaled down to it; None: never, as the paper."""

    def __post_init__(self) -> None:
        if not self.learning_rate > 0 or not 0 <= self.warmup <= 1:
            raise InputError(
                f"optim: learning_rate must be above 0 and warmup between 0 and 1; got {self.learning_rate:g} and "
                f"{self.warmup:g}"
            )
        if not 0 < self.layer_decay <= 1:
            raise InputError(f"optim.layer_decay is {self.layer_decay:g}: it must be above 0 and at most 1")
        if not 0 <= self.decay <= 1 or (self.schedule == "wsd" and self.warmup + self.decay > 1):
            raise InputError(
                f"optim.decay is {self.decay:g}: it must be between 0 and 1, and together with optim.warmup "
                f"{self.warmup:g} at most 1"
            )
        if self.clip is not None and not self.clip > 0:
            raise InputError(f"optim.clip is {self.clip:g}: it must be above 0; leave it out to clip nothing")

    def rate(self, steps: int) -> Callable[[Any], float]:
        """The learning rate at a step of a run of this many steps."""
        share = replace(self, learning_rate=1.0)._share(steps)
        return lambda step: self.learning_rate * float(share(step))

    def transformation(self, steps: int) -> optax.GradientTransformation:
        """The optax transformation. A step whose gradients are not finite is skipped and counted.

        The peak learning rate stands in its state: settings that differ in nothing else share one compiled step.
        """
        peak, shared = self.learning_rate, replace(self, learning_rate=1.0)._shared(steps)

        def init(params: Any) -> Any:
            made = jax.jit(shared.init)(params)  # sharded like them
            return optax.tree_utils.tree_set(made, step_size=jnp.full((), peak, jnp.float32))

        return optax.GradientTransformation(init, shared.update)

    @lru_cache(maxsize=4)  # noqa: B019 (a configuration, bounded): equal ones share what is compiled for them
    def _share(self, steps: int) -> Callable[[Any], Any]:
        """The learning rate at a step as a share of the peak, jitted."""
        warm = max(1, round(self.warmup * steps))
        rise = optax.linear_schedule(0.0, 1.0, warm)
        left = max(1, steps - warm)
        fall = max(1, min(round(self.decay * steps), left))
        after: dict[str, Any] = {
            "linear": optax.linear_schedule(1.0, 0.0, left),
            "wsd": optax.linear_schedule(1.0, 0.0, fall, transition_begin=left - fall),
            "inverse_sqrt": lambda step: jnp.sqrt(warm / (warm + step)),
            "constant": optax.constant_schedule(1.0),
        }
        joined: Any = optax.join_schedules([rise, after[self.schedule]], [warm])
        # The update of step 0 takes the rate of 1 / warm, not 0: no step is lost.
        return jax.jit(lambda step: joined(step + (step < warm)))

    @lru_cache(maxsize=4)  # noqa: B019 (as above)
    def _shared(self, steps: int) -> optax.GradientTransformation:
        """The transformation for a peak of 1 until its state says another."""
        adamw = optax.adamw(
            self._share(steps), self.b1, self.b2, self.epsilon, weight_decay=self.weight_decay, mask=decayed
        )
        update = optax.chain(adamw, optax.inject_hyperparams(optax.scale)(step_size=1.0))
        if self.clip is not None:
            update = optax.chain(optax.clip_by_global_norm(self.clip), update)
        if self.layer_decay < 1:
            update = optax.chain(update, optax.stateless(partial(_by_layer, self.layer_decay)))
        return optax.apply_if_finite(update, max_consecutive_errors=steps)


def _by_layer(decay: float, updates: Any, _: Any) -> Any:
    """Updates of the last layer times `decay`, of the one below times its square, of the embeddings a power more."""
    paths = jax.tree_util.tree_leaves_with_path(updates)
    layers = next(leaf.shape[0] for path, leaf in paths if "blocks" in _names(path))
    stacked = decay ** jnp.arange(layers, 0, -1.0)

    def scaled(path: tuple, update: jax.Array) -> jax.Array:
        names = _names(path)
        if "blocks" in names:
            return update * jax.lax.expand_dims(stacked, range(1, update.ndim))
        if "encoder" not in names:
            return update
        return update * decay ** (1 if "final_norm" in names else layers + 1)

    return jax.tree_util.tree_map_with_path(scaled, updates)


def decayed(model: Any) -> Any:
    """Which parameters decay, by name: not those called bias or scale (stacked, they are matrices too)."""

    def is_decayed(path: tuple, _: Any) -> bool:
        return not any(name.endswith(("bias", "scale")) for name in _names(path))

    return jax.tree_util.tree_map_with_path(is_decayed, model)


def _names(path: tuple) -> list[str]:
    return [getattr(part, "name", "") for part in path]
