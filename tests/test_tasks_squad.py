"""SQuAD: the file, windows and characters, loss, spans over all windows, scores."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlm.data.tokenizer import Tokenizer
from jaxmlm.errors import InputError
from jaxmlm.models import Encoder, EncoderConfig, SpanPredictor
from jaxmlm.tasks import squad

TEXTS = [
    "The red fox sees the old hen. By the way,  the "
    "Caf\u00e9 \u2014 \u201cNew Owl\u201d \u2014 lies in the \u00bd-mile north.",
    "\ufb01ne cows \U0001d7d9 run \u4e2d\u6587 by\u00a0night.\n"
    "Owls sleep by day, hens by night; the fox never sleeps at all.",
    "A hen.",
]
QUESTIONS = [
    (0, "What does the fox see?", ["the old hen", "hen"]),
    (0, "What lies in the north?", ["Caf\u00e9 \u2014 \u201cNew Owl\u201d"]),
    (0, "How far?", ["\u00bd-mile"]),
    (1, "Which cows?", ["\ufb01ne cows"]),
    (1, "When do hens sleep and who never does?", ["night; the fox"]),
    (1, "What is this?", ["\u4e2d\u6587"]),
    (2, "Who?", ["A hen."]),
]


def content():
    paragraphs = []
    for p, text in enumerate(TEXTS):
        qas = [
            {"id": f"q{i}", "question": question,
             "answers": [{"text": a, "answer_start": text.index(a)} for a in answers]}
            for i, (where, question, answers) in enumerate(QUESTIONS) if where == p
        ]  # fmt: skip
        paragraphs.append({"context": text, "qas": qas})
    return {
        "version": "1.1",
        "data": [{"title": "a", "paragraphs": paragraphs[:2]}, {"title": "b", "paragraphs": paragraphs[2:]}],
    }


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([*TEXTS, *(q for _, q, _ in QUESTIONS)] * 4, 66)


@pytest.fixture
def folder(tmp_path):
    for name in ("train", "dev"):
        (tmp_path / f"{name}-v1.1.json").write_text(json.dumps(content()))
    return tmp_path


def test_read(folder):
    data = squad.read(folder / "dev-v1.1.json")
    assert data.paragraphs == TEXTS and [q.id for q in data.questions] == [f"q{i}" for i in range(7)]
    assert data.questions[0].answers == (("the old hen", 17), ("hen", 25))


def change(path, value):
    """The example file with one element, named by its path, set or (`...`) removed."""
    data = content()
    element = data
    for step in path[:-1]:
        element = element[step]
    element[path[-1]] = value
    return json.dumps(data)


PARAGRAPH = ("data", 0, "paragraphs", 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", ":1: not JSON"),
        ("[]", ".data: expected a list, got null"),
        ('{"data": []}', ": no questions"),
        (change(("data", 0, "paragraphs"), 3), ": data[0].paragraphs: expected a list, got 3"),
        (change((*PARAGRAPH, "context"), " "), ": data[0].paragraphs[1].context: an empty paragraph"),
        (change((*PARAGRAPH, "qas", 0, "id"), "q0"), ": data[0].paragraphs[1].qas[0].id: 'q0' is used twice"),
        (change((*PARAGRAPH, "qas", 0, "question"), None), ".qas[0].question: expected a string, got null"),
        (
            change((*PARAGRAPH, "qas", 0, "answers"), []),
            ".qas[0].answers: no answer: this reads v1.1, not v2.0",
        ),
        (
            change((*PARAGRAPH, "qas", 0, "answers", 0, "answer_start"), 1),
            ".qas[0].answers[0].answer_start: the paragraph has 'ne cows ' at character 1",
        ),
        (
            change((*PARAGRAPH, "qas", 0, "answers", 0, "answer_start"), "0"),
            ".qas[0].answers[0].answer_start: expected a whole number",
        ),
    ],
)
def test_wrong_files_name_the_element(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        squad.read(path)
    assert str(error.value).startswith(str(path)) and message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_badly_encoded_files(tmp_path, tokenizer):
    with pytest.raises(InputError, match="train-v1.1.json is missing: SQuAD needs .* there: none"):
        squad.task(tmp_path, tokenizer, lambda key: None, batch=2, length=32, stride=8, seed=0)
    with pytest.raises(InputError, match="is missing"):
        squad.read(tmp_path / "x.json")
    (tmp_path / "x.json").write_bytes(b'{"data": "\xff"}')
    with pytest.raises(InputError, match="not UTF-8 at byte 10"):
        squad.read(tmp_path / "x.json")


@pytest.mark.parametrize(("length", "stride"), [(24, 4), (32, 100), (128, 64)])
def test_windows_cover_each_paragraph_and_characters_lead_back_to_the_answer(folder, tokenizer, length, stride):
    data = squad.read(folder / "dev-v1.1.json")
    w = squad.windows(data, tokenizer, length, stride)
    first = w.first()
    assert (first + w.count + 1 <= length).all()
    found = set()
    for i, question in enumerate(w.question):
        q = data.questions[question]
        offsets = w.offsets[q.paragraph]
        if w.start[i]:
            tokens = w.begin[i] - first[i] + np.array([w.start[i], w.end[i]])
            text = data.paragraphs[q.paragraph][offsets[tokens[0], 0] : offsets[tokens[1], 1]]
            assert q.answers[0][0] in text and len(text) <= len(q.answers[0][0]) + 1  # "night.": one piece
            found.add(q.id)
    for question, q in enumerate(data.questions):
        covered = [range(b, b + c) for b, c, at in zip(w.begin, w.count, w.question, strict=True) if at == question]
        assert set().union(*covered) == set(range(len(w.paragraphs[q.paragraph])))
    lost = [q.id for q in data.questions if q.id not in found]
    assert w.lost == len(lost) and (lost == [] or length == 32)  # windows that do not overlap cut answers


def test_tokens_of_an_answer_are_those_that_share_a_character_with_it():
    offsets = np.array([[0, 1], [1, 4], [4, 4], [5, 8], [8, 9]])
    spans = {(1, 3): (1, 1), (5, 3): (3, 3), (1, 7): (1, 3), (2, 1): (1, 1), (3, 3): (1, 3), (0, 9): (0, 4)}
    for (start, length), tokens in spans.items():
        assert squad._tokens(offsets, "x" * length, start) == tokens


def test_an_answer_longer_than_any_window_is_lost(tokenizer):
    text = "the fox sees the hen and the owl " * 3
    data = squad.Squad([text], [squad.Question("q", "who?", 0, ((text.strip(), 0),))])
    w = squad.windows(data, tokenizer, 20, 5)
    assert w.lost == 1 and not w.start.any() and len(w.begin) > 1


def make(folder, tokenizer, batch, length=32, stride=8, limit=None):
    return squad.task(
        folder, tokenizer, lambda key: None, batch=batch, length=length, stride=stride, seed=0, limit=limit
    )


def test_an_epoch_shows_every_window_once(folder, tokenizer):
    """Windows, not questions: a paragraph that is cut into two must not halve the training."""
    task, w = make(folder, tokenizer, 4, 20, 4), squad.windows(squad.read(folder / "train-v1.1.json"), tokenizer, 20, 4)
    assert len(w.begin) > len(squad.read(folder / "train-v1.1.json").questions)
    assert task.epoch == -(-len(w.begin) // 4)
    assert sum(int(task.batch_at(step)["weight"].sum()) for step in range(task.epoch)) == len(w.begin)


def evaluate(ev, predict):
    kept = []
    for batch in ev.batches():
        outputs = predict(batch)
        kept.append({name: np.asarray(x)[batch["weight"] > 0] for name, x in outputs.items()})
    return ev.score({name: np.concatenate([part[name] for part in kept]) for name in kept[0]})


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_a_model_that_knows_the_answers_is_perfect_and_one_that_does_not_is_not(folder, tokenizer, batch):
    task = make(folder, tokenizer, batch)
    w = squad.windows(squad.read(folder / "dev-v1.1.json"), tokenizer, 32, 8)
    ev = task.evals["dev"]

    def predict(batch, shift=0):
        def oracle(ids, segments, key):
            position, rows = jnp.arange(ids.shape[1])[None], batch["window"]
            marks = [position == (w.start[rows] + shift)[:, None], position == (w.end[rows] + shift)[:, None]]
            sure = jnp.where(w.start[rows] > 0, 9.0, 0.0)[:, None, None]
            return jnp.stack(marks, -1) * sure - (position[..., None] < batch["first"][:, None, None]) * -50.0

        return ev.predict(oracle, jax.tree.map(jnp.asarray, batch))

    assert evaluate(ev, predict) == {"exact": 1.0, "f1": 1.0, "lost": 0.0}
    assert evaluate(ev, lambda b: predict(b, shift=1))["exact"] < 0.5


def test_the_best_span_is_in_the_paragraph_in_order_and_not_too_long(tokenizer):
    """Against every pair of start and end, one by one."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(3, 50, 2)).astype(np.float32)
    first, count = np.array([4, 9, 5], np.int32), np.array([45, 1, 33], np.int32)
    batch = {"ids": np.zeros((3, 50), np.int32), "segments": np.ones((3, 50), np.int32), "first": first,
             "count": count, "window": np.arange(3, dtype=np.int32)}  # fmt: skip
    outputs = squad._predict(lambda ids, segments, key: jnp.array(logits), jax.tree.map(jnp.asarray, batch))
    for row in range(3):
        pairs = [
            (float(logits[row, s, 0] + logits[row, e, 1]), s - first[row], e - first[row])
            for s in range(first[row], first[row] + count[row])
            for e in range(s, min(s + squad.LONGEST_ANSWER, first[row] + count[row]))
        ]
        for i, (score, start, end) in enumerate(sorted(pairs, reverse=True)[: squad.BEST]):
            assert float(outputs["score"][row, i]) == pytest.approx(score)
            assert (int(outputs["start"][row, i]), int(outputs["end"][row, i])) == (start, end)


