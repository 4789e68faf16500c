"""The generated world: the same for ever, read by the readers of the real sets, and no shortcut to its tasks."""

import hashlib
import json
from itertools import islice

import numpy as np
import pytest

from jaxmlm.synthetic import tasks, world
from jaxmlm.tasks import blimp, glue, squad


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sample")
    tasks.write(directory, 0)
    return directory


def test_documents_are_the_same_for_ever_and_made_one_by_one():
    first = list(world.documents(0, 50))
    assert list(islice(world.documents(0, 10**9), 50)) == first  # lazy: any amount
    assert list(world.documents(1, 50)) != first and len(set(first)) == 50
    vocabulary = {word.strip(".,?").lower() for text in world.documents(0, 3000) for word in text.split()}
    assert 500 < len(vocabulary) < 1500


def test_the_world_is_frozen(directory):
    """Masking rates have been compared on it: from here on a change of the world is a change of those results."""
    texts = "\n".join(world.documents(0, 200))
    files = "".join(path.read_text() for path in sorted(directory.rglob("*.*")))
    assert [hashlib.sha256(x.encode()).hexdigest()[:12] for x in (texts, files)] == FROZEN


@pytest.mark.parametrize("task", ["cola", "rte"])
def test_labels_are_balanced_and_words_give_nothing_away(directory, task):
    """The most telling word of the training set says nothing of the development set."""
    found = glue.sets(glue.TASKS[task], directory)
    train, dev = found.train, found.evaluated["dev"]
    assert len(train.labels) >= 1000 and len(dev.labels) >= 300
    assert abs(np.mean(dev.labels) - 0.5) < 0.03
    bags = [[set(" ".join(row).lower().split()) for row in zip(*part.texts, strict=True)] for part in (train, dev)]
    words = sorted({word for bag in bags[0] for word in bag})
    seen = [np.array([[word in bag for word in words] for bag in part], float) for part in bags]
    weights, *_ = np.linalg.lstsq(seen[0].T @ seen[0] + 10 * np.eye(len(words)), seen[0].T @ (2 * train.labels - 1.0))
    assert np.mean((seen[1] @ weights > 0) == dev.labels) < 0.58


def test_questions_have_exact_answers_about_other_words(directory):
    read = {split: squad.read(directory / "squad" / f"{split}-v1.1.json") for split in ("train", "dev")}
    answers = {}
    for split, data in read.items():
        for question in data.questions:
            for text, start in question.answers:
                assert data.paragraphs[question.paragraph][start : start + len(text)] == text
        answers[split] = {text for question in data.questions for text, _ in question.answers}
    assert not answers["train"] & answers["dev"]


def test_minimal_pairs_differ_in_little(directory):
    pairs = blimp.read(directory / "blimp")
    assert len({pair.set for pair in pairs}) >= 6 and len({pair.field for pair in pairs}) >= 3
    for pair in pairs:
        good, bad = pair.good.split(), pair.bad.split()
        assert good != bad and len(set(good) ^ set(bad)) <= 4
    line = json.loads((directory / "blimp" / f"{pairs[0].set}.jsonl").read_text().splitlines()[0])
    assert {"sentence_good", "sentence_bad", "field", "linguistics_term", "UID", "pairID"} <= set(line)


FROZEN = ["7af31fda043c", "db41a00d7ba8"]
