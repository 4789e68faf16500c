"""`batch_at(step)`: arithmetic, not state. Each row once an epoch, whoever reads it, whenever."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmlm.data import Batches
from jaxmlm.data.rows import PackedRows
from jaxmlm.errors import InputError

CLS = 2


def batches(rows, batch, length=5, extra=0, units=None, **options):
    """Rows whose tokens tell where they stand in the stream."""
    return Batches(
        PackedRows(np.arange(rows * (length - 1) + extra, dtype=np.uint16), CLS, length, units), batch, **options
    )


def epoch(b, number):
    steps = b.rows // b.batch
    return np.concatenate([b.at(number * steps + k)["example"] for k in range(steps)])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**31 - 1), st.integers(0, 10**6))
def test_each_row_at_most_once_an_epoch_and_only_the_last_part_of_a_batch_left_out(rows, batch, seed, number):
    batch = min(rows, batch)
    seen = epoch(batches(rows, batch, seed=seed), number)
    assert len(set(seen)) == len(seen) == rows // batch * batch and set(seen) <= set(range(rows))
    if rows % batch == 0:
        assert sorted(seen) == list(range(rows))


def test_a_row_is_cls_and_the_same_tokens_for_ever():
    b = batches(10, 3, extra=3)  # the 3 tokens after the last whole row belong to none
    assert b.rows == 10
    for step in (0, 5, 17):
        got = b.at(step)
        assert got["ids"].dtype == got["example"].dtype == np.int32 and got["ids"].shape == (3, 5)
        assert (got["ids"][:, 0] == CLS).all()
        np.testing.assert_array_equal(got["ids"][:, 1:], got["example"][:, None] * 4 + np.arange(4))
        for name, value in b.take(got["example"]).items():
            np.testing.assert_array_equal(value, got[name])
    np.testing.assert_array_equal(b.take(np.array([9, 0, 9]))["example"], [9, 0, 9])


def test_unit_bits_go_with_their_tokens():
    bits = np.arange(40, dtype=np.uint8) % 4
    without, b = batches(10, 3), batches(10, 3, units=bits)
    for step in (0, 5):
        got = b.at(step)
        assert got["unit"].dtype == np.uint8 and "unit" not in without.at(step)
        np.testing.assert_array_equal(got["unit"][:, 2:], bits[got["ids"][:, 2:]])
        assert (got["unit"][:, :2] == 3).all()  # <cls>, and whatever comes after it
        np.testing.assert_array_equal(got["ids"], without.at(step)["ids"])


def test_another_order_next_epoch_and_for_another_seed():
    orders = [epoch(batches(48, 8, seed=seed), number).tolist() for seed in (0, 1, 2) for number in (0, 1, 2)]
    assert len({tuple(order) for order in orders}) == 9 and list(range(48)) not in orders
    together = [sorted(set(orders[0][:24]) & set(order[:24])) for order in orders[1:]]
    assert all(4 < len(both) < 20 for both in together)  # about half, as for orders that know nothing of each other


def test_a_batch_is_a_function_of_the_step():
    forward, other = batches(40, 8, seed=3), batches(40, 8, seed=3)
    wanted = [forward.at(step)["ids"] for step in range(30)]
    for step in reversed(range(30)):
        np.testing.assert_array_equal(other.at(step)["ids"], wanted[step])


@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_the_hosts_parts_are_the_global_batch(hosts):
    whole = batches(43, 8, seed=1)
    parts = [batches(43, 8, seed=1, host=host, hosts=hosts) for host in range(hosts)]
    for step in (0, 4, 5, 99):
        read = [part.at(step) for part in parts]
        for name, value in whole.at(step).items():
            np.testing.assert_array_equal(np.concatenate([batch[name] for batch in read]), value)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="loop.batch is 11, but the text has only 10 rows"):
        batches(10, 11)
    with pytest.raises(InputError, match="loop.batch 8 does not divide over 3 hosts"):
        batches(10, 8, hosts=3)


def test_a_step_costs_the_same_anywhere_in_a_large_text(tmp_path):
    path = tmp_path / "sparse.bin"
    with open(path, "wb") as f:
        f.truncate(2 * 10**9)
    tokens = np.memmap(path, np.uint16, mode="r+")
    b = Batches(PackedRows(tokens, CLS, 128), 32)
    row = int(b.at(10**6)["example"][0])
    tokens[row * 127 : row * 127 + 127] = np.arange(127) + 7
    tracemalloc.start()
    got = [b.at(step) for step in (0, 10**6, 10**9)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6  # bytes; an order of all rows held in memory takes 63e6
    assert got[1]["ids"][0, 1:].tolist() == list(range(7, 134)) and got[1]["ids"].shape == (32, 128)
