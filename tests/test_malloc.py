"""What `keep_freed_memory` is for: a program that is run again touches no new pages of memory."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource
import sys
from jaxmlm.malloc import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
import jax
import jax.numpy as jnp

@jax.jit
def step(x):  # 36 MB of temporary arrays
    return jnp.sort(jnp.sin(x)[:, None] * x, axis=0).sum()

x = jnp.ones(3000)
step(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    step(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of the GNU C library")
def test_steps_reuse_their_memory():
    faults = {}
    for kept in ("kept", "freed"):
        done = subprocess.run([sys.executable, "-c", PROGRAM, kept], capture_output=True, text=True, check=True)
        faults[kept] = int(done.stdout)
    assert faults["kept"] < 100
    assert faults["freed"] > 10_000, "the program must need fresh memory when nothing is kept"
