"""SentencePiece with fixed special ids, exact word starts and exact character offsets."""

import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import sentencepiece
from jaxtyping import Bool, UInt8

from jaxmlm.errors import InputError, reading
from jaxmlm.textfiles import read_bytes

PAD, UNK, CLS, SEP, MASK = range(5)
SPECIAL = {
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>", "<cls>"),
    "sep": ("[SEP]", "</s>", "<sep>"),
    "mask": ("[MASK]", "<mask>"),
}
"""What the special tokens are called in vocabularies of other makers."""
_SPACE = "\u2581"  # SentencePiece's mark of a word start
_GOES_ON, _BYTE_SPACE = "##", "\u0120"  # WordPiece's mark of a word's later pieces; byte-level BPE's space
_BEGINS = (_SPACE, _BYTE_SPACE)
_ENDS = ("</w>", "@@", _SPACE)  # marks at the ends of pieces, which other kinds of vocabularies have
_BYTE_PIECE = re.compile("<0x([0-9A-F]{2})>")  # of a vocabulary that spells in bytes what it lacks
_SURROGATE = re.compile("[\ud800-\udfff]")


class Tokenizer:
    """A trained SentencePiece model.

    Ids 0 to 4 are pad, unk, cls, sep and mask in every model that `train` makes; in others they are found by their
    usual names. `special` [V] bool marks them and all other control pieces,
    `boundaries` [V] uint8 says where words begin: see the function of that name. `word_starts` [V] bool is its bit 0.
    `surfaces` [V] are the pieces without the mark of a word start, empty for special ones: a word is their join.
    """

    def __init__(self, model: bytes):
        self.model = model
        self._sp = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.size: int = self._sp.get_piece_size()
        pieces = [self._sp.id_to_piece(i) for i in range(self.size)]
        ids = {
            what: next((pieces.index(name) for name in names if name in pieces), -1) for what, names in SPECIAL.items()
        }
        ids["unk"] = self._sp.unk_id()
        if lacking := [what for what, i in ids.items() if i < 0]:
            raise InputError(
                f"the tokenizer has no {lacking[0]} piece (looked for {' and '.join(SPECIAL[lacking[0]])}): a masked "
                "language model needs one; train the tokenizer with jaxmlm prepare"
            )
        if claimed := [i for i in ids.values() if i != self._sp.unk_id() and not self._sp.is_control(i)]:
            self._sp = sentencepiece.SentencePieceProcessor(model_proto=_as_control(model, claimed))
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (ids[what] for what in SPECIAL)
        control = [self._sp.is_control(i) or self._sp.is_unused(i) for i in range(self.size)]
        self._bytes = np.array([self._sp.is_byte(i) for i in range(self.size)])
        self.special = np.array(control) | np.isin(np.arange(self.size), list(ids.values()))
        self.boundaries = boundaries(pieces, self.special)
        self.word_starts = (self.boundaries & 1).astype(bool)
        no_text = self.special | self._bytes
        self.surfaces = ["" if n else p.replace(_SPACE, "") for p, n in zip(pieces, no_text, strict=True)]

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """The tokenizer in this `tokenizer.model` file."""
        model = read_bytes(Path(path), "a SentencePiece model")
        with reading(path, "a SentencePiece model (the .model file that its trainer wrote)"):
            return cls(model)

    def save(self, folder: Path) -> None:
        """Write the tokenizer's file into a folder."""
        (folder / "tokenizer.model").write_bytes(self.model)

    @property
    def gap(self) -> list[int]:
        """What stands between the two texts of a pair."""
        return [self.sep_id]

    @property
    def lowers(self) -> bool:
        """Whether it takes capital letters for small ones."""
        return self.encode("A") == self.encode("a")

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        size: int,
        lowercase: bool = True,
        model_type: str = "unigram",
        byte_fallback: bool = False,
    ) -> "Tokenizer":
        """Train a unigram or BPE model of `size` pieces on lines of text; NFKC normalised, lower-cased if asked.

        With `byte_fallback` 256 of the pieces are bytes, and a character that has no piece is spelt in them.
        """
        out = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=(
                    # It takes minutes over a line of megabytes without a space.
                    piece
                    for text in texts
                    for line in clean(text).split("\n")
                    for piece in pieces_of(line, 1 << 16)
                    if piece
                ),
                model_writer=out,
                vocab_size=size,
                model_type=model_type,
                byte_fallback=byte_fallback,
                normalization_rule_name="nmt_nfkc_cf" if lowercase else "nmt_nfkc",
                character_coverage=0.9995,
                pad_id=PAD,
                unk_id=UNK,
                bos_id=CLS,
                eos_id=SEP,
                pad_piece="<pad>",
                unk_piece="<unk>",
                bos_piece="<cls>",
                eos_piece="<sep>",
                control_symbols=["<mask>"],
                num_threads=1,  # more threads change the result from run to run
                minloglevel=2,
                max_sentence_length=1 << 20,
            )
        except RuntimeError as e:
            most = re.search(r"value <= (\d+)", str(e))
            if "Vocabulary size" in str(e) and most:
                raise InputError(
                    f"a vocabulary of {size} pieces is too large for this text, which gives at most {most[1]}: "
                    f"set data.vocab to {most[1]} or less, or give more text"
                ) from e
            if few := re.search(r"smaller than required_chars. \d+ vs (\d+)", str(e)):
                raise InputError(
                    f"a vocabulary of {size} pieces is too small for the characters of this text: set data.vocab to "
                    f"{few[1]} or more"
                ) from e
            raise InputError(
                f"no tokenizer can be trained on this text: is it empty? ({str(e).splitlines()[-1]})"
            ) from e
        return cls(out.getvalue())

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without special tokens."""
        return self._sp.encode(clean(text))

    def encode_masked(self, text: str) -> list[int]:
        """The ids of a text in which the mask token stands as the vocabulary writes it, and no other special one.

        The space before a mask is the mask's, as in an exported tokenizer.
        """
        ids, bare = [], False
        for piece in self._with_mask.encode(clean(text), return_type="proto").pieces:
            if piece.id == self.mask_id and bare:
                ids.pop()
            ids.append(piece.id)
            bare = piece.piece == _SPACE
        return ids

    @cached_property
    def _with_mask(self) -> sentencepiece.SentencePieceProcessor:
        """The same model, which reads its mask piece where a text spells it."""
        from sentencepiece import sentencepiece_model_pb2 as messages

        model = getattr(messages, "ModelProto").FromString(self.model)  # noqa: B009 (made at run time)
        model.pieces[self.mask_id].type = 4  # user-defined, where it was control: a text cannot spell that
        return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """The ids of several texts, without special tokens."""
        return self._sp.encode([clean(text) for text in texts])

    def encode_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and, for each, the characters [begin, end) of the original text that it stands for.

        SentencePiece counts UTF-8 bytes, and gives a character that became several pieces (an ellipsis three full
        stops) to the last of them; here the earlier ones get it too. A piece that only marks a word start has none.
        """
        text = clean(text)
        pieces = self._sp.encode(text, return_type="proto").pieces
        # Character index of each byte, and of the end: bytes 0b10xxxxxx continue a character.
        raw = np.frombuffer(text.encode("utf-8"), np.uint8)
        char = np.concatenate([np.cumsum((raw & 0xC0) != 0x80) - 1, [len(text)]]).astype(int)
        ids, offsets = [], []
        for piece in pieces:
            begin, end = int(char[piece.begin]), int(char[piece.end])
            while begin < end and text[begin].isspace():  # a word's first piece carries the space before it
                begin += 1
            if begin == end < len(text) and piece.piece.strip(_SPACE):
                end += 1
            ids.append(piece.id)
            offsets.append((begin, end))
        return ids, offsets

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these ids; special tokens are left out."""
        return self._sp.decode([int(i) for i in ids])

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The pieces of these ids; a leading low line marks a word start."""
        return [self._sp.id_to_piece(int(i)) for i in ids]


