"""Rates that follow a law: the law drawn is the law asked, stratified over any batch, and weighted as it says."""

import math
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlm.errors import InputError
from jaxmlm.masking import (
    Choice,
    LinearDecay,
    LogUniform,
    Masking,
    Normal,
    Replace,
    Tokens,
    Uniform,
    WordUnits,
    mask_batch,
)
from jaxmlm.masking.audit import audit, law_of_rates
from jaxmlm.masking.laws import Cosine, check_rate, parse_rate
from jaxmlm.masking.strata import draw, permutation
from jaxmlm.rng import step_key
from tests.masking.test_family import VOCAB, rows_of_text

LAWS = {
    "uniform": Uniform(0, 1),
    "between": Uniform(0.2, 0.6),
    "cosine": Cosine(),
    "log": LogUniform(0.01),
    "normal": Normal(0.15, 0.1),
    "choice": Choice((0.5, 0.15), (1, 3)),
}
U = (jnp.arange(100_000) + 0.5) / 100_000


@pytest.mark.parametrize("name", LAWS)
def test_the_mean_and_the_ends_of_a_law_are_those_of_its_draws(name):
    law = LAWS[name]
    rates = np.asarray(law.quantile(U), np.float64)
    assert law.mean == pytest.approx(rates.mean(), abs=1e-4)
    assert law.low - 1e-6 <= rates.min() and rates.max() <= law.high + 1e-6 and (np.diff(rates) >= 0).all()


def test_the_densities():
    """How often a law draws from an interval: the uniform's length, the cosine's and the logarithm's integral."""
    at = np.array([0.05, 0.3, 0.5, 0.8])
    for law, cdf in (
        (Uniform(), at),
        (Cosine(), 2 / np.pi * np.arccos(1 - at)),
        (LogUniform(0.01), np.log(at / 0.01) / np.log(100)),
    ):
        rates = np.sort(np.asarray(law.quantile(U)))
        np.testing.assert_allclose(np.searchsorted(rates, at) / len(rates), cdf, atol=1e-3)
    below = np.asarray(Normal(0.15, 0.1).quantile(U)) < 0.15
    assert below.mean() == pytest.approx((0.5 - 0.0668) / (1 - 0.0668), abs=1e-3)


@pytest.mark.parametrize("rows", [1, 2, 7, 32, 96])
def test_the_rows_of_a_batch_share_the_strata_out(rows):
    for step in range(3):
        points = np.asarray(draw(step_key(5, step), jnp.arange(rows), rows))
        assert sorted((points * rows).astype(int)) == list(range(rows))
    again = np.asarray(draw(step_key(5, 2), jnp.arange(rows)[::-1], rows))
    np.testing.assert_array_equal(again[::-1], points)


def test_every_row_draws_all_of_the_law():
    """By itself a row's point is uniform, whatever its place."""
    points = jax.vmap(lambda step: draw(step_key(0, step), jnp.arange(8), 8))(jnp.arange(4000))
    counts = np.stack([np.bincount(np.floor(np.asarray(row) * 10).astype(int), minlength=10) for row in points.T])
    assert ((counts - 400) ** 2 / 400).sum(1).max() < 36  # chi-square of 9 degrees: once in 25,000


@pytest.mark.parametrize(("devices", "micro_batches"), [(1, 1), (4, 1), (1, 4), (2, 4), (8, 2)])
def test_the_rows_of_a_device_in_a_micro_batch_are_stratified_too(devices, micro_batches):
    each = 64 // devices // micro_batches
    parts = permutation(64).reshape(devices, each, micro_batches).swapaxes(1, 2)
    np.testing.assert_array_equal(np.sort(parts * each // 64, -1), np.broadcast_to(np.arange(each), parts.shape))


@partial(jax.jit, static_argnums=(0, 1, 4))
def run(masking, seed, ids, tokens, rows, step, places):
    return mask_batch(masking, step_key(seed, step), ids, tokens, VOCAB, step, places, rows)


def full(rows: int, length: int) -> Tokens:
    at = np.broadcast_to(np.arange(length), (rows, length))
    return Tokens(at.astype(np.int32), np.ones_like(at, bool), np.ones_like(at, np.uint8))


def test_a_part_of_a_batch_is_masked_as_in_the_whole():
    """By seed, step, example and place; in a batch of its own, where its places are others, it is not."""
    tokens, ids, places, masking = full(16, 40), np.arange(100, 116), np.arange(16), Masking(Uniform(0, 1))
    whole = run(masking, 3, ids, tokens, 16, 7, places)
    some = np.array([9, 2, 15])
    part = run(masking, 3, ids[some], jax.tree.map(lambda x: x[some], tokens), 16, 7, places[some])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[some], b), whole, part)
    by_itself = jax.jit(lambda ids, tokens: mask_batch(masking, step_key(3, 7), ids, tokens, VOCAB, 7))
    alone = by_itself(ids[some], jax.tree.map(lambda x: x[some], tokens))
    assert (np.asarray(alone.inputs) != np.asarray(part.inputs)).any()
    np.testing.assert_array_equal(by_itself(ids, tokens).inputs, whole.inputs)


