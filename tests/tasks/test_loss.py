"""The masked-LM loss: in chunks, on every mesh, in bfloat16, in parts: one number and one gradient."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmlm.masking import Masked
from jaxmlm.models import Encoder, EncoderConfig, MaskedLM
from jaxmlm.parallel import Mesh, make_mesh, place
from jaxmlm.tasks import mlm
from jaxmlm.tools.hlo import read
from jaxmlm.training import Mean, Task
from jaxmlm.training.step import init_state, make_step

RNG = np.random.default_rng(0)
BATCH = {
    "inputs": RNG.integers(0, 300, (8, 16)).astype(np.int32),
    "positions": np.sort(RNG.permuted(np.tile(np.arange(16), (8, 1)), axis=1)[:, :7], axis=1).astype(np.int32),
    "targets": RNG.integers(0, 300, (8, 7)).astype(np.int32),
    "weights": (RNG.random((8, 7)) < 0.8).astype(np.float32),
}


def judged(sizes: tuple[int, int, int] = (1, 1, 1), drop: float = 0.1, **options: Any) -> tuple[Any, str]:
    """(sums, hits, gradient) of the loss of a small model on a mesh, on the host, and the program."""
    config = EncoderConfig(
        layers=1, width=32, heads=4, init=0.2, dropout=drop, attention_dropout=drop, max_positions=16, **options
    )
    mesh = make_mesh(Mesh(*sizes), jax.local_devices()[: int(np.prod(sizes))])
    with jax.set_mesh(mesh):
        model = jax.jit(lambda key: MaskedLM(Encoder(config, 300, key), key))(jax.random.key(1))

        def total(model: Any, batch: Any) -> Any:
            nats, right = mlm.predictions(model, Masked(**batch), None, jax.random.key(2))
            return nats.sum(), right

        compiled = jax.jit(jax.value_and_grad(total, has_aux=True)).lower(model, place(BATCH, mesh)).compile()
        (nats, right), grads = compiled(model, place(BATCH, mesh))
        assert all(
            g.sharding == p.sharding and g.dtype == p.dtype == jnp.float32
            for g, p in zip(jax.tree.leaves(grads), jax.tree.leaves(model), strict=True)
        )
        assert nats.dtype == jnp.float32
        return jax.device_get((nats, right, jax.tree.leaves(grads))), compiled


def assert_same(a: Any, b: Any) -> None:
    assert a[0] == pytest.approx(b[0], rel=1e-5)
    np.testing.assert_array_equal(a[1], b[1])
    for x, y in zip(a[2], b[2], strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=2e-5)


@pytest.fixture(scope="module")
def whole():
    """On one device, all logits at once."""
    return judged()


@pytest.mark.parametrize("chunk", [3, 100])
def test_chunks_are_exact(whole, chunk):
    """Also when the last chunk is not full."""
    found, compiled = judged(logits_chunk=chunk)
    assert_same(found, whole[0])
    assert [f"f32[8,{n},384]" in compiled.as_text() for n in (7, 3)] == [chunk == 100, chunk == 3]


def test_logits_that_would_not_fit_are_made_in_chunks(whole, monkeypatch):
    monkeypatch.setattr(mlm, "LOGITS_BYTES", 8 * 4 * 384 * 4)
    found, compiled = judged()
    assert_same(found, whole[0])
    assert "f32[8,4,384]" in compiled.as_text() and "f32[8,7,384]" not in compiled.as_text()


@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ((2, 1, 1), {}),
        pytest.param(
            (1, 2, 2), {"logits_chunk": 3, "remat": "dots"}, marks=pytest.mark.slow("compiles for four devices")
        ),
    ],
    ids=str,
)
def test_every_mesh_gives_one_loss_and_gradient(whole, sizes, options):
    """Dropout included: it is drawn for the entry, not for the device."""
    assert_same(judged(sizes, **options)[0], whole[0])


def test_bfloat16_is_for_the_products_alone(whole):
    found, _ = judged(dtype="bfloat16")
    assert found[0] == pytest.approx(whole[0][0], rel=0.02) and found[0] != whole[0][0]


def after_a_step(sizes: tuple[int, int, int], parts: int, **options: Any) -> tuple[list[Any], list[Any]]:
    """The parameters after a step of plain descent in so many parts, and the collectives of its program."""
    config = EncoderConfig(
        layers=1, width=32, heads=4, init=0.2, dropout=0.0, attention_dropout=0.0, max_positions=16, **options
    )
    mesh = make_mesh(Mesh(*sizes), jax.local_devices()[: int(np.prod(sizes))])

    def loss(model: Any, batch: Any, key: jax.Array, step: jax.Array) -> tuple[Mean, dict[str, Mean]]:
        nats, _ = mlm.predictions(model, Masked(**batch), None, None)
        return Mean(nats.sum(), batch["weights"].sum()), {}

    init = jax.jit(lambda key: MaskedLM(Encoder(config, 300, key), key))
    task, optimizer = Task(init, loss, lambda step: BATCH, {}, 1), optax.sgd(1.0)
    with jax.set_mesh(mesh):
        key = jax.random.key(1)
        state, rows = init_state(task, optimizer, key), place(BATCH, mesh)
        compiled = make_step(task, optimizer, parts).lower(state, rows, key).compile()
        state, _ = compiled(state, rows, key)
        return jax.device_get(jax.tree.leaves(state.model)), read(compiled.as_text()).collectives()


OTHER = {"positions": "rope", "activation": "geglu", "tied": False, "token_types": 2, "window": 4, "remat": "dots"}


@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ((4, 1, 2), {"logits_chunk": 3}),
        pytest.param((2, 2, 2), OTHER, marks=pytest.mark.slow("compiles for eight devices")),
    ],
    ids=str,
)
def test_parts_of_a_batch_give_its_gradient_and_send_it_once(sizes, options):
    """Where four devices share the rows: all but what biases and layer norms get goes between them once."""
    whole, _ = after_a_step((1, 1, 1), 1, **options)
    parts, collectives = after_a_step(sizes, 2, **options)
    for x, y in zip(parts, whole, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=2e-5)
    if sizes == (4, 1, 2):
        over_rows = [one for one in collectives if one.group == 4]
        once = sum(one.bytes for one in over_rows if one.times == 1)
        assert once > sum(x.nbytes for x in whole) / 2
        assert 0 < sum(one.bytes for one in over_rows if one.times > 1) < 0.2 * once


def test_the_table_of_the_vocabulary_is_added_up_once_not_for_each_chunk():
    _, compiled = judged((4, 1, 1), logits_chunk=1)
    sizes = [(one.times, one.bytes) for one in read(compiled.as_text()).collectives()]
    assert max(times for times, _ in sizes) == 7  # the bias
    assert sum(size for times, size in sizes if times > 1) < 0.1 * sum(size for times, size in sizes if times == 1)
