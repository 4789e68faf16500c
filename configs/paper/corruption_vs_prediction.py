"""Wettig et al. 2022, section 5 and table 3: a rate is two rates, how much is corrupted and how much is predicted.

    jaxmlm study configs/paper/corruption_vs_prediction.py --dry-run

Where more is predicted than corrupted an example becomes several rows (views), which cost so many times the compute:
0.05 -> 0.40 is eight rows. `--dry-run` counts that in its estimate.
"""

from pathlib import Path
from runpy import run_path
from typing import Literal

from jaxmlm.masking import Masking
from jaxmlm.studies import Study, Vary

study = run_path(str(Path(__file__).with_name("common.py")))["study"]
PAIRS = ((0.40, 0.40), (0.40, 0.20), (0.20, 0.40), (0.20, 0.20), (0.10, 0.40), (0.05, 0.40), (0.80, 0.40), (0.80, 0.20))


def config(
    scale: Literal["cpu", "pod"] = "cpu",
    text: str = "sample:20000",
    glue: str = "sample:",
    blimp: str = "sample:",
    sample: bool = False,
) -> Study:
    """The text to learn from, and where GLUE and BLiMP lie; sample: is the generated world (at pod scale: --sample)."""
    maskings = tuple(Masking(corrupt, predict=None if corrupt == predict else predict) for corrupt, predict in PAIRS)
    names = tuple(
        f"{corrupt:.0%} masked {predict:.0%} predicted" + (f" ({masking.views} rows)" if masking.views > 1 else "")
        for (corrupt, predict), masking in zip(PAIRS, maskings, strict=True)
    )
    return study("corruption_vs_prediction", scale, text, glue, blimp, (Vary("masking", maskings, names),), sample)