@pytest.mark.parametrize(
    "masking",
    [
        *(Masking(law) for law in LAWS.values()),
        Masking(Uniform(0, 1), units=WordUnits(), replace=Replace(0.8, 0.1, 0.1, per="unit")),
        Masking(Cosine(), count="exact", schedule=LinearDecay(0.5, 40)),
        Masking(Uniform(0.3, 0.9), predict=0.2),
        Masking(Uniform(0.2, 0.6), predict=0.5, units=WordUnits()),
        Masking(Uniform(0.001, 1), weights="bound"),
    ],
    ids=str,
)
def test_the_audit_finds_every_law_right(masking):
    tokens = rows_of_text()
    found = audit(masking, tokens, np.arange(len(tokens.ids)), VOCAB, step=20)
    assert found["ok"] and not any(found["faults"].values()), found
    assert found["law"]["asked"] == pytest.approx(masking.mean_rate, abs=1e-6)
    assert found["law"]["p"] > 0.9  # stratified: the counts are nearer than independent draws
    assert found["views"] == (3 if masking.mean_predicted == 0.5 and masking.predict else 1)


@dataclass(frozen=True)
class Lying:
    """Says that it is uniform, and draws low rates more often."""

    low, mean, high = 0.0, 0.5, 1.0

    def quantile(self, u):
        return u**1.2


@dataclass(frozen=True)
class Wide(Lying):
    """Reaches above 1."""

    high = 1.5


@dataclass(frozen=True)
class Half:
    """One rate for half of the rows, the others uniform between it and the other end."""

    low: float = 0.15
    high: float = 1.0
    atom: float = 0.15

    @property
    def mean(self):
        return (self.atom + (self.low + self.high) / 2) / 2

    def quantile(self, u):
        at = (u < 0.5) if self.atom == self.low else (u >= 0.5)
        return jnp.where(at, self.atom, self.low + (self.high - self.low) * ((2 * u) % 1))


@dataclass(frozen=True)
class Listed(Lying):
    """Cannot be a constant of a compiled program."""

    rates: list


class Unstratified(Masking):
    """All rows of a batch have one rate."""

    def points(self, key, places, rows):
        return jnp.full(places.shape, 0.3)


@pytest.mark.parametrize("masking", [Masking(Lying()), Unstratified(Uniform(0, 1))], ids=["lying", "unstratified"])
def test_the_audit_finds_another_law(masking):
    tokens = rows_of_text()
    found = audit(masking, tokens, np.arange(len(tokens.ids)), VOCAB)
    assert not found["ok"] and not found["law"]["ok"]


@pytest.mark.parametrize("atom", [0.15, 1.0])
def test_the_audit_finds_a_law_right_that_draws_one_rate_often(atom):
    law = Half(atom=atom)
    rates = np.asarray(law.quantile((jnp.arange(2000) + 0.5) / 2000), np.float64)
    found = law_of_rates(law, rates)
    assert found["ok"] and found["p"] > 0.9, found
    assert not law_of_rates(law, np.linspace(0.15, 1, 2000))["ok"]


def test_a_rate_that_the_law_never_draws_is_a_fault():
    """Above the highest rate of this law there is a part in which nothing is asked."""
    law = Half(atom=1.0)
    rates = np.asarray(law.quantile((jnp.arange(2000) + 0.5) / 2000), np.float64)
    assert not law_of_rates(law, np.append(rates[:-1], 1.0 + 5e-7))["ok"]


