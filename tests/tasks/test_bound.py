"""The likelihood bound: known answers, all orders enumerated, no bias by strata, seeds, batches or devices."""

import itertools
import math
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxmlm.errors import InputError
from jaxmlm.models import Encoder, EncoderConfig, MaskedLM
from jaxmlm.parallel import Mesh, make_mesh, shard
from jaxmlm.tasks import bound
from jaxmlm.tasks.bound import BINS, Draws, curve_name, draw_counts, estimate, likelihood_bound
from jaxmlm.tasks.likelihood import ScoredRows
from jaxmlm.training import evaluate

PAD, UNK, CLS, SEP, MASK, A, B, C = range(8)
LETTERS = (A, B, C)


class Letters:
    """A vocabulary of three tokens and the special ones."""

    def __init__(self) -> None:
        self.size = 8
        self.special = np.arange(8) < A
        self.boundaries = np.full(8, 3, np.uint8)
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = PAD, UNK, CLS, SEP, MASK

    def pieces(self, ids) -> list[str]:
        return [str(i) for i in ids]


TOKENIZER = Letters()
CONFIG = EncoderConfig(layers=1, width=16, heads=2, max_positions=64, init=1.0, dropout=0.0, attention_dropout=0.0)


def random_model(config: EncoderConfig = CONFIG) -> MaskedLM:
    """Its predictions depend much on what it reads."""
    key = jax.random.key(3)
    return MaskedLM(Encoder(config, 8, key), jax.random.fold_in(key, 1))


def unigram_model(logits: np.ndarray) -> MaskedLM:
    """Gives these logits whatever it reads: its embeddings are zero."""
    model = random_model()
    model.encoder.embedding[...] = jnp.zeros_like(model.encoder.embedding[...])
    model.bias[...] = shard(jnp.pad(jnp.asarray(logits, jnp.float32), (0, 120)), "vocab")
    return model


def rows_of(*texts: tuple[int, ...]) -> ScoredRows:
    """A row for each text; each token is a word of two bytes."""
    counts = np.array([len(text) for text in texts])
    return ScoredRows([np.array([CLS, *text, SEP], np.int32) for text in texts], counts, 2 * counts)


def random_rows(rows: int, longest: int, seed: int = 0) -> ScoredRows:
    random = np.random.default_rng(seed)
    return rows_of(*(tuple(random.choice(LETTERS, random.integers(1, longest + 1)).tolist()) for _ in range(rows)))


def bound_of(
    model: Any, rows: ScoredRows, mesh: Any, batch: int = 8, draws: int = 1, seed: int = 0
) -> dict[str, float]:
    return evaluate(likelihood_bound(rows, TOKENIZER, batch, draws, seed), model, mesh)


@jax.jit
def logits_of(model: Any, ids: jax.Array, positions: jax.Array) -> jax.Array:
    return model.logits(model.hidden(ids, jnp.ones_like(ids)), positions)


def all_losses(model: Any, text: tuple[int, ...]) -> dict[frozenset[int], np.ndarray]:
    """For each set of masked places the nats of every place, when the probability is shared by the letters."""
    places = range(len(text))
    sets = [frozenset(s) for k in range(1, len(text) + 1) for s in itertools.combinations(places, k)]
    ids = np.array([[CLS, *(MASK if i in masked else text[i] for i in places), SEP] for masked in sets], np.int32)
    every = np.broadcast_to(np.arange(len(text)) + 1, (len(sets), len(text))).astype(np.int32)
    logits = np.asarray(logits_of(model, ids, every), np.float64)[..., list(LETTERS)]
    nats = np.logaddexp.reduce(logits, axis=-1)[..., None] - logits
    chosen = np.array([LETTERS.index(token) for token in text])
    return {masked: np.take_along_axis(one, chosen[:, None], 1)[:, 0] for masked, one in zip(sets, nats, strict=True)}


def orders(losses: dict[frozenset[int], np.ndarray], tokens: int) -> list[float]:
    """The nats of a text in each order of its places, by the chain rule."""
    return [
        sum(losses[frozenset(order[t:])][order[t]] for t in range(tokens))
        for order in itertools.permutations(range(tokens))
    ]


