"""The paper's recipe at its large size (24 x 1024): jaxmlm pretrain configs/large.py --text "wiki/*.txt.gz"

Wettig et al. 2022, after Izsak et al. 2021: 23,000 steps of 4,096 rows of 128 tokens, 40 % masked. Made for a TPU
slice; `--loop.steps` and `--loop.batch` scale it down.
"""

from jaxmlm.data import Data
from jaxmlm.masking import Masking
from jaxmlm.models import preset
from jaxmlm.runs import Run
from jaxmlm.training import AdamW, Loop, Optim


def config(text: str = "data/*.txt.gz") -> Run:
    """The text to learn from: Wikipedia and books in the paper."""
    return Run(
        workdir="runs/large",
        data=Data(text=text, vocab=50_265, length=128, lowercase=False, tokenizer_words=50_000_000, valid=0.001),
        masking=Masking(rate=0.40),
        model=preset("large", dtype="bfloat16", remat="full"),
        optim=Optim(learning_rate=2e-3, warmup=0.06, optimizer=AdamW(b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.01)),
        loop=Loop(steps=23_000, batch=4096, save_every=1000, log_every=100),
    )
