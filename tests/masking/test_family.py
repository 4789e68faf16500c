"""What every masking must keep: every unit, count, replacement, pair of rates and schedule, on any rows."""

import math
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxmlm.errors import InputError
from jaxmlm.masking import (
    PRESETS,
    Constant,
    CosineDecay,
    LinearDecay,
    Masking,
    PhraseUnits,
    Piecewise,
    Replace,
    SpanUnits,
    Stairs,
    Tokens,
    TokenUnits,
    Vocab,
    WordUnits,
    mask_batch,
    preset,
)
from jaxmlm.masking.audit import audit
from jaxmlm.masking.units import MAX_UNIT_LENGTH, indices_in_units
from jaxmlm.rng import step_key

B, L = 32, 40
VOCAB = Vocab(500, 4, 0, np.arange(300, 400, dtype=np.int32), np.arange(1, 101))
UNIT = Replace(0.5, 0.3, 0.2, per="unit", ids="unigram")
FAMILY = {
    **PRESETS,
    "1 %": Masking(0.01),
    "99 %": Masking(0.99, replace=Replace(0.8, 0.1, 0.1)),
    "everything": Masking(1.0, units=WordUnits()),
    "words": Masking(0.4, units=WordUnits(), replace=UNIT),
    "spans of tokens": Masking(0.8, units=SpanUnits(0.3, 6, "tokens"), count="exact"),
    "phrases": Masking(0.5, units=PhraseUnits(), replace=UNIT),
    "fewer predicted": Masking(0.4, predict=0.2, units=WordUnits(), replace=UNIT),
    "5 % masked, 40 % predicted": Masking(0.05, predict=0.4),
    "views of words": Masking(0.3, predict=0.8, units=WordUnits(), replace=UNIT),
    "views of everything": Masking(0.5, predict=1.0, units=SpanUnits()),
    "falling": Masking(0.6, schedule=LinearDecay(0.5, 100), units=PhraseUnits()),
}


def rows(counts, seed) -> Tokens:
    """Rows of n tokens between specials, one special among them, with random word and phrase starts."""
    random = np.random.default_rng(seed)
    n, at = np.asarray(counts)[:, None], np.arange(L)[None, :]
    maskable = (at > 0) & (at <= n) & (at != random.integers(1, L, n.shape))
    word = random.random((len(n), L)) < random.choice([0.1, 0.6, 1.0], n.shape)
    phrase = word & (random.random((len(n), L)) < 0.6)
    return Tokens(np.where(maskable, 10 + at, 2).astype(np.int32), maskable, (word + 2 * phrase).astype(np.uint8))


@partial(jax.jit, static_argnums=0)
def run(masking, tokens, step):
    """The masked rows; and what was drawn and the units, as arrays [B, views, ...]."""
    ids = jnp.arange(len(tokens.ids))

    def drawn(example, row):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), step), example)
        starts = masking.units.starts(masking.keys(key).units, row)
        views = jax.vmap(lambda view: masking.select(key, row, step, view))(jnp.arange(masking.views))
        return views, indices_in_units(starts, row.maskable)

    return mask_batch(masking, step_key(0, step), ids, tokens, VOCAB, step), *jax.vmap(drawn)(ids, tokens)


def of(arc, row, view) -> list[int]:
    return arc.positions[row, view][: arc.count[row, view]].tolist()


