"""Probes and treebanks: odd files, words to tokens, planted and shuffled labels, and the verb on a real encoder."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from threadpoolctl import threadpool_info

from jaxmlm.data import SentencePieceTokenizer
from jaxmlm.errors import InputError, Preempted
from jaxmlm.models import Encoder, EncoderConfig
from jaxmlm.parallel import Mesh, make_mesh
from jaxmlm.plotting import over_layers
from jaxmlm.preemption import stoppable
from jaxmlm.runs import layer_probes as layers
from jaxmlm.tasks import probing
from jaxmlm.tasks.conllu import depth, read
from jaxmlm.tasks.probing import Sizes

ODD = """\
# text = Don't the hens sleep?
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\tdo\tAUX\t_\tTense=Pres|VerbForm=Fin\t5\taux\t_\t_
2\tn't\tnot\tPART\t_\t_\t5\tadvmod\t_\t_
3\tthe\tthe\tDET\t_\t_\t4\tdet:x\t_\t_
4\thens\then\tNOUN\t_\tNumber=Plur\t5\tnsubj\t_\t_
4.1\tall\tall\tDET\t_\t_\t_\t_\t4:det\t_
5\tsleep\tsleep\tVERB\t_\tVerbForm=Inf\t0\troot\t_\tSpaceAfter=No
6\t?\t?\tPUNCT\t_\t_\t5\tpunct\t_\t_

