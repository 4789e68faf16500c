"""Encoders by name: the paper's medium, base and large, the small ones of Turc et al. 2019 (arXiv 1908.08962), and
ModernBERT's base and large (Warner et al. 2024, arXiv 2412.13663)."""

from dataclasses import replace
from typing import Any

from jaxmlm.errors import InputError
from jaxmlm.models.encoder_config import EncoderConfig

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

    Args:
        name: a key of `SIZES` or `MODERN`.
        options: fields of `EncoderConfig` that differ.

    Raises:
        InputError: there is no such size.

    >>> preset("base").heads, preset("tiny", positions="rope").positions, preset("modern-base").window
    (12, 'rope', 128)
    """
    if name in MODERN:
        layers, width, mlp = MODERN[name]
        modern = EncoderConfig(
            layers=layers,
            width=width,
            heads=width // 64,
            mlp=mlp,
            first_norm=False,
            activation="geglu",
            biases=False,
            positions="rope",
            max_positions=8192,
            rope_base=160_000.0,
            window=128,
            local_rope_base=10_000.0,
            dropout=0.0,
            attention_dropout=0.0,
        )
        return replace(modern, **options)
    if name not in SIZES:
        raise InputError(f"no encoder size {name!r}: there are {', '.join((*SIZES, *MODERN))}")
    layers, width = SIZES[name]
    return replace(EncoderConfig(layers=layers, width=width, heads=width // 64), **options)
