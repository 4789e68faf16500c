"""Objects that a user names on the command line: FILE.py:NAME of a file of theirs, MODULE:NAME of an installed one.

Such a file is Python and is executed. It may import the files beside it.
"""

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from jaxmlm.directories import expanded
from jaxmlm.errors import InputError
from jaxmlm.wording import hint

CONFIG_MODULE = "jaxmlm config "
"""How the module of a config file is called: this and the file's path."""


class _Beside(NamedTuple):
    """A module that was imported from the directory of a user's file."""

    directory: Path
    file: str
    edited: float


_BESIDE: dict[str, _Beside] = {}
"""By their names in `sys.modules`."""


@contextlib.contextmanager
def importing_from(directory: Path) -> Iterator[None]:
    """Let what is run meanwhile import the files of a directory, as Python does for a script in it.

    A file that has been edited since an earlier import, or has the name of one in another directory, is read anew.
    """
    directory = directory.resolve()
    importlib.invalidate_caches()
    _forget_others(directory)
    before = set(sys.modules)
    sys.path.insert(0, str(directory))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the file has changed sys.path itself
            sys.path.remove(str(directory))
        for name in set(sys.modules) - before:
            top = name.partition(".")[0]
            file = getattr(sys.modules[name], "__file__", None) or ""
            here = file == str(directory / f"{top}.py") or Path(file).is_relative_to(directory / top)
            if here and top != "jaxmlm" and os.path.exists(file):
                _BESIDE[name] = _Beside(directory, file, os.path.getmtime(file))


def directories_beside() -> list[str]:
    """The directories from which files of the user's were imported so, for a process that imports them too."""
    return sorted({str(one.directory) for one in _BESIDE.values()})


def _forget_others(directory: Path) -> None:
    """Forget the modules of each directory of which one has been edited, or is not the one that is meant here."""
    stale = set()
    for name, one in _BESIDE.items():
        meant = PathFinder.find_spec(name, [str(directory)]) if "." not in name else None
        other = meant is not None and meant.origin not in (None, one.file)
        if other or not os.path.exists(one.file) or os.path.getmtime(one.file) != one.edited:
            stale.add(one.directory)
    for name in [name for name, one in _BESIDE.items() if one.directory in stale]:
        del _BESIDE[name]
        sys.modules.pop(name, None)


def find_object(name: str, what: str) -> Any:
    """Run the file, or import the module, and return what it calls NAME.

    Args:
        name: FILE.py:NAME or MODULE:NAME.
        what: the option and what it takes, for messages, as "--task: a task".

    Raises:
        InputError: there is no such file, module or name, or its code fails.

    >>> find_object("math:gcd", "an example: a function")(4, 6)
    2
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise InputError(f"{what} of your own is named FILE.py:NAME or MODULE:NAME; got {name!r}")
    module = _run(expanded(place), what) if place.endswith(".py") else _imported(place, what)
    if not hasattr(module, attribute):
        names = [name for name in vars(module) if name[0] != "_"]
        raise InputError(f"{what}: {place} defines no {attribute!r}{hint(attribute, names)}")
    return getattr(module, attribute)


def _run(path: Path, what: str) -> ModuleType:
    if not path.is_file():
        raise InputError(f"{what}: {path} is missing: FILE.py:NAME takes what the file defines as NAME")
    spec = importlib.util.spec_from_file_location(f"jaxmlm file {path.resolve()}", path)
    module = importlib.util.module_from_spec(spec)  # pyright: ignore[reportArgumentType]
    sys.modules[module.__name__] = module  # dataclasses look their module up there
    try:
        with importing_from(path.parent):
            spec.loader.exec_module(module)  # pyright: ignore[reportOptionalMemberAccess]
    except (Exception, SystemExit) as error:
        raise InputError(f"{what}: {path} cannot be run: {type(error).__name__}: {error}") from error
    return module


def _imported(name: str, what: str) -> ModuleType:
    try:
        with importing_from(Path.cwd()):
            return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise InputError(f"{what}: {name} cannot be imported: {type(error).__name__}: {error}") from error
