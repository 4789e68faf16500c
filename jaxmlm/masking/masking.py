"""A masking: from one example to what the model sees and what it must predict.

Everything random is a function of (seed, step, example id), so the same example is masked in the same way in any batch,
on any mesh, after any resume. A masking works on ONE example; `mask_batch` maps it over a batch.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Integer, Key

from jaxmlm.errors import InputError
from jaxmlm.masking.schedule import Constant, Schedule, Step
from jaxmlm.masking.selection import Selection, budget, shuffle_units, take_units
from jaxmlm.masking.units import Tokens, TokenUnits, Units, check_units, indices_in_units


class Masked(NamedTuple):
    """A masked example: what the model sees, and what it must predict.

    P is static, the most predictions that the masking can make; slots beyond an example's own number have weight 0.

    Attributes:
        inputs: [L] token ids with the selected ones replaced.
        positions: [P] where predictions are made.
        targets: [P] the original ids there.
        weights: [P] float32, 1 for a prediction and 0 for an unused slot.

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


@dataclass(frozen=True, eq=False)
class Vocab:
    """What a masking must know of the tokenizer and the text.

    Attributes:
        size: number of token ids.
        mask_id: id of [MASK].
        pad_id: id of padding.
        replacement_ids: ids that a random replacement may be, without special tokens.
        unigram: how often each of `replacement_ids` occurs in the text; needed for `Replace.ids` "unigram" only.

    """

    size: int
    mask_id: int
    pad_id: int
    replacement_ids: np.ndarray
    unigram: np.ndarray | None = None


