"""The files of a token store are what its manifest says: each is read once before its first use, and then remembered.

What was verified stands in `verified.json` beside the manifest, so that all machines that share the directory know it;
where that cannot be written (a disk that is mounted read-only), in the cache of this user. An entry holds the SHA-256,
the size and the times of the last modification and change of the file: a file that was written to is verified again,
and so is a copy of the store on another disk, since a copy may be damaged. A bit that the disk itself loses later
changes none of them: `jaxmlm doctor` and `Store.verify` read everything again.
"""

import hashlib
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmlm.data.manifest import StoreFile
from jaxmlm.directories import cache_directory
from jaxmlm.errors import InputError
from jaxmlm.json_files import read_json, write_json
from jaxmlm.logs import Log
from jaxmlm.preemption import raise_if_stop_requested

RECORD = "verified.json"
BLOCK = 1 << 22
"""Bytes that are read at a time; whole numbers of every type."""
SAID = 1 << 30
"""Bytes from which on the progress is shown: some seconds."""
MEGABYTE = 1_000_000
THREADS = 4
"""Files that are read at a time: a core hashes 300 to 2,000 MB a second, and a disk may give more."""


def verify(directory: Path, files: Sequence[StoreFile], again: bool = False) -> None:
    """Verify files of a token store that have not been verified as they are now.

    Args:
        directory: the directory of the store.
        files: what its manifest says of them.
        again: also those that have been verified.

    Raises:
        InputError: one is missing, leads out of the directory, has another size or SHA-256, or holds a number that is
            larger than it may be. The message names it.

    """
    for file in files:
        check_place(directory, file)
    record = {} if again else _remembered(directory)
    left = [file for file in files if record.get(file.name) != _state(directory / file.name, file)]
    if not left:
        return
    stop = threading.Event()
    done: list[int] = []
    verified: dict[str, list[Any]] = {}

    def one(file: StoreFile) -> None:
        state = _state(directory / file.name, file)
        verify_file(directory, file, done, stop)
        if not stop.is_set() and state == _state(directory / file.name, file):
            verified[file.name] = state

    total = sum((directory / file.name).stat().st_size for file in left)
    _say_on_other_hosts(directory, total)
    try:
        with ThreadPoolExecutor(min(THREADS, len(left), os.cpu_count() or 1)) as pool:
            work = [pool.submit(one, file) for file in left]
            try:
                _wait(work, done, directory, total)
            finally:
                stop.set()
                for future in work:
                    future.cancel()
    finally:
        _remember(directory, verified)  # also those before one that is damaged, or before a signal


def verify_file(directory: Path, file: StoreFile, done: list[int], stop: threading.Event) -> None:
    """Verify one file, or end early when `stop` is set.

    Args:
        directory: the directory of the store.
        file: what the manifest says of it.
        done: gets the bytes of each block that is read.
        stop: ends the work.

    Raises:
        InputError: it is not the file that the manifest describes.

    """
    path = directory / file.name
    digest = hashlib.sha256()
    largest = -1
    block = memoryview(bytearray(BLOCK))
    try:
        with open(path, "rb") as raw:
            while size := raw.readinto(block):
                if stop.is_set():
                    return
                digest.update(block[:size])
                if file.dtype is not None:
                    numbers = np.frombuffer(block, file.dtype, size // file.dtype.itemsize)
                    largest = max(largest, int(numbers.max(initial=0)))
                done.append(size)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {cure(directory)}") from error
    if digest.hexdigest() != file.sha256:
        raise InputError(
            f"{path} is damaged: its SHA-256 is {digest.hexdigest()[:16]}..., and the manifest says "
            f"{file.sha256[:16]}...: {cure(directory)}"
        )
    if largest > file.largest:
        raise InputError(f"{path} holds the number {largest}, and the largest may be {file.largest}: {cure(directory)}")


def check_place(directory: Path, file: StoreFile) -> None:
    """Refuse a file that is missing, leads out of the directory of its store, or has another size than it should."""
    path = directory / file.name
    try:
        inside = not path.is_symlink() or path.resolve().parent == directory.resolve()
        have = path.stat().st_size if path.is_file() else None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {cure(directory)}") from error
    if not inside:
        raise InputError(f"{path} is a link out of the token store, to {path.resolve()}: put the file in its place")
    if have is None or have != (file.size if file.size is not None else have):
        size = "missing" if have is None else f"{have:,} bytes"
        wanted = "" if file.size is None else f", expected {file.size:,} bytes"
        raise InputError(f"{path} is missing or not complete ({size}{wanted}): {cure(directory)}")


def cure(directory: Path) -> str:
    """Return what to do about a damaged file of a store."""
    if directory.is_relative_to(cache_directory()):
        return f"delete {directory}, the copy of a store in a bucket, to copy it again"
    return "delete the store and prepare it again"


def _wait(work: list[Future[None]], done: list[int], directory: Path, total: int) -> None:
    """Wait for the work, showing how far it is; the error of the first that failed is raised."""
    pending = set(work)
    if total < SAID:
        pending = wait(work, return_when=FIRST_EXCEPTION).not_done
    else:
        with Log(None, f"verify {directory.name} (MB)", total // MEGABYTE) as log:
            while pending and not any(future.done() and future.exception() for future in work):
                pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION).not_done
                raise_if_stop_requested("verified the token store")
                log.show(sum(done) // MEGABYTE, {})
    for future in work:
        if future.done():
            future.result()


def _say_on_other_hosts(directory: Path, total: int) -> None:
    if total >= SAID and jax.process_index():
        line = f"process {jax.process_index()}: verifying {total / 1e9:.1f} GB of {directory}, once"
        print(line, file=sys.stderr, flush=True)


def _state(path: Path, file: StoreFile) -> list[Any]:
    about = path.stat()
    return [file.sha256, about.st_size, about.st_mtime_ns, about.st_ctime_ns]


def _records(directory: Path) -> tuple[Path, Path]:
    name = hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:16]
    return directory / RECORD, cache_directory() / "verified" / f"{name}.json"


def _remembered(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in _records(directory):
        with suppress(InputError):  # none, or one that is damaged: then the files are read again
            found |= read_json(path)
    return found


def _remember(directory: Path, verified: dict[str, list[Any]]) -> None:
    for path in _records(directory) if verified else ():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, _remembered(directory) | verified)
            return
        except OSError:  # read-only: the next place; without any the files are read again next time
            continue
