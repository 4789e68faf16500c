"""A masking: from one example to what the model sees and what it must predict.

Everything random is a function of (seed, step, example id), so the same example is masked in the same way in any batch,
on any mesh, after any resume. Where the rate follows a law it is, besides, a function of (seed, step) and the row's
place in the global batch: still the same on any mesh and after any resume, but another one in a batch of another size.
A masking works on ONE example; `mask_batch` maps it over a batch.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, Key

from jaxmlm.checks import check_choices
from jaxmlm.errors import InputError
from jaxmlm.masking import strata
from jaxmlm.masking.laws import Law, Rate, check_rate, has_density
from jaxmlm.masking.replacement import Replace, Vocab, check_replace
from jaxmlm.masking.schedule import Constant, Schedule, Step, check_schedule
from jaxmlm.masking.selection import Selection, budget, shuffle_units, take_units
from jaxmlm.masking.units import Tokens, TokenUnits, Units, check_units, indices_in_units


class Masked(NamedTuple):
    """A masked example: what the model sees, and what it must predict.

    P is static, the most predictions that the masking can make; slots beyond an example's own number have weight 0.

    Attributes:
        inputs: [L] token ids with the selected ones replaced.
        positions: [P] where predictions are made.
        targets: [P] the original ids there.
        weights: [P] float32, 0 for an unused slot; 1 for a prediction, or what `Masking.weights` makes of it.

    """

    inputs: jax.Array
    positions: jax.Array
    targets: jax.Array
    weights: jax.Array


class Keys(NamedTuple):
    """One key for each draw that a masking makes."""

    count: jax.Array
    order: jax.Array
    replace: jax.Array
    offset: jax.Array
    units: jax.Array


@dataclass(frozen=True)
class Masking:
    """Which tokens of an example are masked, and which are predicted (Wettig et al. 2022, arXiv 2202.08005).

    The maskable tokens are grouped into `units`. Of n of them, floor(rate * n + u), u uniform in [0, 1), are selected:
    whole units, drawn without replacement (in short examples often none), never a special token or padding. `replace`
    says which of the selected become [MASK], a random token, or stay: corrupted = masked + random.

    Where `predict` (m_pred) differs from `rate` (m_corr), section 5 of the paper: fewer predictions are a random subset
    of the selected tokens; more are made in `views` rows of the same example, each of which selects other units.

    >>> masking = Masking(rate=0.5)
    >>> tokens = Tokens(jnp.arange(5, 13), jnp.arange(8) > 0, jnp.ones(8, jnp.uint8))
    >>> vocab = Vocab(size=13, mask_id=4, pad_id=0, replacement_ids=np.arange(5, 13))
    >>> masked = masking(jax.random.key(0), tokens, vocab)
    >>> int(masked.weights.sum()) in (3, 4), int(masked.inputs[0])
    (True, 5)
    """

    rate: Rate = 0.40
    """Masking rate: share of the maskable tokens that is selected (m_corr), the maximum over the schedule; or a law by
    which it differs from example to example: Uniform, Cosine, LogUniform, Normal, Choice, or one of your own."""
    predict: float | None = None
    """Prediction rate (m_pred): share of the maskable tokens that is predicted; None: the masking rate."""
    schedule: Schedule = field(default_factory=Constant)
    """Factor in (0, 1] that scales both rates as a function of the step."""
    units: Units = field(default_factory=TokenUnits)
    """What is masked together: tokens, words, spans, phrases, or units of your own (see `Units`)."""
    count: Literal["expected", "exact"] = "expected"
    """Rounding of rate * n: floor(rate * n + u) as in fairseq (right in expectation), or always the nearest integer."""
    replace: Replace = field(default_factory=Replace)
    """What becomes of the selected tokens."""
    weights: Literal["tokens", "rows", "bound"] = "tokens"
    """Weights of the loss: all predicted tokens alike (sum / count); all rows alike (mean of the rows' means); or 1 /
    (rate x density of the law), the objective of masked diffusion, a bound on the negative log-likelihood."""

    def __post_init__(self) -> None:
        check_units(self.units)
        check_replace(self.replace)
        check_schedule(self.schedule)
        check_rate(self.rate)
        check_choices(self, "masking.")
        if self.predict is not None and not 0 < self.predict <= 1:
            raise InputError(f"masking.predict must be above 0 and at most 1; got {self.predict:g}: try 0.4")
        if self.predict is not None and self.lowest_rate == 0:
            raise InputError(
                f"masking.predict {self.predict:g} cannot be met: the law masks next to nothing in some rows: "
                f"raise the low end of masking.rate, as to {self.predict:g}, or leave out masking.predict"
            )
        if self.weights == "bound":
            self._check_bound()

    def _check_bound(self) -> None:
        if not isinstance(self.rate, Law) or not has_density(self.rate):
            raise InputError(
                f"masking.weights bound needs a law that draws all rates between its ends; got masking.rate {self.rate}"
                ": try Uniform(0.001, 1)"
            )
        if self.rate.low == 0:
            raise InputError(
                f"masking.weights bound weighs by 1 / rate, so the law may not reach down to 0; got {self.rate}: try a "
                "low end of 0.001"
            )

    @property
    def lowest_rate(self) -> float | int:
        """The masking rate, or the lowest that its law draws."""
        return self.rate.low if isinstance(self.rate, Law) else self.rate

    @property
    def highest_rate(self) -> float | int:
        """The masking rate, or the highest that its law draws."""
        return self.rate.high if isinstance(self.rate, Law) else self.rate

    @property
    def mean_rate(self) -> float:
        """The masking rate, or the mean of its law."""
        return self.rate.mean if isinstance(self.rate, Law) else self.rate

    @property
    def mean_predicted(self) -> float:
        """m_pred: share of the maskable tokens that is predicted, in all views; the mean where it differs by row."""
        return self.predict or self.mean_rate

    @property
    def views(self) -> int:
        """K, the rows that an example becomes: ceil(predict / rate), 1 unless more is predicted than selected."""
        return 1 if self.predict is None else max(1, math.ceil(self.predict / self.lowest_rate - 1e-9))

    @property
    def pools_slots(self) -> bool:
        """Whether rows predict so unequally much that a device's rows share their prediction slots."""
        return isinstance(self.rate, Law) and self.predict is None

    def predictions(self, length: int) -> int:
        """P, the most predictions that a row of `length` tokens can need."""
        return self._predictions(length, self.highest_rate)

    def pool_slots(self, length: int, rows: int, devices: int = 1, micro_batches: int = 1) -> int:
        """The most predictions that a device can have to make at a time, where its rows share their slots.

        Args:
            length: of a row, in tokens.
            rows: of the global batch.
            devices: among which they are divided.
            micro_batches: of a step.

        >>> from jaxmlm.masking import Uniform
        >>> Masking(Uniform(0, 1)).pool_slots(128, rows=64), Masking(Uniform(0, 1)).predictions(128)
        (4160, 128)

        """
        most = [self._predictions(length, rate) for rate in _highest_rates(self.rate, rows)]
        return strata.pool_slots(np.array(most), devices, micro_batches)

    def _predictions(self, length: int, rate: float | int) -> int:
        all_views = _largest_budget(self.predict or rate, length)
        return min(length, _ceil_div(all_views, self.views) + self.units.max_length - 1)

    def for_tokenizer(self, tokenizer: Any) -> "Masking":
        """This masking with units that know the token ids they need, where the units have a `for_tokenizer` too."""
        bind = getattr(self.units, "for_tokenizer", None)
        return self if bind is None else replace(self, units=bind(tokenizer))

    def keys(self, key: Key[Array, ""]) -> Keys:
        """The key of each draw, from the key of an example."""
        return Keys(*jax.random.split(key, len(Keys._fields)))

    def select(
        self,
        key: Key[Array, ""],
        tokens: Tokens,
        step: Step = 0,
        view: int | Int[Array, ""] = 0,
        point: Float[Array, ""] | None = None,
    ) -> tuple[Selection, Selection]:
        """Choose what one view of an example predicts and what it selects; the predicted are among the selected.

        All views share one random order of the units. View v of K predicts the v-th of K slices of the predictions:

            predict          selects of the order            predicts of the order
            None             budget(rate)                    the same
            below rate       budget(rate)                    its first budget(predict)
            above rate       slice v, then on to             slice v of budget(predict)
                             budget(rate)

        Args:
            key: of the example.
            tokens: the example.
            step: of training, for the schedule.
            view: which of the `views` rows of the example.
            point: where the example stands in the law of the rate, in [0, 1); None: drawn by the key.

        Returns:
            (predicted, selected)

        """
        length = tokens.ids.shape[0]
        max_length = self.units.max_length
        keys = self.keys(key)
        starts = self.units.starts(keys.units, tokens)
        index_in_unit = indices_in_units(starts, tokens.maskable, max_length)
        order = shuffle_units(keys.order, index_in_unit, tokens.maskable, keys.offset if max_length > 1 else None)

        select, predict = self._budgets(key, order.count, step, point)
        begin = predict * view // self.views
        end = predict * (view + 1) // self.views

        predicted = take_units(order, begin, end - begin, self.predictions(length))
        if self.predict is None:
            return predicted, predicted
        slice_of_a_view = _ceil_div(_largest_budget(self.predict, length), self.views)
        max_tokens = max(_largest_budget(self.highest_rate, length), slice_of_a_view) + max_length - 1
        selected = take_units(order, begin, jnp.maximum(select, end - begin), min(length, max_tokens))
        return predicted, selected

    def _budgets(
        self, key: Key[Array, ""], count: Int[Array, ""], step: Step, point: Float[Array, ""] | None
    ) -> tuple[Int[Array, ""], Int[Array, ""]]:
        """How many of `count` maskable tokens an example selects, and how many it predicts in all its views."""
        factor = self.schedule(step)
        u = jax.random.uniform(self.keys(key).count, dtype=jnp.float32) if self.count == "expected" else 0.5
        if self.weights == "bound":
            select = _cell(self._rate(key, point) * factor, count)
        else:
            select = budget(self._rate(key, point) * factor, count, u)
        return select, select if self.predict is None else budget(self.predict * factor, count, u)

    def _rate(self, key: Key[Array, ""], point: Float[Array, ""] | None) -> float | Float[Array, ""]:
        """The masking rate of an example."""
        return self.rate.quantile(_point(key, point)) if isinstance(self.rate, Law) else self.rate

    def points(self, key: Key[Array, ""], places: Integer[Array, " B"], rows: int) -> Float[Array, " B"] | None:
        """Where the rows of a batch stand in the law of the rate; None where the rate is one number.

        Args:
            key: of the step.
            places: [B] of the rows in the global batch.
            rows: of the global batch.

        """
        return strata.draw(key, places, rows) if isinstance(self.rate, Law) else None

    def __call__(
        self,
        key: Key[Array, ""],
        tokens: Tokens,
        vocab: Vocab,
        step: Step = 0,
        view: int | Int[Array, ""] = 0,
        point: Float[Array, ""] | None = None,
    ) -> Masked:
        """Mask one example.

        Args:
            key: of the example; `mask_batch` makes it.
            tokens: the example, fields [L].
            vocab: of the tokenizer.
            step: of training, for the schedule.
            view: which of the `views` rows of the example.
            point: where the example stands in the law of the rate, in [0, 1); None: drawn by the key.

        """
        predicted, selected = self.select(key, tokens, step, view, point)
        replace_key = self.keys(key).replace
        if self.views > 1:
            replace_key = jax.random.fold_in(replace_key, view)
        replaced = self.replace(replace_key, tokens.ids[selected.positions], selected, vocab)
        filled = jnp.arange(selected.positions.shape[0]) < selected.count
        where = jnp.where(filled, selected.positions, tokens.ids.shape[0])
        inputs = tokens.ids.at[where].set(replaced, mode="drop")
        weights = (jnp.arange(predicted.positions.shape[0]) < predicted.count).astype(jnp.float32)
        if self.weights == "rows":
            weights = weights / jnp.maximum(predicted.count, 1).astype(jnp.float32)
        elif self.weights == "bound":
            weights = weights * self._bound_weight(key, tokens.maskable.sum(), step, point)
        return Masked(inputs, predicted.positions, tokens.ids[predicted.positions], weights)

    def _bound_weight(
        self, key: Key[Array, ""], count: Int[Array, ""], step: Step, point: Float[Array, ""] | None
    ) -> Float[Array, ""]:
        """The weight of each prediction of an example of `count` maskable tokens.

        The bound is the sum over k of the mean loss at k masked tokens, so k should be uniform on 1 to `count`. It is
        the number of the cell ((k - 1) / count, k / count] that the rate falls into: the slope of the inverse CDF, 1 /
        density, makes all cells alike, and the length of a cell that an end of the law cuts makes that one whole,
        unless more than half of it is cut off.
        """
        law: Any = self.rate
        rate, slope = jax.jvp(law.quantile, (_point(key, point),), (jnp.float32(1),))
        factor = self.schedule(step)
        count = jnp.maximum(count, 1)
        n = count.astype(jnp.float32)
        k = _cell(rate * factor, count).astype(jnp.float32)
        cell = jnp.minimum(k / n, law.high * factor) - jnp.maximum((k - 1) / n, law.low * factor)
        predict = jnp.maximum(self._budgets(key, count, step, point)[1], 1).astype(jnp.float32)
        return n * slope * factor / (jnp.maximum(n * cell, 0.5) * predict)


def _largest_budget(rate: float | int, length: int) -> int:
    """The largest budget that a rate can give in a row of `length` tokens."""
    return max(1, math.ceil(rate * length - 1e-9))


def _highest_rates(rate: Rate, rows: int) -> list[float]:
    """The highest rate in each of so many strata of a law."""
    if not isinstance(rate, Law):
        return [rate] * rows
    # Wanted while a step is traced for a mesh whose devices may be other hosts' or, in `plan`, a description only.
    # A thread of its own has neither the trace nor the mesh.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: np.asarray(rate.quantile(jnp.arange(1, rows + 1) / rows)).tolist()).result()


def _cell(rate: float | Float[Array, ""], count: Int[Array, ""]) -> Int[Array, ""]:
    """k for a rate in ((k - 1) / count, k / count]: 1 to `count`, each as likely as the others if all rates are."""
    k = jnp.ceil(jnp.float32(rate) * count.astype(jnp.float32)).astype(jnp.int32)
    return jnp.clip(k, jnp.minimum(count, 1), count)


def _point(key: Key[Array, ""], point: Float[Array, ""] | None) -> Float[Array, ""]:
    """Where an example stands in a law; drawn by its key where it is alone."""
    if point is not None:
        return point
    return jax.random.uniform(jax.random.fold_in(key, len(Keys._fields)), dtype=jnp.float32)


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)
