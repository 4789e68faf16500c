"""BLiMP: reading, pseudo-log-likelihood against one sentence at a time, ties, averages."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlm.data import SentencePieceTokenizer
from jaxmlm.errors import InputError
from jaxmlm.models import Encoder, EncoderConfig, MaskedLM
from jaxmlm.tasks import blimp

PAIRS = [
    ("agreement_1", "agreement", "the fox runs", "the fox run"),
    ("agreement_1", "agreement", "the old red foxes run by the owl", "the old red foxes runs by the owl"),
    ("agreement_2", "agreement", "hens sleep", "hens sleeps"),
    ("roles", "s-selection", "the hen sees the old owl", "the owl sees the old hen"),
    ("roles", "s-selection", "The hen", "the hen"),
]


@pytest.fixture(scope="module")
def tokenizer():
    return SentencePieceTokenizer.train([text for pair in PAIRS for text in pair[2:]] * 4, 31)


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "data").mkdir()
    for uid, field, good, bad in PAIRS:
        with (tmp_path / "data" / f"{uid}.jsonl").open("a") as file:
            line = {
                "UID": uid,
                "linguistics_term": field,
                "field": "x",
                "sentence_good": good,
                "sentence_bad": bad,
            }
            file.write(json.dumps(line) + "\n")
    return tmp_path


def evaluate(ev, predict, place=lambda batch: batch):
    kept = []
    for batch in ev.batches():
        outputs = predict(place(batch))
        kept.append({name: np.asarray(x)[batch["weight"] > 0] for name, x in outputs.items()})
    return {name: np.concatenate([part[name] for part in kept]) for name in kept[0]}


def test_read(directory, tmp_path):
    pairs = blimp.read(directory)
    assert [p.set for p in pairs] == ["agreement_1", "agreement_1", "agreement_2", "roles", "roles"]
    assert pairs[-1] == ("roles", "argument_structure", "The hen", "the hen")
    assert len(blimp.read(directory / "data", 1)) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"{}\n", "no text 'UID'"),
        (b"[1]\n", "no text 'UID'"),
        (b"not json\n", "not a JSON object"),
        (b'{"UID": "\xff"}\n', "not a JSON object"),
    ],
)
def test_wrong_files(directory, content, message):
    path = directory / "data" / "roles.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"roles.jsonl.*{message}"):
        blimp.read(directory)
    with pytest.raises(InputError, match="nowhere is missing: give the directory"):
        blimp.read(directory / "nowhere")


@pytest.mark.mesh(data=2, fsdp=2, tensor=2)
def test_likelihoods_are_those_of_one_masked_copy_at_a_time(directory, tokenizer):
    """For any batch size, with a real model; the longest batches and the shortest have different lengths."""
    from jaxmlm.parallel import place

    mesh = jax.sharding.get_mesh()
    config = EncoderConfig(layers=1, width=16, heads=2, max_positions=64)

    @jax.jit
    def made(key):
        model = MaskedLM(Encoder(config, tokenizer.size, key), jax.random.fold_in(key, 1))
        return jax.tree.map(lambda x: x * 8, model)  # plain differences between tokens

    @jax.jit
    def logits_of(model, ids, positions):
        return model.logits(model.hidden(ids, jnp.ones_like(ids), None), positions)

    model = made(jax.random.key(0))
    found = {}
    for batch in (8, 24):
        ev = blimp.evaluation(directory, tokenizer, pairs_per_set=None, batch=batch)
        outputs = evaluate(ev, lambda b, ev=ev: jax.jit(ev.predict)(model, b), lambda b: place(b, mesh))
        found[batch] = np.bincount(outputs["row"], outputs["log_probability"])
        assert len({b["ids"].shape for b in ev.batches()}) > 1
        scores = ev.score(outputs)
        assert set(scores) == {"accuracy", "field/agreement", "field/argument_structure", "set/agreement_1",
                               "set/agreement_2", "set/roles", "same"}  # fmt: skip
    np.testing.assert_allclose(found[8], found[24], rtol=1e-5)

    def alone(text):
        ids = np.array([tokenizer.cls_id, *tokenizer.encode(text), tokenizer.sep_id], np.int32)
        total = 0.0
        for i in range(1, len(ids) - 1):
            masked = np.tile(np.where(np.arange(len(ids)) == i, tokenizer.mask_id, ids), (8, 1)).astype(np.int32)
            logits = logits_of(model, *place((masked, np.full((8, 1), i, np.int32)), mesh))
            total += float(jax.nn.log_softmax(np.asarray(logits)[0, 0])[ids[i]])
        return total

    np.testing.assert_allclose(found[8][:2], [alone(PAIRS[0][2]), alone(PAIRS[0][3])], rtol=1e-5)


class Uniform:
    """All tokens equally probable: the shorter sentence wins, sentences of one length tie."""

    def logits_at(self, ids, segments, positions):
        return jnp.zeros((*positions.shape, 50))


def test_ties_and_pairs_that_the_tokenizer_cannot_tell_apart_count_half(directory, tokenizer):
    ev = blimp.evaluation(directory, tokenizer, pairs_per_set=None, batch=16)
    outputs = evaluate(ev, lambda batch: ev.predict(Uniform(), jax.tree.map(jnp.asarray, batch)))
    scores = ev.score(outputs)
    assert scores["same"] == 1.0  # the tokenizer lower-cases
    assert scores["set/roles"] == 0.5
    sizes = [[len(tokenizer.encode(text)) for text in pair[2:]] for pair in PAIRS]
    right = [0.5 if good == bad else float(good < bad) for good, bad in sizes]
    assert scores["set/agreement_1"] == np.mean(right[:2])
    assert scores["accuracy"] == pytest.approx(np.mean([np.mean(right[:2]), right[2], 0.5]))


@pytest.mark.parametrize("change", [
    lambda raw: b"\xef\xbb\xbf" + raw, lambda raw: raw.replace(b"\n", b"\r"), lambda raw: b"\n" + raw + b"\n \n",
    lambda raw: raw.replace(b"\n", b"\r\n"),
])  # fmt: skip
def test_sets_of_any_program_are_read(directory, change):
    expected = blimp.read(directory), blimp.read(directory, 1)
    for path in (directory / "data").glob("*.jsonl"):
        path.write_bytes(change(path.read_bytes()))
        path.rename(path.with_suffix(".JSONL"))
    (directory / "data" / "._roles.jsonl").write_bytes(b"\x00\x05\xff")
    assert (blimp.read(directory), blimp.read(directory, 1)) == expected


def test_half_of_a_surrogate_pair_is_read_as_what_can_be_written(directory):
    line = {"UID": "a", "linguistics_term": "b", "sentence_good": "the \ud83d hen", "sentence_bad": "the hen \udc00"}
    (directory / "data" / "a.jsonl").write_text(json.dumps(line) + "\n")
    assert blimp.read(directory)[0][2:] == ("the \ufffd hen", "the hen \ufffd")