def enumerated(monkeypatch: pytest.MonkeyPatch, rows: ScoredRows) -> int:
    """Let the copies of each row go through all sets of every size; returns the draws that it takes.

    Draw d of D masks 1 + floor(d n / D) tokens: sets of a size have D / n copies, which their number must divide.
    """
    most = max(map(len, rows.ids)) - 2
    each = math.lcm(*(math.comb(n, k) for n in range(1, most + 1) for k in range(1, n + 1)))
    draws = each * math.lcm(*range(1, most + 1))

    def masked(self: bound.MaskedCopies, row: int, draw: int) -> np.ndarray:
        places, count = self._maskable[row], int(self.draws.masked[row, draw])
        sets = [*itertools.combinations(places.tolist(), count)]
        return np.array(sets[draw % len(sets)])

    monkeypatch.setattr(bound.MaskedCopies, "_masked", masked)
    return draws


TEXTS = [(B,), (B, C), (C, C, B), (A, B, A, C)]


@pytest.mark.parametrize("text", TEXTS, ids=len)
def test_its_expectation_is_the_mean_over_all_orders(text, mesh, monkeypatch):
    model, rows = random_model(), rows_of(text)
    losses = all_losses(model, text)
    chained = orders(losses, len(text))
    draws = enumerated(monkeypatch, rows)
    found = bound_of(model, rows, mesh, 64, draws)["bound"]
    assert found == pytest.approx(np.mean(chained) / len(text), rel=1e-5)
    if len(text) == 1:
        assert found == pytest.approx(losses[frozenset([0])][0], rel=1e-5)  # the negative log-likelihood itself
    else:
        assert np.std(chained) > 0.05  # the orders differ, so that this says something
    assert found * len(text) >= -np.log(np.mean(np.exp(-np.array(chained)))) - 1e-5


def test_it_bounds_the_likelihood_of_a_distribution():
    """The probabilities of all texts of three tokens, each the mean over its orders, sum to one."""
    model = random_model()
    texts = itertools.product(LETTERS, repeat=3)
    total = sum(np.mean(np.exp(-np.array(orders(all_losses(model, text), 3)))) for text in texts)
    assert total == pytest.approx(1.0, rel=1e-5)


class Knowing(NamedTuple):
    """A model that knows of which texts of four tokens there is which share."""

    texts: jax.Array
    shares: jax.Array
    encoder = SimpleNamespace(config=SimpleNamespace(logits_chunk=0))

    def without(self, excluded: jax.Array) -> "Knowing":
        return self

    def hidden(self, ids: jax.Array, segments: jax.Array, key: Any = None) -> jax.Array:
        return ids

    def features(self, ids: jax.Array, positions: jax.Array) -> jax.Array:
        """The log-probability of each token at each position, given those that are not masked."""
        seen = ids[:, None, 1:5]
        fits = ((seen == MASK) | (seen == self.texts[None])).all(-1) * self.shares[None]
        tokens = jax.nn.one_hot(self.texts, 8)
        found = jnp.einsum("BT,TLV->BLV", fits / fits.sum(-1, keepdims=True), tokens)
        return jnp.einsum("BPL,BLV->BPV", jax.nn.one_hot(positions - 1, 4), jnp.log(found + 1e-30))

    logits = features

    def table(self, dtype: Any) -> jax.Array:
        return jnp.zeros((8, 1), dtype)

    def project(self, x: jax.Array, table: jax.Array) -> jax.Array:
        return x


def test_a_bound_by_a_grid_of_rates_does_not_lie_below_the_exact_one(monkeypatch):
    """Tokens that are written in one step do not see each other. The exact one is tight, for a model that knows all."""
    random = np.random.default_rng(0)
    texts = [tuple(text) for text in random.choice(LETTERS, (10, 4), p=(0.6, 0.3, 0.1)).tolist()]
    counts = random.integers(1, 4, len(texts))
    model = Knowing(jnp.asarray(texts), jnp.asarray(counts / counts.sum(), jnp.float32))
    every = [text for text, count in zip(texts, counts, strict=True) for _ in range(count)]
    shares = np.array([every.count(text) for text in every]) / len(every)
    rows = rows_of(*every)
    task_eval = likelihood_bound(rows, TOKENIZER, 64, enumerated(monkeypatch, rows))
    predict = jax.jit(task_eval.predict)
    outputs = [jax.device_get(predict(model, batch)) for batch in task_eval.batches()]
    exact = task_eval.score({name: np.concatenate([one[name] for one in outputs]) for name in outputs[0]})["bound"]
    assert exact == pytest.approx(-np.log(shares).mean() / 4, rel=1e-5)
    losses = [all_losses(model, text) for text in every]
    at = {k: np.mean([one[s][list(s)].mean() for one in losses for s in one if len(s) == k]) for k in range(1, 5)}
    grids = []
    for steps in (1, 2, 4, 64):  # each masks every token by itself, at the rates 1 / steps, 2 / steps, ..., 1
        rates = np.arange(1, steps + 1) / steps
        grids.append(np.mean([sum(stats.binom.pmf(k, 4, r) * k * at[k] for k in at) / (4 * r) for r in rates]))
    assert grids[0] == pytest.approx(at[4]) and (np.diff([*grids, exact]) < -1e-3).all()
    assert grids[-1] == pytest.approx(exact, rel=0.02)


