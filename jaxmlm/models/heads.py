"""Heads: from hidden states to the logits of a task. Logits are float32 always."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from jaxmlm.models.encoder import Encoder
from jaxmlm.models.layers import Dense, LayerNorm, dropout, lift
from jaxmlm.parallel import gathered, spec


class MaskedLM(nnx.Module):
    """Masked-language-model head of RoBERTa: dense, GELU, layer norm, the tied embedding table, a bias."""

    def __init__(self, encoder: Encoder, key: Key[Array, ""]):
        c = encoder.config
        self.encoder = encoder
        self.dense = Dense(key, (c.width, c.width), ("embed", None), c.init)
        self.norm = LayerNorm(c.width, c.epsilon)
        self.bias = nnx.Param(jnp.zeros(encoder.embedding[...].shape[0], out_sharding=spec("vocab")))

    def hidden(
        self, ids: Int[Array, "B L"], segments: Int[Array, "B L"], key: Key[Array, ""] | None = None
    ) -> Float[Array, "B L D"]:
        """The encoder's hidden states."""
        return self.encoder(ids, segments, key)

    def logits(self, hidden: Float[Array, "B L D"], positions: Int[Array, "B P"]) -> Float[Array, "B P V"]:
        """Logits over the (padded) vocabulary at these positions only; padded entries are minus infinity."""
        at = jnp.take_along_axis(hidden, positions[:, :, None], axis=1)
        x = self.norm(jax.nn.gelu(self.dense(at), approximate=False))
        table = gathered(self.encoder.embedding[...], "vocab", "embed").astype(x.dtype)
        out = spec("batch", None, "vocab")
        logits = jnp.einsum("BPD,VD->BPV", x, table, out_sharding=out, preferred_element_type=jnp.float32)
        real = jax.sharding.reshard(jnp.arange(table.shape[0]) < self.encoder.vocab, spec("vocab"))
        return jnp.where(real[None, None], logits + lift(self.bias[...], logits), -jnp.inf)


class Classifier(nnx.Module):
    """Sentence classification or regression (one class) from the first token: dropout, dense, tanh, dropout, dense."""

    def __init__(self, encoder: Encoder, classes: int, key: Key[Array, ""]):
        c, keys = encoder.config, jax.random.split(key)
        self.encoder, self.drop = encoder, c.dropout
        self.dense = Dense(keys[0], (c.width, c.width), ("embed", None), c.init)
        self.out = Dense(keys[1], (c.width, classes), ("embed", None), c.init)

    def __call__(
        self, ids: Int[Array, "B L"], segments: Int[Array, "B L"], key: Key[Array, ""] | None = None
    ) -> Float[Array, "B C"]:
        """Logits of the classes."""
        keys = [None] * 3 if key is None else jax.random.split(key, 3)
        first = self.encoder(ids, segments, keys[0])[:, 0].astype(jnp.float32)
        x = jnp.tanh(self.dense(dropout(keys[1], self.drop, first)))
        return self.out(dropout(keys[2], self.drop, x))


class SpanPredictor(nnx.Module):
    """Extractive answers: start and end logits of every token."""

    def __init__(self, encoder: Encoder, key: Key[Array, ""]):
        self.encoder = encoder
        self.out = Dense(key, (encoder.config.width, 2), ("embed", None), encoder.config.init)

    def __call__(
        self, ids: Int[Array, "B L"], segments: Int[Array, "B L"], key: Key[Array, ""] | None = None
    ) -> Float[Array, "B L C"]:
        """Logits [B, L, 2]: of the start and of the end of the answer."""
        return self.out(self.encoder(ids, segments, key).astype(jnp.float32))
