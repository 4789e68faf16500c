"""A long run with saves, evaluations and resumes: memory, files, threads and the time of a step stay as they are."""

import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from jaxmlm.cli import PREEMPTED
from tests.faults.common import CONFIG, PREPARE, Figure, Running, well


def soak(work: Path, short: bool) -> Figure:
    """Train twice: in one process, and in processes that a signal ends every thousandth step; watch what they hold.

    The time of a step is that of the processor; other programs change it less than tokens/s, by some 5 %: run it alone.
    """
    steps, each = (400, 100) if short else (20_000, 1_000)
    figure = Figure(
        f"a soak of {steps:,} steps, in one process and resumed every {each:,}: memory, files, threads, processor time"
        " of the second half within 2 % of the first"
    )
    loop = f"steps={steps}, batch=8, log_every={each // 5}, eval_every={each}, save_every={each // 2}"
    config = CONFIG.replace("steps=12, batch=8, log_every=2, eval_every=4, save_every=4", loop)
    (work / "run.py").write_text(config.replace('"run",', '"run", most_epochs=1000,'))
    well(work, PREPARE)
    notes = []
    for name in ("unbroken", "resumed"):
        told = work / f"{name}.jsonl"
        while (ended := Running(work, _training(name, each, told), limit=0).wait()).code == PREEMPTED:
            pass
        figure.add("" if ended.code == 0 else f"{name}: exit {ended.code}: {ended.last}")
        notes.append(f"{name}: {_changes(figure, name, work, told, steps // (each // 5))}")
    figure.notes = "; ".join(notes)
    return figure


def _training(name: str, each: int, told: Path) -> Callable[[], int]:
    """A command that writes what its process holds every so many steps; a run to be resumed ends there by a signal."""

    def body() -> int:
        from jaxmlm.cli import main
        from jaxmlm.training import meter

        add = meter.Meter.add
        spent = time.process_time()

        def adding(self: meter.Meter, step: int, *args: object) -> None:
            nonlocal spent
            add(self, step, *args)
            if step % each == 0:
                now = time.process_time()
                with open(told, "a") as file:
                    print(json.dumps(_held() | {"processor time": now - spent}), file=file)
                spent = now
                if name == "resumed":
                    os.kill(os.getpid(), signal.SIGTERM)

        meter.Meter.add = adding  # type: ignore[method-assign]
        return main(["pretrain", "run.py", "--workdir", name])

    return body


def _changes(figure: Figure, name: str, work: Path, told: Path, lines: int) -> str:
    """Judge one of the two trainings; what changed from its first half to its second."""
    seen = [json.loads(line) for line in told.read_text().splitlines()]
    log = [json.loads(line) for line in (work / name / "log.jsonl").read_text().splitlines()]
    log = [line for line in log if "eval" not in line]
    figure.add("" if len({line["step"] for line in log}) == len(log) == lines else f"{name}: a gap in the log")
    seen = seen[1:]  # the first of a process compiles
    half = len(seen) // 2
    changes = {}
    for what in seen[0]:
        # A thread that saves is there or not: of what is counted, the most.
        middle = max if what in ("files", "threads", "modules") else statistics.median
        before, after = (middle([one[what] for one in part]) for part in (seen[:half], seen[half:]))
        changes[what] = after / before - 1
        figure.add("" if changes[what] <= 0.02 else f"{name}: {what} changed by {100 * changes[what]:+.1f} %")
    speeds = [line["tokens_per_second"] for line in log if line.get("tokens_per_second")]
    half = len(speeds) // 2
    changes["tokens/s"] = statistics.median(speeds[half:]) / statistics.median(speeds[:half]) - 1
    return ", ".join(f"{what} {100 * change:+.1f} %" for what, change in changes.items())


def _held() -> dict[str, float]:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return {
        "memory": float(status["VmRSS"].split()[0]),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": float(status["Threads"]),
        "modules": len(sys.modules),
    }


FIGURES = {"soak": soak}
