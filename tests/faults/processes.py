"""One of two processes is killed: the other ends with a line, and both resume."""

import random
import shutil
import time
from pathlib import Path

from tests.faults.common import CONFIG, PREPARE, PRETRAIN, Ended, Figure, Running, contents, difference, made, start
from tests.parallel.test_hosts import free_port

STEPS = 200
WATCHER = 2.0
"""Seconds in which the process beside one that has ended says why."""


def _start(directory: Path) -> list[Running]:
    port = free_port()
    many = ("--coordinator", f"localhost:{port}", "--processes", "2", "--process")
    return [start(directory, (*PRETRAIN, *many, str(number))) for number in (0, 1)]


def killed(work: Path, short: bool) -> Figure:
    """Kill process 0 and process 1 in turn, at moments that are spread over the run."""
    figure = Figure(
        "SIGKILL of one of two processes: the other ends within 60 s, not with 0, and names it; both resume to the end"
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
    longest = 0.0
    count = 2 if short else 15
    for number in range(count):
        there = Path(shutil.copytree(given, work / f"killed-{number}"))
        running = _start(there)
        time.sleep(took * (0.2 + 0.7 * (number + rng.random()) / count))
        running[number % 2].kill()
        killed_at = time.monotonic()
        ended = [one.wait(after=WATCHER) for one in running]
        lasted = time.monotonic() - killed_at - 2 * WATCHER
        longest = max(longest, lasted)
        again = [one.wait() for one in _start(there)]
        why = _wrong(number % 2, ended, lasted, again)
        figure.add(why or difference(wanted, contents(there / "run")))
        shutil.rmtree(there)
    figure.notes = f"the other ended within {longest:.0f} s"
    return figure


def _wrong(killed: int, ended: list[Ended], lasted: float, again: list[Ended]) -> str:
    """What was not as promised of two processes of which one was killed, and of the same two started again."""
    other = ended[1 - killed]
    if ended[killed].code and not other.code:
        return "the other ended with 0"
    if lasted > 60:
        return f"the other ended after {lasted:.0f} s"
    if ended[killed].code and f"process {killed} on" not in other.err:
        return f"the other did not name it: {other.last}"
    if any(one.code for one in again):
        return f"then exit {[one.code for one in again]}: {again[0].last} / {again[1].last}"
    return ""


FIGURES = {"kill-one-of-two": killed}
