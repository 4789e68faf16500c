"""Config files: Python whose `config()` returns one frozen dataclass; typed flags override its values.

A config file is executed, with all the rights of who runs the command: read one that is not yours before you run it.
"""

import contextlib
import dataclasses
import functools
import linecache
import re
import sys
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import tyro
from tyro._errors import (
    BadValue,
    InstantiationFailure,
    InvalidChoice,
    MissingArgs,
    ParseErrorEvent,
    on_parse_error,
)

from jaxmlm.errors import InputError
from jaxmlm.fields import leaves
from jaxmlm.usage import HelpPrinted
from jaxmlm.user_code import CONFIG_MODULE, importing_from
from jaxmlm.wording import hint, nearest

T = TypeVar("T")


def load(path: str | Path, overrides: Sequence[str] = (), *, prog: str = "jaxmlm") -> Any:
    """Execute a config file and return the frozen dataclass that its `config()` returns, with overrides applied.

    Args:
        path: the file. It is Python, and is executed: read one that is not yours before you run it.
        overrides: flags: a keyword argument of `config()` (`--scale cpu`) or a dotted path into the dataclass
            (`--masking.rate 0.3 --loop.save-every 50`). `--help` prints both kinds and exits.
        prog: the command, for messages.

    Raises:
        InputError: wrong flags, or a file that cannot be run, or that ends the program (with its line).
        HelpPrinted: after `--help`.

    """
    path = Path(path)
    asked = [word for word in overrides if word in ("-h", "--help")]
    words = [word for word in overrides if word not in asked]
    with importing_from(path.parent):
        return _load(path, words, asked, prog)


def _load(path: Path, words: list[str], asked: list[str], prog: str) -> Any:
    build = _function(path)
    keywords = _keywords(build)
    if asked and keywords:
        with contextlib.suppress(HelpPrinted):
            _parse(build, ["--help"], prog=f"{prog} {path}", description="What the file's config() takes.")
    with _blamed_on(path):
        if keywords:
            config, words = _parse(build, words, prog=prog, add_help=False, return_unknown_args=True)
        else:
            config = build()
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise InputError(f"{path}: config() must return a Run or a Study, got {type(config).__name__}")
    about = build.__globals__.get("__doc__") or type(config).__doc__ or ""
    return from_flags(type(config), [*words, *asked], config, prog=f"{prog} {path}", about=about, also=keywords)


def from_flags(
    kind: type[T],
    args: Sequence[str],
    default: T | None = None,
    *,
    prog: str = "jaxmlm",
    about: str | None = None,
    also: Sequence[str] = (),
) -> T:
    """Return a frozen dataclass with its fields set from flags; those not named keep the default.

    `also` are names that an unknown flag may have been meant to be, beside the fields. InputError for an
    unknown flag (it suggests the right one), a missing or a wrong value.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Loop:
    ...     steps: int = 100
    ...     save_every: int = 10
    >>> from_flags(Loop, ["--save-every", "50"])
    Loop(steps=100, save_every=50)
    """
    default, args = _without_parts(default, args)
    options: dict[str, Any] = {} if default is None else {"default": default}
    about = _without_examples(kind.__doc__ or "" if about is None else about)
    if parts := _parts(default):
        about = f"{about}\n\nA part is left out by {' '.join(f'--no-{name}' for name in parts)}."
    config, unknown = _parse(kind, args, prog=prog, description=about, return_unknown_args=True, **options)
    if unknown:
        word = unknown[0]
        if not is_option(word):
            raise InputError(f"unexpected argument {word!r}; options are written --name VALUE")
        flag = word.partition("=")[0].replace("_", "-")
        raise InputError(f"unknown option {flag}; {_advice(flag, kind, default, also, prog)}")
    return config


def take_flags(kind: type[T], args: Sequence[str], *, prog: str = "jaxmlm") -> tuple[T, list[str]]:
    """Read the flags of a dataclass from a command line that has others too.

    Args:
        kind: a dataclass whose fields all have defaults.
        args: the words of a command line.
        prog: the command, for messages.

    Returns:
        The dataclass, and the words that are not its own, in their order.

    Raises:
        InputError: a value is missing or wrong.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Show:
    ...     rates: tuple[float, ...] = (0.4,)
    >>> take_flags(Show, ["--loop.steps", "3", "--rates", "0.15", "0.8", "--small"])
    (Show(rates=(0.15, 0.8)), ['--loop.steps', '3', '--small'])
    """
    return _parse(kind, args, prog=prog, add_help=False, return_unknown_args=True)


