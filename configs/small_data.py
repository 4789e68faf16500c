"""The small-data track: the paper's questions on ten million words, with seeds that anyone can repeat.

    jaxmlm study configs/small_data.py --question rates --dry-run

Six million words of Wikipedia and four million of novels, of any two text files (`--wiki`, `--novels`; the share of
them that is taken stands in small_data_text.py), one token store for all questions, one recipe. The recipe is chosen
first, by `--question optimizer`, `format` and `dropout` at a rate of 30 %, which favours neither end of what is
compared, and then frozen.

The cells of a question see equal tokens a step. So rows of another length are no value of `format`, as they go with
another batch; they are a study of their own:

    jaxmlm study configs/small_data.py --question format --run.data.length 128 --run.loop.batch 16 --workdir runs/128
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from jaxmlm.data import Data, register_source
from jaxmlm.masking import LinearDecay, Masking, PhraseUnits, Replace, SpanUnits, TokenUnits, Uniform, WordUnits, laws
from jaxmlm.models import preset
from jaxmlm.runs import Bound, Finetune, Probes, Run, ZeroShot
from jaxmlm.studies import Study, Vary
from jaxmlm.training import AdamW, Lamb, Loop, Muon, Optim
from jaxmlm.user_code import find_object

TEXT = Path(__file__).with_name("small_data_text.py")
for source in ("track", "sentences"):
    register_source(source, find_object(f"{TEXT}:{source}", "the text of the track"))

Question = Literal[
    "optimizer",
    "format",
    "dropout",
    "rates",
    "sizes",
    "strategies",
    "prediction",
    "replacement",
    "laws",
]
QUESTIONS = get_args(Question)
RECIPE = ("optimizer", "format", "dropout")
"""The questions that chose the recipe."""
SEEDS = {"rates": (0, 1, 2), "strategies": (0, 1, 2)}
"""Seeds of the pre-trainings, two where nothing else is said."""
TOKENS = dict.fromkeys(RECIPE, 5e6)
"""Tokens of a pre-training at CPU scale, ten million where nothing else is said."""
PAIRS = dict.fromkeys(RECIPE, 100)
"""Minimal pairs of each of BLiMP's sets, 200 where nothing else is said."""
RATES = (0.15, 0.40)


def config(
    question: Question = "rates",
    scale: Literal["cpu", "gpu", "pod"] = "cpu",
    wiki: str = "data/wiki.train.txt.xz",
    novels: str = "data/books.train.txt.xz",
    store: str | None = None,
    blimp: str | None = "data/blimp",
    glue: str | None = None,
    squad: str | None = None,
    treebank: str | None = None,
) -> Study:
    """The question, the scale, and where the texts and tasks lie; tasks without a directory are left out."""
    run = {"cpu": cpu, "gpu": gpu, "pod": pod}[scale](question)
    data = replace(run.data, text=f"track:{wiki}+{novels}", store=store or f"runs/small_data_store_{scale}")
    run = replace(run, data=data)
    return Study(
        workdir=f"runs/small_data_{scale}_{question}",
        title="Small data, " + question + ": {tokens} tokens, {encoder}",
        run=run,
        vary=axes(question, run),
        seeds=(0, 1) if scale == "gpu" else SEEDS.get(question, (0, 1)),
        bound=Bound(rows=512),
        control=question not in RECIPE,
        # Questions share cells: tokens at 15 and 40 % are asked for by most of them.
        reuse=() if question in RECIPE else tuple(f"runs/small_data_{scale}_{other}" for other in QUESTIONS),
        zero_shot=ZeroShot(blimp=blimp, pairs=PAIRS.get(question, 200)) if blimp else None,
        probes=Probes(treebank) if treebank else None,
        finetune=() if question in RECIPE else tasks(glue, squad),
    )


def cpu(question: str) -> Run:
    """Two cores: 2 x 128, rows of 64 tokens, 2,048 tokens a step."""
    tokens = TOKENS.get(question, 10e6)
    return Run(
        data=Data(vocab=8192, length=64, tokenizer_words=10_000_000),
        # The question of the recipe is asked at a rate of its own, so that it favours neither end.
        masking=Masking(0.30),
        model=preset("tiny", positions="rope", dropout=0.0, attention_dropout=0.0),
        optim=Optim(learning_rate=4e-3, optimizer=Muon()),
        loop=Loop(steps=round(tokens / 2048), batch=32, eval_every=round(2.5e6 / 2048), save_every=1000, log_every=100),
    )


