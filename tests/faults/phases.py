"""Hooks that announce the phases of a command, and a kill at one of them."""

import functools
import os
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from jaxmlm import json_files
from jaxmlm.data import building
from jaxmlm.runs import finetuning, loading, pretraining, suite
from jaxmlm.studies import study
from jaxmlm.training import loop, meter

INSIDE = (0.002, 0.01, 0.03, 0.1)
"""Seconds into a call after which a kill within it comes."""


class Announced:
    """Counts the announcements; ends the process at one of them.

    Args:
        at: (phase, how many announcements of it are let pass); None: end nowhere.
        told: file to which every announcement is written.

    """

    def __init__(self, at: tuple[str, int] | None, told: Path | None = None):
        self._at = at
        self._seen: Counter[str] = Counter()
        self._told = open(told, "a") if told is not None else None

    def __call__(self, phase: str, seconds: float = 0.0) -> None:
        """Announce a phase; a kill comes so many seconds later."""
        if self._told is not None:
            print(phase, file=self._told, flush=True)
        if self._at == (phase, self._seen[phase]):
            if seconds:
                threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        self._seen[phase] += 1

    def wrap(self, owner: Any, name: str, phase: str) -> None:
        """Announce when a function begins, is within, and ends."""
        call = getattr(owner, name)
        calls = iter(range(1 << 30))

        @functools.wraps(call)
        def announcing(*args: Any, **options: Any) -> Any:
            self(f"{phase}: begins")
            self(f"{phase}: within", INSIDE[next(calls) % len(INSIDE)])
            result = call(*args, **options)
            self(f"{phase}: ends")
            return result

        setattr(owner, name, announcing)


def install(at: tuple[str, int] | None = None, told: Path | None = None) -> None:
    """Announce the phases of whatever command this process runs."""
    import jax
    import orbax.checkpoint as ocp

    from jaxmlm.parallel import hosts

    announced = Announced(at, told)
    announced.wrap(hosts, "assert_same", "start-up")
    announced.wrap(json_files, "write_text", "writing JSON")
    announced.wrap(building, "build", "building the store")
    announced.wrap(jax.stages.Lowered, "compile", "compiling")
    announced.wrap(loop, "place", "reading a batch")
    announced.wrap(meter.Meter, "add", "stepping")
    announced.wrap(loop, "evaluate", "evaluating")
    announced.wrap(loop.Log, "record", "logging")
    announced.wrap(loop.Checkpoints, "save", "checkpoint")
    announced.wrap(ocp.CheckpointManager, "save", "copying to the host")
    announced.wrap(ocp.CheckpointManager, "wait_until_finished", "writing arrays")
    announced.wrap(os, "rename", "renaming")
    announced.wrap(os, "replace", "replacing")
    announced.wrap(loading.Checkpoints, "close", "closing")
    for module in (pretraining, finetuning, study):
        announced.wrap(module, "append_results", "last second: results")
    announced.wrap(Path, "touch", "last second: mark of the end")
    announced.wrap(finetuning, "save", "saving the best model")
    announced.wrap(suite, "finetune", "fine-tuning")
