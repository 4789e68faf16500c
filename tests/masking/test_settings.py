"""Masks follow from (seed, step, example id): no setting of JAX and no sharding of the batch changes them."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlm import InputError, Masking, SpanUnits, Tokens, Vocab, WordUnits, mask_batch, step_key
from jaxmlm.masking import LinearDecay, Masked, Replace, Uniform
from jaxmlm.parallel import make_mesh, place

MASKINGS = {
    "tokens": Masking(0.4),
    "expected": Masking(0.15, count="expected", schedule=LinearDecay(0.5, 100)),
    "words": Masking(0.4, units=WordUnits()),
    "spans": Masking(0.4, units=SpanUnits()),
    "law": Masking(Uniform(0.0, 1.0)),
    "bound": Masking(Uniform(0.001, 1.0), weights="bound"),
    "views": Masking(0.15, predict=0.4),
    "80-10-10": Masking(0.15, replace=Replace(0.8, 0.1, 0.1)),
    "unigram": Masking(0.4, replace=Replace(0.8, 0.1, 0.1, ids="unigram", per="unit")),
}
DRAW = np.random.default_rng(0)
IDS = np.where(np.arange(32) == 0, 2, DRAW.integers(5, 100, (8, 32))).astype(np.int32)
TOKENS = Tokens(IDS, IDS > 4, (DRAW.random((8, 32)) < 0.6).astype(np.uint8) * 255)
EXAMPLES = np.array([8, 3, 9, 100_000, 0, 1, 2, 7], np.int32)
VOCAB = Vocab(100, mask_id=4, pad_id=0, replacement_ids=np.arange(5, 100), unigram=np.arange(1, 96))


def masked(name: str) -> list:
    """A batch as this masking leaves it, as plain numbers."""
    examples, tokens = jax.tree.map(jnp.asarray, (EXAMPLES, TOKENS))
    return plain(mask_batch(MASKINGS[name], step_key(0, 17), examples, tokens, VOCAB, 17))


def plain(masked: Masked) -> list:
    """Its numbers, of whatever type."""
    return [np.asarray(one, np.float64).tolist() for one in masked]


@pytest.fixture(scope="module", params=["JAX_ENABLE_X64=1", "JAX_NUMPY_DTYPE_PROMOTION=strict"])
def under(request) -> dict:
    """All of them by a process with a setting of JAX."""
    name, value = request.param.split("=")
    program = (
        "import json; from tests.masking.test_settings import *; print(json.dumps({n: masked(n) for n in MASKINGS}))"
    )
    environment = os.environ | {name: value}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", MASKINGS)
def test_a_setting_of_jax_changes_no_mask(under, name, no_mesh):
    assert masked(name) == under[name]


@pytest.mark.parametrize("name", MASKINGS)
def test_a_sharded_batch_has_the_same_masks(name, eight_devices, no_mesh):
    alone = masked(name)
    mesh = make_mesh()
    with jax.set_mesh(mesh):
        examples, tokens = place((EXAMPLES, TOKENS), mesh)
        of = jax.jit(lambda key, ids, tokens: mask_batch(MASKINGS[name], key, ids, tokens, VOCAB, 17))
        found = of(step_key(0, 17), examples, tokens)
        assert plain(found) == alone
        assert found.inputs.sharding.spec == tokens.ids.sharding.spec


def test_other_random_bits_are_refused(no_mesh):
    with jax.threefry_partitionable(False), pytest.raises(InputError, match="JAX_THREEFRY_PARTITIONABLE is off"):
        step_key(0, 17)
    with jax.threefry_partitionable(False), pytest.raises(InputError, match="JAX_THREEFRY_PARTITIONABLE is off"):
        mask_batch(Masking(0.4), jax.random.key(0), jnp.asarray(EXAMPLES), jax.tree.map(jnp.asarray, TOKENS), VOCAB)
