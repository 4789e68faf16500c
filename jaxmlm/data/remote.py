"""Stores in a bucket (gs://...): what is read and written is a copy on this machine's disk.

A memory-mapped store needs a disk. Copies lie under $JAXMLM_CACHE, by default ~/.cache/jaxmlm.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from jaxmlm.directories import cache_directory
from jaxmlm.errors import InputError, brief
from jaxmlm.json_files import ASIDE, replacing
from jaxmlm.wording import install_command

_EXTRAS = {"gs": "gcp", "gcs": "gcp", "s3": "s3", "http": "http", "https": "http", "hf": "hf"}
"""Which extra brings the file system of a protocol."""


def remote(name: str | Path | None) -> bool:
    """Is this in a bucket, and not on a disk?

    >>> remote("gs://mine/store"), remote("runs/store")
    (True, False)
    """
    return "://" in str(name)


def copy_of(url: str) -> Path:
    """Where on this disk the copy of a directory in a bucket lies.

    >>> copy_of("gs://mine/wiki/").name
    'wiki'
    """
    return _cache(url.rstrip("/")) / PurePosixPath(url).name


def holds(url: str, name: str) -> bool:
    """Whether a directory in a bucket has this file."""
    with _opened(url) as (fs, root):
        return fs.isfile(f"{root}/{name}")


def pull(url: str, directory: Path, last: str, only: tuple[str, ...] = ()) -> bool:
    """Copy the files of a bucket's directory, or `only` these of them, that `directory` has not in the same size.

    `last` says what is in the others: without it in the bucket nothing is copied, and False returned; when it is
    another than here, nothing that is here is kept; it is copied after the others.
    """
    with _opened(url) as (fs, root):
        if not fs.isfile(f"{root}/{last}"):
            return False
        directory.mkdir(parents=True, exist_ok=True)
        if (directory / last).is_file() and fs.cat_file(f"{root}/{last}") != (directory / last).read_bytes():
            for path in directory.iterdir():
                if path.is_file() and path.suffix != ASIDE:  # which another process may be writing
                    path.unlink(missing_ok=True)
        found = {PurePosixPath(about["name"]).name: about for about in fs.ls(root, detail=True)}
        names = [name for name, about in found.items() if about["type"] == "file" and (not only or name in only)]
        for name in sorted(names, key=lambda name: name == last):
            _fetch(fs, found[name], directory / name)
    return True


def push(directory: Path, url: str, last: str, aside: tuple[str, ...] = ()) -> None:
    """Copy the files of a directory into a bucket, `last` after the others, without those `aside`."""
    with _opened(url) as (fs, root):
        for path in sorted(directory.iterdir(), key=lambda path: path.name == last):
            if path.is_file() and path.name not in aside:
                fs.put_file(str(path), f"{root}/{path.name}")


def remove(url: str) -> None:
    """Delete a directory of a bucket."""
    with _opened(url) as (fs, root):
        fs.rm(root, recursive=True)


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it; whatever fsspec raises where it cannot be used."""
    fs, path = fsspec.url_to_fs(url)
    fs.invalidate_cache()  # other machines write there too
    return fs, path


def to_install(url: str) -> str:
    """How to install what the URLs of a protocol need.

    >>> to_install("abfs://mine/a.txt")
    'install the package that fsspec names for it'
    """
    extra = _EXTRAS.get(url.partition("://")[0])
    return install_command(extra) if extra else "install the package that fsspec names for it"


def _cache(what: str) -> Path:
    return cache_directory() / "bucket" / hashlib.sha256(what.encode()).hexdigest()[:16]


def _fetch(fs: Any, about: dict[str, Any], path: Path) -> None:
    if path.is_file() and path.stat().st_size == about["size"]:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as aside:
        fs.get_file(about["name"], str(aside))


@contextmanager
def _opened(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of a URL, and the path in it; what goes wrong there becomes one line."""
    try:
        fs, root = file_system(url)
        yield fs, root.rstrip("/")
    except ImportError as error:
        raise InputError(f"{url}: {error}: {to_install(url)}") from error
    except InputError:
        raise
    except Exception as error:  # of gcsfs, google-auth and aiohttp, which have no common base
        why = brief(error)
        raise InputError(
            f"{url} cannot be used ({why}): look at its name and at this account's rights, with "
            f"jaxmlm doctor --bucket {'/'.join(url.split('/')[:3])}"
        ) from error
