"""Models as plain JAX code: where no mesh is set they compute what they compute on a mesh of one device."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxmlm.models import Encoder, EncoderConfig, MaskedLM
from jaxmlm.parallel import make_mesh, shard, without_mesh

CONFIG = EncoderConfig(layers=1, width=16, mlp=32, max_positions=8, init=0.2)
IDS = np.arange(16, dtype=np.int32).reshape(2, 8)
SEGMENTS = np.ones_like(IDS)
POSITIONS = np.array([[1, 2], [3, 0]], np.int32)


def loss(model: MaskedLM, key: jax.Array | None = None) -> jax.Array:
    logits = model.logits(model.hidden(jnp.asarray(IDS), jnp.asarray(SEGMENTS), key), jnp.asarray(POSITIONS))
    right = shard(jnp.arange(logits.shape[-1]) == 5, "vocab")
    return (jax.nn.logsumexp(logits, axis=-1) - jnp.where(right[None, None], logits, 0.0).sum(-1)).mean()


def updated() -> Any:
    """The loss, its gradient and the model after an update of optax, with dropout."""

    @jax.jit
    def run(key: jax.Array) -> tuple[jax.Array, MaskedLM, MaskedLM]:
        model = MaskedLM(Encoder(CONFIG, 50, key), key)
        value, gradient = jax.value_and_grad(loss)(model, key)
        optimizer = optax.sgd(0.1)
        updates, _ = optimizer.update(gradient, optimizer.init(model), model)  # type: ignore[arg-type]
        return value, gradient, optax.apply_updates(model, updates)  # type: ignore[arg-type,return-value]

    return jax.device_get(run(jax.random.key(0)))


def test_a_model_without_a_mesh_is_that_of_a_mesh_of_one_device(no_mesh):
    assert without_mesh()
    plain = jax.tree.leaves(updated())
    with jax.set_mesh(make_mesh(devices=jax.devices()[:1])):
        assert not without_mesh()
        on_a_mesh = jax.tree.leaves(updated())
    for a, b in zip(plain, on_a_mesh, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_transforms_and_the_optimizer_of_nnx_train_it(no_mesh):
    model = MaskedLM(Encoder(CONFIG, 50, jax.random.key(0)), jax.random.key(1))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model: MaskedLM, optimizer: nnx.Optimizer) -> jax.Array:
        value, gradient = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradient)
        return value

    first, *_, last = (float(step(model, optimizer)) for _ in range(4))
    assert last < first - 0.1
