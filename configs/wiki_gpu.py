"""Real text on one GPU or TPU chip, minutes a cell: fine-tuned scores that can separate masking rates.

    jaxmlm prepare configs/wiki_gpu.py --text wiki.txt.xz --store wiki_store
    jaxmlm study configs/wiki_gpu.py --text wiki.txt.xz --store wiki_store --glue glue_data

A store that is there is read without its text: store and GLUE directory alone can travel to the machine. Each cell
reads 197 M tokens (an 8 x 512 encoder; about 0.04 EFLOP), then is fine-tuned on five tasks with three seeds.
"""

from jaxmlm.data import Data
from jaxmlm.models import preset
from jaxmlm.runs import Finetune, Run
from jaxmlm.studies import Study, Vary
from jaxmlm.training import Loop, Optim


def config(
    text: str = "data/wiki.train.txt.xz",
    store: str | None = None,
    glue: str = "data/glue_data",
    seeds: tuple[int, ...] = (0,),
) -> Study:
    """Where text, store and GLUE lie, and the seeds of the pre-trainings."""
    sentences = {"data": glue, "learning_rate": 1e-4, "epochs": 3.0, "batch": 32, "length": 128, "seeds": (0, 1, 2)}
    return Study(
        workdir="runs/wiki_gpu",
        title="{text}, {tokens} tokens, {encoder}: which masking rate is best, fine-tuned?",
        run=Run(
            data=Data(text=text, store=store, vocab=16_384, length=128),
            model=preset("medium", dtype="bfloat16"),
            optim=Optim(learning_rate=1e-3),
            loop=Loop(steps=3000, batch=512, save_every=1000, log_every=100),
        ),
        vary=(Vary("masking.rate", (0.15, 0.40, 0.80)),),
        seeds=seeds,
        finetune=tuple(Finetune(task, **sentences) for task in ("cola", "sst2", "mrpc", "stsb", "rte")),
    )
