"""The types of the fields of a config.json, which anyone may have written: checked once, before they are used."""

from pathlib import Path
from typing import Any

from jaxmlm.errors import InputError

_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(
        (
            "vocab_size", "num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size",
            "max_position_embeddings", "type_vocab_size", "pad_token_id", "num_labels", "local_attention",
            "global_attn_every_n_layers",
        ),
        (int,),
    ),
    **dict.fromkeys(
        (
            "initializer_range", "layer_norm_eps", "norm_eps", "hidden_dropout_prob", "attention_probs_dropout_prob",
            "mlp_dropout", "attention_dropout", "rope_theta", "global_rope_theta", "local_rope_theta",
        ),
        (float, int),
    ),
    **dict.fromkeys(
        (
            "tie_word_embeddings", "is_decoder", "add_cross_attention", "emb_layer_norm_before", "token_dropout",
            "is_folding_model", "norm_bias", "attention_bias", "mlp_bias", "classifier_bias", "decoder_bias",
        ),
        (bool,),
    ),
    **dict.fromkeys(
        (
            "model_type", "hidden_act", "hidden_activation", "classifier_activation", "classifier_pooling",
            "position_embedding_type", "problem_type",
        ),
        (str,),
    ),
    "architectures": (list,),
    "layer_types": (list,),
    "rope_parameters": (dict,),
    "id2label": (dict,),
}  # fmt: skip
_SAID = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a string",
    list: "a list",
    dict: "an object",
}
_NULL_MEANS_SOMETHING = ("local_rope_theta",)
LARGEST = 2**31
"""No number of a config.json is larger than this."""


def checked(plain: dict[str, Any], directory: Path) -> dict[str, Any]:
    """The fields with the types that jaxmlm reads them by; null is as good as absent.

    Args:
        plain: the content of config.json.
        directory: its directory, for messages.

    Raises:
        InputError: a field has another type, or a number is negative, not finite or larger than `LARGEST`.

    """
    known = {}
    for name, value in plain.items():
        if value is None and name not in _NULL_MEANS_SOMETHING:
            continue
        if name in _TYPES and value is not None:
            _check(name, value, directory)
        known[name] = value
    for kind, rope in known.get("rope_parameters", {}).items():
        theta = rope.get("rope_theta", 1.0) if isinstance(rope, dict) else None
        if isinstance(rope, dict) and theta is not None:
            _check("rope_theta", theta, directory)
        elif not isinstance(rope, float | int | str | dict | None):
            raise InputError(f"{directory}: config.json has rope_parameters with {kind} {rope!r}: it must be an object")
    if not all(isinstance(one, str) for name in ("architectures", "layer_types") for one in known.get(name, [])):
        raise InputError(
            f"{directory}: config.json has architectures or layer_types that are not lists of strings: correct it"
        )
    return known


def _check(name: str, value: Any, directory: Path) -> None:
    types = _TYPES[name]
    good = isinstance(value, types) and (isinstance(value, bool) == (bool in types))
    if good and isinstance(value, float | int) and not isinstance(value, bool):
        good = 0 <= value <= LARGEST  # false of NaN
    if not good:
        shown = repr(value)
        shown = shown if len(shown) <= 40 else f"{shown[:40]}..."
        limits = f" from 0 to {LARGEST:,}" if int in types else ""
        raise InputError(f"{directory}: config.json has {name} {shown}: it must be {_SAID[types[0]]}{limits}")
