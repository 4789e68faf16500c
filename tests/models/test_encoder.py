"""What a model must keep to: the mesh, padding, packing, remat and dtype change nothing but speed and memory."""

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlm.errors import InputError
from jaxmlm.models import Classifier, Encoder, EncoderConfig, MaskedLM, SpanPredictor
from jaxmlm.models.attention import attend, visibility
from jaxmlm.models.layers import LayerNorm, dropout
from jaxmlm.parallel import Mesh, make_mesh, place

VOCAB = 67
RNG = np.random.default_rng(0)
SEGMENTS = np.ones((8, 8), np.int32)
SEGMENTS[0, 3:], SEGMENTS[0, 7:], SEGMENTS[1:5, 6:] = 2, 0, 0
BATCH: dict[str, Any] = {
    "ids": RNG.integers(0, VOCAB, (8, 8), np.int32),
    "segments": SEGMENTS,
    "positions": RNG.integers(0, 6, (8, 2), np.int32),
    "targets": RNG.integers(0, VOCAB, (8, 2), np.int32),
}


def small(**options: Any) -> EncoderConfig:
    return EncoderConfig(**({"layers": 2, "width": 32, "heads": 8, "mlp": 64, "max_positions": 16} | options))


# init 0.2 instead of 0.02: what a part of the model does must be seen in the result.
CONFIGS = {
    "pre, learned": small(init=0.2),
    "post, rope": small(norm="post", positions="rope", init=0.2),
    "no dropout": small(dropout=0.0, attention_dropout=0.0, init=0.2),
}


def loss(model: MaskedLM, batch: dict[str, Any], key: jax.Array | None) -> jax.Array:
    """Mean of the targets' nats. Written with a mask: a gather from logits cut by vocabulary would not partition."""
    found = model.logits(model.hidden(batch["ids"], batch["segments"], key), batch["positions"])
    at = jax.sharding.reshard(jnp.arange(found.shape[-1])[None, None], jax.P(None, None, "tensor"))
    right = jnp.where(at == batch["targets"][:, :, None], found, 0.0).sum(-1)
    return (jax.nn.logsumexp(found, axis=-1) - right).mean()


@functools.cache
def judged(config: EncoderConfig, sizes: tuple[int, int, int] = (1, 1, 1), drop: bool = True) -> tuple[Any, Any]:
    """Loss and gradients of the model of seed 0, made, used and differentiated on a mesh of these sizes."""
    mesh = make_mesh(Mesh(*sizes), jax.local_devices()[: int(np.prod(sizes))])

    @jax.jit
    def run(key: jax.Array, batch: dict[str, Any]) -> tuple[jax.Array, MaskedLM]:
        model = MaskedLM(Encoder(config, VOCAB, key), jax.random.fold_in(key, 1))
        return jax.value_and_grad(loss)(model, batch, key if drop else None)

    with jax.set_mesh(mesh):
        return jax.device_get(run(jax.random.key(0), place(BATCH, mesh)))


@functools.cache
def made(config: EncoderConfig) -> MaskedLM:
    return jax.jit(lambda key: MaskedLM(Encoder(config, VOCAB, key), key))(jax.random.key(0))


@jax.jit
def called(model: Any, *inputs: Any) -> Any:
    return model(*inputs)


logits = jax.jit(lambda model, hidden, positions: model.logits(hidden, positions))


def assert_same(a: Any, b: Any, tolerance: float = 1e-5) -> None:
    """Two trees are equal but for rounding, leaf by leaf, relative to the largest entry of the leaf."""
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
        np.testing.assert_allclose(x, y, atol=tolerance * np.abs(x).max(), rtol=0, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("pre, learned", (2, 2, 2))]
    + [
        pytest.param(*more, marks=pytest.mark.slow("compiles for eight devices"))
        for more in (
            ("pre, learned", (8, 1, 1)),
            ("pre, learned", (1, 8, 1)),
            ("pre, learned", (2, 1, 4)),
            ("post, rope", (2, 2, 2)),
        )
    ],
    ids=str,
)
def test_every_mesh_gives_the_same_loss_and_gradients_with_dropout(name, sizes):
    assert_same(judged(CONFIGS[name]), judged(CONFIGS[name], sizes))


def test_dropout_needs_a_key_and_changes_the_loss():
    with_key, without = judged(CONFIGS["pre, learned"])[0], judged(CONFIGS["pre, learned"], drop=False)[0]
    assert abs(with_key - without) > 1e-3
    assert_same(judged(CONFIGS["no dropout"])[0], without)
    x = dropout(jax.random.key(0), 0.25, jnp.ones((64, 64)))
    assert set(np.unique(x)) == {np.float32(0), np.float32(1 / 0.75)} and abs(float(x.mean()) - 1) < 0.04


