"""GLUE: the files as they are, wrong files, encoding, loss, scores and prediction files."""

import hashlib
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlm.data import SentencePieceTokenizer
from jaxmlm.errors import InputError
from jaxmlm.models import Classifier, Encoder, EncoderConfig
from jaxmlm.tasks import glue, sentences
from jaxmlm.tasks.downstream import EncodingOptions
from jaxmlm.tasks.metrics import accuracy
from jaxmlm.tasks.table import Examples

WORDS = "red blue old new fox hen owl cow sees finds runs sleeps".split()
RTE, STSB = glue.TASKS["rte"], glue.TASKS["stsb"]


@pytest.fixture(scope="module")
def tokenizer():
    return SentencePieceTokenizer.train([" ".join(WORDS)] * 4, 28)


def lines_of(task, rows, labelled=True):
    """The lines of a file of this task: rows of (label, sentence, ...), other columns filled with "x"."""
    table = task.table
    columns = table.header if table.header and labelled else ("index", *table.texts, *([table.label] * labelled))
    lines = [] if table.header and labelled else [columns]
    for number, (label, *texts) in enumerate(rows):
        values = dict(zip(table.texts, texts, strict=True), **{table.label: label, "index": str(number)})
        lines.append([values.get(name, "x") for name in columns])
    return lines


def write(directory, task, rows, split="train", ending="\n", labelled=True):
    path = directory / task.directory / {"train": task.train, "dev": task.dev}.get(split, split)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes("".join("\t".join(line) + ending for line in lines_of(task, rows, labelled)).encode())
    return path


def refused(call, *arguments, **more):
    with pytest.raises(InputError) as error:
        call(*arguments, **more)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", glue.TASKS)
def test_every_task_is_read_by_its_columns_and_label_names(tmp_path, name):
    task = glue.TASKS[name]
    labels = task.table.labels or ("0.000", "2.5", "5")
    rows = [(label, *[f'a "quoted {c} {label}' for c in task.table.texts]) for label in labels]
    write(tmp_path, task, rows, "dev")
    read = glue.rows(task, tmp_path, task.dev)
    assert read.labels is not None
    assert read.labels.tolist() == (list(range(len(labels))) if task.table.labels else [0.0, 2.5, 5.0])
    assert [list(column) for column in zip(*read.texts, strict=True)] == [list(row[1:]) for row in rows]
    assert glue.rows(task, tmp_path / task.directory, task.dev).texts == read.texts


def test_byte_order_mark_line_ends_and_other_separators_of_lines(tmp_path):
    path = write(tmp_path, RTE, [("entailment", "a\u2028b\x0bc", "d\re")], ending="\r\n")
    path.write_bytes("\ufeff".encode() + path.read_bytes().replace(b"index\t", b"").replace(b"0\t", b""))
    assert path.read_bytes().startswith("\ufeffsentence1".encode())
    assert glue.rows(RTE, tmp_path, "train.tsv").texts == (["a\u2028b\x0bc"], ["d\re"])


def test_wrong_files_say_file_line_and_what_was_expected(tmp_path):
    def message(file="train.tsv", task=RTE):
        return refused(glue.rows, task, tmp_path, file)

    assert "RTE needs train.tsv and dev.tsv; .tsv files there: none" in message()
    path = write(tmp_path, RTE, [("entailment", "a", "b"), ("1", "a", "b")])
    assert message() == f"{path}:3: unknown label '1' in label, expected one of: entailment, not_entailment"
    assert ".tsv files there: train.tsv" in message("dev.tsv")
    path.write_text("index\tsentence1\tlabel\n0\ta\tentailment\n")
    assert message() == f"{path}:1: no column 'sentence2'; there are: index, sentence1, label"
    path.write_text("index\tsentence1\tsentence2\n0\ta\tb\n")
    assert message().endswith("sentence1, sentence2; rows without labels cannot be scored")
    path.write_text("sentence1\tsentence2\tlabel\na\tb\tentailment\na\tb\n")
    assert message() == f"{path}:3: 2 fields, expected 3: sentence1, sentence2, label"
    path.write_text("index\tsentence1\tsentence2\tlabel\n7\ta\tb\tentailment\n7\ta\tb\tentailment\n")
    assert message() == f"{path}:3: the index '7' is that of line 2 already"
    path.write_bytes(b"sentence1\tsentence2\tlabel\na\t\xff\tentailment\n")
    assert message().startswith(f"{path}:2: not UTF-8")
    path.write_text("")
    assert message() == f"{path}:1: no column 'sentence1'; there are: none"
    path.write_text("sentence1\tsentence2\tlabel\n")
    assert message().startswith(f"{path}: no rows")
    for value in ("5.1", "nan", "high", ""):
        path = write(tmp_path, STSB, [(value, "a", "b")])
        assert message(task=STSB).startswith(f"{path}:2: score is {value!r}, expected a number")


