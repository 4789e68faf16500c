"""How many floating-point operations a model needs, counted by hand: compilers count the body of a loop once."""

from typing import NamedTuple

from jaxmlm.models.encoder_config import EncoderConfig


class Flops(NamedTuple):
    """Floating-point operations of one forward pass; a multiplication and an addition are two.

    Matrix products only, as for every MFU: the maps of the layers, attention (L x L scores and their use, counted
    whole or within the window), and the head at the predicted positions alone.
    """

    layers: float
    attention: float
    head: float
    again: float
    """Of `layers` and `attention` what remat full computes twice: all but the last map of a pre-norm block, whose
    outcome its gradient does not need."""

    @property
    def forward(self) -> float:
        """All of them."""
        return self.layers + self.attention + self.head

    @property
    def training(self) -> float:
        """Of forward and backward pass, each product having two in the backward pass; recomputation does not count."""
        return 3 * self.forward


def flops(config: EncoderConfig, vocab: int, rows: int, length: int, predictions: int) -> Flops:
    """Of `rows` rows of this length with so many predictions each.

    >>> base = EncoderConfig(layers=12, width=768, heads=12)
    >>> round(flops(base, 30_522, 8, 128, 52).training / 1e12, 1)
    0.6
    """
    c = config
    mlp = c.width * (c.mlp or 4 * c.width)
    maps = 4 * c.width * c.width + (3 if c.activation.startswith("geglu") else 2) * mlp
    last = mlp if c.norm == "pre" else 0
    seen = [length if c.window is None or i % c.global_every == 0 else _near(length, c.window) for i in range(c.layers)]
    each, attention = 2.0 * rows * length * c.layers, 4.0 * rows * length * c.width * sum(seen)
    head = 2.0 * rows * predictions * c.width * (c.width + vocab)
    return Flops(each * maps, attention, head, each * (maps - last) + attention)


def parameters(config: EncoderConfig, vocab: int) -> int:
    """How many numbers an encoder with a masked-LM head learns, padded rows of the vocabulary left out.

    >>> parameters(EncoderConfig(layers=24, width=1024, heads=16), 50_265) // 10**6
    355
    """
    c = config
    mlp, vector = c.mlp or 4 * c.width, c.width if c.biases else 0
    gate = 2 if c.activation.startswith("geglu") else 1
    block = 4 * c.width * c.width + (gate + 1) * c.width * mlp + 2 * c.width
    block += 4 * vector + vector + (gate * mlp if c.biases else 0) + 2 * vector
    norms = (c.width + vector) * (1 + c.embed_norm + (c.norm == "pre"))
    tables = vocab + c.token_types + (c.max_positions if c.positions == "learned" else 0)
    head = c.width * c.width + vector + vocab + (0 if c.tied else vocab * c.width)
    return c.layers * block + norms + tables * c.width + head


def _near(length: int, window: int) -> float:
    """How many tokens a token sees on average: itself and window // 2 on each side, fewer at the ends."""
    half = min(window // 2, length - 1)
    return 1 + 2 * half - half * (half + 1) / length
