"""Grids of runs, and the report that says what they showed."""

from jaxmlm.runs.evaluation import Evaluate, evaluate
from jaxmlm.runs.finetune_config import Finetune
from jaxmlm.runs.finetuning import finetune
from jaxmlm.runs.recipes import recipe
from jaxmlm.studies.grid import Assumed, Study, Vary
from jaxmlm.studies.study import run_study

__all__ = ["Assumed", "Evaluate", "Finetune", "Study", "Vary", "evaluate", "finetune", "recipe", "run_study"]
