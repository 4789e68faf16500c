"""What becomes of the selected tokens: [MASK], a random token, or nothing."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Integer, Key

from jaxmlm.checks import check_choices, check_constant
from jaxmlm.errors import InputError
from jaxmlm.masking.selection import Selection


@dataclass(frozen=True, eq=False)
class Vocab:
    """What a masking must know of the tokenizer and the text.

    Attributes:
        size: number of token ids.
        mask_id: id of [MASK].
        pad_id: id of padding.
        replacement_ids: ids that a random replacement may be, without special tokens.
        unigram: how often each of `replacement_ids` occurs in the text; needed for `Replace.ids` "unigram" only.

    Raises:
        InputError: an id is not below `size`.

    """

    size: int
    mask_id: int
    pad_id: int
    replacement_ids: np.ndarray
    unigram: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("mask_id", "pad_id", "replacement_ids"):
            ids = np.asarray(getattr(self, name))
            if wrong := ids[(ids < 0) | (ids >= self.size)].tolist():
                raise InputError(f"{name} has {wrong[0]}: the {self.size} token ids are 0 to {self.size - 1}")


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
        check_choices(self, "masking.replace.")

    def __call__(
        self, key: Key[Array, ""], ids: Integer[Array, " P"], selected: Selection, vocab: Vocab
    ) -> Integer[Array, " P"]:
        """What becomes of the selected tokens.

        Args:
            key: of the draws.
            ids: [P] the tokens.
            selected: which of the P slots are filled, and with what.
            vocab: of the tokenizer.

        """
        mask = jnp.full_like(ids, vocab.mask_id)
        if self.mask == 1.0:
            return mask
        kind_key, id_key = jax.random.split(key)
        u = jax.random.uniform(kind_key, ids.shape, jnp.float32)
        if self.per == "unit":  # the draw of the unit's first token
            u = u[jnp.maximum(jnp.arange(ids.shape[0]) - selected.index_in_unit, 0)]
        others = ids
        if self.random > 0:
            drawn = _draw(id_key, self.ids, vocab, ids.shape)
            others = jnp.where(u < self.mask + self.random, drawn.astype(ids.dtype), ids)
        return jnp.where(u < self.mask, mask, others)


def check_replace(replace: Any) -> None:
    """Refuse what a masking cannot take as `masking.replace`.

    Args:
        replace: what a configuration gives.

    Raises:
        InputError: it is not a `Replace`, or cannot be a constant of a compiled program.

    """
    if not isinstance(replace, Replace):
        raise InputError(
            f"masking.replace is a {type(replace).__name__}: give a Replace, as Replace(0.8, 0.1, 0.1), or a frozen "
            "dataclass that derives from it"
        )
    check_constant("masking.replace", replace)


def _draw(key: Key[Array, ""], distribution: str, vocab: Vocab, shape: tuple[int, ...]) -> Integer[Array, " P"]:
    """Draw random tokens."""
    ids = jnp.asarray(vocab.replacement_ids)
    if distribution == "uniform":
        return ids[jax.random.randint(key, shape, 0, len(vocab.replacement_ids), jnp.int32)]
    if vocab.unigram is None:
        raise InputError('masking.replace.ids is "unigram" and this text has no counts: prepare the store again')
    # Thresholds in integers: float32 cannot tell the rare tokens of a large vocabulary apart.
    cumulative = np.cumsum(vocab.unigram, dtype=np.float64) / vocab.unigram.sum(dtype=np.float64)
    thresholds = jnp.asarray(np.minimum(cumulative[:-1] * 2.0**32, 2.0**32 - 1).astype(np.uint32))
    return ids[jnp.searchsorted(thresholds, jax.random.bits(key, shape, jnp.uint32), side="right")]