@dataclass(frozen=True)
class Replace:
    """What becomes of a selected token: probabilities that sum to 1. The paper: always [MASK]; BERT: 0.8, 0.1, 0.1."""

    mask: float = 1.0
    """Probability that a selected token becomes [MASK]."""
    random: float = 0.0
    """Probability that a selected token becomes a random token."""
    keep: float = 0.0
    """Probability that a selected token stays as it is."""
    per: Literal["token", "unit"] = "token"
    """Whether the choice is made for each token, or once for all tokens of a unit."""
    ids: Literal["uniform", "unigram"] = "uniform"
    """Distribution of random tokens: uniform, or their frequency in the text."""

    def __post_init__(self) -> None:
        probabilities = (self.mask, self.random, self.keep)
        if not (min(probabilities) >= 0 and abs(sum(probabilities) - 1) <= 1e-6):  # so written, nan is refused too
            raise InputError(
                f"masking.replace: mask, random and keep must be at least 0 and sum to 1; got mask={self.mask} "
                f"random={self.random} keep={self.keep}, which sum to {sum(probabilities):g}"
            )


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

    rate: float = 0.40
    """Masking rate: share of the maskable tokens that is selected (m_corr); the maximum over the schedule."""
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

    def __post_init__(self) -> None:
        check_units(self.units)
        for name, share in (("rate", self.rate), ("predict", self.predict)):
            if share is not None and not 0 < share <= 1:
                raise InputError(f"masking.{name} must be above 0 and at most 1; got {share:g}: try 0.4")

    @property
    def views(self) -> int:
        """K, the rows that an example becomes: ceil(predict / rate), 1 unless more is predicted than selected."""
        return max(1, math.ceil((self.predict or self.rate) / self.rate - 1e-9))

    def predictions(self, length: int) -> int:
        """P, the most predictions that a row of `length` tokens can need."""
        all_views = _largest_budget(self.predict or self.rate, length)
        return min(length, _ceil_div(all_views, self.views) + self.units.max_length - 1)

    def for_tokenizer(self, tokenizer: Any) -> "Masking":
        """This masking with units that know the token ids they need, where the units have a `for_tokenizer` too."""
        bind = getattr(self.units, "for_tokenizer", None)
        return self if bind is None else replace(self, units=bind(tokenizer))

    def keys(self, key: Key[Array, ""]) -> Keys:
        """The key of each draw, from the key of an example."""
        return Keys(*jax.random.split(key, len(Keys._fields)))

    def select(
        self, key: Key[Array, ""], tokens: Tokens, step: Step = 0, view: int | Int[Array, ""] = 0
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

        Returns:
            (predicted, selected)

        """
        length = tokens.ids.shape[0]
        max_length = self.units.max_length
        keys = self.keys(key)
        starts = self.units.starts(keys.units, tokens)
        index_in_unit = indices_in_units(starts, tokens.maskable, max_length)
        order = shuffle_units(keys.order, index_in_unit, tokens.maskable, keys.offset if max_length > 1 else None)

        factor = self.schedule(step)
        u = jax.random.uniform(keys.count) if self.count == "expected" else 0.5
        select = budget(self.rate * factor, order.count, u)
        predict = select if self.predict is None else budget(self.predict * factor, order.count, u)
        begin = predict * view // self.views
        end = predict * (view + 1) // self.views

        predicted = take_units(order, begin, end - begin, self.predictions(length))
        if self.predict is None:
            return predicted, predicted
        slice_of_a_view = _ceil_div(_largest_budget(self.predict, length), self.views)
        max_tokens = max(_largest_budget(self.rate, length), slice_of_a_view) + max_length - 1
        selected = take_units(order, begin, jnp.maximum(select, end - begin), min(length, max_tokens))
        return predicted, selected

    def __call__(
        self, key: Key[Array, ""], tokens: Tokens, vocab: Vocab, step: Step = 0, view: int | Int[Array, ""] = 0
    ) -> Masked:
        """Mask one example.

        Args:
            key: of the example; `mask_batch` makes it.
            tokens: the example, fields [L].
            vocab: of the tokenizer.
            step: of training, for the schedule.
            view: which of the `views` rows of the example.

        """
        predicted, selected = self.select(key, tokens, step, view)
        replace_key = self.keys(key).replace
        if self.views > 1:
            replace_key = jax.random.fold_in(replace_key, view)
        replaced = self._replacement(replace_key, tokens.ids[selected.positions], selected, vocab)
        filled = jnp.arange(selected.positions.shape[0]) < selected.count
        where = jnp.where(filled, selected.positions, tokens.ids.shape[0])
        inputs = tokens.ids.at[where].set(replaced, mode="drop")
        weights = (jnp.arange(predicted.positions.shape[0]) < predicted.count).astype(jnp.float32)
        return Masked(inputs, predicted.positions, tokens.ids[predicted.positions], weights)

    def _replacement(
        self, key: Key[Array, ""], ids: Integer[Array, " P"], selected: Selection, vocab: Vocab
    ) -> Integer[Array, " P"]:
        mask = jnp.full_like(ids, vocab.mask_id)
        if self.replace.mask == 1.0:
            return mask
        kind_key, id_key = jax.random.split(key)
        u = jax.random.uniform(kind_key, ids.shape)
        if self.replace.per == "unit":  # the draw of the unit's first token
            u = u[jnp.maximum(jnp.arange(ids.shape[0]) - selected.index_in_unit, 0)]
        drawn = _draw(id_key, self.replace.ids, vocab, ids.shape)
        kept = jnp.where(u < self.replace.mask + self.replace.random, drawn.astype(ids.dtype), ids)
        return jnp.where(u < self.replace.mask, mask, kept)


def _largest_budget(rate: float, length: int) -> int:
    """The largest budget that a rate can give in a row of `length` tokens."""
    return max(1, math.ceil(rate * length - 1e-9))


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _draw(key: Key[Array, ""], distribution: str, vocab: Vocab, shape: tuple[int, ...]) -> Integer[Array, " P"]:
    """Draw random tokens."""
    ids = jnp.asarray(vocab.replacement_ids)
    if distribution == "uniform":
        return ids[jax.random.randint(key, shape, 0, len(vocab.replacement_ids))]
    if vocab.unigram is None:
        raise InputError('masking.replace.ids is "unigram" and this text has no counts: prepare the store again')
    # Thresholds in integers: float32 cannot tell the rare tokens of a large vocabulary apart.
    cumulative = np.cumsum(vocab.unigram, dtype=np.float64) / vocab.unigram.sum(dtype=np.float64)
    thresholds = jnp.asarray(np.minimum(cumulative[:-1] * 2.0**32, 2.0**32 - 1).astype(np.uint32))
    return ids[jnp.searchsorted(thresholds, jax.random.bits(key, shape), side="right")]


def mask_batch(
    masking: Masking,
    key: Key[Array, ""],
    example_ids: Integer[Array, " B"],
    tokens: Tokens,
    vocab: Vocab,
    step: Step = 0,
) -> Masked:
    """Mask a batch of examples, each by its own id. A pure function: wrap it in `jax.jit`, with any sharding.

    Args:
        masking: the masking.
        key: of this step, `step_key(seed, step)`. Its threefry bits do not depend on sharding.
        example_ids: [B] the id of each example.
        tokens: the examples, each field [B, L].
        vocab: of the tokenizer.
        step: of training, for the masking's schedule.

    Returns:
        Fields [B * views, ...]; rows b * views to (b + 1) * views - 1 are the views of example b.

    """

    def mask_example(example_id: Integer[Array, ""], row: Tokens) -> Masked:
        own_key = jax.random.fold_in(key, example_id)
        if masking.views == 1:
            return masking(own_key, row, vocab, step)
        return jax.vmap(lambda view: masking(own_key, row, vocab, step, view))(jnp.arange(masking.views))

    rows = jax.vmap(mask_example)(example_ids, tokens)
    return rows if masking.views == 1 else jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), rows)
