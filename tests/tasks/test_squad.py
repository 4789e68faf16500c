"""SQuAD: windows and characters, loss, spans over all windows, null odds, prediction files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlm.data import SentencePieceTokenizer
from jaxmlm.data.inputs import token_span
from jaxmlm.errors import InputError
from jaxmlm.models import Encoder, EncoderConfig, SpanPredictor
from jaxmlm.tasks import squad
from jaxmlm.tasks.downstream import TaskData
from jaxmlm.tasks.file_formats import read_table
from jaxmlm.tasks.registry import find_task
from tests.tasks.test_squad_files import QUESTIONS, TEXTS, write


@pytest.fixture(scope="module")
def tokenizer():
    return SentencePieceTokenizer.train([*TEXTS, *(q for _, q, _ in QUESTIONS)] * 4, 66)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write(tmp_path_factory.mktemp("squad"))


@pytest.mark.parametrize(("length", "stride"), [(24, 4), (32, 100), (128, 64)])
def test_windows_cover_each_paragraph_and_characters_lead_back_to_the_answer(directory, tokenizer, length, stride):
    data = squad.read(directory / "dev-v1.1.json")
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
    spans = {(1, 3): (1, 2), (5, 3): (3, 4), (1, 7): (1, 4), (2, 1): (1, 2), (3, 3): (1, 4), (0, 9): (0, 5)}
    for (start, length), tokens in spans.items():
        assert token_span(offsets, start, start + length) == tokens


def test_an_answer_longer_than_any_window_is_lost(tokenizer):
    text = "the fox sees the hen and the owl " * 3
    data = squad.Squad([text], [squad.Question("q", "who?", 0, ((text.strip(), 0),))])
    w = squad.windows(data, tokenizer, 20, 5)
    assert w.lost == 1 and not w.start.any() and len(w.begin) > 1


def test_a_question_longer_than_a_window_is_refused_and_a_long_one_cut(tokenizer):
    data = squad.Squad([TEXTS[2]], [squad.Question("q", "hen owl " * 9, 0, (("A hen.", 0),))], path="x.json")
    tokens = len(tokenizer.encode("hen owl " * 9))
    with pytest.raises(InputError, match=f"x.json: question 'q' has {tokens} tokens, which a window of 20"):
        squad.windows(data, tokenizer, 20, 5)
    w = squad.windows(data, tokenizer, tokens + 4, 5)
    assert w.cut == 1 and len(w.questions[0]) == (tokens + 4) // 3 and w.lost == 0
    with pytest.raises(InputError, match="length 4, stride 0"):
        squad.windows(data, tokenizer, 4, 0)


def test_a_paragraph_without_tokens_has_one_empty_window_and_no_span(tokenizer):
    """Such as one of zero-width spaces: there is nothing to predict, and nothing breaks."""
    data = squad.Squad(["\u200b\u200b"], [squad.Question("q", "who?", 0, ())], unanswerable=True)
    w = squad.windows(data, tokenizer, 20, 5)
    assert w.count.tolist() == [0] and w.lost == 0
    said = squad._predictions(data, w, all_null(1))
    assert said.texts == {"q": ""} and said.spans == {"q": ""} and said.odds["q"] > 1e5
    assert squad._predictions(data._replace(unanswerable=False), w, all_null(1)).texts == {"q": ""}


def all_null(windows):
    """What the model says of windows in which no span is possible."""
    nothing = np.zeros((windows, 4))
    return {"window": np.arange(windows), "start": nothing.astype(int), "end": nothing.astype(int) - 1,
            "start_logit": nothing, "end_logit": nothing, "null": np.ones((windows, 2))}  # fmt: skip


def make(directory, tokenizer, batch, length=32, stride=8, **options):
    name = options.get("name", "squad")
    train, dev = (squad.read(file, squad.TASKS[name].unanswerable) for file in squad.files_in(directory, name))
    data = squad.encode((train, dev), tokenizer, length, stride, **options)
    return squad.objective(data, lambda key: None, batch=batch, seed=0)


def test_an_epoch_shows_every_window_once(directory, tokenizer):
    """Windows, not questions: a paragraph that is cut into two must not halve the training."""
    task, w = (
        make(directory, tokenizer, 4, 24, 4),
        squad.windows(squad.read(directory / "train-v1.1.json"), tokenizer, 24, 4),
    )
    assert len(w.begin) > len(squad.read(directory / "train-v1.1.json").questions)
    assert task.epoch == -(-len(w.begin) // 4)
    assert sum(int(task.batch_at(step)["weight"].sum()) for step in range(task.epoch)) == len(w.begin)


def evaluate(ev, predict, keep=lambda outputs: None):
    kept = []
    for batch in ev.batches():
        outputs = predict(batch)
        kept.append({name: np.asarray(x)[batch["weight"] > 0] for name, x in outputs.items()})
    joined = {name: np.concatenate([part[name] for part in kept]) for name in kept[0]}
    keep(joined)
    return ev.score(joined)


def marking(ev, w, sure=9.0, other=9.0, shift=0):
    """A model that gives `sure` to each window's answer, and `other` to the [cls] of a window that holds none."""
    jitted = jax.jit(lambda logits, batch: ev.predict(lambda *_: logits, batch))

    def predict(batch):
        window, rows = batch["window"], np.arange(len(batch["window"]))
        logits = np.zeros((*batch["ids"].shape, 2), np.float32)
        held = w.start[window] > 0
        logits[rows, w.start[window] + shift * held, 0] = np.where(held, sure, other)
        logits[rows, w.end[window] + shift * held, 1] = np.where(held, sure, other)
        return jitted(logits, batch)

    return predict