@pytest.mark.parametrize("name", FAMILY)
@settings(max_examples=8, deadline=None)
@given(
    counts=st.lists(st.integers(0, L - 2), min_size=B, max_size=B),
    seed=st.integers(0, 999),
    step=st.integers(0, 2**31 - 1),
)
def test_the_laws(name, counts, seed, step):
    masking, tokens = FAMILY[name], rows(counts, seed)
    out, (predicted, selected), place = jax.tree.map(np.asarray, run(masking, tokens, jnp.int32(step)))
    views, n = masking.views, tokens.maskable.sum(1)
    assert out.inputs.shape == (B * views, L) and out.positions.shape[1] == masking.predictions(L)
    factor = float(masking.schedule(step))
    for row in range(B):
        units = np.cumsum((place[row] == 0) | ~tokens.maskable[row])
        in_all = []
        for view in range(views):
            at, hidden, asked = row * views + view, of(selected, row, view), of(predicted, row, view)
            assert predicted.count[row, view] <= masking.predictions(L) and len(set(hidden)) == len(hidden)
            assert selected.count[row, view] <= selected.positions.shape[-1]
            assert tokens.maskable[row][hidden].all() and set(asked) <= set(hidden)
            for chosen in (hidden, asked):
                cut = set(units[chosen]) & set(units[np.setdiff1d(np.flatnonzero(tokens.maskable[row]), chosen)])
                assert not cut, "a unit is cut"
            assert out.positions[at][out.weights[at] > 0].tolist() == asked
            assert (out.targets[at] == tokens.ids[row][out.positions[at]]).all()
            rest = np.setdiff1d(np.arange(L), hidden)
            assert (out.inputs[at][rest] == tokens.ids[row][rest]).all()
            fates = np.where(out.inputs[at] == 4, 0, np.where(out.inputs[at] == tokens.ids[row], 1, 2))
            assert np.isin(out.inputs[at][fates == 2], VOCAB.replacement_ids).all()
            if masking.replace.mask == 1:
                assert (fates[hidden] == 0).all()
            if masking.replace.per == "unit":
                assert len({(u, f) for u, f in zip(units[hidden], fates[hidden], strict=True)}) == len(
                    set(units[hidden])
                )
            in_all += asked
        assert len(set(in_all)) == len(in_all), "views overlap"
        share = (masking.predict or masking.rate) * factor * n[row]
        slack = masking.units.max_length - 1
        assert math.floor(share + 1e-4) - slack <= len(in_all) <= math.ceil(share - 1e-4) + slack
        if masking.predict and views == 1:
            assert abs(len(hidden) - masking.rate * factor * n[row]) <= slack + 1


def test_whole_words_match_a_slow_reference():
    """Units in the order of their random bits on a circle; those that start on the arc: with lists and loops."""
    masking, tokens = FAMILY["words"], rows([L - 2] * B, 5)
    _, (_, selected), _ = jax.tree.map(np.asarray, run(masking, tokens, jnp.int32(3)))
    for row in range(B):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 3), row)
        keys = masking.keys(key)
        words, n = [], int(tokens.maskable[row].sum())
        for i in np.flatnonzero(tokens.maskable[row]):
            new = tokens.unit[row, i] & 1 or not tokens.maskable[row, i - 1] or len(words[-1]) == MAX_UNIT_LENGTH
            words.append([i]) if new else words[-1].append(i)
        bits = np.asarray(jax.random.bits(keys.order, (L,)) >> 1)
        wanted = math.floor(masking.rate * n + float(jax.random.uniform(keys.count)))
        zero = int(jax.random.randint(keys.offset, (), 0, n))
        circle, found = 0, {}
        for word in sorted(words, key=lambda word: bits[word[0]]):
            found[(circle - zero) % n] = word
            circle += len(word)
        chosen = [start for start in found if start < wanted]
        assert [i for start in sorted(chosen) for i in found[start]] == of(selected, row, 0)


@pytest.mark.slow("statistics over many rows")
@pytest.mark.parametrize("rate", [0.05, 0.15, 0.4, 0.8])
@pytest.mark.parametrize("predict", [None, 0.6])
def test_every_word_is_equally_likely_whatever_its_length(rate, predict):
    """Skipping what does not fit, as BERT's code does, hides long words less often; stopping early the last ones."""
    # At the first rate the budget is less than the longest word.
    lengths, many = [1, 1, 2, 5, 1, 3, 9, 1, 2, 12, 1] * 3, 10_000
    word = np.repeat(np.arange(len(lengths)), lengths)
    unit = np.concatenate([[1], [1], np.diff(word) > 0]).astype(np.uint8)
    maskable = np.arange(len(unit)) > 0
    tokens = Tokens(
        *(np.broadcast_to(x, (many, len(unit))) for x in (np.arange(len(unit), dtype=np.int32), maskable, unit))
    )
    masking = Masking(rate, predict=predict, units=WordUnits())
    _, (predicted, selected), _ = jax.tree.map(np.asarray, run(masking, tokens, jnp.int32(1)))
    for arc, share in ((predicted, predict or rate), (selected, rate)):
        if arc is selected and masking.views > 1:
            continue  # where the slices do not divide evenly some views select a token more
        slots = np.arange(arc.positions.shape[-1]) < arc.count[..., None]
        first = np.cumsum([1, *lengths[:-1]])
        hits = np.array([((arc.positions == i) & slots).sum() for i in first])
        deviation = (hits - many * share) / math.sqrt(many * share * (1 - share))
        assert np.abs(deviation).max() < 4.5, deviation