def test_padded_vocabulary_is_never_predicted_and_gets_no_gradient():
    model = made(CONFIGS["no dropout"])
    got = np.asarray(logits(model, RNG.normal(size=(2, 8, 32)).astype(np.float32), np.array([[0, 3], [1, 1]])))
    assert model.encoder.embedding[...].shape[0] == got.shape[-1] == 128
    assert np.isneginf(got[..., VOCAB:]).all() and np.isfinite(got[..., :VOCAB]).all()
    larger = jax.eval_shape(lambda: Encoder(small(), 131, jax.random.key(0)))
    assert larger.embedding.get_value().shape[0] == 256
    _, gradients = judged(CONFIGS["no dropout"])
    table, bias = gradients.encoder.embedding[...], gradients.bias[...]
    assert not table[VOCAB:].any() and not bias[VOCAB:].any()
    assert (np.abs(table[:VOCAB]).max(1) > 0).all() and bias[:VOCAB].all()


def test_logits_are_those_of_the_positions_asked_for():
    model, hidden = made(CONFIGS["no dropout"]), RNG.normal(size=(2, 8, 32)).astype(np.float32)
    positions = np.array([[5, 0], [2, 7]])
    every = np.asarray(logits(model, hidden, np.tile(np.arange(8), (2, 1))))[..., :VOCAB]
    some = np.asarray(logits(model, hidden, positions))[..., :VOCAB]
    assert_same(np.take_along_axis(every, positions[:, :, None], 1), some)


@pytest.mark.parametrize("name", ["no dropout", "post, rope"])
def test_padding_changes_nothing_and_gets_no_gradient(name):
    encoder = made(CONFIGS[name]).encoder
    ids, weights = BATCH["ids"] % (VOCAB - 1), RNG.normal(size=(8, 8, 32)).astype(np.float32)
    real = (SEGMENTS > 0)[:, :, None]

    @jax.jit
    def run(encoder: Encoder, ids: jax.Array) -> tuple[jax.Array, Encoder]:
        def total(encoder: Encoder) -> tuple[jax.Array, jax.Array]:
            hidden = encoder(ids, jnp.asarray(SEGMENTS)) * real
            return (hidden * weights).sum(), hidden

        gradients, hidden = jax.grad(total, has_aux=True)(encoder)
        return hidden, gradients

    hidden, gradients = run(encoder, jnp.where(SEGMENTS > 0, ids, VOCAB - 1))
    assert_same(hidden, run(encoder, jnp.where(SEGMENTS > 0, ids, 5))[0], 1e-6)
    table = np.asarray(gradients.embedding[...])
    assert not table[VOCAB - 1].any() and table[ids[SEGMENTS > 0]].any(1).all()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))


def test_packed_documents_are_alone():
    a, b = BATCH["ids"][0, :3], BATCH["ids"][0, 3:7]
    ids, segments = np.full((3, 8), 9, np.int32), np.zeros((3, 8), np.int32)
    ids[0, :7], segments[0, :3], segments[0, 3:7] = [*a, *b], 1, 2
    ids[1, :3], segments[1, :3], ids[2, :4], segments[2, :4] = a, 1, b, 1
    encoder = made(small(positions="rope", init=0.2)).encoder
    hidden = np.asarray(called(encoder, ids, segments))
    assert_same(hidden[0, :3], hidden[1, :3])
    assert_same(hidden[0, 3:7], hidden[2, :4])  # rotary positions are relative
    one = np.asarray(called(encoder, ids, np.minimum(segments, 1)))
    assert np.abs(one[0, :3] - hidden[0, :3]).max() > 1e-2


@pytest.mark.parametrize("positions", ["learned", "rope"])
def test_the_order_of_words_matters(positions):
    encoder = made(small(positions=positions, init=0.2)).encoder
    ids, ones = BATCH["ids"], np.ones((8, 8), np.int32)
    assert np.abs(called(encoder, ids[:, ::-1], ones)[:, ::-1] - called(encoder, ids, ones)).max() > 1e-2


@pytest.mark.slow("compiles three gradients")
def test_remat_changes_the_program_and_not_the_result():
    configs = [small(init=0.2, remat=remat) for remat in ("none", "dots", "full")]
    for config in configs[1:]:
        assert_same(judged(configs[0]), judged(config))
    batch, key = jax.tree.map(jnp.asarray, BATCH), jax.random.key(0)
    programs = [jax.jit(jax.grad(loss)).lower(made(c), batch, key).as_text() for c in configs]
    none, dots, full = (program.count("dot_general") for program in programs)
    assert none < dots < full  # products computed again


