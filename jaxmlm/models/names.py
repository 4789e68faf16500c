"""What the weights of our models are called in the `transformers` format, and how they are laid out there.

A table of `Weight`s: the path of ours, their name (`{}` is the number of the layer), and the two layouts. Theirs are
PyTorch's: linear maps stored as [out, in], heads joined, layers apart.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxmlm.models.encoder_config import EncoderConfig


class Format(NamedTuple):
    """A family of architectures: the prefix of its encoder, where its parts are, and its positions."""

    family: str
    prefix: str
    pre: bool
    head: str
    offset: bool  # positions count from the padding id on, as fairseq does
    rotary: bool = False  # instead of tables of positions and of token types


BERT = Format("Bert", "bert.", False, "cls.predictions.", False)
ROBERTA = Format("Roberta", "roberta.", False, "lm_head.", True)
PRE_ROBERTA = Format("RobertaPreLayerNorm", "roberta_prelayernorm.", True, "lm_head.", True)
ESM = Format("Esm", "esm.", True, "lm_head.", False, rotary=True)
MODERN = Format("ModernBert", "model.", True, "", False, rotary=True)
FORMATS = {
    "bert": BERT,
    "roberta": ROBERTA,
    "roberta-prelayernorm": PRE_ROBERTA,
    "esm": ESM,
    "modernbert": MODERN,
    # RoBERTa with another tokenizer: written as what it is, RoBERTa.
    "xlm-roberta": ROBERTA._replace(family="XLMRoberta"),
    "camembert": ROBERTA._replace(family="Camembert"),
}
"""By `model_type` of config.json."""


class Weight(NamedTuple):
    """One of our parameters (of one layer, if `layered`) and their tensors that it is made of."""

    ours: str
    theirs: tuple[str, ...]
    join: Callable[[list[np.ndarray]], np.ndarray] = lambda parts: parts[0]
    split: Callable[[np.ndarray], list[np.ndarray]] = lambda ours: [ours]
    layered: bool = False


def weights(form: Format, config: EncoderConfig, kind: str, vocab: int, offset: int) -> list[Weight]:
    """Every weight of a model of this kind (a key of `formats.HEADS`); `offset`: position rows before the first."""
    layered = [w._replace(layered=True) for w in (_modern_block if form is MODERN else _block)(form, config)]
    head = {"encoder": [], "mlm": _masked_lm(form, config, vocab)}.get(kind)
    prefix = "" if kind == "encoder" else form.prefix
    ours = "" if kind == "encoder" else "encoder."
    shared = _embeddings(form, config, vocab, offset) + layered
    placed = [
        w._replace(
            ours=" ".join(ours + name for name in w.ours.split()), theirs=tuple(prefix + name for name in w.theirs)
        )
        for w in shared
    ]
    return placed + (_task_head(form, config, kind) if head is None else head)


def _embeddings(form: Format, config: EncoderConfig, vocab: int, offset: int) -> list[Weight]:
    if form is MODERN:
        norms = [*_norm("embed_norm", "embeddings.norm", config), *_norm("final_norm", "final_norm", config)]
        return [_rows("embedding", "embeddings.tok_embeddings.weight", vocab), *norms]
    if form is ESM:
        return [
            _rows("embedding", "embeddings.word_embeddings.weight", vocab),
            *(_norm("embed_norm", "embeddings.layer_norm", config) if config.embed_norm else []),
            *_norm("final_norm", "encoder.emb_layer_norm_after", config),
        ]
    found = [
        _rows("embedding", "embeddings.word_embeddings.weight", vocab),
        _shifted("position", "embeddings.position_embeddings.weight", offset),
        *_norm("embed_norm", "embeddings.LayerNorm", config),
        *(_norm("final_norm", "LayerNorm", config) if form.pre else []),
    ]
    if config.token_types:
        found.append(Weight("token_type", ("embeddings.token_type_embeddings.weight",)))
    return found


def _block(form: Format, config: EncoderConfig) -> list[Weight]:
    layer = "encoder.layer.{}."
    heads = config.heads
    size = config.width // heads
    qkv = tuple(f"{layer}attention.self.{name}." for name in ("query", "key", "value"))
    attention_norm = layer + ("attention." if form.pre else "attention.output.") + "LayerNorm"
    mlp_norm = layer + ("" if form is ESM else "intermediate." if form.pre else "output.") + "LayerNorm"
    return [
        Weight(
            "blocks.attention.qkv",
            tuple(name + "weight" for name in qkv),
            lambda parts: np.stack([part.T.reshape(-1, heads, size) for part in parts], axis=1),
            lambda ours: [ours[:, i].reshape(ours.shape[0], -1).T for i in range(3)],
        ),
        Weight(
            "blocks.attention.qkv_bias",
            tuple(name + "bias" for name in qkv),
            lambda parts: np.stack([part.reshape(heads, size) for part in parts]),
            lambda ours: [ours[i].reshape(-1) for i in range(3)],
        ),
        _out(layer + "attention.output.dense.weight", heads),
        Weight("blocks.attention.out_bias", (layer + "attention.output.dense.bias",)),
        *_dense("blocks.up", layer + "intermediate.dense"),
        *_dense("blocks.down", layer + "output.dense"),
        *_norm("blocks.attention_norm", attention_norm, config),
        *_norm("blocks.mlp_norm", mlp_norm, config),
    ]


def _modern_block(form: Format, config: EncoderConfig) -> list[Weight]:
    layer = "layers.{}."
    heads = config.heads
    size = config.width // heads
    biases = [
        Weight(
            "blocks.attention.qkv_bias",
            (layer + "attn.Wqkv.bias",),
            lambda parts: parts[0].reshape(3, heads, size),
            lambda ours: [ours.reshape(-1)],
        ),
        Weight("blocks.attention.out_bias", (layer + "attn.Wo.bias",)),
        Weight(
            "blocks.up.bias blocks.gate.bias",
            (layer + "mlp.Wi.bias",),
            lambda parts: np.stack(np.split(parts[0], 2)),
            lambda ours: [ours.reshape(-1)],
        ),
    ]
    return [
        Weight(
            "blocks.attention.qkv",
            (layer + "attn.Wqkv.weight",),
            lambda parts: parts[0].reshape(3, heads, size, -1).transpose(3, 0, 1, 2),
            lambda ours: [ours.transpose(1, 2, 3, 0).reshape(-1, ours.shape[0])],
        ),
        _out(layer + "attn.Wo.weight", heads),
        Weight(
            # One tensor of theirs is two of ours: `interchange` stacks those.
            "blocks.up.kernel blocks.gate.kernel",
            (layer + "mlp.Wi.weight",),
            lambda parts: np.stack([half.T for half in np.split(parts[0], 2)]),
            lambda ours: [np.concatenate([ours[0].T, ours[1].T])],
        ),
        *(biases if config.biases else []),
        *_dense("blocks.down", layer + "mlp.Wo", config.biases),
        *_norm("blocks.attention_norm", layer + "attn_norm", config),
        *_norm("blocks.mlp_norm", layer + "mlp_norm", config),
    ]


def _masked_lm(form: Format, config: EncoderConfig, vocab: int) -> list[Weight]:
    if form is MODERN:
        dense = "head.dense"
        norm = "head.norm"
        decoder = "decoder.weight"
        bias = "decoder.bias"
    else:
        inner = ("transform.dense", "transform.LayerNorm") if form is BERT else ("dense", "layer_norm")
        dense, norm, decoder = (form.head + name for name in (*inner, "decoder.weight"))
        bias = form.head + ("bias" if config.tied or form is ESM else "decoder.bias")
    own = [] if config.tied else [_rows("decoder", decoder, vocab)]
    return [*_dense("dense", dense, config.biases), *_norm("norm", norm, config), _rows("bias", bias, vocab), *own]


def _task_head(form: Format, config: EncoderConfig, kind: str) -> list[Weight]:
    if form is MODERN:
        features = [*_dense("dense.dense", "head.dense", config.biases), *_norm("dense.norm", "head.norm", config)]
        return [*features, *_dense("out", "classifier")]
    if kind == "classify":
        dense, out = (
            ("bert.pooler.dense", "classifier") if form is BERT else ("classifier.dense", "classifier.out_proj")
        )
        return [*_dense("dense", dense), *_dense("out", out)]
    return _dense("out", "qa_outputs" if kind == "answer" else "classifier")


def _dense(ours: str, theirs: str, bias: bool = True) -> list[Weight]:
    kernel = Weight(ours + ".kernel", (theirs + ".weight",), lambda parts: parts[0].T, lambda ours: [ours.T])
    return [kernel, Weight(ours + ".bias", (theirs + ".bias",))] if bias else [kernel]


def _norm(ours: str, theirs: str, config: EncoderConfig) -> list[Weight]:
    scale = Weight(ours + ".scale", (theirs + ".weight",))
    return [scale, Weight(ours + ".bias", (theirs + ".bias",))] if config.biases else [scale]


def _out(theirs: str, heads: int) -> Weight:
    return Weight(
        "blocks.attention.out",
        (theirs,),
        lambda parts: parts[0].T.reshape(heads, -1, parts[0].shape[0]),
        lambda ours: [ours.reshape(-1, ours.shape[-1]).T],
    )


def _rows(ours: str, theirs: str, vocab: int) -> Weight:
    """A table whose rows we pad to a multiple of 128."""

    def padded(parts: list[np.ndarray]) -> np.ndarray:
        rest = -vocab % 128
        return np.concatenate([parts[0], np.zeros((rest, *parts[0].shape[1:]), parts[0].dtype)])

    return Weight(ours, (theirs,), padded, lambda ours: [ours[:vocab]])


def _shifted(ours: str, theirs: str, offset: int) -> Weight:
    """A table whose first rows no token has."""
    return Weight(
        ours,
        (theirs,),
        lambda parts: parts[0][offset:],
        lambda ours: [np.concatenate([np.zeros((offset, ours.shape[1]), ours.dtype), ours])],
    )
