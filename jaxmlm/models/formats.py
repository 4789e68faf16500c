"""config.json of the `transformers` format and `EncoderConfig`, both ways; what one cannot say is refused."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxmlm.errors import InputError
from jaxmlm.models.as_bert import RENAMED
from jaxmlm.models.encoder_config import EncoderConfig
from jaxmlm.models.names import BERT, ESM, FORMATS, MODERN, PRE_ROBERTA, ROBERTA, Format

HEADS = {
    "encoder": "Model",
    "mlm": "ForMaskedLM",
    "classify": "ForSequenceClassification",
    "answer": "ForQuestionAnswering",
    "tokens": "ForTokenClassification",
}
"""The end of the architecture's name, by kind of model."""

_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
_POOLS = {"cls": "first", "mean": "mean"}
"""What ModernBERT calls what a classifier reads."""
_BIASES = ("norm_bias", "attention_bias", "mlp_bias", "classifier_bias")
"""What ModernBERT calls the biases that we have all or none of."""
_TABLES = {"positions": ["learned"], "biases": [True], "first_norm": [True], "window": [None], "embed_norm": [True]}
_ROTARY = {"positions": ["rope"], "norm": ["pre"], "token_types": [0]}
_HOLDS: dict[Format, dict[str, list[Any]]] = {
    PRE_ROBERTA: {**_TABLES, "norm": ["pre"], "activation": ["gelu"]},
    ROBERTA: {**_TABLES, "norm": ["post"], "activation": ["gelu"], "token_types": [0, 1]},
    BERT: {**_TABLES, "norm": ["post"], "activation": ["gelu", "gelu_tanh"]},
    # Versions of transformers before 5 know no other base of ESM's rotary positions.
    ESM: {**_ROTARY, "biases": [True], "first_norm": [True], "window": [None], "activation": ["gelu"],
          "rope_base": [10_000.0]},
    MODERN: {**_ROTARY, "first_norm": [False], "embed_norm": [True], "activation": ["geglu", "geglu_tanh"]},
}  # fmt: skip
"""The values of our options that each format computes; options that are not named have any."""


def kinds_of(form: Format) -> list[str]:
    """The kinds of model that are read from and written to this format."""
    lacking = {ESM: ("answer",)}.get(form, ())
    return [kind for kind in HEADS if kind not in lacking]


def recognise(plain: dict[str, Any], names: Iterable[str], directory: Path) -> tuple[Format, str]:
    """The format and the kind of model that a config.json and the names of its weights tell.

    >>> recognise({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, [], Path("x"))[1]
    'mlm'
    """
    family = plain.get("model_type")
    if family not in FORMATS:
        raise InputError(
            f"{directory}: config.json has model_type {family!r}, which jaxmlm does not compute: take a model of type "
            f"{', '.join((*FORMATS, *RENAMED))}"
        )
    form = FORMATS[family]
    if form is MODERN and not plain.get("architectures") and "classifier.weight" in names:
        raise InputError(
            f"{directory}: config.json names no architecture, and a ModernBERT's heads all have weights of the same "
            'names: write one there, as "architectures": ["ModernBertForSequenceClassification"]'
        )
    # The small BERTs of Turc et al. (google/bert_uncased_L-*) name no architecture.
    architecture = (plain.get("architectures") or [form.family + HEADS[_kind(form, set(names))]])[0]
    ends = {end: kind for kind, end in HEADS.items()} | {"ForPreTraining": "mlm"}
    end = next((end for end in ends if architecture.endswith(end)), None)
    if end is None or ends[end] not in kinds_of(form):
        there = ", ".join(HEADS[kind] for kind in kinds_of(form))
        raise InputError(f"{directory}: no reader for {architecture}: for {family} there are {there}")
    named = plain.get("id2label")
    several = (len(named) if named and isinstance(named, dict) else plain.get("num_labels")) != 1
    problem = plain.get("problem_type")
    if ends[end] == "classify" and (problem == "multi_label_classification" or (problem == "regression" and several)):
        raise InputError(
            f"{directory}: config.json has problem_type {problem}{' of several numbers' if several else ''}: jaxmlm "
            "predicts one label of several, or one number"
        )
    # princeton-nlp/efficient_mlm_* call themselves RoBERTa and have pre-layer-norm.
    if form is ROBERTA and any(name.endswith("layer.0.attention.LayerNorm.weight") for name in names):
        form = PRE_ROBERTA._replace(prefix=ROBERTA.prefix)
    return form, ends[end]


def _kind(form: Format, names: set[str]) -> str:
    """The kind of model that the names of its weights tell."""
    if "classifier.out_proj.weight" in names:
        return "classify"
    if "classifier.weight" in names:
        return "classify" if form.prefix + "pooler.dense.weight" in names else "tokens"
    if "qa_outputs.weight" in names:
        return "answer"
    head = form.head or "head.dense."  # of ModernBERT
    return "mlm" if any(name.startswith(head) for name in names) else "encoder"


