"""Adapt an encoder to a domain: new words, pre-training continued at several rates, a table of before and after.

    jaxmlm study configs/adapt.py --init ENCODER --text "mine/*.parquet" --new-words 500 --general wiki.txt

INIT is the directory of a run, one of the transformers format, or hf:org/name. The control is the encoder as it was
given, with its own tokenizer; encoders of different tokenizers compare by bits per word: see docs/domain.md.
"""

from jaxmlm.data import Data
from jaxmlm.masking import Masking, Stairs
from jaxmlm.models import EncoderConfig
from jaxmlm.runs import Bound, Finetune, Run
from jaxmlm.studies import Study, Vary
from jaxmlm.tasks.mlm import named
from jaxmlm.training import AdamW, Loop, Optim


def config(
    init: str = "hf:FacebookAI/roberta-base",
    text: str = "data/*.txt.gz",
    general: str | None = None,
    new_words: int = 0,
    rates: tuple[float, ...] = (0.15, 0.30, 0.40),
    falling: bool = False,
    steps: int = 2000,
    task: str | None = None,
    task_data: str | None = None,
    task_dev: str | None = None,
    task_learning_rate: float = 5e-5,
) -> Study:
    """The encoder, the text of the domain, a general text on which it shall not get worse, and a task.

    Args:
        init: the encoder to adapt.
        text: text of the domain; a part of it is held out.
        general: text files of another kind, for what was forgotten.
        new_words: words of the domain to add to the tokenizer.
        rates: masking rates to compare.
        falling: also compare a rate that falls from .30 to .15 to .05, by thirds of the steps.
        steps: of each pre-training.
        task: a task to fine-tune on before and after, as a .csv file of texts and labels.
        task_data: directory of a task of a benchmark.
        task_dev: file to evaluate the task on; of a .csv file, by default a tenth of its rows.
        task_learning_rate: peak learning rate of the fine-tuning; small encoders take more.

    """
    names = [named(rate) for rate in rates]
    maskings = [Masking(rate) for rate in rates]
    if falling and steps >= 3:
        thirds = (steps // 3, 2 * steps // 3)
        names.append("0.30 to 0.15 to 0.05")
        maskings.append(Masking(0.30, schedule=Stairs(thirds, (1 / 2, 1 / 6))))
    return Study(
        workdir="runs/adapt",
        title="{encoder} adapted to {text}: {tokens} tokens",
        note="Nats per token compare encoders of one tokenizer; before and after new words, read bits per word.",
        run=Run(
            init=init,
            data=Data(text=text, new_words=new_words, length=128, valid=0.02),
            model=EncoderConfig(dtype="float32"),
            # A tenth of what training from random weights takes, as in Gururangan et al. 2020 (arXiv 2004.10964).
            optim=Optim(learning_rate=1e-4, warmup=0.06, optimizer=AdamW(b2=0.98, eps=1e-6, weight_decay=0.01)),
            loop=Loop(steps=steps, batch=64, save_every=500, log_every=50),
        ),
        vary=(Vary("masking", tuple(maskings), tuple(names)),),
        seeds=(0, 1, 2),
        bound=Bound(rows=1024),
        general=general,
        finetune=(Finetune(task, data=task_data, dev=task_dev, learning_rate=task_learning_rate),) if task else (),
    )
