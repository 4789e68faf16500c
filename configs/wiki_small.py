"""Real text on two CPU cores.

    jaxmlm study configs/wiki_small.py --text wiki.train.txt.xz --glue glue_data --squad squad --blimp blimp

Wikipedia at three masking rates and three seeds each, beside an encoder that was not pre-trained. 5 M tokens a run show
in the loss matrix and in some fields of BLiMP; they do not lift BLiMP's mean or fine-tuned scores above the control,
which are reported beside them all the same. Measured: docs/results/wiki_small.md.
"""

from jaxmlm.data import Data
from jaxmlm.models import EncoderConfig
from jaxmlm.runs import Finetune, Run, ZeroShot
from jaxmlm.studies import Study, Vary
from jaxmlm.training import Loop, Optim


def config(
    text: str = "data/wiki.train.txt.xz",
    glue: str = "data/glue_data",
    squad: str = "data/squad",
    blimp: str = "data/blimp",
    tune: bool = True,
) -> Study:
    """Where the real files lie; `--no-tune` leaves the fine-tuning to a later start of the same study."""
    sentences = {"data": glue, "learning_rate": 5e-4, "epochs": 3.0, "batch": 16, "length": 128}
    return Study(
        workdir="runs/wiki_small",
        title="{text}, {tokens} tokens, {encoder}: which masking rate is best?",
        run=Run(
            data=Data(text=text, vocab=4096, length=64, lowercase=True),
            # Rotary positions leave the unigram plateau earlier; a model that sees so little text needs no dropout.
            model=EncoderConfig(layers=2, width=128, heads=2, positions="rope", dropout=0.0, attention_dropout=0.0),
            optim=Optim(learning_rate=1e-3),
            loop=Loop(steps=4883, batch=16, save_every=1000, log_every=100),
        ),
        vary=(Vary("masking.rate", (0.15, 0.40, 0.80)),),
        seeds=(0, 1, 2),
        zero_shot=ZeroShot(blimp=blimp, pairs=100),
        finetune=(
            Finetune("cola", **sentences),
            Finetune("rte", **sentences),
            Finetune("mrpc", **sentences),
            Finetune("stsb", **sentences),
            Finetune("sst2", limit=10_000, **sentences),
            Finetune(
                "squad",
                data=squad,
                learning_rate=5e-4,
                epochs=2.0,
                batch=16,
                length=192,
                stride=96,
                limit=5000,
            ),
        )
        if tune
        else (),
    )
