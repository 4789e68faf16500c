"""A masking: from one example to what the model sees and what it must predict.

Everything random is a function of (seed, step, example id), so the same example is masked in the same way in
any batch, on any mesh, after any resume. A masking works on ONE example; `mask_batch` maps it over a batch.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Integer, Key

from jaxmlm.errors import InputError
from jaxmlm.masking.select import budget, draw


class Tokens(NamedTuple):
    """One example: ids [L], which of them may be masked [L] bool, unit bits [L] uint8 (bit 0: a word starts here)."""

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


@dataclass(frozen=True, eq=False)
class Vocab:
    """What a masking must know of the tokenizer. `drawable`: the ids that a random replacement may be."""

    size: int
    mask_id: int
    pad_id: int
    drawable: np.ndarray


@dataclass(frozen=True)
class Replace:
    """What becomes of a selected token: shares that sum to 1. The paper: always [MASK]; BERT: 0.8, 0.1, 0.1."""

    mask: float = 1.0
    random: float = 0.0
    keep: float = 0.0

    def __post_init__(self) -> None:
        shares = (self.mask, self.random, self.keep)
        if not (min(shares) >= 0 and abs(sum(shares) - 1) <= 1e-6):  # so written, nan is refused too
            raise InputError(
                f"masking.replace: shares must be at least 0 and sum to 1; got mask={self.mask} random={self.random} "
                f"keep={self.keep}, which sum to {sum(shares):g}"
            )


@dataclass(frozen=True)
class Masking:
    """Uniform masking of tokens at a rate (Wettig et al. 2022, arXiv 2202.08005, section 2).

    Of n maskable tokens floor(rate * n + u), u uniform in [0, 1), are selected without replacement (fairseq's
    rounding, so the expected share is exactly `rate`), at least one where there is one. Special tokens and padding
    are never selected.

    >>> masking = Masking(rate=0.5)
    >>> tokens = Tokens(jnp.arange(5, 13), jnp.arange(8) > 0, jnp.ones(8, jnp.uint8))
    >>> vocab = Vocab(size=13, mask_id=4, pad_id=0, drawable=np.arange(5, 13))
    >>> masked = masking(jax.random.key(0), tokens, vocab)
    >>> int(masked.weights.sum()) in (3, 4), int(masked.inputs[0])
    (True, 5)
    """

    rate: float = 0.40
    """Share of the maskable tokens that is selected (and predicted)."""
    replace: Replace = field(default_factory=Replace)
    """What becomes of the selected tokens."""

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise InputError(f"masking.rate must lie between 0 and 1, both excluded; got {self.rate:g}: try 0.4")

    def predictions(self, length: int) -> int:
        """P, the most predictions that an example of this many tokens can need."""
        return max(1, math.ceil(self.rate * length - 1e-9))

    def __call__(self, key: Key[Array, ""], tokens: Tokens, vocab: Vocab) -> Masked:
        """Mask one example."""
        count_key, order_key, replace_key = jax.random.split(key, 3)
        count = budget(count_key, self.rate, tokens.maskable)
        positions = draw(order_key, tokens.maskable, self.predictions(tokens.ids.shape[0]))
        selected = jnp.arange(positions.shape[0]) < count
        targets = tokens.ids[positions]
        shown = jnp.where(selected, self._replacement(replace_key, targets, vocab), targets)
        return Masked(tokens.ids.at[positions].set(shown), positions, targets, selected.astype(jnp.float32))

    def _replacement(self, key: Key[Array, ""], ids: Integer[Array, " P"], vocab: Vocab) -> Integer[Array, " P"]:
        mask = jnp.full_like(ids, vocab.mask_id)
        if self.replace.mask == 1.0:
            return mask
        kind_key, id_key = jax.random.split(key)
        u = jax.random.uniform(kind_key, ids.shape)
        drawn = jax.random.randint(id_key, ids.shape, 0, len(vocab.drawable))
        random = jnp.asarray(vocab.drawable, ids.dtype)[drawn]
        kept = jnp.where(u < self.replace.mask + self.replace.random, random, ids)
        return jnp.where(u < self.replace.mask, mask, kept)


def mask_batch(
    masking: Masking,
    seed: int,
    ids: Integer[Array, " B"],
    tokens: Tokens,
    vocab: Vocab,
    step: int | Integer[Array, ""],
) -> Masked:
    """Mask a batch: row b of every field of `tokens` is the example with id `ids[b]`.

    The key of a row is fold_in(fold_in(key(seed), step), id), with threefry, whose bits do not depend on sharding.
    """
    return mask_rows(masking, jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), step), ids, tokens, vocab)


def mask_rows(masking: Masking, key: Key[Array, ""], ids: Integer[Array, " B"], tokens: Tokens, vocab: Vocab) -> Masked:
    """`mask_batch` with the key of the step, fold_in(key(seed), step), made already."""

    def one(example: Integer[Array, ""], row: Tokens) -> Masked:
        return masking(jax.random.fold_in(key, example), row, vocab)

    return jax.vmap(one)(ids, tokens)
