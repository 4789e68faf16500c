"""A token store without a text: sizes are all that planning needs, random tokens all that a benchmark does."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from jaxmlm.data import Data, Store, Tokenizer
from jaxmlm.data.hf_tokenizer import open_tokenizer
from jaxmlm.data.tokenizer import CLS, MASK, PAD, SEP, UNK


class BlankTokenizer(Tokenizer):
    """Ids without words: the special ones where `Tokenizer.train` puts them; every second piece begins a word."""

    def __init__(self, size: int):
        self.size = size
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = PAD, UNK, CLS, SEP, MASK
        self.special = np.arange(size) <= MASK
        self.boundaries = np.where(self.special, 3, np.arange(size) % 2).astype(np.uint8)
        self.word_starts = (self.boundaries & 1).astype(bool)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Their numbers, for want of words."""
        return [str(i) for i in ids]


class BlankStore(Store):
    """As many random tokens as a few batches need; with `data.tokenizer` that tokenizer's size and special ids."""

    def __init__(self, data: Data, rows: int, seed: int = 0):
        self.folder = Path("(random tokens)")
        self.manifest = {}
        self.tokenizer = open_tokenizer(data.tokenizer) if data.tokenizer else BlankTokenizer(data.vocab)
        self._document = data.length - 1
        words = np.flatnonzero(~self.tokenizer.special).astype(np.uint32)
        draw = np.random.default_rng(seed)
        self._tokens = words[draw.integers(0, len(words), rows * data.length)]
        self._units = draw.choice(np.array([0, 1, 3], np.uint8), len(self._tokens))

    def tokens(self, split: str) -> np.ndarray:
        """The same stream for each split."""
        return self._tokens

    def documents(self, split: str) -> np.ndarray:
        """Documents that fill a row each: their tokens and separator, with <cls> before them."""
        return np.full(len(self._tokens) // self._document, self._document, [("tokens", "<u4")])

    def units(self, split: str) -> np.ndarray:
        """Random bits of words and phrases."""
        return self._units
