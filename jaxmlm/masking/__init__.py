"""What is hidden and what is predicted: arrays in, arrays out. Knows no text, no mesh, no model."""

from jaxmlm.masking.masking import Masked, Masking, Replace, Tokens, Vocab, mask_batch, mask_rows
from jaxmlm.masking.phrases import Phrases
from jaxmlm.masking.presets import PRESETS, preset
from jaxmlm.masking.schedule import Constant, Cosine, Linear, Piecewise, Schedule, Stairs
from jaxmlm.masking.units import PhraseUnits, SpanUnits, TokenUnits, Units, WordUnits

__all__ = [
    "PRESETS",
    "Constant",
    "Cosine",
    "Linear",
    "Masked",
    "Masking",
    "PhraseUnits",
    "Phrases",
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
    "mask_rows",
    "preset",
]
