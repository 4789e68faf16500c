"""Heads: from hidden states to the logits of a task. Logits are float32 always."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmlm.models.attention import take_positions
from jaxmlm.models.encoder import Encoder
from jaxmlm.models.encoder_config import EncoderConfig
from jaxmlm.models.layers import Dense, LayerNorm, dropout, gelu, lift, product
from jaxmlm.parallel import gathered, out_spec, shard


class MaskedLM(nnx.Module):
    """Masked-language-model head: dense, GELU, layer norm, the embedding table (or one of its own), a bias."""

    def __init__(self, encoder: Encoder, key: Key[Array, ""]):
        c = encoder.config
        self.encoder = encoder
        self.dense = Dense(key, (c.width, c.width), ("embed", None), c.init, c.biases)
        self.norm = LayerNorm(c.width, c.norm_eps, c.biases)
        if not c.tied:
            shape = encoder.embedding[...].shape
            table_key = jax.random.fold_in(key, 1)
            sharding = out_spec("vocab", "embed")
            self.decoder = nnx.Param(c.init * jax.random.normal(table_key, shape, jnp.float32, out_sharding=sharding))
        self.bias = nnx.Param(jnp.zeros(encoder.embedding[...].shape[0], jnp.float32, out_sharding=out_spec("vocab")))

    def hidden(
        self,
        ids: Int[Array, "B L"],
        segments: Int[Array, "B L"],
        key: Key[Array, ""] | None = None,
        types: Int[Array, "B L"] | None = None,
    ) -> Float[Array, "B L D"]:
        """The encoder's hidden states."""
        return self.encoder(ids, segments, key, types)

    def logits_at(
        self, ids: Int[Array, "B L"], segments: Int[Array, "B L"], positions: Int[Array, "B P"]
    ) -> Float[Array, "B P V"]:
        """Logits at these positions, without dropout; the last block computes nothing else."""
        hidden = self.encoder.at_positions(ids, segments, positions)
        all_of_them = jnp.broadcast_to(jnp.arange(positions.shape[1])[None], positions.shape)
        return self.logits(hidden, all_of_them)

    def logits(self, hidden: Float[Array, "B L D"], positions: Int[Array, "B P"]) -> Float[Array, "B P V"]:
        """Logits over the (padded) vocabulary at these positions only; padded entries are minus infinity."""
        x = self.features(hidden, positions)
        return self.project(x, self.table(x.dtype))

    def features(self, hidden: Float[Array, "B L D"], positions: Int[Array, "B P"]) -> Float[Array, "B P D"]:
        """The last hidden layer at these positions, before the output projection: dense, GELU, layer norm."""
        x = take_positions(hidden, positions)
        return self.norm(gelu(self.encoder.config.activation, self.dense(x)))

    def table(self, dtype: jnp.dtype) -> Float[Array, "V D"]:
        """The output projection, as it is used: gathered along D."""
        table = self.encoder.embedding if self.encoder.config.tied else self.decoder
        return gathered(table[...], "vocab", "embed").astype(dtype)

    def project(self, x: Float[Array, "B P D"], table: Float[Array, "V D"]) -> Float[Array, "B P V"]:
        """The logits of `features` under `table`; padded entries are minus infinity."""
        out = out_spec("batch", None, "vocab")
        logits = product("BPD,VD->BPV", x, table, out, jnp.float32)
        real = shard(jnp.arange(table.shape[0]) < self.encoder.vocab, "vocab")
        # Chosen in the bias and not in the logits, whose gradient would then need one more pass.
        return logits + lift(jnp.where(real, self.bias[...], -jnp.inf), logits)

    def without(self, excluded: Bool[Array, " V"]) -> "MaskedLM":
        """The same model, which gives no probability to the excluded ids, nor to those past the end of `excluded`."""
        copy = jax.tree.map(lambda x: x, self)
        rows = self.bias[...].shape[0]
        mask = jnp.pad(excluded, (0, rows - len(excluded)), constant_values=True)
        copy.bias = nnx.Param(jnp.where(shard(mask, "vocab"), -jnp.inf, self.bias[...]))
        return copy


