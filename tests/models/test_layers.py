"""Dropout: drawn for the entry and not for the device, at the rate that was asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlm.models.layers import dropout
from jaxmlm.parallel import Mesh, make_mesh, spec


def kept(key: int, rate: float, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(jax.jit(lambda k, x: dropout(k, rate, x))(jax.random.key(key), jnp.ones(shape)))


def test_what_is_kept_is_a_fair_draw_at_the_rate():
    found = kept(0, 0.1, (64, 32, 63))  # a last axis that four does not divide
    p = 1 - 6554 / 2**16
    assert set(np.unique(found)) == {0, np.float32(1 / p)}
    hit = (found > 0).astype(float)
    sigma = np.sqrt(p * (1 - p) / hit.size)
    assert abs(hit.mean() - p) < 4 * sigma
    for axis in range(3):  # no place is drawn more often than another
        other = tuple(a for a in range(3) if a != axis)
        spread = np.sqrt(p * (1 - p) * hit.shape[axis] / hit.size)
        assert abs(hit.mean(other) - p).max() < 5 * spread
    for apart in (1, 16, 32, 48):  # nor with its neighbour, nor with those of the same block
        together = np.mean((hit[..., apart:] - p) * (hit[..., :-apart] - p))
        assert abs(together) < 5 * p * (1 - p) / np.sqrt(hit[..., apart:].size)
    rows = (hit - p).reshape(64, -1) @ (hit - p).reshape(64, -1).T / hit[0].size
    assert abs(rows - np.diag(np.diag(rows))).max() < 6 * p * (1 - p) / np.sqrt(hit[0].size)


def test_keys_differ_and_rate_zero_or_no_key_is_nothing():
    a, b = (kept(key, 0.5, (8, 64)) > 0 for key in (1, 2))
    assert 0.3 < (a == b).mean() < 0.7
    x = jnp.ones((4, 4))
    assert dropout(None, 0.5, x) is x and dropout(jax.random.key(0), 0.0, x) is x


@pytest.mark.parametrize("shape", [(8, 12), (8, 4, 6, 16)], ids=str)
def test_every_mesh_draws_the_same(shape):
    axes = ("batch", "heads" if len(shape) == 4 else None, *(None,) * (len(shape) - 2))
    found = []
    for sizes in ((1, 1, 1), (2, 2, 2)):
        mesh = make_mesh(Mesh(*sizes), jax.local_devices()[: int(np.prod(sizes))])
        with jax.set_mesh(mesh):
            x = jax.device_put(np.ones(shape, np.float32), jax.NamedSharding(mesh, spec(*axes)))
            y = jax.jit(lambda x: dropout(jax.random.key(3), 0.4, x))(x)
            assert y.sharding.spec == x.sharding.spec
            found.append(np.asarray(y))
    np.testing.assert_array_equal(*found)