def refuse_ineffective(replaced: Mapping[str, str], args: Sequence[str]) -> None:
    """Refuse options that change nothing.

    Args:
        replaced: the path of each value that something else replaces -> the option to give in its place.
        args: the words of a command line.

    Raises:
        InputError: one of the words is such an option.

    """
    for word in args:
        name = word.partition("=")[0].removeprefix("--").replace("-", "_")
        path = next((path for path in replaced if name == path or name.startswith(f"{path}.")), None)
        if path is not None and is_option(word):
            instead = replaced[path].replace("_", "-")
            raise InputError(f"{word.partition('=')[0]} has no effect: the study varies it; give --{instead}")


def is_option(word: str) -> bool:
    """Whether a word of a command line is the name of an option: values may begin with a dash too.

    >>> is_option("--masking.rate"), is_option("--title=a b"), is_option("- [MASK] sees"), is_option("-0.5")
    (True, True, False, False)
    """
    return re.match(r"--?[A-Za-z][^\s=]*(=|$)", word) is not None


def _advice(flag: str, kind: type, default: Any, also: Sequence[str], prog: str) -> str:
    """Suggestion for an unknown option."""
    name = flag.lstrip("-")
    known = [one.replace("_", "-") for one in (*_flags(kind if default is None else default), *also)]
    known = [one for one in known if one != name]  # a field that has no option, as an empty tuple of dataclasses
    leave = f"; --no-{name} leaves it out" if name in _parts(default) else ""
    value = _at(kind if default is None else default, name.replace("-", "_"))
    own = f"{name} is an object, {type(value).__name__}, that the config file sets"
    is_object = "." in name and dataclasses.is_dataclass(value) and not isinstance(value, type)
    if group := [one for one in known if one.startswith(f"{name}.")]:
        more = " and more" if len(group) > 3 else ""
        return f"there are --{', --'.join(group[:3])}{more}{leave}{f'; {own}' if is_object else ''}"
    if is_object:
        return own
    # A config may say what its options are called elsewhere, as an axis of a study by the path that it varies.
    others: dict[str, str] = getattr(default, "other_names", {})
    others = {other.replace("_", "-"): meant.replace("_", "-") for other, meant in others.items()}
    meant = nearest(name, [*others, *known, *(f"no-{part}" for part in _parts(default))])
    return f"did you mean --{others.get(meant, meant)}?" if meant else f"`{prog} --help` lists all"


def _flags(config: Any) -> list[str]:
    """The dotted paths that are options: of several dataclasses in a tuple each by its number."""
    found = []
    for path in leaves(config):
        if (parent := path.rpartition(".")[0]) and _is_law(_at(config, parent)):
            found.append(parent)  # one option, with what the law is made of in it
            continue
        value = _at(config, path)
        if _is_several(value):
            found += [f"{path}.{number}.{name}" for number, one in enumerate(value) for name in _flags(one)]
        else:
            found.append(path)
    return found


def _at(config: Any, path: str) -> Any:
    return functools.reduce(lambda part, name: getattr(part, name, None), path.split("."), config)


def _is_law(value: Any) -> bool:
    """Whether it is a law of the masking rate, without an import of JAX where no masking is configured."""
    laws = sys.modules.get("jaxmlm.masking.laws")
    return laws is not None and not isinstance(value, type) and isinstance(value, laws.Law)


def _parts(config: Any) -> list[str]:
    """The fields of a config that `--no-NAME` leaves out: dataclasses that may be None, and tuples of dataclasses."""
    if config is None:
        return []
    hints = get_type_hints(type(config))
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return [
        name.replace("_", "-")
        for name, value in values.items()
        if _is_several(value) or (dataclasses.is_dataclass(value) and types.NoneType in get_args(hints[name]))
    ]


def _without_parts(config: Any, args: Sequence[str]) -> tuple[Any, list[str]]:
    """The config without the parts that the flags `--no-NAME` leave out, and the other flags."""
    asked = {word: word.removeprefix("--no-") for word in args if word.startswith("--no-")}
    out = {word: name.replace("-", "_") for word, name in asked.items() if name in _parts(config)}
    for name in out.values():
        config = dataclasses.replace(config, **{name: () if _is_several(getattr(config, name)) else None})
    return config, [word for word in args if word not in out]


