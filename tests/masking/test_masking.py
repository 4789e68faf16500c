"""The laws of a masking: what may be hidden, how much, how evenly, and that it depends on (seed, step, id) only."""

import dataclasses
import hashlib
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxmlm.data import SentencePieceTokenizer, Tokenizer
from jaxmlm.errors import InputError
from jaxmlm.masking import LinearDecay, Masking, Replace, SpanUnits, Tokens, Uniform, Vocab, WordUnits, mask_batch
from jaxmlm.masking.replacement import check_replace
from jaxmlm.masking.schedule import Constant, check_schedule
from jaxmlm.parallel import Mesh, make_mesh, place
from jaxmlm.rng import step_key
from jaxmlm.tasks import mlm

B, L, V = 64, 20, 500
VOCAB = Vocab(V, mask_id=4, pad_id=0, replacement_ids=np.arange(300, 400, dtype=np.int32))
BERT = Replace(mask=0.8, random=0.1, keep=0.1)


def tokens_of(counts) -> Tokens:
    """Rows [cls] n words [sep] [pad]...: the ids differ from place to place, and no word is a replacement."""
    n = np.asarray(counts)[:, None]
    at = np.arange(L)[None, :]
    maskable = (at > 0) & (at <= n)
    ids = np.where(maskable, 10 + at, np.where(at == 0, 2, np.where(at == n + 1, 3, 0))).astype(np.int32)
    return Tokens(ids, maskable, np.ones_like(ids, np.uint8))


@partial(jax.jit, static_argnums=(0, 4))
def run(masking, key, ids, tokens, vocab, step):
    return mask_batch(masking, key, ids, tokens, vocab, step)


def masked(masking, ids, tokens, seed=0, step=0):
    key = step_key(seed, step)
    return jax.tree.map(np.asarray, run(masking, key, jnp.asarray(ids, jnp.int32), tokens, VOCAB, jnp.int32(step)))


@pytest.mark.slow("statistics over many rows")
@pytest.mark.parametrize(("rate", "n"), [(0.15, 18), (0.4, 7), (0.33, 19), (0.8, 13), (0.15, 3), (0.4, 1)])
def test_the_rate_asked_for_is_the_rate_given(rate, n):
    rows = 20_000
    count = masked(Masking(rate), np.arange(rows), tokens_of([n] * rows)).weights.sum(1)
    part = rate * n % 1
    sigma = math.sqrt(part * (1 - part) / rows)
    assert abs(count.mean() - rate * n) <= 4 * sigma + 1e-6


def test_replaced_shares_and_random_ids():
    tokens = tokens_of([18] * 5_000)
    out = masked(Masking(0.4, replace=BERT), np.arange(5_000), tokens)
    on = out.weights == 1
    seen = np.take_along_axis(out.inputs, out.positions, 1)[on]
    kinds = [seen == VOCAB.mask_id, np.isin(seen, VOCAB.replacement_ids), seen == out.targets[on]]
    assert (np.sum(kinds, 0) == 1).all()
    for kind, share in zip(kinds, (0.8, 0.1, 0.1), strict=True):
        assert abs(kind.mean() - share) <= 4 * math.sqrt(share * (1 - share) / len(seen))
    drawn = np.bincount(seen[kinds[1]] - 300, minlength=100)
    assert stats.chisquare(drawn).pvalue > 1e-4


@pytest.mark.slow("statistics over many rows")
def test_every_position_is_equally_likely():
    out = masked(Masking(0.3), np.arange(20_000), tokens_of([18] * 20_000))
    hits = np.bincount(out.positions[out.weights == 1], minlength=L)
    assert hits[[0, 19]].sum() == 0 and stats.chisquare(hits[1:19]).pvalue > 1e-4


