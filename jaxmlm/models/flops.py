"""What a model costs: its parameters, and the floating-point operations of its matrix products.

The operations are counted by hand, as compilers count the body of a loop once; tests compare them with traced and
compiled models.
"""

from functools import lru_cache
from typing import NamedTuple

import jax

from jaxmlm.models.encoder import Encoder
from jaxmlm.models.encoder_config import EncoderConfig
from jaxmlm.models.heads import MaskedLM
from jaxmlm.rng import make_key


@lru_cache(maxsize=256)
def count_parameters(config: EncoderConfig, vocab: int) -> int:
    """The parameters of a masked language model, as published counts are made.

    Rows that only pad the vocabulary are not counted, nor is the unused norm of a first block without one.

    Args:
        config: the encoder.
        vocab: the size of the vocabulary.

    >>> count_parameters(EncoderConfig(layers=24, width=1024, heads=16), 50_265) // 10**6
    355
    """
    model = jax.eval_shape(lambda key: MaskedLM(Encoder(config, vocab, key), key), make_key(0))
    total = sum(leaf.size for leaf in jax.tree.leaves(model))
    padding = model.encoder.embedding.get_value().shape[0] - vocab
    of_a_row = config.width * (1 if config.tied else 2) + 1  # embedding, output projection, output bias
    unused = 0 if config.first_norm else config.width * (2 if config.biases else 1)
    return total - padding * of_a_row - unused


class Flops(NamedTuple):
    """Floating-point operations of one forward pass; a multiplication and an addition are two.

    Matrix products only, as for every MFU.

    Attributes:
        layers: the linear maps of the layers.
        attention: attention scores and their use: L x L, or as many as are within the window.
        head: the head, at the predicted positions alone.
        recomputed: of `layers` and `attention` what remat full computes twice: all but the last map of a pre-norm
            block, whose output its gradient does not need.

    """

    layers: float
    attention: float
    head: float
    recomputed: float

    @property
    def forward(self) -> float:
        """All of them."""
        return self.layers + self.attention + self.head

    @property
    def training(self) -> float:
        """Of forward and backward pass, each product having two in the backward pass; recomputation does not count."""
        return 3 * self.forward


def flops(config: EncoderConfig, vocab: int, rows: int, length: int, predictions: int) -> Flops:
    """The operations of a forward pass.

    Args:
        config: the encoder.
        vocab: the size of the vocabulary.
        rows: rows of tokens.
        length: tokens of a row.
        predictions: positions of a row at which the masked-LM head is computed; 0: no such head.

    >>> base = EncoderConfig(layers=12, width=768, heads=12)
    >>> round(flops(base, 30_522, 8, 128, 52).training / 1e12, 1)
    0.6
    """
    width = config.width
    mlp = width * (config.mlp or 4 * width)
    is_gated = config.activation.startswith("geglu")
    maps = 4 * width * width + (3 if is_gated else 2) * mlp
    last_map = mlp if config.norm == "pre" else 0
    seen = 0.0  # tokens that a token attends to, over all layers
    for layer in range(config.layers):
        is_global = config.window is None or layer % config.global_every == 0
        seen += length if is_global else _seen_within(config.window or length, length)
    of_maps = 2.0 * rows * length * config.layers
    attention = 4.0 * rows * length * width * seen
    return Flops(
        layers=of_maps * maps,
        attention=attention,
        head=2.0 * rows * predictions * width * (width + vocab),
        recomputed=of_maps * (maps - last_map) + attention,
    )


def _seen_within(window: int, length: int) -> float:
    """How many tokens a token sees on average: itself and window // 2 on each side, fewer at the ends."""
    half = min(window // 2, length - 1)
    return 1 + 2 * half - half * (half + 1) / length
