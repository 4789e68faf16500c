"""What an error of the file system means for the path that a user named, in one line.

The command line turns every such error that reaches it into this line: there is no need to look before every open.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxmlm.errors import InputError

_ADVICE = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is a file: check it",
    errno.EISDIR: "name a file",
    errno.EACCES: "get access, or name another path",
    errno.EPERM: "get access, or name another path",
    errno.ELOOP: "its symbolic links lead in a circle: remove one",
    errno.ENAMETOOLONG: "shorten it",
    errno.EROFS: "name a directory that can be written to",
    errno.EEXIST: "name another path",
    errno.ENOSPC: "free some space, or name a directory on another disk, and run the same command again",
    errno.EDQUOT: "free some space, or name a directory on another disk, and run the same command again",
    errno.EFBIG: "raise the limit (ulimit -f), or name a directory on another disk",
}
"""What to do about the errors that a user's path can cause; any other is a fault of the program or the machine."""
_FULL = {code: os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)}


def explain(error: BaseException) -> str | None:
    """Say what is wrong with a path, and what to do.

    Args:
        error: an exception. Libraries in C++ give errors of the disk a type of their own: the text is read too.

    Returns:
        One line; None if the error is not one of a path.

    >>> explain(PermissionError(13, "Permission denied", "notes.txt"))
    'notes.txt: permission denied: get access, or name another path'
    >>> explain(ValueError("x")) is None
    True
    """
    if isinstance(error, OSError) and error.errno in _ADVICE:
        if error.filename is None and error.errno not in _FULL:
            return None  # as of a program that is missing, or a connection
        return _line(error.errno, error.filename)
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):  # of copytree: all it met
        source, _, why = error.args[0][0]
        return f"{source} cannot be copied: {why}: check the path"
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # of Path.resolve
        return f"{error}: check the path"
    code = next((code for code, text in _FULL.items() if text.lower() in str(error).lower()), None)
    return None if code is None else _line(code, getattr(error, "filename", None))


def check_writable(path: Path, directory: bool = False) -> None:
    """Refuse a file, or a directory, that could not be written when the work for it is done; nothing is made.

    Args:
        path: what is to be written, and may be there.
        directory: whether it is a directory.

    Raises:
        InputError: it cannot be written to.

    """
    place = path.absolute()
    there = next(one for one in (place, *place.parents) if os.path.exists(one))
    code = None
    if there != place or directory:
        code = None if there.is_dir() else errno.ENOTDIR
    elif there.is_dir():
        code = errno.EISDIR
    if code is None and not os.access(there, os.W_OK):
        code = errno.EROFS if os.statvfs(there).f_flag & os.ST_RDONLY else errno.EACCES
    if code is not None:
        raise InputError(_line(code, path))


@contextmanager
def writing_to(directory: Path) -> Iterator[None]:
    """Turn an error of the disk that the body meets into an InputError that names this directory.

    What a full disk raises names no file, or comes from a library with a text of its own.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        named = isinstance(error, OSError) and error.filename is not None
        line = None if named else explain(error)
        if line is None:
            raise
        raise InputError(f"{directory}: {line.partition(': ')[2]}") from error


def _line(code: int, path: object) -> str:
    shown = "the disk" if path is None else os.fsdecode(path) if isinstance(path, str | bytes) else str(path)
    if len(shown) > 200:
        shown = f"{shown[:100]}...{shown[-60:]}"
    text = os.strerror(code)
    return f"{shown}: {text[0].lower()}{text[1:]}: {_ADVICE[code]}"
