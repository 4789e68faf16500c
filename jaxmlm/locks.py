"""One command at a time in a directory: the one that works there holds a lock file, which the next one finds.

No single proof that the holder lives is good everywhere, so there are two:

* `flock`: the kernel drops it with the process, also after `kill -9`. It binds all processes of a machine, on any file
  system; other machines only where the file system carries locks (NFS does, gcsfuse and some Lustre mounts do not).
* a heartbeat: the holder rewrites the file every `BEAT` seconds. A process of another machine whose file does not
  change for `PATIENCE` seconds is dead. No two clocks are compared, and caches of attributes (NFS, gcsfuse: up to 60
  seconds) are shorter than that.

Where locks do not reach other machines, two commands that start there in the same second both get the directory. The
one whose name was overwritten finds that out at its next beat, and stops as after SIGTERM.
"""

import errno
import fcntl
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from jaxmlm import preemption
from jaxmlm.errors import InputError
from jaxmlm.json_files import is_alive
from jaxmlm.os_errors import explain

LOCK = ".lock"
BEAT = 10.0
"""Seconds between two heartbeats."""
PATIENCE = 90.0
"""Seconds without a heartbeat after which a process of another machine counts as dead."""
LONG_AGO = 600.0
"""Age of the last heartbeat, in seconds, above which nobody waits: clocks differ by less."""
_SIZE = 1024  # bytes of a lock file: it is rewritten in place, and never torn in two


class Holder(NamedTuple):
    """What a lock file says of the process that holds it.

    Attributes:
        what: what the directory is.
        host: name of its machine.
        process: number of the process.
        since: when it began, in words.
        machine: the kernel and the mount, within which `flock` is the proof.
        beat: a number that grows with every heartbeat.

    """

    what: str
    host: str
    process: int
    since: str
    machine: str
    beat: int


_held: dict[Path, int] = {}  # lock files of this process -> the thread that holds it
_descriptors: set[int] = set()


@contextmanager
def claim(directory: Path, what: str, beside: bool = False) -> Iterator[None]:
    """Hold a directory while the body runs; refuse one that a living process holds.

    What a dead process left is taken over. The same thread may claim what it holds already. A directory that is not
    there is made, and removed afterwards if it is still empty. For one process: of several hosts let one of them claim
    (see `runs.workdir.claim_workdir`).

    Args:
        directory: the directory.
        what: what it is, for the message of the command that is refused: run, study, token store, fine-tuning.
        beside: the lock file stands next to the directory, which may be absent, or be replaced meanwhile.

    Raises:
        InputError: it is in use, or its lock file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory, claim(Path(directory), "run"):
    ...     os.listdir(directory)
    ['.lock']
    """
    place = Path(os.path.realpath(directory))  # which refuses no path: what is wrong with one shows when it is made
    path = place.with_name(f".{place.name}{LOCK}") if beside else place / LOCK
    if _held.get(path) == threading.get_ident():
        yield
        return
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _take(path, directory)
        holder = _this_process(what, descriptor)
        _write(path, holder, os.O_TRUNC)
    except OSError as error:
        for parent in made:
            with suppress(OSError):
                parent.rmdir()
        raise InputError(explain(error) or f"{directory} cannot be used ({error})") from error
    ended = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, directory, holder, ended), daemon=True)
    _held[path] = threading.get_ident()
    _descriptors.add(descriptor)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()
        # Before the file goes: from then on another thread may hold the directory.
        del _held[path]
        _descriptors.discard(descriptor)
        with suppress(OSError):
            if _is_same(_read(path), holder):
                path.unlink()
        os.close(descriptor)
        for parent in made:
            with suppress(OSError):  # not empty, as it should be
                parent.rmdir()


