"""Documents out of text files, and several texts mixed into one."""

import glob
import hashlib
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from jaxmlm.data import compression as packed
from jaxmlm.data import remote as cloud
from jaxmlm.errors import InputError, brief
from jaxmlm.textfiles import BOM, lines

Layout = Literal["blank-line", "line", "file", "jsonl"]
Item = TypeVar("Item")
GROUP = 1 << 28
"""Files are read in groups of about so many bytes on disk, which machines can share among them."""
LINE = 1 << 28
"""The most bytes of a line: all of it is in memory, some times, and a packed file may hold it in a few kilobytes."""
LONGEST = 1 << 28
"""The most characters of a document of several lines: all of it is in memory, some ten times."""
MOST_NAMED = 20
"""Fields that a message names."""
BEGINNING = 1 << 12
"""Bytes of a file within which a NUL shows that it is no text; later on it is one bad character."""


WITH_FIELDS = {"tfds"}
"""Prefixes of the sources whose examples have fields, of which `data.field` names the one that is read."""


def has_fields(text: str) -> bool:
    """Whether a text is of a source whose examples have fields.

    >>> has_fields("tfds:lm1b"), has_fields("my.txt")
    (True, False)
    """
    return text.partition(":")[0] in WITH_FIELDS


class Document(NamedTuple):
    """A text with its id: it is the `number`-th document (from 0) of the `file`-th file of its source."""

    text: str
    number: int
    file: int = 0
    read: int = 0
    """How much of its group is read with it, in the unit of the group's size."""


class Group(NamedTuple):
    """A part of a source that can be read without the others; gives the same documents each time."""

    documents: Callable[[], Iterator[Document]]
    size: int = 0
    """In bytes of the files, or in documents where there are none; 0 if nobody knows."""


class TextSource(NamedTuple):
    """A text: its groups of documents, and what the manifest of a store says of its files."""

    groups: list[Group]
    about: list[dict[str, Any]]

    @classmethod
    def of(cls, texts: Callable[[], Iterable[str]], about: dict[str, Any], size: int = 0) -> "TextSource":
        """A source of one group out of texts; `size` is their number.

        >>> source = TextSource.of(lambda: ["one", "two"], {"file": "mine"})
        >>> [document.text for document in source.documents()]
        ['one', 'two']
        """
        one = Group(lambda: (Document(text, i, 0, i + 1) for i, text in enumerate(texts())), size)
        return cls([one], [about])

    def documents(self) -> Iterator[Document]:
        """The documents of all groups, in order."""
        return itertools.chain.from_iterable(group.documents() for group in self.groups)


def mixed(
    streams: Sequence[Iterator[Item]],
    weights: Sequence[float],
    size: Callable[[Item], int],
    taken: Sequence[int] | None = None,
) -> Iterator[Item]:
    """Items of several streams in turn, so that the sizes taken from them keep to the weights all the way.

    `taken` has been taken from each before.

    The next item is of the stream that is furthest behind its weight; when that one has ended, so has the mix. Each
    share of the whole is off by less than the largest item.

    >>> "".join(mixed([iter("aaaa"), iter("bbbb")], [3.0, 1.0], len))
    'abaaab'
    """
    taken = list(taken or [0] * len(streams))
    while True:
        due = min(range(len(streams)), key=lambda i: taken[i] / weights[i])
        try:
            item = next(streams[due])
        except StopIteration:
            return
        taken[due] += size(item)
        yield item


def files(text: str) -> list[Path]:
    """The files that a path or glob names (several patterns are separated by commas), sorted within a pattern."""
    found: list[Path] = []
    for pattern in text.split(","):
        paths = cloud.texts(pattern.strip()) if cloud.remote(pattern) else _on_disk(pattern.strip())
        if not paths:
            raise InputError(f"no text file at {pattern!r}: give the path or glob of {packed.READ}")
        if empty := [path for path in paths if path.stat().st_size == 0]:
            raise InputError(f"{empty[0]} is empty: give a file with text in it")
        for path in paths:
            packed.check(path)
        found += paths
    return found


def _on_disk(pattern: str) -> list[Path]:
    name = str(Path(pattern).expanduser())
    names = [name] if Path(name).is_file() else sorted(glob.glob(name, recursive=True))
    return [Path(name) for name in names if Path(name).is_file()]


