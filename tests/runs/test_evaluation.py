"""`jaxmlm evaluate`: one untrained run scored by everything, and what it refuses before any work."""

import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlm.cli import main
from jaxmlm.data import Batches, Data, Store, open_rows
from jaxmlm.data import remote as cloud
from jaxmlm.models import EncoderConfig
from jaxmlm.parallel import Mesh, make_mesh
from jaxmlm.runs.loading import load
from jaxmlm.runs.pretraining import pretrain
from jaxmlm.runs.run import Run
from jaxmlm.tasks import likelihood
from jaxmlm.training import Loop, evaluate

MODULE = importlib.import_module("jaxmlm.runs.evaluation")  # the package has a function of that name
TREE = "1\tThe\tthe\tDET\t_\t_\t2\tdet\t_\t_\n2\t{}\thouse\tNOUN\t_\tNumber={}\t0\troot\t_\tSpaceAfter=No\n\n"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """An untrained run, a text and a treebank."""
    directory = tmp_path_factory.mktemp("evaluate")
    run = Run(
        workdir=str(directory / "run"),
        data=Data(text="sample:300", vocab=200, length=32),
        model=EncoderConfig(layers=1, width=16, heads=2),
        loop=Loop(steps=0, batch=8),
    )
    pretrain(run)
    (directory / "text.txt").write_text("The house is red. " * 20 + "\n\nTwo houses\n")
    for part, times in (("train", 12), ("dev", 6)):
        trees = TREE.format("house", "Sing") + TREE.format("houses", "Plur")
        (directory / f"en-{part}.conllu").write_text(trees * times)
    return directory


@pytest.fixture
def one_device():
    with jax.set_mesh(make_mesh(Mesh(), jax.devices()[:1])) as mesh:
        yield mesh or jax.sharding.get_mesh()


def said(capsys, *words):
    code = main(["evaluate", *map(str, words), "--json"])
    out = capsys.readouterr()
    return code, (json.loads(out.out.splitlines()[-1])["rows"] if code == 0 else out.err)


def test_everything_of_a_run(directory, capsys):
    """Untrained: at chance on minimal pairs, within three standard deviations of a fair coin."""
    code, rows = said(
        capsys, directory / "run", "--blimp", "sample:", "--pairs", "30", "--text", directory / "text.txt",
        "--rows", "0",
        "--rates", "0.2", "--length", "24", "--treebank", directory, "--figure", directory / "layers.png"
    )  # fmt: skip
    assert code == 0
    by = {row["task"]: row["scores"] for row in rows}
    pairs, masked = by["blimp"], by[str(directory / "text.txt")]
    sets = sum(name.startswith("set/") for name in pairs)
    assert abs(pairs["accuracy"] - 0.5) < 3 * (0.25 / (30 * sets)) ** 0.5
    assert abs(masked["loss@0.20"] - np.log(200)) < 0.5 and "loss@0.15" not in masked
    assert by["part of speech"]["layer/0"] == 1.0 and by["part of speech"]["majority"] == 0.5
    assert {"layer/1", "untrained/0", "untrained/1"} <= set(by["relation"])
    assert "tense" not in by and (directory / "layers.png").is_file()


def test_without_an_option_pairs_and_the_held_out_text(directory, capsys):
    code, rows = said(capsys, directory / "run", "--pairs", "2", "--rows", "2")
    assert code == 0
    assert [(row["stage"], row["task"], row["main"]) for row in rows] == [
        ("blimp", "blimp", "accuracy"), ("masked", "heldout:", "loss@0.15"),
        ("likelihood", "heldout:", "pseudo_perplexity"),
    ]  # fmt: skip
    assert abs(rows[1]["scores"]["loss@0.40"] - np.log(200)) < 0.5
    assert rows[2]["scores"]["loss"] == pytest.approx(np.log(rows[2]["scores"]["pseudo_perplexity"]))


def test_the_held_out_text_of_a_store_in_a_bucket(directory, one_device, monkeypatch, tmp_path):
    monkeypatch.setenv("JAXMLM_CACHE", str(tmp_path))
    cloud.push(directory / "run" / "store", "memory://mine/evaluated", "manifest.json")
    here = load(directory / "run")
    data = {**here.about["config"]["data"], "store": "memory://mine/evaluated"}
    loaded = here._replace(about={"config": {"data": data}})
    assert MODULE._has_store(loaded) and MODULE._held_out(loaded).rows == MODULE._held_out(here).rows
    cloud.remove("memory://mine/evaluated")
    assert not MODULE._has_store(loaded)


