"""Stop a small run at random moments and see that nothing is lost.

python tests/training/preemptions.py [--one 20] [--two 5]

Prints, for each run: when the signal came, how long the process took to save and leave, its exit code, and whether the
run that went on ended with the same bits (checkpoint, results, log) as the one that nobody stopped.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CONFIG = """
from jaxmlm.data import Data
from jaxmlm.models import EncoderConfig
from jaxmlm.runs.run import Run
from jaxmlm.training import Loop
def config():
    return Run(data=Data(text="sample:600", vocab=300, length=32, valid=0.05, store="store"),
               model=EncoderConfig(layers=1, width=16, heads=2),
               loop=Loop(steps=STEPS, batch=8, log_every=50, eval_every=200, save_every=500))
"""
TIMES = ("seconds", "tokens_per_second")


def port() -> int:
    """A port that is free now."""
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def start(directory: Path, workdir: str, processes: int) -> list[subprocess.Popen]:
    """The run, as one process or several."""
    command = [sys.executable, "-m", "jaxmlm", "pretrain", "run.py", "--workdir", workdir]
    many = ["--coordinator", f"localhost:{port()}", "--processes", str(processes)] if processes > 1 else []
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(directory / "xla")}
    started = []
    for i in range(processes):
        words = [*command, *many, *(["--process", str(i)] if many else [])]
        started.append(subprocess.Popen(words, cwd=directory, env=environment, stderr=subprocess.PIPE, text=True))
    return started


def finish(processes: list[subprocess.Popen]) -> list[int]:
    """Their exit codes."""
    for process in processes:
        process.communicate(timeout=900)
    return [process.returncode for process in processes]


def bits(run: Path) -> dict[str, Any]:
    """What must be the same: the newest checkpoint's checksums, the results and the log but for times."""
    newest = max((run / "checkpoints").iterdir(), key=lambda directory: int(directory.name))
    sums = json.loads((newest / "checksums" / "metadata").read_text())
    sums["notes"].pop("seconds")
    plain = lambda line: {key: value for key, value in json.loads(line).items() if key not in TIMES}  # noqa: E731
    return {"step": newest.name, "sums": sums} | {
        name: [plain(line) for line in (run / name).read_text().splitlines()] for name in ("results.jsonl", "log.jsonl")
    }


def stopped(directory: Path, name: str, processes: int, rng: random.Random, longest: float) -> tuple[str, bool]:
    """One run stopped once and started again: a line of the table, and whether all is as it must be."""
    while True:
        run = start(directory, name, processes)
        wait = rng.uniform(0.3, longest)
        time.sleep(wait)
        if all(process.poll() is None for process in run):
            break
        finish(run)  # it was quicker than the one before: another moment
        shutil.rmtree(directory / name)
    sent = time.monotonic()
    run[rng.randrange(processes)].send_signal(signal.SIGTERM)
    codes = finish(run)
    took = time.monotonic() - sent
    steps = [int(step.name) for step in (directory / name / "checkpoints").glob("[0-9]*")]
    done = finish(start(directory, name, processes)) if any(codes) else codes
    same = bits(directory / name) == bits(directory / f"whole-{processes}")
    ended = (directory / name / "DONE").exists() and codes == [0] * processes  # in its last moment
    right = (codes == [75] * processes or ended) and done == [0] * processes and same and took < 5
    at = f"step {max(steps)}" if steps else "before a step"
    line = f"{processes} process(es)  after {wait:5.1f} s  {at:14}  left in {took:4.1f} s  exit {codes}  then {done}  "
    return line + ("same bits" if same else "OTHER BITS"), right


def main() -> int:
    """Run them all; 1 if one of them was not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", type=int, default=20, help="runs of one process")
    parser.add_argument("--two", type=int, default=5, help="runs of two processes")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    rng, wrong, started = random.Random(options.seed), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        (directory / "run.py").write_text(CONFIG.replace("STEPS", str(options.steps)))
        for processes, number in ((1, options.one), (2, options.two)):
            if not number:
                continue
            finish(start(directory, "warm", processes))  # programs and the store are there for all that follow
            began = time.monotonic()
            assert not any(finish(start(directory, f"whole-{processes}", processes)))
            longest = 0.9 * (time.monotonic() - began)
            for i in range(number):
                line, right = stopped(directory, f"{processes}-{i}", processes, rng, longest)
                wrong += not right
                print(line, flush=True)
    number = options.one + options.two
    print(f"{number - wrong} of {number} as they must be, in {time.monotonic() - started:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
