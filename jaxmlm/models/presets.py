"""Encoders by name: the paper's medium, base and large, the small ones of Turc et al. 2019 (arXiv 1908.08962), and
ModernBERT's base and large (Warner et al. 2024, arXiv 2412.13663)."""

from dataclasses import replace
from typing import Any

import jax

from jaxmlm.errors import InputError
from jaxmlm.models.encoder import Encoder
from jaxmlm.models.encoder_config import EncoderConfig
from jaxmlm.models.heads import MaskedLM
from jaxmlm.parallel import make_mesh
from jaxmlm.rng import make_key

SIZES: dict[str, tuple[int, int]] = {
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "base": (12, 768),
    "large": (24, 1024),
}
"""Layers and width; a head is 64 wide."""

MODERN: dict[str, tuple[int, int, int]] = {"modern-base": (22, 768, 1152), "modern-large": (28, 1024, 2624)}
"""Layers, width and width of the MLP."""


def preset(name: str, **options: Any) -> EncoderConfig:
    """The encoder of this size, with options changed.

    >>> preset("base").heads, preset("tiny", positions="rope").positions, preset("modern-base").window
    (12, 'rope', 128)
    """
    if name in MODERN:
        layers, width, mlp = MODERN[name]
        modern = EncoderConfig(
            layers=layers, width=width, heads=width // 64, mlp=mlp, first_norm=False, activation="geglu", biases=False,
            positions="rope", max_positions=8192, rope_base=160_000.0, window=128, local_rope_base=10_000.0,
            dropout=0.0, attention_dropout=0.0,
        )  # fmt: skip
        return replace(modern, **options)
    if name not in SIZES:
        raise InputError(f"no encoder size {name!r}: there are {', '.join((*SIZES, *MODERN))}")
    layers, width = SIZES[name]
    return replace(EncoderConfig(layers=layers, width=width, heads=width // 64), **options)


def parameters(config: EncoderConfig, vocab: int) -> int:
    """The parameters of a masked language model of this vocabulary, as published counts are made.

    Rows that only pad the vocabulary are not counted, nor is the unused norm of a first block without one.

    >>> parameters(preset("tiny"), 1000)
    608360
    """
    with jax.set_mesh(make_mesh(devices=jax.devices()[:1])):
        model = jax.eval_shape(lambda key: MaskedLM(Encoder(config, vocab, key), key), make_key(0))
    total = sum(leaf.size for leaf in jax.tree.leaves(model))
    padding = model.encoder.embedding.get_value().shape[0] - vocab
    unused = 0 if config.first_norm else config.width * (2 if config.biases else 1)
    return total - padding * (config.width * (1 if config.tied else 2) + 1) - unused
