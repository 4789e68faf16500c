"""Ankner et al. 2023 (arXiv 2305.15096): does a rate that falls over the training beat a constant one?

    jaxmlm study configs/paper/schedules.py --dry-run

Their best: from 30 % to 15 % along a line. Beside it the constant rates of its ends and of its mean, other shapes, and
the same line the other way round.
"""

from pathlib import Path
from runpy import run_path
from typing import Literal

from jaxmlm.masking import CosineDecay, LinearDecay, Masking, Piecewise, Stairs
from jaxmlm.studies import Study, Vary

common = run_path(str(Path(__file__).with_name("common.py")))


def config(
    scale: Literal["cpu", "pod"] = "cpu",
    text: str = "sample:20000",
    glue: str = "sample:",
    blimp: str = "sample:",
    sample: bool = False,
) -> Study:
    """The text to learn from, and where GLUE and BLiMP lie; sample: is the generated world (at pod scale: --sample)."""
    steps = common["POD" if scale == "pod" else "CPU"].loop.steps
    maskings = {
        "0.15": Masking(0.15),
        "0.225": Masking(0.225),
        "0.30": Masking(0.30),
        "0.40": Masking(0.40),
        "line 0.30 to 0.15": Masking(0.30, schedule=LinearDecay(0.5, steps)),
        "cosine 0.30 to 0.15": Masking(0.30, schedule=CosineDecay(0.5, steps)),
        "step 0.30 to 0.15": Masking(0.30, schedule=Stairs((steps // 2,), (0.5,))),
        "line 0.15 to 0.30": Masking(0.30, schedule=Piecewise((0, steps), (0.5, 1.0))),
    }
    axes = (Vary("masking", tuple(maskings.values()), tuple(maskings)),)
    return common["study"]("schedules", scale, text, glue, blimp, axes, sample)
