"""A tokenizer.json, completed by what the files beside it say of special tokens, as `transformers` does it."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxmlm.data.hf_config import settled
from jaxmlm.data.tokenizer import SPECIAL
from jaxmlm.errors import InputError, reading
from jaxmlm.json_files import parse_json, read_json
from jaxmlm.textfiles import read_bytes
from jaxmlm.wording import install_command

BESIDE = ("tokenizer_config.json", "special_tokens_map.json")
_PROBE = "A cat, 12 owls\tand \u00e9t\u00e9 \ufb01 \u4e2d\u6587 \U0001f600\n\ufffd."
"""A text of several writings: a vocabulary that cannot encode it is refused when it is opened."""
_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def library() -> Any:
    """The tokenizers library; InputError where it is not installed."""
    try:
        import tokenizers
    except ImportError as error:
        raise InputError(f"tokenizer.json needs the tokenizers library: {install_command('hf')}") from error
    return tokenizers


def opened(model: bytes, where: Path) -> Any:
    """The library's tokenizer of a tokenizer.json, without what is a setting of its use and not of its vocabulary.

    Padding and truncation that somebody had on when they saved it would be in every text, and the dropout of BPE would
    cut a text otherwise each time.
    """
    tokenizers = library()
    with reading(where, "a tokenizer of the tokenizers library"):
        text = model.decode("utf-8")
        for part in _parts(parse_json(text, where, "a tokenizer")):
            _check_part(part)
        found = tokenizers.Tokenizer.from_str(text)
        found.no_padding()
        found.no_truncation()
        if getattr(found.model, "dropout", None) is not None:
            found.model.dropout = None
        found.encode(_PROBE, _PROBE)
    return found


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a tokenizer.json, but for what is in vocabularies and merges."""
    if isinstance(value, dict):
        yield value
        value = [part for key, part in value.items() if key not in ("vocab", "merges")]
    if isinstance(value, list):
        for part in value:
            yield from _parts(part)


def _check_part(part: dict[str, Any]) -> None:
    """Refuse what the library panics at, with lines of its own on stderr, or ends the process.

    Raises:
        ValueError: the object is such a one.

    """
    if isinstance(charsmap := part.get("precompiled_charsmap"), str):
        check_charsmap(base64.b64decode(charsmap, validate=True))
    if part.get("pattern") in ({"String": ""}, {"Regex": ""}):
        raise ValueError(f"the pattern of a {part.get('type')} is empty")
    if part.get("type") == "TemplateProcessing":
        named = [piece["SpecialToken"]["id"] for piece in [*part["single"], *part["pair"]] if "SpecialToken" in piece]
        if lacking := [name for name in named if name not in part["special_tokens"]]:
            raise ValueError(f"the template names {lacking[0]!r}, which is not among its special tokens")
    if prefix := part.get("continuing_subword_prefix"):
        for merge in part.get("merges") or ():
            if not (merge.split(" ") if isinstance(merge, str) else merge)[1].startswith(prefix):
                raise ValueError(f"the merge {str(merge)[:60]} does not continue a word with {prefix[:20]!r}")


def check_charsmap(charsmap: bytes) -> None:
    """Refuse a character map of SentencePiece in which a text can lead to a place that is not there.

    The library panics at one, with its own lines on stderr. The map is the size of a trie, the trie (a double array of
    https://github.com/s-yata/darts-clone, 32 bits a unit), and the texts that its leaves name, each ended by a NUL.

    Raises:
        ValueError: it is damaged.

    """
    size = int.from_bytes(charsmap[:4], "little")
    if len(charsmap) < 4 or size % 4 or not 1024 <= size <= min(len(charsmap) - 4, 1 << 24):
        raise ValueError("the character map has no trie of its size")
    units = np.frombuffer(charsmap, "<u4", size // 4, 4).astype(np.int64)
    texts = charsmap[4 + size :]
    texts.decode("utf-8")
    begins = (np.frombuffer(texts, np.uint8) & 0xC0) != 0x80  # where a character begins
    known = np.zeros(len(units), bool)
    left = _offset(units[:1])
    while len(left):
        block = left[:4096]
        left = left[4096:]
        if (block | 0xFF).max() >= len(units):
            raise ValueError("the trie of the character map leads out of itself")
        known[block] = True
        places = block[:, None] ^ np.arange(1, 256)
        children = units[places]
        below = (children & 0x8000_00FF) == np.arange(1, 256)
        bases = places[below] ^ _offset(children[below])
        leaves = bases[(children[below] >> 8 & 1).astype(bool)]
        if leaves.max(initial=0) >= len(units):
            raise ValueError("the trie of the character map leads out of itself")
        values = units[leaves] & 0x7FFF_FFFF
        if values.max(initial=-1) >= len(begins) or not begins[values].all():
            raise ValueError("the trie of the character map names a text that is not there")
        bases = np.unique(bases)
        if bases.max(initial=0) >= len(units):
            raise ValueError("the trie of the character map leads out of itself")
        left = np.concatenate([left, bases[~known[bases]]])


def _offset(units: np.ndarray) -> np.ndarray:
    """Of each unit of a double array the distance to its children."""
    return (units >> 10) << ((units & 0x200) >> 6)


def completed(directory: Path) -> tuple[bytes, Any, dict[str, int]]:
    """The tokenizer.json in which all special tokens are added tokens, its tokenizer, and the ids of `SPECIAL`.

    Its bytes are those of the file where that has them all. A token that only tokenizer_config.json or
    special_tokens_map.json names has its id in the vocabulary; one of `SPECIAL` that is not there gets the next id.
    """
    file = directory / "tokenizer.json"
    if not file.is_file():
        raise InputError(
            f"{directory} has no tokenizer.json: write one with transformers, "
            "AutoTokenizer.from_pretrained(NAME).save_pretrained(DIRECTORY)"
        )
    model, _ = settled(read_bytes(file, "a tokenizer").removeprefix(b"\xef\xbb\xbf"), directory)
    tokenizer = opened(model, file)
    ids = tokenizer.get_vocab(with_added_tokens=True)
    said = [read_json(directory / name) for name in BESIDE if (directory / name).is_file()]
    roles = {what: _role(what, said, ids, directory) for what in SPECIAL}
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


def _role(what: str, said: list[dict[str, Any]], ids: dict[str, int], directory: Path) -> dict[str, Any]:
    """The token that stands for one of `SPECIAL`: the first that a file names, if it can be in the vocabulary."""
    named = [token for about in said for token in _tokens(about.get(f"{what}_token"))]
    usual = [token for name in SPECIAL[what] for token in _tokens(name) if name in ids]
    found = [*(token for token in named if token["content"] in ids), *named, *usual]
    if not found:
        raise InputError(f"{directory}: the tokenizer has no {what} token: a masked language model needs one")
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