def fingerprint(paths: list[Path]) -> list[dict]:
    """Name, size and SHA-256 of each file, for the manifest of a store."""
    return [{"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)} for path in paths]


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def text_source(paths: list[Path], layout: Layout = "blank-line", field: str = "text") -> TextSource:
    """These files as a source: groups of whole files."""
    groups, first, size = [], 0, 0
    for end, path in enumerate(paths, 1):
        size += path.stat().st_size
        if size >= GROUP or end == len(paths):
            groups.append(Group(partial(documents, paths[first:end], layout, field, first), size))
            first, size = end, 0
    return TextSource(groups, fingerprint(paths))


def documents(
    paths: list[Path], layout: Layout = "blank-line", field: str = "text", first: int = 0
) -> Iterator[Document]:
    """The documents of these files, in order; `first` is the number of the first of the files.

    `blank-line`: documents are separated by blank lines; `line`: each line is one; `file`: each file is one;
    `jsonl`: each line is a JSON object whose `field` is one.
    A line ends as on any system (`textfiles.lines`), and begins without a byte-order mark; bytes that are not UTF-8
    are an error that says where. Each file in a .zip is read by itself.
    """
    before = 0
    for file, path in enumerate(paths, first):
        for number, (text, read) in enumerate(_texts(path, layout, field)):
            yield Document(text, number, file, before + read)
        before += path.stat().st_size


def _texts(path: Path, layout: Layout, field: str) -> Iterator[tuple[str, int]]:
    with open(path, "rb") as file:
        for name, stream in packed.streams(file, path):
            for text in _texts_of(name, stream, layout, field):
                yield text, file.tell()


def _texts_of(name: str, stream: io.BufferedIOBase, layout: Layout, field: str) -> Iterator[str]:
    pending: list[str] = []
    size = 0
    for number, line in enumerate(_lines(name, stream), 1):
        if layout == "jsonl":
            if line:
                yield _of_json(line, field, f"{name}, line {number}")
        elif layout == "line":
            if line:
                yield line
        elif line or layout == "file":
            pending.append(line)
            size += len(line) + 1
            if size > LONGEST:
                raise InputError(
                    f"{name}, line {number}: a document of more than {LONGEST >> 20:,} Mi characters ends here or "
                    "later: if each line is a document, give --data.layout line; else break it up"
                )
        elif pending:
            yield "\n".join(pending)
            pending, size = [], 0
    if any(pending):
        yield "\n".join(pending)


def _of_json(line: str, field: str, where: str) -> str:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise InputError(f"{where}: not JSON ({str(e).partition(';')[0]}): a .jsonl file has one object a line") from e
    if not isinstance(found, dict):
        raise InputError(f"{where}: a JSON {_KINDS[type(found)]}, not an object: a .jsonl file has one object a line")
    value = found
    for key in [field] if field in found else field.split("."):  # "meta.text" stands in an object within
        value = value.get(key, _LACKING) if isinstance(value, dict) else _LACKING
    if isinstance(value, str):
        return value
    texts = ", ".join(itertools.islice(_text_fields(found), MOST_NAMED))[:500] or "none"
    if value is _LACKING:
        raise InputError(f"{where}: no text field {field!r}; there are {texts}: name one as --data.field")
    raise InputError(
        f"{where}: the field {field!r} holds a JSON {_KINDS[type(value)]}, not text: leave such lines out, or name "
        f"another field (there are {texts}) as --data.field"
    )


_LACKING = object()
_KINDS = {
    **{type(None): "null", bool: "boolean", int: "number", float: "number"},
    **{str: "string", list: "list", dict: "object"},
}


def _text_fields(found: dict[str, Any], within: str = "", depth: int = 5) -> Iterator[str]:
    """The names of the fields that hold text, those in nested objects by the way to them."""
    for key, value in found.items():
        if isinstance(value, str):
            yield within + key
        elif isinstance(value, dict) and depth:
            yield from _text_fields(value, f"{within}{key}.", depth - 1)


def _lines(name: str, stream: io.BufferedIOBase) -> Iterator[str]:
    """The lines of a text without the space around them."""
    number = begin = 0
    try:
        for number, raw in enumerate(lines(stream, LINE), 1):  # noqa: B007 (messages of what fails tell it)
            if len(raw) > LINE:
                raise InputError(
                    f"{name}, line {number}: a line of more than {LINE >> 20:,} MiB, from byte {begin} on: is it "
                    "text? Break it up, or leave the file out"
                )
            line = raw.decode("utf-8")
            if "\0" in line and begin < BEGINNING:
                raise InputError(
                    f"{name}, line {number}: a NUL byte, so this is no UTF-8 text: unpack an archive (tar) first, "
                    "and convert UTF-16, for example with iconv -f UTF-16LE -t UTF-8"
                )
            yield line.lstrip(BOM).strip()
            begin += len(raw)
    except UnicodeDecodeError as e:
        raise InputError(
            f"{name}, line {number}: not UTF-8 text ({e.reason} at byte {begin + e.start} of the file): convert it, "
            "for example with iconv -t UTF-8, or leave it out if it is no text at all"
        ) from e
    except packed.BROKEN as e:
        raise InputError(f"{name}, after line {number}: cannot be read ({brief(e)}): is the file complete?") from e