@pytest.mark.slow("compiles two gradients")
def test_a_rolled_scan_is_the_unrolled_one(monkeypatch):
    unrolled = judged(CONFIGS["pre, learned"])
    monkeypatch.setattr("jaxmlm.models.encoder.platform", lambda: "tpu")
    rolled = judged.__wrapped__(CONFIGS["pre, learned"])
    assert_same(unrolled, rolled)
    batch = jax.tree.map(jnp.asarray, BATCH)
    programs = [jax.jit(lambda *x: loss(*x, None)).lower(made(CONFIGS["pre, learned"]), batch).as_text()]
    monkeypatch.undo()
    programs.append(jax.jit(lambda *x: loss(*x, None)).lower(made(CONFIGS["pre, learned"]), batch).as_text())
    assert ["stablehlo.while" in program for program in programs] == [True, False]


def test_blocks_apart_are_the_stacked_ones():
    config = small(layers=3, window=4, global_every=2, first_norm=False, positions="rope", init=0.2)
    encoder = made(config).encoder
    ids, segments = jnp.asarray(BATCH["ids"]), jnp.asarray(BATCH["segments"])
    one, other = (jax.jit(lambda e: e(ids, segments))(e) for e in (encoder, encoder.unstacked()))
    assert jnp.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("window", [None, 16])
@pytest.mark.parametrize(
    "sizes", [(1, 1, 1), pytest.param((2, 2, 2), marks=pytest.mark.slow("an interpreted kernel on eight devices"))]
)
def test_splash_attention_is_the_plain_one(sizes, window):
    """The TPU's kernel, interpreted: hidden states of what is no padding, and gradients, on one device and on eight."""
    config = small(positions="rope", init=0.2, attention_dropout=0.0, window=window, global_every=2)
    random = np.random.default_rng(0)
    rows = {
        "ids": random.integers(0, VOCAB, (8, 128), np.int32),
        "segments": np.ones((8, 128), np.int32),
        "weight": random.normal(size=(8, 128, 32)).astype(np.float32),
    }
    rows["segments"][:4, 50:], rows["segments"][2:, 100:] = 2, 0
    rows["weight"][rows["segments"] == 0] = 0

    def mean(encoder: Encoder, rows: dict[str, Any]) -> jax.Array:
        return (encoder(rows["ids"], rows["segments"]) * rows["weight"]).sum() / 1000

    def run(kernel: Any) -> Any:
        mesh = make_mesh(Mesh(*sizes), jax.local_devices()[: int(np.prod(sizes))])
        with jax.set_mesh(mesh):
            encoder = jax.jit(lambda key: Encoder(replace(config, attention=kernel), VOCAB, key))(jax.random.key(0))
            return jax.device_get(jax.jit(jax.value_and_grad(mean))(encoder, place(rows, mesh)))

    plain, splash = jax.tree.leaves(run("plain")), jax.tree.leaves(run("splash"))
    assert all(np.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(plain, splash, strict=True))


def test_splash_attention_is_plain_at_lengths_that_the_kernel_cannot():
    config = small(positions="rope", attention_dropout=0.0)
    with jax.set_mesh(make_mesh(devices=jax.devices()[:1])):
        ids = jnp.ones((2, 20), jnp.int32)
        plain, splash = (
            jax.jit(lambda key, c=c: Encoder(c, VOCAB, key)(ids, ids))(jax.random.key(0))
            for c in (config, replace(config, attention="splash"))
        )
    np.testing.assert_array_equal(plain, splash)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_where_it_counts():
    exact, cheap = CONFIGS["no dropout"], small(dropout=0.0, attention_dropout=0.0, init=0.2, dtype="bfloat16")
    model = made(cheap)
    assert {x.dtype for x in jax.tree.leaves(model)} == {jnp.dtype("float32")}
    shape = jax.eval_shape(model.hidden, BATCH["ids"], SEGMENTS)
    assert shape.dtype == jnp.bfloat16
    assert jax.eval_shape(model.logits, shape, BATCH["positions"]).dtype == jnp.float32
    (a, a_gradients), (b, b_gradients) = judged(exact), judged(cheap)
    assert 1e-6 < abs(a - b) < 0.02
    assert_same(a_gradients, b_gradients, 0.1)


def test_attention_is_softmax_over_the_visible():
    q, k, v = RNG.normal(size=(3, 2, 5, 2, 4)).astype(np.float32)
    segments = np.array([[1, 1, 2, 2, 0], [1, 1, 1, 1, 1]], np.int32)
    got = attend(jnp.asarray(q), jnp.asarray(k), jnp.asarray(v), visibility(jnp.asarray(segments)))
    for b, h, i in np.ndindex(2, 2, 5):
        seen = [j for j in range(5) if segments[b, j] == segments[b, i] != 0]
        if seen:
            share = np.exp([q[b, i, h] @ k[b, j, h] / 2 for j in seen])
            expected = (share / share.sum()) @ v[b, seen, h]
            np.testing.assert_allclose(got[b, i, h], expected, rtol=1e-5, atol=1e-6)
    assert np.isfinite(got).all()


