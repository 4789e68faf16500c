"""What is hidden and what is predicted: arrays in, arrays out. Knows no text, no mesh, no model."""

from jaxmlm.masking.masking import Masked, Masking, Replace, Vocab, mask_batch
from jaxmlm.masking.presets import PRESETS, preset
from jaxmlm.masking.schedule import Constant, Cosine, Linear, Piecewise, Schedule, Stairs
from jaxmlm.masking.units import PhraseUnits, SpanUnits, Tokens, TokenUnits, Units, WordUnits, needs_phrases

__all__ = [
    "PRESETS",
    "Constant",
    "Cosine",
    "Linear",
    "Masked",
    "Masking",
    "PhraseUnits",
    "Piecewise",
    "Replace",
    "Schedule",
    "SpanUnits",
    "Stairs",
    "TokenUnits",
    "Tokens",
    "Units",
    "Vocab",
    "WordUnits",
    "mask_batch",
    "needs_phrases",
    "preset",
]
