"""Tagging: what the files say, which pieces carry a tag, what is scored and written."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlm.data.sentencepiece_tokenizer import SentencePieceTokenizer
from jaxmlm.errors import InputError
from jaxmlm.synthetic import world
from jaxmlm.tasks import conllu
from jaxmlm.tasks.downstream import EncodingOptions, TaskData
from jaxmlm.tasks.entities import entities, entity_scores, tagged, words_of
from jaxmlm.tasks.registry import find_task
from jaxmlm.tasks.tagging_files import read_bio, read_upos, read_words

SENTENCES = [
    (["Ada", "Lovelace", "sees", "London", "."], ["B-PER", "I-PER", "O", "B-LOC", "O"]),
    (["the", "hens", "of", "Ada", "Paris", "Oslo"], ["O", "O", "O", "B-PER", "B-LOC", "B-LOC"]),
]


def columns(sentences, between: str = " -X- _ ") -> str:
    blocks = ["".join(f"{word}{between}{tag}\n" for word, tag in zip(*one, strict=True)) for one in sentences]
    return "-DOCSTART- -X- -X- O\n\n" + "\n".join(blocks)


def json_rows(sentences) -> str:
    return "".join(json.dumps({"tokens": words, "tags": tags}) + "\n" for words, tags in sentences)


@functools.cache
def tokenizer() -> SentencePieceTokenizer:
    return SentencePieceTokenizer.train(world.documents(0, 150), 300)


@pytest.fixture
def directory(tmp_path):
    for name in ("train.txt", "valid.txt", "test.txt"):
        (tmp_path / name).write_text(columns(SENTENCES))
    return tmp_path


def test_columns_json_lines_and_iob1_are_the_same_sentences(tmp_path):
    """IOB1 has B- only between neighbours of one type: here between Paris and Oslo."""
    (tmp_path / "a.txt").write_text(columns(SENTENCES))
    (tmp_path / "tabs.txt").write_bytes(columns(SENTENCES, "\t").replace("\n", "\r\n").replace(" -X-", "").encode())
    (tmp_path / "b.jsonl").write_text(json_rows(SENTENCES))
    iob1 = [(words, list(tags)) for words, tags in SENTENCES]
    iob1[0][1][:] = ["I-PER", "I-PER", "O", "I-LOC", "O"]
    iob1[1][1][:] = ["O", "O", "O", "I-PER", "I-LOC", "B-LOC"]
    (tmp_path / "c.txt").write_text(columns(iob1))
    for name in ("a.txt", "tabs.txt", "b.jsonl", "c.txt"):
        found = read_bio(tmp_path / name)
        assert [(one.words, one.tags) for one in found.sentences] == SENTENCES
        assert bool(found.notes) == (name == "c.txt")
    assert read_bio(tmp_path / "a.txt").sentences[1].rows == [9, 10, 11, 12, 13, 14]


def test_a_word_has_the_white_space_that_no_column_ends_with(tmp_path):
    """In any kind of file, tagged or not; a line of nothing else ends a sentence."""
    words = ["10\u00a0000", "\u3000km", "a\u2009b"]
    sentences = [(words, ["O", "B-LOC", "O"]), (["Ada"], ["B-PER"])]
    (tmp_path / "a.txt").write_text(columns(sentences).replace("O\n\n", "O\n\u00a0\n"))
    (tmp_path / "a.jsonl").write_text(json_rows(sentences))
    (tmp_path / "words.txt").write_text("\n".join(words) + " \n\nAda\t\n")
    for name in ("a.txt", "a.jsonl"):
        assert [(one.words, one.tags) for one in read_bio(tmp_path / name).sentences] == sentences
    for name in ("a.txt", "a.jsonl", "words.txt"):
        assert read_words(tmp_path / name) == [words, ["Ada"]]


BAD = [
    ("train.txt", "Ada B-PER\nsees O\nOslo I-LOC\n", r"train.txt:3: the tag 'I-LOC' continues nothing: before it.*'O'"),
    ("train.txt", "Ada B-PER\nOslo I-LOC\n", r"train.txt:2: the tag 'I-LOC' continues nothing: .* 'B-PER'"),
    ("train.txt", "Ada S-PER\n", r"train.txt:1: the tag is 'S-PER': expected O, B-TYPE or I-TYPE"),
    ("train.txt", "B-PER Ada\n", r"train.txt:1: the tag is 'Ada'"),
    ("train.txt", "Ada NNP B-PER\nsees O\n", r"train.txt:2: 2 columns, expected 3"),
    ("train.txt", "Ada\n", r"train.txt:1: 1 columns, expected 2 or more"),
    ("train.txt", "-DOCSTART- O\n\n", r"train.txt: no words"),
    ("train.txt", "the O\n", "every tag is O"),
    (
        "train.jsonl",
        '{"tokens": ["a"], "ner_tags": [0]}\n',
        r"train.jsonl:1: no list 'tags'.*there are: tokens, ner_tags",
    ),
    (
        "train.jsonl",
        '\n{"tokens": ["a"], "tags": [0]}\n',
        r"train.jsonl:2: tags holds 0, expected strings: class",
    ),
    ("train.jsonl", '{"tokens": ["a", "b"], "tags": ["O"]}\n', r"train.jsonl:1: 2 tokens and 1 tags"),
    ("train.jsonl", '{"tokens": ["a b"], "tags": ["O"]}\n', r"train.jsonl:1: the token 'a b' is empty or has white"),
    ("dev.jsonl", json_rows([(["Ada"], ["B-ORG"])]), r"dev.jsonl:1: the tag 'B-ORG' is of a type that train.txt"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_a_wrong_file_is_one_line_with_file_and_row(name, content, message, directory):
    (directory / name.replace("train.jsonl", "train.txt").replace("dev.jsonl", "valid.txt")).unlink()
    (directory / name).write_text(content)
    with pytest.raises(InputError, match=message) as error:
        find_task("ner").read(TaskData(str(directory)))
    assert "\n" not in str(error.value)


def test_parts_are_found_by_their_names_or_given(directory):
    with pytest.raises(InputError, match=r"train.txt and train.jsonl may both be the train part: name one, --train"):
        (directory / "train.jsonl").write_text(json_rows(SENTENCES))
        find_task("ner").read(TaskData(str(directory)))
    found = find_task("ner").read(TaskData(str(directory), train="train.jsonl"))
    assert found.labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER") and list(found.evaluated) == ["dev", "test"]
    (directory / "valid.txt").unlink()
    with pytest.raises(InputError, match=r"no dev part: expected one of dev.txt, valid.txt"):
        find_task("ner").read(TaskData(str(directory), train="train.txt"))


def test_entities_are_whole_spans():
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-LOC"]]
    said = [["B-PER", "O", "O", "B-LOC"], ["I-LOC", "B-LOC"]]
    assert [one[:] for one in entities(said[1])] == [("LOC", 0, 1), ("LOC", 1, 2)]
    scores = entity_scores(gold, said)
    assert scores == {"f1": 4 / 7, "precision": 2 / 4, "recall": 2 / 3, "f1_LOC": 4 / 5, "f1_PER": 0.0}


def test_words_of_any_script():
    text = "Ada's  東京, हिन्दी x_y."
    words = [text[begin:end] for begin, end in words_of(text)]
    assert words == ["Ada", "'", "s", "東", "京", ",", "हिन्दी", "x", "_", "y", "."]


def test_a_text_without_words_has_no_spans():
    assert tagged(" ", [], np.zeros((0, 3)), ("O", "B-X", "I-X")) == []


def encoded(directory, length=24, limit=None):
    task = find_task("ner")
    return task.encode(task.read(TaskData(str(directory))), tokenizer(), EncodingOptions(length, limit=limit))


def test_the_first_piece_of_each_word_is_labelled_and_no_other(directory):
    data = encoded(directory)
    t = tokenizer()
    [batch] = [data.task.objective(data, dict, batch=2, seed=0).batch_at(step) for step in range(1)]
    for row, ids, tags, counted in zip(*(batch[name] for name in ("row", "ids", "tags", "counted")), strict=True):
        words, wanted = SENTENCES[row]
        at = np.flatnonzero(counted)
        assert [data.sets.labels[tag] for tag in tags[at]] == wanted and len(at) == len(words)
        # What lies from one labelled piece to the next is the word.
        ends = [*at[1:], int((ids != t.pad_id).sum()) - 1]
        texts = [t.decode(ids[a:b].tolist()).strip() for a, b in zip(at, ends, strict=True)]
        assert texts == [word.lower() for word in words]
        assert max(np.diff([*at, ends[-1]])) > 1, "a word of several pieces: else nothing is tested"


def knowing(data, wrong=0):
    """An evaluation's predictions by one that knows the tags, but for the first `wrong` words of each sentence."""

    def predict(_, batch):
        classes = np.full((len(batch["row"]), data.length), 1, np.int32)
        part = data.evaluated["dev"]
        for i, row in enumerate(batch["row"]):
            places = part.positions[row]
            kept = places >= 0
            classes[i, places[kept]] = part.tags[row][kept]
            classes[i, places[kept][:wrong]] = 0
        return {"classes": classes, "row": batch["row"]}

    return predict


