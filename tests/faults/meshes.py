"""Another layout of devices: the same batches and masks, and losses that agree to rounding."""

import json
import shutil
from functools import partial
from pathlib import Path

from tests.faults.common import CONFIG, PREPARE, Figure, command, made

STEPS = 24
CUT = 4
WAYS = ((8, ()), (4, ()), (1, ()), (4, ("--mesh.data", "2", "--mesh.fsdp", "2")))
"""Devices, and the mesh that they form."""


def devices(count: int) -> None:
    """Let this process see so many devices."""
    import jax

    jax.config.update("jax_num_cpu_devices", count)


def _words(steps: int, mesh: tuple[str, ...]) -> list[str]:
    return ["pretrain", "run.py", "--loop.steps", str(steps), *mesh]


def meshes(work: Path, short: bool) -> Figure:
    """Save on one layout and resume on others; compare each loss of the next 20 steps with the unbroken run's."""
    figure = Figure(f"a run saved on 8 devices or 1 and resumed on others: losses of the next {STEPS - CUT} steps")
    given = made(PREPARE, config=CONFIG.replace("log_every=2, eval_every=4", "log_every=1, eval_every=0"))
    largest = 0.0
    for first, others in ((8, WAYS[1:]), (1, WAYS[:1])):
        straight = Path(shutil.copytree(given, work / f"straight-{first}"))
        stopped = Path(shutil.copytree(given, work / f"stopped-{first}"))
        ended = command(straight, _words(STEPS, ()), partial(devices, first))
        figure.add("" if ended.code == 0 else ended.last)
        command(stopped, _words(STEPS, ()), partial(_stopping, first))
        for count, mesh in others:
            there = Path(shutil.copytree(stopped, work / f"{first}-{count}-{len(mesh)}"))
            ended = command(there, _words(STEPS, mesh), partial(devices, count))
            if ended.code:
                figure.add(f"{first} to {count} {mesh}: exit {ended.code}: {ended.last}")
                continue
            worst = max(abs(a - b) for a, b in zip(_losses(straight), _losses(there), strict=True))
            largest = max(largest, worst)
            figure.add("" if worst <= 1e-5 else f"{first} to {count} {mesh}: a loss differs by {worst:.1e}")
    figure.notes = f"largest difference {largest:.1e}"
    return figure


def _stopping(count: int) -> None:
    """End the process after the first checkpoint."""
    from tests.faults.phases import install

    devices(count)
    install(("reading a batch: begins", CUT + 4))


def _losses(directory: Path) -> list[float]:
    lines = [json.loads(line) for line in (directory / "run" / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "eval" not in line and line["step"] > CUT]


FIGURES = {"meshes": meshes}
