"""What a tokenizer offers: a vocabulary, and the way from text to token ids and back."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, UInt8

SPECIAL = {
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>", "<cls>"),
    "sep": ("[SEP]", "</s>", "<sep>"),
    "mask": ("[MASK]", "<mask>"),
}
"""The special tokens, each with its names in the vocabularies of other makers."""
_SURROGATE = re.compile("[\ud800-\udfff]")


@runtime_checkable
class Vocabulary(Protocol):
    """The tokens of a tokenizer: all that masking, batches and losses need to know of it.

    Attributes:
        size: number of token ids, V.
        pad_id: padding.
        unk_id: text that the vocabulary cannot spell.
        cls_id: stands before the text.
        sep_id: stands after each text, and after each document of a token store.
        mask_id: replaces a masked token.
        special: [V] the ids that are no text: these five, other control tokens, ids without a token. They are never
            masked, and no random replacement.
        boundaries: [V] where words begin, see `word_boundaries.boundaries`.

    """

    size: int
    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    special: Bool[np.ndarray, " V"]
    boundaries: UInt8[np.ndarray, " V"]

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Return the tokens of these ids as the vocabulary writes them, with the marks of word starts."""
        ...


@runtime_checkable
class Tokenizer(Vocabulary, Protocol):
    """A vocabulary with the way from text to token ids and back: `SentencePieceTokenizer`, `HfTokenizer` or your own.

    Attributes:
        model: the file that it was made from, as bytes; a run and a token store know the tokenizer by their SHA-256.
        piece_texts: [V] the text of each token without the marks of word starts, empty for special ones: the text of a
            word is the concatenation of those of its tokens.
        pair_separator_ids: the ids between the two texts of a pair, as `[SEP]`, or two of them in RoBERTa.

    """

    model: bytes
    piece_texts: list[str]
    pair_separator_ids: list[int]

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens: text that spells one is text."""
        ...

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Return what `encode` returns, for several texts; called by several threads at once."""
        ...

    def encode_masked(self, text: str) -> list[int]:
        """Return the ids of a text in which the mask token, spelled as `pieces` gives it, is the only special one."""
        ...

    def encode_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the ids of a text and, of each, the characters [begin, end) that it stands for, without the space
        before; begin is end where there are none."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of these ids, without special tokens."""
        ...

    def save(self, directory: Path) -> None:
        """Write the tokenizer into a directory, from which `open_tokenizer` reads it."""
        ...


def is_uncased(tokenizer: Tokenizer) -> bool:
    """Return whether a tokenizer gives capital letters the ids of small ones."""
    return tokenizer.encode("A") == tokenizer.encode("a")


def clean(text: str) -> str:
    r"""Return a text that any library takes: lone surrogates and NUL become the replacement character.

    A lone surrogate cannot be written as UTF-8, and NUL ends a string of C.

    >>> clean("a\0b") == "a\ufffdb"
    True
    """
    return _SURROGATE.sub("\ufffd", text).replace("\0", "\ufffd")


def pieces_of(text: str, most: int) -> list[str]:
    """Cut a long text before spaces, where no token crosses.

    Args:
        text: the text.
        most: characters of the longest part; a part without a space is cut after so many.

    Returns:
        The parts, which together are the text.

    >>> pieces_of("one two three", 6)
    ['one', ' two', ' three']
    """
    pieces = []
    start = 0
    while len(text) - start > most:
        cut = text.rfind(" ", start + 1, start + most)
        cut = cut if cut > start else start + most
        pieces.append(text[start:cut])
        start = cut
    return [*pieces, text[start:]]
