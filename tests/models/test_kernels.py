"""The TPU's kernels for attention and for dropout, interpreted: what the plain path computes, and the same draws."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from jaxmlm.models import EncoderConfig
from jaxmlm.models.attention import _rotate, attend, rope_table, visibility
from jaxmlm.models.dropout_kernel import fits, kept
from jaxmlm.models.encoder import Encoder
from jaxmlm.models.fused_attention import fused_attention
from jaxmlm.models.kernel_sizes import fits_fused
from jaxmlm.models.layers import _draw
from jaxmlm.parallel import Mesh, all_reduce, keep_unreduced, make_mesh, place, spec
from jaxmlm.training.optimizers import decayed

VOCAB = 50
SMALL = EncoderConfig(layers=2, width=256, heads=4, mlp=32, init=0.1, max_positions=128, dropout=0.0)


def rows(length: int = 128, batch: int = 4) -> dict[str, np.ndarray]:
    """Rows of two documents and padding, and what each hidden state counts for."""
    random = np.random.default_rng(0)
    found = {
        "ids": random.integers(0, VOCAB, (batch, length), np.int32),
        "segments": np.ones((batch, length), np.int32),
        "weight": random.normal(size=(batch, length, 256)).astype(np.float32),
    }
    found["segments"][::2, 50:] = 2
    found["segments"][1:, length - 28 :] = 0
    found["weight"][found["segments"] == 0] = 0
    return found


def loss_and_gradients(config: EncoderConfig, sizes: tuple[int, int, int] = (1, 1, 1)) -> Any:
    """A weighted sum of hidden states, with dropout, and its gradients, as micro-batches add them up."""

    def loss(encoder: Encoder, rows: dict[str, Any]) -> jax.Array:
        return (encoder(rows["ids"], rows["segments"], jax.random.key(1)) * rows["weight"]).sum() / 100

    @jax.jit
    def both(encoder: Encoder, rows: dict[str, Any]) -> Any:
        marked = jax.tree.map(lambda x, matrix: keep_unreduced(x) if matrix else x, encoder, decayed(encoder))
        value, gradients = jax.value_and_grad(loss)(marked, rows)
        return value, jax.tree.map(all_reduce, gradients)

    mesh = make_mesh(Mesh(*sizes), jax.local_devices()[: int(np.prod(sizes))])
    with jax.set_mesh(mesh):
        encoder = jax.jit(lambda key: Encoder(config, VOCAB, key))(jax.random.key(0))
        return jax.device_get(both(encoder, place(rows(config.max_positions), mesh)))


@pytest.mark.parametrize(
    "sizes", [(1, 1, 1), pytest.param((2, 1, 2), marks=pytest.mark.slow("an interpreted kernel on four devices"))]
)
@pytest.mark.parametrize(
    "options",
    [
        {"attention_dropout": 0.1},
        {"attention_dropout": 0.1, "positions": "rope", "window": 32, "global_every": 2},
        pytest.param(
            {"attention_dropout": 0.0, "positions": "rope", "biases": False},
            marks=pytest.mark.slow("a third interpreted kernel"),
        ),
    ],
    ids=["dropout", "dropout, rope, window", "rope"],
)
def test_fused_attention_is_the_plain_one(options, sizes):
    """Hidden states and gradients, with the same attention probabilities dropped, on one device and on four."""
    config = replace(SMALL, **options)
    plain = jax.tree.leaves(loss_and_gradients(replace(config, attention="plain")))
    fused = jax.tree.leaves(loss_and_gradients(replace(config, attention="fused"), sizes))
    for a, b in zip(plain, fused, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(a).max()))


def in_long_rows(length: int, heads: int, options: dict[str, Any], dtype: str = "float32") -> list[list[np.ndarray]]:
    """What tokens that are not padding attend to, and the gradients of queries, keys and values: plain and fused."""
    given = {"rope": False, "window": None, "whole": False, "dropout": 0.1} | options
    key = jax.random.key(3)
    size = 128 // heads
    segments = jnp.asarray(rows(length)["segments"][:2])
    qkv = jax.random.normal(jax.random.key(0), (2, 3, length, 128)).astype(dtype)
    weight = jax.random.normal(jax.random.key(1), (2, length, 128)) * (segments > 0)[:, :, None]
    table = rope_table(length, size, 10000.0) if given["rope"] else None
    drop = round(given["dropout"] * 2**16)

    def plain(qkv: jax.Array) -> jax.Array:
        q, k, v = (qkv[:, i].reshape(2, length, heads, size) for i in range(3))
        if table is not None:
            q, k = _rotate(q, table[None]), _rotate(k, table[None])
        seen = visibility(segments, None if given["whole"] else given["window"])
        return attend(q, k, v, seen, given["dropout"], key).reshape(2, length, 128)

    def fused(qkv: jax.Array) -> jax.Array:
        whole = None if given["whole"] is None else jnp.array(given["whole"])
        return fused_attention(qkv, heads, segments, table, given["window"], whole, drop, key, interpret=True)

    found = []
    for attention in (plain, fused):
        out, gradient = jax.jit(jax.vjp, static_argnums=0)(attention, qkv)
        d_qkv = jax.jit(gradient)(weight.astype(dtype))[0]
        found.append([np.asarray(x, np.float32) for x in (out * (weight != 0), d_qkv)])
    return found


@pytest.mark.parametrize(
    ("length", "heads", "options"),
    [
        (384, 2, {"rope": True}),  # one tile, whose stripes are not a register wide
        (1024, 1, {"rope": True, "window": 100}),  # two tiles of keys
        pytest.param(1024, 1, {"window": 100, "whole": True}, marks=pytest.mark.slow("another interpreted kernel")),
        pytest.param(384, 2, {"window": 100, "whole": None}, marks=pytest.mark.slow("another interpreted kernel")),
        pytest.param(512, 4, {"dropout": 0.0}, marks=pytest.mark.slow("another interpreted kernel")),
    ],
)
def test_fused_attention_of_long_rows_is_the_plain_one(length, heads, options, no_mesh):
    for a, b in zip(*in_long_rows(length, heads, options), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow("two more interpreted kernels")
def test_fused_attention_of_long_rows_in_bfloat16_is_as_near_to_float32_as_the_plain_one(no_mesh):
    options = {"rope": True, "dropout": 0.0}
    exact = in_long_rows(384, 2, options)[0]
    plain, fused = in_long_rows(384, 2, options, "bfloat16")
    for a, b, true in zip(plain, fused, exact, strict=True):
        assert 1e-3 < np.linalg.norm(b - true) < 1.1 * np.linalg.norm(a - true)


@pytest.mark.slow("an interpreted kernel on four devices")
def test_fused_attention_of_long_rows_on_four_devices():
    """Each device drops its share of its rows' and heads' probabilities; through the encoder, where it is asked for."""
    config = replace(SMALL, max_positions=384, attention_dropout=0.1)
    plain = jax.tree.leaves(loss_and_gradients(replace(config, attention="plain")))
    fused = jax.tree.leaves(loss_and_gradients(replace(config, attention="fused"), (2, 1, 2)))
    for a, b in zip(plain, fused, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(a).max()))


def test_fused_attention_in_bfloat16_is_as_near_to_float32_as_the_plain_one():
    """By the mean of the relative errors of the gradients; the loss is a sum whose terms cancel, and tells nothing."""
    config = replace(SMALL, attention_dropout=0.1, positions="rope", dtype="bfloat16")
    exact, plain, fused = (
        jax.tree.leaves(loss_and_gradients(replace(config, **change))[1])
        for change in ({"attention": "plain", "dtype": "float32"}, {"attention": "plain"}, {"attention": "fused"})
    )

    def error(found: list[np.ndarray]) -> float:
        return np.mean([np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(found, exact, strict=True)])

    assert 1e-3 < error(fused) < 1.2 * error(plain) < 0.05


def test_fused_attention_is_plain_at_lengths_that_the_kernel_cannot():
    ids = jnp.ones((2, 20), jnp.int32)
    plain, fused = (
        Encoder(replace(SMALL, attention=kernel), VOCAB, jax.random.key(0))(ids, ids) for kernel in ("plain", "fused")
    )
    np.testing.assert_array_equal(plain, fused)


@pytest.mark.parametrize(
    ("length", "heads", "head_size", "dtype", "expected"),
    [
        (128, 16, 64, "bfloat16", True),
        (128, 2, 64, "float32", True),
        (256, 12, 64, "float32", True),
        (256, 6, 128, "bfloat16", True),
        (100, 16, 64, "bfloat16", False),
        (384, 12, 64, "bfloat16", True),
        (512, 12, 64, "bfloat16", True),
        (8192, 12, 64, "bfloat16", True),
        (8192, 12, 64, "float32", False),
        (1152, 12, 64, "bfloat16", False),
        (128, 1, 64, "bfloat16", False),
        (128, 16, 80, "bfloat16", False),
        (256, 16, 64, "float32", False),
    ],
)
def test_the_kernels_attend_in_rows_of_whole_registers(length, heads, head_size, dtype, expected):
    assert fits_fused(length, heads, head_size, dtype) == expected


@pytest.mark.parametrize("shape", [(3, 128, 384), (2, 16, 128), (2, 3, 256, 256)])
def test_the_kernel_drops_what_dropout_drops(shape):
    key = jax.random.key(5)
    x = jnp.zeros(shape)
    np.testing.assert_array_equal(kept(key, 6554, x, interpret=True) > 0, _draw(key, x) >= 6554)


@pytest.mark.slow("four devices")
def test_each_device_drops_its_share():
    """The rows and heads of a device are drawn by their place in the whole array."""
    x = np.zeros((4, 4, 128, 128), np.float32)
    expected = jax.device_get(_draw(jax.random.key(5), jnp.asarray(x)) >= 6554)
    mesh = make_mesh(Mesh(2, 1, 2), jax.local_devices()[:4])
    with jax.set_mesh(mesh):
        sharded = jax.device_put(x, NamedSharding(mesh, spec("batch", "heads", None, None)))
        mask = jax.jit(lambda x: kept(jax.random.key(5), 6554, x, interpret=True))(sharded)
    np.testing.assert_array_equal(jax.device_get(mask) > 0, expected)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 128, 768), True),
        ((2, 12, 512, 512), True),
        ((2, 20, 768), False),
        ((2, 128, 100), False),
        ((128, 128), False),
    ],
)
def test_the_kernel_draws_for_whole_registers(shape, expected):
    assert fits(jnp.zeros(shape)) == expected
