"""Paths that a user gives: `~`, working directories, the cache."""

import os
from pathlib import Path

from jaxmlm.errors import InputError


def cache_directory() -> Path:
    """Return where what can be made again is kept on this machine: $JAXMLM_CACHE, or ~/.cache/jaxmlm."""
    return expanded(os.environ.get("JAXMLM_CACHE", "~/.cache/jaxmlm"))


def expanded(path: str | Path) -> Path:
    """A path, in which a leading ~ stands for the home directory, as in a shell.

    Raises:
        InputError: the user does not exist. A shell would take ~name as it stands, and make a directory of that name.

    >>> expanded("runs/a")
    PosixPath('runs/a')
    """
    found = Path(os.path.expanduser(path))
    if found.parts[:1] and found.parts[0].startswith("~"):
        user = found.parts[0]
        raise InputError(f"{path}: there is no user {user[1:]!r}: check the path (./{user} is a file of that name)")
    return found


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
