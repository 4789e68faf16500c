"""Which phrases PMI masking masks as one unit: a list that is given, or how one is made of the text."""

from dataclasses import dataclass
from typing import Literal

from jaxmlm.checks import COUNT, POSITIVE_SHARE, check_choices, check_numbers
from jaxmlm.errors import InputError


@dataclass(frozen=True)
class Phrases:
    """Which phrases PMI masking masks as one unit (Levine et al. 2021, arXiv 2010.01825)."""

    file: str | None = None
    """Phrase list: text, a phrase a line, or .parquet (of `prepare`, or merged counts); default: made of the text."""
    longest: int = 5
    """Number of words in the longest phrases."""
    min_count: int = 11
    """Number of times that a phrase must occur; more than 10 in the paper."""
    pmi_power: Literal[1, 2] = 2
    """Exponent of the phrase's own probability in its PMI: 1 is the paper's equation 3, 2 what its lists use."""
    shares: tuple[float, ...] = (0.5, 0.25, 0.125, 0.125)
    """Shares of the list that go to phrases of 2, 3, ... words."""
    coverage: float | None = 0.5
    """Share of the tokens that the phrases cover, which decides how many are taken."""
    size: int | None = None
    """Number of phrases, whatever share they cover; default: by `coverage`."""
    overlap: Literal["random", "longest"] = "random"
    """Which of two overlapping phrases is the unit where neither contains the other: one at random, or the longest."""

    def __post_init__(self) -> None:
        check_choices(self, "data.phrases.")
        if not 2 <= self.longest <= 16:
            raise InputError(f"data.phrases.longest must lie between 2 and 16 words; got {self.longest}: try 5")
        check_numbers(self, "data.phrases.", min_count=COUNT, size=COUNT, coverage=POSITIVE_SHARE)
        if not (len(self.shares) == self.longest - 1 and min(self.shares) > 0 and abs(sum(self.shares) - 1) < 1e-6):
            raise InputError(
                f"data.phrases.shares must be {self.longest - 1} numbers above 0 that sum to 1, for 2 to "
                f"{self.longest} words; got {self.shares}"
            )
        if self.size is None and self.coverage is None:
            raise InputError("data.phrases: give coverage, as 0.5, or size, as 800000")
