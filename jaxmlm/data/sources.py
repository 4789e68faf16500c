"""Documents out of text files, and several texts mixed into one."""

import glob
import gzip
import hashlib
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import zstandard

from jaxmlm.errors import InputError

Layout = Literal["blank-line", "line", "file", "jsonl"]
Item = TypeVar("Item")


class Source(NamedTuple):
    """A text: how its documents are read, each time the same ones, and what the manifest of a store says of it."""

    documents: Callable[[], Iterator[str]]
    about: list[dict[str, Any]]


def mixed(streams: Sequence[Iterator[Item]], weights: Sequence[float], size: Callable[[Item], int]) -> Iterator[Item]:
    """Items of several streams in turn, so that the sizes taken from them keep to the weights all the way.

    The next item is of the stream that is furthest behind its weight; when that one has ended, so has the mix. Each
    share of the whole is off by less than the largest item.

    >>> "".join(mixed([iter("aaaa"), iter("bbbb")], [3.0, 1.0], len))
    'abaaab'
    """
    taken = [0] * len(streams)
    while True:
        due = min(range(len(streams)), key=lambda i: taken[i] / weights[i])
        try:
            item = next(streams[due])
        except StopIteration:
            return
        taken[due] += size(item)
        yield item


def files(text: str) -> list[Path]:
    """The files that a path or glob names (several patterns are separated by commas), sorted within a pattern."""
    found: list[Path] = []
    for pattern in text.split(","):
        name = str(Path(pattern.strip()).expanduser())
        names = [name] if Path(name).is_file() else sorted(glob.glob(name, recursive=True))
        paths = [Path(name) for name in names if Path(name).is_file()]
        if not paths:
            raise InputError(f"no text file at {pattern!r}: give the path or glob of a plain, .gz, .xz or .zst file")
        if empty := [path for path in paths if path.stat().st_size == 0]:
            raise InputError(f"{empty[0]} is empty: give a file with text in it")
        found += paths
    return found


def fingerprint(paths: list[Path]) -> list[dict]:
    """Name, size and SHA-256 of each file, for the manifest of a store."""
    return [{"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)} for path in paths]


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def documents(paths: list[Path], layout: Layout = "blank-line", field: str = "text") -> Iterator[str]:
    """The documents of these files, in order.

    `blank-line`: documents are separated by blank lines; `line`: each line is one; `file`: each file is one;
    `jsonl`: each line is a JSON object whose `field` is one.
    A byte-order mark and carriage returns are dropped; bytes that are not UTF-8 are an error that says where.
    """
    for path in paths:
        pending: list[str] = []
        for number, line in enumerate(_lines(path), 1):
            if layout == "jsonl":
                if line:
                    yield _of_json(line, field, f"{path}, line {number}")
            elif layout == "line":
                if line:
                    yield line
            elif line or layout == "file":
                pending.append(line)
            elif pending:
                yield "\n".join(pending)
                pending = []
        if any(pending):
            yield "\n".join(pending)


def _of_json(line: str, field: str, where: str) -> str:
    try:
        found = json.loads(line)
    except ValueError as e:
        raise InputError(f"{where}: not JSON ({e}): a .jsonl file has one object a line") from e
    if not isinstance(found, dict):
        raise InputError(f"{where}: a JSON {type(found).__name__}, not an object: a .jsonl file has one object a line")
    if not isinstance(found.get(field), str):
        texts = ", ".join(key for key, value in found.items() if isinstance(value, str)) or "none"
        raise InputError(f"{where}: no text field {field!r}; there are {texts}: name one as --data.field")
    return found[field]


def _lines(path: Path) -> Iterator[str]:
    number = begin = 0
    try:
        with _open(path) as f:
            for raw in f:
                number += 1
                yield raw.decode("utf-8").lstrip("\ufeff").strip()
                begin += len(raw)
    except UnicodeDecodeError as e:
        raise InputError(
            f"{path}, line {number}: not UTF-8 text ({e.reason} at byte {begin + e.start} of the file): convert it, "
            "for example with iconv -t UTF-8, or leave it out if it is no text at all"
        ) from e
    except (OSError, EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError) as e:
        raise InputError(f"{path}, after line {number}: cannot be read ({e}): is the file whole?") from e


def _open(path: Path) -> io.BufferedIOBase:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if path.suffix == ".xz":
        return lzma.open(path, "rb")  # type: ignore[return-value]
    if path.suffix == ".zst":
        return io.BufferedReader(_Zstd(path))
    return open(path, "rb")


class _Zstd(io.RawIOBase):
    """A .zst file of any number of frames. zstandard's own reader takes a file that was cut off for a whole one."""

    def __init__(self, path: Path):
        self._file, self._frame, self._rest, self._text = open(path, "rb"), None, b"", b""

    def readable(self) -> bool:
        return True

    def readinto(self, out) -> int:
        while not self._text:
            packed = self._rest or self._file.read(1 << 16)
            if not packed:
                if self._frame:
                    raise EOFError("the file ends within a frame")
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            self._text, self._rest = self._frame.decompress(packed), b""
            if self._frame.eof:
                self._rest, self._frame = self._frame.unused_data, None
        size = min(len(out), len(self._text))
        out[:size], self._text = self._text[:size], self._text[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()
