"""What is selected and what is predicted: arrays in, arrays out. Knows no text, no mesh, no model."""

from jaxmlm.masking import laws
from jaxmlm.masking.batch import mask_batch
from jaxmlm.masking.laws import Choice, Law, LogUniform, Normal, Uniform
from jaxmlm.masking.masking import Masked, Masking
from jaxmlm.masking.presets import PRESETS, preset
from jaxmlm.masking.replacement import Replace, Vocab
from jaxmlm.masking.schedule import Constant, CosineDecay, LinearDecay, Piecewise, Schedule, Stairs
from jaxmlm.masking.units import PhraseUnits, SpanUnits, Tokens, TokenUnits, Units, WordUnits, needs_phrases

__all__ = [
    "PRESETS",
    "Choice",
    "Constant",
    "CosineDecay",
    "Law",
    "LinearDecay",
    "LogUniform",
    "Masked",
    "Masking",
    "Normal",
    "PhraseUnits",
    "Piecewise",
    "Replace",
    "Schedule",
    "SpanUnits",
    "Stairs",
    "TokenUnits",
    "Tokens",
    "Uniform",
    "Units",
    "Vocab",
    "WordUnits",
    "laws",
    "mask_batch",
    "needs_phrases",
    "preset",
]
