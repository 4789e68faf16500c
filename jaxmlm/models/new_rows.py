"""A masked language model with rows for more tokens than it was trained with."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from jaxmlm.models.heads import MaskedLM
from jaxmlm.parallel import shard

ROWS = 128
"""Tables have a multiple of so many rows: see `Encoder`."""


def with_new_rows(model: MaskedLM, first: int, parts: Sequence[Sequence[int]]) -> MaskedLM:
    """Give new tokens the mean of the rows of the tokens that they were cut into, in each table and in the bias.

    All else is the model's own, so a text without new tokens has the logits that it had.

    Args:
        model: the model.
        first: id of the first new token; the model may have rows from there on that no token had.
        parts: for each new token, the ids that it was cut into.

    Returns:
        A model with at least `first + len(parts)` token ids.

    >>> from jaxmlm.models import Encoder, EncoderConfig
    >>> key = jax.random.key(0)
    >>> model = MaskedLM(Encoder(EncoderConfig(layers=1, width=8), 100, key), key)
    >>> more = with_new_rows(model, 100, [[5, 6]])
    >>> table = more.encoder.embedding[...]
    >>> more.encoder.vocab, bool((table[100] == (table[5] + table[6]) / 2).all())
    (101, True)

    """
    vocab = max(model.encoder.vocab, first + len(parts))
    rows = -(-vocab // ROWS) * ROWS
    longest = max(map(len, parts), default=0)
    ids = np.array([[*part, *[0] * (longest - len(part))] for part in parts], np.int32).reshape(len(parts), longest)
    weights = np.array([[1 / len(part)] * len(part) + [0.0] * (longest - len(part)) for part in parts], np.float32)

    def grown(table: Array, *logical: str | None) -> nnx.Param:
        whole = shard(table, *(None,) * table.ndim)
        new = jnp.zeros((len(parts), *table.shape[1:]), jnp.float32)
        for part, weight in zip(ids.T, weights.T, strict=True):  # not all at once: a copy of the rows of every part
            new = new + weight.reshape(-1, *(1,) * (table.ndim - 1)) * whole[part]
        more = jnp.pad(whole, ((0, max(rows - len(whole), 0)), *((0, 0),) * (table.ndim - 1)))
        return nnx.Param(shard(more.at[first : first + len(parts)].set(new.astype(table.dtype)), *logical))

    copy = jax.tree.map(lambda x: x, model)
    copy.encoder.vocab = vocab
    copy.encoder.embedding = grown(model.encoder.embedding[...], "vocab", "embed")
    if not model.encoder.config.tied:
        copy.decoder = grown(model.decoder[...], "vocab", "embed")
    copy.bias = grown(model.bias[...], "vocab")
    return copy
