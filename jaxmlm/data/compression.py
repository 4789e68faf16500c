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

from jaxmlm.errors import InputError, brief

BROKEN = (OSError, EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError, zipfile.BadZipFile)
"""What the libraries raise at a file that is not complete."""
_ZSTD_INPUT = 1 << 10
"""Compressed bytes that are unpacked at once: of zstd they may become 32,768 times as many."""
READ = "plain text, JSON lines, CSV, TSV (also .gz, .bz2, .xz, .zst or .zip), Parquet or Arrow"
# Packings, archives and tables that somebody may take for text; "a.tar.gz" is one by the name before its last.
_NOT_READ = frozenset(
    ".7z .rar .tar .tgz .tbz .tbz2 .txz .tzst .lz4 .lz .lzo .br .z .sz .snappy .cab .zpaq "
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
    ".arrow": rb"ARROW1\x00\x00",
}
PARQUET = (".parquet", ".pq")
COLUMNAR = (*PARQUET, ".arrow", ".arrows", ".feather", ".ipc")
"""Endings of the tables that are packed themselves, column by column, and that are read from anywhere within."""


def unpacked_ending(path: Any) -> str:
    """The ending of a name without that of a packing, in small letters: which kind of text is in it.

    Args:
        path: a path; anything with its `suffix` and `stem`.

    >>> unpacked_ending(Path("Wiki.csv.GZ")), unpacked_ending(Path("wiki.parquet"))
    ('.csv', '.parquet')
    """
    ending = path.suffix.lower()
    return PurePosixPath(path.stem).suffix.lower() if ending in (*_OPENED, ".zip") else ending


def check_name(path: Any) -> None:
    """Check by the name of a file that it is of a kind that is read here.

    Raises:
        InputError: it is not.

    """
    ending = path.suffix.lower()
    inner = unpacked_ending(path)
    if ending in _NOT_READ or inner == ".tar":
        unread = path.suffix if ending in _NOT_READ else "".join(path.suffixes[-2:])
        raise InputError(f"{path}: {unread} files are not read: unpack or convert it to {READ}")
    if inner in COLUMNAR and inner != ending:
        raise InputError(f"{path}: {inner} files are packed within, so they are read unpacked only: unpack it")


def check(path: Path) -> None:
    """Check by its name and its first bytes that a file is of the kind that its name says, and one that is read here.

    Raises:
        InputError: it is not.

    """
    check_name(path)
    ending = path.suffix.lower()
    if ending in (*_OPENED, *COLUMNAR):
        return
    with open(path, "rb") as file:
        if ending == ".zip":
            _members(file, path)
            return
        first = file.read(16)
    if found := [name for name, pattern in _FIRST_BYTES.items() if re.match(pattern, first)]:
        read = found[0] in (*_OPENED, ".zip", *COLUMNAR)
        cure = f"name it {path.name}{found[0]}" if read else f"convert it to {READ}"
        raise InputError(f"{path} is a {found[0]} file that is not named so: {cure}")


def streams(file: io.BufferedIOBase, path: Any) -> Iterator[tuple[str, str, Any]]:
    """Unpack an open file as it is read: whatever it expands to, some megabytes of it are in memory.

    Args:
        file: the open file.
        path: its name, which tells how it is packed.

    Yields:
        The name that messages call a text by, the ending that says its kind, and its binary stream; several only of a
        .zip.

    Raises:
        InputError: a .zip is damaged, or holds no text.

    """
    ending = path.suffix.lower()
    if ending != ".zip":
        yield str(path), unpacked_ending(path), _OPENED[ending](file) if ending in _OPENED else file
        return
    archive, members = _members(file, path)
    for member in members:
        name = str(path) if len(members) == 1 else f"{path} ({_shown(member)})"
        yield name, PurePosixPath(member.filename).suffix.lower(), archive.open(member)


def _members(file: Any, path: Any) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    """The archive and its text files, in order; without directories and what macOS and editors put beside the files."""
    where = str(path)
    try:
        archive = zipfile.ZipFile(file)
        members = [member for member in archive.infolist() if not member.is_dir() and not _hidden(member)]
        for member in members:
            where = f"{path}, {_shown(member)}"
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                # The library unpacks other methods without a limit: some kilobytes of bzip2 may become gigabytes.
                raise NotImplementedError(f"its compression method {member.compress_type} is not deflate")
            archive.open(member).close()
    except Exception as error:  # a wanted password, names that are not UTF-8, ...: they have no common base
        raise InputError(f"{where}: cannot be read ({brief(error)}): unpack it, if the file is complete") from error
    for member in members:
        kind = PurePosixPath(member.filename).suffix.lower()
        if kind in (*_OPENED, ".zip", *COLUMNAR) or kind in _NOT_READ:
            raise InputError(f"{path} holds {_shown(member)}, which is packed itself: unpack {path.name}")
    if not members:
        raise InputError(f"{path} holds no file: give one that holds text")
    return archive, members


def _shown(member: zipfile.ZipInfo) -> str:
    """The name of a file in an archive, which may be anything, as a part of one line."""
    return "".join(char if char.isprintable() else "\ufffd" for char in member.filename[:200])


def _hidden(member: zipfile.ZipInfo) -> bool:
    return any(part == "__MACOSX" or part.startswith(".") for part in PurePosixPath(member.filename).parts)


class _Zstd(io.RawIOBase):
    """A .zst file of any number of frames. zstandard's own reader takes a file that was cut off for a whole one."""

    def __init__(self, file: io.BufferedIOBase):
        self._file = file
        self._frame: Any = None
        self._packed = b""  # read, and not unpacked yet
        self._text = memoryview(b"")  # unpacked, and not given yet

    def readable(self) -> bool:
        return True

    def readinto(self, out) -> int:
        while not self._text:
            packed = self._packed or self._file.read(_ZSTD_INPUT)
            if not packed:
                if self._frame:
                    raise EOFError("the file ends within a frame")
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
            self._text = memoryview(self._frame.decompress(packed))
            self._packed = b""
            if self._frame.eof:
                self._packed = self._frame.unused_data
                self._frame = None
        size = min(len(out), len(self._text))
        out[:size] = self._text[:size]
        self._text = self._text[size:]
        return size


_OPENED: dict[str, Callable[[Any], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".lzma": lzma.open,
    ".zst": lambda file: io.BufferedReader(_Zstd(file)),
}