def test_a_mask_depends_on_seed_step_and_id_only():
    tokens, masking, ids = tokens_of([18] * B), Masking(0.4, replace=BERT), np.arange(1000, 1000 + B)
    whole = masked(masking, ids, tokens, seed=3, step=7)
    order = np.random.default_rng(0).permutation(B)[: B // 2]  # another order, another batch size
    part = masked(masking, ids[order], jax.tree.map(lambda x: x[order], tokens), seed=3, step=7)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[order], b), whole, part)
    for other in (
        masked(masking, ids + B, tokens, seed=3, step=7),
        masked(masking, ids, tokens, seed=3, step=8),
        masked(masking, ids, tokens, seed=4, step=7),
    ):
        assert (other.inputs != whole.inputs).any(1).mean() > 0.95
    assert (whole.inputs[1:] != whole.inputs[:-1]).any(1).all()


KNOWN = {
    Masking(0.15, replace=BERT): "a27e5871f5d35937",
    Masking(0.4): "75e62c5b88b3ce77",
    Masking(0.4, units=WordUnits(), count="exact"): "0f6eeea8d3ff6a08",
    Masking(0.3, units=SpanUnits(), schedule=LinearDecay(0.5, 100)): "d3b53201e68f0960",
    Masking(0.2, predict=0.5): "b3dc21d45b9f8c5b",
    Masking(0.5, predict=0.2): "b795c8e868b4f0c8",
}
"""The beginning of the SHA-256 of masks, as they were before a rate could follow a law."""


@pytest.mark.parametrize("masking", KNOWN, ids=str)
def test_the_masks_of_a_constant_rate_are_the_bits_that_they_were(masking):
    found = masked(masking, range(100, 108), tokens_of(np.arange(11, 19)), seed=7, step=11)
    raw = b"".join(x.astype(np.int32).tobytes() for x in found)
    assert hashlib.sha256(raw).hexdigest()[:16] == KNOWN[masking]


def test_vmapped_is_looped_and_jitted_is_not():
    tokens, masking = tokens_of([18, 3, 0, 11] * 16), Masking(0.4, replace=BERT)
    batch = masked(masking, np.arange(B), tokens, seed=3, step=2)
    step_key = jax.random.fold_in(jax.random.key(3), 2)
    for row in range(4):
        one = masking(jax.random.fold_in(step_key, row), Tokens(*(jnp.asarray(x[row]) for x in tokens)), VOCAB)
        jax.tree.map(lambda a, b, row=row: np.testing.assert_array_equal(a[row], b), batch, one)


def test_one_compilation_for_all_steps_and_ids():
    before = run._cache_size()
    for step in range(5):
        masked(Masking(0.37), np.arange(8) + step, tokens_of([9 + step] * 8), step=step)
    assert run._cache_size() == before + 1


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return SentencePieceTokenizer.train(["a cat saw the dog", "the dog saw a cat and a bird"] * 20, 20)


@pytest.mark.parametrize(
    "masking",
    [
        Masking(0.4, replace=BERT),
        Masking(0.2, predict=0.5, units=SpanUnits(), schedule=LinearDecay(0.5, 9)),
        Masking(Uniform(0.001, 1), weights="bound"),
    ],
    ids=["uniform", "spans in three views", "a law"],
)
def test_masks_are_equal_on_any_mesh_without_a_collective(tokenizer, masking):
    random = np.random.default_rng(0)
    ids = random.integers(0, tokenizer.size, (16, L)).astype(np.int32)
    batch = {"ids": ids, "example": random.permutation(10**6)[:16].astype(np.int32)}

    vocab = Vocab(tokenizer.size, tokenizer.mask_id, tokenizer.pad_id, np.arange(5, tokenizer.size))

    def masks(key, batch):
        return mlm.mask(masking, key, batch, tokenizer, vocab, jnp.int32(3))

    outs = []
    for sizes in (Mesh(1), Mesh(2), Mesh(4), Mesh(8), Mesh(2, 2, 2)):
        devices = jax.local_devices()[: sizes.data * sizes.fsdp * sizes.tensor]
        mesh = make_mesh(sizes, devices)
        with jax.set_mesh(mesh):
            on = place(batch, mesh)
            compiled = jax.jit(masks).lower(jax.random.key(1), on).compile()
            outs.append(compiled(jax.random.key(1), on))
        program = compiled.as_text()
        for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
            assert word not in program, f"{word} on {sizes}"
        rows = 16 * masking.views
        assert outs[-1].inputs.sharding.shard_shape((rows, L))[0] == rows // (sizes.data * sizes.fsdp)
    for out in outs[1:]:
        jax.tree.map(np.testing.assert_array_equal, outs[0], out)
    ids = np.repeat(ids, masking.views, 0)
    special = tokenizer.special[ids]
    assert (np.asarray(outs[0].inputs) == ids)[special].all() and special.any()
    assert (np.asarray(outs[0].inputs) != ids)[~special].any()


