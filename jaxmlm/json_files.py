"""JSON as everything here writes it: a file is complete or absent, a line is complete or dropped."""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxmlm.paths import describe


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


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 that a kill leaves as it was, or complete."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.new")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def write_json(path: Path, value: Any) -> None:
    """Write a value that `describe` takes as a JSON file, which a kill leaves as it was, or complete."""
    write_text(path, to_json(value, indent=1) + "\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read the complete lines of a file of JSON lines; a truncated last line is left out, no file has no lines."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def append_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Append JSON lines to a file; a truncated last line in it is dropped first."""
    drop_truncated_line(path)
    with open(path, "a") as file:
        file.writelines(to_json(row) + "\n" for row in rows)


def drop_truncated_line(path: Path) -> None:
    """Drop a last line that a kill or a full disk cut short."""
    if path.is_file():
        with open(path, "rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
