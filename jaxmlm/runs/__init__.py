"""What is on disk and done with it: run directories, pre-training, fine-tuning, evaluation, loading and saving."""

from jaxmlm.runs.evaluation import Bound, Evaluation, evaluate
from jaxmlm.runs.finetune_config import Finetune
from jaxmlm.runs.finetuning import finetune
from jaxmlm.runs.layer_probes import Probes
from jaxmlm.runs.loading import LoadedModel, from_transformers, load, save
from jaxmlm.runs.pretraining import pretrain
from jaxmlm.runs.recipes import recipe
from jaxmlm.runs.run import Run
from jaxmlm.runs.zero_shot import ZeroShot

__all__ = [
    "Bound",
    "Evaluation",
    "Finetune",
    "LoadedModel",
    "Probes",
    "Run",
    "ZeroShot",
    "evaluate",
    "finetune",
    "from_transformers",
    "load",
    "pretrain",
    "recipe",
    "save",
]
