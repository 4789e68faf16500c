"""The optimiser: AdamW with warm-up and linear decay, as the paper (after Izsak et al. 2021)."""

from dataclasses import dataclass
from typing import Any

import jax
import optax

from jaxmlm.errors import InputError


@dataclass(frozen=True)
class Optim:
    """AdamW and its learning rate over the steps."""

    learning_rate: float = 1e-3
    """The peak, reached after the warm-up; from there it falls linearly to 0 at the last step."""
    warmup: float = 0.06
    """Share of the steps in which the rate rises linearly from 0."""
    weight_decay: float = 0.01
    """Decoupled, of everything but biases and layer norms."""
    b1: float = 0.9
    b2: float = 0.98
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        if not self.learning_rate > 0 or not 0 <= self.warmup <= 1:
            raise InputError(
                f"optim: learning_rate must be above 0 and warmup between 0 and 1; got {self.learning_rate:g} and "
                f"{self.warmup:g}"
            )

    def schedule(self, steps: int) -> optax.Schedule:
        """The learning rate at a step of a run of this many steps."""
        warm = max(1, round(self.warmup * steps))
        rise = optax.linear_schedule(0.0, self.learning_rate, warm)
        fall = optax.linear_schedule(self.learning_rate, 0.0, max(1, steps - warm))
        joined: Any = optax.join_schedules([rise, fall], [warm])
        # The update of step 0 takes the rate of 1 / warm, not 0: no step is lost.
        return lambda step: joined(step + (step < warm))  # type: ignore[operator]

    def transformation(self, steps: int) -> optax.GradientTransformation:
        """The optax transformation. A step whose gradients are not finite is skipped and counted."""
        adamw = optax.adamw(
            self.schedule(steps), self.b1, self.b2, self.epsilon, weight_decay=self.weight_decay, mask=decayed
        )
        return optax.apply_if_finite(adamw, max_consecutive_errors=steps)


def decayed(model: Any) -> Any:
    """Which parameters decay, by name: not those called bias or scale (stacked, they are matrices too)."""

    def is_decayed(path: tuple, _: Any) -> bool:
        names = [getattr(part, "name", "") for part in path]
        return not any(name.endswith(("bias", "scale")) for name in names)

    return jax.tree_util.tree_map_with_path(is_decayed, model)
