"""What the paper's studies share: the encoder and the recipe at two scales."""

from dataclasses import replace

from jaxmlm.data import Data
from jaxmlm.errors import InputError
from jaxmlm.models import preset
from jaxmlm.runs import Finetune, Run, ZeroShot
from jaxmlm.studies import Assumed, Study, Vary
from jaxmlm.training import AdamW, Loop, Optim

CPU = Run(
    data=Data(vocab=700, length=64),
    model=preset("tiny", positions="rope", dropout=0.0, attention_dropout=0.0),
    optim=Optim(learning_rate=2e-3),
    loop=Loop(steps=900, batch=32, save_every=300),
)
# Table 8 of the paper, after Izsak et al. 2021: the efficient pre-training recipe.
POD = Run(
    data=Data(vocab=50_265, length=128, lowercase=False, tokenizer_words=50_000_000, valid=0.001),
    model=preset("large", dtype="bfloat16", remat="full"),
    optim=Optim(learning_rate=2e-3, warmup=0.06, optimizer=AdamW(b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.01)),
    loop=Loop(steps=23_000, batch=4096, save_every=1000, log_every=100),
)
# 16 chips at 40 % of 197 bf16 TFLOP/s each.
SLICE = Assumed("a TPU v5e-16 at 40 % of its peak", 16 * 0.40 * 197e12, chips=16)
POD_TASKS = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte")


def study(
    name: str, scale: str, text: str, glue: str, blimp: str, vary: tuple[Vary, ...], sample: bool = False
) -> Study:
    """A study of this name at this scale over these axes; at pod scale on generated data only if `sample` says so."""
    pod = scale == "pod"
    given = {"--text": text, "--glue": glue, "--blimp": blimp}
    generated = [flag for flag, value in given.items() if value.startswith("sample:")]
    if pod and generated and not sample:
        raise InputError(
            f"--scale pod is for real data, and {' and '.join(generated)} would be the small generated world: give "
            f"{'them' if len(generated) > 1 else 'it'}, or ask for the generated one with --sample"
        )
    base = POD if pod else CPU
    learning_rate, tasks = (5e-5, POD_TASKS) if pod else (2e-4, ("cola", "rte"))
    sizes = {"epochs": 3.0, "batch": 32 if pod else 16, "length": 128 if pod else 64}
    return Study(
        workdir=f"runs/paper_{name}_{scale}",
        title=f"Should you mask 15 %? By {name}, {scale} scale",
        run=replace(base, data=replace(base.data, text=text), most_epochs=None if sample else base.most_epochs),
        vary=vary,
        seeds=(0,) if pod else (0, 1, 2),
        zero_shot=ZeroShot(blimp=blimp),
        finetune=tuple(
            Finetune(task, data=glue, learning_rate=learning_rate, seeds=(0, 1, 2) if pod else (0,), **sizes)
            for task in tasks
        ),
        assume=SLICE if pod else None,
    )