@pytest.mark.parametrize(("rate", "count"), [(0.7, 45), (0.35, 90)])
def test_an_exact_count_is_right_where_two_precisions_disagree(rate, count):
    """0.7 * 45 is 31.5 in the single precision of the masks, and below it in double precision."""
    ids = np.full((300, count), 7, np.int32)
    found = audit(
        Masking(rate, count="exact"), Tokens(ids, ids > 4, np.ones_like(ids, np.uint8)), np.arange(300), VOCAB
    )
    assert found["ok"] and found["shares"]["selected"]["got"] == pytest.approx((rate * count + 0.5) / count, abs=1e-5)


@pytest.mark.parametrize("units", [WordUnits(), Masking().units], ids=["words", "tokens"])
@pytest.mark.parametrize(("rows", "devices", "micro_batches"), [(32, 1, 1), (32, 2, 2), (24, 4, 1)])
def test_no_device_predicts_more_than_its_slots(units, rows, devices, micro_batches):
    """And the slots are near the mean: half of what the rows could need by themselves."""
    masking, tokens = Masking(Uniform(0, 1), units=units), full(rows, 128)
    slots = masking.pool_slots(128, rows, devices, micro_batches)
    most = 0
    for step in range(60):
        used = np.asarray(run(masking, 1, np.arange(rows), tokens, rows, step, np.arange(rows)).weights.sum(1))
        most = max(most, used.reshape(devices, -1, micro_batches).sum(1).max())
    each = rows // devices // micro_batches
    assert 0.85 * slots <= most + each * (units.max_length - 1) and most <= slots
    assert slots <= each * (128 * 0.5 + units.max_length + 1) + 128


def test_weights_of_tokens_and_rows():
    tokens = full(64, 40)
    tokens.maskable[0] = False
    for masking in (Masking(Uniform(0, 1), units=WordUnits()), Masking(0.2, predict=0.5)):
        plain = run(masking, 0, np.arange(64), tokens, 64, 0, np.arange(64))
        rows = run(replace(masking, weights="rows"), 0, np.arange(64), tokens, 64, 0, np.arange(64))
        np.testing.assert_array_equal(rows.inputs, plain.inputs)
        assert set(np.unique(plain.weights)) <= {0.0, 1.0}
        np.testing.assert_allclose(rows.weights.sum(1), np.asarray(plain.weights).any(1), rtol=1e-5)


@pytest.mark.parametrize(
    ("law", "n"),
    [(Uniform(0.001, 1), 1), (Uniform(0.12, 1), 3), (Cosine(0.001, 1), 3), (LogUniform(0.001), 3)],
    ids=str,
)
def test_gradients_under_bound_are_those_of_the_sum_over_k(law, n):
    """An example of n tokens, with a parameter for the loss of each token given each set of masked ones.

    The bound is the sum over k of the mean over the sets of k tokens of the mean of their losses; its gradient is known
    exactly, whatever the law that draws k.
    """
    rows, steps = 4096, 3
    masking, tokens = Masking(law, weights="bound"), full(rows, n)

    def loss(table, masked):
        hidden = (masked.inputs == VOCAB.mask_id) @ (1 << jnp.arange(n))
        nats = table[hidden[:, None], masked.positions]
        return (nats * masked.weights).sum(), masked.weights.sum()

    gradient, count = np.zeros((1 << n, n)), 0.0
    for step in range(steps):
        masked = run(masking, 0, np.arange(rows), tokens, rows, step, np.arange(rows))
        found, total = jax.grad(loss, has_aux=True)(jnp.zeros((1 << n, n)), masked)
        gradient, count = gradient + np.asarray(found), count + float(total)
    assert count == pytest.approx(rows * steps * n, rel=0.01)
    for k in range(1, n + 1):
        sets = list(combinations(range(n), k))
        at = [(sum(1 << i for i in one), i) for one in sets for i in one]
        each = 1 / (k * len(sets)) / n  # of the bound for a token
        found = np.array([gradient[where] for where in at]) / count
        assert found.sum() == pytest.approx(1 / n, rel=0.01)
        np.testing.assert_allclose(found, each, rtol=0.12)
    empty = set(range(1 << n)) - {sum(1 << i for i in range(n) if hidden >> i & 1) for hidden in range(1, 1 << n)}
    assert empty == {0} and not gradient[0].any()


