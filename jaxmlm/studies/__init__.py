"""Grids of runs, and the report that says what they showed."""

from jaxmlm.studies.evaluate import Evaluate, evaluate
from jaxmlm.studies.finetune import Finetune, finetune
from jaxmlm.studies.study import Assumed, Study, Vary, run_study

__all__ = ["Assumed", "Evaluate", "Finetune", "Study", "Vary", "evaluate", "finetune", "run_study"]