def _as_control(model: bytes, claimed: Sequence[int]) -> bytes:
    """The model with these as control pieces, which no text gives: a user-defined piece claims text that spells it."""
    from sentencepiece import sentencepiece_model_pb2 as messages

    plain = getattr(messages, "ModelProto").FromString(model)  # noqa: B009 (made at run time)
    for i in claimed:
        plain.pieces[i].type = plain.pieces[i].CONTROL
    return plain.SerializeToString()


def boundaries(pieces: Sequence[str], special: Bool[np.ndarray, " V"]) -> UInt8[np.ndarray, " V"]:
    """Where words begin: bit 0, this piece begins a word; bit 1, the piece after it does.

    A word starts at a token when bit 0 of it or bit 1 of the token before it is set. Special tokens and pieces of
    punctuation have both: an attached full stop is no part of a word, as in BERT's basic tokenizer. So have a line's
    end and a tab, which the pre-tokenizer of byte-level BPE cuts off; a space is of the word that it stands before. The
    vocabulary must be one of SentencePiece (words start with a low line), of WordPiece (`##` goes on with a word) or of
    byte-level BPE (words start with U+0120).

    >>> boundaries(["<s>", "\u2581new", "er", "."], np.array([True, False, False, False])).tolist()
    [3, 1, 0, 3]
    >>> boundaries(["[CLS]", "new", "##er", "."], np.array([True, False, False, False])).tolist()
    [3, 1, 0, 3]
    """
    mark = _mark_of([piece for piece, kept in zip(pieces, ~special, strict=True) if kept])
    bits = np.full(len(pieces), 3, np.uint8)
    for i in np.flatnonzero(~special).tolist():
        piece = pieces[i]
        if mark == _GOES_ON and piece.startswith(mark):
            bits[i] = 0
            continue
        text = _text_of_bytes(piece) if mark == _BYTE_SPACE else _text_of(piece.removeprefix(mark))
        begins = mark == _GOES_ON or piece.startswith(mark) or text[:1].isspace()
        ends = text[-1:].isspace() and text[-1:] != " "
        bits[i] = 3 if _punctuation(text) else begins | ends << 1
    return bits


