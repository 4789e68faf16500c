"""Words out of tokens: the same as a loop over the tokens."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmlm.data.phrases import words as module
from jaxmlm.data.phrases.words import spell
from jaxmlm.data.word_boundaries import word_starts

#             <sep> ▁new new  ▁ New  .  ▁-  er  9  é
SURFACES = ["", "new", "new", "", "New", ".", "-", "er", "9", "é"]
BOUNDARIES = np.array([3, 1, 0, 1, 1, 3, 3, 0, 0, 0], np.uint8)


def words_of(tokens: list[int]) -> tuple[list[int], list[str]]:
    """Where words start, and their text, token by token."""
    starts, words = [], []
    for i, token in enumerate(tokens):
        if i == 0 or BOUNDARIES[token] & 1 or BOUNDARIES[tokens[i - 1]] & 2:
            starts.append(i)
            words.append("")
        words[-1] += SURFACES[token]
    return starts, words


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.booleans(), st.sampled_from([np.uint16, np.uint32]))
def test_words_are_those_of_a_loop(tokens, fold, dtype):
    starts, words = words_of(tokens)
    array = np.array(tokens, dtype)
    first = np.flatnonzero(word_starts(BOUNDARIES[array]))
    assert first.tolist() == starts
    numbers, text = spell(array, first, pa.array(SURFACES), fold)
    assert len(set(text.to_pylist())) == len(text)
    got = [text[number].as_py() if number >= 0 else None for number in numbers.tolist()]
    words = [word.lower() if fold else word for word in words]
    assert got == [word if any(c.isalnum() for c in word) else None for word in words]


def test_no_tokens():
    first = np.flatnonzero(word_starts(BOUNDARIES[np.zeros(0, np.uint16)]))
    numbers, text = spell(np.zeros(0, np.uint16), first, pa.array(SURFACES))
    assert len(first) == len(numbers) == len(text) == 0


def test_two_words_with_one_hash_are_found_out(monkeypatch):
    monkeypatch.setattr(module, "_BASE", np.uint64(0))
    with pytest.raises(ArithmeticError, match="the same 64-bit hash"):
        spell(np.array([1, 7, 1, 8], np.uint16), np.array([0, 2]), pa.array(SURFACES))
