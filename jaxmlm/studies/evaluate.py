"""A checkpoint judged as it is: nothing of it is trained."""

import time
from dataclasses import dataclass
from typing import Any

import jax

from jaxmlm.errors import InputError
from jaxmlm.parallel import Mesh, make_mesh
from jaxmlm.studies.finetune import SAMPLE, folder_of
from jaxmlm.tasks import blimp
from jaxmlm.tasks.run import Loaded, load
from jaxmlm.training import evaluate as judge


@dataclass(frozen=True)
class Evaluate:
    """Scores without training."""

    blimp: str = SAMPLE
    """Folder with the BLiMP sets; sample: is the generated ones."""
    pairs: int | None = 200
    """Pairs of each set."""
    batch: int = 256
    """Masked copies in a model pass."""


def evaluate(checkpoint: str, config: Evaluate) -> dict[str, Any]:
    """Score a checkpoint on minimal pairs. Returns {"rows": one line of results}."""
    mesh = make_mesh(Mesh())
    with jax.set_mesh(mesh):
        return {"rows": [minimal_pairs(load(checkpoint), config, mesh)]}


def minimal_pairs(loaded: Loaded, config: Evaluate, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """BLiMP accuracy: a line of results."""
    if loaded.kind != "mlm":
        raise InputError(f"the model in {loaded.folder} has no masked-LM head ({loaded.kind}): evaluate needs one")
    started = time.perf_counter()
    folder = folder_of(config.blimp)
    pairs = blimp.evaluation(folder, loaded.tokenizer, pairs_per_set=config.pairs, batch=config.batch)
    scores = judge(pairs, loaded.model, mesh)
    return {"stage": "blimp", "task": "blimp", "tuning_seed": None, "main": "accuracy", "scores": scores,
            "seconds": round(time.perf_counter() - started, 2), "tokens": None, "tokens_per_second": None}  # fmt: skip
