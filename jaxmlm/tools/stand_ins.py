"""A token store without a text: sizes are all that planning needs, random tokens all that a benchmark does."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from jaxmlm.data import Data, Vocabulary
from jaxmlm.data.hf_tokenizer import open_tokenizer
from jaxmlm.data.sentencepiece_tokenizer import CLS, MASK, PAD, SEP, UNK


class BlankVocabulary:
    """A `Vocabulary` without words: every second token begins a word, the special ones are where training puts them.

    Args:
        size: number of token ids.

    """

    def __init__(self, size: int):
        self.size = size
        self.pad_id = PAD
        self.unk_id = UNK
        self.cls_id = CLS
        self.sep_id = SEP
        self.mask_id = MASK
        self.special = np.arange(size) <= MASK
        self.boundaries = np.where(self.special, 3, np.arange(size) % 2).astype(np.uint8)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Return their numbers, for want of words."""
        return [str(i) for i in ids]


class BlankStore:
    """`TokenSplits` of as many random tokens as a few batches need.

    Args:
        data: its tokenizer gives the vocabulary, or `data.vocab` its size; `data.length` is that of a row.
        rows: number of rows of random tokens.
        seed: of the tokens.

    """

    def __init__(self, data: Data, rows: int, seed: int = 0):
        self.directory = Path("(random tokens)")
        self.tokenizer: Vocabulary = open_tokenizer(data.tokenizer) if data.tokenizer else BlankVocabulary(data.vocab)
        self._document = data.length - 1
        words = np.flatnonzero(~self.tokenizer.special).astype(np.uint32)
        draw = np.random.default_rng(seed)
        self._tokens = words[draw.integers(0, len(words), rows * data.length)]
        self._units = draw.choice(np.array([0, 1, 3], np.uint8), len(self._tokens))

    def tokens(self, split: str) -> np.ndarray:
        """Return the same stream for each split."""
        return self._tokens

    def documents(self, split: str) -> np.ndarray:
        """Return documents that fill a row each: their tokens and separator, with <cls> before them."""
        return np.full(len(self._tokens) // self._document, self._document, [("tokens", "<u4")])

    def units(self, split: str) -> np.ndarray:
        """Return random bits of words and phrases."""
        return self._units
