"""Should every example be masked at the same rate? Laws of the rate, and what the loss makes of its rows.

    jaxmlm study configs/paper/laws.py --dry-run
    jaxmlm study configs/paper/laws.py --equal compute --dry-run

Constant rates of 15 % and 40 %; a rate that is uniform on (0, 1) under each weight of the loss (`bound`: the objective
of masked diffusion, whose law ends at 0.001); a cosine, with a mean of 36 %; and 30 % that falls to 15 %. Equal tokens:
all cells have the same steps. Equal compute: all have the same time on the same machine, in which one that predicts
less makes more steps; the line from 30 % to 15 % is then as long as the steps of equal tokens.
"""

from dataclasses import replace
from pathlib import Path
from runpy import run_path
from typing import Literal

from jaxmlm.masking import LinearDecay, Masking, Uniform, laws
from jaxmlm.studies import Study, Vary

common = run_path(str(Path(__file__).with_name("common.py")))
BUDGETS = {"cpu": "4m", "pod": "12h"}


def config(
    scale: Literal["cpu", "pod"] = "cpu",
    equal: Literal["tokens", "compute"] = "tokens",
    text: str = "sample:20000",
    glue: str = "sample:",
    blimp: str = "sample:",
    sample: bool = False,
) -> Study:
    """The text to learn from, and where GLUE and BLiMP lie; sample: is the generated world (at pod scale: --sample)."""
    steps = common["POD" if scale == "pod" else "CPU"].loop.steps
    maskings = {
        "0.15": Masking(0.15),
        "0.40": Masking(0.40),
        "uniform, tokens": Masking(Uniform(0.0, 1.0)),
        "uniform, rows": Masking(Uniform(0.0, 1.0), weights="rows"),
        "uniform, bound": Masking(Uniform(0.001, 1.0), weights="bound"),
        "cosine": Masking(laws.Cosine()),
        "line 0.30 to 0.15": Masking(0.30, schedule=LinearDecay(0.5, steps)),
    }
    axes = (Vary("masking", tuple(maskings.values()), tuple(maskings)),)
    study = common["study"]("laws" if equal == "tokens" else "laws_compute", scale, text, glue, blimp, axes, sample)
    if equal == "tokens":
        return study
    return replace(study, run=replace(study.run, loop=replace(study.run.loop, budget=BUDGETS[scale])))
