"""Words out of tokens, whole arrays at a time."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from jaxtyping import Int, Int32, Integer

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers cannot know
_BASE = np.uint64(0x9E3779B97F4A7C15)


def spell(
    tokens: Integer[np.ndarray, " T"],
    first: Int[np.ndarray, " W"],
    piece_texts: pa.StringArray,
    fold: bool = True,
) -> tuple[Int32[np.ndarray, " W"], pa.StringArray]:
    """The number of each word, and the different words in lower case (or as they are, without `fold`).

    Words are the same when their text is, whatever pieces they are made of. A word with no letter and no digit in it
    (punctuation, a special token) has number -1: phrases do not cross it.

    >>> text = pa.array(["", "new", "York", ","])
    >>> numbers, words = spell(np.array([1, 2, 3, 1]), np.array([0, 1, 2, 3]), text)
    >>> numbers.tolist(), words.to_pylist()
    ([0, 1, -1, 0], ['new', 'york'])
    """
    runs, same = _runs(tokens, first)
    ends = np.append(first[1:], len(tokens))
    offsets = np.concatenate([[0], np.cumsum(ends[runs] - first[runs])])
    places = np.repeat(first[runs] - offsets[:-1], np.diff(offsets)) + np.arange(offsets[-1])
    pieces = piece_texts.take(pa.array(tokens[places].astype(np.int64)))
    text = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pieces), "")
    text = pc.utf8_lower(text) if fold else text
    word = pc.match_substring_regex(text, r"[\p{L}\p{N}]")
    coded = pc.if_else(word, text, None).dictionary_encode()
    number = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int32)
    return number[same], coded.dictionary


def _runs(tokens: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first of each kind of run of tokens, and of each run which kind it is.

    Runs are told apart by a polynomial hash of 64 bits, which is checked against the tokens.
    """
    if not len(first):
        return first, first
    lengths = np.diff(np.append(first, len(tokens)))
    place = np.arange(len(tokens)) - np.repeat(first, lengths)
    power = np.multiply.accumulate(np.full(int(lengths.max()), _BASE))
    mixed = tokens.astype(np.uint64) + np.uint64(1)
    mixed = (mixed ^ (mixed << np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = np.add.reduceat((mixed ^ (mixed >> np.uint64(29))) * power[place], first)
    _, runs, same = np.unique(hashes, return_index=True, return_inverse=True)
    model = np.repeat(first[runs][same], lengths) + place
    if not ((lengths[runs][same] == lengths).all() and (tokens[model] == tokens).all()):
        raise ArithmeticError("two words of this text have the same 64-bit hash; cut the text into other parts")
    return runs, same
