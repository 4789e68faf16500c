"""Which phrases PMI masking masks as one unit: a list that is given, or how one is made of the text."""

from dataclasses import dataclass
from typing import Literal

from jaxmlm.errors import InputError


@dataclass(frozen=True)
class Phrases:
    """Which phrases PMI masking hides as one unit."""

    file: str | None = None
    """A ready list: one phrase per line, or .parquet (a list that `prepare` wrote, or merged counts)."""
    longest: int = 5
    """Words in the longest phrases."""
    least: int = 11
    """Occurrences that a phrase must have; the paper wants more than 10."""
    power: Literal[1, 2] = 2
    """Exponent of the phrase's own probability: 1 is the paper's equation 3, 2 what its published lists use."""
    shares: tuple[float, ...] = (0.5, 0.25, 0.125, 0.125)
    """Share of the list for phrases of 2, 3, ... words."""
    coverage: float | None = 0.5
    """Take as many phrases as cover this share of the tokens."""
    number: int | None = None
    """Take this many phrases, whatever they cover."""
    overlap: Literal["random", "longest"] = "random"
    """Which of two overlapping phrases is the unit, where neither contains the other."""

    def __post_init__(self) -> None:
        if not 2 <= self.longest <= 16:
            raise InputError(f"phrases.longest must lie between 2 and 16 words; got {self.longest}: try 5")
        if self.least < 1:
            raise InputError(f"phrases.least must be at least 1 occurrence; got {self.least}: try 11")
        if self.power not in (1, 2):
            raise InputError(f"phrases.power must be 1 (the paper) or 2 (the published lists); got {self.power}")
        if not (len(self.shares) == self.longest - 1 and min(self.shares) > 0 and abs(sum(self.shares) - 1) < 1e-6):
            raise InputError(
                f"phrases.shares must be {self.longest - 1} numbers above 0 that sum to 1, for 2 to {self.longest} "
                f"words; got {self.shares}"
            )
        if self.number is not None and self.number < 1:
            raise InputError(f"phrases.number must be at least 1; got {self.number}: try 800000")
        if self.number is None and (self.coverage is None or not 0 < self.coverage <= 1):
            raise InputError(
                f"phrases.coverage must lie between 0 and 1; got {self.coverage}: try 0.5, or set phrases.number"
            )
        if self.overlap not in ("random", "longest"):
            raise InputError(f"phrases.overlap must be random or longest; got {self.overlap!r}")
