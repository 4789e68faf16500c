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
    return jnp.tanh(jnp.sin(x)[:, None] * x) @ x

x = jnp.ones(3000)
step(x).block_until_ready()
faults = []
for _ in range(41):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sorted(faults[10:])[15])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of the GNU C library")
def test_steps_reuse_their_memory():
    """The median of 31 steps after ten: the first ones touch new blocks, where something small stands in the others."""
    faults = {}
    for kept in ("kept", "freed"):
        done = subprocess.run([sys.executable, "-c", PROGRAM, kept], capture_output=True, text=True, check=True)
        faults[kept] = int(done.stdout)
    assert faults["kept"] < 100
    assert faults["freed"] > 5_000, "the program must need fresh memory when nothing is kept"
