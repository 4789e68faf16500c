"""The order of an epoch: Grain's, each row once at any size, another one for another seed."""

import numpy as np
import pytest
from grain.experimental import index_shuffle
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmlm.data.permutation import shuffled


@pytest.mark.parametrize("rows", [1, 2, 5, 100, 65535, 65536, 65538, 100_000, 1 << 20, (1 << 21) + 1, 10**9, 2**31])
@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_the_order_is_that_of_grain(rows, seed):
    places = np.random.default_rng(seed).integers(0, rows, 20)
    theirs = [index_shuffle(int(place), max_index=rows - 1, seed=seed, rounds=4) for place in places]
    assert shuffled(places, rows, seed).tolist() == theirs


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 140_000), st.integers(0, 2**32 - 1))
def test_each_row_once(rows, seed):
    assert np.bincount(shuffled(np.arange(rows), rows, seed), minlength=rows).tolist() == [1] * rows


@pytest.mark.parametrize("rows", [65537, (1 << 18) + 1])  # where Grain 0.2.18 gives a row twice
def test_each_row_once_where_the_bits_are_just_too_few(rows):
    assert len(np.unique(shuffled(np.arange(rows), rows, 0))) == rows


@pytest.mark.parametrize("rows", [50_000, 200_000])
def test_places_say_nothing_of_rows_and_seeds_nothing_of_each_other(rows):
    places = np.arange(rows)
    orders = [shuffled(places, rows, seed) for seed in range(6)]
    for i, order in enumerate(orders):
        cells = np.histogram2d(places, order, bins=16)[0]  # chi-squared of 255 cells is 255 +- 23 for a fair order
        assert ((cells - rows / 256) ** 2 / (rows / 256)).sum() < 400
        assert all((order == other).mean() < 1e-3 for other in [*orders[:i], places])
