"""What is hidden as one piece: tokens, words, spans, phrases, or units of your own. A unit is never cut."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key, UInt8

from jaxmlm.errors import InputError
from jaxmlm.masking.phrases import Phrases

WORD, PHRASE = 1, 2
"""Bits of `Tokens.unit`: a word starts at this token; a phrase, or a word that is in none, starts here."""
LONGEST = 16
"""The units here close after so many tokens, which bounds how far a selection can overshoot its budget."""


class Units(ABC):
    """What a masking cuts an example into: any frozen dataclass with `longest` and `starts`, derived from this or not.

    `longest` is the most tokens of a unit, which closes after so many: the slots for predictions follow from it.
    """

    longest: ClassVar[int]

    @abstractmethod
    def starts(self, key: Key[Array, ""], unit: UInt8[Array, " L"], maskable: Bool[Array, " L"]) -> Bool[Array, " L"]:
        """Where units start, in one example; `unit` has its bits (`WORD`, `PHRASE`)."""

    @classmethod
    def __subclasshook__(cls, kind: type) -> Any:
        if cls is not Units or not is_dataclass(kind) or not hasattr(kind, "starts"):
            return NotImplemented
        return hasattr(kind, "longest") or any(field.name == "longest" for field in fields(kind)) or NotImplemented


@dataclass(frozen=True)
class TokenUnits(Units):
    """Every token by itself (Wettig et al. 2022: uniform masking)."""

    longest: ClassVar[int] = 1

    def starts(self, key: Key[Array, ""], unit: UInt8[Array, " L"], maskable: Bool[Array, " L"]) -> Bool[Array, " L"]:
        """Where units start."""
        return jnp.ones(unit.shape, bool)


@dataclass(frozen=True)
class WordUnits(Units):
    """Whole words, all their pieces together (BERT's "whole word masking")."""

    longest: ClassVar[int] = LONGEST

    def starts(self, key: Key[Array, ""], unit: UInt8[Array, " L"], maskable: Bool[Array, " L"]) -> Bool[Array, " L"]:
        """Where units start."""
        return unit & WORD > 0


@dataclass(frozen=True)
class SpanUnits(Units):
    """Spans of consecutive words or tokens (Joshi et al. 2020, SpanBERT, section 3.1).

    Lengths are geometric, P(l) ~ p (1 - p)^(l - 1), cut off at `longest` and renormalised: 3.8 on average. The whole
    row is laid out in such spans, so no two overlap and every place is hidden equally often; only the row's end, a
    special token, and the 16th token cut one short.
    """

    p: float = 0.2
    """Of the geometric law."""
    most: int = 10
    """Words (or tokens) of the longest span."""
    of: Literal["words", "tokens"] = "words"
    """What a span's length counts."""
    longest: ClassVar[int] = LONGEST

    def __post_init__(self) -> None:
        if not 0 < self.p < 1:
            raise InputError(f"masking.units.p must lie between 0 and 1, both excluded; got {self.p:g}: try 0.2")
        if not 1 <= self.most <= LONGEST:
            raise InputError(
                f"masking.units.most must be 1 to {LONGEST}, a unit's most tokens; got {self.most}: try 10"
            )

    def law(self) -> np.ndarray:
        """The probabilities of the lengths 1 to `most`.

        >>> SpanUnits().law().round(3)[:3], float((SpanUnits().law() * np.arange(1, 11)).sum().round(3))
        (array([0.224, 0.179, 0.143]), 3.797)
        """
        shares = (1 - self.p) ** np.arange(self.most)
        return shares / shares.sum()

    def starts(self, key: Key[Array, ""], unit: UInt8[Array, " L"], maskable: Bool[Array, " L"]) -> Bool[Array, " L"]:
        """Where units start."""
        counted = maskable & (_after_a_gap(maskable) | (unit & WORD > 0 if self.of == "words" else True))
        below = jnp.asarray(np.cumsum(self.law())[:-1], jnp.float32)  # the law's distribution function
        u = jax.random.uniform(key, unit.shape)
        lengths = 1 + (u[:, None] >= below[None]).sum(-1)
        begins = jnp.zeros(unit.shape, bool).at[jnp.cumsum(lengths)].set(True, mode="drop").at[0].set(True)
        return counted & begins[jnp.cumsum(counted) - 1]


@dataclass(frozen=True)
class PhraseUnits(Units):
    """Phrases of two to five words that belong together by their PMI, and every other word by itself.

    Levine et al. 2021 (arXiv 2010.01825). The list is made, and matched against the text, by `jaxmlm prepare`.
    """

    phrases: Phrases = field(default_factory=Phrases)
    """How the list is made, or the file that holds it."""
    longest: ClassVar[int] = LONGEST

    def starts(self, key: Key[Array, ""], unit: UInt8[Array, " L"], maskable: Bool[Array, " L"]) -> Bool[Array, " L"]:
        """Where units start."""
        return unit & PHRASE > 0


def check(units: Any) -> None:
    """Refuse units that a masking cannot work with.

    Raises:
        InputError: `longest` or `starts` is missing or wrong, or they cannot be a constant of a compiled program.

    """
    name = type(units).__name__
    if not isinstance(units, Units) or not is_dataclass(units) or type(units).__hash__ is None:
        raise InputError(
            f"masking.units is a {name}: give a frozen dataclass with longest, the most tokens of a unit, and "
            "starts(key, unit, maskable), where units start"
        )
    longest: Any = units.longest
    if not isinstance(longest, int) or longest < 1:
        raise InputError(f"masking.units: {name}.longest is a number of tokens, at least 1; got {longest!r}")


def places(starts: Bool[Array, " L"], maskable: Bool[Array, " L"], longest: int = LONGEST) -> Int[Array, " L"]:
    """The place of each token in its unit: 0 at its first.

    A unit also starts after a token that is not maskable, and where the unit before has `longest` tokens.
    """
    at = jnp.arange(starts.shape[0])
    first = starts | ~maskable | _after_a_gap(maskable)
    return (at - jax.lax.cummax(jnp.where(first, at, 0))) % longest


def _after_a_gap(maskable: Bool[Array, " L"]) -> Bool[Array, " L"]:
    return jnp.concatenate([jnp.ones(1, bool), ~maskable[:-1]])