def gpu(question: str) -> Run:
    """One GPU: 12 x 384, ten epochs of the track, 16,384 tokens a step, minutes a cell."""
    model = preset("base", width=384, heads=6, positions="rope", dropout=0.1, attention_dropout=0.0, dtype="bfloat16")
    return Run(
        data=Data(vocab=8192, length=128, tokenizer_words=10_000_000),
        masking=Masking(0.30),
        model=model,
        optim=Optim(learning_rate=1e-3, clip=1.0),
        loop=Loop(steps=9_000, batch=128, eval_every=1500, save_every=1500, log_every=100),
        most_epochs=12.0,
    )


def pod(question: str) -> Run:
    """A slice of TPUs: the same encoder, and ten times the epochs in larger batches."""
    run = gpu(question)
    return replace(run, loop=replace(run.loop, batch=1024, steps=11_250), most_epochs=120.0)


def axes(question: str, run: Run) -> tuple[Vary, ...]:
    """What the cells of a question differ in."""
    if question == "optimizer":
        return (named("optim", optimizers()),)
    if question == "format":
        return (Vary("data.format", ("packed", "documents")),)
    if question == "dropout":
        return (Vary("model.dropout", (0.0, 0.1)),)
    if question == "rates":
        return (Vary("masking.rate", (0.15, 0.30, 0.40, 0.60, 0.80)),)
    if question == "sizes":
        models = {
            f"{layers} x {width}": replace(run.model, layers=layers, width=width, heads=width // 64)
            for layers, width in ((1, 64), (2, 128), (4, 256))
        }
        return Vary("masking.rate", RATES), named("model", models)
    if question == "replacement":
        shares = {"mask": (1.0, 0.0, 0.0), "80-10-10": (0.8, 0.1, 0.1), "5 random": (0.95, 0.05, 0.0)}
        return named("masking.replace", {n: Replace(*share) for n, share in shares.items()}), Vary(
            "masking.rate", RATES
        )
    if question == "strategies":
        units = {"tokens": TokenUnits(), "words": WordUnits(), "spans": SpanUnits(), "phrases": PhraseUnits()}
        return Vary("masking.rate", RATES), named("masking.units", units)
    return (named("masking", maskings(question, run.loop.steps)),)


def optimizers() -> dict[str, Optim]:
    """Optimizers at the learning rates that are usual for each, and one above and below."""
    of = {
        "adamw": (AdamW(), (1e-3, 2e-3, 4e-3)),
        "lamb": (Lamb(), (7e-3, 1.4e-2)),
        "muon": (Muon(), (2e-3, 4e-3, 8e-3)),
    }
    return {
        f"{name} {peak:g}": Optim(learning_rate=peak, optimizer=optimizer)
        for name, (optimizer, peaks) in of.items()
        for peak in peaks
    }


def maskings(question: str, steps: int) -> dict[str, Masking]:
    """The maskings that a question compares."""
    if question == "prediction":
        pairs = ((0.15, 0.15), (0.40, 0.40), (0.40, 0.15), (0.15, 0.40), (0.80, 0.40))
        return {
            f"{corrupt:.0%} masked {predict:.0%} predicted": Masking(
                corrupt, predict=None if corrupt == predict else predict
            )
            for corrupt, predict in pairs
        }
    return {
        "0.15": Masking(0.15),
        "0.40": Masking(0.40),
        "uniform": Masking(Uniform(0.0, 1.0)),
        "uniform, bound": Masking(Uniform(0.001, 1.0), weights="bound"),
        "cosine": Masking(laws.Cosine()),
        "line 0.30 to 0.15": Masking(0.30, schedule=LinearDecay(0.5, steps)),
    }


def named(path: str, values: dict[str, Any]) -> Vary:
    """An axis whose values have these names in the report."""
    return Vary(path, tuple(values.values()), tuple(values))


def tasks(glue: str | None, squad: str | None) -> tuple[Finetune, ...]:
    """Downstream tasks, those whose directory is given."""
    settings: dict[str, Any] = {"learning_rate": 5e-4, "epochs": 3.0, "batch": 16, "length": 128}
    found = [Finetune(task, data=glue, **settings) for task in ("cola", "rte", "mrpc", "stsb")] if glue else []
    if glue:
        found.append(Finetune("sst2", data=glue, limit=10_000, **settings))
    if squad:
        found.append(
            Finetune("squad", data=squad, limit=5000, **settings | {"epochs": 2.0, "length": 192, "stride": 96})
        )
    return tuple(found)