def config_of(form: Format, plain: dict[str, Any], directory: Path) -> tuple[EncoderConfig, int, int]:
    """The encoder that this config.json describes, its vocabulary, and the position rows before the first."""

    def refuse(name: str, allowed: str) -> InputError:
        return InputError(f"{directory}: config.json has {name} {plain.get(name)!r}: jaxmlm computes {allowed} only")

    activation = "hidden_activation" if form is MODERN else "hidden_act"
    if plain.get(activation, "gelu") not in _ACTIVATIONS:
        raise refuse(activation, " or ".join(_ACTIVATIONS))
    gelu = _ACTIVATIONS[plain.get(activation, "gelu")]
    if form not in (BERT, MODERN) and gelu != "gelu":
        raise refuse(activation, f"gelu (the head of a {form.family} is exact always)")
    for name, allowed in (
        *([] if form is ESM else [("position_embedding_type", "absolute")]),
        ("is_decoder", False),
        ("add_cross_attention", False),
    ):
        if plain.get(name, allowed) != allowed:
            raise refuse(name, repr(allowed))
    counts = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
    for name in (*counts, *(["pad_token_id"] if form.offset and "pad_token_id" in plain else [])):
        if not isinstance(plain.get(name), int):
            raise refuse(name, "whole numbers")
    sizes = {
        "layers": plain["num_hidden_layers"],
        "width": plain["hidden_size"],
        "heads": plain["num_attention_heads"],
        "mlp": plain["intermediate_size"],
        "init": float(plain.get("initializer_range", 0.02)),
        "tied": plain.get("tie_word_embeddings", True),
    }
    if form is MODERN:
        return _modern(plain, sizes, gelu, refuse, directory), plain["vocab_size"], 0
    offset = plain.get("pad_token_id", 1) + 1 if form.offset else 0
    positions: dict[str, Any] = {}
    if form is ESM:
        for name, usual, allowed in (
            ("position_embedding_type", "absolute", "rotary"),
            ("token_dropout", False, False),
            ("is_folding_model", False, False),
        ):
            if plain.get(name, usual) != allowed:
                raise refuse(name, repr(allowed))
        base = float(plain.get("rope_theta", 10_000.0))
        positions = {"positions": "rope", "rope_base": base, "embed_norm": bool(plain.get("emb_layer_norm_before"))}
    config = EncoderConfig(
        **sizes,
        norm="pre" if form.pre else "post",
        activation=gelu,  # type: ignore[arg-type]
        token_types=0 if form is ESM else plain.get("type_vocab_size", 2),
        max_positions=plain.get("max_position_embeddings", 512) - offset,
        norm_eps=float(plain.get("layer_norm_eps", 1e-12)),
        dropout=float(plain.get("hidden_dropout_prob", 0.1)),
        attention_dropout=float(plain.get("attention_probs_dropout_prob", 0.1)),
        **positions,
    )
    return config, plain["vocab_size"], offset


def _modern(plain: dict[str, Any], sizes: dict[str, Any], gelu: str, refuse: Any, directory: Path) -> EncoderConfig:
    biases = [bool(plain.get(name, False)) for name in _BIASES]
    if len(set(biases)) > 1:
        said = ", ".join(f"{name} {value}" for name, value in zip(_BIASES, biases, strict=True))
        raise InputError(f"{directory}: config.json has {said}: jaxmlm computes all of these biases or none")
    if not plain.get("decoder_bias", True):
        raise refuse("decoder_bias", "True")
    if _ACTIVATIONS.get(plain.get("classifier_activation", "gelu")) != gelu:
        raise refuse("classifier_activation", "that of the blocks")
    pool = plain.get("classifier_pooling", "cls")
    if pool not in _POOLS:
        raise refuse("classifier_pooling", " or ".join(_POOLS))
    layers = sizes["layers"]
    kinds = plain.get("layer_types")
    every = plain.get("global_attn_every_n_layers", 3)
    if kinds is not None:
        every = next((n for n in range(1, layers + 1) if kinds == _kinds(layers, n)), None)
        if every is None:
            raise refuse("layer_types", "full_attention at every n-th layer, the first included")
    if plain.get("rope_scaling"):
        raise refuse("rope_scaling", "None")
    ropes = plain.get("rope_parameters") or {}
    whole, local = (ropes.get(kind) or {} for kind in ("full_attention", "sliding_attention"))
    if {whole.get("rope_type", "default"), local.get("rope_type", "default")} != {"default"}:
        raise refuse("rope_parameters", "rope_type default")
    base = float(whole.get("rope_theta", plain.get("global_rope_theta", 160_000.0)))
    # Null, in the files of transformers 4, is the base of the layers that see everything.
    local_base = local.get("rope_theta", plain.get("local_rope_theta", 10_000.0))
    # Layers that all see the whole document have no window.
    windowed = every > 1
    windows = {"window": plain.get("local_attention", 128), "global_every": every} if windowed else {}
    return EncoderConfig(
        **sizes,
        positions="rope",
        activation="geglu_tanh" if gelu == "gelu_tanh" else "geglu",
        biases=biases[0],
        first_norm=False,
        pool=_POOLS[pool],  # type: ignore[arg-type]
        **windows,
        rope_base=base,
        local_rope_base=(base if local_base is None else float(local_base)) if windowed else None,
        max_positions=plain.get("max_position_embeddings", 8192),
        norm_eps=float(plain.get("norm_eps", 1e-5)),
        dropout=float(plain.get("mlp_dropout", 0.0)),
        attention_dropout=float(plain.get("attention_dropout", 0.0)),
    )