@pytest.mark.parametrize("of_what", ["words", "tokens"])
def test_span_lengths_follow_the_truncated_geometric_law(of_what):
    units, many, length = SpanUnits(0.2, 10, of_what), 2_000, 128
    at = jnp.arange(length)
    tokens = Tokens(at, at > 0, jnp.ones(length, jnp.uint8))
    starts = jax.vmap(lambda key: units.starts(key, tokens))
    found = np.asarray(starts(jax.random.split(jax.random.key(0), many)))
    counts = np.zeros(11)
    for row in found:
        at = np.flatnonzero(row)
        counts += np.bincount([b - a for a, b in pairwise(at) if a < length - 10], minlength=11)  # uncut by the end
    assert counts[0] == 0
    assert stats.chisquare(counts[1:], units.distribution() * counts.sum()).pvalue > 1e-4
    assert (found[:, 1]).all() and not found[:, 0].any()


def test_spans_of_words_start_at_words():
    tokens = rows([L - 2] * B, 3)
    _, _, place = jax.tree.map(np.asarray, run(FAMILY["views of everything"], tokens, jnp.int32(0)))
    fresh = (place == 0) & tokens.maskable
    after_gap = np.concatenate([np.ones((B, 1), bool), ~tokens.maskable[:, :-1]], 1)
    closed = np.concatenate([np.zeros((B, 1), bool), place[:, :-1] == MAX_UNIT_LENGTH - 1], 1)
    assert (tokens.unit[fresh & ~after_gap & ~closed] & 1).all() and (fresh & ~after_gap).any()


@pytest.mark.slow("statistics over many rows")
@pytest.mark.parametrize("masking", [Masking(0.3, units=SpanUnits()), Masking(0.3, predict=0.6, units=SpanUnits())])
def test_spans_cover_every_position_equally(masking):
    many = 20_000
    tokens = Tokens(
        *(np.broadcast_to(x, (many, L)) for x in (np.arange(L, dtype=np.int32), np.arange(L) > 0, np.ones(L, np.uint8)))
    )
    out, _, _ = jax.tree.map(np.asarray, run(masking, tokens, jnp.int32(0)))
    hits = np.bincount(out.positions[out.weights > 0], minlength=L)[1:]
    share = masking.predict or masking.rate
    deviation = (hits - many * share) / math.sqrt(many * share * (1 - share))
    assert np.abs(deviation).max() < 4.5, deviation


def test_kept_tokens_need_no_counts():
    """With no random tokens nothing is drawn by frequency, so a vocabulary without counts will do."""
    vocab = Vocab(size=100, mask_id=4, pad_id=0, replacement_ids=np.arange(5, 100))
    replace = Replace(mask=0.8, random=0.0, keep=0.2, ids="unigram")
    tokens = jax.tree.map(jnp.asarray, rows([L - 2] * B, 0))
    out = mask_batch(Masking(0.5, replace=replace), jax.random.key(0), jnp.arange(B), tokens, vocab)
    assert (out.inputs == 4).any()


