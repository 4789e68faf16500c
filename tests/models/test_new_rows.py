"""Rows for new tokens: the mean of their pieces' rows, and all else the same bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlm.models import Encoder, EncoderConfig, MaskedLM
from jaxmlm.models.new_rows import with_new_rows

PARTS = [[5, 6, 7], [8], [9, 9]]


def made(vocab: int, **changes) -> MaskedLM:
    config = EncoderConfig(layers=1, width=16, heads=2, positions="rope", **changes)
    key = jax.random.key(0)
    model = MaskedLM(Encoder(config, vocab, key), key)
    rows = model.bias[...].shape[0]
    model.bias = type(model.bias)(jnp.arange(rows, dtype=jnp.float32) / rows)
    return model


@pytest.mark.parametrize(("vocab", "tied"), [(100, True), (127, False)])
def test_a_new_row_is_the_mean_of_its_pieces_and_old_logits_are_the_same_bits(vocab, tied):
    model = made(vocab, tied=tied)
    more = with_new_rows(model, vocab, PARTS)
    assert (more.encoder.vocab, model.encoder.vocab) == (vocab + 3, vocab)
    tables = [(model.encoder.embedding, more.encoder.embedding), (model.bias, more.bias)]
    for old, new in [*tables, *([] if tied else [(model.decoder, more.decoder)])]:
        assert new[...].shape[0] % 128 == 0
        assert np.array_equal(new[...][:vocab], old[...][:vocab])
        for i, part in enumerate(PARTS):
            np.testing.assert_allclose(new[...][vocab + i], np.mean([old[...][j] for j in part], 0), rtol=1e-6)
    ids = jnp.arange(64).reshape(2, 32) % 90 + 5
    positions = jnp.tile(jnp.arange(4), (2, 1))
    then, now = (m.logits_at(ids, jnp.ones_like(ids), positions) for m in (model, more))
    assert np.array_equal(then[..., :vocab], now[..., :vocab]) and np.isfinite(now[..., : vocab + 3]).all()
    assert np.isinf(now[..., vocab + 3 :]).all()


def test_a_model_with_rows_that_no_token_had_uses_them():
    """As published encoders have, whose tables are padded."""
    more = with_new_rows(made(120), 110, PARTS)
    assert more.encoder.vocab == 120
    table = more.encoder.embedding[...]
    assert np.array_equal(table[111], table[8]) and np.array_equal(table[:110], made(120).encoder.embedding[...][:110])


@pytest.mark.mesh(data=1, fsdp=2, tensor=2)
def test_on_a_mesh_the_rows_are_the_same_and_lie_as_before():
    model = made(127)
    more = with_new_rows(model, 127, PARTS)
    before, after = model.encoder.embedding[...], more.encoder.embedding[...]
    assert after.sharding.spec == before.sharding.spec and tuple(more.bias[...].sharding.spec) == ("tensor",)
    assert np.array_equal(np.asarray(after)[128], np.asarray(before)[8])
