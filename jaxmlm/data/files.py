"""The files that a text names: on this machine or on any file system of fsspec, where they are read as streams."""

import glob
import hashlib
import io
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from jaxmlm.data import compression as packed
from jaxmlm.data import remote as cloud
from jaxmlm.data.separated import DELIMITERS
from jaxmlm.directories import expanded, files_below
from jaxmlm.errors import InputError, brief

BLOCK = 1 << 20
"""Bytes of a remote file that are asked for at once; most file systems fetch more, ahead."""
TRIES = 3
"""How often a read is tried, a second or more apart, where the connection drops."""
JSON_LINES = (".jsonl", ".ndjson")
ENDINGS = (".txt", ".text", *JSON_LINES, *DELIMITERS, *packed.COLUMNAR)
"""Endings of the files that are taken from a directory, with or without that of a packing behind."""
_LEFT_OUT = (".", "_")
"""How the names of files and directories begin that are not taken from a directory."""
# What file systems say of a file that another content has otherwise.
_CONTENT_FIELDS = (
    *("ETag", "etag", "blob_id", "xet_hash", "md5Hash", "Content-MD5", "content_md5", "Digest", "generation", "mtime"),
    *("updated", "LastModified", "last_modified", "Last-Modified", "created"),
)


class Stat(NamedTuple):
    """What is known of a file without reading it; as `os.stat_result` names it."""

    st_size: int
    version: str


class RemoteFile:
    """A file on a file system of fsspec, with what a `Path` has: name, suffix, stat and open.

    Args:
        fs: the file system.
        path: its path there.

    """

    def __init__(self, fs: Any, path: str):
        self._fs = fs
        self._path = path
        self.url = str(fs.unstrip_protocol(path))
        pure = PurePosixPath(path.partition("?")[0] if "http" in str(fs.protocol) else path)
        self.name = pure.name
        self.stem = pure.stem
        self.suffix = pure.suffix
        self.suffixes = pure.suffixes

    def __str__(self) -> str:
        """Its URL."""
        return self.url

    def stat(self) -> Stat:
        """Ask for its size (0 if the server does not say) and for what changes with its content."""
        with _reaching(self.url):
            self._fs.invalidate_cache()
            about = self._fs.info(self._path)
        known = {key: str(about[key]) for key in _CONTENT_FIELDS if about.get(key) is not None}
        version = json.dumps([about.get("size"), known], sort_keys=True)
        return Stat(about.get("size") or 0, hashlib.sha256(version.encode()).hexdigest()[:16])

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """Open it as a stream of bytes, which nothing is copied to a disk for."""
        with _reaching(self.url):
            return io.BufferedReader(_Stream(lambda: self._fs.open(self._path, mode)), BLOCK)


File = Path | RemoteFile


class _Stream(io.RawIOBase):
    """A remote file; what goes wrong there is an OSError, after the read was tried again."""

    def __init__(self, opener: Callable[[], Any]):
        self._opener = opener
        self._file: Any = opener()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except ValueError as error:
            raise io.UnsupportedOperation(f"the server does not send parts of a file ({brief(error)})") from error

    def readinto(self, out: Any) -> int:
        at = self._file.tell()
        for attempt in itertools.count(1):
            try:
                if self._file is None:
                    self._file = self._opener()
                    self._file.seek(at)
                found = self._file.read(len(out))
                out[: len(found)] = found
                return len(found)
            except Exception as error:
                if attempt == TRIES:
                    raise OSError(_cause(error)) from error
            self._file = None
            time.sleep(attempt)
        raise AssertionError

    def close(self) -> None:
        if not self.closed and self._file is not None:
            self._file.close()
        super().close()


def files(text: str) -> list[File]:
    """The files that a path, glob, directory or URL names (several are separated by commas).

    Of a directory the files whose names end in one of `ENDINGS`, in it or below; of a directory that the `datasets`
    library has saved its Arrow files. Sorted within a pattern.

    Raises:
        InputError: there is none, one is empty, or one is of a kind that is not read.

    """
    found: list[File] = []
    for pattern in named_texts(text):
        some = _remote(pattern) if cloud.remote(pattern) else _on_disk(pattern)
        if not some:
            raise InputError(f"no text file at {pattern!r}: give the path or glob of {packed.READ}")
        for file in some:
            if isinstance(file, Path):
                if file.stat().st_size == 0:
                    raise InputError(f"{file} is empty: give a file with text in it")
                packed.check(file)
            else:  # its first bytes are looked at when it is read
                packed.check_name(file)
        found += some
    return found


def named_texts(text: str) -> list[str]:
    """The texts that are separated by commas; of one path that is there, perhaps with commas in it, itself.

    >>> named_texts("a.txt, sample:200")
    ['a.txt', 'sample:200']
    """
    # os.path.exists, since Path.exists refuses what is too long for a path, as a list of files may be.
    if "," in text and not cloud.remote(text) and os.path.exists(expanded(text)):
        return [text]
    return [one.strip() for one in text.split(",")]


