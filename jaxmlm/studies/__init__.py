"""Grids of runs, and the report that says what they showed."""

from jaxmlm.studies.evaluate import Evaluate, evaluate
from jaxmlm.studies.finetune import Finetune, finetune
from jaxmlm.studies.grid import Assumed, Study, Vary
from jaxmlm.studies.recipes import recipe
from jaxmlm.studies.study import run_study

__all__ = ["Assumed", "Evaluate", "Finetune", "Study", "Vary", "evaluate", "finetune", "recipe", "run_study"]