def test_best_joins_windows_and_drops_repeated_texts(folder, tokenizer):
    data = squad.read(folder / "dev-v1.1.json")
    w = squad.windows(data, tokenizer, 24, 4)
    rows = np.flatnonzero(w.question == 0)[:2]
    outputs = {
        "window": rows,
        "score": np.array([[3.0, 1.0], [2.0, -2e9]]),
        "start": np.array([[4, 0], [0, 0]]),
        "end": np.array([[4, 0], [0, 0]]),
    }
    found = squad.best(data, w, outputs)
    offsets = w.offsets[0]
    texts = [TEXTS[0][offsets[t, 0] : offsets[t, 1]] for t in (4, 0)]
    assert w.begin[rows].tolist() == [0, 4]
    assert found["q0"] == [(texts[0], 3.0), (texts[1], 1.0)]  # token 4 also begins the second window
    assert found["q1"] == [("", 0.0)] and list(found) == [q.id for q in data.questions]


def test_training_batches_and_limit(folder, tokenizer):
    task = make(folder, tokenizer, 4, limit=3)
    batch = task.batch_at(0)
    assert {name: x.dtype.name for name, x in batch.items()} == {
        "ids": "int32", "segments": "int32", "weight": "float32", "start": "int32", "end": "int32"
    }  # fmt: skip
    assert batch["ids"].shape[1] in (16, 24, 32) and (batch["start"] <= batch["end"]).all()
    again = make(folder, tokenizer, 4, limit=3).batch_at(5)
    assert all(x.tolist() == again[name].tolist() for name, x in task.batch_at(5).items())


