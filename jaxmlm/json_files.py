"""JSON as everything here writes and reads it: a file is complete or absent, a line is complete or dropped."""

import glob
import hashlib
import json
import math
import os
import secrets
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from jaxmlm.errors import InputError
from jaxmlm.fields import describe
from jaxmlm.textfiles import read_bytes

CHECKSUM = "checksum"
"""The entry of an object that proves the others."""
ASIDE = ".new"
"""How the name of a file ends that is being written, and then takes the place of another."""
Kind = TypeVar("Kind")
_KINDS = {
    **{type(None): "null", bool: "boolean", int: "number", float: "number"},
    **{str: "string", list: "list", dict: "object"},
}


def to_json(value: Any, **options: Any) -> str:
    """Return the JSON text of a value, as everything that is written is made: a number that is not finite is null.

    Args:
        value: what `describe` takes.
        options: of `json.dumps`.

    >>> to_json({"loss": float("nan"), "scores": (0.5, float("inf"))})
    '{"loss": null, "scores": [0.5, null]}'
    """
    return json.dumps(_finite(describe(value)), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path, what: str = "a JSON file", kind: type[Kind] = dict) -> Kind:
    """Read a JSON file that may be torn, or of somebody else.

    Args:
        path: the file.
        what: what it should be, for messages.
        kind: the type of what it holds.

    Raises:
        InputError: it is missing, cannot be read, is too large, or `parse_json` refuses what it holds.

    """
    return parse_json(read_bytes(path, what), path, what, kind)


def parse_json(raw: bytes | str, where: object, what: str = "a JSON file", kind: type[Kind] = dict) -> Kind:
    """Read the value that a JSON text holds.

    Args:
        raw: the text; as bytes in UTF-8, with or without a byte-order mark.
        where: the file, or the place in it, for messages.
        what: what it should be, for messages.
        kind: the type of the value.

    Raises:
        InputError: it is not UTF-8, not JSON, nested too deeply, has a number that is too long, or is of another type.

    >>> parse_json(b'{"loss": 1.5}', "log.jsonl, line 1")
    {'loss': 1.5}
    """
    try:
        value = json.loads(raw.decode("utf-8-sig") if isinstance(raw, bytes) else raw)
    except UnicodeDecodeError as error:
        why = f"is not UTF-8 text ({error.reason} at byte {error.start})"
    except RecursionError:
        why = "is JSON that is nested too deeply to be read"
    except ValueError as error:  # also for an integer of more than 4,300 digits
        why = f"is not JSON ({str(error).partition(';')[0]})"
    else:
        if isinstance(value, kind):
            return value
        why = f"holds {kind_of(value)}, not {'an object' if kind is dict else 'a list'}"
    raise InputError(f"{where} {why}: expected {what}; is the file complete?") from None


def kind_of(value: Any) -> str:
    """Return what JSON calls the type of a value.

    >>> kind_of({}), kind_of(1.5), kind_of(None)
    ('a JSON object', 'a JSON number', 'a JSON null')
    """
    return f"a JSON {_KINDS[type(value)]}"


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 that a kill or a full disk leaves as it was, or complete."""
    with replacing(path) as aside, open(aside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # else a machine that loses power may keep the new name with nothing behind it


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the name of a file to write, which takes the place of another when the body ends without an error.

    Nobody else has the name, on any machine that shares the directory. What processes of this machine that were killed
    while they wrote have left beside the file is removed.

    Args:
        path: the file that is replaced, or made.

    """
    before = f"{path.name}.{_machine()}."
    for left in path.parent.glob(f"{glob.escape(before)}*{ASIDE}"):
        process = left.name.removeprefix(before).partition(".")[0]
        if process.isdecimal() and not is_alive(int(process)):
            left.unlink(missing_ok=True)
    aside = path.with_name(f"{before}{os.getpid()}.{secrets.token_hex(4)}{ASIDE}")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _machine() -> str:
    """What all processes that know each other by their numbers have in common: the host and, of it, the container."""
    container = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}-{container.stat().st_ino if container.exists() else 0}"


def is_alive(process: int) -> bool:
    """Whether a process of this machine lives, of whatever user."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # of another user; not a number of a process
        return True
    return True


def write_json(path: Path, value: Any) -> None:
    """Write a value that `describe` takes as a JSON file, which a kill leaves as it was, or complete."""
    write_text(path, to_json(value, indent=1) + "\n")


def with_checksum(value: Any) -> dict[str, Any]:
    """Return an object as plain JSON values, and beside them a checksum of all.

    >>> without_checksum(with_checksum({"steps": 12}), "run.json")
    {'steps': 12}
    """
    plain = json.loads(to_json(value))
    return {**plain, CHECKSUM: _checksum(plain)}


def without_checksum(value: dict[str, Any], where: object) -> dict[str, Any]:
    """Return an object that was read, without its checksum.

    Args:
        value: the object; one without a checksum, as somebody may have written by hand, is taken as it is.
        where: the file, or the place in it, for messages.

    Raises:
        InputError: it has another checksum.

    >>> without_checksum(with_checksum({"steps": 12}) | {"steps": 13}, "run.json")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    jaxmlm.errors.InputError: run.json is damaged, or was edited: ...
    """
    plain = {key: item for key, item in value.items() if key != CHECKSUM}
    if CHECKSUM in value and value[CHECKSUM] != _checksum(plain):
        raise InputError(
            f"{where} is damaged, or was edited: what it says does not match its checksum: put back what jaxmlm wrote, "
            f'or take out the entry "{CHECKSUM}" if you trust it'
        )
    return plain


def _checksum(plain: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read the complete lines of a file of JSON lines; a truncated last line is left out, no file has no lines.

    Raises:
        InputError: a line that is not the last one is not a JSON object.

    """
    if not path.is_file():
        return []
    lines = read_bytes(path, "JSON lines", most=1 << 40).split(b"\n")[:-1]
    return [
        parse_json(line, f"{path}, line {number}", "a JSON object in each line") for number, line in enumerate(lines, 1)
    ]


def append_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Append JSON lines to a file; a truncated last line in it is dropped first."""
    drop_truncated_line(path)
    with open(path, "a") as file:
        file.writelines(to_json(row) + "\n" for row in rows)


def has_truncated_line(path: Path) -> bool:
    """Whether a file of JSON lines ends within a line, which `read_jsonl` leaves out."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def drop_truncated_line(path: Path) -> None:
    """Drop a last line that a kill or a full disk cut short."""
    if path.is_file():
        with open(path, "rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
