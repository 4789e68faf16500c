"""The formats `documents` and `sentences`: each token once, no block over a border, rows that stay the same."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmlm.data import Batches, open_rows
from jaxmlm.data import rows as module
from jaxmlm.data.rows import DocumentRows, SentenceRows
from jaxmlm.data.store import Stream

CLS, SEP, PAD = 2, 3, 0


def stream(counts):
    """DocumentRows whose tokens all differ, with their separators."""
    parts, next_ = [], 10
    for count in counts:
        parts += [np.arange(next_, next_ + count, dtype=np.uint16), np.array([SEP], np.uint16)]
        next_ += count
    return np.concatenate(parts)


def cut(kind, counts, length=12, shards=1, units=None):
    tokens = stream(counts)
    tokens = tokens if shards == 1 else Stream(np.array_split(tokens, shards))
    return kind(tokens, np.array(counts) + 1, (CLS, SEP, PAD), length, units)


def blocks(rows):
    """The tokens of each segment of each row, without <cls> and <sep>, which are checked."""
    for ids, segments in zip(rows["ids"], rows["segments"], strict=True):
        used = segments > 0
        assert not used[np.argmin(used) :].any() or used.all()  # padding is at the end only
        assert (ids[~used] == PAD).all()
        assert (np.diff(segments[used]) >= 0).all() and set(np.diff(segments[used])) <= {0, 1}
        for number in np.unique(segments[used]):
            part = ids[segments == number]
            assert part[0] == CLS and part[-1] == SEP
            yield part[1:-1].tolist()


def wanted(counts, width):
    """The blocks that documents of consecutive tokens give."""
    next_ = 10
    for count in counts:
        for start in range(0, count, width):
            yield list(range(next_ + start, next_ + min(start + width, count)))
        next_ += count


COUNTS = st.lists(st.integers(0, 35), min_size=1, max_size=40).filter(any)


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.integers(1, 3), st.sampled_from([3, 1 << 20]))
def test_documents_are_cut_and_packed_and_nothing_is_lost(counts, shards, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "AT_ONCE", block)  # pieces that are packed at once
        c = cut(DocumentRows, counts, shards=min(shards, sum(counts)))
    rows = c.take(np.arange(c.rows))
    assert rows["ids"].shape == rows["segments"].shape == (c.rows, 12)
    assert list(blocks(rows)) == list(wanted(counts, 10))
    used = (rows["segments"] > 0).sum(1)
    if block > 3:  # a row is closed only when the next piece does not fit
        first = np.array([(segments == 1).sum() for segments in rows["segments"]])
        assert (used[:-1] + first[1:] > 12).all()


@settings(max_examples=40, deadline=None)
@given(COUNTS, st.integers(1, 3))
def test_sentences_have_a_row_each(counts, shards):
    c = cut(SentenceRows, counts, length=20, shards=min(shards, sum(counts)))
    rows = c.take(np.arange(c.rows))
    assert rows["ids"].shape == (c.rows, 20) and rows["segments"].max() == 1
    assert list(blocks(rows)) == list(wanted(counts, 18))


@pytest.mark.parametrize("kind", [DocumentRows, SentenceRows])
def test_each_row_once_an_epoch_and_the_same_row_for_ever(kind):
    counts = np.random.default_rng(0).integers(1, 60, 300).tolist()
    b = Batches(cut(kind, counts, length=40), batch=8, seed=1)
    steps, orders = b.rows // 8, []
    for epoch in (0, 1):
        batches = [b.at(epoch * steps + k) for k in range(steps)]
        seen = np.concatenate([batch["example"] for batch in batches])
        assert len(set(seen)) == len(seen) == b.rows - b.left_out
        for batch in batches:
            width = batch["ids"].shape[1]
            whole = b.take(batch["example"])
            np.testing.assert_array_equal(whole["ids"][:, :width], batch["ids"])
            assert not whole["segments"][:, width:].any()
        orders.append(seen.tolist())
    assert orders[0] != orders[1] and sorted(orders[0]) != orders[0]


def test_a_batch_of_sentences_is_as_long_as_it_must_be():
    counts = np.random.default_rng(0).integers(1, 60, 400).tolist()
    b = Batches(cut(SentenceRows, counts, length=64), batch=8)
    steps = b.rows // 8
    batches = [b.at(k) for k in range(steps)]
    widths = [batch["ids"].shape[1] for batch in batches]
    assert set(widths) == {16, 32, 48, 64} and widths != sorted(widths)  # short and long ones in turn
    longest = [(batch["segments"] > 0).sum(1).max() for batch in batches]
    short = sum(longest[k] <= widths[k] - 16 for k in range(steps))
    assert short == 0  # none is padded to more than its bucket
    filled = sum((batch["segments"] > 0).sum() for batch in batches) / sum(batch["ids"].size for batch in batches)
    assert filled > 0.7


def test_long_sentences_are_left_out_no_more_than_short_ones():
    # A batch an epoch; more are left out than are long.
    b = Batches(cut(SentenceRows, [5] * 90 + [60] * 5, length=64), batch=89)
    seen = np.concatenate([b.at(epoch)["example"] for epoch in range(40)])
    times = np.bincount(seen, minlength=b.rows)
    assert b.left_out == 6 and len(times) == b.rows == 95
    assert 30 < times.min() and times[:90].min() < 40  # each row most of the time, and others too are left out


@pytest.mark.parametrize("kind", [DocumentRows, SentenceRows])
@pytest.mark.parametrize("hosts", [2, 4])
def test_the_hosts_parts_are_the_global_batch(kind, hosts):
    counts = np.random.default_rng(0).integers(1, 60, 200).tolist()
    whole = Batches(cut(kind, counts, length=40), 8, seed=1)
    parts = [Batches(cut(kind, counts, length=40), 8, seed=1, host=host, hosts=hosts) for host in range(hosts)]
    for step in range(whole.rows // 8 + 2):
        read = [part.at(step) for part in parts]
        for name, value in whole.at(step).items():
            np.testing.assert_array_equal(np.concatenate([batch[name] for batch in read]), value)


@pytest.mark.parametrize("kind", [DocumentRows, SentenceRows])
def test_unit_bits_go_with_their_tokens(kind):
    counts = [5, 30, 8]
    bits = (np.arange(sum(counts) + 3) % 4).astype(np.uint8)
    c, tokens = cut(kind, counts, units=bits), stream(counts)
    rows = c.take(np.arange(c.rows))
    for ids, units in zip(rows["ids"].ravel(), rows["unit"].ravel(), strict=True):
        place = np.flatnonzero(tokens == ids)
        assert units == 3 if ids < 10 else units in (3, bits[place[0]])
    inner = rows["ids"][:, 2:12][rows["segments"][:, 2:12] == 1]
    assert (rows["unit"] != 3).sum() > len(inner) / 4  # not all is covered up


@pytest.mark.parametrize(("format", "predict"), [("documents", 0.5), ("sentences", None)])
def test_training_masks_no_padding_and_segments_do_not_see_each_other(tmp_path, format, predict):
    from jaxmlm.data import Data
    from jaxmlm.data.opening import open_store
    from jaxmlm.masking import Masking
    from jaxmlm.models import EncoderConfig
    from jaxmlm.tasks.mlm import mask, mlm_task, vocab_of

    data = Data(text="sample:300", vocab=300, length=48, valid=0.1, format=format)
    store = open_store(replace(data, format="packed"), tmp_path)
    masking = Masking(0.25, predict=predict)
    encoder = EncoderConfig(layers=1, width=16, heads=2, max_positions=48, dropout=0.0, init=0.5)
    task = mlm_task(store, data, masking, encoder, 4, 0)
    model = task.init(jax.random.key(0))
    batch = task.batch_at(0)
    assert (batch["segments"] == 0).any()
    key = jax.random.key(1)
    masked = mask(masking, key, batch, store.tokenizer, vocab_of(store, masking))
    views, segments = masking.views, np.repeat(batch["segments"], masking.views, axis=0)
    assert masked.inputs.shape[0] == 4 * views
    at = np.take_along_axis(segments, np.asarray(masked.positions), 1)[np.asarray(masked.weights) > 0]
    assert len(at) and (at > 0).all()
    assert (np.asarray(masked.inputs)[segments == 0] == PAD).all()

    if format == "sentences":
        return  # the loss is the same function
    loss = jax.jit(lambda batch: task.loss(model, task.corrupt(batch, key, jnp.int32(0)), key, jnp.int32(0))[0])
    got = loss(batch)
    # Padding counts for nothing: its ids may be anything but tokens of text.
    other = {**batch, "ids": np.where(batch["segments"] == 0, store.tokenizer.unk_id, batch["ids"])}
    np.testing.assert_allclose(loss(other).total, got.total, rtol=1e-5)
    blind = loss({**batch, "segments": np.ones_like(batch["segments"])})
    assert abs(float(blind.total - got.total)) > 1e-2 and blind.count == got.count
    for held_out in task.evals["heldout"].batches():
        assert held_out["segments"].shape == held_out["ids"].shape == (4, 48)


def test_a_store_without_a_list_of_documents(tmp_path):
    from jaxmlm.data import Data
    from jaxmlm.data.opening import open_store
    from jaxmlm.errors import InputError

    store = open_store(Data(text="sample:50", vocab=300, length=16, valid=0.1), tmp_path)
    entries = store.documents("train")
    assert (
        entries["tokens"].sum() == len(store.tokens("train")) and len(entries) == store.manifest["train"]["documents"]
    )
    (store.directory / "train-00000.docs").unlink()
    with pytest.raises(InputError, match=r"train-00000.docs is missing or not complete \(missing"):
        open_rows(store, "train", 16, "documents")
    open_rows(store, "train", 16)
