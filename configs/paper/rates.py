"""Wettig et al. 2022, figure 1 and table 1: how much should be masked?

    jaxmlm study configs/paper/rates.py --scale pod --text 'gs://...' ...
    jaxmlm study configs/paper/rates.py --dry-run

The pod scale is the paper's: 24 x 1024, length 128, batch 4096, 23,000 steps. The CPU scale asks the same of an
encoder that two cores can pre-train in minutes, with three seeds.
"""

from pathlib import Path
from runpy import run_path
from typing import Literal

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
    rates = (0.15, 0.20, 0.30, 0.40, 0.50, 0.60, 0.70, 0.80)
    return study("rates", scale, text, glue, blimp, (Vary("masking.rate", rates),), sample)
