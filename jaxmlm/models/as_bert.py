"""Encoders that are BERT under other names: DistilBERT, and the discriminator of ELECTRA.

`as_bert` gives their config.json and the names of their weights as BERT has them, so that all else reads one family.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from jaxmlm.errors import InputError

RENAMED = ("distilbert", "electra")
"""Their `model_type` in config.json."""

_DISTILBERT_CONFIG = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
    "activation": "hidden_act",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}
_DISTILBERT_NAMES = {
    r"^distilbert\.": "bert.",
    r"^(bert\.)?transformer\.": r"\1encoder.",
    r"\.attention\.q_lin\.": ".attention.self.query.",
    r"\.attention\.k_lin\.": ".attention.self.key.",
    r"\.attention\.v_lin\.": ".attention.self.value.",
    r"\.attention\.out_lin\.": ".attention.output.dense.",
    r"\.sa_layer_norm\.": ".attention.output.LayerNorm.",
    r"\.ffn\.lin1\.": ".intermediate.dense.",
    r"\.ffn\.lin2\.": ".output.dense.",
    r"\.output_layer_norm\.": ".output.LayerNorm.",
    r"^vocab_transform\.": "cls.predictions.transform.dense.",
    r"^vocab_layer_norm\.": "cls.predictions.transform.LayerNorm.",
    r"^vocab_projector\.weight$": "cls.predictions.decoder.weight",
    r"^vocab_projector\.bias$": "cls.predictions.bias",
}
"""Patterns, one after the other, and what stands for them in BERT's names."""


class AsBert(NamedTuple):
    """A config.json as BERT's, and the new names of weights; None: a weight that no encoder needs."""

    config: dict[str, Any]
    names: dict[str, str | None]


def as_bert(plain: dict[str, Any], names: Iterable[str], directory: Path) -> AsBert:
    """Read a config.json and the names of its weights as BERT's; those of any other family as they are.

    Args:
        plain: the config.json.
        names: of the weights.
        directory: of both, for messages.

    Raises:
        InputError: the model has a part that BERT does not have.

    >>> found = as_bert({"model_type": "distilbert", "dim": 768}, ["transformer.layer.0.ffn.lin1.bias"], Path("x"))
    >>> found.config["hidden_size"], found.names
    (768, {'transformer.layer.0.ffn.lin1.bias': 'encoder.layer.0.intermediate.dense.bias'})

    """
    family = plain.get("model_type")
    if family == "distilbert":
        return _distilbert(plain, list(names), directory)
    if family == "electra":
        return _electra(plain, list(names), directory)
    return AsBert(plain, {})


def _distilbert(plain: dict[str, Any], names: list[str], directory: Path) -> AsBert:
    if "pre_classifier.weight" in names:
        raise InputError(
            f"{directory}: the classifier of DistilBERT has a ReLU, which jaxmlm does not compute: take a DistilBERT "
            "that is not fine-tuned on sentences, and fine-tune it here"
        )
    config = {_DISTILBERT_CONFIG.get(name, name): value for name, value in plain.items()}
    renamed: dict[str, str | None] = {}
    for name in names:
        new = name
        for pattern, to in _DISTILBERT_NAMES.items():
            new = re.sub(pattern, to, new)
        renamed[name] = new
    return AsBert(config | _called(plain, "DistilBert") | {"type_vocab_size": 0}, renamed)


def _electra(plain: dict[str, Any], names: list[str], directory: Path) -> AsBert:
    said = _called(plain, "Electra")
    architecture = next(iter(said.get("architectures", [])), "BertModel")
    if architecture.endswith(("ForMaskedLM", "ForSequenceClassification", "ForMultipleChoice", "ForCausalLM")):
        raise InputError(
            f"{directory}: no reader for {plain['architectures'][0]}: of ELECTRA jaxmlm reads the discriminator "
            "(ElectraForPreTraining, ElectraModel) and what is fine-tuned from it to tag tokens or answer questions"
        )
    if plain.get("embedding_size", plain.get("hidden_size")) != plain.get("hidden_size"):
        raise InputError(
            f"{directory}: config.json has embedding_size {plain['embedding_size']} and hidden_size "
            f"{plain.get('hidden_size')}: jaxmlm computes embeddings of the hidden size only, as ELECTRA base has them"
        )
    if architecture.endswith("ForPreTraining"):
        said = {"architectures": ["BertModel"]}
    renamed = {name: re.sub(r"^electra\.", "bert.", name) for name in names}
    gone = dict.fromkeys(name for name in names if name.startswith("discriminator_predictions."))
    return AsBert(plain | said | {"model_type": "bert"}, {**renamed, **gone})


def _called(plain: dict[str, Any], family: str) -> dict[str, Any]:
    """Its type and architectures as BERT's."""
    found: dict[str, Any] = {"model_type": "bert"}
    if isinstance(architectures := plain.get("architectures"), list):
        found["architectures"] = [re.sub(f"^{family}", "Bert", str(name)) for name in architectures]
    return found