def _on_disk(pattern: str) -> list[File]:
    if not pattern:
        return []
    name = str(expanded(pattern))
    if Path(name).is_dir():
        below = _sorted(path.relative_to(name).as_posix() for path in files_below(Path(name), _LEFT_OUT))
        return [Path(name) / path for path in _of_directory(name, below, lambda path: (Path(name) / path).read_bytes())]
    names = [name] if Path(name).is_file() else _sorted(glob.glob(name, recursive=True))
    return [Path(name) for name in names if Path(name).is_file()]


def _remote(pattern: str) -> list[File]:
    with _reaching(pattern):
        fs, path = cloud.file_system(pattern)
        if not any(char in path for char in "*["):
            about = fs.info(path)
            if about["type"] != "directory":
                return [RemoteFile(fs, path)]
            root = path.rstrip("/")
            below = _sorted(name.removeprefix(root).lstrip("/") for name in fs.find(root))
            chosen = _of_directory(pattern, below, lambda name: fs.cat_file(f"{root}/{name}"))
            return [RemoteFile(fs, f"{root}/{name}") for name in chosen]
        found = fs.glob(path, detail=True)
        return [RemoteFile(fs, name) for name in _sorted(found) if found[name]["type"] == "file"]


def _sorted(paths: Iterable[str]) -> list[str]:
    """Paths in one order, on a disk and elsewhere: a directory stands as a whole, at the place of its name.

    >>> _sorted(["part-2/x", "part/x"])
    ['part/x', 'part-2/x']
    """
    return sorted(paths, key=lambda path: path.split("/"))


def _of_directory(directory: str, names: list[str], read: Callable[[str], bytes]) -> list[str]:
    """Which files of a directory are read."""
    if "dataset_dict.json" in names:
        try:
            splits = ", ".join(json.loads(read("dataset_dict.json"))["splits"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{directory}/dataset_dict.json does not name splits ({brief(error)})") from error
        raise InputError(f"{directory} holds several splits ({splits}): name one, as {directory.rstrip('/')}/train")
    if "state.json" in names:
        return _saved_dataset(directory, names, read)
    visible = [name for name in names if not any(part.startswith(_LEFT_OUT) for part in name.split("/"))]
    chosen = [name for name in visible if packed.unpacked_ending(PurePosixPath(name)) in ENDINGS]
    if visible and not chosen:
        raise InputError(
            f"no text file at {directory!r}: of a directory those that end in {', '.join(ENDINGS)} are read (packed "
            f"too), and it has {', '.join(visible[:5])}: give a glob"
        )
    return chosen


def _saved_dataset(directory: str, names: list[str], read: Callable[[str], bytes]) -> list[str]:
    """The files of a directory that the `datasets` library has saved, in the order of their rows."""
    try:
        state = json.loads(read("state.json"))
        chosen = [str(entry["filename"]) for entry in state["_data_files"]]
        reordered = state.get("_indices_data_files")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{directory}/state.json is not that of a saved dataset ({brief(error)})") from error
    if reordered:
        raise InputError(f"{directory} keeps its rows in another order than its files: save it again by save_to_disk")
    if missing := [name for name in chosen if name not in names]:
        raise InputError(f"{directory}: {missing[0][:200]!r} is missing, which state.json names: is it complete?")
    return chosen


def version(file: File) -> tuple[int, str]:
    """The size of a file in bytes (0 if nobody knows), and what changes when somebody writes to it."""
    about = file.stat()
    if isinstance(about, Stat):
        return about.st_size, about.version
    return about.st_size, f"{about.st_ino} {about.st_mtime_ns}"


def check_unchanged(file: File, before: tuple[int, str]) -> None:
    """Refuse a file that was written to since `version` gave `before`."""
    if version(file) != before:
        raise InputError(
            f"{file} has changed while it was read: let nothing write to it, and run the same command again, which "
            "begins anew"
        )


def fingerprint(file: File, before: tuple[int, str]) -> dict[str, Any]:
    """What the manifest of a store says of a file: its name, size and SHA-256.

    Of a remote file, which is not read for it, what its file system says of its content.
    """
    proof = {"sha256": sha256(file)} if isinstance(file, Path) else {"version": before[1]}
    return {"file": file.name, "bytes": before[0], **proof}


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """What goes wrong with a remote file becomes one line."""
    try:
        yield
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"{url}: {brief(error)}: {cloud.to_install(url)}") from error
    except Exception as error:  # of aiohttp, gcsfs, botocore, ...: they have no common base
        raise InputError(
            f"{url} cannot be read ({_cause(error)}): look at its name, at the network and at this account's rights, "
            "or download it and name the file"
        ) from error


def _cause(error: BaseException) -> str:
    """What an exception says, and the one that it came from where file systems hide that."""
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    name = type(first).__name__
    return f"{name}: {brief(first)}" if str(first) else name