class PredictionHead(nnx.Module):
    """Dense, GELU, layer norm: what the task heads of a ModernBERT have before their last layer.

    An encoder whose first block has no norm (`first_norm` False) is a ModernBERT in the transformers format.
    """

    def __init__(self, config: EncoderConfig, key: Key[Array, ""]):
        self.config = config
        self.dense = Dense(key, (config.width, config.width), ("embed", None), config.init, config.biases)
        self.norm = LayerNorm(config.width, config.norm_eps, config.biases)

    def __call__(self, hidden: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """The features of hidden states."""
        return self.norm(gelu(self.config.activation, self.dense(hidden)))


def first_token(hidden: Float[Array, "B L D"]) -> Float[Array, "B D"]:
    """The hidden state of the first token of each row, in float32."""
    return hidden[:, 0].astype(jnp.float32)


def mean_token(hidden: Float[Array, "B L D"], segments: Int[Array, "B L"]) -> Float[Array, "B D"]:
    """The mean of the hidden states over the real tokens of each row, in float32; of a row without any zeros."""
    real = (segments > 0).astype(jnp.float32)[:, :, None]
    return (hidden.astype(jnp.float32) * real).sum(1) / jnp.maximum(real.sum(1), 1.0)


class Classifier(nnx.Module):
    """Sentence classification or regression (one class): dropout, dense, tanh, dropout, dense.

    Of a ModernBERT: `PredictionHead`, dropout, dense. They read the first token, or with `pool` mean the mean of all.
    """

    def __init__(self, encoder: Encoder, classes: int, key: Key[Array, ""]):
        c = encoder.config
        keys = jax.random.split(key)
        self.encoder = encoder
        self.dropout = c.dropout
        if c.first_norm:
            self.dense = Dense(keys[0], (c.width, c.width), ("embed", None), c.init)
        else:
            self.dense = PredictionHead(c, keys[0])
        self.out = Dense(keys[1], (c.width, classes), ("embed", None), c.init)

    def __call__(
        self,
        ids: Int[Array, "B L"],
        segments: Int[Array, "B L"],
        key: Key[Array, ""] | None = None,
        types: Int[Array, "B L"] | None = None,
    ) -> Float[Array, "B C"]:
        """Logits of the classes."""
        keys = [None] * 3 if key is None else jax.random.split(key, 3)
        hidden = self.encoder(ids, segments, keys[0], types)
        text = mean_token(hidden, segments) if self.encoder.config.pool == "mean" else first_token(hidden)
        return self.out(dropout(keys[2], self.dropout, self._features(keys[1], text)))

    def _features(self, key: Key[Array, ""] | None, text: Float[Array, "B D"]) -> Float[Array, "B D"]:
        if isinstance(self.dense, PredictionHead):
            return self.dense(text)
        return jnp.tanh(self.dense(dropout(key, self.dropout, text)))


class SpanPredictor(nnx.Module):
    """Extractive answers: start and end logits of every token; of a ModernBERT above a `PredictionHead` and dropout."""

    def __init__(self, encoder: Encoder, key: Key[Array, ""]):
        self.encoder = encoder
        self.dropout = encoder.config.dropout
        self.dense = None if encoder.config.first_norm else PredictionHead(encoder.config, jax.random.fold_in(key, 1))
        self.out = Dense(key, (encoder.config.width, 2), ("embed", None), encoder.config.init)

    def __call__(
        self,
        ids: Int[Array, "B L"],
        segments: Int[Array, "B L"],
        key: Key[Array, ""] | None = None,
        types: Int[Array, "B L"] | None = None,
    ) -> Float[Array, "B L C"]:
        """Logits [B, L, 2]: of the start and of the end of the answer."""
        if self.dense is None:
            return self.out(self.encoder(ids, segments, key, types).astype(jnp.float32))
        keys = [None] * 2 if key is None else jax.random.split(key)
        features = self.dense(self.encoder(ids, segments, keys[0], types).astype(jnp.float32))
        return self.out(dropout(keys[1], self.dropout, features))


class TokenClassifier(nnx.Module):
    """A class for every token: dropout, dense; of a ModernBERT a `PredictionHead` before them."""

    def __init__(self, encoder: Encoder, classes: int, key: Key[Array, ""]):
        self.encoder = encoder
        self.dropout = encoder.config.dropout
        self.dense = None if encoder.config.first_norm else PredictionHead(encoder.config, jax.random.fold_in(key, 1))
        self.out = Dense(key, (encoder.config.width, classes), ("embed", None), encoder.config.init)

    def __call__(
        self,
        ids: Int[Array, "B L"],
        segments: Int[Array, "B L"],
        key: Key[Array, ""] | None = None,
        types: Int[Array, "B L"] | None = None,
    ) -> Float[Array, "B L C"]:
        """Logits of every token's classes."""
        keys = [None] * 2 if key is None else jax.random.split(key)
        hidden = self.encoder(ids, segments, keys[0], types).astype(jnp.float32)
        features = hidden if self.dense is None else self.dense(hidden)
        return self.out(dropout(keys[1], self.dropout, features))


def with_head(kind: str, encoder: Encoder, classes: int, key: Key[Array, ""]) -> nnx.Module:
    """The encoder under a new head of this kind: "mlm", "classify", "answer" or "tokens"; "encoder": itself."""
    heads = {
        "encoder": lambda: encoder,
        "mlm": lambda: MaskedLM(encoder, key),
        "classify": lambda: Classifier(encoder, classes, key),
        "answer": lambda: SpanPredictor(encoder, key),
        "tokens": lambda: TokenClassifier(encoder, classes, key),
    }
    return heads[kind]()
