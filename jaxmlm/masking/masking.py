"""A masking: from one example to what the model sees and what it must predict.

Everything random is a function of (seed, step, example id), so the same example is masked in the same way in
any batch, on any mesh, after any resume. A masking works on ONE example; `mask_batch` maps it over a batch.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Integer, Key

from jaxmlm.errors import InputError
from jaxmlm.masking.schedule import Constant, Schedule, Step
from jaxmlm.masking.select import Arc, arc, budget, lay
from jaxmlm.masking.units import TokenUnits, Units, check, places
from jaxmlm.rng import make_key


class Tokens(NamedTuple):
    """One example: ids [L], which of them may be masked [L] bool, unit bits [L] uint8 (see `units.WORD`, `PHRASE`)."""

    ids: jax.Array
    maskable: jax.Array
    unit: jax.Array


class Masked(NamedTuple):
    """What the model sees, inputs [L]; where, what and with which weight it predicts: positions, targets, weights [P].

    P is static, the most predictions that the masking can make; slots beyond an example's own count have weight 0.
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
    zero: jax.Array
    unit: jax.Array


@dataclass(frozen=True, eq=False)
class Vocab:
    """What a masking must know of the tokenizer and the text.

    `drawable`: the ids that a random replacement may be; `unigram`: how often each of them occurs in the text.
    """

    size: int
    mask_id: int
    pad_id: int
    drawable: np.ndarray
    unigram: np.ndarray | None = None


@dataclass(frozen=True)
class Replace:
    """What becomes of a selected token: shares that sum to 1. The paper: always [MASK]; BERT: 0.8, 0.1, 0.1."""

    mask: float = 1.0
    random: float = 0.0
    keep: float = 0.0
    per: Literal["token", "unit"] = "token"
    """Whether each token draws its fate, or all of a unit share one."""
    ids: Literal["uniform", "unigram"] = "uniform"
    """Random tokens: all equally likely, or as often as in the text."""

    def __post_init__(self) -> None:
        shares = (self.mask, self.random, self.keep)
        if not (min(shares) >= 0 and abs(sum(shares) - 1) <= 1e-6):  # so written, nan is refused too
            raise InputError(
                f"masking.replace: shares must be at least 0 and sum to 1; got mask={self.mask} random={self.random} "
                f"keep={self.keep}, which sum to {sum(shares):g}"
            )


