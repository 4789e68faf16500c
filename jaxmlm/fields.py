"""Fields of nested frozen dataclasses by their dotted paths: list them, replace one, make plain values, compare."""

import ast
import dataclasses
import functools
import hashlib
import inspect
import linecache
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jaxmlm.errors import InputError
from jaxmlm.wording import hint

Config = TypeVar("Config")


def leaves(config: Any) -> Iterator[str]:
    """Yield the dotted path of every value in a nested dataclass (an instance, or a class for its defaults).

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Loop:
    ...     steps: int = 100
    >>> @dataclass(frozen=True)
    ... class Run:
    ...     loop: Loop = Loop()
    ...     name: str = "a"
    >>> list(leaves(Run()))
    ['loop.steps', 'name']
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name, None)
        if dataclasses.is_dataclass(value):
            yield from (f"{field.name}.{path}" for path in leaves(value))
        else:
            yield field.name


def replace_path(config: Config, path: str, value: Any) -> Config:
    """Return a copy of a nested frozen dataclass with the value at a dotted path replaced.

    The value is checked against the field's type: an int serves as a float, a list as a tuple.
    InputError if there is no such field (it names the nearest one) or the type does not allow the value.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Masking:
    ...     rate: float = 0.4
    >>> replace_path(Masking(), "rate", 1)
    Masking(rate=1.0)
    """
    return _replace(config, path.split("."), value, config, path)


def describe(value: Any) -> Any:
    """Return plain JSON values: dicts (a dataclass also tells its "class"), lists, strings, numbers.

    A class of the user's own also tells its "source": a run is not resumed with another one.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Span:
    ...     lengths: tuple[int, ...] = (1, 2)
    >>> describe(Span())
    {'class': 'Span', 'lengths': [1, 2]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: describe(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"class": type(value).__name__, **source_hash(type(value)), **fields}
    if isinstance(value, Enum):
        return value.name
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [describe(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    array = getattr(value, "tolist", None)  # NumPy's and JAX's numbers and arrays have it
    if array is not None:
        return array()
    raise TypeError(f"a config holds plain values and dataclasses, not {value!r} ({type(value).__name__})")


def source_hash(own: Any) -> dict[str, str]:
    """Hash the file that a class or function of the user's own is defined in, without comments and `config()`.

    Returns:
        {"source": hash}; nothing for what is of jaxmlm, or has no file, as in a notebook.

    """
    extra = ""
    while isinstance(own, functools.partial):
        extra += repr((own.args, own.keywords))
        own = own.func
    if own.__module__.split(".")[0] == "jaxmlm":
        return {}
    names = _module_names(own)
    file = names.get("__file__") or ""
    linecache.checkcache(file)  # it may have been edited since it was read
    lines = linecache.getlines(file, names)
    if not lines:  # typed into a notebook or an interpreter: there is no file
        return {}
    module = ast.parse("".join(lines))
    module.body = [node for node in module.body if getattr(node, "name", "") != "config"]
    return {"source": hashlib.sha256((ast.unparse(module) + extra).encode()).hexdigest()[:16]}


def _module_names(own: Any) -> dict[str, Any]:
    """The names of the module that a class or function is defined in; none if that cannot be found.

    Functions keep them. `sys.modules` does not: `runpy.run_path` removes its module from there at its end, and a file
    of the same name in another directory may have come in its place.
    """
    for part in vars(own).values() if isinstance(own, type) else [own]:
        names = getattr(inspect.unwrap(getattr(part, "fget", part)), "__globals__", {})
        if names.get("__name__") == own.__module__:  # and not those of a decorator, or of another class
            return names
    return getattr(sys.modules.get(own.__module__), "__dict__", {})


def without(plain: dict[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """A dictionary of dictionaries without the entries at these dotted paths, where it has them.

    >>> without({"loop": {"steps": 1, "seed": 0}, "workdir": "x"}, ["workdir", "loop.seed"])
    {'loop': {'steps': 1}}
    """
    here = {path for path in paths if "." not in path}
    deeper = {name: [path.partition(".")[2] for path in paths if path.startswith(name + ".")] for name in plain}
    return {
        name: without(value, deeper[name]) if deeper[name] and isinstance(value, dict) else value
        for name, value in plain.items()
        if name not in here
    }


def differences(a: Any, b: Any, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield where two nested dictionaries differ: the dotted path, and both values; one that is missing is None.

    >>> list(differences({"loop": {"steps": 1, "seed": 0}}, {"loop": {"steps": 2, "seed": 0}}))
    [('loop.steps', 1, 2)]
    """
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            yield from differences(a.get(key), b.get(key), f"{at}.{key}" if at else key)
    elif a != b:
        yield at, a, b


def _replace(config: Any, steps: list[str], value: Any, root: Any, path: str) -> Any:
    done = path.split(".")[: path.count(".") + 1 - len(steps)]
    name = steps[0]
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise InputError(f"no field {path!r}: {'.'.join(done)} is {config!r} and has no fields")
    names = [field.name for field in dataclasses.fields(config)]
    if name not in names:
        here = [".".join([*done, other]) for other in names]
        advice = hint(path, [*here, *leaves(root)]) or f"; {type(config).__name__} has {', '.join(names)}"
        raise InputError(f"no field {path!r}{advice}")
    if len(steps) > 1:
        new = _replace(getattr(config, name), steps[1:], value, root, path)
    else:
        kind = get_type_hints(type(config), include_extras=True)[name]
        try:
            new = _fit(value, kind)
        except TypeError:
            wanted = getattr(kind, "__name__", None) if get_origin(kind) is None else None
            got = f"{value!r} ({type(value).__name__})"
            raise InputError(f"{path} takes {wanted or str(kind).replace('typing.', '')}, got {got}") from None
    return dataclasses.replace(config, **{name: new})


def _fit(value: Any, kind: Any) -> Any:
    """Return `value` as the type `kind` wants it; TypeError if it allows no such value."""
    origin = get_origin(kind)
    args = get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        return _fit(value, args[0])
    if origin is Union or origin is types.UnionType:
        exact = [arm for arm in args if arm is type(value)]
        for arm in (*exact, *args):
            try:
                return _fit(value, arm)
            except TypeError:
                continue
    elif origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in args):
            return value
    elif origin is tuple and isinstance(value, tuple | list):
        arms = [args[0]] * len(value) if args[1:] == (...,) else args
        if len(arms) == len(value):
            return tuple(_fit(item, arm) for item, arm in zip(value, arms, strict=True))
    elif kind is float and type(value) is int:
        return float(value)
    elif kind is None or kind is types.NoneType:
        if value is None:
            return None
    elif isinstance(value, bool) and kind is not bool:
        pass
    elif isinstance(value, origin or kind):
        return value
    raise TypeError