def test_pseudo_perplexity_is_that_of_a_loop_and_counts_words(directory, one_device):
    """One mask at a time, for any batch size; the masked loss of a split is the one of pre-training."""
    loaded = load(directory / "run")
    t, model = loaded.tokenizer, loaded.model
    rows = likelihood.rows_of_text(str(directory / "text.txt"), t, 24, None)
    assert max(map(len, rows.ids)) == 24 and rows.words.sum() == 4 * 20 + 2
    some = likelihood.ScoredRows(rows.ids[:2] + rows.ids[-1:], rows.words[[0, 1, -1]], rows.bytes[[0, 1, -1]])
    found = [evaluate(likelihood.perplexity(some, t, batch), model, one_device) for batch in (4, 32)]
    nats, count = 0.0, 0
    one = jax.jit(lambda m, ids, at: m.logits(m.hidden(ids, jnp.ones_like(ids)), at))
    for row in some.ids:
        for i in range(1, len(row) - 1):
            masked = np.where(np.arange(len(row)) == i, t.mask_id, row).astype(np.int32)[None]
            logits = np.asarray(one(model, masked, np.array([[i]], np.int32)), np.float64)[0, 0]
            nats, count = nats + np.logaddexp.reduce(logits) - logits[row[i]], count + 1
    for scores in found:
        assert scores["pseudo_perplexity"] == pytest.approx(np.exp(nats / count), rel=1e-4)
        assert scores["pseudo_perplexity_word"] == pytest.approx(np.exp(nats / some.words.sum()), rel=1e-3)
        assert (scores["tokens"], scores["words"]) == (count, some.words.sum())


def test_rows_of_a_document_have_its_words_and_bytes(directory):
    text, t = (directory / "text.txt").read_text(), load(directory / "run").tokenizer
    texts = [part.strip() for part in text.split("\n\n")] + ["Un\u00efcode \u2603  caf\u00e9s, in bytes"]
    for length in (8, 24, 512):
        rows = likelihood.rows_of_documents(texts, t, length, None)
        assert rows.words.sum() == sum(len(text.split()) for text in texts)
        assert rows.bytes.sum() == sum(len(text.encode()) for text in texts) and max(map(len, rows.ids)) <= length
    tokens = sum(len(t.encode(text)) for text in texts)
    assert len(rows.ids) == 3 and sum(len(ids) - 2 for ids in rows.ids) == tokens


def test_the_bound_of_a_text_and_of_the_held_out_text(directory, capsys):
    """Untrained: about the logarithm of the vocabulary, in each part as wide as the part."""
    code, rows = said(
        capsys, directory / "run", "--bound", directory / "text.txt", "--length", "16", "--bound-draws", "3"
    )
    assert code == 0 and [(row["stage"], row["main"]) for row in rows] == [("bound", "bound")]
    found = rows[0]["scores"]
    assert abs(found["bound"] - np.log(200 - 5)) < 0.5 and 0 < found["bound_se"] < 0.1
    assert found["words"] == 4 * 20 + 2 and found["bytes"] == 18 * 20 - 1 + 10
    nats = found["bound"] * found["tokens"] / np.log(2)
    assert found["bits_per_word"] * found["words"] == pytest.approx(nats)
    assert found["bits_per_byte"] * found["bytes"] == pytest.approx(nats)
    assert sum(value for name, value in found.items() if name.startswith("part@")) == pytest.approx(found["bound"])
    code, rows = said(capsys, directory / "run", "--bound", "heldout:", "--bound-rows", "3")
    assert code == 0 and rows[0]["scores"]["rows"] == 3 and abs(rows[0]["scores"]["bound"] - np.log(195)) < 0.5


def test_the_bound_reads_documents_apart_however_they_were_packed(directory, one_device):
    """No row of it holds two documents: no separator but at its end."""
    store = Store(directory / "run" / "store")
    rows = likelihood.rows_of_split(MODULE.documents_of(store, 32), store.tokenizer, None)
    documents = store.documents("valid")["tokens"] - 1  # each with its separator
    assert sum(len(ids) - 2 for ids in rows.ids) == documents.sum() and len(rows.ids) >= len(documents)
    for ids in rows.ids:
        assert (np.flatnonzero(ids == store.tokenizer.sep_id) == len(ids) - 1).all()


