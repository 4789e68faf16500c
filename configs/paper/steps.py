"""Does the best rate depend on how long the training is? Short trainings may favour low rates.

    jaxmlm study configs/paper/steps.py --dry-run

Each length is a run of its own with its own decay of the learning rate, never a checkpoint of a longer one.
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
    steps = (300, 900, 2700) if scale == "cpu" else (5_750, 11_500, 23_000, 46_000)
    rates = Vary("masking.rate", (0.15, 0.40, 0.80))
    return study("steps", scale, text, glue, blimp, (rates, Vary("loop.steps", steps)), sample)