def run(ev, predict, directory=None):
    outputs = []
    weights = []
    for batch in ev.batches():
        outputs.append(predict(None, batch))
        weights.append(batch["weight"])
    kept = np.concatenate(weights) > 0
    joined = jax.tree.map(lambda *parts: np.concatenate(parts)[kept], *outputs)
    if directory is not None:
        ev.save(joined, directory)
    return ev.score(joined)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_dev_is_scored_and_written_as_conlleval_takes_it(batch, directory, tmp_path):
    data = encoded(directory)
    ev = data.task.objective(data, dict, batch=batch, seed=0).evals["dev"]
    perfect = run(ev, knowing(data))
    assert perfect["f1"] == perfect["accuracy"] == perfect["f1_PER"] == 1.0 and not perfect["cut"]
    scores = run(ev, knowing(data, wrong=1), tmp_path)
    # Ada is lost, and Lovelace alone is another entity.
    assert (scores["f1"], scores["accuracy"]) == (pytest.approx(8 / 10), pytest.approx(10 / 11))
    lines = (tmp_path / "dev.txt").read_text().split("\n")
    assert lines[:2] == ["Ada B-PER O", "Lovelace I-PER I-PER"] and lines[5] == "" and len(lines) == 13
    assert (tmp_path / "scores.tsv").read_text() == "id\tright\tpredicted\tgold\n3\t1\t2\t2\n9\t3\t3\t3\n"


