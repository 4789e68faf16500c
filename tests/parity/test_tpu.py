"""Programs compiled for real TPUs, ahead of time and without one: what libtpu says is what a pod would run."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.parity
pytest.importorskip("libtpu", reason="compiles for TPUs: pip install libtpu")

PROGRAM = """
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding

from jaxmlm.models import Encoder, EncoderConfig
from jaxmlm.parallel import Mesh, make_mesh, spec

chips = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
mesh = make_mesh(Mesh(2, 1, 2), list(chips))
config = EncoderConfig(layers=2, width=256, heads=4, positions="rope", attention_dropout=0.0, window=128)


def total(encoder, ids, segments):
    return encoder(ids, segments).astype(jnp.float32).sum()


for kernel, length in (("plain", 2048), ("auto", 2048)):
    with jax.set_mesh(mesh):
        encoder = jax.eval_shape(lambda: Encoder(replace(config, attention=kernel), 1000, jax.random.key(0)))
        rows = jax.ShapeDtypeStruct((8, length), jnp.int32, sharding=NamedSharding(mesh, spec("batch", None)))
        made = jax.jit(jax.grad(total)).trace(encoder, rows, rows).lower(lowering_platforms=("tpu",)).compile()
        calls = made.as_text().count("tpu_custom_call")
        print(json.dumps([kernel, length, calls, made.memory_analysis().temp_size_in_bytes]))
"""


def test_long_rows_get_the_kernel_and_need_less_memory():
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    plain, auto = map(json.loads, done.stdout.splitlines())
    assert plain[2] == 0 and auto[2] > 0
    assert auto[3] < plain[3] / 2
