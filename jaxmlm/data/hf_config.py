"""What tokenizer_config.json says beside a tokenizer.json, as `transformers` takes the two together."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from jaxmlm.json_files import parse_json, read_json


class _Built(NamedTuple):
    """A tokenizer class that `transformers` builds by its own options instead of reading it off tokenizer.json.

    `settings`: by their names in the part `part` of tokenizer.json, the options in tokenizer_config.json and their
    defaults. `types` of the parts that it builds, or those that it takes over.
    """

    model: str
    part: str
    settings: dict[str, tuple[str, Any]]
    types: dict[str, tuple[str | None, ...]]


_BYTE_LEVEL = _Built(
    "BPE",
    "pre_tokenizer",
    {"add_prefix_space": ("add_prefix_space", False)},
    {"normalizer": (None,), "pre_tokenizer": ("ByteLevel",)},
)
_UNIGRAM = _Built("Unigram", "", {}, {"normalizer": (None, "Precompiled"), "pre_tokenizer": ("Sequence",)})
_BUILT = {
    "BertTokenizer": _Built(
        "WordPiece",
        "normalizer",
        {
            "lowercase": ("do_lower_case", True),
            "strip_accents": ("strip_accents", None),
            "handle_chinese_chars": ("tokenize_chinese_chars", True),
        },
        {"normalizer": ("BertNormalizer",), "pre_tokenizer": ("BertPreTokenizer",)},
    ),
    "RobertaTokenizer": _BYTE_LEVEL,
    "GPT2Tokenizer": _BYTE_LEVEL,
    "XLMRobertaTokenizer": _UNIGRAM,
    "CamembertTokenizer": _UNIGRAM,
}
_BUILT |= dict.fromkeys(("DistilBertTokenizer", "ElectraTokenizer"), _BUILT["BertTokenizer"])
_USUAL = {
    **dict.fromkeys(("bert", "distilbert", "electra"), "BertTokenizer"),
    **dict.fromkeys(("roberta", "roberta-prelayernorm"), "RobertaTokenizer"),
    **{"xlm-roberta": "XLMRobertaTokenizer", "camembert": "CamembertTokenizer"},
}
"""The class of a `model_type` where tokenizer_config.json names none."""
_WITH_TYPES = ("BertTokenizer", "ElectraTokenizer")
"""Classes with a template of their own, in which the second text has type 1."""


def settled(model: bytes, directory: Path) -> tuple[bytes, list[str]]:
    """The tokenizer.json of a directory as `transformers` reads it, and in notes what that changes or leaves open."""
    name = _class_of(directory)
    plain = parse_json(model, directory / "tokenizer.json", "a tokenizer")
    built = _BUILT.get(name)
    if built is None:
        return model, []
    for part, types in {"model": (None, built.model), **built.types}.items():
        if (have := (plain.get(part) or {}).get("type")) not in types:
            return model, [
                f"tokenizer.json has the {part} {have}, and transformers builds a {name} with {types[-1]}: read as "
                "tokenizer.json says, so that texts may get other ids there"
            ]
    asked = _json(directory / "tokenizer_config.json")
    part = plain.get(built.part, {})
    notes = []
    for key, (option, usual) in built.settings.items():
        now = part.get(key, usual)
        wanted = asked.get(option, usual)
        if now != wanted:
            part[key] = wanted
            whose = "" if option in asked else "by default "
            notes.append(
                f"tokenizer.json has {key} {json.dumps(now)}, and tokenizer_config.json ({name}) {whose}{option} "
                f"{json.dumps(wanted)}: read with {json.dumps(wanted)}, as transformers reads it"
            )
    return (json.dumps(plain, ensure_ascii=False).encode() if notes else model), notes


def feeds_types(directory: Path, template: list[int]) -> bool:
    """Whether `transformers` gives the second text of a pair a token type of its own.

    Args:
        directory: of the tokenizer.
        template: the token types of a pair by its tokenizer.json.

    """
    names = _json(directory / "tokenizer_config.json").get("model_input_names")
    if _class_of(directory) in _WITH_TYPES:
        return names is None or "token_type_ids" in names
    return "token_type_ids" in (names or ()) and 1 in template


def _class_of(directory: Path) -> str:
    family = _json(directory / "config.json").get("model_type")
    if family == "modernbert":  # whose published files name a class that is not theirs
        return ""
    name = _json(directory / "tokenizer_config.json").get("tokenizer_class") or _USUAL.get(str(family), "")
    return name.removesuffix("Fast")


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
