"""One encoder with options: the paper's RoBERTa with pre-layer-norm by default; BERT, RoBERTa and ModernBERT too."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from jaxmlm.errors import InputError
from jaxmlm.models.attention import (
    Attention,
    AttentionInputs,
    rope_table,
    segment_positions,
    take_positions,
    visibility,
)
from jaxmlm.models.encoder_config import REMAT_POLICIES, EncoderConfig
from jaxmlm.models.layers import Activation, Dense, LayerNorm, dropout, gelu
from jaxmlm.parallel import gathered, out_spec, platform, shard


class LayerKind(NamedTuple):
    """What differs between the blocks of an encoder: a bool for each block, or None where all are alike.

    Attributes:
        is_global: whether the block attends to the whole document and not within the window; None: the encoder has no
            window.
        has_first_norm: whether the block has a layer norm before its attention; None: all have one.

    """

    is_global: Array | None = None
    has_first_norm: Array | None = None


class Block(nnx.Module):
    """Self-attention and an MLP, each with a residual connection and a layer norm before or after it."""

    def __init__(self, config: EncoderConfig, key: Key[Array, ""]):
        c = config
        keys = jax.random.split(key, 3)
        mlp = c.mlp or 4 * c.width
        self.attention = Attention(
            keys[0], c.width, c.heads, c.init, c.attention_dropout, c.biases, c.window, c.attention
        )
        self.up = Dense(keys[1], (c.width, mlp), ("embed", "mlp"), c.init, c.biases)
        self.down = Dense(keys[2], (mlp, c.width), ("mlp", "embed"), c.init, c.biases)
        if c.activation.startswith("geglu"):
            gate_key = jax.random.fold_in(keys[1], 1)
            self.gate = Dense(gate_key, (c.width, mlp), ("embed", "mlp"), c.init, c.biases)
        self.attention_norm = LayerNorm(c.width, c.norm_eps, c.biases)
        self.mlp_norm = LayerNorm(c.width, c.norm_eps, c.biases)
        self.pre_norm = c.norm == "pre"
        self.dropout = c.dropout
        self.activation: Activation = c.activation

    def __call__(
        self,
        x: Float[Array, "B L D"],
        attention_inputs: AttentionInputs,
        key: Key[Array, ""] | None,
        has_first_norm: Array | None = None,
        positions: Int[Array, "B P"] | None = None,
    ) -> Float[Array, "B P D"]:
        """One block.

        Args:
            x: hidden states of every token.
            attention_inputs: who attends to whom.
            key: for dropout; None is evaluation.
            has_first_norm: false for a pre-layer-norm block without the norm before its attention; None is true.
            positions: compute the output at these positions only; None: at all.

        """
        keys = [None] * 3 if key is None else jax.random.split(key, 3)
        y = self.attention_norm(x) if self.pre_norm else x
        if has_first_norm is not None:
            y = jnp.where(has_first_norm, y, x)
        y = self.attention(y, attention_inputs, keys[0], positions)
        x = (x if positions is None else take_positions(x, positions)) + dropout(keys[1], self.dropout, y)
        if not self.pre_norm:
            x = self.attention_norm(x)
        y = self._mlp(self.mlp_norm(x) if self.pre_norm else x)
        x = x + dropout(keys[2], self.dropout, y)
        return x if self.pre_norm else self.mlp_norm(x)

    def _mlp(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        hidden = gelu(self.activation, self.up(x))
        return self.down(hidden * self.gate(x) if self.activation.startswith("geglu") else hidden)


Layer = tuple[Block, Array | None, LayerKind]
"""What a scan over the layers goes through: a block, its key for dropout, its kind."""


class Encoder(nnx.Module):
    """Embeddings and blocks. Blocks are stacked: every parameter of `blocks` has a leading axis N.

    A pure function of its inputs: `jax.jit`, `jax.grad` and `jax.vmap` take it as a pytree, under a mesh
    (`jax.set_mesh(make_mesh())`) or without one.

    Args:
        config: sizes and options.
        vocab: number of token ids.
        key: of the initial weights.

    >>> encoder = Encoder(EncoderConfig(layers=1, width=8), vocab=100, key=jax.random.key(0))
    >>> ids = jnp.array([[5, 6, 7, 0]])
    >>> encoder(ids, segments=jnp.int32(ids > 0)).shape
    (1, 4, 8)

    """

    def __init__(self, config: EncoderConfig, vocab: int, key: Key[Array, ""]):
        c = config
        keys = jax.random.split(key, 3)
        self.config = config
        self.vocab = vocab
        rows = -(-vocab // 128) * 128  # padded, so that odd vocabularies shard
        table = jax.random.normal(keys[0], (rows, c.width), jnp.float32, out_sharding=out_spec("vocab", "embed"))
        self.embedding = nnx.Param(c.init * table)
        if c.positions == "learned":
            self.position = nnx.Param(c.init * jax.random.normal(keys[1], (c.max_positions, c.width), jnp.float32))
        if c.token_types:
            type_key = jax.random.fold_in(keys[1], 1)
            self.token_type = nnx.Param(c.init * jax.random.normal(type_key, (c.token_types, c.width), jnp.float32))
        if c.embed_norm:
            self.embed_norm = LayerNorm(c.width, c.norm_eps, c.biases)
        self.blocks = jax.vmap(lambda k: Block(c, k))(jax.random.split(keys[2], c.layers))
        if c.norm == "pre":
            self.final_norm = LayerNorm(c.width, c.norm_eps, c.biases)

    def __call__(
        self,
        ids: Int[Array, "B L"],
        segments: Int[Array, "B L"],
        key: Key[Array, ""] | None = None,
        types: Int[Array, "B L"] | None = None,
    ) -> Float[Array, "B L D"]:
        """Hidden states of every token.

        Args:
            ids: token ids.
            segments: 0 for padding, else the number of the token's document; a token attends to its own document,
                whose positions count from 0.
            key: for dropout; None is evaluation.
            types: token types of an encoder that has them; None is type 0.

        """
        embed_key, block_key = (None, None) if key is None else jax.random.split(key)
        x = self._embed(ids, segments, types, embed_key)
        inputs = self._attention_inputs(segments)
        x = self._blocks(x, inputs, block_key)
        return self._last_norm(x)

    def all_hidden_states(
        self, ids: Int[Array, "B L"], segments: Int[Array, "B L"], types: Int[Array, "B L"] | None = None
    ) -> Float[Array, "N1 B L D"]:
        """Hidden states after the embeddings and after each of the N blocks; the last are those of a call.

        Args:
            ids: as for a call, and so are `segments` and `types`. There is no dropout.
            segments: document numbers.
            types: token types.

        """
        first = self._embed(ids, segments, types)
        inputs = self._attention_inputs(segments)

        def keep(x: Array, layer: Layer) -> tuple[Array, Array]:
            x = _apply(layer, x, inputs)
            return x, x

        last, states = self._scan(keep, first, None)
        return jnp.concatenate([first[None], states[:-1], self._last_norm(last)[None]])

    def at_positions(
        self,
        ids: Int[Array, "B L"],
        segments: Int[Array, "B L"],
        positions: Int[Array, "B P"],
        types: Int[Array, "B L"] | None = None,
    ) -> Float[Array, "B P D"]:
        """Hidden states at these positions alone, without dropout: the last block computes no others.

        With few positions that saves five sixths of that block.

        Args:
            ids: as for a call, and so are `segments` and `types`.
            segments: document numbers.
            positions: of each row, in any order.
            types: token types.

        """
        x = self._embed(ids, segments, types)
        inputs = self._attention_inputs(segments)
        *lower, last = self._layers(None)
        for layer in lower:
            x = _apply(layer, x, inputs)
        return self._last_norm(_apply(last, x, inputs, positions))

    def unstacked(self) -> "Encoder":
        """This encoder with separate blocks, for inference on the CPU: a stack costs a copy of itself in every call."""
        copy = jax.tree.map(lambda x: x, self)
        copy.blocks = nnx.List(self._separate_blocks())
        return copy

    def _embed(
        self,
        ids: Int[Array, "B L"],
        segments: Int[Array, "B L"],
        types: Int[Array, "B L"] | None,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B L D"]:
        c = self.config
        rows = out_spec("batch", None, None)
        # A look-up in a sharded table would gather per row: gather the table once.
        table = gathered(self.embedding[...], None, None)
        x = table.at[ids].get(out_sharding=rows)
        if c.token_types:
            type_table = gathered(self.token_type[...], None, None)
            x = x + type_table.at[jnp.zeros_like(ids) if types is None else types].get(out_sharding=rows)
        if c.positions == "learned":
            if ids.shape[1] > c.max_positions:
                raise InputError(
                    f"an input of {ids.shape[1]} tokens is longer than model.max_positions {c.max_positions}: "
                    "raise that, shorten the input, or take rotary positions"
                )
            x = x + gathered(self.position[...], None, None).at[segment_positions(segments)].get(out_sharding=rows)
        if c.embed_norm:
            x = self.embed_norm(x)
        return dropout(key, c.dropout, x).astype(c.dtype)

    def _attention_inputs(self, segments: Int[Array, "B L"]) -> list[AttentionInputs]:
        """The attention inputs of global layers and, where there is a window, of local ones."""
        c = self.config
        variants: list[tuple[int | None, float]] = [(None, c.rope_base)]
        if c.window is not None:
            variants.append((c.window, c.local_rope_base or c.rope_base))
        segments = shard(jnp.asarray(segments), "batch", None)  # as the kernels' `shard_map` asks for
        length = segments.shape[1]
        return [
            AttentionInputs(
                visibility(segments, window),
                rope_table(length, c.width // c.heads, base) if c.positions == "rope" else None,
                segments,
            )
            for window, base in variants
        ]

    def _blocks(
        self, x: Float[Array, "B L D"], inputs: list[AttentionInputs], key: Key[Array, ""] | None
    ) -> Float[Array, "B L D"]:
        """All blocks, one after the other; the backward pass recomputes what `remat` says."""

        def block(x: Array, layer: Layer) -> Array:
            return _apply(layer, x, inputs)

        if self.config.remat != "none":
            block = jax.checkpoint(block, policy=REMAT_POLICIES[self.config.remat])
        return self._scan(lambda x, layer: (block(x, layer), None), x, key)[0]

    def _scan(
        self, body: Callable[[Array, Layer], tuple[Array, Any]], x: Array, key: Key[Array, ""] | None
    ) -> tuple[Array, Any]:
        """`jax.lax.scan` over the layers; a loop in Python where they are separate."""
        if isinstance(self.blocks, nnx.List):
            outputs = []
            for layer in self._layers(key):
                x, output = body(x, layer)
                outputs.append(output)
            return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)
        # One compiled block on accelerators; on CPU unrolled, where a loop costs copies of its parameters. The
        # barrier keeps XLA from computing the sum of all blocks below anew in each fusion (see CPU_OPTIONS).
        cpu = platform() == "cpu"

        def step(x: Array, layer: Layer) -> tuple[Array, Any]:
            return body(jax.lax.optimization_barrier(x) if cpu else x, layer)

        layers = (self.blocks, self._block_keys(key), self._layer_kinds())
        return jax.lax.scan(step, x, layers, unroll=self.config.layers if cpu else 1)

    def _layers(self, key: Key[Array, ""] | None) -> list[Layer]:
        """The layers one by one, whether the blocks are stacked or separate."""
        kinds = self._layer_kinds()
        keys = self._block_keys(key)
        blocks = self.blocks if isinstance(self.blocks, nnx.List) else self._separate_blocks()
        layers: list[Layer] = []
        for i, block in enumerate(blocks):
            block_key, kind = jax.tree.map(lambda x, i=i: x[i], (keys, kinds))
            layers.append((block, block_key, kind))
        return layers

    def _separate_blocks(self) -> list[Block]:
        return [jax.tree.map(lambda x, i=i: x[i], self.blocks) for i in range(self.config.layers)]

    def _block_keys(self, key: Key[Array, ""] | None) -> Key[Array, " N"] | None:
        return None if key is None else jax.random.split(key, self.config.layers)

    def _layer_kinds(self) -> LayerKind:
        """The kinds of all layers, each field [N]."""
        c = self.config
        layers = jnp.arange(c.layers)
        return LayerKind(
            is_global=None if c.window is None else layers % c.global_every == 0,
            has_first_norm=None if c.first_norm else layers > 0,
        )

    def _last_norm(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        return self.final_norm(x) if self.config.norm == "pre" else x


def _apply(
    layer: Layer, x: Float[Array, "B L D"], inputs: list[AttentionInputs], positions: Int[Array, "B P"] | None = None
) -> Float[Array, "B P D"]:
    """Run one layer with the attention inputs of its kind."""
    block, key, (is_global, has_first_norm) = layer
    chosen = inputs[0]
    if is_global is not None:
        chosen = jax.tree.map(lambda a, b: jnp.where(is_global, a, b), *inputs)._replace(is_global=is_global)
    return block(x, chosen, key, has_first_norm, positions)
