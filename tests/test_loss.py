"""The masked-LM loss: in chunks, on every mesh, in bfloat16, in parts: one number and one gradient."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlm.masking import Masked
from jaxmlm.models import Encoder, EncoderConfig, MaskedLM
from jaxmlm.parallel import Mesh, make_mesh, place
from jaxmlm.tasks import mlm

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
        layers=1, width=32, heads=4, init=0.2, dropout=drop, attention_dropout=drop, most_positions=16, **options
    )
    mesh = make_mesh(Mesh(*sizes), jax.devices()[: int(np.prod(sizes))])
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
    found, compiled = judged(chunk=chunk)
    assert_same(found, whole[0])
    assert [f"f32[8,{n},384]" in compiled.as_text() for n in (7, 3)] == [chunk == 100, chunk == 3]


def test_logits_that_would_not_fit_are_made_in_chunks(whole, monkeypatch):
    monkeypatch.setattr(mlm, "LOGITS_BYTES", 8 * 4 * 384 * 4)
    found, compiled = judged()
    assert_same(found, whole[0])
    assert "f32[8,4,384]" in compiled.as_text() and "f32[8,7,384]" not in compiled.as_text()


@pytest.mark.parametrize(
    ("sizes", "options"),
    [((2, 1, 1), {}), ((1, 2, 2), {"chunk": 3, "remat": "dots"})],
    ids=str,
)
def test_every_mesh_gives_one_loss_and_gradient(whole, sizes, options):
    """Dropout included: it is drawn for the entry, not for the device."""
    assert_same(judged(sizes, **options)[0], whole[0])


def test_bfloat16_is_for_the_products_alone(whole):
    found, _ = judged(dtype="bfloat16")
    assert found[0] == pytest.approx(whole[0][0], rel=0.02) and found[0] != whole[0][0]
