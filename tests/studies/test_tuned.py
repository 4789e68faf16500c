"""What fine-tunings say of each other: any names of classes, any ids of questions."""

import json

import numpy as np
import pytest

from jaxmlm.errors import InputError
from jaxmlm.studies.tuned import compare
from jaxmlm.tasks import squad
from jaxmlm.tasks.table import Rows, Table, write

ROW = {
    "task": "my.csv", "main": "accuracy", "scores": {"accuracy": 0.5}, "predictions": "predictions/0", "tuning_seed": 0,
    "settings": json.dumps({"learning_rate": 1e-4, "batch": 16, "epochs": 3}), "degenerate": False, "notes": [],
    "select": "last",
}  # fmt: skip


def workdir(folder, **more):
    (folder / "predictions" / "0").mkdir(parents=True)
    (folder / "results.jsonl").write_text(json.dumps({**ROW, **more}) + "\n")
    return folder


@pytest.mark.parametrize("odd", ["b\tc", "b\nc", "b\r\nc", 'b "c"'])
def test_classes_of_any_name_are_compared(tmp_path, odd):
    labels = np.array([0, 1, 1, 0], np.int32)
    rows = Rows(Table("my.csv", ("text",), "label", ("a", odd)), (["x"] * 4,), labels, ["0", odd, "2", "3"])
    folders = [workdir(tmp_path / name) for name in ("one", "other")]
    for folder, said in zip(folders, (labels, np.zeros(4, np.int32)), strict=True):
        write(rows, said, folder / "predictions" / "0" / "dev.tsv", truth=True)
    found = compare(*folders, draws=10)
    assert (found["a"], found["b"], found["dev_rows"]) == (1.0, 0.5, 4)


@pytest.mark.parametrize("odd", ["q\tx", "q\nx"])
def test_questions_of_any_id_are_compared(tmp_path, odd):
    asked = [squad.Question(odd, "who?", 0, (("hen", 4),))]
    data = squad.Squad(["the hen"], asked)
    w = squad.Windows(
        question=np.array([0]), begin=np.array([0]), count=np.array([2]), start=np.array([0]), end=np.array([0]),
        questions=[np.zeros(1, np.int32)], paragraphs=[np.zeros(2, np.int32)], offsets=[np.array([[0, 3], [4, 7]])],
        paragraph_of=np.array([0]), gap=[1], lost=0, cut=0,
    )  # fmt: skip
    outputs = {
        "window": np.array([0]), "start": np.array([[1]]), "end": np.array([[1]]),
        "start_logit": np.ones((1, 1)), "end_logit": np.ones((1, 1)), "null": np.zeros((1, 2)),
    }  # fmt: skip
    folders = [workdir(tmp_path / name, task="squad", main="f1", scores={"f1": 1.0}) for name in ("one", "other")]
    for folder in folders:
        squad._save(data, w, outputs, folder / "predictions" / "0")
    found = compare(*folders, draws=10)
    assert found["by_score"]["exact"]["a"] == 1.0 and found["dev_rows"] == 1


def test_other_rows_are_refused_in_a_short_line(tmp_path):
    table, labels = Table("my.csv", ("text",), "label", ("a", "b")), np.array([0, 1], np.int32)
    folders = [workdir(tmp_path / name) for name in ("one", "other")]
    for folder in folders:
        rows = Rows(table, (["x"] * 2,), labels, ["0", folder.name + "y" * 5000])
        write(rows, labels, folder / "predictions" / "0" / "dev.tsv", truth=True)
    with pytest.raises(InputError, match="are judged on other rows") as error:
        compare(*folders)
    assert len(str(error.value)) < 1000
