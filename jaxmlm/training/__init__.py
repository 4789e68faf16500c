"""The one training loop, for every objective: a new objective is a new `Task`."""

from jaxmlm.logs import Log, Sink
from jaxmlm.training.budget import steps_within
from jaxmlm.training.checkpoint import Checkpoints
from jaxmlm.training.intervals import Loop
from jaxmlm.training.loop import Trained, train
from jaxmlm.training.optim import Optim
from jaxmlm.training.optimizers import Adafactor, AdamW, Lamb, Lion, Muon, Optimizer
from jaxmlm.training.step import TrainState
from jaxmlm.training.task import Batch, Eval, Mean, Task, evaluate

__all__ = [
    "Adafactor",
    "AdamW",
    "Batch",
    "Checkpoints",
    "Eval",
    "Lamb",
    "Lion",
    "Log",
    "Loop",
    "Mean",
    "Muon",
    "Optim",
    "Optimizer",
    "Sink",
    "Task",
    "TrainState",
    "Trained",
    "evaluate",
    "steps_within",
    "train",
]
