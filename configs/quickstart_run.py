"""One pre-training run of the quickstart: jaxmlm pretrain configs/quickstart_run.py

A small encoder on the generated sample: no download, about a minute on two CPU cores.
"""

from jaxmlm.data import Data
from jaxmlm.masking import Masking
from jaxmlm.models import EncoderConfig
from jaxmlm.runs import Run
from jaxmlm.training import Loop, Optim


def config() -> Run:
    """One run at the paper's rate."""
    return Run(
        workdir="runs/quickstart_run",
        data=Data(text="sample:20000", vocab=700, length=64, valid=0.02),
        masking=Masking(rate=0.40),
        # Rotary positions leave the unigram plateau earlier; a model that sees so little text needs no dropout.
        model=EncoderConfig(layers=2, width=64, heads=2, positions="rope", dropout=0.0, attention_dropout=0.0),
        optim=Optim(learning_rate=3e-3),
        loop=Loop(steps=600, batch=32, save_every=300),
    )