def test_layer_norm_is_that_of_numpy():
    x, scale, bias = (RNG.normal(3, 5, size=s).astype(np.float32) for s in ((4, 7, 16), (16,), (16,)))
    norm = LayerNorm(16, 0.5)
    norm.scale[...], norm.bias[...] = scale, bias
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.5) * scale + bias
    np.testing.assert_allclose(norm(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-5)


def test_heads_give_their_shapes_from_abstract_models():
    config, key = small(dtype="bfloat16"), jax.random.key(0)
    heads = {
        (8, 3): lambda: Classifier(Encoder(config, VOCAB, key), 3, key),
        (8, 1): lambda: Classifier(Encoder(config, VOCAB, key), 1, key),
        (8, 8, 2): lambda: SpanPredictor(Encoder(config, VOCAB, key), key),
    }
    for shape, make in heads.items():
        model = jax.eval_shape(make)
        out = jax.eval_shape(lambda m, *x: m(*x), model, BATCH["ids"], SEGMENTS, key)
        assert (out.shape, out.dtype) == (shape, jnp.float32)


@pytest.mark.parametrize("pool", ["first", "mean"])
def test_a_classifier_reads_the_first_token_or_the_mean_of_the_real_ones(pool):
    make = lambda key: Classifier(Encoder(replace(CONFIGS["no dropout"], pool=pool), VOCAB, key), 3, key)  # noqa: E731
    model = jax.jit(make)(jax.random.key(0))
    segments = np.where(np.arange(8)[:, None] < 7, SEGMENTS, 0)  # the last row is one that fills up a batch
    hidden = np.asarray(called(model.encoder, BATCH["ids"], segments))
    real = segments > 0
    means = np.stack([hidden[i, real[i]].mean(0) if real[i].any() else np.zeros(32) for i in range(8)])
    read = {"first": hidden[:, 0], "mean": means}[pool]
    out = np.tanh(read @ np.asarray(model.dense.kernel[...])) @ np.asarray(model.out.kernel[...])
    assert_same(called(model, BATCH["ids"], segments), out)


@pytest.mark.parametrize(
    "wrong",
    [{"width": 30}, {"heads": 32, "positions": "rope"}, {"heads": 0}, {"layers": 0}, {"width": 0}, {"dropout": 1.0}]
    + [{"mlp": 0}, {"max_positions": 0}, {"attention_dropout": -0.1}],
    ids=str,
)
def test_sizes_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError, match=f"model.{'width' if 'positions' in wrong else list(wrong)[0]}"):
        small(**wrong)


def test_too_long_an_input_is_refused_with_its_cure():
    with pytest.raises(InputError, match="17 tokens.*max_positions.*16"):
        ids = jnp.ones((1, 17), jnp.int32)
        jax.eval_shape(lambda: Encoder(small(), VOCAB, jax.random.key(0))(ids, ids))


@pytest.mark.mesh(data=2, fsdp=2, tensor=2)
@pytest.mark.parametrize(
    "config",
    [
        small(init=0.2, norm="post"),
        small(init=0.2, layers=4, positions="rope", window=2, first_norm=False, biases=False),
    ],
    ids=["post, learned", "windows, rope"],
)
def test_hidden_states_of_every_layer_and_at_some_positions_are_those_of_a_call(config):
    """Whether the blocks are stacked or apart; each layer is the output of an encoder that ends there."""
    encoder = jax.jit(lambda key: Encoder(config, VOCAB, key))(jax.random.key(0))
    mesh = jax.sharding.get_mesh()
    batch = place(BATCH, mesh)
    ids, segments, positions = batch["ids"], batch["segments"], batch["positions"]
    run = jax.jit(
        lambda e, *x: (
            e(*x),
            e.all_hidden_states(*x),
            e.at_positions(*x, positions),
            e.unstacked().all_hidden_states(*x),
        )
    )
    whole, every, some, apart = jax.device_get(run(encoder, ids, segments))
    assert every.shape == (config.layers + 1, *whole.shape)
    assert_same(every, apart)
    np.testing.assert_array_equal(every[-1], whole)
    real = np.take_along_axis(BATCH["segments"], BATCH["positions"], 1) > 0
    expected = np.take_along_axis(whole, BATCH["positions"][:, :, None], 1)
    np.testing.assert_allclose(some[real], expected[real], atol=1e-5 * np.abs(expected).max())
    assert np.abs(every[1] - every[0]).max() > 1e-3
    one = jax.tree.map(lambda x: x, encoder)
    one.blocks = jax.tree.map(lambda x: x[:1], encoder.blocks)
    one.config = replace(config, layers=1)
    if config.norm == "post":  # else a final layer norm comes between
        assert_same(every[1], np.asarray(jax.jit(lambda e, *x: e(*x))(one, ids, segments)))
