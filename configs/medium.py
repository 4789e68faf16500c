"""The paper's recipe at its medium size (8 x 512): jaxmlm pretrain configs/medium.py --text "wiki/*.txt.gz"

large.py with a smaller encoder.
"""

from dataclasses import replace
from pathlib import Path
from runpy import run_path

from jaxmlm.models import preset
from jaxmlm.runs import Run

large = run_path(str(Path(__file__).with_name("large.py")))["config"]


def config(text: str = "data/*.txt.gz") -> Run:
    """The text to learn from: Wikipedia and books in the paper."""
    return replace(large(text), workdir="runs/medium", model=preset("medium", dtype="bfloat16", remat="full"))
