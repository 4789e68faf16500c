"""A folder's tokenizer.json, completed by what the files beside it say of special tokens, as `transformers` does it."""

import json
from pathlib import Path
from typing import Any

from jaxmlm.data.hf_config import settled
from jaxmlm.data.tokenizer import SPECIAL
from jaxmlm.errors import InputError
from jaxmlm.textfiles import read_json

BESIDE = ("tokenizer_config.json", "special_tokens_map.json")
_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def library() -> Any:
    """The tokenizers library; InputError where it is not installed."""
    try:
        import tokenizers
    except ImportError as error:
        raise InputError("tokenizer.json needs the tokenizers library: pip install 'jaxmlm[hf]'") from error
    return tokenizers


def opened(model: bytes, where: Path) -> Any:
    """The library's tokenizer of a tokenizer.json, without what is a setting of its use and not of its vocabulary.

    Padding and truncation that somebody had on when they saved it would be in every text, and the dropout of BPE would
    cut a text otherwise each time.
    """
    tokenizers = library()
    try:
        found = tokenizers.Tokenizer.from_str(model.decode("utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{where} is no tokenizer that the tokenizers library reads: {error}") from error
    found.no_padding()
    found.no_truncation()
    if getattr(found.model, "dropout", None) is not None:
        found.model.dropout = None
    return found


def completed(folder: Path) -> tuple[bytes, Any, dict[str, int]]:
    """The tokenizer.json in which all special tokens are added tokens, its tokenizer, and the ids of `SPECIAL`.

    Its bytes are those of the file where that has them all. A token that only tokenizer_config.json or
    special_tokens_map.json names has its id in the vocabulary; one of `SPECIAL` that is not there gets the next id.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise InputError(
            f"{folder} has no tokenizer.json: write one with transformers, "
            "AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)"
        )
    model, _ = settled(file.read_bytes().removeprefix(b"\xef\xbb\xbf"), folder)
    tokenizer = opened(model, file)
    ids = tokenizer.get_vocab(with_added_tokens=True)
    said = [read_json(folder / name) for name in BESIDE if (folder / name).is_file()]
    roles = {what: _role(what, said, ids, folder) for what in SPECIAL}
    special = [*roles.values(), *(token for token in _more(said) if token["content"] in ids)]
    plain = json.loads(model)
    have = plain.get("added_tokens") or []
    added = {token["content"]: token for token in have}
    size = tokenizer.get_vocab_size(with_added_tokens=False)
    for token in (*_decoded(said), *special):
        if (name := token["content"]) not in added:
            size = max(size, *(token["id"] + 1 for token in added.values()), 0)
            added[name] = {"id": ids.get(name, size), **token}
    names = {token["content"] for token in special}
    marked = [token | {"special": token["special"] or token["content"] in names} for token in added.values()]
    if marked != have:
        model = json.dumps(plain | {"added_tokens": marked}, ensure_ascii=False).encode()
        tokenizer = opened(model, file)
    return model, tokenizer, {what: tokenizer.token_to_id(token["content"]) for what, token in roles.items()}


def _role(what: str, said: list[dict[str, Any]], ids: dict[str, int], folder: Path) -> dict[str, Any]:
    """The token that stands for one of `SPECIAL`: the first that a file names, if it can be in the vocabulary."""
    named = [token for about in said for token in _tokens(about.get(f"{what}_token"))]
    usual = [token for name in SPECIAL[what] for token in _tokens(name) if name in ids]
    found = [*(token for token in named if token["content"] in ids), *named, *usual]
    if not found:
        raise InputError(f"{folder}: the tokenizer has no {what} token: a masked language model needs one")
    return found[0]


def _more(said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The other special tokens that the files name."""
    keys = ("bos_token", "eos_token", "additional_special_tokens", "extra_special_tokens")
    return [token for about in said for key in keys for token in _tokens(about.get(key))]


def _decoded(said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The added tokens, special or not, that tokenizer_config.json lists by their ids."""
    found = {int(i): token for about in said for i, token in (about.get("added_tokens_decoder") or {}).items()}
    return [token | {"special": bool(found[i].get("special"))} for i in sorted(found) for token in _tokens(found[i])]


def _tokens(value: Any) -> list[dict[str, Any]]:
    """What a field says of tokens, one or several, as tokenizer.json writes them."""
    if isinstance(value, str):
        value = {"content": value}
    if isinstance(value, list):
        return [token for part in value for token in _tokens(part)]
    if not isinstance(value, dict):
        return []
    if not isinstance(value.get("content"), str):  # names, each with its token
        return [token for part in value.values() for token in _tokens(part)]
    flags = {key: bool(value.get(key, usual)) for key, usual in _FLAGS.items()}
    return [{"content": value["content"], **flags, "special": True}] if value["content"] else []