@pytest.mark.slow("statistics over many rows")
def test_random_tokens_by_frequency():
    tokens = Tokens(
        *(np.broadcast_to(x, (4_000, L)) for x in (np.full(L, 9, np.int32), np.arange(L) > 0, np.ones(L, np.uint8)))
    )
    masking = Masking(0.5, replace=Replace(0.0, 1.0, 0.0, ids="unigram"))
    out, _, _ = jax.tree.map(np.asarray, run(masking, tokens, jnp.int32(0)))
    drawn = np.bincount(out.inputs[out.inputs >= 300] - 300, minlength=100)
    assert stats.chisquare(drawn, np.arange(1, 101) / 5050 * drawn.sum()).pvalue > 1e-4


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Constant(), {0: 1.0, 10**9: 1.0}),
        (LinearDecay(0.5, 100), {0: 1.0, 25: 0.875, 100: 0.5, 10**6: 0.5}),
        (CosineDecay(0.2, 100), {0: 1.0, 50: 0.6, 100: 0.2, 101: 0.2}),
        (Stairs((10, 20), (0.5, 0.1)), {0: 1.0, 9: 1.0, 10: 0.5, 19: 0.5, 20: 0.1, 99: 0.1}),
        (Piecewise((0, 10, 30), (0.5, 1.0, 0.2)), {0: 0.5, 5: 0.75, 20: 0.6, 99: 0.2}),
    ],
)
def test_schedules_and_one_compilation_for_all_their_steps(schedule, factors):
    for step, factor in factors.items():
        assert float(schedule(step)) == pytest.approx(factor)
        assert float(jax.jit(schedule)(jnp.int32(step))) == pytest.approx(factor)
    masking = Masking(0.5, schedule=schedule, count="exact")
    tokens = rows([L - 2] * B, 0)
    before = run._cache_size()
    for step, factor in factors.items():
        out, _, _ = run(masking, tokens, jnp.int32(step))
        n = tokens.maskable.sum(1)
        np.testing.assert_array_equal(out.weights.sum(1), np.floor(0.5 * factor * n + 0.5))
    assert run._cache_size() == before + 1


def test_the_views_of_an_example_hide_other_tokens_and_share_one_order():
    tokens = rows([L - 2] * B, 1)
    out, _, _ = jax.tree.map(np.asarray, run(Masking(0.25, predict=0.5), tokens, jnp.int32(0)))
    hidden = (out.inputs == 4).reshape(B, 2, L)
    assert (hidden[:, 0] & hidden[:, 1]).sum(1).max() <= 1  # what a view fills up with, where its slice is short
    assert abs(hidden.sum((1, 2)) - 0.5 * tokens.maskable.sum(1)).max() <= 1.5
    assert abs((out.weights.sum(1).reshape(B, 2).sum(1)) - 0.5 * tokens.maskable.sum(1)).max() <= 1


@pytest.mark.parametrize(
    ("rate", "predict", "views"),
    [(0.4, None, 1), (0.4, 0.2, 1), (0.2, 0.4, 2), (0.05, 0.4, 8), (0.3, 0.8, 3), (0.1, 0.3, 3)],
)
def test_how_many_views(rate, predict, views):
    assert Masking(rate, predict=predict).views == views