def _is_several(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(dataclasses.is_dataclass(one) for one in value)


def _function(path: Path) -> Callable[..., Any]:
    """Run the file and return its `config`."""
    if not path.is_file():
        there = [str(other) for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise InputError(f"no config file {path}{hint(str(path), sorted(there)) or '; give the path of a .py file'}")
    module = types.ModuleType(f"{CONFIG_MODULE}{path.resolve()}")
    module.__file__ = str(path)
    try:
        code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:  # ValueError: null bytes
        line = getattr(error, "lineno", None) or 1
        raise InputError(f"{path}:{line}: not Python: {getattr(error, 'msg', error)}") from error
    linecache.checkcache(str(path))  # else the source of an edited class would be that of the first reading
    sys.modules[module.__name__] = module  # dataclasses and type hints look their module up there
    with _blamed_on(path):
        exec(code, module.__dict__)
    if not isinstance(getattr(module, "config", None), types.FunctionType):
        raise InputError(f"{path}: has no function config(); a config file defines one that returns a Run or a Study")
    return module.config


def _keywords(build: Callable[..., Any]) -> list[str]:
    code = build.__code__
    return list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])


@contextlib.contextmanager
def _blamed_on(path: Path):
    """Turn an exception that passes through the config file into an InputError with its file and line.

    Also those that end a program, as `sys.exit(0)`: a command that did nothing must not end as one that is done.
    """
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        if not lines:
            raise
        what = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        if isinstance(error, SystemExit):
            what = f"ends the program (exit {error.code}): config() must return a Run or a Study"
        raise InputError(f"{path}:{lines[-1]}: {' '.join(what.split())}") from error


def _without_examples(text: str) -> str:
    """A docstring for a help text: what stands before its first example.

    >>> _without_examples("Adds two numbers.\\n\\n    >>> add(1, 2)\\n    3")
    'Adds two numbers.'
    """
    return text.partition(">>>")[0].rstrip()


def _parse(kind: Callable[..., Any], args: Sequence[str], **options: Any) -> Any:
    """Call tyro; what it refuses becomes an InputError of one line."""
    with on_parse_error(_refuse):
        try:
            config = (tyro.conf.AvoidSubcommands,)
            return tyro.cli(kind, args=_bound(args), config=config, registry=_registry(), **options)
        except SystemExit as error:
            if "--help" in args or "-h" in args:
                raise HelpPrinted(0) from error
            raise


@functools.cache
def _registry() -> tyro.constructors.ConstructorRegistry:
    """The types that are one word of a command line, and not several options: a masking rate."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def rate(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
        laws = sys.modules.get("jaxmlm.masking.laws")  # a configuration that has a masking has imported it
        if laws is None or info.type != laws.Rate:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="RATE",
            instance_from_str=lambda words: laws.parse_rate(words[0]),
            is_instance=lambda value: isinstance(value, float | int | laws.Law),
            str_from_instance=lambda value: [str(value)],
        )

    return registry


def _refuse(event: ParseErrorEvent) -> None:
    """Say in one line what tyro refuses, in the place of the box that it would draw.

    tyro tells its hooks what is wrong as data. The module is private: a test pins each kind of event used here.
    """
    if isinstance(event, MissingArgs):
        raise InputError(f"missing options: {', '.join(one.arg.display_name() for one in event.missing_arguments)}")
    argument = getattr(event, "argument", None)
    name = "" if argument is None else argument.display_name()
    if isinstance(event, InvalidChoice):
        raise InputError(f"{name}: invalid choice {event.value!r}; expected one of {', '.join(event.choices)}")
    if isinstance(event, BadValue):
        raise InputError(f"{name} needs a value: write {name} VALUE")
    if isinstance(event, InstantiationFailure):
        raise InputError(f"{name}{_wanted(event.message)}" if name else event.message)
    raise InputError(f"wrong options ({type(event).__name__}); `{event.prog} --help` lists them")


def _wanted(said: str) -> str:
    """What a parser of Python or tyro says of a value, as what the option takes.

    >>> _wanted("invalid literal for int() with base 10: '1e3'")
    " takes a whole number; got '1e3'"
    """
    if several := re.match(r"Could not find valid parse for arguments: \[(.*)\]", said):
        return f" cannot be {several[1]}: several values stand with spaces between, as 0 1 2; --help has their types"
    if number := re.match(r"(invalid literal for int\(\)|could not convert string to float).*?: (.*)", said):
        return f" takes a {'whole ' if 'int' in number[1] else ''}number; got {number[2]}"
    return f": {said}"


def _bound(args: Sequence[str]) -> list[str]:
    """The words, with a value that looks like an option to tyro and has spaces in it bound to its name.

    >>> _bound(["--title", "-A title", "--rates", "0.1", "0.2"])
    ['--title=-A title', '--rates', '0.1', '0.2']
    """
    bound: list[str] = []
    for word in args:
        if word.startswith("-") and not is_option(word) and bound and is_option(bound[-1]) and "=" not in bound[-1]:
            bound[-1] += f"={word}"
        else:
            bound.append(word)
    return bound
