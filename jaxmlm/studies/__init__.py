"""Grids of runs, and the report that says what they showed."""

from jaxmlm.studies.grid import Assumed, Study, Vary
from jaxmlm.studies.study import run_study

__all__ = ["Assumed", "Study", "Vary", "run_study"]
