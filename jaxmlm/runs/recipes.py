"""Fine-tuning recipes of others: grids and settings as published, with where each number was read."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from jaxmlm.directories import expanded
from jaxmlm.errors import InputError
from jaxmlm.runs.finetune_config import Finetune
from jaxmlm.tasks.registry import BENCHMARKS, benchmark_tasks, find_task
from jaxmlm.wording import hint


def _squad(learning_rate: float, batch: int, epochs: float, length: int, **more: Any) -> dict[str, dict[str, Any]]:
    """One setting for both SQuADs, windows 128 tokens apart."""
    usual = {"learning_rate": learning_rate, "batch": batch, "epochs": epochs, "length": length, "stride": 128}
    return {task: {**usual, **more, "seeds": (0,)} for task in ("squad", "squad2")}


class Recipe(NamedTuple):
    """Settings as published.

    Attributes:
        source: where they were read.
        usual: the settings of every task of sentences.
        tasks: the settings of single tasks, which come on top.

    """

    source: str
    usual: dict[str, Any]
    tasks: dict[str, dict[str, Any]]


_BABYLM = {"babylm-boolq": {"batch": 16}, "babylm-multirc": {"batch": 16}, "babylm-wsc": {"epochs": 30.0}}
_SMALL = ("rte", "mrpc", "stsb")
RECIPES = {
    "paper": Recipe(
        "Wettig et al. 2023 (arXiv 2202.08005). finetune_glue.sh of princeton-nlp/DinkyTrain: last checkpoint, weight "
        "decay 0.1, 6 % warm-up, linear decay, Adam (0.9, 0.98, 1e-6), dropout 0.1. Learning rate, batch, "
        "epochs and seed are arguments there; the grid here is that of 24hbert, whose recipe it follows, with three "
        "seeds: unverified. Its code has no SQuAD and sends its users to the examples of transformers: their setting "
        "(run_qa).",
        {"learning_rate": (5e-5, 8e-5), "batch": (16, 32), "epochs": (3.0, 5.0), "warmup": 0.06, "weight_decay": 0.1,
         "seeds": (0, 1, 2), "select": "last"},
        _squad(3e-5, 12, 2.0, 384, warmup=0.0, weight_decay=0.0, clip=1.0),
    ),
    "roberta": Recipe(
        "Liu et al. 2019 (arXiv 1907.11692), examples/roberta/README.glue.md of fairseq: for each task one of "
        "1e-5 and 2e-5 and one of 16 and 32, 10 epochs, weight decay 0.1, 6 % warm-up (QQP 25 %), no clipping, the "
        "best epoch on dev. Beside it, as of table 10 of the paper and unverified: 3e-5, five seeds, RTE, MRPC and "
        "STS-B from MNLI.",
        {"learning_rate": (1e-5, 2e-5, 3e-5), "batch": (16, 32), "epochs": 10.0, "warmup": 0.06, "weight_decay": 0.1,
         "seeds": (0, 1, 2, 3, 4), "select": "best"},
        {task: {"intermediate_task": "mnli"} for task in _SMALL},
    ),
    "24hbert": Recipe(
        "Izsak et al. 2021 (arXiv 2104.07705). README of IntelLabs/academic-budget-bert: 5e-5, batch 32, 5 epochs, "
        "weight decay 0.01, linear decay after 50 steps of warm-up, gradients clipped at 1.0, evaluated on dev every "
        "50 steps: an example for MRPC. The grid around it, the share of warm-up and the five seeds stand in no file "
        "of the repository: unverified.",
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
            "rte": {"learning_rate": 1e-5, "batch": 16, "epochs": 3.0, "weight_decay": 1.0,
                    "intermediate_task": "mnli", "seeds": (0, 1, 2, 3, 4)},
            "mrpc": {"learning_rate": 8e-5, "batch": 32, "epochs": 10.0,
                     "intermediate_task": "mnli", "seeds": (0, 1, 2, 3, 4)},
            "stsb": {"learning_rate": 3e-5, "batch": 32, "epochs": 10.0,
                     "intermediate_task": "mnli", "seeds": (0, 1, 2, 3, 4)},
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
    "babylm": Recipe(
        "babylm/evaluation-pipeline-2025, as the strict tracks of 2026 run it: eval_finetuning.sh and the defaults of "
        "finetune/run.py: 3e-5, batch 32 (BoolQ and MultiRC 16), 10 epochs (WSC 30), length 512, weight decay 0.01, "
        "6 % warm-up, no clipping, seed 42, the best epoch on dev. Other than here: the learning rate falls along a "
        "cosine to a tenth, Adam's second decay is .999, and the head has two layers.",
        {},
        {
            task: {"learning_rate": 3e-5, "batch": 32, "epochs": 10.0, "length": 512, "warmup": 0.06,
                   "weight_decay": 0.01, "seeds": (42,), "select": "best", **_BABYLM.get(task, {})}
            for task in benchmark_tasks("BabyLM")
        },
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
    if not covers(name, task):
        others = ", ".join(other for other in RECIPES if covers(other, task))
        raise InputError(f"the recipe {name} has no setting for {task}; these have: {others}")
    chosen = {**found.usual, **own}
    if workdir is None:  # the first stage leaves a model, which needs a place
        chosen.pop("intermediate_task", None)
    return replace(Finetune(task, recipe=name), workdir=workdir, **chosen)


def covers(name: str, task: str) -> bool:
    """Whether a recipe has a setting for a task.

    >>> covers("mosaicbert", "rte"), covers("mosaicbert", "wnli"), covers("roberta", "squad")
    (True, False, False)
    """
    found = RECIPES[name]
    return task in found.tasks or (find_task(task).head == "classify" and "learning_rate" in found.usual)


@dataclass(frozen=True)
class Selection:
    """Which fine-tunings a command asks for; the other options are the same for each of them."""

    task: str = Finetune().task_name
    """Task to fine-tune on, or several as rte,mrpc, or glue, all nine of it, or babylm, its seven."""
    recipe: str = ""
    """Published recipe whose grid to start from."""
    workdir: str | None = None
    """Directory for the results; of several tasks each has a directory of its own in it."""


def selected(selection: Selection) -> list[Finetune]:
    """The fine-tunings that are asked for, as their recipe has them, if one is named.

    Args:
        selection: the tasks, the recipe and the directory. Of "glue" a recipe selects the tasks that it covers.

    Raises:
        InputError: there is no such task or recipe, or the recipe has no setting for the task.

    >>> [(one.task, one.workdir) for one in selected(Selection("rte,mrpc", workdir="runs"))]
    [('rte', 'runs/rte'), ('mrpc', 'runs/mrpc')]
    """
    name = selection.recipe
    if selection.task in BENCHMARKS:
        every = benchmark_tasks(BENCHMARKS[selection.task])
        tasks = [task for task in every if name not in RECIPES or covers(name, task)] or every
    elif expanded(selection.task).is_file():  # which may have a comma in its name
        tasks = [selection.task]
    else:
        tasks = selection.task.split(",")
    found = []
    for task in tasks:
        workdir = selection.workdir
        if workdir and len(tasks) > 1:
            workdir = str(Path(workdir) / task)
        found.append(recipe(name, task, workdir) if name else Finetune(task, workdir=workdir))
    return found
