"""`layers.product`: the same as an einsum, without the copies that an einsum costs on the CPU."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlm.models.layers import product
from jaxmlm.parallel import make_mesh

SHAPES = {
    "...f,fd->...d": ((3, 5, 8), (8, 6)),
    "BPD,VD->BPV": ((3, 5, 8), (16, 8)),
    "BLD,DcHK->BLcHK": ((3, 5, 8), (8, 3, 2, 4)),
    "BLHK,HKD->BLD": ((3, 5, 2, 4), (2, 4, 6)),
}


@pytest.mark.parametrize("with_mesh", [False, True])
@pytest.mark.parametrize("formula", SHAPES)
def test_values_and_gradients_are_those_of_the_einsum(formula, with_mesh):
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel = (jax.random.normal(k, shape) for k, shape in zip(keys, SHAPES[formula], strict=False))
    out = jax.random.normal(keys[2], jnp.einsum(formula, x, kernel).shape)

    def value_and_gradients(multiply):
        y, pull = jax.vjp(multiply, x, kernel)
        return y, *pull(out)

    expected = value_and_gradients(lambda x, kernel: jnp.einsum(formula, x, kernel))
    if with_mesh:
        everywhere = jax.sharding.PartitionSpec(*(None,) * out.ndim)
        with jax.set_mesh(make_mesh(devices=jax.devices()[:1])):
            got = value_and_gradients(lambda x, kernel: product(formula, x, kernel, everywhere))
    else:
        got = value_and_gradients(lambda x, kernel: product(formula, x, kernel, None))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_logits_of_bfloat16_are_float32():
    x, table = jnp.ones((2, 3, 8), jnp.bfloat16), jnp.ones((5, 8), jnp.bfloat16)
    assert product("BPD,VD->BPV", x, table, None).dtype == jnp.bfloat16
    assert product("BPD,VD->BPV", x, table, None, jnp.float32).dtype == jnp.float32


def test_no_copy_of_the_logits_gradient_is_made():
    """[V, B P] is that copy; with the einsum of rows in two axes the compiled program has it."""

    def compiled(multiply):
        def loss(x, table):
            return jax.nn.logsumexp(multiply("BPD,VD->BPV", x, table), axis=-1).sum()

        inputs = jnp.ones((4, 6, 32)), jnp.ones((1000, 32))
        return jax.jit(jax.grad(loss, (0, 1))).lower(*inputs).compile().as_text()

    transposed = re.compile(r"f32\[1000,24\]")
    assert not transposed.search(compiled(lambda *args: product(*args, None)))
    assert transposed.search(compiled(jnp.einsum)), "XLA no longer makes the copy: the einsum would do"
