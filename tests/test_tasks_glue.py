"""GLUE: the files as they are, wrong files, encoding, loss and scores."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlm.data.tokenizer import Tokenizer
from jaxmlm.errors import InputError
from jaxmlm.models import Classifier, Encoder, EncoderConfig
from jaxmlm.tasks import glue
from jaxmlm.tasks.metrics import accuracy

WORDS = "red blue old new fox hen owl cow sees finds runs sleeps".split()
RTE = glue.TASKS["rte"]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([" ".join(WORDS)] * 4, 28)


def write(folder, spec, rows, split="train", ending="\n"):
    """A file of this task: rows of (label, sentence, ...), other columns filled with "x"."""
    columns = spec.header or ("index", *spec.texts, spec.label)
    lines = [] if spec.header else [columns]
    for label, *texts in rows:
        values = dict(zip(spec.texts, texts, strict=True), **{spec.label: label})
        lines.append([values.get(name, "x") for name in columns])
    path = folder / spec.folder / {"train": spec.train, "dev": spec.dev}[split]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes("".join("\t".join(line) + ending for line in lines).encode())
    return path


@pytest.mark.parametrize("name", glue.TASKS)
def test_every_task_is_read_by_its_columns_and_label_names(tmp_path, name):
    spec = glue.TASKS[name]
    labels = spec.labels or ("0.000", "2.5", "5")
    rows = [(label, *[f'a "quoted {c} {label}' for c in spec.texts]) for label in labels]
    write(tmp_path, spec, rows, "dev")
    read = glue.read(spec, tmp_path, "dev")
    assert read.labels.tolist() == (list(range(len(labels))) if spec.labels else [0.0, 2.5, 5.0])
    assert [list(column) for column in zip(*read.texts, strict=True)] == [list(row[1:]) for row in rows]
    assert glue.read(spec, tmp_path / spec.folder, "dev").texts == read.texts


def test_byte_order_mark_line_ends_and_other_separators_of_lines(tmp_path):
    path = write(tmp_path, RTE, [("entailment", "a\u2028b\x0bc", "d\re")], ending="\r\n")
    path.write_bytes("\ufeff".encode() + path.read_bytes().replace(b"index\t", b"").replace(b"x\t", b""))
    assert path.read_bytes().startswith("\ufeffsentence1".encode())
    assert glue.read(RTE, tmp_path, "train").texts == (["a\u2028b\x0bc"], ["d\re"])


def test_wrong_files_say_file_line_and_what_was_expected(tmp_path):
    def message(split="train", spec=RTE):
        with pytest.raises(InputError) as error:
            glue.read(spec, tmp_path, split)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "RTE needs train.tsv and dev.tsv; .tsv files there: none" in message()
    path = write(tmp_path, RTE, [("entailment", "a", "b"), ("maybe", "a", "b")])
    assert message() == f"{path}:3: unknown label 'maybe' in label, expected one of: entailment, not_entailment"
    assert ".tsv files there: train.tsv" in message("dev")
    path.write_text("index\tsentence1\tlabel\n0\ta\tentailment\n")
    assert message() == f"{path}:1: no column 'sentence2'; there are: index, sentence1, label"
    path.write_text("sentence1\tsentence2\tlabel\na\tb\tentailment\na\tb\n")
    assert message() == f"{path}:3: 2 tab-separated fields, expected 3"
    path.write_bytes(b"sentence1\tsentence2\tlabel\na\t\xff\tentailment\n")
    assert message().startswith(f"{path}:2: not UTF-8")
    path.write_text("")
    assert message() == f"{path}:1: no column 'sentence1'; there are: none"
    path.write_text("sentence1\tsentence2\tlabel\n")
    assert message().startswith(f"{path}: no rows")
    for value in ("5.1", "nan", "high", ""):
        path = write(tmp_path, glue.TASKS["stsb"], [(value, "a", "b")])
        assert message(spec=glue.TASKS["stsb"]).startswith(f"{path}:2: score is {value!r}, expected a number")


def test_encoding_cuts_the_longer_sentence(tokenizer):
    rows = glue.Rows((["red fox", "fox"], ["owl " * 9, "hen"]), np.zeros(2, np.int32))
    a, b = tokenizer.encode("red fox"), tokenizer.encode("owl " * 9)
    length = 2 * len(a) + 3
    encoded = glue.encode(rows, tokenizer, length)
    cls, sep = tokenizer.cls_id, tokenizer.sep_id
    assert encoded.sequences[0].tolist() == [cls, *a, sep, *b[: len(a)], sep]
    assert encoded.truncated == 1 and max(map(len, encoded.sequences)) == length


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for split, count in (("train", 30), ("dev", 23)):
        rows = []
        for _ in range(count):
            texts = [" ".join(random.choice(WORDS, random.integers(1, 9))) for _ in range(2)]
            rows.append((RTE.labels[texts[0].count("fox") % 2], *texts))
        write(tmp_path, RTE, rows, split)
        scores = [(f"{random.random() * 5:.3f}", *row[1:]) for row in rows]
        write(tmp_path, glue.TASKS["stsb"], scores, split)
    return tmp_path


def evaluate(ev, model):
    """What the runner does with an eval: drop padding rows, concatenate, score."""
    kept = []
    for batch in ev.batches():
        outputs = ev.predict(model, jax.tree.map(jnp.asarray, batch))
        kept.append({name: np.asarray(x)[batch["weight"] > 0] for name, x in outputs.items()})
    return ev.score({name: np.concatenate([part[name] for part in kept]) for name in kept[0]})


def test_each_dev_row_is_scored_once_whatever_the_batch(folder, tokenizer):
    fox = tokenizer.encode("fox")[-1]

    def model(ids, segments, key):
        first = jnp.cumsum(ids == tokenizer.sep_id, axis=1) == 0
        odd = ((ids == fox) & first).sum(1) % 2
        return jax.nn.one_hot(odd, 2)

    def always(ids, segments, key):
        return jnp.tile(jnp.array([[1.0, 0.0]]), (len(ids), 1))

    labels = glue.read(RTE, folder, "dev").labels
    for batch in (1, 4, 23, 50):
        task = glue.task(RTE, folder, tokenizer, lambda key: model, batch=batch, length=99, seed=0)
        assert evaluate(task.evals["dev"], model) == {"accuracy": 1.0}
        assert evaluate(task.evals["dev"], always) == {"accuracy": accuracy(labels, np.zeros(23))}


def test_batches_and_limit(folder, tokenizer):
    def task(limit, seed):
        return glue.task(RTE, folder, tokenizer, lambda key: None, batch=4, length=24, seed=seed, limit=limit)

    def epoch(limit, seed):
        batches = [task(limit, seed).batch_at(step) for step in range(task(limit, seed).epoch)]
        assert all(b["ids"].shape == b["segments"].shape and b["ids"].shape[1] in (16, 24) for b in batches)
        assert all(((b["ids"] != tokenizer.pad_id) == (b["segments"] == 1)).all() for b in batches)
        rows = [tuple(i[i != 0]) for b in batches for i in b["ids"][b["weight"] > 0]]
        assert len(rows) == (limit or 30)
        return rows

    assert set(epoch(10, 0)) == set(epoch(10, 1)) < set(epoch(None, 0))
    assert epoch(10, 0) != epoch(10, 1)


@pytest.mark.parametrize("name", ["rte", "stsb"])
def test_loss_ignores_padding_rows_and_has_the_right_value(folder, tokenizer, name):
    spec = glue.TASKS[name]
    task = glue.task(spec, folder, tokenizer, lambda key: None, batch=7, length=24, seed=0, limit=10)

    def model(ids, segments, key):
        return jnp.tile(jnp.arange(float(spec.classes))[None], (len(ids), 1))

    total = count = 0.0
    labels = []
    for step in range(2):
        batch = task.batch_at(step)
        mean, _ = task.loss(model, jax.tree.map(jnp.asarray, batch), None, step)
        total, count = total + float(mean.total), count + float(mean.count)
        labels += batch["labels"][batch["weight"] > 0].tolist()
    labels = np.array(labels)
    if name == "rte":
        expected = np.log(1 + np.exp(1)) - labels.mean()
    else:
        expected = np.mean((labels / 2.5 - 1) ** 2)
        assert evaluate(task.evals["dev"], model) == {"spearman": 0.0, "pearson": 0.0}
    assert count == 10 and total / count == pytest.approx(expected, rel=1e-5)


def test_a_number_is_predicted_in_its_own_range(folder, tokenizer):
    spec = replace(glue.TASKS["stsb"], metrics=("pearson",))
    task = glue.task(spec, folder, tokenizer, lambda key: None, batch=8, length=24, seed=0)
    outputs = task.evals["dev"].predict(lambda ids, segments, key: jnp.zeros((len(ids), 1)), task.batch_at(0))
    np.testing.assert_allclose(outputs["predictions"], 2.5)


@pytest.mark.mesh(data=2, fsdp=2, tensor=2)
@pytest.mark.parametrize("name", ["rte", "stsb"])
def test_the_real_classifier_learns_in_few_steps(folder, tokenizer, name):
    """Loss and gradients run under an explicit mesh, and plain gradient descent lowers the loss."""
    from jaxmlm.parallel import place

    spec, mesh = glue.TASKS[name], jax.sharding.get_mesh()
    config = EncoderConfig(layers=1, width=16, heads=2, positions="rope")

    def init(key):
        return Classifier(Encoder(config, tokenizer.size, key), spec.classes, key)

    task = glue.task(spec, folder, tokenizer, init, batch=8, length=24, seed=0)
    model = task.init(jax.random.key(0))

    def mean_loss(model, batch):
        mean, _ = task.loss(model, batch, None, 0)
        return mean.total / mean.count

    step = jax.jit(jax.value_and_grad(mean_loss))
    batch, losses = place(task.batch_at(0), mesh), []
    for _ in range(5):
        loss, gradient = step(model, batch)
        model = jax.tree.map(lambda p, g: p - 0.3 * g, model, gradient)
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    outputs = jax.jit(task.evals["dev"].predict)(model, place(next(task.evals["dev"].batches()), mesh))
    assert outputs["predictions"].shape == (8,)
