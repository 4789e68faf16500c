"""What a law of the rate costs a training step: python benchmarks/laws.py [--rounds 15]

A step of 4 x 256 (batch 32 x 128, 8,192 pieces, float32, dropout 0.1) at a constant rate of .50 and under
Uniform(0, 1), whose mean is the same, on random tokens. Each has a process of its own; their steps take turns, so that
both see the same machine.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import jax

from jaxmlm.data import Data
from jaxmlm.masking import Masking, Uniform
from jaxmlm.models import preset
from jaxmlm.parallel import make_mesh, place
from jaxmlm.rng import make_key
from jaxmlm.tasks.mlm import mlm_task
from jaxmlm.tools.stand_ins import BlankStore
from jaxmlm.training import Optim
from jaxmlm.training.step import init_state, make_step

MASKINGS = {"constant .50": Masking(0.5), "Uniform(0, 1)": Masking(Uniform(0, 1))}
ROWS = 32
DATA = Data(text="random", vocab=8192, length=128)


def main() -> None:
    """Print one JSON object: median seconds of a step, and the median over the rounds of their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=MASKINGS, help="a process of one masking: a step for each line that it reads")
    asked = parser.parse_args()
    if asked.only:
        for seconds in steps(MASKINGS[asked.only]):
            print(seconds, flush=True)
        return
    processes = {name: Process(name) for name in MASKINGS}
    for _ in range(2):  # the first compiles
        for process in processes.values():
            process.step()
    found = {name: [] for name in MASKINGS}
    for _ in range(asked.rounds):
        for name, process in processes.items():
            found[name].append(process.step())
    medians = {name: round(statistics.median(seconds), 4) for name, seconds in found.items()}
    constant, law = found.values()
    ratio = statistics.median(theirs / ours for ours, theirs in zip(constant, law, strict=True))
    print(json.dumps({"seconds": medians, "ratio": round(ratio, 3)}))


class Process:
    """A process that makes a step when it is told to."""

    def __init__(self, name: str):
        words = [sys.executable, __file__, "--only", name]
        self._child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def step(self) -> float:
        """Its seconds."""
        assert self._child.stdin is not None and self._child.stdout is not None
        print(file=self._child.stdin, flush=True)
        return float(self._child.stdout.readline())


def steps(masking: Masking) -> Iterator[float]:
    """Seconds of a training step, for each line that is read."""
    mesh = make_mesh(devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        task = mlm_task(BlankStore(DATA, 4 * ROWS), DATA, masking, preset("mini"), ROWS, seed=0)
        optimizer = Optim(1e-4).transformation(1000)
        state, step = init_state(task, optimizer, make_key(0)), make_step(task, optimizer)
        for number, _ in enumerate(sys.stdin):
            batch = place(task.batch_at(number), mesh)
            started = time.perf_counter()
            state, metrics = step(state, batch, make_key(0))
            jax.block_until_ready((state, metrics))
            yield time.perf_counter() - started


if __name__ == "__main__":
    main()
