"""Tokenizers of the `transformers` format: WordPiece and byte-level BPE read, SentencePiece written."""

import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from jaxmlm import hub
from jaxmlm.data.hf_config import feeds_types, settled
from jaxmlm.data.sentencepiece_tokenizer import SentencePieceTokenizer, parsed
from jaxmlm.data.tokenizer import SPECIAL, Tokenizer, clean
from jaxmlm.data.tokenizer_json import completed, library, opened
from jaxmlm.data.word_boundaries import boundaries, piece_text
from jaxmlm.errors import InputError, reading
from jaxmlm.textfiles import read_bytes

MOST_UNUSED = 1 << 16
"""Token ids without a token that a small vocabulary may have."""


class HfTokenizer:
    """A WordPiece, byte-level BPE or Unigram tokenizer of a tokenizer.json; a `Tokenizer`.

    Args:
        directory: the directory with the tokenizer.json, and what `transformers` has written beside it.

    Attributes:
        directory: that directory.
        kind: "WordPiece", "BPE" or "Unigram".

    Raises:
        InputError: there is none, it is not a tokenizer, lacks one of the five special tokens, or nothing in it tells
            where words start.

    """

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)
        with reading(self.directory / "tokenizer.json", "a tokenizer"):
            self._open()

    def _open(self) -> None:
        directory = self.directory
        self.model, self._tokenizer, ids = completed(directory)
        self._tokenizer.encode_special_tokens = True  # text that spells one is text
        plain = json.loads(self.model)
        self.kind: str = plain["model"].get("type", "BPE")
        used = self._tokenizer.get_vocab(with_added_tokens=True).values()
        if len(set(used)) < len(used):
            raise InputError(
                f"{directory}: two tokens of the tokenizer have the same id: give each its own in tokenizer.json"
            )
        self.size: int = max(used) + 1  # ids may have holes
        if self.size > 4 * len(used) + MOST_UNUSED:
            raise InputError(
                f"{directory / 'tokenizer.json'}: the largest token id is {self.size - 1:,}, but there are only "
                f"{len(used):,} tokens: number them from 0"
            )
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (ids[name] for name in SPECIAL)
        self._pieces = [self._tokenizer.id_to_token(i) or "" for i in range(self.size)]
        marked = {self._tokenizer.token_to_id(token["content"]) for token in plain["added_tokens"] if token["special"]}
        places = np.arange(self.size)
        self.special = np.isin(places, [*marked, *ids.values()]) | ~np.isin(places, list(used))
        # Unigram models have the special tokens among their pieces, where a text that spells one finds it.
        self._no_text = {*np.flatnonzero(self.special).tolist()} - {self.unk_id}
        self.boundaries = boundaries(self._pieces, self.special)
        self.piece_texts = [
            "" if s else piece_text(p, self.kind) for p, s in zip(self._pieces, self.special, strict=True)
        ]
        self.pair_separator_ids = self._pair_separator_ids()

    def _pair_separator_ids(self) -> list[int]:
        """What tokenizer.json puts between the two texts of a pair (RoBERTa: two separators)."""
        one = len(self.encode("a"))
        pair = self._tokenizer.encode("a", "a").ids
        between = pair[1 + one : len(pair) - 1 - one]
        # A file without such a rule joins the texts with nothing between: then the usual separator.
        return between if between and set(between) <= {self.cls_id, self.sep_id} else [self.sep_id]

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without special tokens: one that the text spells is text, or unknown."""
        return self._text_ids(self._tokenizer.encode(clean(text), add_special_tokens=False).ids)

    def encode_masked(self, text: str) -> list[int]:
        """The ids of a text in which the mask token stands as the vocabulary writes it, and no other special one."""
        found = self._with_mask.encode(clean(text), add_special_tokens=False).ids
        return [i if i == self.mask_id else self._text_ids([i])[0] for i in found]

    @cached_property
    def _with_mask(self) -> Any:
        """The same tokenizer, which reads the mask token where a text spells it: one that is no longer special."""
        plain = json.loads(self.model)
        for token in plain["added_tokens"]:
            token["special"] &= token["content"] != self._pieces[self.mask_id]
        found = opened(json.dumps(plain, ensure_ascii=False).encode(), self.directory)
        found.encode_special_tokens = True
        return found

    @property
    def types(self) -> bool:
        """Whether `transformers` gives the second text of a pair a token type of its own."""
        return feeds_types(self.directory, self._tokenizer.encode("a", "a").type_ids)

    @property
    def notes(self) -> list[str]:
        """What of its tokenizer.json is not read as it stands there, since tokenizer_config.json says otherwise."""
        return settled(read_bytes(self.directory / "tokenizer.json", "a tokenizer"), self.directory)[1]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """The ids of several texts, without special tokens."""
        found = self._tokenizer.encode_batch_fast(list(map(clean, texts)), add_special_tokens=False)
        return [self._text_ids(encoding.ids) for encoding in found]

    def encode_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and, for each, the characters [begin, end) of the text that it stands for, without the space before."""
        found = self._tokenizer.encode(clean(text), add_special_tokens=False)
        empty = [piece == "\u2581" for piece in found.tokens]  # a word start alone stands for no character
        return self._text_ids(found.ids), [
            _trimmed(text, at[0], at[1], none) for at, none in zip(found.offsets, empty, strict=True)
        ]

    def _text_ids(self, ids: list[int]) -> list[int]:
        return [self.unk_id if i in self._no_text else i for i in ids]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these ids; special tokens are left out."""
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The pieces of these ids, as the vocabulary writes them."""
        return [self._pieces[int(i)] for i in ids]

    def save(self, directory: Path) -> None:
        """Write the tokenizer's files into a directory."""
        (directory / "tokenizer.json").write_bytes(self.model)
        ids = {"pad": self.pad_id, "unk": self.unk_id, "cls": self.cls_id, "sep": self.sep_id, "mask": self.mask_id}
        names = {name: self._pieces[i] for name, i in ids.items()}
        (directory / "tokenizer_config.json").write_bytes(_config(names, {}))