def test_random_tokens_are_pieces_of_text(tokenizer, monkeypatch):
    """No special one, no [unused7] of BERT's vocabulary, no id without a piece."""
    names = tokenizer.pieces(range(tokenizer.size))
    names[6:9] = "[unused7]", "", "[unused]"
    monkeypatch.setattr(tokenizer, "pieces", lambda ids: [names[i] for i in ids])
    assert mlm.replacement_ids_of(tokenizer).tolist() == [5, *range(8, tokenizer.size)]


@pytest.mark.parametrize("rate", [0.0, 1.01, 1.5, -0.1, math.nan])
def test_a_rate_outside_0_and_1_is_refused(rate):
    with pytest.raises(InputError, match="masking.rate must be above 0 and at most 1"):
        Masking(rate)
    with pytest.raises(InputError, match="masking.predict must be above 0 and at most 1"):
        Masking(0.4, predict=rate)


@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.2), (1.2, -0.2, 0.0), (0.5, 0.0, 0.0), (math.nan, 0.5, 0.5)])
def test_shares_that_do_not_sum_to_1_are_refused(shares):
    with pytest.raises(InputError, match="masking.replace: mask, random and keep must"):
        Replace(*shares)


def test_a_schedule_without_its_step_is_refused():
    tokens = Tokens(jnp.ones((1, 8), jnp.int32), jnp.ones((1, 8), bool), jnp.ones((1, 8), jnp.uint8))
    vocab = Vocab(size=9, mask_id=4, pad_id=0, replacement_ids=np.arange(5, 9))
    falling = Masking(0.4, schedule=LinearDecay(end=0.5, steps=100))
    with pytest.raises(InputError, match="the masking follows a schedule, LinearDecay.*give mask_batch the `step`"):
        mask_batch(falling, step_key(0, 50), jnp.arange(1), tokens, vocab)


@pytest.mark.parametrize(
    ("check", "wrong"), [(check_replace, "80-10-10"), (check_schedule, 0.5), (check_schedule, lambda step: 0.5)]
)
def test_a_replacement_or_schedule_of_another_kind_is_refused(check, wrong):
    with pytest.raises(InputError, match=rf"masking.\w+ is a {type(wrong).__name__}: give a "):
        check(wrong)


def test_a_replacement_or_schedule_can_be_hashed():
    @dataclasses.dataclass(frozen=True)
    class Listed(Replace):
        ranks: list = dataclasses.field(default_factory=lambda: [1, 2])

    @dataclasses.dataclass(frozen=True)
    class Table(Constant):
        factors: list = dataclasses.field(default_factory=lambda: [1.0, 0.5])

    with pytest.raises(InputError, match="masking.replace: Listed cannot be hashed: write ranks as tuples"):
        Masking(0.4, replace=Listed())
    with pytest.raises(InputError, match="masking.schedule: Table cannot be hashed: write factors as tuples"):
        Masking(0.4, schedule=Table())


@pytest.mark.parametrize(
    ("ids", "wrong"),
    [((99, 0, [5]), "mask_id has 99"), ((4, -1, [5]), "pad_id has -1"), ((4, 0, [5, 65]), "replacement_ids has 65")],
)
def test_ids_outside_the_vocabulary_are_refused(ids, wrong):
    mask_id, pad_id, others = ids
    with pytest.raises(InputError, match=f"{wrong}: the 65 token ids are 0 to 64"):
        Vocab(65, mask_id, pad_id, np.array(others))
    Vocab(65, 64, 0, np.arange(5, 65))
