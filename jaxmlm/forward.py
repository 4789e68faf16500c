"""The jitted forward passes of `api.py`, one for each of its methods."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmlm.models.heads import first_token, mean_token


@jax.jit
def called(model: Any, ids: Any, segments: Any, types: Any) -> Any:
    """The output of a model that is called with ids, segments and token types."""
    encoder = model.encoder
    return model(ids, segments, None, types if encoder.config.token_types > 1 else None)


@jax.jit
def logits(model: Any, ids: Any, segments: Any, places: Any) -> Any:
    """The logits [B, P, V] at these places [B, P] of each row."""
    return model.logits(model.hidden(ids, segments), jnp.asarray(places))


@jax.jit
def marked(model: Any, ids: Any, segments: Any, marks: Any) -> Any:
    """The logits [B, V] of each row at the one place that is marked in it."""
    return logits(model, ids, segments, jnp.argmax(marks, -1)[:, None])[:, 0]


@jax.jit
def mean(encoder: Any, ids: Any, segments: Any) -> Any:
    """The mean of the hidden states over the real tokens of each row."""
    return mean_token(encoder(ids, segments), segments)


@jax.jit
def first(encoder: Any, ids: Any, segments: Any) -> Any:
    """The hidden state of the first token of each row."""
    return first_token(encoder(ids, segments))
