"""Fine-tuning recipes of others: grids and settings as published, with where each number was read."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from jaxmlm.errors import InputError
from jaxmlm.paths import hint
from jaxmlm.studies.finetune import Finetune


def _squad(learning_rate: float, batch: int, epochs: float, length: int, **more: Any) -> dict[str, dict[str, Any]]:
    """One setting for both SQuADs, windows 128 tokens apart."""
    usual = {"learning_rate": learning_rate, "batch": batch, "epochs": epochs, "length": length, "stride": 128}
    return {task: {**usual, **more, "seeds": (0,)} for task in ("squad", "squad2")}


class Recipe(NamedTuple):
    """Where it is from, the settings of every task, and those of some tasks beside."""

    source: str
    usual: dict[str, Any]
    tasks: dict[str, dict[str, Any]]


_SMALL = ("rte", "mrpc", "stsb")
RECIPES = {
    "paper": Recipe(
        "Wettig et al. 2023 (arXiv 2202.08005). finetune_glue.sh of princeton-nlp/DinkyTrain: last checkpoint, weight "
        "decay 0.1, 6 % warm-up, linear decay, Adam (0.9, 0.98, 1e-6), dropout 0.1. The grid is not in its repository: "
        "that of Izsak et al. 2021, whose recipe it follows; three seeds (both from memory, not checked). Its code "
        "has no SQuAD and sends its users to the examples of transformers: their setting (run_qa).",
        {"learning_rate": (5e-5, 8e-5), "batch": (16, 32), "epochs": (3.0, 5.0), "warmup": 0.06, "weight_decay": 0.1,
         "seeds": (0, 1, 2), "select": "last"},
        _squad(3e-5, 12, 2.0, 384, warmup=0.0, weight_decay=0.0, clip=1.0),
    ),
    "roberta": Recipe(
        "Liu et al. 2019 (arXiv 1907.11692), table 10 (from memory): 1e-5 to 3e-5, 16 or 32, at most 10 epochs with "
        "early stopping, median of five seeds, RTE, MRPC and STS-B from MNLI. examples/roberta/README.glue.md of "
        "fairseq: within that grid, weight decay 0.1, 6 % warm-up, the best epoch on dev.",
        {"learning_rate": (1e-5, 2e-5, 3e-5), "batch": (16, 32), "epochs": 10.0, "warmup": 0.06, "weight_decay": 0.1,
         "seeds": (0, 1, 2, 3, 4), "select": "best"},
        {task: {"start": "mnli"} for task in _SMALL},
    ),
    "24hbert": Recipe(
        "Izsak et al. 2021 (arXiv 2104.07705). README of IntelLabs/academic-budget-bert: 5e-5, batch 32, 5 epochs, "
        "weight decay 0.01, linear decay, gradients clipped at 1.0, judged on dev on the way. The grid "
        "around it and the five seeds are from memory of the paper's appendix, not checked.",
        {"learning_rate": (5e-5, 8e-5), "batch": (16, 32), "epochs": (3.0, 5.0), "warmup": 0.06, "weight_decay": 0.01,
         "clip": 1.0, "seeds": (0, 1, 2, 3, 4), "select": "best"},
        {},
    ),
    "mosaicbert": Recipe(
        "benchmarks/bert/src/glue/finetuning_jobs.py of mosaicml/examples: one setting a task; its decoupled weight "
        "decay is 0.1 of the learning rate (RTE 1.0), which AdamW calls 0.1 (1.0); 6 % warm-up and the seeds from its "
        "glue.yaml; RTE, MRPC and STS-B from MNLI.",
        {"warmup": 0.06, "weight_decay": 0.1, "length": 256, "select": "last", "seeds": (0,)},
        {
            "mnli": {"learning_rate": 5e-5, "batch": 48, "epochs": 3.0},
            "qnli": {"learning_rate": 1e-5, "batch": 16, "epochs": 10.0},
            "qqp": {"learning_rate": 3e-5, "batch": 16, "epochs": 5.0},
            "sst2": {"learning_rate": 3e-5, "batch": 16, "epochs": 3.0, "seeds": (0, 1, 2)},
            "cola": {"learning_rate": 5e-5, "batch": 32, "epochs": 10.0, "seeds": (0, 1, 2, 3)},
            "rte": {"learning_rate": 1e-5, "batch": 16, "epochs": 3.0, "weight_decay": 1.0, "start": "mnli",
                    "seeds": (0, 1, 2, 3, 4)},
            "mrpc": {"learning_rate": 8e-5, "batch": 32, "epochs": 10.0, "start": "mnli", "seeds": (0, 1, 2, 3, 4)},
            "stsb": {"learning_rate": 3e-5, "batch": 32, "epochs": 10.0, "start": "mnli", "seeds": (0, 1, 2, 3, 4)},
        },
    ),
    "bert": Recipe(
        "google-research/bert: README.md and run_squad.py.",
        {}, _squad(3e-5, 12, 2.0, 384, warmup=0.1, weight_decay=0.01, clip=1.0),
    ),
    "run_qa": Recipe(
        "huggingface/transformers: examples/pytorch/question-answering/README.md, the trainer's own defaults beside.",
        {}, _squad(3e-5, 12, 2.0, 384, warmup=0.0, weight_decay=0.0, clip=1.0),
    ),
    "spanbert": Recipe(
        "facebookresearch/SpanBERT: README.md and code/run_squad.py.",
        {}, _squad(2e-5, 32, 4.0, 512, warmup=0.1, weight_decay=0.01, clip=1.0),
    ),
}  # fmt: skip
"""By the name that `--recipe` takes."""


def recipe(name: str, task: str, workdir: str | None = None) -> Finetune:
    """A recipe's grid and settings for a task.

    >>> recipe("mosaicbert", "mnli").learning_rate
    5e-05
    """
    if name not in RECIPES:
        raise InputError(f"no recipe {name!r}{hint(name, RECIPES)}; there are {', '.join(RECIPES)}")
    found = RECIPES[name]
    own = found.tasks.get(task, {})
    if not own and "learning_rate" not in found.usual:
        raise InputError(f"the recipe {name} has no setting for {task}; it has {', '.join(found.tasks)}")
    chosen = {**found.usual, **own}
    if workdir is None:  # the first stage leaves a model, which needs a place
        chosen.pop("start", None)
    return replace(Finetune(task, recipe=name), workdir=workdir, **chosen)


def from_words(flags: Sequence[str]) -> Finetune | None:
    """The recipe that command-line flags name, before they are read: what they give beside it wins."""

    def given(name: str) -> str | None:
        for i, word in enumerate(flags):
            if word == f"--{name}" and i + 1 < len(flags):
                return flags[i + 1]
            if word.startswith(f"--{name}="):
                return word.partition("=")[2]
        return None

    name = given("recipe")
    return None if name is None else recipe(name, given("task") or Finetune().task, given("workdir"))