1\tHens\then\tNOUN\t_\tNumber=Plur\t0\troot\t_\t_"""


@pytest.fixture
def odd(tmp_path):
    path = tmp_path / "odd.conllu"
    path.write_text(ODD)  # without a final newline
    return path


def test_multiword_tokens_and_empty_nodes(odd):
    first, second = read(odd)
    assert first.text == "Don't the hens sleep?"
    assert [word.form for word in first.words] == ["Do", "n't", "the", "hens", "sleep", "?"]
    assert [first.text[a:b] for a, b in first.tokens] == ["Don't", "the", "hens", "sleep", "?"]
    assert {first.text[word.begin : word.end] for word in first.words[:2]} == {"Don't"}
    assert [word.head for word in first.words] == [5, 5, 4, 5, 0, 5]
    assert (second.text, second.words[0].upos, depth(first), depth(second)) == ("Hens", "NOUN", 2, 0)


@pytest.mark.parametrize("change", [("\n", "\r\n"), ("\n\n", "\n \n\n"), ("# text", "# sent_id = 1\n# text")])
def test_line_ends_and_comments_change_nothing(odd, change):
    expected = read(odd)
    odd.write_bytes(ODD.replace(*change).encode())
    assert read(odd) == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("det:x\t_\t_", "det:x\t_", r"odd.conllu:5: 9 columns"),
        ("3\tthe", "7\tthe", r"odd.conllu:5: the id is '7': expected 3"),
        ("3\tthe", "x\tthe", r"odd.conllu:5: the id is 'x'"),
        ("\t4\tdet:x", "\t9\tdet:x", r"odd.conllu:5: the head of word 3 is '9'"),
        ("\t4\tdet:x", "\t_\tdet:x", r"odd.conllu:5: the head of word 3 is '_'"),
        ("1-2", "1-9", r"odd.conllu:9: a multiword token ends at word 9 and the last one is 6"),
        (ODD, "# nothing\n", r"odd.conllu: no sentences"),
    ],
)
def test_wrong_files_say_where(odd, old, new, message):
    odd.write_text(ODD.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        read(odd)


def test_labels(odd):
    first, second = read(odd)
    assert [probing.WORD["relation"](first, i) for i in range(4)] == ["aux", "advmod", "det", "nsubj"]
    assert [probing.WORD["head distance"](first, i) for i in (0, 2, 4, 5)] == ["4", "1", "root", "-1"]
    asked = {name: ask(first) for name, ask in probing.SENTENCE.items()}
    assert asked == {"tree depth": "2", "tense": "Pres", "number": "Plur"}  # the tense is that of the auxiliary
    assert probing.SENTENCE["tense"](second) is None
    circle = first._replace(words=[first.words[0]._replace(head=2), first.words[1]._replace(head=1)])
    assert probing.SENTENCE["tree depth"](circle) is None


@pytest.fixture(scope="module")
def tokenizer():
    return SentencePieceTokenizer.train(
        ["Don't the hens sleep? Hens sleep. the old owl sees a hen."] * 4, 29, lowercase=False
    )


@pytest.mark.parametrize("pool", ["mean", "first"])
def test_vectors_are_those_of_the_words_own_tokens(odd, tokenizer, pool):
    """Against one sentence at a time, by characters; the words of a multiword token share its vector."""
    encoder = Encoder(EncoderConfig(layers=2, width=16, heads=2, init=0.2), tokenizer.size, jax.random.key(0))
    sentences = read(odd)
    found = probing.examples(sentences, tokenizer, Sizes(pool=pool), 100, np.array([3.0]))
    vectors = probing.states(encoder, found, tokenizer.pad_id, jax.sharding.get_mesh())
    at, labels = found.probes["part of speech"]
    assert labels.tolist() == ["AUX", "PART", "DET", "NOUN", "VERB", "PUNCT", "NOUN"] and at[0] == at[1]
    ids, offsets = tokenizer.encode_offsets(sentences[0].text)
    row = jnp.array([[tokenizer.cls_id, *ids, tokenizer.sep_id]], jnp.int32)
    hidden = np.asarray(encoder.all_hidden_states(row, jnp.ones_like(row)))[:, 0]
    for word, vector in zip(sentences[0].words, at, strict=False):
        own = [i + 1 for i, (b, e) in enumerate(offsets) if b < word.end and e > word.begin]
        own = own[:1] if pool == "first" else own
        np.testing.assert_allclose(vectors[:, vector], hidden[:, own].mean(1), atol=1e-5)
    whole, ends = found.probes["tense"][0][0], [0] if pool == "first" else range(1, len(ids) + 1)
    np.testing.assert_allclose(vectors[:, whole], hidden[:, list(ends)].mean(1), atol=1e-5)
    assert found.probes["sentence length"][1].tolist() == ["1", "0"]


def test_shifted_sentences_and_those_too_long(odd, tokenizer):
    sentences = read(odd)[:1] * 40
    found = probing.examples(sentences, tokenizer, Sizes(), 100, np.array([3.0]))
    _, labels = found.probes["bigram shift"]
    assert 10 < (labels == "shifted").sum() < 30 and len(labels) == 40
    longest = len(tokenizer.encode(sentences[0].text)) + 1  # one less than the row has
    none = probing.examples(sentences, tokenizer, Sizes(length=longest), 100, np.array([3.0]))
    assert none.rows == [] and len(none.probes["relation"][1]) == 0


def test_a_planted_linear_signal_is_found_and_shuffled_labels_fall_to_the_majority():
    random = np.random.default_rng(0)
    x = random.normal(size=(6000, 20)).astype(np.float32)
    labels = np.where(x @ random.normal(size=20) > 1.5, "few", "many")
    part = lambda y: ((x[:4000], y[:4000]), (x[4000:], y[4000:]))  # noqa: E731
    usual = probing.majority(labels[:4000], labels[4000:])
    assert usual < 0.75 and probing.probe(*part(labels)) > 0.97
    chance = probing.probe(*part(random.permutation(labels)))
    assert abs(chance - usual) < 3 * (usual * (1 - usual) / 2000) ** 0.5


def test_l2_is_chosen_by_examples_put_aside():
    """Few examples of many features learn what is there and nothing else; many clear ones are not held back."""
    random = np.random.default_rng(2)
    x = random.normal(size=(2120, 200)).astype(np.float32)
    labels = np.where(random.random(2120) < 0.75, "usual", "rare")
    few = (x[:120], labels[:120]), (x[120:], labels[120:])
    usual, weights = probing.majority(labels[:120], labels[120:]), (labels[:120] == "usual").astype(int)
    found = probing.probe(*few)
    assert found > usual - 3 * (usual * (1 - usual) / 2000) ** 0.5
    w = probing.fit(x[:120], weights, 2, 0.001)
    fixed = (((x[120:] @ w[:-1] + w[-1]).argmax(1) == 1) == (labels[120:] == "usual")).mean()
    assert fixed < usual - 0.05 < found
    clear = (x[:, :5] @ np.ones(5) > 0).astype(int)
    assert probing.choose(x[:, :5], clear, 2) == 0.001


def test_a_signal_stops_the_probing(odd, tokenizer):
    """Within the states of the encoder, and within the fits."""
    x = np.random.default_rng(0).normal(size=(20, 3))
    encoder = Encoder(EncoderConfig(layers=1, width=16, heads=2), tokenizer.size, jax.random.key(0))
    found = probing.examples(read(odd), tokenizer, Sizes(), 100, np.array([3.0]))
    works = (
        lambda: probing.states(encoder, found, tokenizer.pad_id, jax.sharding.get_mesh()),
        lambda: probing.choose(x, (x[:, 0] > 0).astype(int), 2),
    )
    for work in works:
        with stoppable(), pytest.raises(Preempted, match="within the probing of layers"):
            os.kill(os.getpid(), signal.SIGTERM)
            work()


def test_the_probe_is_the_minimum():
    """The gradient of the penalised loss is zero there, by numbers of its own."""
    random = np.random.default_rng(1)
    x, y = random.normal(size=(200, 3)), random.integers(0, 3, 200)
    w = probing.fit(x, y, 3, 0.01)

    def loss(w):
        logits = x @ w[:-1] + w[-1]
        nats = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(200), y]
        return nats.mean() + 0.5 * 0.01 * (w[:-1] ** 2).sum()

    for at in np.ndindex(w.shape):
        step = np.zeros_like(w)
        step[at] = 1e-2
        assert loss(w) < min(loss(w + step), loss(w - step))


def test_a_treebank_has_one_file_of_each_part(odd):
    with pytest.raises(InputError, match=r"0 files \*train\*.conllu"):
        probing.treebank(odd.parent)


def test_the_table_and_the_figure_show_every_layer(tmp_path):
    scores = {"tense": {"majority": 0.5, "layer/0": 0.6, "layer/1": 0.7, "untrained/0": 0.61, "untrained/1": 0.62}}
    made = layers.table(scores)
    assert [list(column.cells) for column in (*made.names, *made.columns)] == [
        ["tense"],
        ["50.0"],
        ["60.0 (61.0)"],
        ["70.0 (62.0)"],
    ]
    layers.draw(scores, tmp_path / "new" / "layers.png")
    assert (tmp_path / "new" / "layers.png").read_bytes().startswith(b"\x89PNG")
    assert len(over_layers({name: ({"layer": [0.5]}, 0.5) for name in "abcde"}).axes) == 8


@pytest.mark.parametrize("change", [("", "\ufeff"), ("\n", "\r"), ("\n\n", "\n\n\ufeff# joined\n"), ("\n", "\r\r\n")])
def test_a_treebank_of_any_program_is_read(odd, change):
    expected = read(odd)
    old, new = change
    odd.write_bytes((ODD.replace(old, new) if old else new + ODD).encode())
    assert read(odd) == expected


def test_a_large_treebank_has_several_files_of_a_part(odd, tmp_path):
    directory = tmp_path / "xx"
    directory.mkdir()
    for name in ("xx-ud-train-b-1", "xx-ud-train-a", "xx-ud-dev"):
        (directory / f"{name}.conllu").write_text(ODD.replace("Hens", f"Hens{name[-1]}"))
    (directory / "._xx-ud-train-c.conllu").write_bytes(b"\x00\x05\xff")  # what a Mac puts beside a file
    found = probing.treebank(directory)
    assert [s.text for s in found.train][1::2] == ["Hensa", "Hens1"] and len(found.dev) == 2
    (directory / "yy-ud-train.CONLLU").write_text(ODD)
    with pytest.raises(InputError, match=r"3 files \*train\*.conllu \(xx-ud-train-a.conllu, .* of one Universal"):
        probing.treebank(directory)
    (directory / "yy-ud-train.CONLLU").rename(directory / "xx-ud-train.conllu")  # the whole beside its parts
    with pytest.raises(InputError, match=r"3 files \*train\*.conllu"):
        probing.treebank(directory)


def test_a_fit_has_one_thread_of_blas(odd, tokenizer, monkeypatch):
    """Threads that share a core with other work wait for each other: a probe took fifteen times as long."""
    seen = []
    real = probing.probe

    def probe(*parts):
        seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return real(*parts)

    monkeypatch.setattr(probing, "probe", probe)
    sentences = read(odd) * 8
    encoder = Encoder(EncoderConfig(layers=1, width=16, heads=2), tokenizer.size, jax.random.key(0))
    data = probing.Treebank(sentences, sentences)
    with jax.set_mesh(make_mesh(Mesh(), jax.devices()[:1])):
        found = probing.probes({"layer": encoder}, data, tokenizer, Sizes(), jax.sharding.get_mesh())
    assert {"layer/0", "layer/1"} <= found["part of speech"].keys()
    assert seen and set(seen) == {1}
