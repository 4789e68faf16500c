"""Objects that a user names on the command line: FILE.py:NAME of a file of theirs, MODULE:NAME of an installed one.

Such a file is Python and is executed.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxmlm.errors import InputError
from jaxmlm.paths import expanded, hint


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
        spec.loader.exec_module(module)  # pyright: ignore[reportOptionalMemberAccess]
    except (Exception, SystemExit) as error:
        raise InputError(f"{what}: {path} cannot be run: {type(error).__name__}: {error}") from error
    return module


def _imported(name: str, what: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise InputError(f"{what}: {name} cannot be imported: {type(error).__name__}: {error}") from error
