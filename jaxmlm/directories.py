"""Paths that a user gives: `~`, working directories, the cache."""

import os
from collections.abc import Iterator
from pathlib import Path

from jaxmlm.errors import InputError


def cache_directory() -> Path:
    """Return where what can be made again is kept on this machine: $JAXMLM_CACHE, or ~/.cache/jaxmlm.

    Raises:
        InputError: there is no home directory, as of a user that a container does not know.

    """
    named = os.environ.get("JAXMLM_CACHE")
    if not named and not has_home():
        raise InputError("this user has no home directory: set HOME, or JAXMLM_CACHE, to a directory for caches")
    return expanded(named or "~/.cache/jaxmlm")


def has_home() -> bool:
    """Whether it is known where the home directory of this user is."""
    return os.path.expanduser("~") != "~"


def expanded(path: str | Path) -> Path:
    """A path, in which a leading ~ stands for the home directory, as in a shell.

    Raises:
        InputError: the user does not exist, or has no home directory. A shell would take ~name as it stands and make a
            directory of that name.

    >>> expanded("runs/a")
    PosixPath('runs/a')
    """
    found = Path(os.path.expanduser(path))
    if found.parts[:1] and found.parts[0].startswith("~"):
        user = found.parts[0]
        if user == "~":
            raise InputError(f"{path}: this user has no home directory: set HOME, or write the path in full")
        raise InputError(f"{path}: there is no user {user[1:]!r}: check the path (./{user} is a file of that name)")
    return found


def files_below(directory: Path, without: tuple[str, ...] = (), around: tuple[str, ...] = ()) -> Iterator[Path]:
    """The files in a directory and in those below it, behind links to directories too, in no order.

    Args:
        directory: the directory.
        without: how the names of directories begin that are left out.
        around: directories that this one lies in. A link to one of them is left out: there would be no end.

    Raises:
        OSError: a directory cannot be read, whose files would be missing.

    """
    around = (*around, os.path.realpath(directory))
    for path in directory.iterdir():
        if path.is_file():
            yield path
        elif path.is_dir() and not path.name.startswith(without) and os.path.realpath(path) not in around:
            yield from files_below(path, without, around)


def working_directory(name: str) -> str:
    """The path of a working directory, in which ~ stands for the home directory.

    Raises:
        InputError: it has no name, or is in a bucket: it must be a directory on disk.

    >>> working_directory("runs/a")
    'runs/a'
    """
    if not name:
        raise InputError("workdir is empty: name a directory ('.' is the current one)")
    if "://" in name:
        root = name.split("://")[1].split("/")[0]
        raise InputError(
            f"workdir is {name!r} and must be a directory: mount the bucket (gcsfuse {root} DIRECTORY) or copy"
        )
    return str(expanded(name))
