"""Where words begin in a vocabulary of SentencePiece, WordPiece or byte-level BPE, and the text of its pieces."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, UInt8

from jaxmlm.errors import InputError

Bits = TypeVar("Bits", bound=Any)
"""An array of NumPy or JAX."""
SPACE = "\u2581"
"""SentencePiece's mark of a word start."""
_CONTINUES = "##"  # WordPiece's mark of a word's later pieces
_BYTE_SPACE = "\u0120"  # byte-level BPE's space
_BEGINS = (SPACE, _BYTE_SPACE)
_ENDS = ("</w>", "@@", SPACE)  # marks at the ends of pieces, which other kinds of vocabularies have
_BYTE_PIECE = re.compile("<0x([0-9A-F]{2})>")  # of a vocabulary that spells in bytes what it lacks
# GPT-2 shows the bytes that print as themselves, the 68 others as the characters from U+0100 on.
_PRINT = [*range(33, 127), *range(161, 173), *range(174, 256)]
_OTHER = [byte for byte in range(256) if byte not in _PRINT]
_BYTE = {chr(byte): byte for byte in _PRINT} | {chr(256 + i): byte for i, byte in enumerate(_OTHER)}
_PART = {0xDC00 + byte: "a" for byte in range(128, 256)}


def boundaries(pieces: Sequence[str], special: Bool[np.ndarray, " V"]) -> UInt8[np.ndarray, " V"]:
    """Where words begin: bit 0, this piece begins a word; bit 1, the piece after it does.

    A word starts at a token when bit 0 of it or bit 1 of the token before it is set. Special tokens and pieces of
    punctuation have both: an attached full stop is not part of a word, as in BERT's basic tokenizer. So have a line's
    end and a tab, which the pre-tokenizer of byte-level BPE cuts off; a space is of the word that it stands before. The
    vocabulary must be one of SentencePiece (words start with a low line), of WordPiece (`##` continues a word) or of
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
        if mark == _CONTINUES and piece.startswith(mark):
            bits[i] = 0
            continue
        text = _text_of_bytes(piece) if mark == _BYTE_SPACE else _text_of(piece.removeprefix(mark))
        begins = mark == _CONTINUES or piece.startswith(mark) or text[:1].isspace()
        ends = text[-1:].isspace() and text[-1:] != " "
        bits[i] = 3 if _punctuation(text) else begins | ends << 1
    return bits


def word_starts(bits: Bits) -> Bits:
    """Whether a word starts at each token: bit 0 of the token, or bit 1 of the one before it; a row starts with a word.

    Args:
        bits: the `boundaries` of the tokens [..., L], an array of NumPy or JAX.

    >>> word_starts(np.array([1, 0, 3, 0], np.uint8)).tolist()
    [1, 0, 1, 1]
    """
    xp = bits.__array_namespace__()
    before = xp.concatenate([xp.full_like(bits[..., :1], 2), bits[..., :-1]], -1)
    return (bits & 1) | (before >> 1)


def _mark_of(pieces: list[str]) -> str:
    """By what a vocabulary tells where words start: the mark that the most pieces have.

    A stray piece decides nothing: a mark alone is text in other vocabularies, `##` is followed by a letter or digit,
    and a byte-level vocabulary has no characters but those that stand for bytes.
    """
    letters = all(len(piece) < 2 or _BYTE_PIECE.fullmatch(piece) for piece in pieces)  # then marks stand alone
    begin = {mark: sum(piece.startswith(mark) and (len(piece) > 1 or letters) for piece in pieces) for mark in _BEGINS}
    if sum(all(char in _BYTE for char in piece) for piece in pieces) < 0.9 * len(pieces):
        begin[_BYTE_SPACE] = 0
    goes_on = sum(piece.startswith(_CONTINUES) and piece[2:3].isalnum() for piece in pieces)
    end = {mark: sum(piece.endswith(mark) and piece != mark for piece in pieces) for mark in _ENDS}
    known = {**begin, _CONTINUES: goes_on}
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
    """Whether this is punctuation and symbols only; a lone space is not, nor a combining mark."""
    text = text.strip()
    return bool(text) and not any(unicodedata.category(char)[0] in "LMN" for char in text)


def _text_of_bytes(piece: str) -> str:
    """The text of a byte-level piece; bytes of a character that is not whole count as a letter."""
    return bytes(_BYTE[char] for char in piece if char in _BYTE).decode("utf-8", "surrogateescape").translate(_PART)


def piece_text(piece: str, kind: str) -> str:
    """The text of a piece without the mark of its place in a word; `kind`: WordPiece, BPE or Unigram.

    A piece that holds a part of a character's bytes stays as the vocabulary writes it.

    >>> piece_text("##er", "WordPiece"), piece_text("\u0120new", "BPE"), piece_text("\u2581new", "Unigram")
    ('er', 'new', 'new')
    """
    if _BYTE_PIECE.fullmatch(piece):
        return ""
    if kind == "WordPiece":
        return piece.removeprefix(_CONTINUES)
    if kind == "BPE" and all(char in _BYTE for char in piece):
        try:
            return bytes(_BYTE[char] for char in piece).decode("utf-8").strip()
        except UnicodeDecodeError:
            return piece
    return piece.replace(SPACE, "")
