"""How the files of tasks are opened: their lines, however they end, their JSON, and the tables that are written."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from jaxmlm import textfiles
from jaxmlm.errors import InputError

_MARK = textfiles.BOM.encode()
_HALF = re.compile("[\ud800-\udfff]")
_ESCAPED_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_TO_QUOTE = re.compile('[\t\r\n"]')
_LONGEST_FIELD = 1 << 30


def lines(file: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    r"""The numbered lines of a file, without their ends and without byte-order marks.

    Lines end in \n or \r\n, and a \r within one is text; where the first line has one, as in files of old programs for
    the Mac, lines end in \r too.

    >>> list(lines([b"a\r\n", b"b\rc\n"])), list(lines([b"a\rb\r\rc"]))
    ([(1, b'a'), (2, b'b\rc')], [(1, b'a'), (2, b'b'), (3, b''), (4, b'c')])
    """
    number = 0
    also_r = None
    for raw in file:
        line = raw.rstrip(b"\r\n")
        also_r = b"\r" in line if also_r is None else also_r
        for part in line.split(b"\r") if also_r else (line,):
            number += 1
            yield number, part.removeprefix(_MARK)


def decoded(raw: bytes, where: str) -> str:
    """Bytes as UTF-8; InputError names `where` they are."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 ({error.reason}): convert the file to UTF-8") from error


def json_of(raw: bytes) -> tuple[Any, int]:
    """What a JSON text holds, and in how many of its strings U+FFFD stands for half of a surrogate pair.

    JSON can write such a half, but it is not a character: neither a tokenizer nor a file of UTF-8 takes it. U+FFFD is
    what a tokenizer of ours makes of it, and as long, so that places in the text stay right.

    Raises:
        ValueError: it is not JSON, or not UTF-8.

    """
    content = json.loads(raw.decode("utf-8-sig"))
    found = 0

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


def json_lines(path: Path, most: int | None = None) -> Iterator[tuple[str, Any]]:
    """What the first lines of a file of JSON lines hold, each with its place FILE:LINE; blank ones are left out.

    Raises:
        InputError: the file is missing or has no rows, or a line is not JSON in UTF-8.

    """
    if not path.is_file():
        raise InputError(f"{path} is missing")
    where = None
    with path.open("rb") as file:
        written = ((number, line) for number, line in lines(file) if line.strip())
        for number, line in islice(written, most):
            where = f"{path}:{number}"
            try:
                item, _ = json_of(line)
            except ValueError as error:  # not JSON, or not UTF-8
                raise InputError(f"{where}: not a JSON object: {error}") from error
            yield where, item
    if where is None:
        raise InputError(f"{path}: empty: expected one JSON object a line")


def texts_of(item: Any, names: Sequence[str], where: str, kind: str) -> list[str]:
    """The texts that a JSON object has under these names.

    Args:
        item: what a line holds.
        names: of its texts.
        where: its place, as FILE:LINE.
        kind: what an error calls such lines, as "BLiMP lines".

    Raises:
        InputError: it is not an object, or one of the texts is not there.

    """
    for name in names:
        if not isinstance(item, dict) or not isinstance(item.get(name), str):
            raise InputError(f"{where}: no text {name!r}: {kind} have {', '.join(names)}")
    return [item[name] for name in names]


def named(directory: Path, suffix: str) -> list[Path]:
    """The files of a directory with a suffix, in upper or lower case, sorted; without hidden ones, as a Mac's `._x`."""
    return sorted(p for p in directory.glob("*") if p.suffix.lower() == suffix and not p.name.startswith("."))


def brief(text: str, most: int = 200) -> str:
    """A text for a message of one line: the beginning of a long one.

    >>> brief("a table"), brief("a long table", 8)
    ('a table', 'a lon...')
    """
    return text if len(text) <= most else text[: most - 3] + "..."


def write_table(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """A tab-separated file. Fields with a tab, an end of a line or a quotation mark are quoted, as in CSV."""

    def field(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if _TO_QUOTE.search(text) else text

    table = "".join("\t".join(map(field, row)) + "\n" for row in rows)
    path.write_bytes(table.encode())  # as text, some systems would write other ends of lines


def read_table(path: Path) -> list[list[str]]:
    """The rows of a file that `write_table` wrote."""
    csv.field_size_limit(_LONGEST_FIELD)
    return list(csv.reader(io.StringIO(path.read_bytes().decode(), newline=""), delimiter="\t"))


def read_csv(file: io.BufferedIOBase, path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields of a CSV file, whose fields may be quoted; blank lines are left out."""
    csv.field_size_limit(_LONGEST_FIELD)
    ended = enumerate(textfiles.lines(file, _LONGEST_FIELD), 1)  # quoted fields keep the ends
    texts = (decoded(raw.removeprefix(_MARK), f"{path}:{number}") for number, raw in ended)
    reader = csv.reader(texts, strict=True)
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


def read_tabs(file: Iterable[bytes], path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields of a file without quoting, as GLUE's are; blank lines are left out."""
    for number, raw in lines(file):
        line = decoded(raw, f"{path}:{number}")
        if "\t" in line or line.strip():
            yield number, line.split("\t")
