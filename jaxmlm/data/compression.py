"""Text out of packed files, as streams: what is read, and what is refused by its name or its first bytes."""

import bz2
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import zstandard

from jaxmlm.errors import InputError

BROKEN = (OSError, EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError, zipfile.BadZipFile, NotImplementedError)
"""What the libraries raise at a file that is not whole, or packed in a way that they do not know."""
READ = "plain text, .gz, .bz2, .xz, .zst or .zip"
# Packings, archives and tables that somebody may take for text; "a.tar.gz" is one by the name before its last.
_NOT_READ = frozenset(
    ".7z .rar .tar .tgz .tbz .tbz2 .txz .tzst .lz4 .lz .lzo .br .z .sz .snappy .cab .zpaq .parquet .arrow .feather "
    ".pdf .docx .xlsx .pptx .odt .epub".split()
)
_FIRST_BYTES = {
    ".gz": rb"\x1f\x8b",
    ".bz2": rb"BZh[1-9](1AY&SY|\x17rE8P\x90)",
    ".xz": rb"\xfd7zXZ\x00",
    ".zst": rb"\x28\xb5\x2f\xfd",
    ".zip": rb"PK\x03\x04",
    ".7z": rb"7z\xbc\xaf\x27\x1c",
    ".rar": rb"Rar!\x1a\x07",
    ".lz4": rb"\x04\x22M\x18",
    ".lz": rb"LZIP[\x00\x01]",
    ".Z": rb"\x1f\x9d",
    ".parquet": rb"PAR1[\x00-\x1f]",
}


def check(path: Path) -> None:
    """Refuse a file that is packed in a way that is not read here, or in one that its name does not tell."""
    kind = path.suffix.lower()
    if kind in _NOT_READ or kind in (*_OPENED, ".zip") and Path(path.stem).suffix.lower() == ".tar":
        raise InputError(f"{path}: {_unread(path)} files are not read: unpack or convert it to {READ}")
    if kind in _OPENED:
        return
    with open(path, "rb") as file:
        if kind == ".zip":
            _members(file, path)
            return
        first = file.read(16)
    if found := [name for name, pattern in _FIRST_BYTES.items() if re.match(pattern, first)]:
        cure = f"name it {path.name}{found[0]}" if found[0] in (*_OPENED, ".zip") else f"convert it to {READ}"
        raise InputError(f"{path} is a {found[0]} file that is not named so: {cure}")


def streams(file: io.BufferedIOBase, path: Path) -> Iterator[tuple[str, Any]]:
    """The unpacked texts of an open file, each with the name that messages call it by; several only in a .zip."""
    kind = path.suffix.lower()
    if kind != ".zip":
        yield str(path), _OPENED[kind](file) if kind in _OPENED else file
        return
    archive, members = _members(file, path)
    for member in members:
        name = str(path) if len(members) == 1 else f"{path} ({member.filename})"
        yield name, archive.open(member)


def _members(file: Any, path: Path) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    """The archive and its text files, in order; without folders and what macOS and editors put beside the files."""
    where = str(path)
    try:
        archive = zipfile.ZipFile(file)
        members = [member for member in archive.infolist() if not member.is_dir() and not _hidden(member)]
        for member in members:
            where = f"{path}, {member.filename}"
            archive.open(member).close()
    except (*BROKEN, RuntimeError) as error:  # as the library says that a password is wanted
        raise InputError(f"{where}: cannot be read ({error}): unpack it, if the file is whole") from error
    for member in members:
        kind = PurePosixPath(member.filename).suffix.lower()
        if kind in (*_OPENED, ".zip") or kind in _NOT_READ:
            raise InputError(f"{path} holds {member.filename}, which is packed itself: unpack {path.name}")
    if not members:
        raise InputError(f"{path} holds no file: give one that holds text")
    return archive, members


def _hidden(member: zipfile.ZipInfo) -> bool:
    return any(part == "__MACOSX" or part.startswith(".") for part in PurePosixPath(member.filename).parts)


def _unread(path: Path) -> str:
    return path.suffix if path.suffix.lower() in _NOT_READ else "".join(path.suffixes[-2:])


class _Zstd(io.RawIOBase):
    """A .zst file of any number of frames. zstandard's own reader takes a file that was cut off for a whole one."""

    def __init__(self, file: io.BufferedIOBase):
        self._file, self._frame, self._rest, self._text = file, None, b"", b""

    def readable(self) -> bool:
        return True

    def readinto(self, out) -> int:
        while not self._text:
            packed = self._rest or self._file.read(1 << 16)
            if not packed:
                if self._frame:
                    raise EOFError("the file ends within a frame")
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
            self._text, self._rest = self._frame.decompress(packed), b""
            if self._frame.eof:
                self._rest, self._frame = self._frame.unused_data, None
        size = min(len(out), len(self._text))
        out[:size], self._text = self._text[:size], self._text[size:]
        return size


_OPENED: dict[str, Callable[[Any], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".lzma": lzma.open,
    ".zst": lambda file: io.BufferedReader(_Zstd(file)),
}