def test_a_masking_under_bound_is_made_within_a_jitted_function():
    """As the README makes one: its law is looked at while the function is traced."""
    tokens = jax.tree.map(jnp.asarray, full(4, 8))
    make = partial(Masking, Uniform(0.001, 1), weights="bound")

    @jax.jit
    def masked(key, tokens):
        with pytest.raises(InputError, match="bound needs a law that draws all rates"):
            Masking(Choice(), weights="bound")
        return mask_batch(make(), key, jnp.arange(4), tokens, VOCAB)

    found = masked(step_key(0, 1), tokens)
    np.testing.assert_array_equal(found.inputs, mask_batch(make(), step_key(0, 1), jnp.arange(4), tokens, VOCAB).inputs)


def test_a_uniform_rate_rounded_is_no_bound():
    """floor(rate * n + u) weighs k = 1 by 2 log 2 and k = n by a half: what `bound` must not do."""
    tokens, rows, n = full(4096, 6), 4096, 6
    masked = run(Masking(Uniform(0.001, 1)), 0, np.arange(rows), tokens, rows, 0, np.arange(rows))
    k = np.asarray(masked.weights.sum(1)).astype(int)
    rounded = np.bincount(k, minlength=n + 1) / rows
    assert rounded[[0, n]] == pytest.approx([0.5 / n, 0.5 / n], rel=0.1)
    masked = run(Masking(Uniform(0.001, 1), weights="bound"), 0, np.arange(rows), tokens, rows, 0, np.arange(rows))
    k = np.asarray((masked.weights > 0).sum(1))
    assert np.bincount(k, minlength=n + 1)[1:] / rows == pytest.approx([1 / n] * n, rel=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(0.2, 1.5), r"Uniform must lie within \(0, 1\].*got 0.2 to 1.5"),
        (lambda: Uniform(-0.1, 1), r"Uniform must lie within \(0, 1\]"),
        (lambda: Uniform(0.4, 0.4), "with low below high"),
        (lambda: Cosine(0, math.nan), "Cosine must lie within"),
        (lambda: LogUniform(0.0), "low end of LogUniform must be above 0"),
        (lambda: Normal(1.5, 0.1), "center of Normal must be above 0 and at most 1"),
        (lambda: Normal(0.5, 0.0), "its sd above 0"),
        (lambda: Choice((0.15, 0.5), (1,)), "Choice has 2 rates and 1 weights"),
        (lambda: Choice((0.15, 0.5), (1, -1)), "weights of Choice must be above 0"),
        (lambda: Choice((0.15, 1.2)), "rates of Choice must be above 0 and at most 1"),
        (lambda: Choice((0.15, 0.15)), "rates of Choice must differ"),
        (lambda: check_rate(Listed([0.15])), "Listed cannot be hashed: write rates as tuples"),
        (lambda: check_rate(Wide()), "Wide must have 0 <= low <= mean <= high <= 1; got low 0, mean 0.5, high 1.5"),
        (lambda: Masking(Uniform(0, 1), weights="bound"), "may not reach down to 0; got Uniform.*low end of 0.001"),
        (lambda: Masking(0.4, weights="bound"), "bound needs a law.*got masking.rate 0.4"),
        (lambda: Masking(Choice(), weights="bound"), "bound needs a law that draws all rates"),
        (lambda: Masking(Uniform(0, 1), predict=0.2), "masking.predict 0.2 cannot be met"),
        (lambda: check_rate("Uniform"), "masking.rate is a str: give a number, a law such as"),
        (lambda: check_rate(True), "masking.rate is a bool"),
        (lambda: parse_rate("Unifrom(0, 1)"), "masking.rate is 'Unifrom.*give a number, or a law in quotes"),
        (lambda: parse_rate("Uniform(0, 1, 2)"), "give a number, or a law"),
        (lambda: parse_rate("Uniform(0, 2)"), "got 0 to 2"),
    ],
)
def test_bad_laws_are_refused_in_one_line(make, message):
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