def test_documents_that_share_a_row_are_judged_apart(directory):
    store, split = Store(directory / "run" / "store"), "train"
    rows = {
        form: likelihood.rows_of_split(Batches(open_rows(store, split, 96, form), 1), store.tokenizer, None)
        for form in ("documents", "sentences")
    }
    assert Batches(open_rows(store, split, 96, "documents"), 1).rows < len(rows["documents"].ids)
    texts = {form: sorted(map(tuple, found.ids)) for form, found in rows.items()}
    assert texts["documents"] == texts["sentences"]
    assert rows["documents"].words.sum() == rows["sentences"].words.sum()
    assert all(ids[0] == store.tokenizer.cls_id and ids[-1] == store.tokenizer.sep_id for ids in rows["documents"].ids)


def test_a_batch_fits_the_devices_and_a_text_has_text(directory, capsys):
    code, error = said(capsys, directory / "run", "--text", directory / "text.txt", "--batch", "101")
    assert code == 2 and "batch 101 is not divisible by 2 devices: give --batch 102" in error
    (directory / "blank.txt").write_text("\n\n\n")
    code, error = said(capsys, directory / "run", "--text", directory / "blank.txt")
    assert code == 2 and "blank.txt: 0 tokens, fewer than one row of 128" in error and error.count("\n") == 1
    code, error = said(capsys, directory / "run", "--bound", directory / "blank.txt")
    assert code == 2 and "no tokens in" in error and "blank.txt" in error and error.count("\n") == 1


def test_an_encoder_without_a_mask_token_has_no_bound(directory, tmp_path, capsys):
    assert main(["export", str(directory / "run"), str(tmp_path / "encoder")]) == 0
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (path := tmp_path / "encoder" / file).is_file():
            plain = json.loads(path.read_text().replace("<mask>", "mask"))
            plain.pop("mask_token", None)
            if file == "tokenizer.json":
                plain["added_tokens"] = [token for token in plain["added_tokens"] if token["content"] != "mask"]
            path.write_text(json.dumps(plain))
    (tmp_path / "encoder" / "SHA256SUMS").unlink()  # made by others, it has none
    capsys.readouterr()
    code, error = said(capsys, tmp_path / "encoder", "--bound", directory / "text.txt")
    assert code == 2 and "the tokenizer has no mask token" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--blimp", "nowhere"], "nowhere is missing: give the directory of the BLiMP sets"),
        (["--text", "nowhere"], "no text file at 'nowhere'"),
        (["--bound", "nowhere"], "no text file at 'nowhere'"),
        (["--bound", "x.txt", "--bound-draws", "0"], "bound_draws is 0"),
        (["--treebank", "nowhere"], "0 files *train*.conllu"),
        (["--rates", "0"], "rates are (0.0,)"),
        (["--pairs", "0"], "pairs is 0"),
        (["--figure", "x.png"], "give --treebank"),
    ],
)
def test_what_is_wrong_is_said_before_the_model_is_read(words, message, capsys):
    code, error = said(capsys, "no-checkpoint", *words)
    assert code == 2 and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--treebank", "{0}", "--figure", "{0}/text.txt/x.png"], "/text.txt/x.png: not a directory"),
        (["--babylm", "{0}", "--predictions", "{0}/text.txt"], "/text.txt: not a directory"),
    ],
)
def test_where_nothing_can_be_written_is_said_before_the_model_is_read(directory, words, message, capsys):
    code, error = said(capsys, "no-checkpoint", *(word.format(directory) for word in words))
    assert code == 2 and message in error and error.count("\n") == 1


def test_a_bare_encoder_has_layers_but_no_pairs(directory, capsys, monkeypatch):
    bare = lambda path: (found := load(path))._replace(model=found.encoder, kind="encoder")  # noqa: E731
    monkeypatch.setattr(MODULE, "load", bare)
    code, rows = said(capsys, directory / "run", "--treebank", directory, "--sentences", "8")
    assert code == 0 and rows[0]["scores"]["train"] == 16
    for option in ("--text", "--bound"):
        code, error = said(capsys, directory / "run", option, "heldout:")
        assert code == 2 and "no masked-LM head (encoder)" in error


def test_probes_are_for_one_host(monkeypatch, capsys):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert main(["evaluate", "nowhere", "--treebank", "nowhere"]) == 2
    assert "the probes of a treebank run on one host, and this is one of 2" in capsys.readouterr().err