def _kinds(layers: int, every: int) -> list[str]:
    return ["sliding_attention" if i % every else "full_attention" for i in range(layers)]


def format_for(config: EncoderConfig, kind: str) -> Format:
    """The format that computes exactly what this encoder does; InputError says what none has."""

    def others(form: Format) -> list[str]:
        return [name for name, values in _HOLDS[form].items() if getattr(config, name) not in values]

    # Of those with these positions, the one that has most of the rest.
    form = min(_HOLDS, key=lambda form: ("positions" in others(form), len(others(form))))
    if wrong := others(form):
        told = ", ".join(
            f"model.{name} {getattr(config, name)} (it has {' or '.join(map(str, _HOLDS[form][name]))})"
            for name in wrong
        )
        raise InputError(
            f"the transformers format cannot hold this encoder: its {form.family} is the nearest, which has no {told}: "
            "pre-train with those options to export"
        )
    if kind not in kinds_of(form):
        raise InputError(
            f"{form.family}, the transformers format of an encoder like this one, has no {form.family}{HEADS[kind]} "
            "that computes the same: export the masked LM, or fine-tune an encoder with model.positions learned"
        )
    if kind == "classify" and config.pool == "mean" and form is not MODERN:
        raise InputError(
            f"{form.family}{HEADS[kind]}, the transformers format of this model, classifies from the first token, and "
            "this encoder has model.pool mean: fine-tune with --pool first to export"
        )
    return form


def plain_of(form: Format, config: EncoderConfig, kind: str, vocab: int, ids: dict[str, int]) -> dict[str, Any]:
    """The config.json of an encoder that `format_for` found a format for; `ids` of pad, cls, sep and mask."""
    c = config
    family = next(name for name, other in FORMATS.items() if other is form)
    gelu = "gelu_pytorch_tanh" if c.activation.endswith("tanh") else "gelu"
    shared = {
        "architectures": [form.family + HEADS[kind]],
        "model_type": family,
        "vocab_size": vocab,
        "num_hidden_layers": c.layers,
        "hidden_size": c.width,
        "num_attention_heads": c.heads,
        "intermediate_size": c.mlp or 4 * c.width,
        "initializer_range": c.init,
        "tie_word_embeddings": c.tied,
        "pad_token_id": ids["pad"],
        "bos_token_id": ids["cls"],
        "eos_token_id": ids["sep"],
        "dtype": "float32",
    }
    if form is MODERN:
        local = c.local_rope_base or c.rope_base
        every = 1 if c.window is None else c.global_every
        return shared | {
            "cls_token_id": ids["cls"],
            "sep_token_id": ids["sep"],
            "max_position_embeddings": c.max_positions,
            "hidden_activation": gelu,
            "classifier_activation": gelu,
            "classifier_pooling": next(theirs for theirs, ours in _POOLS.items() if ours == c.pool),
            "classifier_dropout": c.dropout,
            "norm_eps": c.norm_eps,
            "local_attention": c.window or 128,
            "layer_types": _kinds(c.layers, every),
            # As transformers 4 reads them: it passes over layer_types and rope_parameters without a word.
            "global_attn_every_n_layers": every,
            "global_rope_theta": c.rope_base,
            "local_rope_theta": local,
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": c.rope_base},
                "sliding_attention": {"rope_type": "default", "rope_theta": local},
            },
            "mlp_dropout": c.dropout,
            "attention_dropout": c.attention_dropout,
            **dict.fromkeys(_BIASES, c.biases),
        }
    tables = {
        "hidden_act": gelu,
        "hidden_dropout_prob": c.dropout,
        "attention_probs_dropout_prob": c.attention_dropout,
        "layer_norm_eps": c.norm_eps,
        "max_position_embeddings": c.max_positions + (ids["pad"] + 1 if form.offset else 0),
    }
    if form is ESM:
        rotary = {"position_embedding_type": "rotary", "rope_theta": c.rope_base, "token_dropout": False}
        return shared | tables | rotary | {"emb_layer_norm_before": c.embed_norm, "mask_token_id": ids["mask"]}
    return shared | tables | {"type_vocab_size": c.token_types or 1}
