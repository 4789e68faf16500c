"""The Python interface on texts that are longer than what the plain attention program is for."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlm.api import PretrainedModel
from jaxmlm.data import SentencePieceTokenizer, Tokenizer
from jaxmlm.data.buckets import by_length, edges_to
from jaxmlm.models import Encoder, EncoderConfig, with_head
from jaxmlm.synthetic import world

PLAIN = EncoderConfig(layers=2, width=128, heads=2, positions="rope", attention="plain")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return SentencePieceTokenizer.train(world.documents(0, 150), 300)


@pytest.mark.parametrize(("attention", "least", "most"), [("auto", 769, 1024), ("fused", 97, 128)])
def test_a_row_of_any_length_is_read_as_by_the_plain_program(attention, least, most, tokenizer):
    """Kernels want their rows laid out on the mesh, which those of this interface are not."""
    key = jax.random.key(0)
    models: list[Any] = [
        with_head("mlm", Encoder(replace(PLAIN, attention=kernel), tokenizer.size, key), 0, key)
        for kernel in ("plain", attention)
    ]
    loaded = PretrainedModel(models[1], tokenizer, "mlm", (), {})
    text = "the old baker lives by the river."
    while len(loaded._ids(text)) < least:
        text += " a fox ran home."
    ids = jnp.array([loaded._ids(text)], jnp.int32)
    assert least <= ids.shape[1] <= most - 3
    hidden = models[0].encoder(ids, jnp.ones_like(ids))
    assert np.allclose(loaded.embed([text, "the"])[0], hidden[0].mean(0), atol=1e-4)
    logits = models[0].logits(hidden, jnp.arange(ids.shape[1])[None])[0]
    assert np.allclose(loaded.logits(text), logits[:, : tokenizer.size], atol=1e-3)
    assert len(loaded.fill_mask(f"{text} [MASK]", top=2)[0]) == 2
    assert loaded.sample(f"{text} [MASK]").startswith("the old baker")


def test_long_rows_are_padded_and_batched_by_their_length():
    """Of 8,192 tokens 32 rows were 17 GiB of attention scores in an encoder of two heads."""
    assert next(edge for edge in edges_to(8192) if edge >= 600) == 768
    lengths = np.random.default_rng(0).integers(1, 8192, 200).tolist()
    batches = list(by_length(lengths))
    assert sorted(np.concatenate(batches).tolist()) == list(range(200))
    for rows in batches:
        longest = max(lengths[row] for row in rows)
        assert len(rows) == 1 or len(rows) * longest**2 <= 32 * 512**2
    assert [len(rows) for rows in by_length([9] * 70)] == [32, 32, 6] and not list(by_length([]))
