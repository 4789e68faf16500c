"""Rates that follow a law in training: a device's rows share their prediction slots, and nothing else changes."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmlm.data import Data
from jaxmlm.data.opening import open_store
from jaxmlm.masking import Masking, Tokens, Uniform, Vocab, mask_batch
from jaxmlm.models import Encoder, EncoderConfig, MaskedLM
from jaxmlm.parallel import Mesh, make_mesh, place
from jaxmlm.rng import make_key, step_key
from jaxmlm.tasks import mlm
from jaxmlm.training.step import init_state, make_step

LAW = Masking(Uniform(0.0, 1.0))
DATA = Data("sample:200", vocab=400, length=24, valid=0.1)
MODEL = EncoderConfig(layers=1, width=16, heads=2, init=0.2, dropout=0.0, attention_dropout=0.0, max_positions=24)


def masked_rows(masking: Masking) -> mlm.Masked:
    ids = np.random.default_rng(0).integers(10, 300, (16, 24)).astype(np.int32)
    tokens = Tokens(ids, ids > 0, np.ones_like(ids, np.uint8))
    vocab = Vocab(300, 4, 0, np.arange(10, 300))
    return mask_batch(masking, step_key(0, 0), jnp.arange(16), jax.tree.map(jnp.asarray, tokens), vocab)


def gradient(masked: mlm.Masked, sizes: tuple[int, int, int], slots: int | None, **options: Any) -> Any:
    mesh = make_mesh(Mesh(*sizes), jax.local_devices()[: int(np.prod(sizes))])
    with jax.set_mesh(mesh):
        model = jax.jit(lambda key: MaskedLM(Encoder(replace(MODEL, **options), 300, key), key))(make_key(1))

        def total(model: Any, masked: mlm.Masked) -> Any:
            dropped = jnp.zeros(())
            if slots is not None:
                masked, dropped = mlm.pool(masked, slots, mlm.batch_shards())
                assert masked.positions.shape == (sizes[0] * sizes[1], slots)
            nats, right = mlm.predictions(model, masked, None, None, pooled=slots is not None)
            return nats.sum(), (right.sum(), dropped)

        on = mlm.Masked(*place(tuple(np.asarray(x) for x in masked), mesh))
        (nats, (right, dropped)), grads = jax.jit(jax.value_and_grad(total, has_aux=True))(model, on)
        return jax.device_get((nats, right, dropped, jax.tree.leaves(grads)))


@pytest.fixture(scope="module")
def by_rows() -> tuple[mlm.Masked, Any]:
    """Masked rows of very different rates, weighted, and the gradient of their loss with slots in each row."""
    masked = masked_rows(Masking(Uniform(0.001, 1.0), weights="bound"))
    return masked, gradient(masked, (1, 1, 1), None)


@pytest.mark.parametrize(
    ("sizes", "options"),
    [((1, 1, 1), {}), ((1, 1, 1), {"logits_chunk": 50}), ((2, 2, 2), {})],
    ids=["one device", "in chunks", "eight devices"],
)
def test_pooled_slots_give_the_same_loss_and_gradient(by_rows, sizes, options):
    masked, (nats, right, _, grads) = by_rows
    slots = LAW.pool_slots(24, 16, sizes[0] * sizes[1])
    assert slots < 24 * 16 // (sizes[0] * sizes[1])
    found = gradient(masked, sizes, slots, **options)
    assert found[0] == pytest.approx(nats, rel=1e-5) and found[1] == pytest.approx(right, rel=1e-5)
    assert found[2] == 0
    for x, y in zip(found[3], grads, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=2e-4)


def test_predictions_without_a_slot_are_counted(by_rows):
    masked, _ = by_rows
    count = int((np.asarray(masked.weights) > 0).sum())
    assert gradient(masked, (1, 1, 1), 100)[2] == count - 100


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return open_store(DATA, tmp_path_factory.mktemp("pool"))


def after_a_step(store: Any, masking: Masking, sizes: tuple[int, int, int], accumulate: int) -> tuple[dict, list]:
    mesh = make_mesh(Mesh(*sizes), jax.local_devices()[: int(np.prod(sizes))])
    with jax.set_mesh(mesh):
        task = mlm.mlm_task(store, DATA, masking, MODEL, 16, 0)
        optimizer = optax.sgd(1.0)
        state = init_state(task, optimizer, make_key(0))
        step = make_step(task, optimizer, accumulate)
        state, metrics = step(state, place(task.batch_at(0), mesh), make_key(0))
        return jax.device_get((metrics, jax.tree.leaves(state.model)))


@pytest.mark.slow("compiles three training steps")
def test_micro_batches_and_meshes_make_the_same_step(store):
    masking = Masking(Uniform(0.0, 1.0), weights="rows")
    metrics, model = after_a_step(store, masking, (1, 1, 1), 1)
    assert metrics["slot_overflow"] == (0, 0)
    assert metrics["loss"].count == pytest.approx(16, abs=1.01)
    for sizes, accumulate in (((1, 1, 1), 4), ((4, 1, 1), 2)):
        other, found = after_a_step(store, masking, sizes, accumulate)
        assert other["slot_overflow"] == (0, 0)
        assert other["loss"].total == pytest.approx(metrics["loss"].total, rel=1e-5)
        for x, y in zip(found, model, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-3, atol=2e-5)


def test_a_rate_that_is_one_number_pools_nothing(store):
    metrics, _ = after_a_step(store, Masking(0.4), (1, 1, 1), 1)
    assert "slot_overflow" not in metrics
    with jax.set_mesh(make_mesh(Mesh(1), jax.local_devices()[:1])):
        assert "place" not in mlm.mlm_task(store, DATA, Masking(0.4), MODEL, 16, 0).batch_at(0)
        rows = mlm.mlm_task(store, DATA, LAW, MODEL, 16, 0).batch_at(0)
    assert rows["place"].tolist() == list(range(16))