def test_parts_of_the_official_files_are_read_on_demand_and_called_so(tmp_path):
    mnli = glue.TASKS["mnli"]
    rows = [(label, "a", "b") for label in mnli.table.labels]
    for file in ("train_10k.tsv", "dev_matched.tsv"):
        write(tmp_path, mnli, rows, file)
    assert "train.tsv is missing" in refused(glue.sets, mnli, tmp_path)
    found = glue.sets(mnli, tmp_path, train="train_10k.tsv")
    assert found.notes == (
        "train: 3 rows of train_10k.tsv, officially 392,702: partial",
        "dev: 3 rows of dev_matched.tsv, officially 9,815: not the official file",
        "no dev_mismatched.tsv: the mismatched dev set is not evaluated",
    )
    write(tmp_path, mnli, rows, "dev_mismatched.tsv")
    (tmp_path / "diagnostic").mkdir()
    (tmp_path / "diagnostic" / "diagnostic-full.tsv").write_text("Premise\tHypothesis\tLabel\na\tb\tcontradiction\n")
    assert {name: len(part) for name, part in glue.sets(mnli, tmp_path, "train_10k.tsv").evaluated.items()} == {
        "dev": 3, "mm": 3, "ax": 1,
    }  # fmt: skip


def test_rows_that_are_broken_over_lines_are_left_out_of_qqp_and_counted(tmp_path):
    """As by the readers of transformers and datasets: some copies of the official file have such rows."""
    qqp = glue.TASKS["qqp"]
    for split in ("train", "dev"):
        path = write(tmp_path, qqp, [("1", "is it a hen?", "is it an owl?"), ("0", "who?", "why?")], split)
        head, first, second = path.read_text().splitlines()
        broken = ['2\tIs this "text', '"\tWas the hen real?\t0', '"', ""]
        path.write_text("\n".join([head, first, *broken, second, ""]))
    found = glue.sets(qqp, tmp_path)
    assert found.train.texts == (["is it a hen?", "who?"], ["is it an owl?", "why?"]) and found.train.left_out == 3
    assert found.evaluated["dev"].labels.tolist() == [1, 0]
    assert "train: left out of train.tsv for too few fields (broken over lines): 3" in found.notes
    assert "dev: left out of dev.tsv for too few fields (broken over lines): 3" in found.notes
    path = write(tmp_path, qqp, [("1", "a", "b")], "test.tsv", labelled=False)
    path.write_text(path.read_text() + "7\ta\n")
    assert "test.tsv:3: 2 fields, expected 3" in refused(glue.tests, qqp, tmp_path)  # the server wants all of it


def test_official_zips_are_read_where_they_are_and_others_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "RTE.zip", "w") as packed:
        text = "".join("\t".join(line) + "\n" for line in lines_of(RTE, [("entailment", "a", "b")]))
        for file in ("train.tsv", "dev.tsv"):
            packed.writestr(f"RTE/{file}", text)
        packed.writestr("RTE/bad.tsv", text + "1\ta\tb\tmaybe\n")
    assert "is not the official file: its SHA-256 is" in refused(glue.sets, RTE, tmp_path)
    sha = hashlib.sha256((tmp_path / "RTE.zip").read_bytes()).hexdigest()
    ours = replace(RTE, archive=("RTE.zip", sha), rows=(1, 1))
    found = glue.sets(ours, tmp_path)
    assert found.train.texts == (["a"], ["b"]) and found.notes == ()
    (tmp_path / "diagnostic").mkdir()
    (tmp_path / "diagnostic" / "ax.tsv").write_text("Premise\tHypothesis\tLabel\na\tb\tcontradiction\n")
    assert list(glue.sets(replace(ours, more=(("ax", "../diagnostic/ax.tsv"),)), tmp_path).evaluated) == ["dev", "ax"]
    assert f"{tmp_path}/RTE.zip/RTE/bad.tsv:3: unknown label" in refused(glue.rows, ours, tmp_path, "bad.tsv")
    assert "test.tsv" in refused(glue.tests, ours, tmp_path)


