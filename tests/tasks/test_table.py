"""Tables of one's own: classes and numbers, CSV and TSV, dev by file or by hash, and what is refused."""

import json

import numpy as np
import pytest

from jaxmlm.errors import InputError
from jaxmlm.runs.comparison import compare
from jaxmlm.runs.finetune_config import Finetune
from jaxmlm.tasks.file_formats import read_table
from jaxmlm.tasks.registry import find_task
from jaxmlm.tasks.table import Examples, Sets, Table, own, write


def refused(call, *arguments, **more):
    with pytest.raises(InputError) as error:
        call(*arguments, **more)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_table_of_ones_own(tmp_path):
    """Classes and numbers, quoted CSV and bare TSV, dev by file or by a hash that keeps equal texts together."""
    path, dev = tmp_path / "my.csv", tmp_path / "dev.csv"
    path.write_text('text,text_b,label\n"a, ""b""\nc",d,yes\n\ne,f,no\n')
    dev.write_text("label,text,text_b\nno,g,h\n")
    found = own(path, dev)
    assert found.train.texts == (['a, "b"\nc', "e"], ["d", "f"]) and found.table.labels == ("no", "yes")
    assert found.evaluated["dev"].labels.tolist() == [0] and found.table.metrics[0] == "accuracy"
    tsv = tmp_path / "my.tsv"
    tsv.write_text("text\tlabel\n" + "".join(f'"{i % 50}\t{i % 50 / 4}\n' for i in range(200)))
    found = own(tsv)
    assert (found.table.low, found.table.high, found.table.labels) == (0.0, 12.25, ())
    assert len(found.train) + len(found.evaluated["dev"]) == 200 and 0 < len(found.evaluated["dev"]) < 60
    assert not set(found.train.texts[0]) & set(found.evaluated["dev"].texts[0])
    assert found.notes[0].startswith("dev: ") and own(tsv).train.texts == found.train.texts
    tsv.write_text("text\tlabel\n" + "".join(f"w{i}\t{i % 12}\n" for i in range(99)))
    assert own(tsv).table.labels == tuple(map(str, range(12)))  # classes in the order of numbers
    assert own(tsv, regression=True).table.labels == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text,label\na,x\nb\n", "my.csv:3: 1 fields, expected 2: text, label"),
        ("text,lable\na,x\n", "my.csv:1: no column 'label'; there are: text, lable"),
        ("text,label\n", "my.csv: no rows"),
        ("text,label\na,x\nb,\n", "my.csv:3: an empty label"),
        ("text,label\na,x\nb,x\n", "my.csv: 1 different labels in the column 'label': expected at least two"),
        ("text,label\na,x\nb,y\n", "my.csv: 2 rows are too few to put a tenth aside"),
        ('text,label\na,x\n"b"c,y\n', "my.csv:3: not CSV"),
        ("text,label\n" + "".join(f"a,{i}\n" for i in range(101)), "101 different labels .* give --regression"),
        ("text,label\na,0.5\nb,0.5\n", "the labels go from 0.5 to 0.5"),
        ("id,text,label\n1,a,x\n1,b,y\n", "my.csv:3: the id '1' is that of line 2 already"),
    ],
)
def test_wrong_tables_of_ones_own(tmp_path, text, message):
    path = tmp_path / "my.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        own(path)


def test_what_a_dev_file_of_ones_own_may_not_be(tmp_path):
    path, dev = tmp_path / "my.csv", tmp_path / "dev.csv"
    path.write_text("text,label\na,x\nb,y\n")
    assert "no.csv is missing" in refused(own, path, tmp_path / "no.csv")
    dev.write_text("text,label\na,z\n")
    assert refused(own, path, dev) == f"{dev}:2: unknown label 'z' in label, expected one of: x, y"
    assert "a label is 'x': leave out --regression" in refused(own, path, dev, regression=True)
    assert isinstance(own(path, path), Sets) and isinstance(own(path, path).table, Table)


ROWS = [("the hen sleeps", "yes"), ("an owl, who sees", "no"), ("a fox", "yes")]


