"""Text files of every system: one rule for where a line ends, wherever the blocks of a stream are cut."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmlm import textfiles
from jaxmlm.errors import InputError
from jaxmlm.json_files import read_json
from jaxmlm.textfiles import lines, read_text


@settings(max_examples=200, deadline=None)
@given(st.text("ab\r\n", max_size=14), st.integers(1, 5))
def test_lines_are_those_of_universal_newlines(text, block):
    """But for \\r\\r\\n, which is one end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(textfiles, "BLOCK", block)
        found = list(lines(io.BytesIO(text.encode()), 100))
    assert b"".join(found) == text.encode() and all(found)
    wanted = io.StringIO(text.replace("\r\r\n", "|"), newline=None).read().replace("|", "\n").split("\n")
    assert [line.decode().rstrip("\r\n") for line in found] == wanted[: len(wanted) - (wanted[-1] == "")]


@pytest.mark.parametrize("end", ["", "\n", "\r"])
def test_a_line_that_is_too_long_is_not_read_to_its_end(end, monkeypatch):
    monkeypatch.setattr(textfiles, "BLOCK", 8)
    stream = io.BytesIO(b"one\n" + b"x" * 1000 + end.encode() + b"two")
    *before, last = lines(stream, 20)
    assert before == [b"one\n"] and 20 < len(last) <= 40 and stream.tell() < 50


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\xef\xbb\xbfone\r\ntwo", "one\ntwo"),
        (b"one\rtwo\r\rthree\r", "one\ntwo\n\nthree\n"),
        (b"one\r\r\ntwo\r\r\n", "one\ntwo\n"),
        (b"\xef\xbb\xbfone\n\xef\xbb\xbftwo", "one\ntwo"),  # two files joined
        (b"", ""),
    ],
)
def test_small_files(tmp_path, raw, text):
    (tmp_path / "a.txt").write_bytes(raw)
    assert read_text(tmp_path / "a.txt") == text


@pytest.mark.parametrize("raw", [b"\xff\xfeo\0n\0e\0", b"o\0n\0e\0", b"caf\xe9"])
def test_small_files_of_other_encodings(tmp_path, raw):
    (tmp_path / "a.txt").write_bytes(raw)
    with pytest.raises(InputError, match=r"a\.txt is not UTF-8 text \(.*\): convert it"):
        read_text(tmp_path / "a.txt")


@pytest.mark.parametrize(("raw", "message"), [(b"{", "is not JSON"), (b"[]", "a JSON list, not an object")])
def test_files_that_hold_no_object(tmp_path, raw, message):
    (tmp_path / "a.json").write_bytes(raw)
    with pytest.raises(InputError, match=message):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a":\r\n1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}