@pytest.mark.parametrize("batch", [1, 64])
def test_a_model_that_knows_the_answers_is_perfect_and_one_that_does_not_is_not(directory, tokenizer, batch):
    task = make(directory, tokenizer, batch)
    w = squad.windows(squad.read(directory / "dev-v1.1.json"), tokenizer, 32, 8)
    ev = task.evals["dev"]
    assert evaluate(ev, marking(ev, w)) == {"exact": 1.0, "f1": 1.0, "lost": 0.0, "cut": 3.0, "degenerate": 0.0}
    assert evaluate(ev, marking(ev, w, shift=1))["exact"] < 0.5


def test_the_best_span_is_in_the_paragraph_in_order_and_not_too_long(tokenizer):
    """Against every pair of start and end, one by one."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(3, 50, 2)).astype(np.float32)
    first, count = np.array([4, 9, 5], np.int32), np.array([45, 1, 33], np.int32)
    batch = {"ids": np.zeros((3, 50), np.int32), "segments": np.ones((3, 50), np.int32), "first": first,
             "count": count, "window": np.arange(3, dtype=np.int32)}  # fmt: skip
    outputs = jax.jit(lambda logits, batch: squad._predict(lambda *_: logits, batch))(logits, batch)
    for row in range(3):
        pairs = [
            (float(logits[row, s, 0] + logits[row, e, 1]), s - first[row], e - first[row])
            for s in range(first[row], first[row] + count[row])
            for e in range(s, min(s + squad.LONGEST_ANSWER, first[row] + count[row]))
        ]
        for i, (score, start, end) in enumerate(sorted(pairs, reverse=True)[: squad.BEST]):
            logits_of = [float(outputs[f"{side}_logit"][row, i]) for side in ("start", "end")]
            assert sum(logits_of) == pytest.approx(score, abs=1e-5)
            at = first[row] + start, first[row] + end
            assert logits_of == pytest.approx([logits[row, at[0], 0], logits[row, at[1], 1]], abs=1e-5)
            assert (int(outputs["start"][row, i]), int(outputs["end"][row, i])) == (start, end)


def test_best_joins_windows_and_drops_repeated_texts(directory, tokenizer):
    data = squad.read(directory / "dev-v1.1.json")
    w = squad.windows(data, tokenizer, 24, 4)
    rows = np.flatnonzero(w.question == 0)[:2]
    outputs = {
        "window": rows,
        "start_logit": np.array([[2.0, 0.5], [1.0, squad.NOWHERE]]),
        "end_logit": np.array([[1.0, 0.5], [1.0, squad.NOWHERE]]),
        "start": np.array([[4, 0], [0, 0]]),
        "end": np.array([[4, 0], [0, -1]]),
    }
    found = squad.best(data, w, outputs)
    offsets = w.offsets[0]
    texts = [TEXTS[0][offsets[t, 0] : offsets[t, 1]] for t in (4, 0)]
    assert w.begin[rows].tolist() == [0, 4]
    assert found["q0"] == [(texts[0], 2.0, 1.0), (texts[1], 0.5, 0.5)]  # token 4 also begins the second window
    assert found["q1"] == [] and list(found) == [q.id for q in data.questions]


def test_training_batches_and_limit(directory, tokenizer):
    task = make(directory, tokenizer, 4, limit=3)
    batch = task.batch_at(0)
    assert {name: x.dtype.name for name, x in batch.items()} == {
        "ids": "int32", "segments": "int32", "weight": "float32", "start": "int32", "end": "int32"
    }  # fmt: skip
    assert batch["ids"].shape[1] in (16, 24, 32) and (batch["start"] <= batch["end"]).all()
    again = make(directory, tokenizer, 4, limit=3).batch_at(5)
    assert all(x.tolist() == again[name].tolist() for name, x in task.batch_at(5).items())


def test_loss_does_not_depend_on_padding(directory, tokenizer):
    task = make(directory, tokenizer, 4)

    def model(ids, segments, key):
        return jnp.stack([jnp.sin(ids * 1.0), jnp.cos(ids * 2.0)], -1)

    batch = task.batch_at(0)
    longer = {**batch, **{k: np.pad(batch[k], ((0, 0), (0, 5))) for k in ("ids", "segments")}}
    loss = jax.jit(lambda batch: task.loss(model, batch, None, 0)[0])
    one, other = (loss(b) for b in (batch, longer))
    assert float(one.total) == pytest.approx(float(other.total), rel=1e-6) and float(one.count) == 4
    row = {k: v[:1] for k, v in batch.items()}
    row["weight"] = np.ones(1, np.float32)
    logits = np.asarray(model(row["ids"], None, None))[0][row["segments"][0] > 0]
    log_p = jax.nn.log_softmax(logits, axis=0)
    expected = -(log_p[row["start"][0], 0] + log_p[row["end"][0], 1]) / 2
    assert float(loss(row).total) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.mesh(data=2, fsdp=2, tensor=2)
def test_the_real_model_runs_under_an_explicit_mesh(directory, tokenizer):
    from jaxmlm.parallel import place

    mesh = jax.sharding.get_mesh()
    encoder = Encoder(EncoderConfig(layers=1, width=16, heads=2, positions="rope"), tokenizer.size, jax.random.key(0))
    model = SpanPredictor(encoder, jax.random.key(1))
    task = make(directory, tokenizer, 8)
    loss = jax.jit(jax.grad(lambda model, batch: task.loss(model, batch, jax.random.key(0), 0)[0].total))
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(loss(model, place(task.batch_at(0), mesh))))
    ev = task.evals["dev"]
    predict = jax.jit(ev.predict)
    scores = evaluate(ev, lambda batch: predict(model, place(batch, mesh)))
    assert set(scores) == {"exact", "f1", "lost", "cut", "degenerate"} and 0 <= scores["exact"] <= scores["f1"] <= 1


def test_v2_scores_null_odds_and_files(directory, tokenizer, tmp_path):
    """A perfect model, by what it says, by its files, and by its files read back."""
    ev = make(directory, tokenizer, 4, name="squad2").evals["dev"]
    data = squad.read(directory / "dev-v2.0.json", unanswerable=True)
    w = squad.windows(data, tokenizer, 32, 8)
    saved = {}
    scores = evaluate(ev, marking(ev, w, sure=9.0, other=20.0), saved.update)
    perfect = {name: 1.0 for name in scores if "thresh" not in name and name not in ("lost", "cut", "degenerate")}
    assert {name: scores[name] for name in perfect} == perfect and scores["lost"] == 0.0
    assert {"HasAns_exact", "NoAns_f1", "best_exact", "best_f1"} < set(perfect)

    ev.save(saved, tmp_path)
    names = ("predictions", "null_odds", "best_spans", "nbest_predictions")
    said, odds, spans, nbest = (json.loads((tmp_path / f"{name}.json").read_text()) for name in names)
    assert list(said) == list(odds) == list(spans) == list(nbest) == [q.id for q in data.questions]
    assert {key for key, text in said.items() if not text} == {"q1", "q6"} and all(spans.values())
    # One window of q0's paragraph does not hold the answer and is sure of the null: the least sure one counts.
    assert len(w.begin[w.question == 0]) > 1 and odds["q0"] == -18.0 and odds["q6"] == 40.0
    for key, found in nbest.items():
        assert sum(answer["probability"] for answer in found) == pytest.approx(1.0)
        assert "" in [answer["text"] for answer in found] and len(found) <= squad.BEST + 1
        assert found[0]["text"] == said[key]
    files = [
        squad.read_answers(tmp_path / f"{name}.json", kind)
        for name, kind in zip(names[:3], (str, float, str), strict=True)
    ]
    official = squad.evaluate(data, files[2], files[1], threshold=0.0)
    assert {name: official[name] for name in ("exact", "best_f1", "best_f1_thresh")} == {
        "exact": 100.0, "best_f1": 100.0, "best_f1_thresh": scores["best_f1_thresh"]}  # fmt: skip
    assert squad.evaluate(data, files[0])["f1"] == 100.0


def test_null_odds_are_those_of_the_window_that_is_least_sure(tokenizer):
    data = squad.Squad(["x"], [squad.Question(key, "?", 0, ()) for key in ("a", "b")], unanswerable=True)
    w = squad.windows(data, tokenizer, 8, 1)
    w = w._replace(question=np.array([0, 0, 1, 0]))
    null = np.array([[5.0, 1.0], [0.0, 2.0], [-1.0, -1.0], [1.0, 3.0]])
    found = squad.nulls(data, w, {"window": np.array([3, 1, 2, 0]), "null": null[[3, 1, 2, 0]]})
    assert found == {"a": ("", 0.0, 2.0), "b": ("", -1.0, -1.0)}


def test_each_dev_question_is_scored_once_whatever_the_batch(directory, tokenizer):
    """All windows of all questions, each once, and the same answers and scores for any batch and any padding."""
    data = squad.read(directory / "dev-v2.0.json", unanswerable=True)
    w = squad.windows(data, tokenizer, 24, 4)

    def model(ids, segments, key):  # of the tokens and their places, not of the padding
        return (
            jnp.stack([jnp.sin(ids * 1.7), jnp.cos(ids * 2.3)], -1) * 5 + jnp.arange(ids.shape[1])[None, :, None] / 99
        )

    found = []
    for batch in (1, 3, 64):
        ev, saved = make(directory, tokenizer, batch, length=24, stride=4, name="squad2").evals["dev"], {}
        scores = evaluate(ev, jax.jit(lambda batch, ev=ev: ev.predict(model, batch)), saved.update)
        assert sorted(saved["window"].tolist()) == list(range(len(w.begin)))
        found.append((scores, squad._predictions(data, w, saved)))
    assert len(found[0][1].texts) == 7 and found[0][0]["NoAns_f1"] < 1.0
    for scores, said in found[1:]:
        assert scores == pytest.approx(found[0][0]) and said.texts == found[0][1].texts
        assert said.odds == pytest.approx(found[0][1].odds, abs=1e-4)


def test_nothing_compiles_after_the_first_epoch(directory, tokenizer):
    """Each epoch has the same padded lengths, and evaluation no others: three programs in all."""
    task = make(directory, tokenizer, 2, length=32, stride=4)
    shapes = [
        {task.batch_at(step)["ids"].shape for step in range(epoch * task.epoch, (epoch + 1) * task.epoch)}
        for epoch in range(4)
    ]
    assert shapes[0] == shapes[1] == shapes[2] == shapes[3] and len(shapes[0]) <= 3
    loss = jax.jit(lambda batch: task.loss(lambda ids, *_: jnp.ones((*ids.shape, 2)), batch, None, 0)[0].total)
    for step in range(task.epoch):
        loss(task.batch_at(step))
    compiled = loss._cache_size()
    for step in range(task.epoch, 3 * task.epoch):
        loss(task.batch_at(step))
    assert loss._cache_size() == compiled == len(shapes[0])
    assert {batch["ids"].shape for batch in task.evals["dev"].batches()} <= {(2, 16), (2, 24), (2, 32)}


def test_an_encoder_with_token_types_gets_the_second_for_the_paragraph(directory, tokenizer):
    plain, typed = (make(directory, tokenizer, 4, types=types) for types in (False, True))
    batch = typed.batch_at(1)
    assert "types" not in plain.batch_at(1) and (batch["ids"] == plain.batch_at(1)["ids"]).all()
    for ids, types in zip(batch["ids"], batch["types"], strict=True):
        seps = np.flatnonzero(ids == tokenizer.sep_id)
        assert np.flatnonzero(types).tolist() == list(range(seps[0] + 1, seps[1] + 1))
    seen = []
    typed.loss(
        lambda ids, segments, key, types: seen.append(types) or jnp.zeros((*ids.shape, 2)),
        jax.tree.map(jnp.asarray, batch),
        None,
        0,
    )
    assert (seen[0] == batch["types"]).all()


@pytest.mark.parametrize(
    "text", [" " * 5000 + "Who sees it?", "Who sees it?" + " \n" * 2500, "Who" + "\t" * 5000 + " sees\u00a0it?"]
)
def test_the_white_space_of_a_question_takes_no_room(tokenizer, text, monkeypatch):
    """Also where each space is a token of its own, as in byte-level BPE."""
    monkeypatch.setattr(type(tokenizer), "encode_batch", lambda self, texts: [list(map(ord, text)) for text in texts])
    data = squad.Squad(["the owl"], [squad.Question("q", text, 0, ())], True)
    w = squad.windows(data, tokenizer, 384, 128)
    assert w.questions == [list(map(ord, "Who sees it?"))] and w.cut == 0


def test_half_of_a_surrogate_pair_is_read_as_what_can_be_written(directory, tokenizer, tmp_path):
    content = json.loads((directory / "dev-v1.1.json").read_text())
    paragraph = content["data"][0]["paragraphs"][0]
    paragraph["context"] = paragraph["context"].replace("fox", "fo\ud83d")
    qa = paragraph["qas"][0]
    qa["id"], qa["question"] = "q\t\udc00\n", "What \ud83d?"
    qa["answers"] = [{"text": "red fo\ud83d", "answer_start": paragraph["context"].index("red fo\ud83d")}]
    for name in ("train-v1.1.json", "dev-v1.1.json"):
        (tmp_path / name).write_text(json.dumps(content))
    data = squad.read(tmp_path / "dev-v1.1.json")
    assert data.questions[0].answers == (("red fo\ufffd", 4),) and data.mended == 4
    notes = find_task("squad").read(TaskData(str(tmp_path)))[1]
    assert notes[2] == "train: texts of train-v1.1.json with half of a surrogate pair, which is read as U+FFFD: 4"
    ev, w = make(tmp_path, tokenizer, 4).evals["dev"], squad.windows(data, tokenizer, 32, 8)
    saved = {}
    evaluate(ev, marking(ev, w), saved.update)
    out = tmp_path / "out"
    out.mkdir()
    ev.save(saved, out)
    assert "red fo\ufffd" in squad.read_answers(out / "predictions.json", str)["q\t\ufffd\n"]
    assert len(read_table(out / "scores.tsv")) == 1 + len(data.questions)
    assert read_table(out / "scores.tsv")[1][0] == "q\t\ufffd\n"
