"""Bytes that FSDP moves a step on so many fake CPU devices: python benchmarks/collectives.py 8

One layer of width 256, vocabulary 1,024, 4 rows of 64 tokens a device; the results of each kind of collective in the
compiled step, on each device.
"""

import json
import re
import sys

import jax
import numpy as np

from jaxmlm.masking import Masked
from jaxmlm.models import Encoder, EncoderConfig, MaskedLM
from jaxmlm.parallel import Mesh, make_mesh, place
from jaxmlm.tasks.mlm import predictions
from jaxmlm.training import Mean, Optim, Task
from jaxmlm.training.step import init_state, make_step

BYTES = {"f32": 4, "s32": 4, "u32": 4, "pred": 1}


def main(devices: int) -> None:
    """Print one JSON object."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)

    def loss(model, batch, key, step):
        nats, _ = predictions(model, Masked(**batch), None, key)
        return Mean(nats.sum(), batch["weights"].sum()), {}

    def init(key):
        return MaskedLM(Encoder(EncoderConfig(layers=1, width=256, heads=4), 1024, key), key)

    mesh, rows = make_mesh(Mesh(1, devices, 1)), 4 * devices
    batch = {name: np.ones((rows, 20), np.int32) for name in ("positions", "targets")}
    batch |= {"inputs": np.ones((rows, 64), np.int32), "weights": np.ones((rows, 20), np.float32)}
    with jax.set_mesh(mesh):
        task, optimizer = Task(jax.jit(init), loss, lambda step: batch, {}, 1), Optim().transformation(10)
        state = init_state(task, optimizer, jax.random.key(0))
        program = make_step(task, optimizer).lower(state, place(batch, mesh), jax.random.key(0)).compile().as_text()
    moved: dict[str, int] = {}
    kinds = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    for result, kind in re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", program):
        arrays = re.findall(rf"({'|'.join(BYTES)})\[([\d,]*)\]", result)
        size = sum(BYTES[dtype] * int(np.prod([int(n) for n in shape.split(",") if n])) for dtype, shape in arrays)
        moved[kind] = moved.get(kind, 0) + size
    parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(state.model))
    print(json.dumps({"devices": devices, "bytes": moved, "parameters": parameters}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