def test_drawn_sets_agree_with_all_orders(mesh):
    """Without the enumeration: within three standard deviations, which all sets give."""
    text, draws = (A, B, A, C), 400
    model = random_model()
    losses = all_losses(model, text)
    means = {k: [losses[s][list(s)].mean() for s in losses if len(s) == k] for k in range(1, 5)}
    deviation = math.sqrt(sum(np.var(found) for found in means.values()) / 4 / draws)
    found = bound_of(model, rows_of(text), mesh, 64, draws)["bound"]
    assert abs(found - np.mean([np.mean(one) for one in means.values()])) < 3 * deviation


def test_its_first_term_is_the_pseudo_log_likelihood(mesh, monkeypatch):
    text = (A, B, A, C, C)
    model = random_model()
    each = Draws(np.zeros((1, 5)), np.ones((1, 5), int), np.zeros(1, int))
    monkeypatch.setattr(bound, "draw_counts", lambda *_: each)
    monkeypatch.setattr(bound.MaskedCopies, "_masked", lambda self, row, draw: self._maskable[row][[draw]])
    losses = all_losses(model, text)
    expected = np.mean([losses[frozenset([i])][i] for i in range(5)])
    assert bound_of(model, rows_of(text), mesh, draws=5)["bound"] == pytest.approx(expected, rel=1e-5)


def test_a_uniform_predictor_gives_the_logarithm_of_the_vocabulary(mesh):
    found = bound_of(unigram_model(np.zeros(8)), random_rows(9, 40), mesh)
    assert found["bound"] == pytest.approx(math.log(3), rel=1e-6) and found["bound_se"] == pytest.approx(0, abs=1e-6)
    assert found["bits_per_word"] == pytest.approx(math.log2(3), rel=1e-6)
    assert found["bits_per_byte"] == pytest.approx(math.log2(3) / 2, rel=1e-6)
    assert sum(found[name] for name in found if name.startswith("part@")) == pytest.approx(found["bound"])
    points = [value for name, value in found.items() if "@0." in name and not name.startswith("part")]
    assert len(points) > BINS and points == pytest.approx([math.log(3)] * len(points), rel=1e-6)


def test_unigram_frequencies_give_their_cross_entropy(mesh, monkeypatch):
    """Special tokens have a share of the model's probability, and none of the bound's."""
    shares = np.array([0.5, 0.25, 0.25])
    model = unigram_model(np.log([9.0, 2.0, 5.0, 5.0, 1.0, *shares]))
    rows = rows_of((A, A, B, C))
    found = bound_of(model, rows, mesh, 64, enumerated(monkeypatch, rows))
    assert found["bound"] == pytest.approx(-(shares * np.log(shares)).sum(), rel=1e-6)


def test_special_and_unknown_tokens_are_neither_masked_nor_counted(mesh):
    rows = rows_of((A, UNK, B, C), (UNK,), (B, UNK))
    found = bound_of(random_model(), rows, mesh)
    assert (found["rows"], found["tokens"], found["unknown"], found["words"]) == (2, 4, 2, 6)
    copies = bound.MaskedCopies(rows.ids[:1], TOKENIZER.special, TOKENIZER, 2, 5, 0)
    for batch in copies.batches():
        at = batch["weights"] > 0
        assert (np.take_along_axis(batch["inputs"], batch["positions"], 1)[at] == MASK).all()
        assert not TOKENIZER.special[batch["targets"][at]].any()
        assert (batch["inputs"] == MASK).sum() == at.sum()


def test_a_text_without_a_token_that_can_be_masked_is_refused():
    with pytest.raises(InputError, match="none of the 1 rows has a token that can be masked"):
        likelihood_bound(rows_of((UNK, UNK)), TOKENIZER, 8)


