"""Documents out of the lines of a text: separated by blank lines, one a line, one a file, one in each JSON object."""

import io
import itertools
import json
from collections.abc import Iterator
from typing import Any, Literal

from jaxmlm.data import compression as packed
from jaxmlm.errors import InputError, brief
from jaxmlm.json_files import kind_of
from jaxmlm.textfiles import BOM, lines

Layout = Literal["blank-line", "line", "file", "jsonl"]
LINE = 1 << 28
"""The most bytes of a line: all of it is in memory, some times, and a packed file may hold it in a few kilobytes."""
LONGEST = 1 << 28
"""The most characters of a document of several lines: all of it is in memory, some ten times."""
MOST_NAMED = 20
"""Fields that a message names."""
BEGINNING = 1 << 12
"""Bytes of a file within which a NUL shows that it is not text; later on it is one bad character."""


def texts_in(name: str, stream: io.BufferedIOBase, layout: Layout, field: str) -> Iterator[str]:
    """The documents of a text, as `layout` separates them.

    Args:
        name: what messages call the text.
        stream: its bytes.
        layout: `blank-line`: documents are separated by blank lines; `line`: each line is one; `file`: all of it is
            one; `jsonl`: each line is a JSON object whose `field` is one.
        field: the field of a JSON object; `meta.text` is in a nested one.

    Raises:
        InputError: it is not such a text; the message has the line.

    """
    pending: list[str] = []
    size = 0
    for number, line in enumerate(map(str.strip, text_lines(name, stream)), 1):
        if layout == "jsonl":
            if line:
                yield _of_json(line, field, f"{name}, line {number}")
        elif layout == "line":
            if line:
                yield line
        elif line or layout == "file":
            pending.append(line)
            size += len(line) + 1
            if size > LONGEST:
                raise InputError(
                    f"{name}, line {number}: a document of more than {LONGEST >> 20:,} Mi characters ends here or "
                    "later: if each line is a document, give --data.layout line; else break it up"
                )
        elif pending:
            yield "\n".join(pending)
            pending = []
            size = 0
    if any(pending):
        yield "\n".join(pending)


def _of_json(line: str, field: str, where: str) -> str:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise InputError(f"{where}: not JSON ({str(e).partition(';')[0]}): a .jsonl file has one object a line") from e
    if not isinstance(found, dict):
        raise InputError(f"{where}: {kind_of(found)}, not an object: a .jsonl file has one object a line")
    value = found
    for key in [field] if field in found else field.split("."):  # "meta.text" stands in an object within
        value = value.get(key, _LACKING) if isinstance(value, dict) else _LACKING
    if isinstance(value, str):
        return value
    texts = ", ".join(itertools.islice(_text_fields(found), MOST_NAMED))[:500] or "none"
    if value is _LACKING:
        raise InputError(f"{where}: no text field {field!r}; there are {texts}: name one as --data.field")
    raise InputError(
        f"{where}: the field {field!r} holds {kind_of(value)}, not text: leave such lines out, or name "
        f"another field (there are {texts}) as --data.field"
    )


_LACKING = object()


def _text_fields(found: dict[str, Any], within: str = "", depth: int = 5) -> Iterator[str]:
    """The names of the fields that hold text, those in nested objects by the way to them."""
    for key, value in found.items():
        if isinstance(value, str):
            yield within + key
        elif isinstance(value, dict) and depth:
            yield from _text_fields(value, f"{within}{key}.", depth - 1)


def text_lines(name: str, stream: io.BufferedIOBase) -> Iterator[str]:
    """The lines of a text, each with its end, without byte-order marks.

    Raises:
        InputError: a line is not UTF-8, is too long, or cannot be read; the message has its number.

    """
    number = begin = 0
    try:
        for number, raw in enumerate(lines(stream, LINE), 1):  # noqa: B007 (messages of what fails tell it)
            if len(raw) > LINE:
                raise InputError(
                    f"{name}, line {number}: a line of more than {LINE >> 20:,} MiB, from byte {begin} on: is it "
                    "text? Break it up, or leave the file out"
                )
            line = raw.decode("utf-8")
            if "\0" in line and begin < BEGINNING:
                raise InputError(
                    f"{name}, line {number}: a NUL byte, so this is not UTF-8 text: unpack an archive (tar) first, "
                    "and convert UTF-16, for example with iconv -f UTF-16LE -t UTF-8"
                )
            yield line.lstrip(BOM)
            begin += len(raw)
    except UnicodeDecodeError as e:
        raise InputError(
            f"{name}, line {number}: not UTF-8 text ({e.reason} at byte {begin + e.start} of the file): convert it, "
            "for example with iconv -t UTF-8, or leave it out if it is not text at all"
        ) from e
    except packed.BROKEN as e:
        raise InputError(f"{name}, after line {number}: cannot be read ({brief(e)}): is the file complete?") from e