def test_loss_does_not_depend_on_padding(folder, tokenizer):
    task = make(folder, tokenizer, 4)

    def model(ids, segments, key):
        return jnp.stack([jnp.sin(ids * 1.0), jnp.cos(ids * 2.0)], -1)

    batch = task.batch_at(0)
    longer = {**batch, **{k: np.pad(batch[k], ((0, 0), (0, 5))) for k in ("ids", "segments")}}
    one, other = (task.loss(model, jax.tree.map(jnp.asarray, b), None, 0)[0] for b in (batch, longer))
    assert float(one.total) == pytest.approx(float(other.total), rel=1e-6) and float(one.count) == 4
    row = {k: v[:1] for k, v in batch.items()}
    row["weight"] = np.ones(1, np.float32)
    logits = np.asarray(model(row["ids"], None, None))[0][row["segments"][0] > 0]
    log_p = jax.nn.log_softmax(logits, axis=0)
    expected = -(log_p[row["start"][0], 0] + log_p[row["end"][0], 1]) / 2
    assert float(task.loss(model, jax.tree.map(jnp.asarray, row), None, 0)[0].total) == pytest.approx(
        float(expected), rel=1e-5
    )


@pytest.mark.mesh(data=2, fsdp=2, tensor=2)
def test_the_real_model_runs_under_an_explicit_mesh(folder, tokenizer):
    from jaxmlm.parallel import place

    mesh = jax.sharding.get_mesh()
    encoder = Encoder(EncoderConfig(layers=1, width=16, heads=2, positions="rope"), tokenizer.size, jax.random.key(0))
    model = SpanPredictor(encoder, jax.random.key(1))
    task = make(folder, tokenizer, 8)
    loss = jax.jit(jax.grad(lambda model, batch: task.loss(model, batch, jax.random.key(0), 0)[0].total))
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(loss(model, place(task.batch_at(0), mesh))))
    ev = task.evals["dev"]
    predict = jax.jit(ev.predict)
    scores = evaluate(ev, lambda batch: predict(model, place(batch, mesh)))
    assert set(scores) == {"exact", "f1", "lost"} and 0 <= scores["exact"] <= scores["f1"] <= 1
