"""SQuAD's files: v1.1 and v2.0 read, mistakes named by their place."""

import hashlib
import json
import tarfile

import numpy as np
import pytest

from jaxmlm.data import SentencePieceTokenizer
from jaxmlm.errors import InputError
from jaxmlm.tasks import squad, squad_files

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


def content2():
    """The example as v2.0: q1 and q6 have no answer."""
    data = content()
    data["version"] = "v2.0"
    for article in data["data"]:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                qa["is_impossible"] = qa["id"] in ("q1", "q6")
                if qa["is_impossible"]:
                    qa["plausible_answers"], qa["answers"] = qa["answers"], []
    return data


def write(directory):
    """The example as the four official files."""
    for split in ("train", "dev"):
        for version, made in (("1.1", content()), ("2.0", content2())):
            (directory / f"{split}-v{version}.json").write_text(json.dumps(made))
    return directory


@pytest.fixture
def directory(tmp_path):
    return write(tmp_path)


def test_read(directory):
    data = squad.read(directory / "dev-v1.1.json")
    assert data.paragraphs == TEXTS and [q.id for q in data.questions] == [f"q{i}" for i in range(7)]
    assert data.questions[0].answers == (("the old hen", 17), ("hen", 25))


def change(path, value):
    """The example file with one element, named by its path, set or (`...`) removed."""
    data = content()
    element = data
    for step in path[:-1]:
        element = element[step]
    if value is ...:
        del element[path[-1]]
    else:
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
            ".qas[0].answers: no answer: this is v2.0; read it as task squad2",
        ),
        (
            change((*PARAGRAPH, "qas", 0, "answers", 0, "answer_start"), 1),
            ".qas[0].answers[0].answer_start: the paragraph has 'ne cows ' at character 1",
        ),
        (
            change((*PARAGRAPH, "qas", 0, "answers", 0, "answer_start"), "0"),
            ".qas[0].answers[0].answer_start: expected a whole number",
        ),
        (change((*PARAGRAPH, "qas", 0, "answers", 0, "text"), ""), ".qas[0].answers[0].text: an empty answer"),
        (change((*PARAGRAPH, "qas", 0, "answers"), ...), ".qas[0].answers: expected a list, got null"),
    ],
)
def test_wrong_files_name_the_element(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        squad.read(path)
    assert str(error.value).startswith(str(path)) and message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_badly_encoded_files(tmp_path):
    with pytest.raises(InputError, match="dev-v1.1.json is missing: squad needs .* there: none; --dev FILE takes"):
        squad.files_in(tmp_path)
    with pytest.raises(InputError, match="is missing"):
        squad.read(tmp_path / "x.json")
    (tmp_path / "x.json").write_bytes(b'{"data": "\xff"}')
    with pytest.raises(InputError, match="not UTF-8 at byte 10"):
        squad.read(tmp_path / "x.json")


def test_v2_reads_questions_without_an_answer_and_says_what_contradicts_itself(directory):
    data = squad.read(directory / "dev-v2.0.json", unanswerable=True)
    assert [q.id for q in data.questions if not q.answers] == ["q1", "q6"]
    with pytest.raises(InputError, match=r"qas\[1\].answers: no answer: this is v2.0; read it as task squad2"):
        squad.read(directory / "dev-v2.0.json")
    wrong = content2()
    wrong["data"][0]["paragraphs"][0]["qas"][0]["is_impossible"] = True
    (directory / "dev-v2.0.json").write_text(json.dumps(wrong))
    with pytest.raises(InputError, match=r"qas\[0\].is_impossible: true, but there are 2 answers"):
        squad.read(directory / "dev-v2.0.json", unanswerable=True)


def test_another_training_file_and_what_is_missing(directory):
    (directory / "train-v2.0.json").unlink()
    with pytest.raises(InputError, match="train-v2.0.json is missing: squad2 needs .*; --train FILE takes another"):
        squad.files_in(directory, "squad2")
    expected = (directory / "train-v1.1.json", directory / "dev-v2.0.json")
    assert squad.files_in(directory, "squad2", train="train-v1.1.json") == expected
    assert squad.files_in(directory, "squad2", train=str(expected[0])) == expected
    squad.read(expected[0], unanswerable=True)  # answers everywhere, and no mark: as good as v2.0


def test_notes_say_which_files_are_not_the_official_ones(directory, monkeypatch):
    assert len(squad_files.OFFICIAL) == 4
    files = squad.files_in(directory, "squad2", train="train-v1.1.json")
    assert squad.notes(files, "squad2") == [
        "train: train-v1.1.json, whose bytes are none of the official files' (official: train-v2.0.json)",
        "dev: dev-v2.0.json, whose bytes are none of the official files' (official: dev-v2.0.json)",
    ]
    for file in files:
        monkeypatch.setitem(squad_files.OFFICIAL, hashlib.sha256(file.read_bytes()).hexdigest(), file.name)
    (note,) = squad.notes(files, "squad2")  # dev is right now, and train is one of the other set
    assert note == "train: the official train-v1.1.json (official: train-v2.0.json)"


@pytest.fixture(scope="module")
def real(real_data, tmp_path_factory):
    directory = tmp_path_factory.mktemp("squad")
    with tarfile.open(real_data / "squad" / "squad.tar.xz") as packed:
        for member in packed:
            if member.name.rsplit("/", 1)[-1] in ("dev-v1.1.json", "dev-v2.0.json"):
                member.name = member.name.rsplit("/", 1)[-1]
                packed.extract(member, directory, filter="data")
    return directory


@pytest.mark.slow("the official SQuAD")
@pytest.mark.parametrize(("name", "questions", "silent"), [("squad", 10_570, 0), ("squad2", 11_873, 5_945)])
def test_real_answers_are_recovered_by_their_characters(real, name, questions, silent):
    """The tokens of every answer hold it whole, and little more; only answers longer than the overlap can be lost."""
    version = squad.TASKS[name]
    data = squad.read(real / version.dev, version.unanswerable)
    assert len(data.questions) == questions and sum(not q.answers for q in data.questions) == silent
    tokenizer = SentencePieceTokenizer.train(data.paragraphs[:200], 2000)
    w = squad.windows(data, tokenizer, 192, 96)
    texts, first = {}, w.first()
    for i in np.flatnonzero(w.start).tolist():
        q = data.questions[w.question[i]]
        (begin, _), (_, end) = w.offsets[q.paragraph][w.begin[i] - first[i] + np.array([w.start[i], w.end[i]])]
        text, start = q.answers[0]
        assert begin <= start and start + len(text) <= end, q.id
        texts[q.id] = data.paragraphs[q.paragraph][begin:end]
        assert len(texts[q.id]) <= len(text) + 2 * max(map(len, tokenizer.piece_texts))
    answered = [q for q in data.questions if q.answers]
    assert len(answered) - len(texts) >= w.lost and len(texts) > 0.99 * len(answered)
    said = {q.id: texts.get(q.id, "") for q in data.questions}
    scores = squad.evaluate(data, said)
    assert scores["f1"] > 96  # a piece may reach over the end of an answer
    scores = squad.evaluate(data, {q.id: q.answers[-1][0] if q.answers else "" for q in data.questions})
    # A few answers are nothing but an article, which the official scripts count as none.
    assert min(scores["exact" if silent else "exact_match"], scores["f1"]) > 99.99
    if silent:
        assert squad.evaluate(data, dict.fromkeys(said, ""))["exact"] == 100 * silent / questions
