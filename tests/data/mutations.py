"""Damage for the readers of files: seeded mutations of bytes and of JSON values."""

import copy
import json
import os
import random
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxmlm.errors import InputError

COUNT = int(os.environ.get("JAXMLM_MUTATIONS", "0"))
"""Mutations of each file in the slow form; the quick one has some tens."""
WEIRD: list[Any] = [
    None, True, 0, -1, 1.5, 2**31, 2**64, 10**40, 1e308, "", "a", "\0", "../x", "/dev/zero", "\ud800", "x" * 5000,
    [], {}, [[]], [None], ["a", "a"], {"": None}, {"content": 7}, {"type": "BPE"}, {"type": []}, [{"id": 2**32}],
]  # fmt: skip
WHOLE = [
    b"", b" ", b"null", b"7", b"[]", b"{}", b"\xff\xfe{\0}\0", b"\xef\xbb\xbf{}", b"NaN", b"\0" * 100, b"{" * 9,
    b"[" * 100_000, b'{"a":' * 50_000 + b"1" + b"}" * 50_000, b'{"a": ' + b"7" * 5000 + b"}", b'{"a": 1e999}',
]  # fmt: skip
"""Contents in the place of a JSON file's: torn, of another encoding, too deep, too long a number."""


def bytes_changed(raw: bytes, pick: random.Random) -> bytes:
    """Bits flipped, a piece cut out, repeated, overwritten, or the end cut off."""
    changed = bytearray(raw)
    for _ in range(pick.choice((1, 1, 2, 5))):
        at = pick.randrange(len(changed) + 1)
        size = pick.choice((1, 2, 4, 8, 64))
        kind = pick.randrange(5)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << pick.randrange(8)
        elif kind == 1:
            del changed[at : at + size]
        elif kind == 2:
            changed[at:at] = changed[at : at + size]
        elif kind == 3:
            changed[at : at + size] = pick.choice((b"\0", b"\xff", b"\x7f")) * size
        else:
            del changed[at:]
    return bytes(changed)


def value_changed(value: Any, pick: random.Random) -> Any:
    """A JSON value in which something is replaced, left out or repeated."""
    changed = copy.deepcopy(value)
    for _ in range(pick.choice((1, 1, 1, 2))):
        places = list(_places(changed))
        if not places:
            return copy.deepcopy(pick.choice(WEIRD))
        within, key = pick.choice(places)
        kind = pick.randrange(6)
        if kind == 0:
            del within[key]
        elif kind == 1 and isinstance(within, list):
            within.append(within[key])
        elif kind == 2 and type(within[key]) is int:
            within[key] += pick.choice((-1, 1, 1 << 16, 1 << 30, 1 << 40))
        else:
            within[key] = copy.deepcopy(pick.choice(WEIRD))
    return changed


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Where in a JSON value something stands; of a long list or object some places only."""
    if isinstance(value, dict | list):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        for key in [*keys[:40], *keys[-3:]]:
            if key in value if isinstance(value, dict) else True:
                yield value, key
                yield from _places(value[key])


def damaged_json(raw: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Contents of a JSON file: each of `WHOLE`, then changed values and changed bytes in turn."""
    pick = random.Random(seed)
    yield from WHOLE
    for number in range(count):
        if number % 3:
            yield json.dumps(value_changed(json.loads(raw), pick)).encode()
        else:
            yield bytes_changed(raw, pick)


def damaged_bytes(raw: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Contents of a binary file: nothing, noughts, then changed bytes."""
    pick = random.Random(seed)
    yield from (b"", bytes(len(raw)), raw[:-1], raw + raw)
    for _ in range(count):
        yield bytes_changed(raw, pick)


def survive(path: Path, contents: Iterator[bytes], read: Callable[[], object]) -> int:
    """Read a file with each of these contents: only InputError of one line may come out, and memory stays small.

    Returns:
        How many contents were refused.

    """
    raw = path.read_bytes()
    refused = 0
    most = 0
    before = _peak()
    for content in contents:
        most = max(most, len(content))
        path.write_bytes(content)
        try:
            read()
        except InputError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 2000, str(error)
        except BaseException as error:
            kept = path.with_name(f"leak-{path.name}")
            kept.write_bytes(content)
            raise AssertionError(f"{type(error).__name__} at {kept}") from error
    path.write_bytes(raw)
    read()
    assert _peak() - before < 200e6 + 4 * most
    return refused


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
