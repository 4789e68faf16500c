"""Encoders and their heads. The only room that knows Flax; `Model` is the type of everything trained here."""

from flax import nnx

from jaxmlm.models.encoder import Encoder
from jaxmlm.models.encoder_config import EncoderConfig
from jaxmlm.models.flops import count_parameters
from jaxmlm.models.heads import Classifier, MaskedLM, SpanPredictor, TokenClassifier, with_head
from jaxmlm.models.presets import preset

Model = nnx.Module

__all__ = [
    "Classifier",
    "Encoder",
    "EncoderConfig",
    "MaskedLM",
    "Model",
    "SpanPredictor",
    "TokenClassifier",
    "count_parameters",
    "preset",
    "with_head",
]
