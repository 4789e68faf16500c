"""Wettig et al. 2022, section 4: larger models want higher rates.

    jaxmlm study configs/paper/sizes.py --dry-run

The pod scale has the paper's medium, base and large; the CPU scale a 2 x 128 and a 4 x 256 encoder.
"""

from dataclasses import replace
from pathlib import Path
from runpy import run_path
from typing import Literal

from jaxmlm.models import preset
from jaxmlm.studies import Study, Vary


def config(
    scale: Literal["cpu", "pod"] = "cpu",
    text: str = "sample:20000",
    glue: str = "sample:",
    blimp: str = "sample:",
    sample: bool = False,
) -> Study:
    """The text to learn from, and where GLUE and BLiMP lie; sample: is the generated world (at pod scale: --sample)."""
    common = run_path(str(Path(__file__).with_name("common.py")))
    names = ("tiny", "mini") if scale == "cpu" else ("medium", "base", "large")
    base = common["POD" if scale == "pod" else "CPU"].model
    models = tuple(replace(base, layers=m.layers, width=m.width, heads=m.heads) for m in map(preset, names))
    axes = (Vary("masking.rate", (0.15, 0.40, 0.80)), Vary("model", models, names))
    return common["study"]("sizes", scale, text, glue, blimp, axes, sample)