def test_the_checksums_of_the_archives_are_those_that_tensorflow_datasets_has():
    import tensorflow_datasets

    listed = (Path(tensorflow_datasets.__file__).parent / "url_checksums" / "glue.txt").read_text()
    known = {line.split()[2] for line in listed.splitlines()}
    ours = {task.archive[1] for task in glue.TASKS.values()} - {""} | set(glue.MSR.values())
    assert ours <= known and len(ours) == 11


def test_mrpc_is_cut_from_its_makers_file(tmp_path, monkeypatch):
    head = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    train = "\ufeff" + head + "1\t10\t11\ta\tb\n0\t12\t13\tc\td\n1\t14\t15\te\tf\n"
    for name, text in (("msr_paraphrase_train.txt", train), ("dev_ids.tsv", "12\t13\n")):
        (tmp_path / name).write_text(text)
        monkeypatch.setitem(glue.MSR, name, hashlib.sha256(text.encode()).hexdigest())
    found = glue.sets(glue.TASKS["mrpc"], tmp_path)
    assert found.train.texts[0] == ["a", "e"] and found.evaluated["dev"].texts == (["c"], ["d"])
    (tmp_path / "dev_ids.tsv").write_text("10\t11\n")
    assert "dev_ids.tsv is not the official file" in refused(glue.sets, glue.TASKS["mrpc"], tmp_path)


def test_encoding_cuts_the_longer_sentence(tokenizer):
    rows = Examples(RTE.table, (["red fox", "fox"], ["owl " * 9, "hen"]), np.zeros(2, np.int32), ["0", "1"])
    a, b = tokenizer.encode("red fox"), tokenizer.encode("owl " * 9)
    length = 2 * len(a) + 3
    encoded = sentences.encode(rows, tokenizer, length)
    cls, sep = tokenizer.cls_id, tokenizer.sep_id
    assert encoded.sequences[0].tolist() == [cls, *a, sep, *b[: len(a)], sep]
    assert encoded.second.tolist() == [len(a) + 2, len(tokenizer.encode("fox")) + 2]
    assert encoded.truncated == 1 and max(map(len, encoded.sequences)) == length


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path, random = tmp_path_factory.mktemp("glue"), np.random.default_rng(0)
    for split, count in (("train", 30), ("dev", 23)):
        rows = []
        for _ in range(count):
            texts = [" ".join(random.choice(WORDS, random.integers(1, 9))) for _ in range(2)]
            rows.append((RTE.table.labels[texts[0].count("fox") % 2], *texts))
        write(path, RTE, rows, split)
        write(path, STSB, [(f"{random.random() * 5:.3f}", *row[1:]) for row in rows], split)
    return path


def prepared(directory, tokenizer, task=RTE, length=24, **more):
    return sentences.encode_sets(glue.sets(task, directory), tokenizer, EncodingOptions(length, **more))


def outputs_of(ev, model):
    """What the runner hands on: padding rows dropped, batches joined."""
    kept = []
    for batch in ev.batches():
        outputs = ev.predict(model, jax.tree.map(jnp.asarray, batch))
        kept.append({name: np.asarray(x)[batch["weight"] > 0] for name, x in outputs.items()})
    return {name: np.concatenate([part[name] for part in kept]) for name in kept[0]}


def test_each_dev_row_is_scored_once_whatever_the_batch(directory, tokenizer, tmp_path):
    fox = tokenizer.encode("fox")[-1]

    def model(ids, segments, key):
        first = jnp.cumsum(ids == tokenizer.sep_id, axis=1) == 0
        odd = ((ids == fox) & first).sum(1) % 2
        return jax.nn.one_hot(odd, 2)

    def always(ids, segments, key):
        return jnp.tile(jnp.array([[1.0, 0.0]]), (len(ids), 1))

    data = prepared(directory, tokenizer, length=99)
    labels = data.evaluated["dev"].rows.labels
    assert labels is not None
    for batch in (4, 23, 50):
        dev = sentences.objective(data, lambda key: model, batch=batch, seed=0).evals["dev"]
        outputs = outputs_of(dev, model)
        assert dev.score(outputs) == {"accuracy": 1.0, "degenerate": 0.0}
        assert dev.score(outputs_of(dev, always)) == {"accuracy": accuracy(labels, np.zeros(23)), "degenerate": 1.0}
        dev.save(outputs, tmp_path)
        names = [RTE.table.labels[i] for i in labels]
        assert (tmp_path / "dev.tsv").read_text().splitlines() == [
            "index\tprediction\tlabel", *(f"{i}\t{name}\t{name}" for i, name in enumerate(names))
        ]  # fmt: skip


