"""One encoder with options: the paper's RoBERTa with pre-layer-norm by default; BERT, RoBERTa and ModernBERT too."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from jaxmlm.errors import InputError
from jaxmlm.models.attention import Attention, AttentionInputs, Kernel, pick, rope_table, segment_positions, visibility
from jaxmlm.models.layers import Activation, Dense, Dtype, LayerNorm, dropout, gelu
from jaxmlm.parallel import gathered, platform, spec

Remat = Literal["none", "dots", "full"]
REMAT_POLICIES = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}
"""What `jax.checkpoint` keeps of a block; dots: the products with parameters, not the shares of the attention."""
RUNTIME_FIELDS = ("dropout", "attention_dropout", "attention", "dtype", "remat", "chunk")
"""Options of an encoder that may differ between a checkpoint and what goes on from it."""


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
    first_norm: bool = True
    """Layer norm before the attention of the first block; ModernBERT has none there (pre-layer-norm only)."""
    activation: Activation = "gelu"
    """Of the MLP: GELU, or GeGLU, a GELU that gates a second map; exact or by tanh."""
    biases: bool = True
    """Of linear maps and layer norms; the bias of the vocabulary is always there."""
    tied: bool = True
    """The masked-LM head reads its logits off the embedding table; if not, off a table of its own."""
    token_types: int = 0
    """Rows of a table of token types, as BERT has for first and second sentences; 0: no such table."""
    positions: Literal["learned", "rope"] = "learned"
    """Learned position embeddings (the paper) or rotary ones, which need fewer steps."""
    max_positions: int = 512
    """Rows of the learned position table: the longest document."""
    rope_base: float = 10_000.0
    """Base of the rotary frequencies."""
    window: int | None = None
    """Tokens that a token sees in most layers: itself and window // 2 on each side; None: all of its document."""
    global_every: int = 3
    """With a window: every so many layers, the first included, see the whole document."""
    local_rope_base: float | None = None
    """Base of the rotary frequencies of the layers with a window; rope_base if not given."""
    dropout: float = 0.1
    """Of embeddings and of each part's output."""
    attention_dropout: float = 0.1
    """Of the attention shares."""
    norm_eps: float = 1e-5
    """Of layer norm."""
    init: float = 0.02
    """Standard deviation of the initial weights."""
    attention: Kernel = "auto"
    """Splash, the TPU's kernel for long rows without attention dropout; auto takes it there from 1,024 tokens on."""
    dtype: Dtype = "float32"
    """Type of the computation; parameters and the loss are float32 always."""
    remat: Remat = "none"
    """What the backward pass computes again: nothing; all but the matrix products of a block (dots), whose outputs are
    kept; whole blocks, of which only the input is kept (full: least memory, about a quarter more work)."""
    chunk: int | None = None
    """Predictions of a row whose logits are made at a time; None: all, or what fits into a GiB a device."""

    def __post_init__(self) -> None:
        counts = ("layers", "width", "heads", "mlp", "max_positions", "window", "global_every", "chunk")
        least = dict.fromkeys(counts, 1)
        for name, low in {**least, "token_types": 0}.items():
            size = getattr(self, name)
            if size is not None and size < low:
                raise InputError(f"model.{name} is {size}: it must be at least {low}")
        for name in ("rope_base", "local_rope_base"):
            if (base := getattr(self, name)) is not None and not base > 1:
                raise InputError(f"model.{name} is {base:g}: it must be above 1")
        if not self.first_norm and self.norm == "post":
            raise InputError("model.first_norm False goes with model.norm pre only: set one of the two")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"model.{name} is {getattr(self, name):g}: it must be at least 0 and below 1")
        if self.width % self.heads or (self.positions == "rope" and self.width // self.heads % 2):
            raise InputError(
                f"model.width {self.width} does not divide into {self.heads} heads"
                + (" of even width (rotary positions)" if self.width % self.heads == 0 else "")
                + ": change model.width or model.heads"
            )

    @property
    def sizes(self) -> list[tuple[str, int, str]]:
        """What a mesh must divide: (what it is, how many, its logical axis). Vocabularies are padded to 128s."""
        mlp = self.mlp or 4 * self.width
        return [
            ("model.width", self.width, "embed"),
            ("model.heads", self.heads, "heads"),
            ("model.mlp", mlp, "mlp"),
            ("the multiple to which the vocabulary is padded", 128, "vocab"),
        ]

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> "EncoderConfig":
        """The encoder that a run.json describes, also one of an earlier version.

        >>> EncoderConfig.read({"class": "EncoderConfig", "layers": 3, "remat": True}).remat
        'full'
        """
        options = {name: value for name, value in plain.items() if name != "class"}
        if isinstance(options.get("remat"), bool):  # as it was written before there was a choice
            options["remat"] = "full" if options["remat"] else "none"
        return cls(**options)

    def with_runtime_fields_of(self, other: "EncoderConfig") -> "EncoderConfig":
        """This encoder with the options of another that change how it is trained and not what it computes."""
        return replace(self, **{name: getattr(other, name) for name in RUNTIME_FIELDS})


class Block(nnx.Module):
    """Self-attention and an MLP, each with a residual connection and a layer norm before or after it."""

    def __init__(self, config: EncoderConfig, key: Key[Array, ""]):
        c, keys = config, jax.random.split(key, 3)
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
        self.pre, self.drop = c.norm == "pre", c.dropout
        self.activation: Activation = c.activation

    def __call__(
        self,
        x: Float[Array, "B L D"],
        attention_inputs: AttentionInputs,
        key: Key[Array, ""] | None,
        normed: Array | None = None,
        at: Int[Array, "B P"] | None = None,
    ) -> Float[Array, "B P D"]:
        """One block, of all tokens or of those at these positions; `normed` False: no layer norm before attention."""
        keys = [None] * 3 if key is None else jax.random.split(key, 3)
        norm = self.attention_norm
        y = norm(x) if self.pre else x
        y = self.attention(y if normed is None else jnp.where(normed, y, x), attention_inputs, keys[0], at)
        x = (x if at is None else pick(x, at)) + dropout(keys[1], self.drop, y)
        x, norm = (x, self.mlp_norm) if self.pre else (norm(x), self.mlp_norm)
        y = self._mlp(norm(x) if self.pre else x)
        x = x + dropout(keys[2], self.drop, y)
        return x if self.pre else norm(x)

    def _mlp(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        hidden = gelu(self.activation, self.up(x))
        return self.down(hidden * self.gate(x) if self.activation.startswith("geglu") else hidden)


class Encoder(nnx.Module):
    """Embeddings and blocks. Blocks are stacked: every parameter of `blocks` has a leading axis N."""

    def __init__(self, config: EncoderConfig, vocab: int, key: Key[Array, ""]):
        c, keys = config, jax.random.split(key, 3)
        self.config, self.vocab = config, vocab
        rows = -(-vocab // 128) * 128  # padded, so that odd vocabularies shard
        table = c.init * jax.random.normal(keys[0], (rows, c.width), out_sharding=spec("vocab", "embed"))
        self.embedding = nnx.Param(table)
        if c.positions == "learned":
            self.position = nnx.Param(c.init * jax.random.normal(keys[1], (c.max_positions, c.width)))
        if c.token_types:
            type_key = jax.random.fold_in(keys[1], 1)
            self.token_type = nnx.Param(c.init * jax.random.normal(type_key, (c.token_types, c.width)))
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
            segments: 0 for padding, else the number of the token's document; a token sees its own document, whose
                positions count from 0.
            key: for dropout; None is evaluation.
            types: token types of an encoder that has them; None is type 0.

        """
        return self._run(ids, segments, key, types)[-1]

    def hiddens(
        self, ids: Int[Array, "B L"], segments: Int[Array, "B L"], types: Int[Array, "B L"] | None = None
    ) -> Float[Array, "N1 B L D"]:
        """Hidden states after the embeddings and after each of the N blocks; the last are those of a call."""
        return jnp.stack(self._run(ids, segments, None, types, every=True))

    def at(
        self,
        ids: Int[Array, "B L"],
        segments: Int[Array, "B L"],
        positions: Int[Array, "B P"],
        types: Int[Array, "B L"] | None = None,
    ) -> Float[Array, "B P D"]:
        """Hidden states at these positions alone, without dropout: the last block computes no others.

        With few positions that saves five sixths of that block.
        """
        apart = self if isinstance(self.blocks, nnx.List) else self.unstacked()
        return apart._run(ids, segments, None, types, at=positions)[-1]

    def _run(
        self,
        ids: Int[Array, "B L"],
        segments: Int[Array, "B L"],
        key: Key[Array, ""] | None,
        types: Int[Array, "B L"] | None,
        every: bool = False,
        at: Int[Array, "B P"] | None = None,
    ) -> list[Array]:
        """The hidden states of the last block, or of all from the embeddings on; `at` wants blocks that are apart."""
        c = self.config
        embed_key, block_key = (None, None) if key is None else jax.random.split(key)
        x = dropout(embed_key, c.dropout, self._embed(ids, segments, types)).astype(c.dtype)
        inputs = [
            AttentionInputs(visibility(segments, window), self._rope(ids.shape[1], base), segments)
            for window, base in self._kinds
        ]
        layers = jnp.arange(c.layers)
        # Per layer: does it see the whole document, has it a layer norm first? None where all layers are alike.
        whole = layers % c.global_every == 0 if len(inputs) > 1 else None
        normed = None if c.first_norm else layers > 0

        def block(
            x: Array, layer: tuple[Block, Array | None, Array | None, Array | None], at: Array | None = None
        ) -> tuple[Array, Array | None]:
            part, key, is_whole, is_normed = layer
            attention_inputs = inputs[0]
            if is_whole is not None:
                attention_inputs = jax.tree.map(lambda a, b: jnp.where(is_whole, a, b), *inputs)._replace(
                    whole=is_whole
                )
            x = part(x, attention_inputs, key, is_normed, at)
            return x, x if every else None

        if c.remat != "none":
            block = jax.checkpoint(block, policy=REMAT_POLICIES[c.remat])
        keys = None if block_key is None else jax.random.split(block_key, c.layers)
        before = [x] if every else []
        if isinstance(self.blocks, nnx.List):
            for i, part in enumerate(self.blocks):
                layer = (part, *jax.tree.map(lambda a, i=i: a[i], (keys, whole, normed)))
                x, _ = block(x, layer, at if i == c.layers - 1 else None)
                before.append(x)
        else:
            # One compiled block on accelerators; on CPU unrolled, where a loop costs copies of its parameters. The
            # barrier keeps XLA from computing the sum of all blocks below anew in each fusion (see CPU_OPTIONS).
            cpu = platform() == "cpu"

            def apart(x: Array, layer: Any) -> tuple[Array, Array | None]:
                return block(jax.lax.optimization_barrier(x) if cpu else x, layer)

            x, xs = jax.lax.scan(apart, x, (self.blocks, keys, whole, normed), unroll=c.layers if cpu else 1)
            before += [x] if xs is None else list(xs)
        return [*before[:-1], self.final_norm(x) if c.norm == "pre" else x]

    def unstacked(self) -> "Encoder":
        """This encoder with blocks that are not stacked, for the CPU: a stack costs a copy of itself in every call."""
        copy = jax.tree.map(lambda x: x, self)
        copy.blocks = nnx.List([jax.tree.map(lambda x, i=i: x[i], self.blocks) for i in range(self.config.layers)])
        return copy

    @property
    def _kinds(self) -> list[tuple[int | None, float]]:
        """Window and rotary base of the layers that see all, and of those with a window if there are any."""
        c = self.config
        kinds: list[tuple[int | None, float]] = [(None, c.rope_base)]
        return kinds if c.window is None else [*kinds, (c.window, c.local_rope_base or c.rope_base)]

    def _rope(self, length: int, base: float) -> Float[Array, "L 2 half"] | None:
        c = self.config
        return rope_table(length, c.width // c.heads, base) if c.positions == "rope" else None

    def _embed(
        self, ids: Int[Array, "B L"], segments: Int[Array, "B L"], types: Int[Array, "B L"] | None
    ) -> Float[Array, "B L D"]:
        c, rows = self.config, spec("batch", None, None)
        # A look-up in a sharded table would gather per row: gather the table once.
        table = gathered(self.embedding[...], None, None)
        x = table.at[ids].get(out_sharding=rows)
        if c.token_types:
            kinds = gathered(self.token_type[...], None, None)
            x = x + kinds.at[jnp.zeros_like(ids) if types is None else types].get(out_sharding=rows)
        if c.positions == "learned":
            if ids.shape[1] > c.max_positions:
                raise InputError(
                    f"an input of {ids.shape[1]} tokens is longer than model.max_positions {c.max_positions}: "
                    "raise that, shorten the input, or take rotary positions"
                )
            x = x + gathered(self.position[...], None, None).at[segment_positions(segments)].get(out_sharding=rows)
        return self.embed_norm(x) if c.embed_norm else x
