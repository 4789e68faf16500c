"""Encoders and their heads. The only room that knows Flax; `Model` is the type of everything trained here."""

from flax import nnx

from jaxmlm.models.encoder import Encoder
from jaxmlm.models.encoder_config import EncoderConfig
from jaxmlm.models.heads import Classifier, MaskedLM, SpanPredictor, TokenClassifier, with_head
from jaxmlm.models.presets import parameters, preset

Model = nnx.Module

__all__ = [
    "Classifier",
    "Encoder",
    "EncoderConfig",
    "MaskedLM",
    "Model",
    "SpanPredictor",
    "TokenClassifier",
    "parameters",
    "preset",
    "with_head",
]
