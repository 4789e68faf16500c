"""What is masked together: tokens, words, spans, phrases, or units of your own. A unit is never cut."""

from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key

from jaxmlm.checks import check_choices, check_constant
from jaxmlm.errors import InputError

WORD = 1
PHRASE = 2
"""Bits of `Tokens.unit`: a word starts at this token; a phrase, or a word that is in none, starts here."""
MAX_UNIT_LENGTH = 16
"""Tokens after which the units here close.

A selection overshoots its budget by at most a unit, so P, the static number of prediction slots, grows by this less 1:
16 is longer than all but a few in a million English words (median 1 token), and costs 15 slots of a row.
"""


class Tokens(NamedTuple):
    """One example, as a masking reads it.

    Attributes:
        ids: [L] token ids.
        maskable: [L] bool, false at special tokens and padding.
        unit: [L] uint8, the bits `WORD` and `PHRASE`.

    """

    ids: jax.Array
    maskable: jax.Array
    unit: jax.Array


@runtime_checkable
class Units(Protocol):
    """How tokens are grouped before they are selected: any frozen dataclass with these two members.

    A third, `needs`, names what the token store must hold beside the tokens: frozenset({"phrase"}) for the phrase bits
    of `Tokens.unit`, which `jaxmlm prepare` makes. Without it nothing is needed. A fourth, `for_tokenizer(tokenizer)`,
    is called once before training and returns units that know the token ids they need.
    """

    @property
    def max_length(self) -> int:
        """The most tokens of a unit, which closes after so many; the number of prediction slots follows from it."""
        ...

    def starts(self, key: Key[Array, ""], tokens: Tokens) -> Bool[Array, " L"]:
        """Where units start in one example [L]; also called under `jax.jit` and `jax.vmap`."""
        ...


def _has_members_of_units(cls: type, kind: type) -> Any:
    if cls is not Units or not is_dataclass(kind) or not hasattr(kind, "starts"):
        return NotImplemented
    has_length = hasattr(kind, "max_length") or any(field.name == "max_length" for field in fields(kind))
    return has_length or NotImplemented


# By `issubclass` tyro finds the flags of a user's units, and Python refuses it for protocols with attributes.
Units.__subclasshook__ = classmethod(_has_members_of_units)  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True)
class TokenUnits:
    """Every token by itself (Wettig et al. 2022: uniform masking)."""

    max_length = 1

    def starts(self, key: Key[Array, ""], tokens: Tokens) -> Bool[Array, " L"]:
        """Where units start: everywhere."""
        return jnp.ones(tokens.unit.shape, bool)


@dataclass(frozen=True)
class WordUnits:
    """Whole words, all their tokens together (BERT's "whole word masking")."""

    max_length = MAX_UNIT_LENGTH

    def starts(self, key: Key[Array, ""], tokens: Tokens) -> Bool[Array, " L"]:
        """Where words start."""
        return tokens.unit & WORD > 0


