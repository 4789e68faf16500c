"""Text files as users have them: UTF-8 with or without a byte-order mark, lines that end as on any system."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxmlm.errors import InputError

BLOCK = 1 << 16
BOM = "\ufeff"
"""The byte-order mark, with which editors of Windows begin a file. Files joined end to end have it within."""
# A program of Windows that writes \r\n as text makes \r\r\n of it, which is the end of one line.
_LINE = re.compile(rb"[^\r\n]*(?:\r{0,2}\n|\r)")
_END = re.compile("\r{1,2}\n|\r")


def lines(stream: io.BufferedIOBase, most: int) -> Iterator[bytes]:
    r"""The lines of a binary stream, each with its end: \n, \r\n or \r.

    A line of more than `most` bytes is not read to its end: its beginning, which is longer than that, comes last.

    >>> import io
    >>> list(lines(io.BytesIO(b"one\rtwo\r\n\nthree"), 100))
    [b'one\r', b'two\r\n', b'\n', b'three']
    """
    begun: list[bytes] = []
    size, held = 0, b""
    while block := stream.read(BLOCK):
        block = held + block
        held = block[-2:] if block.endswith(b"\r\r") else block[-1:] if block.endswith(b"\r") else b""  # \n may follow
        block = block[: len(block) - len(held)]
        end = max(block.rfind(b"\n"), block.rfind(b"\r")) + 1
        if found := _LINE.findall(block[:end]):
            found[0] = b"".join([*begun, found[0]])
            yield from found
            begun, size = [], 0
        begun.append(block[end:])
        size += len(block) - end
        if size > most:
            yield b"".join(begun)
            return
    yield from b"".join([*begun, held]).splitlines(keepends=True)


def read_text(path: Path) -> str:
    r"""The text of a small file, without byte-order marks, each line ended by \n; InputError if it is not UTF-8."""
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): convert it, for example with "
            "iconv -t UTF-8"
        ) from error
    if "\0" in text:
        raise InputError(
            f"{path} is not UTF-8 text (a NUL byte): convert it, for example with iconv -f UTF-16LE -t UTF-8"
        )
    return "\n".join(line.lstrip(BOM) for line in _END.sub("\n", text).split("\n"))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; InputError if it holds none."""
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not JSON ({error}): is the file complete?") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds a JSON {type(found).__name__}, not an object")
    return found
