"""Text files as users have them: UTF-8 with or without a byte-order mark, lines that end as on any system."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

from jaxmlm.errors import InputError

BLOCK = 1 << 16
MOST = 1 << 28
"""Bytes of the largest file that is read at once; the tokenizer.json of a million tokens has a quarter of that."""
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
    size = 0
    held = b""
    while block := stream.read(BLOCK):
        block = held + block
        held = block[-2:] if block.endswith(b"\r\r") else block[-1:] if block.endswith(b"\r") else b""  # \n may follow
        block = block[: len(block) - len(held)]
        end = max(block.rfind(b"\n"), block.rfind(b"\r")) + 1
        if found := _LINE.findall(block[:end]):
            found[0] = b"".join([*begun, found[0]])
            yield from found
            begun = []
            size = 0
        begun.append(block[end:])
        size += len(block) - end
        if size > most:
            yield b"".join(begun)
            return
    yield from b"".join([*begun, held]).splitlines(keepends=True)


def read_bytes(path: Path, what: str = "a text file", most: int = MOST) -> bytes:
    """Read a small file at once.

    Args:
        path: the file.
        what: what it should be, for messages.
        most: size in bytes of the largest that is read.

    Raises:
        InputError: it is missing, is not a file (but a directory, pipe or device), cannot be read, or is too large.

    """
    try:
        if not path.is_file():
            why = "is not a file" if path.exists() else "is missing"
        elif path.stat().st_size > most:
            why = f"has more than {most >> 20:,} MiB"
        else:
            return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        why = f"cannot be read ({getattr(error, 'strerror', None) or error})"
    raise InputError(f"{path} {why}: expected {what}")


def read_text(path: Path) -> str:
    r"""The text of a small file, without byte-order marks, each line ended by \n; InputError if it is not UTF-8."""
    raw = read_bytes(path)
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
