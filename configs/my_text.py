"""Which masking rate is best on a text of yours?

    jaxmlm study configs/my_text.py --text my.txt --dry-run

Four rates with three seeds each, in the recipe of docs/results/small_data.md: an encoder of 2 x 128, Muon, 10 M tokens
a cell. By --dry-run some five hours on two CPU cores, an hour and a half with --tokens 3e6. Every cell is evaluated on
held-out text; --blimp, --glue and --treebank add minimal pairs, fine-tuning and probes.
"""

from jaxmlm import Bound, Data, EncoderConfig, Finetune, Loop, Masking, Optim, Probes, Run, Study, Vary, ZeroShot
from jaxmlm.training import Muon


def config(
    text: str = "my.txt",
    tokens: float = 10e6,
    blimp: str | None = None,
    glue: str | None = None,
    treebank: str | None = None,
) -> Study:
    """The text, the tokens that a cell is trained on, and the directories of tasks, which are left out by default."""
    batch, length = 32, 64
    steps = round(tokens / (batch * length))
    # Rotary positions leave the unigram plateau earlier; a model that sees so little text needs no dropout.
    model = EncoderConfig(layers=2, width=128, heads=2, positions="rope", dropout=0.0, attention_dropout=0.0)
    return Study(
        workdir="runs/my_text",
        title="{text}, {tokens} tokens, {encoder}: which masking rate is best?",
        run=Run(
            data=Data(text=text, vocab=8192, length=length),
            masking=Masking(0.40),
            model=model,
            optim=Optim(learning_rate=4e-3, optimizer=Muon()),
            loop=Loop(steps=steps, batch=batch, eval_every=max(1, steps // 4), save_every=1000, log_every=100),
        ),
        vary=(Vary("masking.rate", (0.15, 0.30, 0.40, 0.60)),),
        seeds=(0, 1, 2),
        bound=Bound(rows=512),
        zero_shot=ZeroShot(blimp=blimp) if blimp else None,
        probes=Probes(treebank) if treebank else None,
        finetune=tuple(
            Finetune(task, data=glue, learning_rate=5e-4, epochs=3.0, batch=16, limit=10_000)
            for task in ("cola", "rte", "mrpc", "stsb", "sst2")
            if glue
        ),
    )