def test_files_for_the_test_server(directory, tokenizer, tmp_path):
    """Label names, or numbers inside the range, under the ids of the file, without a third column."""
    for task in (RTE, STSB):
        write(tmp_path, task, [("", "red fox", "hen"), ("", "owl", "old " * 9)], "test.tsv", labelled=False)
        data = prepared(directory, tokenizer, task)
        [(name, rows)] = glue.tests(task, tmp_path).items()
        assert rows.labels is None
        part = sentences.encode(rows, tokenizer, 24)

        def model(ids, segments, key):
            return (segments.sum(1) > 20)[:, None] * jnp.array([[2.0, 0.0]]) + jnp.array([[-1.2, 0.0]])

        judge = sentences.evaluation(data, part, 2, name)
        outputs = outputs_of(judge, model)
        assert judge.score(outputs) == {}
        judge.save(outputs, tmp_path)
    assert (tmp_path / "RTE.tsv").read_text() == "index\tprediction\n0\tnot_entailment\n1\tentailment\n"
    assert (tmp_path / "STS-B.tsv").read_text() == "index\tprediction\n0\t0.000\n1\t4.500\n"


def test_batches_and_limit(directory, tokenizer):
    def task(limit, seed):
        return sentences.objective(prepared(directory, tokenizer, limit=limit), lambda key: None, batch=4, seed=seed)

    def epoch(limit, seed, number=0):
        one = task(limit, seed)
        batches = [one.batch_at(step) for step in range(number * one.epoch, (number + 1) * one.epoch)]
        assert all(b["ids"].shape == b["segments"].shape and b["ids"].shape[1] in (16, 24) for b in batches)
        assert all(((b["ids"] != tokenizer.pad_id) == (b["segments"] == 1)).all() for b in batches)
        rows = [tuple(i[i != 0]) for b in batches for i in b["ids"][b["weight"] > 0]]
        assert len(rows) == (limit or 30)
        return rows, sorted(b["ids"].shape for b in batches)

    assert set(epoch(10, 0)[0]) == set(epoch(10, 1)[0]) < set(epoch(None, 0)[0])
    assert epoch(10, 0)[0] != epoch(10, 1)[0]
    # What is compiled in the first epoch serves all that follow.
    assert epoch(None, 0, 0)[1] == epoch(None, 0, 1)[1] == epoch(None, 5, 7)[1]


def test_token_types_are_given_to_encoders_that_have_them(directory, tokenizer):
    batch = sentences.objective(
        prepared(directory, tokenizer, token_types=True), lambda key: None, batch=4, seed=0
    ).batch_at(0)
    for ids, types in zip(batch["ids"], batch["types"], strict=True):
        begin, end = np.flatnonzero(ids == tokenizer.sep_id)[:2]
        assert types.tolist() == [int(begin < i <= end) for i in range(len(ids))]
    assert "types" not in sentences.objective(
        prepared(directory, tokenizer), lambda key: None, batch=4, seed=0
    ).batch_at(0)