def changed(config, **values):
    """A configuration checked anew with a value that the type checks of the tests would not let it be made with."""
    for name, value in values.items():
        object.__setattr__(config, name, value)
    config.__post_init__()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpanUnits(p=0.0), "masking.units.p must lie between 0 and 1"),
        (lambda: SpanUnits(longest=17), "masking.units.longest must be 1 to 16"),
        (lambda: changed(SpanUnits(), of="letters"), "masking.units.of is 'letters': it must be words or tokens"),
        (lambda: changed(Masking(), count="round"), "masking.count is 'round': it must be expected or exact"),
        (lambda: changed(Masking(), weights="elbo"), "masking.weights is 'elbo': it must be tokens or rows or bound"),
        (lambda: changed(Replace(), per="word"), "masking.replace.per is 'word': it must be token or unit"),
        (lambda: changed(Replace(), ids="all"), "masking.replace.ids is 'all': it must be uniform or unigram"),
        (lambda: LinearDecay(0.0, 10), r"factors of the rate must lie in \(0, 1\]; got 0"),
        (lambda: LinearDecay(0.5, 0), "must last at least 1 step"),
        (lambda: Stairs((5, 5), (0.5, 0.4)), "steps must rise"),
        (lambda: Piecewise((0, 5), (0.5,)), "got 2 steps and 1 factors"),
        (lambda: preset("spanber"), "no masking preset 'spanber'; did you mean spanbert"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def rows_of_text(many: int = 1500) -> Tokens:
    """Rows like a token store's: a special token first and here or there, words of one to four tokens, phrases."""
    random = np.random.default_rng(0)
    word, special = random.random((many, 64)) < 0.7, random.random((many, 64)) < 0.02
    special[:, 0] = True
    ids = np.where(special, 2, random.integers(10, 500, word.shape)).astype(np.int32)
    return Tokens(ids, ~special, (word + 2 * (word & (random.random(word.shape) < 0.6))).astype(np.uint8))


@pytest.mark.parametrize(
    "name", [*PRESETS, "fewer predicted", "5 % masked, 40 % predicted", "views of words", "falling"]
)
def test_the_audit_finds_every_masking_right(name):
    tokens = rows_of_text()
    found = audit(FAMILY[name], tokens, np.arange(len(tokens.ids)), VOCAB, step=20)
    assert found["ok"] and not any(found["faults"].values()), found
    assert found["repeated masks"]["rows"] <= 15 and found["rows"] == 1500  # of 3000; few long spans can meet again


@pytest.mark.parametrize("units", [TokenUnits(), WordUnits(), SpanUnits()], ids=str)
def test_the_rate_is_right_in_rows_that_are_shorter_than_a_unit(units):
    """As rows of sentences are; of an exact count the audit shows what it leaves out."""
    tokens = rows(np.random.default_rng(0).integers(1, 9, 3000), 0)
    found = audit(Masking(0.15, units=units), tokens, np.arange(3000), VOCAB)
    assert found["ok"] and found["shares"]["selected"]["asked"] == 0.15
    assert found["shares"]["selected"]["got"] == pytest.approx(0.15, abs=0.02)
    found = audit(Masking(0.15, units=units, count="exact"), tokens, np.arange(3000), VOCAB)
    n = tokens.maskable.sum(1)
    assert found["ok"] and found["shares"]["predicted"]["asked"] == 0.15 and found["rows without a prediction"] > 1000
    assert found["shares"]["predicted"]["got"] == pytest.approx(np.floor(0.15 * n + 0.5).sum() / n.sum(), abs=0.02)


def test_the_share_of_words_and_phrases_hidden_whole():
    """At 15 % whole words hide as many words as tokens; uniform tokens hide few words of several pieces whole."""
    tokens, ids = rows_of_text(), np.arange(1500)
    uniform, words = (audit(Masking(0.4, units=u), tokens, ids, VOCAB)["whole"] for u in (TokenUnits(), WordUnits()))
    phrases = audit(Masking(0.4, units=PhraseUnits()), tokens, ids, VOCAB)["whole"]
    assert words["words"] == pytest.approx(0.4, abs=0.01) and words["words of several tokens"] == pytest.approx(
        0.4, abs=0.015
    )
    assert phrases["phrases"] == pytest.approx(0.4, abs=0.015)
    assert phrases["phrases"] > words["phrases"] > uniform["phrases"]
    assert words["three words in a row"] == pytest.approx(0.4**3, abs=0.015)
    assert words["three words in a row"] > uniform["three words in a row"]


class Skipping(Masking):
    """BERT's whole-word masking: a word that does not fit is skipped. Here: only words of at most three tokens."""

    def select(self, key, tokens, step=0, view=0, point=None):
        few = Tokens(
            tokens.ids, tokens.maskable & (indices_in_units(tokens.unit & 1 > 0, tokens.maskable) < 3), tokens.unit
        )
        return super().select(key, few, step, view, point)


class Replacing(Masking):
    """ELECTRA's positions: drawn with replacement, so fewer than asked are selected."""

    def select(self, key, tokens, step=0, view=0, point=None):
        predicted, selected = super().select(key, tokens, step, view, point)
        short = predicted._replace(count=predicted.count * 9 // 10)
        return short, short


class Capped(Masking):
    """A cap of ten predictions."""

    def select(self, key, tokens, step=0, view=0, point=None):
        predicted, selected = super().select(key, tokens, step, view, point)
        return predicted._replace(count=jnp.minimum(predicted.count, 10)), selected


class Leaking(Masking):
    """Special tokens are maskable."""

    def select(self, key, tokens, step=0, view=0, point=None):
        return super().select(key, tokens._replace(maskable=jnp.ones_like(tokens.maskable)), step, view, point)


@pytest.mark.parametrize(
    ("wrong", "where"),
    [(Skipping, "units cut"), (Replacing, "selected"), (Capped, "predicted"), (Leaking, "special tokens selected")],
)
def test_the_audit_finds_the_bugs_of_others(wrong, where):
    tokens = rows_of_text()
    found = audit(wrong(0.4, units=WordUnits()), tokens, np.arange(1500), VOCAB)
    assert not found["ok"]
    assert found["faults"].get(where) or not found["shares"].get(where, {"ok": True})["ok"], found
