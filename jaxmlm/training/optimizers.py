"""The optimizers, each a small config that builds an optax transformation; a user's own is one more such class."""

from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import optax
from optax import contrib

from jaxmlm.checks import BELOW_ONE, COUNT, NOT_NEGATIVE, POSITIVE, check_constant, check_numbers, integers
from jaxmlm.errors import InputError

LearningRate = Callable[[Any], Any]
"""The learning rate at a step, as a function that is also called under `jax.jit`."""


@runtime_checkable
class Optimizer(Protocol):
    """What `optim.optimizer` may be: any frozen dataclass with these two members.

    `slots` is read by `jaxmlm plan`, which counts the memory of the optimizer's state.
    """

    @property
    def slots(self) -> int:
        """Arrays of the state that are as large as the parameters: 2 for Adam's two moments."""
        ...

    def build(self, schedule: LearningRate) -> optax.GradientTransformation:
        """The transformation from gradients to updates, with this learning rate and any weight decay.

        `schedule` peaks at 1: `Optim` scales the finished update by its `learning_rate`, so that runs that differ in
        nothing else share a compiled step. Weight decay must therefore be scaled by the schedule, as in `optax.adamw`.
        """
        ...


def _has_members_of_optimizers(cls: type, kind: type) -> Any:
    if cls is not Optimizer or not is_dataclass(kind):
        return NotImplemented
    return (hasattr(kind, "build") and hasattr(kind, "slots")) or NotImplemented


# By `issubclass` tyro finds the flags of a user's optimizer, and Python refuses it for protocols with attributes.
Optimizer.__subclasshook__ = classmethod(_has_members_of_optimizers)  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019); the default, with the values of the paper."""

    b1: float = 0.9
    """Decay of the running mean of the gradients."""
    b2: float = 0.98
    """Decay of the running mean of the squared gradients."""
    eps: float = 1e-6
    """Epsilon added to the root of the second moment."""
    weight_decay: float = 0.01
    """Decoupled weight decay of all parameters but biases and layer norms."""
    slots = 2

    def __post_init__(self) -> None:
        check_numbers(self, "optim.optimizer.", b1=BELOW_ONE, b2=BELOW_ONE, eps=POSITIVE, weight_decay=NOT_NEGATIVE)

    def build(self, schedule: LearningRate) -> optax.GradientTransformation:
        """The transformation, see `Optimizer`."""
        return optax.adamw(schedule, self.b1, self.b2, self.eps, weight_decay=self.weight_decay, mask=decayed)


@dataclass(frozen=True)
class Lamb:
    """Adam with a trust ratio for each parameter array, for large batches (You et al. 2020, arXiv 1904.00962).

    The ratio of a stacked parameter is that of all layers together.
    """

    b1: float = 0.9
    """Decay of the running mean of the gradients."""
    b2: float = 0.999
    """Decay of the running mean of the squared gradients."""
    eps: float = 1e-6
    """Epsilon added to the root of the second moment."""
    weight_decay: float = 0.01
    """Weight decay of all parameters but biases and layer norms."""
    slots = 2

    def __post_init__(self) -> None:
        check_numbers(self, "optim.optimizer.", b1=BELOW_ONE, b2=BELOW_ONE, eps=POSITIVE, weight_decay=NOT_NEGATIVE)

    def build(self, schedule: LearningRate) -> optax.GradientTransformation:
        """The transformation, see `Optimizer`."""
        return optax.lamb(schedule, self.b1, self.b2, self.eps, weight_decay=self.weight_decay, mask=decayed)


@dataclass(frozen=True)
class Lion:
    """The sign of an interpolated momentum (Chen et al. 2023, arXiv 2302.06675).

    Its learning rate is 3 to 10 times lower than AdamW's, its weight decay as many times higher.
    """

    b1: float = 0.9
    """Weight of the momentum in the update."""
    b2: float = 0.99
    """Decay of the momentum."""
    weight_decay: float = 0.1
    """Decoupled weight decay of all parameters but biases and layer norms."""
    slots = 1

    def __post_init__(self) -> None:
        check_numbers(self, "optim.optimizer.", b1=BELOW_ONE, b2=BELOW_ONE, weight_decay=NOT_NEGATIVE)

    def build(self, schedule: LearningRate) -> optax.GradientTransformation:
        """The transformation, see `Optimizer`."""
        return optax.lion(schedule, self.b1, self.b2, weight_decay=self.weight_decay, mask=decayed)


@dataclass(frozen=True)
class Adafactor:
    """Second moments as rows and columns, which takes almost no memory (Shazeer and Stern 2018, arXiv 1804.04235)."""

    decay_rate: float = 0.8
    """Exponent of the second moment's decay: at step t it is 1 - t^-decay_rate."""
    clipping_threshold: float = 1.0
    """Updates of an array whose root mean square is above this are scaled down to it."""
    multiply_by_parameter_scale: bool = True
    """Whether the learning rate is relative to the root mean square of each parameter array."""
    min_dim_size_to_factor: int = 128
    """Arrays with a smaller second largest dimension keep their second moment unfactored."""
    weight_decay: float = 0.01
    """Decoupled weight decay of all parameters but biases and layer norms."""
    slots = 0

    def __post_init__(self) -> None:
        check_numbers(
            self, "optim.optimizer.", decay_rate=POSITIVE, clipping_threshold=POSITIVE, weight_decay=NOT_NEGATIVE
        )
        check_numbers(self, "optim.optimizer.", min_dim_size_to_factor=COUNT)

    def build(self, schedule: LearningRate) -> optax.GradientTransformation:
        """The transformation, see `Optimizer`."""
        factored = optax.adafactor(
            min_dim_size_to_factor=self.min_dim_size_to_factor,
            decay_rate=self.decay_rate,
            multiply_by_parameter_scale=self.multiply_by_parameter_scale,
            clipping_threshold=self.clipping_threshold,
        )
        # Optax's own weight decay of Adafactor does not follow the learning rate.
        decay = optax.add_decayed_weights(-self.weight_decay, decayed)
        return optax.chain(_partitioned_by_compiler(factored), decay, optax.scale_by_schedule(schedule))