def _trimmed(text: str, begin: int, end: int, empty: bool) -> tuple[int, int]:
    while begin < end and text[begin].isspace():
        begin += 1
    return begin, begin if empty else end


def export_tokenizer(tokenizer: Tokenizer, directory: str | Path, most: int, types: bool = False) -> None:
    """Write the files of `exported_files` into a directory, which is made where there is none."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in exported_files(tokenizer, most, types).items():
        (directory / name).write_bytes(content)


def exported_files(tokenizer: Tokenizer, most: int, types: bool) -> dict[str, bytes]:
    """Make the files by which `transformers` reads a tokenizer.

    The ids of a text are those of `encode`, but for texts that spell a special token: there it is one.

    Args:
        tokenizer: a `SentencePieceTokenizer` or an `HfTokenizer`.
        most: tokens of the longest input of the model.
        types: whether the model has token types, of which the second text of a pair gets the second.

    Returns:
        Their contents, by name: tokenizer.json and tokenizer_config.json.

    Raises:
        InputError: no such files give the same ids.

    """
    if isinstance(tokenizer, HfTokenizer):
        model = _templated(tokenizer, types)
    elif isinstance(tokenizer, SentencePieceTokenizer):
        model = sentencepiece_json(tokenizer, types).encode()
    else:
        raise InputError(
            f"a {type(tokenizer).__name__} cannot be written as a tokenizer.json: only a SentencePieceTokenizer or an "
            "HfTokenizer can"
        )
    ids = {"pad": tokenizer.pad_id, "unk": tokenizer.unk_id, "cls": tokenizer.cls_id, "sep": tokenizer.sep_id}
    names = {name: tokenizer.pieces([i])[0] for name, i in {**ids, "mask": tokenizer.mask_id}.items()}
    inputs = ["input_ids", *(["token_type_ids"] if types else []), "attention_mask"]
    config = _config(names, {"model_max_length": most, "model_input_names": inputs})
    return {"tokenizer.json": model, "tokenizer_config.json": config}


def _templated(tokenizer: HfTokenizer, types: bool) -> bytes:
    """Its tokenizer.json, with a template of texts and pairs that gives the ids and types that our models get."""
    made = opened(tokenizer.model, tokenizer.directory)
    one = tokenizer.encode("a")
    cls = tokenizer.cls_id
    sep = tokenizer.sep_id
    pair = [cls, *one, *tokenizer.pair_separator_ids, *one, sep]
    second = [0] * (len(one) + 2) + [1] * (len(pair) - len(one) - 2)
    found = made.encode("a", "a")
    same = made.encode("a").ids == [cls, *one, sep] and found.ids == pair
    if same and (not types or found.type_ids == second):
        return tokenizer.model
    from tokenizers import processors

    template = _template(tokenizer, types)
    byte_level = [processors.ByteLevel(trim_offsets=True)] if tokenizer.kind == "BPE" else []
    made.post_processor = processors.Sequence([*byte_level, template]) if byte_level else template
    return made.to_str().encode()


def _template(tokenizer: Tokenizer, types: bool) -> Any:
    """`[cls] a [sep]` and `[cls] a SEPARATORS b [sep]`; type 1 begins after the first separator, as in BERT."""
    from tokenizers import processors

    ids = {tokenizer.cls_id, tokenizer.sep_id}
    name = {i: tokenizer.pieces([i])[0] for i in ids}
    cls = name[tokenizer.cls_id]
    sep = name[tokenizer.sep_id]
    first, *more = (name[i] for i in tokenizer.pair_separator_ids)
    one = [f"{cls}:0", "$A:0"]
    second = int(types)
    two = [*(f"{token}:{second}" for token in more), f"$B:{second}", f"{sep}:{second}"]
    return processors.TemplateProcessing(
        single=[*one, f"{sep}:0"],
        pair=[*one, f"{first}:0", *two],
        special_tokens=[(token, i) for i, token in name.items()],
    )


def _config(names: dict[str, str], more: dict[str, Any]) -> bytes:
    plain = {"tokenizer_class": "PreTrainedTokenizerFast", **more}
    plain |= {f"{name}_token": piece for name, piece in names.items()}
    return (json.dumps(plain, indent=2) + "\n").encode()


def open_tokenizer(path: str | Path) -> Tokenizer:
    """Open a tokenizer.

    Args:
        path: a directory with a tokenizer.json or a tokenizer.model, such a file, or a name of the Hub (hf:org/name).

    Raises:
        InputError: there is none, or it is damaged.

    """
    path = hub.local(path, hub.TOKENIZER)
    if path.is_dir():
        names = ("tokenizer.json", "tokenizer.model")
        path = next((path / name for name in names if (path / name).is_file()), path)
    if path.name == "tokenizer.json":
        return HfTokenizer(path.parent)
    if path.is_file() and path.suffix != ".json":
        return SentencePieceTokenizer.load(path)
    raise InputError(
        f"no tokenizer at {path}: give a directory with a tokenizer.model or tokenizer.json, or such a file"
    )


def sentencepiece_json(tokenizer: SentencePieceTokenizer, types: bool = False) -> str:
    """Make the tokenizer.json of a SentencePiece unigram model: the same pieces, scores and character map.

    Args:
        tokenizer: the model.
        types: as `exported_files` takes it.

    Raises:
        InputError: it is not unigram, or has byte fallback.

    """
    tokenizers = library()
    from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

    model = parsed(tokenizer.model)
    if model.trainer_spec.model_type != 1 or model.trainer_spec.byte_fallback:  # 1: unigram
        raise InputError(
            "only unigram tokenizers without byte fallback have a tokenizer.json of the same ids: train one with "
            "data.model_type unigram and data.byte_fallback False to export to the transformers format"
        )
    vocabulary = [(piece.piece, piece.score) for piece in model.pieces]
    made = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=tokenizer.unk_id, byte_fallback=False))
    rule = model.normalizer_spec
    # The map alone drops the marks of a letter that has an entry: letters with marks are composed and lowered before.
    kept = _not_lowered(tokenizer) if rule.name.endswith("_cf") else {}
    lowered = [normalizers.Lowercase()] if rule.name.endswith("_cf") else []
    steps: list[Any] = [
        normalizers.NFC(),
        *(normalizers.Replace(letter, aside) for letter, aside in kept.items()),
        *lowered,
        normalizers.Precompiled(rule.precompiled_charsmap),
        *(normalizers.Replace(aside, letter) for letter, aside in kept.items()),
        normalizers.Replace(Regex(" {2,}"), " "),
        normalizers.Strip(left=False, right=True),
    ]
    made.normalizer = normalizers.Sequence(steps)
    # "first": what stands right after <mask> is not a new word unless a space says so.
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="first")
    made.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme="first")
    names = tokenizer.pieces(range(5))
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names[:4]])
    made.add_special_tokens([AddedToken(names[4], special=True, normalized=False, lstrip=True)])
    made.post_processor = _template(tokenizer, types)
    return made.to_str()


def _not_lowered(tokenizer: SentencePieceTokenizer) -> dict[str, str]:
    """Capitals that the character map leaves as they are, each with a private character to stand aside as."""
    capitals = [letter for letter in map(chr, range(0x80, 0x3000)) if letter.lower() != letter]
    with_map = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)
    left = [letter for letter in capitals if letter in with_map.normalize(letter)]
    return {letter: chr(0xE000 + i) for i, letter in enumerate(left)}
