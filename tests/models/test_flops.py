"""Parameters and FLOPs, beside the parameter trees of all presets and what XLA counts."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from jaxmlm.models import Encoder, EncoderConfig, MaskedLM, count_parameters, preset
from jaxmlm.models.flops import flops
from jaxmlm.models.presets import MODERN, SIZES

PUBLISHED = {
    "tiny": (2, 128, 4.4),
    "mini": (4, 256, 11.2),
    "small": (4, 512, 28.8),
    "medium": (8, 512, 41.4),
    "base": (12, 768, 110.1),
    "large": (24, 1024, 335.1),
    "modern-base": (22, 768, 149.7),
    "modern-large": (28, 1024, 395.9),
}
"""Layers, width and millions of parameters: Turc et al. 2019, table 1, Devlin et al. 2019; the files of ModernBERT."""


def tree_of(config: EncoderConfig, vocab: int) -> MaskedLM:
    return jax.eval_shape(lambda key: MaskedLM(Encoder(config, vocab, key), key), jax.random.key(0))


@pytest.mark.parametrize("name", [*SIZES, *MODERN])
def test_the_count_is_that_of_the_parameter_tree(name):
    config = preset(name)
    total = sum(leaf.size for leaf in jax.tree.leaves(tree_of(config, 1024)))
    unused = 0 if config.first_norm else config.width  # the norm of the first block, a scale
    assert count_parameters(config, 1024) == total - unused
    # A vocabulary that is padded counts each of its own rows: embedding and output bias.
    assert count_parameters(config, 1000) == count_parameters(config, 1024) - 24 * (config.width + 1)


@pytest.mark.parametrize("name", [*SIZES, *MODERN])
def test_the_count_is_about_the_published_one(name):
    layers, width, millions = PUBLISHED[name]
    config = preset(name, token_types=0 if name in MODERN else 2)
    assert (config.layers, config.width) == (layers, width)
    assert count_parameters(config, 50_368 if name in MODERN else 30_522) / 1e6 == pytest.approx(millions, rel=0.01)


SHAPES = {
    "pre": preset("mini", layers=2),
    "post, own table": preset("mini", layers=2, norm="post", tied=False),
    "geglu": replace(preset("modern-base"), layers=2, width=256, heads=4, mlp=384, window=None),
}


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_flops_are_those_that_xla_counts(config):
    """XLA counts activations, norms and softmax too: some per cent more, never less."""
    vocab, rows, length, predicted = 1024, 2, 64, 16
    model = tree_of(config, vocab)
    ids = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    positions = jax.ShapeDtypeStruct((rows, predicted), jnp.int32)
    forward = jax.jit(lambda model, ids, positions: model.logits(model.hidden(ids, ids), positions))
    counted = forward.lower(model, ids, positions).cost_analysis()["flops"]
    assert 1.0 < counted / flops(config, vocab, rows, length, predicted).forward < 1.06
