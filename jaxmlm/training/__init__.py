"""The one training loop, for every objective: a new objective is a new `Task`."""

from jaxmlm.logs import Log
from jaxmlm.training.budget import steps_within
from jaxmlm.training.checkpoint import Checkpoints
from jaxmlm.training.loop import Loop, Trained, train
from jaxmlm.training.optimizers import Optim
from jaxmlm.training.step import TrainState
from jaxmlm.training.task import Batch, Eval, Mean, Task, evaluate

__all__ = [
    "Batch",
    "Checkpoints",
    "Eval",
    "Log",
    "Loop",
    "Mean",
    "Optim",
    "Task",
    "TrainState",
    "Trained",
    "evaluate",
    "steps_within",
    "train",
]
