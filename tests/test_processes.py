"""Weak scaling: the same run on one process, on two and on four gives the same losses and the same masks."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from test_hosts import free_port

PROGRAM = """
import sys
from pathlib import Path

import jax
import numpy as np

from jaxmlm.data import Data
from jaxmlm.models import EncoderConfig
from jaxmlm.parallel import Mesh, fetch, hosts, make_mesh, place
from jaxmlm.tasks.mlm import mlm_task
from jaxmlm.tasks.run import Run, pretrain
from jaxmlm.tasks.texts import open_store
from jaxmlm.training import Loop

port, processes, process, workdir, sizes = sys.argv[1:]
if int(processes) > 1:
    hosts.start(hosts.Hosts(f"localhost:{port}", int(processes), int(process)))
run = Run(
    workdir=workdir,
    data=Data(text="sample:200", vocab=300, length=16, valid=0.05),
    model=EncoderConfig(layers=1, width=16, heads=2),
    loop=Loop(steps=4, batch=8, accumulate=2, log_every=1, save_every=2),
    mesh=Mesh(*map(int, sizes.split(","))),
)
pretrain(run)
mesh = make_mesh(run.mesh)
with jax.set_mesh(mesh):
    task = mlm_task(open_store(run.data, Path(workdir)), run.data, run.masking, run.model, 8, 0)
    batch = place(task.batch_at(3), mesh)
    masked = jax.jit(task.prepare)(batch, jax.random.key(5), 3)
    found = fetch({"example": batch["example"], "inputs": masked["inputs"], "positions": masked["positions"]})
if jax.process_index() == 0:
    np.savez(workdir + "/masks.npz", **found)
hosts.leave(0)
"""


def run(folder: Path, processes: int, devices: int, sizes: str) -> tuple[list[float], dict[str, np.ndarray]]:
    """The losses of the steps, and the masks of a step in the order of the rows' ids."""
    port = free_port()
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # what counts is the time to compile
    }

    def one(process: int) -> subprocess.CompletedProcess:
        words = [sys.executable, "-c", PROGRAM, str(port), str(processes), str(process), str(folder), sizes]
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)

    with ThreadPoolExecutor(processes) as pool:
        for done in pool.map(one, range(processes)):
            assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    found = dict(np.load(folder / "masks.npz"))
    order = np.argsort(found["example"])
    return [row["loss"] for row in rows if "eval" not in row], {name: x[order] for name, x in found.items()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run(tmp_path_factory.mktemp("alone"), 1, 1, "1,1,1")


@pytest.mark.parametrize(
    ("processes", "devices", "sizes"),
    [(2, 2, "1,2,2"), (4, 1, "2,1,2")],  # the tensor axis within a process, and over two
    ids=str,
)
def test_more_processes_change_neither_losses_nor_masks(alone, tmp_path, processes, devices, sizes):
    losses, masks = run(tmp_path, processes, devices, sizes)
    assert len(losses) == 4 and losses == pytest.approx(alone[0], abs=2e-4)
    for name, expected in alone[1].items():
        np.testing.assert_array_equal(masks[name], expected)