def as_text(suffix, end):
    quoted = [(f'"{text}"' if "," in text and suffix == ".csv" else text, label) for text, label in ROWS]
    return end.join((("," if suffix == ".csv" else "\t").join(row)) for row in [("text", "label"), *quoted]) + end


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".CSV", ".Tsv"])
@pytest.mark.parametrize(
    ("end", "change"),
    [
        ("\n", lambda text: text),
        ("\r\n", lambda text: "\ufeff" + text),
        ("\r", lambda text: text),
        ("\r", lambda text: text.rstrip("\r") + "\n"),
        ("\r\r\n", lambda text: text),  # of a program that writes \r\n as text
        ("\n", lambda text: text + "\n\n"),
        ("\n", lambda text: text + "  \n"),
        ("\n", lambda text: "\n" + text.replace("a fox", "\n\na fox")),
        ("\r\n", lambda text: text + "\r\n"),
        ("\r", lambda text: "\ufeff" + text + "\r\r"),
    ],
    ids=range(10),
)
def test_a_table_of_any_program_is_read(tmp_path, suffix, end, change):
    """Whatever ends its lines, marks its bytes or is blank in it."""
    path = tmp_path / f"my{suffix}"
    path.write_bytes(change(as_text(suffix.lower(), end)).encode())
    found = own(path, path).train
    assert [found.table.labels[i] for i in found.labels] == [label for _, label in ROWS]
    assert found.texts == ([text for text, _ in ROWS],)


def test_a_message_does_not_hold_the_file(tmp_path):
    path = tmp_path / "my.tsv"
    path.write_text("one column " * 10_000 + "\n")
    assert len(refused(own, path)) < 500
    path.write_text("text\tlabel\na\t" + "x" * 10_000 + "\nb\ty\n")
    dev = tmp_path / "dev.tsv"
    dev.write_text("text\tlabel\na\t" + "z" * 10_000 + "\n")
    assert len(refused(own, path, dev)) < 800


@pytest.mark.parametrize("name", ["reviews.txt", "reviews.xlsx", "reviews"])
def test_a_file_of_another_format_is_not_taken_for_a_table(tmp_path, name):
    path = tmp_path / name
    path.write_text("text\tlabel\na\tx\nb\ty\n")
    message = f"{path} is not a table that can be read: give a .csv"
    assert refused(Finetune, str(path)).startswith(message)
    good = tmp_path / "good.tsv"
    good.write_text(path.read_text())
    assert refused(own, good, path).startswith(message)
    assert refused(find_task(str(good)).unlabelled, path, own(good, good)).startswith(message)


AWKWARD = ["b\tc", "b\nc", "b\rc", 'b"c', '"', "b\r\nc", "plain"]


def test_predictions_are_read_back_whatever_their_names(tmp_path):
    """And compared: class names and ids with tabs, ends of lines and quotation marks."""
    table = Table("my.csv", ("text",), "label", tuple(AWKWARD))
    labels = np.arange(len(AWKWARD), dtype=np.int32)
    rows = Examples(table, (AWKWARD,), labels, [f"{name} id" for name in AWKWARD])
    for seed in (0, 1):
        path = tmp_path / "predictions" / f"seed{seed}" / "dev.tsv"
        path.parent.mkdir(parents=True)
        write(rows, labels[::-1] if seed else labels, path, truth=True)
        line = {"stage": "finetune", "task": "my.csv", "main": "accuracy",
                "scores": {"accuracy": 1.0}, "tuning_seed": seed, "notes": [],
                "predictions": f"predictions/seed{seed}", "degenerate": False, "select": "last",
                "settings": json.dumps({"learning_rate": 1e-3, "batch": 8, "epochs": 1.0})}  # fmt: skip
        with (tmp_path / "results.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
    assert read_table(path)[1:] == [
        [f"{name} id", AWKWARD[-1 - i], name] for i, name in enumerate(AWKWARD)
    ]  # fmt: skip
    found = compare(tmp_path, tmp_path, draws=10)
    assert found["dev_rows"] == len(AWKWARD) and found["a"] == pytest.approx((1 + 1 / 7) / 2)
    write(Examples(table, (["x"],), None, ["7"]), np.array([6]), tmp_path / "plain.tsv")
    assert (tmp_path / "plain.tsv").read_text() == "index\tprediction\n7\tplain\n"