@dataclass(frozen=True)
class SpanUnits:
    """Spans of consecutive words or tokens (Joshi et al. 2020, SpanBERT, section 3.1).

    Lengths are geometric, P(l) ~ p (1 - p)^(l - 1), truncated at `longest` and renormalised: 3.8 on average. The whole
    row is divided into such spans, so no two overlap and every position is masked equally often; only the end of the
    row, a special token, and the 16th token cut one short.
    """

    p: float = 0.2
    """Parameter of the geometric distribution of span lengths."""
    longest: int = 10
    """Length of the longest span, in words or tokens."""
    of: Literal["words", "tokens"] = "words"
    """What the length of a span counts."""
    max_length = MAX_UNIT_LENGTH

    def __post_init__(self) -> None:
        if not 0 < self.p < 1:
            raise InputError(f"masking.units.p must lie between 0 and 1, both excluded; got {self.p:g}: try 0.2")
        if not 1 <= self.longest <= MAX_UNIT_LENGTH:
            raise InputError(
                f"masking.units.longest must be 1 to {MAX_UNIT_LENGTH}, the most tokens of a unit; got "
                f"{self.longest}: try 10"
            )
        check_choices(self, "masking.units.")

    def distribution(self) -> np.ndarray:
        """The probabilities of the lengths 1 to `longest`.

        >>> SpanUnits().distribution().round(3)[:3]
        array([0.224, 0.179, 0.143])
        >>> float((SpanUnits().distribution() * np.arange(1, 11)).sum().round(3))
        3.797
        """
        weights = (1 - self.p) ** np.arange(self.longest)
        return weights / weights.sum()

    def starts(self, key: Key[Array, ""], tokens: Tokens) -> Bool[Array, " L"]:
        """Where spans start."""
        counted = tokens.maskable & _after_a_gap(tokens.maskable)
        counted |= tokens.maskable & (tokens.unit & WORD > 0 if self.of == "words" else True)
        cumulative = jnp.asarray(np.cumsum(self.distribution())[:-1], jnp.float32)
        u = jax.random.uniform(key, tokens.unit.shape, jnp.float32)
        lengths = 1 + (u[:, None] >= cumulative[None]).sum(-1)
        begins = jnp.zeros(tokens.unit.shape, bool).at[jnp.cumsum(lengths)].set(True, mode="drop").at[0].set(True)
        return counted & begins[jnp.cumsum(counted) - 1]


@dataclass(frozen=True)
class PhraseUnits:
    """Phrases of two to five words with high PMI, and every other word by itself.

    Levine et al. 2021 (arXiv 2010.01825). `data.phrases` says which phrases; `jaxmlm prepare` finds them in the text.
    """

    max_length = MAX_UNIT_LENGTH
    needs = frozenset({"phrase"})

    def starts(self, key: Key[Array, ""], tokens: Tokens) -> Bool[Array, " L"]:
        """Where phrases start, and words that are in none."""
        return tokens.unit & PHRASE > 0


def check_units(units: Any) -> None:
    """Refuse units that a masking cannot work with.

    Args:
        units: what a configuration gives as `masking.units`.

    Raises:
        InputError: `max_length` or `starts` is missing or wrong, or they cannot be a constant of a compiled program.

    """
    name = type(units).__name__
    if not isinstance(units, Units) or not is_dataclass(units) or type(units).__hash__ is None:
        raise InputError(
            f"masking.units is a {name}: give a frozen dataclass with max_length, the most tokens of a unit, and "
            "starts(key, tokens), where units start"
        )
    check_constant("masking.units", units)
    max_length: Any = units.max_length
    if not isinstance(max_length, int) or max_length < 1:
        raise InputError(f"masking.units: {name}.max_length is a number of tokens, at least 1; got {max_length!r}")


def needs_phrases(units: Units) -> bool:
    """Whether these units need the phrase bits of the token store.

    >>> needs_phrases(PhraseUnits()), needs_phrases(WordUnits())
    (True, False)
    """
    return "phrase" in getattr(units, "needs", ())


def indices_in_units(
    starts: Bool[Array, " L"], maskable: Bool[Array, " L"], max_length: int = MAX_UNIT_LENGTH
) -> Int[Array, " L"]:
    """The index of each token in its unit: 0 at its first token.

    A unit also starts after a token that is not maskable, and where the unit before has `max_length` tokens.

    >>> indices_in_units(jnp.array([True, False, False, True]), jnp.array([True, True, True, True]), 2)
    Array([0, 1, 0, 0], dtype=int32)
    """
    at = jnp.arange(starts.shape[0])
    first = starts | ~maskable | _after_a_gap(maskable)
    return (at - jax.lax.cummax(jnp.where(first, at, 0))) % max_length


def _after_a_gap(maskable: Bool[Array, " L"]) -> Bool[Array, " L"]:
    return jnp.concatenate([jnp.ones(1, bool), ~maskable[:-1]])
