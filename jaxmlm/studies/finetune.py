"""A checkpoint fine-tuned on a task, through the one training loop."""

import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxmlm.errors import InputError
from jaxmlm.models import Classifier, Model, SpanPredictor
from jaxmlm.parallel import Mesh, make_mesh
from jaxmlm.paths import hint
from jaxmlm.samples import tasks as sample
from jaxmlm.tasks import glue, squad
from jaxmlm.tasks.run import Loaded, load
from jaxmlm.training import Loop, Optim, Task, train

SAMPLE = "sample:"
"""Named as a folder of task data: the generated one."""


@dataclass(frozen=True)
class Finetune:
    """Fine-tuning on one task."""

    task: str = "cola"
    """cola, sst2, mrpc, stsb, qqp, mnli, mnli-mm, qnli, rte, wnli or squad."""
    data: str = SAMPLE
    """Folder with the official files (glue_data or the task's own folder); sample: is the generated task."""
    learning_rate: float = 5e-4
    epochs: float = 3.0
    batch: int = 16
    length: int = 128
    """Longer inputs are cut (sentences) or become overlapping windows (SQuAD)."""
    stride: int = 64
    """Tokens between the starts of two windows of a SQuAD paragraph."""
    warmup: float = 0.06
    weight_decay: float = 0.01
    limit: int | None = None
    """Train on this many rows only, always the same ones."""
    seeds: tuple[int, ...] = (0,)
    """One fine-tuning for each: the new head, the order of the rows, dropout."""

    def __post_init__(self) -> None:
        if self.task != "squad" and self.task not in glue.TASKS:
            names = ("squad", *glue.TASKS)
            raise InputError(f"no task {self.task!r}{hint(self.task, names)}; there are {', '.join(names)}")

    @property
    def main(self) -> str:
        """The name of the task's main score."""
        return "f1" if self.task == "squad" else glue.TASKS[self.task].metrics[0]


def folder_of(data: str) -> Path:
    """The folder of task data."""
    return Path(_sample().name) if data == SAMPLE else Path(data).expanduser()


@cache
def _sample() -> tempfile.TemporaryDirectory:
    """The generated tasks, written anew by each process (0.2 s), so that a refused command leaves no file behind."""
    folder = tempfile.TemporaryDirectory(prefix="jaxmlm-sample-")
    sample.write(Path(folder.name), 0)
    return folder


def check(config: Finetune) -> None:
    """Read the task's files, so that what is wrong with them shows before any training."""
    folder = folder_of(config.data)
    if config.task == "squad":
        for file in squad.files_in(folder):
            squad.read(file)
    else:
        for split in ("train", "dev"):
            glue.read(glue.TASKS[config.task], folder, split)


def finetune(checkpoint: str, config: Finetune) -> dict[str, Any]:
    """Fine-tune a checkpoint on a task, once for each seed.

    Returns {"rows": a line of results for each seed}.
    """
    check(config)
    mesh = make_mesh(Mesh())
    with jax.set_mesh(mesh):
        loaded = load(checkpoint)
        return {"rows": [tune(loaded, config, seed, mesh) for seed in config.seeds]}


def tune(loaded: Loaded, config: Finetune, seed: int, mesh: jax.sharding.Mesh, stage: str = "") -> dict[str, Any]:
    """One fine-tuning: a line of results."""
    task = make_task(loaded, config, seed)
    steps = max(1, round(config.epochs * task.epoch))
    optim = Optim(config.learning_rate, config.warmup, config.weight_decay)
    loop = Loop(steps, config.batch, seed, save_every=0, log_every=max(1, steps // 10))
    started = time.perf_counter()
    done = train(task, optim, loop, mesh, stage=f"{stage}{config.task} seed {seed}")
    return {"stage": "finetune", "task": config.task, "tuning_seed": seed, "main": config.main,
            "scores": {**done.evals["dev"], "train_loss": done.loss},
            "seconds": round(time.perf_counter() - started, 2), "tokens": None,
            "tokens_per_second": round(done.tokens_per_second, 1)}  # fmt: skip


def make_task(loaded: Loaded, config: Finetune, seed: int) -> Task:
    """The task of fine-tuning this encoder: a copy of it under a new head."""
    folder = folder_of(config.data)
    sizes = {"batch": config.batch, "length": config.length, "seed": seed, "limit": config.limit}

    def init(key: jax.Array) -> Model:
        encoder = jax.tree.map(jnp.copy, loaded.encoder)  # the first step gives its buffers away
        if config.task == "squad":
            return jax.jit(SpanPredictor)(encoder, key)
        classes = glue.TASKS[config.task].classes
        return jax.jit(Classifier, static_argnums=1)(encoder, classes, key)

    if config.task == "squad":
        return squad.task(folder, loaded.tokenizer, init, stride=config.stride, **sizes)
    return glue.task(glue.TASKS[config.task], folder, loaded.tokenizer, init, **sizes)
