"""One of two processes is killed: the other ends with a line, and both resume."""

import random
import shutil
import time
from pathlib import Path

from tests.faults.common import CONFIG, PREPARE, PRETRAIN, Figure, Running, contents, difference, made, start
from tests.parallel.test_hosts import free_port

STEPS = 200
WATCHER = 2.0
"""Seconds in which the process that watches over process 0 says that it is gone."""


def _start(directory: Path) -> list[Running]:
    port = free_port()
    many = ("--coordinator", f"localhost:{port}", "--processes", "2", "--process")
    return [start(directory, (*PRETRAIN, *many, str(number))) for number in (0, 1)]


def killed(work: Path, short: bool) -> Figure:
    """Kill process 0 and process 1 in turn, at moments that are spread over the run."""
    figure = Figure(
        "SIGKILL of one of two processes: the other ends within 60 s and not with 0; both resume to the end"
    )
    loop = f"steps={STEPS}, batch=8, log_every=20, save_every=20"
    given = made(PREPARE, config=CONFIG.replace("steps=12, batch=8, log_every=2, eval_every=4, save_every=4", loop))
    straight = Path(shutil.copytree(given, work / "straight"))
    began = time.monotonic()
    ended = [one.wait() for one in _start(straight)]
    took = time.monotonic() - began
    if any(one.code for one in ended):
        raise SystemExit(
            "\n".join(f"process {number} ended with {one.code}: {one.err}" for number, one in enumerate(ended))
        )
    wanted = contents(straight / "run")
    rng = random.Random(0)
    named = 0
    longest = 0.0
    count = 2 if short else 15
    for number in range(count):
        there = Path(shutil.copytree(given, work / f"killed-{number}"))
        running = _start(there)
        time.sleep(took * (0.2 + 0.7 * (number + rng.random()) / count))
        running[number % 2].kill()
        killed_at = time.monotonic()
        ended = [one.wait(after=WATCHER) for one in running]
        longest = max(longest, time.monotonic() - killed_at - 2 * WATCHER)
        other = ended[1 - number % 2]
        named += "process 0 on" in other.err
        again = [one.wait() for one in _start(there)]
        why = "" if ended[number % 2].code == 0 or other.code else "the other ended with 0"
        if not why and time.monotonic() - killed_at > 60 + 3 * took:
            why = "the other did not end"
        if not why and any(one.code for one in again):
            why = f"then exit {[one.code for one in again]}: {again[0].last} / {again[1].last}"
        figure.add(why or difference(wanted, contents(there / "run")))
        shutil.rmtree(there)
    figure.notes = f"the other ended within {longest:.0f} s; process 0 was named in {named} of {(count + 1) // 2}"
    return figure


FIGURES = {"kill-one-of-two": killed}