def test_words_that_are_cut_off_count_as_wrong(directory):
    data = encoded(directory, length=8)
    ev = data.task.objective(data, dict, batch=2, seed=0).evals["dev"]
    scores = run(ev, knowing(data))
    assert scores["cut"] > 3 and scores["recall"] < 1.0 == scores["precision"]


def test_the_loss_is_a_mean_over_words(directory):
    data = encoded(directory)
    task = data.task.objective(data, dict, batch=3, seed=0)
    batch = jax.tree.map(jnp.asarray, task.batch_at(0))
    random = np.random.default_rng(0)
    table = random.normal(size=(tokenizer().size, 5))

    def model(ids, segments, key=None):
        return jnp.asarray(table)[ids]

    loss, metrics = task.loss(model, batch, None, 0)
    rows, at = np.nonzero(batch["counted"])
    logits = table[np.asarray(batch["ids"])[rows, at]]
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(rows)), np.asarray(batch["tags"])[rows, at]]
    assert float(loss.count) == len(rows) == 11 and float(loss.total) == pytest.approx(losses.sum(), rel=1e-5)
    assert float(metrics["accuracy"].count) == 11


TREEBANK = """# text = Don't see Oslo
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\tdo\tAUX\t_\t_\t3\taux\t_\t_
2\tn't\tnot\tPART\t_\t_\t3\tadvmod\t_\t_
3\tsee\tsee\tVERB\t_\t_\t0\troot\t_\t_
3.1\tno\t_\tX\t_\t_\t_\t_\t_\t_
4\tOslo\tOslo\tPROPN\t_\t_\t3\tobj\t_\t_

"""


def test_a_treebank_is_tagged_and_written_as_one(tmp_path):
    for part in ("train", "dev"):
        (tmp_path / f"xx-ud-{part}.conllu").write_text(TREEBANK * 2)
    task = find_task("upos")
    sets = task.read(TaskData(str(tmp_path)))
    assert sets.train[0].words == ["Do", "n't", "see", "Oslo"] and list(sets.evaluated) == ["dev"]
    data = task.encode(sets, tokenizer(), EncodingOptions(32))
    out = tmp_path / "out"
    out.mkdir()
    scores = run(task.objective(data, dict, batch=2, seed=0).evals["dev"], knowing(data, wrong=1), out)
    assert scores["accuracy"] == 6 / 8
    assert (out / "dev.conllu").read_text() == (TREEBANK * 2).replace("\tAUX", "\tADJ")
    assert [s.words[0].upos for s in conllu.read(out / "dev.conllu")] == ["ADJ", "ADJ"]
    assert (out / "dev.tsv").read_text().split("\n")[:2] == ["index\tprediction\tlabel", "1.1\tADJ\tAUX"]
    (tmp_path / "xx-ud-dev.conllu").write_text(TREEBANK.replace("VERB", "verb"))
    with pytest.raises(InputError, match=r"xx-ud-dev.conllu:5: the part of speech is 'verb': expected one of ADJ, ADP"):
        read_upos(tmp_path / "xx-ud-dev.conllu")
