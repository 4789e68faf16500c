"""An encoder to keep, on one GPU or TPU chip: jaxmlm pretrain configs/one_chip.py --text "mine/*.txt" --loop.budget 2h

12 x 384 (28 million parameters) with rotary positions, rows of 128 tokens, 40 % masked. With --loop.budget the steps
are those that fit into that time, 100 passes over the text at most; without it they are 10,000, reading 328 M tokens.
"""

from jaxmlm.data import Data
from jaxmlm.masking import Masking
from jaxmlm.models import preset
from jaxmlm.runs import Run
from jaxmlm.training import Loop, Optim


def config(text: str = "data/*.txt.gz") -> Run:
    """The text to learn from: tens of millions of words."""
    return Run(
        workdir="runs/one_chip",
        data=Data(text=text, vocab=16_384, length=128, tokenizer_words=10_000_000),
        masking=Masking(rate=0.40),
        model=preset(
            "base", width=384, heads=6, positions="rope", dropout=0.1, attention_dropout=0.0, dtype="bfloat16"
        ),
        optim=Optim(learning_rate=1e-3, clip=1.0),
        loop=Loop(steps=10_000, batch=256, save_every=1000, log_every=50),
    )