@pytest.mark.parametrize("task", [RTE, STSB])
def test_loss_ignores_padding_rows_and_has_the_right_value(directory, tokenizer, task):
    data = prepared(directory, tokenizer, task, limit=10)
    made = sentences.objective(data, lambda key: None, batch=7, seed=0)

    def model(ids, segments, key):
        return jnp.tile(jnp.arange(float(task.table.classes))[None], (len(ids), 1))

    total = count = 0.0
    labels = []
    for step in range(2):
        batch = made.batch_at(step)
        mean, _ = made.loss(model, jax.tree.map(jnp.asarray, batch), None, step)
        total, count = total + float(mean.total), count + float(mean.count)
        labels += batch["labels"][batch["weight"] > 0].tolist()
    labels = np.array(labels)
    if task is RTE:
        expected = np.log(1 + np.exp(1)) - labels.mean()
    else:
        expected = np.mean((labels / 2.5 - 1) ** 2)
        outputs = outputs_of(made.evals["dev"], model)
        np.testing.assert_allclose(outputs["predictions"], 2.5)
        scores = {"spearman": 0.0, "pearson": 0.0, "average": 0.0, "degenerate": 1.0}
        assert made.evals["dev"].score(outputs) == scores
    assert count == 10 and total / count == pytest.approx(expected, rel=1e-5)


@pytest.mark.mesh(data=2, fsdp=2, tensor=2)
@pytest.mark.parametrize("task", [pytest.param(RTE, marks=pytest.mark.slow("STS-B's twin")), STSB])
def test_the_real_classifier_learns_in_few_steps(directory, tokenizer, task):
    """Loss and gradients run under an explicit mesh, token types too, and plain gradient descent lowers the loss."""
    from jaxmlm.parallel import place

    mesh = jax.sharding.get_mesh()
    config = EncoderConfig(layers=1, width=16, heads=2, positions="rope", token_types=2)

    def init(key):
        return Classifier(Encoder(config, tokenizer.size, key), task.table.classes, key)

    made = sentences.objective(prepared(directory, tokenizer, task, token_types=True), init, batch=8, seed=0)
    model = made.init(jax.random.key(0))

    def mean_loss(model, batch):
        mean, _ = made.loss(model, batch, None, 0)
        return mean.total / mean.count

    step = jax.jit(jax.value_and_grad(mean_loss))
    batch, losses = place(made.batch_at(0), mesh), []
    for _ in range(5):
        loss, gradient = step(model, batch)
        model = jax.tree.map(lambda p, g: p - 0.3 * g, model, gradient)
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    outputs = jax.jit(made.evals["dev"].predict)(model, place(next(made.evals["dev"].batches()), mesh))
    assert outputs["predictions"].shape == (8,)


# How often the first and the last label stand in the official dev sets.
KNOWN = {"cola": (322, 721), "sst2": (428, 444), "mrpc": (129, 279), "qnli": (2702, 2761), "rte": (146, 131),
         "wnli": (40, 31), "mnli": (3479, 3213)}  # fmt: skip


@pytest.mark.slow("the official GLUE")
def test_one_label_always_gets_its_known_score_on_the_official_dev_sets(real_data, tmp_path):
    with tarfile.open(real_data / "glue" / "glue_data.tar.xz") as packed:
        wanted = [
            m for m in packed if m.name.endswith((".tsv", "msr_paraphrase_train.txt")) and "MNLI/train" not in m.name
        ]
        packed.extractall(tmp_path, wanted, filter="data")
    directory = tmp_path / "glue_data"
    for name, task in glue.TASKS.items():
        if name == "qqp":  # half of it is there
            found = glue.sets(task, directory, "train_subset.tsv", "dev_half.tsv")
            assert [note.rsplit(" ", 1)[1] for note in found.notes] == ["partial", "partial"]
            continue
        rows = glue.rows(task, directory, task.dev)
        assert rows.labels is not None and len(rows) == task.rows[1]
        for which, label in enumerate((0, task.table.classes - 1)):
            scores = sentences.score(task.table, rows.labels, np.full(len(rows), label))
            assert scores["degenerate"]
            if name == "stsb":
                assert scores["spearman"] == scores["pearson"] == 0.0
                continue
            share = KNOWN[name][which] / len(rows)
            assert scores["accuracy"] == share and scores.get("matthews", 0.0) == 0.0
            if name == "mrpc":
                assert scores["f1"] == pytest.approx(2 * share / (1 + share) if label else 0.0)
    # MRPC cut from its makers' file is what the official script made of it.
    cut, ready = glue.TASKS["mrpc"], glue.sets(glue.TASKS["mrpc"], directory)
    for file in (cut.train, cut.dev):
        (directory / "MRPC" / file).unlink()
    again = glue.sets(cut, directory)
    assert (again.train.texts, again.evaluated["dev"].texts) == (ready.train.texts, ready.evaluated["dev"].texts)
    assert again.notes == ready.notes == ()
