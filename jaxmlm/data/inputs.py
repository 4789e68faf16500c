"""What an encoder reads of one text, or of two: token ids between the special tokens, and their token types."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxmlm.data.tokenizer import Tokenizer


class Inputs(NamedTuple):
    """An input of an encoder.

    Attributes:
        ids: token ids, special tokens included.
        second: the position from which the token type is 1, behind the first separator; of one text the end.

    """

    ids: list[int]
    second: int

    @property
    def types(self) -> list[int]:
        """The token type of every token: 0 in the first text, 1 in the second."""
        return [0] * self.second + [1] * (len(self.ids) - self.second)


def with_special_tokens(tokenizer: Tokenizer, first: Sequence[int], second: Sequence[int] | None = None) -> Inputs:
    """`[CLS] first [SEP]`, or `[CLS] first [SEP] second [SEP]` with the separators that the tokenizer puts in between.

    Type 1 begins after the first separator, as in BERT; RoBERTa's second separator belongs to the second text.

    Args:
        tokenizer: whose special tokens are used.
        first: token ids of the first text.
        second: token ids of the second text; None: there is none.

    """
    ids = [tokenizer.cls_id, *first]
    if second is None:
        ids.append(tokenizer.sep_id)
        return Inputs(ids, len(ids))
    begin = len(ids) + 1
    return Inputs([*ids, *tokenizer.pair_separator_ids, *second, tokenizer.sep_id], begin)


def token_span(offsets: Sequence[tuple[int, int]] | np.ndarray, begin: int, end: int) -> tuple[int, int]:
    """The tokens [first, stop) that share a character with the characters [begin, end); empty where none does.

    Args:
        offsets: [L, 2] the characters [begin, end) of each token, in order.
        begin: the first character.
        end: one past the last character.

    >>> token_span([(0, 3), (4, 7), (7, 8)], 4, 8), token_span([(0, 3), (4, 7)], 3, 4)
    ((1, 3), (1, 1))
    """
    places = np.asarray(offsets).reshape(-1, 2)
    first = int(np.searchsorted(places[:, 1], begin, side="right"))
    stop = int(np.searchsorted(places[:, 0], end, side="left"))
    return first, max(first, stop)
