"""Length buckets: every row once, one length a batch, pure in the step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmlm.data.buckets import Buckets, chosen, edges_to, filled, pad
from jaxmlm.errors import InputError

EDGES = (4, 8, 16)


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 16), min_size=1, max_size=60),
    batch=st.integers(1, 9),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 5),
)
def test_each_row_once_an_epoch_and_once_in_an_evaluation(lengths, batch, seed, epoch):
    buckets = Buckets(lengths, batch, EDGES, seed)
    steps = range(epoch * buckets.steps_per_epoch, (epoch + 1) * buckets.steps_per_epoch)
    for batches in ([buckets.at(step) for step in steps], list(buckets.all())):
        rows = np.concatenate([rows for rows, _ in batches])
        assert sorted(rows[rows >= 0]) == list(range(len(lengths)))
        assert all(len(rows) == batch and rows[0] >= 0 for rows, _ in batches)
        assert all(length in EDGES and max(np.array(lengths)[r[r >= 0]]) <= length for r, length in batches)
        assert sum((rows < 0).any() for rows, _ in batches) == (len(lengths) % batch > 0)


def test_a_batch_is_a_function_of_the_step():
    lengths = np.arange(100) % 16 + 1
    one, other = (Buckets(lengths, 8, EDGES, seed=3) for _ in range(2))
    forward = [one.at(step) for step in range(60)]
    for step in reversed(range(60)):
        rows, length = other.at(step)
        assert rows.tolist() == forward[step][0].tolist() and length == forward[step][1]
    epochs = [np.concatenate([forward[e * 13 + k][0] for k in range(13)]).tolist() for e in range(2)]
    assert epochs[0] != epochs[1]
    assert Buckets(lengths, 8, EDGES, seed=4).at(0)[0].tolist() != forward[0][0].tolist()


def test_only_carried_rows_are_padded_to_a_larger_bucket():
    lengths = np.repeat([2, 6, 12], [41, 42, 43])
    buckets = Buckets(lengths, 4, EDGES)
    mixed = 0
    for step in range(buckets.steps_per_epoch):
        rows, _ = buckets.at(step)
        mixed += len(set(lengths[rows[rows >= 0]])) > 1
    assert mixed <= len(EDGES) - 1


def test_padding_rows_repeat_the_first_one():
    rows = filled(np.array([1, 0, -1]))
    out = pad([[[1, 2], [3]][row] for row in rows], 3, fill=9)
    assert out.tolist() == [[3, 9, 9], [1, 2, 9], [3, 9, 9]] and out.dtype == np.int32


def test_limits():
    assert edges_to(64) == (16, 32, 48, 64) and edges_to(8) == (8,)
    assert chosen(10, 4).tolist() == chosen(10, None)[:4].tolist()
    with pytest.raises(InputError, match="the limit on training rows is 0"):
        chosen(10, 0)
    with pytest.raises(ValueError, match="at most 16"):
        Buckets([17], 1, EDGES)
