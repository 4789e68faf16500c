"""What saving and resuming base costs on a CPU: python benchmarks/saving.py [--steps 40]

`jaxmlm pretrain configs/base.py` (12 x 768, float32, 8 rows of 128, a checkpoint of 1 GB) in a process of its own,
which saves every tenth step. A save makes some of the steps after it longer, for it writes while they run: counted are
the seconds of all steps beyond as many median steps that no save has touched. Then a signal stops the run before its
last step, and the seconds from the start of the process that resumes it to its first step are counted.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from turns import processor

from jaxmlm.cli import PREEMPTED

OPTIONS = "--text sample:5000 --data.vocab 1000 --model.dtype float32 --model.remat none --loop.batch 8".split()
EVERY = 10
"""Steps between two saves."""
TOUCHED = 5
"""Steps after a save that are not taken for the median."""
PROGRAM = """
import os, signal, sys, time
from jaxmlm import cli
from jaxmlm.training import loop

made = loop.make_step
left = int(sys.argv[1])
def make_step(*options):
    step = made(*options)
    def told(*arguments):
        global left
        print("at", time.time(), flush=True)
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)
    told.lower = step.lower
    return told
loop.make_step = make_step
sys.exit(cli.main(sys.argv[2:]))
"""


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        store = ["configs/base.py", *OPTIONS, "--data.store", f"{directory}/store"]
        subprocess.run([sys.executable, "-m", "jaxmlm", "prepare", *store], check=True, capture_output=True)
        last = asked.steps + EVERY + 1
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{directory}/cache"  # which the first start fills, as for a user
        loop = ["--loop.log-every", "1", "--loop.save-every", str(EVERY), "--loop.steps", str(last + 1)]
        run = [*store, "--workdir", f"{directory}/run", *loop]
        # The steps before the first save warm the machine up.
        found = {"processor": processor(), **cost(starts(last, run)[EVERY - 1 :])}
        began = time.time()
        resumed = starts(0, run)
        found["seconds from the command to the first step of a resumed run"] = round(resumed[0] - began, 1)
    print(json.dumps(found))


def starts(stopped_at: int, words: list[str]) -> list[float]:
    """The times at which the steps of a run were dispatched, until a signal at one of them: each waits for the last."""
    command = [sys.executable, "-c", PROGRAM, str(stopped_at), "pretrain", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, PREEMPTED):
        sys.exit(done.stderr)
    return [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("at ")]


def cost(times: list[float]) -> dict[str, float]:
    """What the saves cost, from the times at which steps began, the first of them right before a save.

    >>> cost([0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22])["seconds of a save"]
    1.0
    """
    steps = [after - before for before, after in zip(times, times[1:], strict=False)]
    steps = steps[: len(steps) // EVERY * EVERY]
    rest = [step for number, step in enumerate(steps) if number % EVERY >= TOUCHED]
    step = statistics.median(rest)
    saves = len(steps) // EVERY
    save = (sum(steps) - len(steps) * step) / saves
    return {
        "saves": saves,
        "seconds of a step": round(step, 3),
        "seconds of a save": round(save, 3),
        "percent of the time at a save every 100 steps": round(100 * save / (100 * step + save), 2),
    }


if __name__ == "__main__":
    main()
