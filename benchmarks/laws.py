"""What a law of the rate costs a training step: python benchmarks/laws.py [--rounds 15]

A step of 4 x 256 (batch 32 x 128, 8,192 pieces, float32, dropout 0.1) at a constant rate of .50 and under
Uniform(0, 1), whose mean is the same, on random tokens, in turns.
"""

import argparse
import itertools
import json
from collections.abc import Callable

import jax
from turns import in_turns, jax_product, serve

from jaxmlm.data import Data
from jaxmlm.malloc import keep_freed_memory
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
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=MASKINGS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        keep_freed_memory()  # as the command does
        serve(step_under(MASKINGS[asked.only]), jax_product())
    else:
        print(json.dumps(in_turns(__file__, list(MASKINGS), [], asked.rounds)))


def step_under(masking: Masking) -> Callable[[], None]:
    """A training step, on other rows each time."""
    mesh = make_mesh(devices=jax.devices()[:1])
    numbers = itertools.count()
    with jax.set_mesh(mesh):
        task = mlm_task(BlankStore(DATA, 4 * ROWS), DATA, masking, preset("mini"), ROWS, seed=0)
        optimizer = Optim(1e-4).transformation(1000)
        held = [init_state(task, optimizer, make_key(0))]
        step = make_step(task, optimizer)

    def run() -> None:
        with jax.set_mesh(mesh):
            held[0], metrics = step(held[0], place(task.batch_at(next(numbers)), mesh), make_key(0))
            jax.block_until_ready((held[0], metrics))

    return run


if __name__ == "__main__":
    main()
