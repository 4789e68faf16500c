"""A task of the user's, in a file of their own: through the command, in Python and in a study, and its identity."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import jaxmlm
from jaxmlm.cli import main
from jaxmlm.errors import InputError
from jaxmlm.json_files import read_jsonl
from jaxmlm.runs.comparison import compare
from jaxmlm.runs.finetune_config import Finetune, settings
from jaxmlm.runs.finetuning import finetune
from jaxmlm.tasks import registry
from jaxmlm.tasks.downstream import TaskData, task_hash
from jaxmlm.tasks.registry import find_task, register_task
from jaxmlm.tasks.sentences import SentenceTask
from jaxmlm.tasks.table import Sets, Table

USER_FILE = '''
"""Two texts and a label in JSON lines: DIRECTORY/train.jsonl and dev.jsonl."""

import json
from dataclasses import dataclass

from jaxmlm.tasks.sentences import SentenceTask
from jaxmlm.tasks.table import Sets, Table


@dataclass(frozen=True)
class JsonLines(SentenceTask):
    def read(self, data):
        directory = self.directory(data)
        return Sets(self.rows_in(directory / "train.jsonl"), {"dev": self.rows_in(directory / "dev.jsonl")})

    def rows_in(self, path):
        return self.examples(map(json.loads, path.read_text().splitlines()))


BOOLQ = JsonLines("boolq", Table("BoolQ", ("question", "passage"), "answer", ("false", "true")))
'''


@pytest.fixture(autouse=True)
def tasks(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(registry, "TASKS", dict(registry.TASKS))


@pytest.fixture
def files(tmp_path) -> Path:
    (tmp_path / "boolq.py").write_text(USER_FILE)
    for split, count in (("train", 48), ("dev", 20)):
        rows = [
            {"question": f"is the {i} fox red", "passage": "red" if i % 3 else "an owl", "answer": i % 3 > 0}
            for i in range(count)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_numbers_of_numpy_are_labels():
    """As the columns of a data frame give them."""
    task = registry.TableTask("frame.csv", Table("frame", ("text",), "label", ("0", "1")))
    found = task.examples([{"text": "a fox", "label": np.int64(1)}, {"text": "an owl", "label": 0}])
    assert found.labels is not None and found.labels.tolist() == [1, 0]


@pytest.mark.slow("fine-tunes three times")
def test_a_task_in_a_file_of_ones_own_through_the_command(checkpoint, files, capsys):
    """Its results, predictions, model and comparison are those of any task; an edited file is another task."""
    new = files / "new.csv"
    new.write_text("question,passage\nis it red,red\n")
    words = ["finetune", checkpoint, "--task", f"{files / 'boolq.py'}:BOOLQ", "--data", str(files), "--length", "24"]
    words += ["--epochs", "1", "--batch", "24", "--workdir", str(files / "out")]
    assert main([*words, "--predict", str(new)]) == 0
    [row] = read_jsonl(files / "out" / "results.jsonl")
    assert (row["task"], row["main"], row["steps"], row["notes"]) == ("boolq", "accuracy", 2, [])
    lines = [line.split("\t") for line in (files / "out" / row["predictions"] / "dev.tsv").read_text().splitlines()[1:]]
    assert [truth for _, _, truth in lines] == ["true" if i % 3 else "false" for i in range(20)]
    assert row["scores"]["accuracy"] == np.mean([said == truth for _, said, truth in lines])
    model = jaxmlm.load(files / "out" / "model")
    assert (model.kind, model.labels) == ("classify", ("false", "true"))
    shares = model.classify([("is it red", "red")])[0]
    assert (files / "out" / "predicted" / "new.tsv").read_text().split() == [
        "index", "prediction", "0", max(shares, key=shares.__getitem__),
    ]  # fmt: skip
    assert compare(files / "out", files / "out", draws=10)["dev_rows"] == 20
    jaxmlm.export(files / "out" / "model", files / "exported")
    assert "text-classification" in (files / "exported" / "README.md").read_text()
    (files / "boolq.py").write_text(USER_FILE.replace("path.read_text()", "path.read_text().lower()"))
    registry.TASKS.pop("boolq")
    capsys.readouterr()
    assert main(words) == 2 and "holds another finetune: task_source is" in capsys.readouterr().err


@dataclass(frozen=True)
class Polarity(SentenceTask):
    """A task that needs no data."""

    seen: int = 24

    def read(self, data: TaskData) -> Sets:
        rows = [{"text": f"{i} good" if i % 2 else f"bad {i}", "label": i % 2} for i in range(self.seen)]
        return Sets(self.examples(rows), {"dev": self.examples(rows)}, ("made here",))


POLARITY = Polarity("polarity", Table("polarity", ("text",), "label", ("0", "1"), metrics=("matthews", "accuracy")))


def test_a_task_object_in_python(checkpoint):
    """Given itself it is known by its name from there on, as one that was registered is."""
    config = Finetune(POLARITY, length=24, batch=24, epochs=1.0)
    assert (config.task, config.downstream, find_task("polarity")) == ("polarity", POLARITY, POLARITY)
    [row] = finetune(checkpoint, config)["rows"]
    assert (row["task"], row["main"], row["notes"]) == ("polarity", "matthews", ["made here"])
    assert list(row["scores"]) == ["matthews", "accuracy", "train_loss"]
    with pytest.raises(InputError, match="test: GLUE's server takes cola, .*, not polarity"):
        replace(config, test=True, workdir="w")


def test_results_are_found_again_by_the_source_of_a_task():
    """Of the package's own tasks the name is enough."""
    assert task_hash(find_task("rte")) is None and "task_source" not in settings(Finetune("rte", "sample:"))
    before = settings(Finetune(POLARITY))
    assert f'"task_source": "{task_hash(POLARITY)}"' in before
    assert settings(Finetune(replace(POLARITY, seen=8))) != before == settings(Finetune(POLARITY))


def test_what_is_not_a_task_is_refused(files):
    file = files / "boolq.py"
    with pytest.raises(InputError, match="task 'rte' is one of jaxmlm's own: give yours another name"):
        register_task(replace(POLARITY, name="rte"))
    with pytest.raises(InputError, match="task is a int: give the name of a task, or an instance"):
        register_task(7)
    with pytest.raises(InputError, match=r"defines no 'BOOL'; did you mean BOOLQ\?"):
        Finetune(f"{file}:BOOL")
    with pytest.raises(InputError, match=r"nothing.py is missing: FILE.py:NAME takes"):
        Finetune(f"{files / 'nothing.py'}:TASK")
    file.write_text("1 / 0\n")
    with pytest.raises(InputError, match="boolq.py cannot be run: ZeroDivisionError: division by zero"):
        Finetune(f"{file}:BOOLQ")
    with pytest.raises(InputError, match="polarity:1: no column 'text'; there are: words"):
        POLARITY.examples([{"words": "a", "label": 0}])
    with pytest.raises(InputError, match="polarity:2: unknown label '2' in label, expected one of: 0, 1"):
        POLARITY.examples([{"text": "a", "label": 0}, {"text": "b", "label": 2}])
    with pytest.raises(InputError, match="data is None and polarity is read from a directory: give --data DIRECTORY"):
        POLARITY.directory(TaskData())
