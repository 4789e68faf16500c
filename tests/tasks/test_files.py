"""Files of any system in the readers of tasks, and messages that stay short whatever a file holds."""

import json

import numpy as np
import pytest

from jaxmlm.errors import InputError
from jaxmlm.tasks import squad
from jaxmlm.tasks.files import read_table
from jaxmlm.tasks.table import Rows, Table, own, write
from tests.tasks.test_squad_files import content
from tests.tasks.test_table import refused


@pytest.mark.parametrize("name", ["my.csv", "my.tsv", "MY.CSV"])
@pytest.mark.parametrize(
    "change",
    [
        ("text", "\ufefftext"),
        ("text", "\ufeff\ufefftext"),
        ("new", "\ufeffnew"),  # two files joined end to end
        ("\n", "\r\n"),
        ("\n", "\r"),
        ("\n", "\r\r\n"),
        ("y\n", "y\n\n"),
        ("y\n", "y\r\n\r\n"),
        ("y\n", "y\n  \n\n"),
        ("x\n", "x\n\n"),
        ("y\n", "y"),
    ],
)
def test_a_table_of_any_system_is_the_same(tmp_path, name, change):
    path = tmp_path / name
    text = "text,label\nold hen,x\nnew owl,y\n".replace(*change)
    path.write_bytes((text if path.suffix.lower() == ".csv" else text.replace(",", "\t")).encode())
    found = own(path, path).train
    assert found.texts == (["old hen", "new owl"],) and found.labels.tolist() == [0, 1]


def test_an_end_of_a_line_within_a_field_is_kept(tmp_path):
    quoted, bare = tmp_path / "my.csv", tmp_path / "my.tsv"
    quoted.write_bytes(b'text,label\r\n"a\r\nb\rc\n\nd",x\r\ne,y\r\n')
    assert own(quoted, quoted).train.texts == (["a\r\nb\rc\n\nd", "e"],)
    bare.write_bytes(b"text\tlabel\na\rb\tx\ne\ty\n")
    assert own(bare, bare).train.texts == (["a\rb", "e"],)


LONG = "an old hen " * 900


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("my.tsv", f"text label\r{LONG}\r", "my.tsv:1: no column 'text'; there are: text label"),
        ("my.tsv", LONG, "my.tsv:1: no column 'text'; there are: an old hen"),
        ("my.csv", f'"{LONG}\n",b\n', "my.csv:1: no column 'text'; there are: 'an old hen"),
        ("my.csv", f"text,label,{LONG}\na,x\n", "my.csv:2: 2 fields, expected 3: text, label, an old"),
        ("my.csv", f'text,label\na,"{LONG}', "my.csv:2: not CSV: unexpected end of data"),
        ("my.csv", f"id,text,label\n{LONG},a,x\n{LONG},b,y\n", "my.csv:3: the id 'an old hen .* is that of line 2"),
        ("my.csv", "t\0e\0x\0t\0,\0l\0a\0b\0e\0l\0\n\0", "my.csv:1: not UTF-8"),
        ("my.txt", "text\tlabel\na\tx\n", "my.txt is not a table that can be read: give a .csv"),
    ],
)
def test_a_message_is_one_short_line_whatever_the_file_holds(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_bytes(text.encode())
    with pytest.raises(InputError, match=message) as error:
        own(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_a_short_message_of_a_label_or_a_number(tmp_path):
    path, dev = tmp_path / "my.csv", tmp_path / "dev.csv"
    path.write_text(f"text,label\na,{LONG}\nb,y\n")
    assert len(refused(own, path, numbers=True)) < 500
    dev.write_text(f"text,label\na,{LONG}x\n")
    assert len(refused(own, path, dev)) < 1000


def test_a_prediction_file_holds_any_name_of_a_class_and_any_id(tmp_path):
    names = ("b\tc", "b\nc", "b\rc", "b\r\nc", 'a "b"', '"', " b ", "caf\u00e9\u2028", "b")
    table = Table("my", ("text",), "label", names)
    ids = [f"id {name}" for name in names]
    labels = np.arange(len(names), dtype=np.int32)
    rows = Rows(table, ([""] * len(names),), labels, ids)
    write(rows, labels[::-1], tmp_path / "dev.tsv", truth=True)
    expected = [["index", "prediction", "label"], *map(list, zip(ids, names[::-1], names, strict=True))]
    assert read_table(tmp_path / "dev.tsv") == expected
    plain = Rows(Table("my", ("text",), "label", ("no", "yes")), (["a", "b"],), None, ["0", "1"])
    write(plain, np.array([1, 0]), tmp_path / "RTE.tsv")  # as the server takes it
    assert (tmp_path / "RTE.tsv").read_bytes() == b"index\tprediction\n0\tyes\n1\tno\n"


def test_half_a_surrogate_pair_is_replaced_where_it_is_read_and_said(tmp_path):
    text = json.dumps(content()).replace("old hen", "o\\ud83dd hen").replace("How far?", "How \\uDE00 far?")
    for name in ("train-v1.1.json", "dev-v1.1.json"):
        (tmp_path / name).write_text(text.replace("A hen.", "A \\ud83d\\ude00."))
    found = squad.read(tmp_path / "dev-v1.1.json")
    assert (
        found.paragraphs[0].startswith("The red fox sees the o\ufffdd hen.") and found.paragraphs[2] == "A \U0001f600."
    )
    assert found.questions[0].answers[0][0] == "the o\ufffdd hen" and found.questions[2].text == "How \ufffd far?"
    json.dumps([found.paragraphs, found.questions], ensure_ascii=False).encode()
    said = [note for note in squad.notes(squad.files_in(tmp_path), "squad") if "surrogate" in note]
    assert said == [
        f"{name}: texts of {name}-v1.1.json with half a surrogate pair, which U+FFFD stands for: 3"
        for name in ("train", "dev")
    ]
    (tmp_path / "predictions.json").write_text('{"q\\ud83d": "\\ude00"}')
    assert squad.read_answers(tmp_path / "predictions.json", str) == {"q\ufffd": "\ufffd"}


@pytest.mark.parametrize(
    ("text", "message"), [("[" * 200_000, "not JSON"), ('{"data": ' + "9" * 5000 + "}", "not JSON")]
)
def test_json_that_python_does_not_take_is_refused(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=message):
        squad.read(tmp_path / "x.json")


def test_messages_stay_short(tmp_path):
    long = content()
    long["data"][0]["paragraphs"][0]["qas"][0]["answers"][0]["text"] = "owl " * 5000
    (tmp_path / "x.json").write_text(json.dumps(long))
    with pytest.raises(InputError, match="answer_start: the paragraph has") as error:
        squad.read(tmp_path / "x.json")
    assert len(str(error.value)) < 700
