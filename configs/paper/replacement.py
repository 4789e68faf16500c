"""Wettig et al. 2022, section 5.2: does BERT's 80-10-10 rule help, or should a selected token always be [MASK]?

jaxmlm study configs/paper/replacement.py --dry-run
"""

from pathlib import Path
from runpy import run_path
from typing import Literal

from jaxmlm.masking import Replace
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
    shares = {
        "mask": (1.0, 0.0, 0.0),
        "80-10-10": (0.8, 0.1, 0.1),
        "5 random": (0.95, 0.05, 0.0),
        "5 keep": (0.95, 0.0, 0.05),
    }
    # What is compared comes first: within each rate.
    axes = (
        Vary("masking.replace", tuple(Replace(*share) for share in shares.values()), tuple(shares)),
        Vary("masking.rate", (0.15, 0.40)),
    )
    return study("replacement", scale, text, glue, blimp, axes, sample)