@dataclass(frozen=True)
class Masking:
    """What is hidden of an example, and what is predicted (Wettig et al. 2022, arXiv 2202.08005).

    Its maskable tokens are cut into `units`. Of n of them, floor(rate * n + u), u uniform in [0, 1), are selected by
    whole units drawn without replacement, in short rows often none; never a special token or padding. Of the
    selected, `replace` says which become [MASK], a random token, or stay: corrupted = masked + random.

    With `predict` (m_pred) apart from `rate` (m_corr), section 5 of the paper: fewer predictions than that are a
    random part of the selected; more are made in `views` rows of the same example, each of which selects other units.

    >>> masking = Masking(rate=0.5)
    >>> tokens = Tokens(jnp.arange(5, 13), jnp.arange(8) > 0, jnp.ones(8, jnp.uint8))
    >>> vocab = Vocab(size=13, mask_id=4, pad_id=0, drawable=np.arange(5, 13))
    >>> masked = masking(jax.random.key(0), tokens, vocab)
    >>> int(masked.weights.sum()) in (3, 4), int(masked.inputs[0])
    (True, 5)
    """

    rate: float = 0.40
    """Share of the maskable tokens that is selected (m_corr); the largest value that the schedule reaches."""
    predict: float | None = None
    """Share of them that is predicted (m_pred), where it is not the rate."""
    schedule: Schedule = field(default_factory=Constant)
    """A factor in (0, 1] of the step, on both rates."""
    units: Units = field(default_factory=TokenUnits)
    """Tokens, words, spans or phrases, or units of your own (see `Units`)."""
    count: Literal["expected", "exact"] = "expected"
    """How a share of n becomes a number: floor(rate * n + u) as in fairseq, or the nearest one, always the same."""
    replace: Replace = field(default_factory=Replace)
    """What becomes of the selected tokens."""

    def __post_init__(self) -> None:
        check(self.units)
        for name, share in (("rate", self.rate), ("predict", self.predict)):
            if share is not None and not 0 < share <= 1:
                raise InputError(f"masking.{name} must be above 0 and at most 1; got {share:g}: try 0.4")

    @property
    def views(self) -> int:
        """K, the rows that an example becomes: ceil(predict / rate), 1 where no more is predicted than selected."""
        return max(1, math.ceil((self.predict or self.rate) / self.rate - 1e-9))

    def predictions(self, length: int) -> int:
        """P, the most predictions that a row of this many tokens can need."""
        in_all = _most(self.predict or self.rate, length)
        return min(length, -(-in_all // self.views) + self.units.longest - 1)

    def keys(self, key: Key[Array, ""]) -> Keys:
        """What each draw of an example uses."""
        return Keys(*jax.random.split(key, len(Keys._fields)))

    def draw(
        self, key: Key[Array, ""], tokens: Tokens, step: Step = 0, view: int | Int[Array, ""] = 0
    ) -> tuple[Arc, Arc]:
        """The units of one example that a view predicts, and those that it selects; the first are among the second."""
        length = tokens.ids.shape[0]
        keys = self.keys(key)
        starts = self.units.starts(keys.unit, tokens.unit, tokens.maskable)
        within = places(starts, tokens.maskable, self.units.longest)
        circle = lay(keys.order, within, tokens.maskable, keys.zero if self.units.longest > 1 else None)

        factor = self.schedule(step)
        u = jax.random.uniform(keys.count) if self.count == "expected" else 0.5
        select = budget(self.rate * factor, circle.n, u)
        predict = select if self.predict is None else budget(self.predict * factor, circle.n, u)
        begin, end = predict * view // self.views, predict * (view + 1) // self.views

        predicted = arc(circle, begin, end - begin, self.predictions(length))
        if self.predict is None:
            return predicted, predicted
        most = max(_most(self.rate, length), -(-_most(self.predict, length) // self.views)) + self.units.longest - 1
        return predicted, arc(circle, begin, jnp.maximum(select, end - begin), min(length, most))

    def __call__(
        self, key: Key[Array, ""], tokens: Tokens, vocab: Vocab, step: Step = 0, view: int | Int[Array, ""] = 0
    ) -> Masked:
        """Mask one example; `view` < `views` is which of its rows this is."""
        predicted, selected = self.draw(key, tokens, step, view)
        replace_key = self.keys(key).replace
        if self.views > 1:
            replace_key = jax.random.fold_in(replace_key, view)
        shown = self._replacement(replace_key, tokens.ids[selected.positions], selected, vocab)
        slots, length = selected.positions.shape[0], tokens.ids.shape[0]
        where = jnp.where(jnp.arange(slots) < selected.count, selected.positions, length)
        inputs = tokens.ids.at[where].set(shown, mode="drop")
        weights = (jnp.arange(predicted.positions.shape[0]) < predicted.count).astype(jnp.float32)
        return Masked(inputs, predicted.positions, tokens.ids[predicted.positions], weights)

    def _replacement(
        self, key: Key[Array, ""], ids: Integer[Array, " P"], selected: Arc, vocab: Vocab
    ) -> Integer[Array, " P"]:
        mask = jnp.full_like(ids, vocab.mask_id)
        if self.replace.mask == 1.0:
            return mask
        kind_key, id_key = jax.random.split(key)
        u = jax.random.uniform(kind_key, ids.shape)
        if self.replace.per == "unit":  # the draw of the unit's first token
            u = u[jnp.maximum(jnp.arange(ids.shape[0]) - selected.within, 0)]
        drawn = _draw(id_key, self.replace.ids, vocab, ids.shape)
        kept = jnp.where(u < self.replace.mask + self.replace.random, drawn.astype(ids.dtype), ids)
        return jnp.where(u < self.replace.mask, mask, kept)


def _most(rate: float, length: int) -> int:
    """The most tokens that a budget of this share can be."""
    return max(1, math.ceil(rate * length - 1e-9))


def _draw(key: Key[Array, ""], law: str, vocab: Vocab, shape: tuple[int, ...]) -> Integer[Array, " P"]:
    """Random tokens."""
    drawable = jnp.asarray(vocab.drawable)
    if law == "uniform":
        return drawable[jax.random.randint(key, shape, 0, len(vocab.drawable))]
    if vocab.unigram is None:
        raise InputError('masking.replace.ids is "unigram" and this text has no counts: prepare the store again')
    # Thresholds in integers: float32 cannot tell the rare pieces of a large vocabulary apart.
    share = np.cumsum(vocab.unigram, dtype=np.float64) / vocab.unigram.sum(dtype=np.float64)
    below = jnp.asarray(np.minimum(share[:-1] * 2.0**32, 2.0**32 - 1).astype(np.uint32))
    return drawable[jnp.searchsorted(below, jax.random.bits(key, shape), side="right")]


def mask_batch(
    masking: Masking,
    seed: int,
    ids: Integer[Array, " B"],
    tokens: Tokens,
    vocab: Vocab,
    step: Step,
) -> Masked:
    """Mask a batch: row b of every field of `tokens` is the example with id `ids[b]`; gives B * views rows.

    The key of an example is fold_in(fold_in(key(seed), step), id), with threefry, whose bits do not depend on
    sharding. The views of an example are neighbours: rows b * views to (b + 1) * views - 1.
    """
    key = jax.random.fold_in(make_key(seed), step)
    return mask_rows(masking, key, ids, tokens, vocab, step)


def mask_rows(
    masking: Masking, key: Key[Array, ""], ids: Integer[Array, " B"], tokens: Tokens, vocab: Vocab, step: Step
) -> Masked:
    """`mask_batch` with the key of the step, fold_in(key(seed), step), made already."""

    def one(example: Integer[Array, ""], row: Tokens) -> Masked:
        own = jax.random.fold_in(key, example)
        if masking.views == 1:
            return masking(own, row, vocab, step)
        return jax.vmap(lambda view: masking(own, row, vocab, step, view))(jnp.arange(masking.views))

    rows = jax.vmap(one)(ids, tokens)
    return rows if masking.views == 1 else jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), rows)
