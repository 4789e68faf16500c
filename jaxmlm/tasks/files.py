"""The formats of task files: their lines (`jaxmlm.textfiles` opens them), CSV, tables separated by tabs, JSON."""

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxmlm import textfiles
from jaxmlm.errors import InputError

_LONGEST = 1 << 30
"""Bytes of the longest line or field."""
_MARKS = re.compile(b"(?:%s)+" % textfiles.BOM.encode())
_HALF = re.compile("[\ud800-\udfff]")
_ESCAPED_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_TO_QUOTE = re.compile('[\t\r\n"]')


def lines(file: io.BufferedIOBase) -> Iterator[tuple[int, bytes]]:
    r"""The numbered lines of a file, without their ends and without byte-order marks.

    A \r within a line is text, unless the first line ends in one, as in files of old programs for the Mac.

    >>> list(lines(io.BytesIO(b"a\r\nb\rc\n"))), list(lines(io.BytesIO(b"a\rb\r\rc")))
    ([(1, b'a'), (2, b'b\rc')], [(1, b'a'), (2, b'b'), (3, b''), (4, b'c')])
    """
    number, begun, ends = 0, b"", None
    for part in textfiles.lines(file, _LONGEST):
        ends = (b"\n", b"\r") if ends is None and part.endswith(b"\r") else ends or (b"\n",)
        begun += part
        if part.endswith(ends):
            number += 1
            yield number, _bare(begun)
            begun = b""
    if begun:
        yield number + 1, _bare(begun)


def _bare(line: bytes) -> bytes:
    marks = _MARKS.match(line)
    return line[marks.end() if marks else 0 :].rstrip(b"\r\n")


def texts(file: io.BufferedIOBase, path: str | Path) -> Iterator[tuple[int, str]]:
    """The same as text; InputError names the line that is not UTF-8."""
    for number, line in lines(file):
        yield number, _decoded(line, path, number)


def _decoded(raw: bytes, path: str | Path, number: int) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}:{number}: not UTF-8 ({error.reason}): convert the file to UTF-8") from error
    if number == 1 and "\0" in text:  # as of UTF-16
        raise InputError(f"{path}:{number}: not UTF-8 (a NUL byte): convert the file to UTF-8")
    return text


def read_csv(file: io.BufferedIOBase, path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields of a CSV file, whose fields may be quoted; blank lines are left out."""
    csv.field_size_limit(_LONGEST)
    numbered = enumerate(textfiles.lines(file, _LONGEST), 1)
    reader = csv.reader((_decoded(raw, path, number).lstrip(textfiles.BOM) for number, raw in numbered), strict=True)
    begun = 1
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{path}:{begun}: not CSV: {error}") from error
        if fields is None:
            return
        if fields and not (len(fields) == 1 and fields[0].isspace()):
            yield begun, fields
        begun = reader.line_num + 1


def read_tabs(file: io.BufferedIOBase, path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields of a file without quoting, as GLUE's are; blank lines are left out."""
    for number, line in texts(file, path):
        if "\t" in line or line.strip():
            yield number, line.split("\t")


def write_table(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """A tab-separated file. Fields with a tab, the end of a line or a quotation mark are quoted, as in CSV."""

    def field(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if _TO_QUOTE.search(text) else text

    table = "".join("\t".join(map(field, row)) + "\n" for row in rows)
    path.write_bytes(table.encode())  # as text, some systems would write other ends of lines


def read_table(path: Path) -> list[list[str]]:
    """The rows of a file that `write_table` wrote."""
    csv.field_size_limit(_LONGEST)
    return list(csv.reader(io.StringIO(path.read_bytes().decode(), newline=""), delimiter="\t"))


def json_of(raw: bytes) -> tuple[Any, int]:
    """What a JSON text holds, and in how many of its strings U+FFFD stands for half of a surrogate pair.

    JSON can write such a half, but it is not a character: neither a tokenizer nor a file of UTF-8 takes it. U+FFFD is
    what our tokenizer makes of it, and as long, so that places in the text stay right.

    Raises:
        ValueError: it is not JSON, or not UTF-8.

    """
    try:
        content, found = json.loads(raw.decode("utf-8-sig")), 0
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error

    def mended(value: Any) -> Any:
        nonlocal found
        if isinstance(value, str):
            text, halves = _HALF.subn("\ufffd", value)
            found += halves > 0
            return text
        if isinstance(value, list):
            return [mended(item) for item in value]
        if isinstance(value, dict):
            return {mended(key): mended(item) for key, item in value.items()}
        return value

    return (mended(content), found) if _ESCAPED_HALF.search(raw) else (content, 0)


def named(folder: Path, suffix: str) -> list[Path]:
    """The files of a folder with a suffix, in upper or lower case, sorted; without hidden ones, as a Mac's `._x`."""
    return sorted(p for p in folder.glob("*") if p.suffix.lower() == suffix and not p.name.startswith("."))


def brief(text: str, most: int = 200) -> str:
    """A text for a message of one line: the beginning of a long one.

    >>> brief("a table"), brief("a long table", 8)
    ('a table', 'a lon...')
    """
    return text if len(text) <= most else text[: most - 3] + "..."
