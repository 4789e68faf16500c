"""Encoders by name: the paper's medium, base and large, and the small ones of Turc et al. 2019 (arXiv 1908.08962)."""

from dataclasses import replace
from typing import Any

from jaxmlm.errors import InputError
from jaxmlm.models.encoder import EncoderConfig

SIZES: dict[str, tuple[int, int]] = {
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "base": (12, 768),
    "large": (24, 1024),
}
"""Layers and width; a head is 64 wide."""


def preset(name: str, **options: Any) -> EncoderConfig:
    """The encoder of this size, with options changed.

    >>> preset("base").heads, preset("tiny", positions="rope").positions
    (12, 'rope')
    """
    if name not in SIZES:
        raise InputError(f"no encoder size {name!r}: there are {', '.join(SIZES)}")
    layers, width = SIZES[name]
    return replace(EncoderConfig(layers=layers, width=width, heads=width // 64), **options)
