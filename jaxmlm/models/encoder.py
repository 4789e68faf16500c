"""The encoder: RoBERTa with pre-layer-norm and an embedding layer-norm by default, the paper's architecture."""

from dataclasses import dataclass
from typing import Literal

import jax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmlm.errors import InputError
from jaxmlm.models.attention import Attention, visibility
from jaxmlm.models.layers import Dense, Dtype, LayerNorm, dropout
from jaxmlm.parallel import spec


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes and parts of an encoder. The vocabulary comes from the tokenizer."""

    layers: int = 2
    width: int = 128
    heads: int = 2
    mlp: int | None = None
    """Width of the hidden layer of each block's MLP; 4 * width if not given."""
    norm: Literal["pre", "post"] = "pre"
    """Layer norm before each part of a block (the paper) or after it (BERT, RoBERTa)."""
    embed_norm: bool = True
    """Layer norm of the embeddings."""
    positions: Literal["learned", "rope"] = "learned"
    """Learned position embeddings (the paper) or rotary ones, which need fewer steps."""
    most_positions: int = 512
    """Rows of the learned position table: the longest input."""
    dropout: float = 0.1
    """Of embeddings and of each part's output."""
    attention_dropout: float = 0.1
    """Of the attention shares."""
    epsilon: float = 1e-5
    """Of layer norm."""
    init: float = 0.02
    """Standard deviation of the initial weights."""
    dtype: Dtype = "float32"
    """Type of the computation; parameters and the loss are float32 always."""
    remat: bool = False
    """Recompute the blocks in the backward pass: less memory, a third more work."""

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "mlp", "most_positions"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise InputError(f"model.{name} is {size}: it must be at least 1")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"model.{name} is {getattr(self, name):g}: it must be at least 0 and below 1")
        if self.width % self.heads or (self.positions == "rope" and self.width // self.heads % 2):
            raise InputError(
                f"model.width {self.width} does not divide into {self.heads} heads"
                + (" of even width (rotary positions)" if self.width % self.heads == 0 else "")
                + ": change model.width or model.heads"
            )


class Block(nnx.Module):
    """Self-attention and an MLP, each with a residual connection and a layer norm before or after it."""

    def __init__(self, config: EncoderConfig, key: Key[Array, ""]):
        c, keys = config, jax.random.split(key, 3)
        mlp = c.mlp or 4 * c.width
        self.attention = Attention(
            keys[0], c.width, c.heads, c.init, rope=c.positions == "rope", drop=c.attention_dropout
        )
        self.up = Dense(keys[1], (c.width, mlp), ("embed", "mlp"), c.init)
        self.down = Dense(keys[2], (mlp, c.width), ("mlp", "embed"), c.init)
        self.attention_norm = LayerNorm(c.width, c.epsilon)
        self.mlp_norm = LayerNorm(c.width, c.epsilon)
        self.pre, self.drop = c.norm == "pre", c.dropout

    def __call__(
        self, x: Float[Array, "B L D"], visible: Bool[Array, "B 1 L L"], key: Key[Array, ""] | None
    ) -> Float[Array, "B L D"]:
        """One block."""
        keys = [None] * 3 if key is None else jax.random.split(key, 3)
        norm = self.attention_norm
        y = self.attention(norm(x) if self.pre else x, visible, keys[0])
        x = x + dropout(keys[1], self.drop, y)
        x, norm = (x, self.mlp_norm) if self.pre else (norm(x), self.mlp_norm)
        y = self.down(jax.nn.gelu(self.up(norm(x) if self.pre else x), approximate=False))
        x = x + dropout(keys[2], self.drop, y)
        return x if self.pre else norm(x)


class Encoder(nnx.Module):
    """Embeddings and blocks. Blocks are stacked: every parameter of `blocks` has a leading axis N."""

    def __init__(self, config: EncoderConfig, vocab: int, key: Key[Array, ""]):
        c, keys = config, jax.random.split(key, 3)
        self.config, self.vocab = config, vocab
        rows = -(-vocab // 128) * 128  # padded, so that odd vocabularies shard
        table = c.init * jax.random.normal(keys[0], (rows, c.width), out_sharding=spec("vocab", "embed"))
        self.embedding = nnx.Param(table)
        if c.positions == "learned":
            self.position = nnx.Param(c.init * jax.random.normal(keys[1], (c.most_positions, c.width)))
        if c.embed_norm:
            self.embed_norm = LayerNorm(c.width, c.epsilon)
        self.blocks = jax.vmap(lambda k: Block(c, k))(jax.random.split(keys[2], c.layers))
        if c.norm == "pre":
            self.final_norm = LayerNorm(c.width, c.epsilon)

    def __call__(
        self, ids: Int[Array, "B L"], segments: Int[Array, "B L"], key: Key[Array, ""] | None = None
    ) -> Float[Array, "B L D"]:
        """Hidden states of every token.

        Args:
            ids: token ids.
            segments: 0 for padding, else the number of the token's document; a token sees its own document.
            key: for dropout; None is evaluation.

        """
        c = self.config
        embed_key, block_key = (None, None) if key is None else jax.random.split(key)
        # A look-up in a sharded table would gather per row: gather the table once.
        table = jax.sharding.reshard(self.embedding[...], spec(None, None))
        x = table.at[ids].get(out_sharding=spec("batch", None, None))
        if c.positions == "learned":
            if ids.shape[1] > c.most_positions:
                raise InputError(
                    f"an input of {ids.shape[1]} tokens is longer than model.most_positions {c.most_positions}: "
                    "raise that, shorten the input, or take rotary positions"
                )
            x = x + self.position[: ids.shape[1]][None]
        if c.embed_norm:
            x = self.embed_norm(x)
        x = dropout(embed_key, c.dropout, x).astype(c.dtype)
        visible = visibility(segments)

        def block(x: Array, layer: tuple[Block, Array | None]) -> tuple[Array, None]:
            return layer[0](x, visible, layer[1]), None

        keys = None if block_key is None else jax.random.split(block_key, c.layers)
        # One compiled block on accelerators; on CPU unrolled, where a loop costs copies of its parameters.
        unroll = c.layers if jax.default_backend() == "cpu" else 1
        x, _ = jax.lax.scan(jax.checkpoint(block) if c.remat else block, x, (self.blocks, keys), unroll=unroll)
        return self.final_norm(x) if c.norm == "pre" else x
