"""Wettig et al. 2022, section 6: does a uniform mask at a high rate rival spans and phrases?

    jaxmlm study configs/paper/strategies.py --dry-run

Tokens, whole words, spans and PMI phrases, each at 15 % and at 40 %, all compared with all: the question is tokens at
40 % against phrases at 15 %. The paper: at 15 % PMI masking is best, at its own best rate uniform masking is as good.
"""

from pathlib import Path
from runpy import run_path
from typing import Literal

from jaxmlm.masking import Masking, PhraseUnits, SpanUnits, TokenUnits, WordUnits
from jaxmlm.studies import Study, Vary

study = run_path(str(Path(__file__).with_name("common.py")))["study"]


def config(
    scale: Literal["cpu", "pod"] = "cpu",
    text: str = "sample:20000",
    glue: str = "sample:",
    blimp: str = "sample:",
    sample: bool = False,
) -> Study:
    """The text to learn from, and where GLUE and BLiMP lie; sample: is the generated world (at pod scale: --sample)."""
    units = {"tokens": TokenUnits(), "words": WordUnits(), "spans": SpanUnits(), "phrases": PhraseUnits()}
    maskings = {
        f"{name} {rate:.0%}": Masking(rate, units=unit) for name, unit in units.items() for rate in (0.15, 0.40)
    }
    return study(
        "strategies", scale, text, glue, blimp, (Vary("masking", tuple(maskings.values()), tuple(maskings)),), sample
    )
