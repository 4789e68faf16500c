"""The same study and fine-tuning on one process, on two and on four: the same losses, masks, scores and files."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from jaxmlm.runs.loading import load
from tests.parallel.test_hosts import free_port

pytestmark = pytest.mark.slow("starts one, two and four processes")

PROGRAM = """
import sys
from pathlib import Path

import jax
import numpy as np

from jaxmlm.data import Data
from jaxmlm.models import EncoderConfig
from jaxmlm.parallel import Mesh, fetch, hosts, make_mesh, place
from jaxmlm.runs import ZeroShot, Finetune, finetune
from jaxmlm.studies import Study, Vary, run_study
from jaxmlm.tasks.mlm import mlm_task
from jaxmlm.runs.run import Run
from jaxmlm.data.opening import open_store
from jaxmlm.training import Loop, Optim

port, processes, process, workdir, sizes, judged = sys.argv[1:]
if int(processes) > 1:
    hosts.start(hosts.Hosts(f"localhost:{port}", int(processes), int(process)))
run = Run(
    data=Data(text="sample:200", vocab=300, length=16, valid=0.05),
    model=EncoderConfig(layers=1, width=16, heads=2),
    optim=Optim(1e-2),
    loop=Loop(steps=4, batch=8, accumulate=2, log_every=1, save_every=2),
    mesh=Mesh(*map(int, sizes.split(","))),
)
rates = Vary("masking.rate", (0.4,))
pairs = ZeroShot(pairs=1, batch=256) if judged == "judged" else None
run_study(Study(workdir, run=run, vary=(rates,), control=False, zero_shot=pairs))
tuning = Finetune("cola", "sample:", batch=8, length=16, epochs=0.5, limit=64, workdir=workdir + "/tuned")
for _ in range(2 if pairs else 0):  # the second time all is found
    finetune(workdir + "/cells/rate=0.4,seed=0", tuning)
mesh = make_mesh(run.mesh)
with jax.set_mesh(mesh):
    task = mlm_task(open_store(run.data, Path(workdir)), run.data, run.masking, run.model, 8, 0)
    batch = place(task.batch_at(3), mesh)
    masked = jax.jit(task.corrupt)(batch, jax.random.key(5), 3)
    found = fetch({"example": batch["example"], "inputs": masked["inputs"], "positions": masked["positions"]})
if jax.process_index() == 0:
    np.savez(workdir + "/masks.npz", **found)
hosts.exit_process(0)
"""

APART = """
import json
import sys

import jax
import numpy as np

from jaxmlm.parallel import hosts
from jaxmlm.training import Eval, evaluate

port, process = sys.argv[1:]
hosts.start(hosts.Hosts(f"localhost:{port}", 2, int(process)))
layout = np.array(jax.devices())[[0, 2, 3, 1]].reshape(4, 1, 1)  # a ring, as on a TPU slice
mesh = jax.sharding.Mesh(layout, ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Explicit,) * 3)


def batches():
    for start in (0, 8):
        row = np.arange(start, start + 8)
        yield {"row": np.minimum(row, 12), "weight": (row < 13).astype(np.float32)}


def score(outputs):
    return {"rows": float(len(outputs["row"])), "in order": float((outputs["row"] == np.arange(13)).all())}


with jax.set_mesh(mesh):
    found = evaluate(Eval(batches, lambda model, batch: {"row": batch["row"] + model}, score), 0, mesh)
print(json.dumps(found))
hosts.exit_process(0)
"""


class Ran(NamedTuple):
    """The losses of the steps, the masks of a step in the order of the rows' ids, all results, the directory."""

    losses: list[float]
    masks: dict[str, np.ndarray]
    results: list[dict]
    directory: Path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(directory: Path, processes: int, devices: int, sizes: str, judged: str = "judged") -> Ran:
    port = free_port()
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}

    def one(process: int) -> subprocess.CompletedProcess:
        words = [sys.executable, "-c", PROGRAM, str(port), str(processes), str(process), str(directory), sizes, judged]
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=900)

    with ThreadPoolExecutor(processes) as pool:
        for done in pool.map(one, range(processes)):
            assert done.returncode == 0, done.stderr[-2000:]
    log = lines(directory / "cells" / "rate=0.4,seed=0" / "log.jsonl")
    found = dict(np.load(directory / "masks.npz"))
    order = np.argsort(found["example"])
    masks = {name: x[order] for name, x in found.items()}
    results = [row for path in sorted(directory.glob("**/results.jsonl")) for row in lines(path)]
    return Ran([row["loss"] for row in log if "eval" not in row], masks, results, directory)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run(tmp_path_factory.mktemp("alone"), 1, 1, "1,1,1")


def same_pretraining(ran: Ran, alone: Ran) -> None:
    assert len(ran.losses) == 4 and ran.losses == pytest.approx(alone.losses, abs=2e-4)
    for name, expected in alone.masks.items():
        np.testing.assert_array_equal(ran.masks[name], expected)


def test_two_processes_change_no_loss_mask_score_or_file(alone, tmp_path):
    ran = run(tmp_path, 2, 2, "1,2,2")  # the tensor axis within a process
    same_pretraining(ran, alone)
    assert [row["task"] for row in ran.results] == ["mlm", "mlm", "heldout", "blimp"] * 2 + ["cola"]
    for row, expected in zip(ran.results, alone.results, strict=True):
        # Bits per word are some tens: the same digits are a larger difference there.
        assert row["scores"] == pytest.approx(expected["scores"], rel=5e-5, abs=5e-4)
    files, expected = (
        sorted(str(path.relative_to(r.directory)) for path in r.directory.rglob("*") if "checkpoints" not in path.parts)
        for r in (ran, alone)
    )
    assert files == expected
    model, same = (jax.tree.leaves(load(r.directory / "tuned" / "model").model) for r in (ran, alone))
    assert all(np.allclose(a, b, atol=1e-3) for a, b in zip(model, same, strict=True))


def test_four_processes_change_neither_losses_nor_masks(alone, tmp_path):
    same_pretraining(run(tmp_path, 4, 1, "2,1,2", "pretrained"), alone)  # the tensor axis over two processes


def test_outputs_are_in_order_where_the_devices_of_a_host_are_not_neighbours():
    port, environment = free_port(), os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}

    def one(process: int) -> subprocess.CompletedProcess:
        words = [sys.executable, "-c", APART, str(port), str(process)]
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=900)

    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(one, range(2)):
            assert done.returncode == 0, done.stderr[-2000:]
            assert json.loads(done.stdout.splitlines()[-1]) == {"rows": 13.0, "in order": 1.0}
