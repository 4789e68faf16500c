"""Tables of one's own: classes and numbers, CSV and TSV, dev by file or by hash, and what is refused."""

import pytest

from jaxmlm.errors import InputError
from jaxmlm.tasks.table import Sets, Table, own


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
    assert found.judged["dev"].labels.tolist() == [0] and found.table.metrics[0] == "accuracy"
    tsv = tmp_path / "my.tsv"
    tsv.write_text("text\tlabel\n" + "".join(f'"{i % 50}\t{i % 50 / 4}\n' for i in range(200)))
    found = own(tsv)
    assert (found.table.low, found.table.high, found.table.labels) == (0.0, 12.25, ())
    assert len(found.train) + len(found.judged["dev"]) == 200 and 0 < len(found.judged["dev"]) < 60
    assert not set(found.train.texts[0]) & set(found.judged["dev"].texts[0])
    assert found.notes[0].startswith("dev: ") and own(tsv).train.texts == found.train.texts
    tsv.write_text("text\tlabel\n" + "".join(f"w{i}\t{i % 12}\n" for i in range(99)))
    assert own(tsv).table.labels == tuple(map(str, range(12)))  # classes in the order of numbers
    assert own(tsv, numbers=True).table.labels == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text,label\na,x\nb\n", "my.csv:3: 1 fields, expected 2: text, label"),
        ("text,lable\na,x\n", "my.csv:1: no column 'label'; there are: text, lable"),
        ("text,label\n", "my.csv: no rows"),
        ("text,label\na,x\nb,\n", "my.csv:3: an empty label"),
        ("text,label\na,x\nb,x\n", "my.csv: 1 different labels in the column 'label'"),
        ("text,label\na,x\nb,y\n", "my.csv: 2 rows are too few to put a tenth aside"),
        ('text,label\na,x\n"b"c,y\n', "my.csv:3: not CSV"),
        ("text,label\n" + "".join(f"a,{i}\n" for i in range(101)), "101 different labels .* give --numbers"),
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
    assert "a label is 'x': leave out --numbers" in refused(own, path, dev, numbers=True)
    assert isinstance(own(path, path), Sets) and isinstance(own(path, path).table, Table)