def _mark_of(pieces: list[str]) -> str:
    """By what a vocabulary tells where words start: the mark that the most pieces have.

    A stray piece decides nothing: a mark alone is text in other vocabularies, `##` goes on with a letter or digit, and
    a byte-level vocabulary has no characters but those that stand for bytes.
    """
    letters = all(len(piece) < 2 or _BYTE_PIECE.fullmatch(piece) for piece in pieces)  # then marks stand alone
    begin = {mark: sum(piece.startswith(mark) and (len(piece) > 1 or letters) for piece in pieces) for mark in _BEGINS}
    if sum(all(char in _BYTE for char in piece) for piece in pieces) < 0.9 * len(pieces):
        begin[_BYTE_SPACE] = 0
    goes_on = sum(piece.startswith(_GOES_ON) and piece[2:3].isalnum() for piece in pieces)
    end = {mark: sum(piece.endswith(mark) and piece != mark for piece in pieces) for mark in _ENDS}
    known = {**begin, _GOES_ON: goes_on}
    mark = max(known, key=lambda mark: known[mark])
    others = [times for other, times in known.items() if other != mark] + list(end.values())
    if known[mark] <= max(others):
        have = f"only {known[mark]} pieces" if known[mark] else "no piece"
        ends = "".join(f", and {times} end in {other!r}" for other, times in end.items() if times)
        raise InputError(
            f"{have} of this vocabulary (as {pieces[:3]}) with the mark of SentencePiece (a low line), WordPiece (##) "
            f"or byte-level BPE (U+0120){ends}: nothing tells where words start, take a vocabulary of these kinds"
        )
    return mark


def _text_of(piece: str) -> str:
    """The text of a piece; a byte stands for its character where it is one by itself, else for a letter."""
    found = _BYTE_PIECE.fullmatch(piece)
    return piece if found is None else bytes([int(found[1], 16)]).decode("ascii", "replace").replace("\ufffd", "a")


def _punctuation(text: str) -> bool:
    """Whether this is punctuation and symbols only; a lone space is not, nor a mark that goes on a letter."""
    text = text.strip()
    return bool(text) and not any(unicodedata.category(char)[0] in "LMN" for char in text)


def _text_of_bytes(piece: str) -> str:
    """The text of a byte-level piece; bytes of a character that is not whole count as a letter."""
    return bytes(_BYTE[char] for char in piece if char in _BYTE).decode("utf-8", "surrogateescape").translate(_PART)


# GPT-2 shows the bytes that print as themselves, the 68 others as the characters from U+0100 on.
_PRINT = [*range(33, 127), *range(161, 173), *range(174, 256)]
_OTHER = [byte for byte in range(256) if byte not in _PRINT]
_BYTE = {chr(byte): byte for byte in _PRINT} | {chr(256 + i): byte for i, byte in enumerate(_OTHER)}
_PART = {0xDC00 + byte: "a" for byte in range(128, 256)}


def surface(piece: str, kind: str) -> str:
    """The text of a piece without the mark of its place in a word; `kind`: WordPiece, BPE or Unigram.

    A piece that holds a part of a character's bytes stays as the vocabulary writes it.

    >>> surface("##er", "WordPiece"), surface("\u0120new", "BPE"), surface("\u2581new", "Unigram")
    ('er', 'new', 'new')
    """
    if _BYTE_PIECE.fullmatch(piece):
        return ""
    if kind == "WordPiece":
        return piece.removeprefix(_GOES_ON)
    if kind == "BPE" and all(char in _BYTE for char in piece):
        try:
            return bytes(_BYTE[char] for char in piece).decode("utf-8").strip()
        except UnicodeDecodeError:
            return piece
    return piece.replace(_SPACE, "")


def clean(text: str) -> str:
    """Lone surrogates cannot be written as UTF-8, and NUL ends a C string: both become the replacement character."""
    return _SURROGATE.sub("\ufffd", text).replace("\0", "\ufffd")


def pieces_of(text: str, most: int) -> list[str]:
    """A long text in pieces of about `most` characters, cut before a space, where no token crosses.

    >>> pieces_of("one two three", 6)
    ['one', ' two', ' three']
    """
    pieces, start = [], 0
    while len(text) - start > most:
        cut = text.rfind(" ", start + 1, start + most)
        cut = cut if cut > start else start + most
        pieces.append(text[start:cut])
        start = cut
    return [*pieces, text[start:]]
