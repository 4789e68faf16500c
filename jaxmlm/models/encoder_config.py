"""The options of an encoder.

A new option that adds matrix products also changes `flops.py`; `formats.py` says which of its values an architecture of
the transformers format computes. Parameters are counted by themselves (`flops.count_parameters`).
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import jax

from jaxmlm.checks import BELOW_ONE, COUNT, HUGE, NATURAL, NOT_NEGATIVE, POSITIVE, Range, check_choices, check_numbers
from jaxmlm.errors import InputError
from jaxmlm.models.attention import Kernel
from jaxmlm.models.layers import Activation, Dtype

Remat = Literal["none", "dots", "full"]
REMAT_POLICIES = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}
"""What `jax.checkpoint` keeps of a block; dots: the products with parameters, not the attention probabilities."""
RUNTIME_FIELDS = ("dropout", "attention_dropout", "attention", "dtype", "remat", "logits_chunk")
"""Options that a run which continues from an encoder (`init`) may set anew: they change none of its parameters."""


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes and options of an encoder. The size of the vocabulary comes from the tokenizer."""

    layers: int = 2
    """Number of blocks."""
    width: int = 128
    """Width of the hidden states."""
    heads: int = 2
    """Attention heads of each block; must divide the width."""
    mlp: int | None = None
    """Width of the hidden layer of each block's MLP; None: 4 * width."""
    norm: Literal["pre", "post"] = "pre"
    """Layer norm before the attention and the MLP of a block (the paper) or after them (BERT, RoBERTa)."""
    embed_norm: bool = True
    """Whether the embeddings pass through a layer norm."""
    first_norm: bool = True
    """Whether the first block has a layer norm before its attention; ModernBERT has none (pre-layer-norm only)."""
    activation: Activation = "gelu"
    """Activation of the MLPs: GELU, or GeGLU, in which a GELU gates a second map; exact or by tanh."""
    biases: bool = True
    """Whether linear layers and layer norms have biases; the output bias over the vocabulary is always kept."""
    tied: bool = True
    """Whether the masked-LM head shares its output projection with the input embedding."""
    token_types: int = 0
    """Number of token types, as BERT has two for first and second sentences; 0: no token-type embedding."""
    positions: Literal["learned", "rope"] = "learned"
    """Learned position embeddings (the paper) or rotary position embeddings, which need fewer steps."""
    max_positions: int = 512
    """Maximum length of a document in tokens with learned positions."""
    rope_base: float = 10_000.0
    """Base of the rotary frequencies (theta)."""
    window: int | None = None
    """Sliding-window size of local-attention layers (window // 2 tokens on each side); None: all layers are global."""
    global_every: int = 3
    """With a window, every n-th layer, starting with the first, attends to the whole document."""
    local_rope_base: float | None = None
    """Base of the rotary frequencies in local-attention layers; None: rope_base."""
    dropout: float = 0.1
    """Dropout rate of the embeddings and of the outputs of each attention and MLP."""
    attention_dropout: float = 0.1
    """Dropout rate of the attention probabilities."""
    pool: Literal["first", "mean"] = "first"
    """What a sentence classifier reads: the first token (BERT, RoBERTa) or the mean over all (some ModernBERTs)."""
    norm_eps: float = 1e-5
    """Epsilon added to the variance in layer norm."""
    init: float = 0.02
    """Standard deviation of the initial weights."""
    attention: Kernel = "auto"
    """Attention kernel: plain; on a TPU fused for rows of 128 or 256 tokens and for longer ones with attention dropout,
    splash for long ones without; auto takes fused on a TPU where it fits, and splash from 1,024 tokens on."""
    dtype: Dtype = "float32"
    """Type of the computation; parameters and the loss are always float32."""
    remat: Remat = "none"
    """Activation checkpointing: none; dots keeps the matrix products of a block and recomputes the rest; full keeps the
    input of each block only (least memory, about a quarter more work)."""
    logits_chunk: int | None = None
    """Predictions of a row whose logits are computed at a time; None: as many as fit into one GiB on each device."""

    def __post_init__(self) -> None:
        check_choices(self, "model.")
        check_numbers(self, "model.", layers=COUNT, width=COUNT, heads=COUNT, mlp=COUNT, token_types=NATURAL)
        check_numbers(self, "model.", max_positions=COUNT, window=COUNT, global_every=COUNT, logits_chunk=COUNT)
        check_numbers(self, "model.", dropout=BELOW_ONE, attention_dropout=BELOW_ONE)
        check_numbers(self, "model.", norm_eps=POSITIVE, init=NOT_NEGATIVE)
        above_one = Range(math.nextafter(1.0, 2.0), HUGE, "be above 1 and finite")
        check_numbers(self, "model.", rope_base=above_one, local_rope_base=above_one)
        if not self.first_norm and self.norm == "post":
            raise InputError("model.first_norm False goes with model.norm pre only: set one of the two")
        if self.width % self.heads or (self.positions == "rope" and self.width // self.heads % 2):
            raise InputError(
                f"model.width {self.width} does not divide into {self.heads} heads"
                + (" of even width (rotary positions)" if self.width % self.heads == 0 else "")
                + ": change model.width or model.heads"
            )

    @property
    def sizes(self) -> list[tuple[str, int, str]]:
        """The sizes that a mesh must divide, as `check_sizes` takes them: (name, size, logical axis)."""
        return [
            ("model.width", self.width, "embed"),
            ("model.heads", self.heads, "heads"),
            ("model.mlp", self.mlp or 4 * self.width, "mlp"),
            ("the multiple to which the vocabulary is padded", 128, "vocab"),
        ]

    def with_runtime_fields_of(self, other: "EncoderConfig") -> "EncoderConfig":
        """This encoder with the `RUNTIME_FIELDS` of another: they change how it is trained, not its parameters."""
        return replace(self, **{name: getattr(other, name) for name in RUNTIME_FIELDS})
