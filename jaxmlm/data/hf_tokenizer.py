"""Tokenizers of the `transformers` format: WordPiece and byte-level BPE read, SentencePiece written."""

import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from jaxmlm.data.tokenizer import SPECIAL, Tokenizer, boundaries, clean, surface
from jaxmlm.data.tokenizer_json import completed, library, opened
from jaxmlm.errors import InputError


class HfTokenizer(Tokenizer):
    """A WordPiece, byte-level BPE or Unigram tokenizer from a tokenizer.json, in the place of SentencePiece.

    `special` [V] bool marks the special tokens and the ids without a piece, `word_starts` [V] bool the pieces that
    start a word. `kind` is "WordPiece", "BPE" or "Unigram".
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.model, self._tokenizer, ids = completed(self.folder)
        self._tokenizer.encode_special_tokens = True  # text that spells one is text
        plain = json.loads(self.model)
        self.kind: str = plain["model"].get("type", "BPE")
        used = self._tokenizer.get_vocab(with_added_tokens=True).values()
        if len(set(used)) < len(used):
            raise InputError(
                f"{folder}: two tokens of the tokenizer have the same id: give each its own in tokenizer.json"
            )
        self.size: int = max(used) + 1  # ids may have holes
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (ids[name] for name in SPECIAL)
        self._pieces = [self._tokenizer.id_to_token(i) or "" for i in range(self.size)]
        marked = {self._tokenizer.token_to_id(token["content"]) for token in plain["added_tokens"] if token["special"]}
        places = np.arange(self.size)
        self.special = np.isin(places, [*marked, *ids.values()]) | ~np.isin(places, list(used))
        # Unigram models have the special tokens among their pieces, where a text that spells one finds it.
        self._no_text = {*np.flatnonzero(self.special).tolist()} - {self.unk_id}
        self.boundaries = boundaries(self._pieces, self.special)
        self.word_starts = (self.boundaries & 1).astype(bool)
        self.surfaces = ["" if s else surface(p, self.kind) for p, s in zip(self._pieces, self.special, strict=True)]

    @property
    def gap(self) -> list[int]:
        """What stands between the two texts of a pair, as its tokenizer.json puts it (RoBERTa: two separators)."""
        one, pair = len(self.encode("a")), self._tokenizer.encode("a", "a").ids
        between = pair[1 + one : len(pair) - 1 - one]
        # A file without such a rule joins the texts with nothing between: then the usual separator.
        return between if between and set(between) <= {self.cls_id, self.sep_id} else [self.sep_id]

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without special tokens: one that the text spells is text, or unknown."""
        return self._text_ids(self._tokenizer.encode(clean(text), add_special_tokens=False).ids)

    def encode_masked(self, text: str) -> list[int]:
        """The ids of a text in which the mask token stands as the vocabulary writes it."""
        return self._with_special.encode(clean(text), add_special_tokens=False).ids

    @cached_property
    def _with_special(self) -> Any:
        """The tokenizer as its file says: text that spells a special token is one."""
        return opened(self.model, self.folder)

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

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into a folder."""
        (folder / "tokenizer.json").write_bytes(self.model)
        ids = {"pad": self.pad_id, "unk": self.unk_id, "cls": self.cls_id, "sep": self.sep_id, "mask": self.mask_id}
        _write_config(folder, {name: self._pieces[i] for name, i in ids.items()}, {})


def _trimmed(text: str, begin: int, end: int, empty: bool) -> tuple[int, int]:
    while begin < end and text[begin].isspace():
        begin += 1
    return begin, begin if empty else end


def export_tokenizer(tokenizer: "Tokenizer | HfTokenizer", folder: str | Path, most: int) -> None:
    """Write tokenizer.json and tokenizer_config.json; `most` is the longest input of the model.

    The ids of a text are those of `encode`, but for texts that spell a special token: there it is one.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    own = isinstance(tokenizer, HfTokenizer)
    (folder / "tokenizer.json").write_bytes(tokenizer.model if own else sentencepiece_json(tokenizer).encode())
    ids = {"pad": tokenizer.pad_id, "unk": tokenizer.unk_id, "cls": tokenizer.cls_id, "sep": tokenizer.sep_id}
    names = {name: tokenizer.pieces([i])[0] for name, i in {**ids, "mask": tokenizer.mask_id}.items()}
    _write_config(folder, names, {"model_max_length": most})


def _write_config(folder: Path, names: dict[str, str], more: dict[str, Any]) -> None:
    plain = {"tokenizer_class": "PreTrainedTokenizerFast", **more}
    plain |= {f"{name}_token": piece for name, piece in names.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps(plain, indent=2) + "\n")


def open_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a folder (tokenizer.model or tokenizer.json) or in such a file."""
    path = Path(path).expanduser()
    if path.is_dir():
        names = ("tokenizer.json", "tokenizer.model")
        path = next((path / name for name in names if (path / name).is_file()), path)
    if path.name == "tokenizer.json":
        return HfTokenizer(path.parent)
    if path.is_file() and path.suffix != ".json":
        return Tokenizer.load(path)
    raise InputError(f"no tokenizer at {path}: give a folder with a tokenizer.model or tokenizer.json, or such a file")


def sentencepiece_json(tokenizer: Tokenizer) -> str:
    """The tokenizer.json of a SentencePiece unigram model: the same pieces, scores and character map."""
    tokenizers = library()
    from sentencepiece import sentencepiece_model_pb2 as messages
    from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

    model = getattr(messages, "ModelProto").FromString(tokenizer.model)  # noqa: B009 (made at run time)
    if model.trainer_spec.model_type != 1 or model.trainer_spec.byte_fallback:  # 1: unigram
        raise InputError(
            "only unigram tokenizers without byte fallback have a tokenizer.json of the same ids: train one with "
            "data.pieces unigram and data.byte_fallback False to export to the transformers format"
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
    # "first": what stands right after <mask> is no new word unless a space says so.
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="first")
    made.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme="first")
    names = tokenizer.pieces(range(5))
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names[:4]])
    made.add_special_tokens([AddedToken(names[4], special=True, normalized=False, lstrip=True)])
    cls, sep = (names[2], tokenizer.cls_id), (names[3], tokenizer.sep_id)
    made.post_processor = processors.TemplateProcessing(
        single=f"{cls[0]} $A {sep[0]}", pair=f"{cls[0]} $A {sep[0]} $B {sep[0]}", special_tokens=[cls, sep]
    )
    return made.to_str()


def _not_lowered(tokenizer: Tokenizer) -> dict[str, str]:
    """Capitals that the character map leaves as they are, each with a private character to stand aside as."""
    capitals = [letter for letter in map(chr, range(0x80, 0x3000)) if letter.lower() != letter]
    with_map = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)
    left = [letter for letter in capitals if letter in with_map.normalize(letter)]
    return {letter: chr(0xE000 + i) for i, letter in enumerate(left)}