def _take(path: Path, directory: Path) -> int:
    """Open and lock the file of a directory that no living process holds."""
    begun = time.monotonic()
    first = _read(path)
    told = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        locked = _flock(descriptor)
        if locked and not _is_at(descriptor, path):  # its holder removed the file just now
            os.close(descriptor)
            continue
        holder = _read(path)
        waited = time.monotonic() - begun
        lives = _lives(holder, first, locked, waited, _age(descriptor), _machine(descriptor))
        if lives is False:
            return descriptor
        os.close(descriptor)
        if lives:
            raise InputError(_refusal(directory, path, holder))
        if holder is not None and not told:
            told = True
            print(
                f"jaxmlm: {directory} was in use on {holder.host}: waiting up to {PATIENCE:.0f} s for a sign of "
                "life of that process",
                file=sys.stderr,
                flush=True,
            )
        preemption.raise_if_stop_requested(f"waited for {directory}")
        time.sleep(min(1.0, PATIENCE / 10) if holder else 0.05)


def _lives(
    holder: Holder | None,
    first: Holder | None,
    locked: bool | None,
    waited: float,
    age: float,
    machine: str,
) -> bool | None:
    """Whether the process that is named in a lock file lives.

    Args:
        holder: what the file says now; None: nothing, or no sense.
        first: what it said at first.
        locked: whether this process has the lock now; None: the file system has no locks.
        waited: seconds since it was read first.
        age: seconds since it was written last.
        machine: this machine.

    Returns:
        None if that is not known yet.

    """
    if holder is None:
        if locked is not False:
            return False
        return True if waited > 2 else None  # who has locked it is about to write its name
    if holder.machine == machine:
        return is_alive(holder.process) if locked is None else not locked
    if holder.beat != (first or holder).beat:
        return True
    if waited < PATIENCE and age < LONG_AGO:
        return None
    return locked is False


def _refusal(directory: Path, path: Path, holder: Holder | None) -> str:
    if holder is None:
        return f"{directory} is in use by another process, which holds {path}: wait for it, or name another directory"
    return (
        f"{directory} is in use: process {holder.process} on {holder.host} works on this {holder.what} since "
        f"{holder.since}: wait for it or stop it, or name another directory"
    )


def _beat(path: Path, directory: Path, holder: Holder, ended: threading.Event) -> None:
    """Rewrite the lock file until the work has ended."""
    while not ended.wait(BEAT):
        with suppress(OSError):  # a network disk that does not answer: the next beat may get through
            now = _read(path)
            if now is not None and not _is_same(now, holder):
                print(
                    f"jaxmlm: {directory} was taken over by process {now.process} on {now.host}: stopping",
                    file=sys.stderr,
                    flush=True,
                )
                os.kill(os.getpid(), signal.SIGTERM)
                return
            holder = holder._replace(beat=holder.beat + 1)
            _write(path, holder)


def _this_process(what: str, descriptor: int) -> Holder:
    return Holder(
        what,
        socket.gethostname(),
        os.getpid(),
        datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        _machine(descriptor),
        beat=time.time_ns(),  # greater than that of an earlier process of the same number
    )


def _machine(descriptor: int) -> str:
    """What all processes that share the locks of a file have in common: the boot of the kernel, and the mount."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    name = boot.read_text().strip() if boot.is_file() else socket.gethostname()
    return f"{name}:{os.fstat(descriptor).st_dev}"


def _is_same(one: Holder | None, other: Holder) -> bool:
    return one is not None and one._replace(beat=0) == other._replace(beat=0)


def _read(path: Path) -> Holder | None:
    try:
        found = Holder(**json.loads(path.read_bytes()))
        return found._replace(process=int(found.process), beat=int(found.beat))
    except (OSError, ValueError, TypeError):  # none, or one that somebody else wrote to
        return None


def _write(path: Path, holder: Holder, flags: int = 0) -> None:
    """Write the file through a descriptor of its own: gcsfuse sends a file when it is closed."""
    descriptor = os.open(path, os.O_WRONLY | flags)
    try:
        os.write(descriptor, json.dumps(holder._asdict()).encode().ljust(_SIZE - 1) + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flock(descriptor: int) -> bool | None:
    """Lock a file if nobody else has; None where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError as error:
        return False if error.errno in (errno.EAGAIN, errno.EACCES) else None


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether a path still names the file that was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _age(descriptor: int) -> float:
    return time.time() - os.fstat(descriptor).st_mtime


def _drop_in_child() -> None:
    """A forked process does not hold its parent's directories: else its life would be the holder's."""
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()
    _held.clear()


os.register_at_fork(after_in_child=_drop_in_child)
