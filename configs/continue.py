"""Continue training an encoder on text of your own, at a masking rate of your own.

    jaxmlm pretrain configs/continue.py --init hf:FacebookAI/roberta-base --text "mine/*.txt" --loop.steps 5000

INIT is the directory of a run, one of the transformers format (weights, config.json and tokenizer.json, as
`save_pretrained` of a model and of its fast tokenizer write them), or a name on the Hub, hf:org/name, which takes the
extra `hf`. The encoder keeps its sizes and its tokenizer. The usual steps read 410 M tokens: give fewer for less text.
"""

from jaxmlm.data import Data
from jaxmlm.masking import Masking
from jaxmlm.models import EncoderConfig
from jaxmlm.runs import Run
from jaxmlm.training import AdamW, Loop, Optim


def config(init: str = "hf:FacebookAI/roberta-base", text: str = "data/*.txt.gz") -> Run:
    """The encoder to continue from, and the text to learn from."""
    return Run(
        workdir="runs/continue",
        init=init,
        data=Data(text=text, length=128),
        masking=Masking(rate=0.15),
        model=EncoderConfig(dtype="float32"),
        # A tenth of the rate that training from random weights takes, as in Gururangan et al. 2020 (arXiv 2004.10964).
        optim=Optim(learning_rate=1e-4, warmup=0.06, optimizer=AdamW(b2=0.98, eps=1e-6, weight_decay=0.01)),
        loop=Loop(steps=12_500, batch=256, save_every=1000, log_every=50),
    )
