"""Config files: Python whose `config()` returns one frozen dataclass; typed flags override its values."""

import contextlib
import dataclasses
import io
import re
import sys
import traceback
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from jaxmlm.errors import InputError
from jaxmlm.paths import hint, leaves, nearest

T = TypeVar("T")


def load(path: str | Path, overrides: Sequence[str] = (), *, prog: str = "jaxmlm") -> Any:
    """Run a config file and return the frozen dataclass that its `config()` returns, with overrides applied.

    Overrides are flags: a keyword argument of `config()` (`--scale cpu`) or a dotted path into the dataclass
    (`--masking.rate 0.3 --loop.save-every 50`). `--help` prints both kinds and exits.
    InputError for wrong flags, and for a file that cannot be run (with its line).
    """
    path = Path(path)
    build = _function(path)
    keywords = _keywords(build)
    asked = [word for word in overrides if word in ("-h", "--help")]
    words = [word for word in overrides if word not in asked]
    if asked and keywords:
        with contextlib.suppress(SystemExit):
            _parse(build, ["--help"], prog=f"{prog} {path}", description="What the file's config() takes.")
    with _blamed_on(path):
        if keywords:
            config, words = _parse(build, words, prog=prog, add_help=False, return_unknown_args=True)
        else:
            config = build()
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise InputError(f"{path}: config() must return a Run or a Study, got {type(config).__name__}")
    about = sys.modules[build.__module__].__doc__ or type(config).__doc__ or ""
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
    options: dict[str, Any] = {} if default is None else {"default": default}
    config, unknown = _parse(kind, args, prog=prog, description=about, return_unknown_args=True, **options)
    if unknown:
        word = unknown[0]
        if not word.startswith("-"):
            raise InputError(f"unexpected argument {word!r}; options are written --name VALUE")
        flag = word.partition("=")[0].replace("_", "-")
        fields = leaves(kind if default is None else default)
        meant = nearest(flag.lstrip("-"), [known.replace("_", "-") for known in (*fields, *also)])
        advice = f"did you mean --{meant}?" if meant else f"`{prog} --help` lists all"
        raise InputError(f"unknown option {flag}; {advice}")
    return config


def _function(path: Path) -> Callable[..., Any]:
    """Run the file and return its `config`."""
    if not path.is_file():
        there = [str(other) for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise InputError(f"no config file {path}{hint(str(path), sorted(there)) or '; give the path of a .py file'}")
    module = types.ModuleType(f"jaxmlm config {path.resolve()}")
    module.__file__ = str(path)
    try:
        code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:  # ValueError: null bytes
        line = getattr(error, "lineno", None) or 1
        raise InputError(f"{path}:{line}: not Python: {getattr(error, 'msg', error)}") from error
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
    """Turn an exception that passes through the config file into an InputError with its file and line."""
    try:
        yield
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        if not lines:
            raise
        what = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(f"{path}:{lines[-1]}: {' '.join(what.split())}") from error


def _parse(kind: Callable[..., Any], args: Sequence[str], **options: Any) -> Any:
    """Call tyro; what it refuses becomes an InputError of one line."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            parsed = tyro.cli(kind, args=list(args), config=(tyro.conf.AvoidSubcommands,), **options)
    except SystemExit as exit:
        if not exit.code:
            raise  # --help
        cause = exit.__context__
        while cause is not None:
            if isinstance(cause, InputError):  # a config's own check, raised while tyro built it
                raise InputError(str(cause)) from exit
            cause = cause.__context__
        raise InputError(_one_line(told.getvalue())) from exit
    sys.stderr.write(told.getvalue())  # what the file's config() had to say
    return parsed


def _one_line(box: str) -> str:
    """Return what tyro says in its box (plain or of box characters): the text under the title."""
    parts: list[list[str]] = [[]]
    for row in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines():
        text = row.strip(" │╭╮╰╯")
        if text.startswith("─") or set(text) == {"-"}:  # a rule, and in it the title where box characters are
            parts += [[text.strip("─- ")], []]
        elif text:
            parts[-1].append(text)
    title, body, *_ = [part for part in parts if any(part)]
    if title == ["Required options"]:
        return f"missing options: {', '.join(row.split()[0] for row in body if row.startswith('--'))}"
    return " ".join(body).removeprefix("Error parsing ").rstrip(".")