@dataclass(frozen=True)
class Muon:
    """Orthogonalized momentum for the matrices of the blocks (Jordan 2024), AdamW for all other parameters.

    Every matrix of every layer is orthogonalized by itself; query, key and value are three matrices. Updates have the
    root mean square 0.2, as AdamW's have, so that the learning rate and the weight decay of AdamW serve for both
    (Liu et al. 2025, arXiv 2502.16982).
    """

    beta: float = 0.95
    """Decay of the momentum."""
    ns_steps: int = 5
    """Newton-Schulz iterations of the orthogonalization."""
    nesterov: bool = True
    """Whether the momentum is Nesterov's."""
    consistent_rms: float = 0.2
    """Root mean square of the updates of a matrix."""
    weight_decay: float = 0.01
    """Decoupled weight decay of all parameters but biases and layer norms."""
    b1: float = 0.9
    """AdamW: decay of the running mean of the gradients."""
    b2: float = 0.98
    """AdamW: decay of the running mean of the squared gradients."""
    eps: float = 1e-6
    """AdamW: epsilon added to the root of the second moment."""
    slots = 2  # an upper bound: AdamW's two for embeddings, one momentum for matrices

    def __post_init__(self) -> None:
        check_numbers(self, "optim.optimizer.", beta=BELOW_ONE, ns_steps=integers(1, 100), consistent_rms=POSITIVE)
        check_numbers(self, "optim.optimizer.", b1=BELOW_ONE, b2=BELOW_ONE, eps=POSITIVE, weight_decay=NOT_NEGATIVE)

    def build(self, schedule: LearningRate) -> optax.GradientTransformation:
        """The transformation, see `Optimizer`."""
        muon = contrib.muon(
            schedule,
            ns_steps=self.ns_steps,
            beta=self.beta,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            consistent_rms=self.consistent_rms,
            muon_weight_dimension_numbers=partial(jax.tree_util.tree_map_with_path, _matrix),
        )
        adamw = AdamW(self.b1, self.b2, self.eps, self.weight_decay).build(schedule)
        return optax.partition({"muon": _partitioned_by_compiler(muon), "adamw": adamw}, _labels)


def check_optimizer(optimizer: Any) -> None:
    """Refuse what cannot be an `Optimizer`.

    Args:
        optimizer: what a configuration gives as `optim.optimizer`.

    Raises:
        InputError: `build` or `slots` is missing or wrong, or it cannot be compared with another.

    """
    name = type(optimizer).__name__
    if not isinstance(optimizer, Optimizer) or not is_dataclass(optimizer) or type(optimizer).__hash__ is None:
        raise InputError(
            f"optim.optimizer is a {name}: give a frozen dataclass with build(schedule), which returns an optax "
            "transformation, and slots, the number of its state arrays that are as large as the parameters"
        )
    check_constant("optim.optimizer", optimizer)
    slots: Any = optimizer.slots
    if not isinstance(slots, int) or slots < 0:
        raise InputError(f"optim.optimizer: {name}.slots is a number of arrays, at least 0; got {slots!r}")


def decayed(model: Any) -> Any:
    """Which parameters decay, by name: not those called bias or scale (stacked, they are matrices too)."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _is_decayed(path), model)


def names_of(path: tuple) -> list[str]:
    """The names of the attributes on the path to a parameter."""
    return [getattr(part, "name", "") for part in path]


def _is_decayed(path: tuple) -> bool:
    return not any(name.endswith(("bias", "scale")) for name in names_of(path))


def _labels(params: Any) -> Any:
    """The part of Muon that updates each parameter."""

    def label(path: tuple, _: Any) -> str:
        return "muon" if "blocks" in names_of(path) and _is_decayed(path) else "adamw"

    return jax.tree_util.tree_map_with_path(label, params)


def _matrix(path: tuple, _: Any) -> contrib.MuonDimensionNumbers:
    """Which axes of a stacked parameter are the input and the output of a matrix; the others count matrices."""
    names = names_of(path)
    if "qkv" in names:  # [N, D, 3, H, K]
        return contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=(3, 4))
    if "out" in names:  # [N, H, K, D]
        return contrib.MuonDimensionNumbers(reduction_axis=(1, 2), output_axis=3)
    return contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)


def _partitioned_by_compiler(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """The transformation with shardings of its own arrays chosen by the compiler; what it returns is sharded as given.

    Explicit sharding refuses the products and reshapes of partitioned axes that optax makes here.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if jax.sharding.get_abstract_mesh().empty:
            return inner.update(updates, state, params)
        shardings = jax.tree.map(lambda x: jax.typeof(x).sharding.spec, (updates, state))
        run: Any = jax.sharding.auto_axes(inner.update, out_sharding=shardings)
        return run(updates, state, params)

    return optax.GradientTransformation(inner.init, update)