@pytest.mark.parametrize("rows", [1, 7, 40])
def test_every_count_is_drawn_as_often_as_the_others(rows):
    """k is uniform on 1..n: exactly, where the draws of a row are a multiple of n; else on average over the seeds."""
    found = draw_counts(np.full(rows, 6), 12, seed=1)
    assert (np.sort(found.masked, axis=1) == np.repeat(np.arange(1, 7), 2)).all()
    counts = np.concatenate([draw_counts(np.full(rows, 6), 1, seed).masked.ravel() for seed in range(4000 // rows)])
    share = np.bincount(counts, minlength=7)[1:] / len(counts)
    assert np.bincount(counts, minlength=7)[0] == 0 and np.abs(share - 1 / 6).max() < 3 * math.sqrt(
        5 / 36 / len(counts)
    )


def test_each_stratum_of_each_half_has_one_rate():
    found = draw_counts(np.full(41, 128), 2, seed=5)
    for half, rows in ((0, 21), (1, 20)):
        strata = np.floor(found.rate[found.half == half].ravel() * 2 * rows)
        assert (np.sort(strata) == np.arange(2 * rows)).all()
    other = draw_counts(np.full(41, 128), 2, seed=6)
    assert (other.rate != found.rate).all() and (draw_counts(np.full(41, 128), 2, seed=5).rate == found.rate).all()


def test_seeds_strata_and_batches_agree(mesh):
    model, rows = random_model(), random_rows(32, 12)
    truth = bound_of(model, rows, mesh, 32, draws=40)
    found = [bound_of(model, rows, mesh, 32, seed=seed) for seed in range(6)]
    for one in found:
        assert abs(one["bound"] - truth["bound"]) < 3 * one["bound_se"]
    values = [one["bound"] for one in found]
    assert abs(np.mean(values) - truth["bound"]) < 3 * found[0]["bound_se"] / math.sqrt(len(values))
    assert bound_of(model, rows, mesh, 8)["bound"] == pytest.approx(found[0]["bound"], rel=1e-5)


def test_logits_in_chunks_give_the_same(mesh):
    rows = random_rows(8, 12)
    whole, chunked = (
        bound_of(random_model(config), rows, mesh)
        for config in (CONFIG, EncoderConfig(**{**vars(CONFIG), "logits_chunk": 3}))
    )
    assert chunked == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize(
    "sizes",
    [(2, 1, 1), pytest.param((2, 2, 2), marks=pytest.mark.slow("compiles for eight devices"))],
    ids=str,
)
def test_it_is_the_same_on_every_mesh(sizes):
    rows = random_rows(8, 12)
    found = []
    for shape in ((1, 1, 1), sizes):
        mesh = make_mesh(Mesh(*shape), jax.local_devices()[: int(np.prod(shape))])
        with jax.set_mesh(mesh):
            key = jax.random.key(3)
            model = jax.jit(lambda key: MaskedLM(Encoder(CONFIG, 8, key), jax.random.fold_in(key, 1)))(key)
            found.append(bound_of(model, rows, mesh))
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_the_standard_error_is_that_of_repeated_samples():
    """Rows drawn anew each time, whose loss rises with the rate: strata take that rise out of the error."""
    random = np.random.default_rng(0)
    values, errors = [], []
    for seed in range(400):
        tokens = random.integers(4, 30, 64)
        draws = draw_counts(tokens, 1, seed)
        losses = 2 + 5 * draws.rate + random.normal(0, 0.5, (64, 1)) + 0.2 * tokens[:, None] / 30
        found = estimate(losses, draws, tokens, tokens, tokens)
        values.append(found["bound"])
        errors.append(found["bound_se"])
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.12)
    assert np.mean(values) == pytest.approx(2 + 2.5 + 0.2 * 0.62, abs=0.03)


def test_a_curve_that_is_known_has_its_parts_and_points():
    tokens = np.full(100, 50)
    draws = draw_counts(tokens, 10, 0)
    found = estimate(draws.rate, draws, tokens, tokens, tokens)
    assert found["bound"] == pytest.approx(0.5, abs=1e-3)
    assert [found[f"part@{p}"] for p in ("0-0.3", "0.3-0.7", "0.7-1")] == pytest.approx([0.045, 0.2, 0.255], abs=1e-3)
    for i in range(BINS):
        assert found[curve_name("curve", i)] == pytest.approx((i + 0.5) / 10, abs=1e-3)
        halves = [found[curve_name(f"half/{half}", i)] for half in (0, 1)]
        assert np.mean(halves) == pytest.approx(found[curve_name("curve", i)])
