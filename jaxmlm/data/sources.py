"""Documents out of text files, and several texts mixed into one."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from jaxmlm.data import compression as packed
from jaxmlm.data.columnar import column
from jaxmlm.data.files import JSON_LINES, File, check_unchanged, files, fingerprint, version
from jaxmlm.data.layouts import Layout, texts_in
from jaxmlm.data.separated import DELIMITERS, separated

Item = TypeVar("Item")
GROUP = 1 << 28
"""Files are read in groups of about so many bytes on disk, which machines can share among them."""


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


def open_files(text: str, layout: Layout = "blank-line", field: str = "text") -> TextSource:
    """The files that a path, glob, directory or URL names, as a source."""
    return text_source(files(text), layout, field)


def text_source(paths: Sequence[File], layout: Layout = "blank-line", field: str = "text") -> TextSource:
    """These files as a source: groups of whole files."""
    versions = [version(path) for path in paths]
    groups = []
    first = 0
    size = 0
    for end, (bytes_, _) in enumerate(versions, 1):
        size += bytes_
        if size >= GROUP or end == len(paths):
            some = slice(first, end)
            groups.append(Group(partial(documents, paths[some], layout, field, first, versions[some]), size))
            first = end
            size = 0
    return TextSource(groups, [fingerprint(path, before) for path, before in zip(paths, versions, strict=True)])


def documents(
    paths: Sequence[File],
    layout: Layout = "blank-line",
    field: str = "text",
    first: int = 0,
    versions: Sequence[tuple[int, str]] | None = None,
) -> Iterator[Document]:
    """The documents of these files, in order.

    The ending of a name decides what a file is: .jsonl, .csv, .tsv, .parquet, .arrow; anything else is text. A line
    ends as on any system (`textfiles.lines`), and begins without a byte-order mark. Each file in a .zip is read by
    itself.

    Args:
        paths: the files, which `files` finds.
        layout: of text: `blank-line`: documents are separated by blank lines; `line`: each line is one; `file`: each
            file is one; `jsonl`: each line is a JSON object whose `field` is one.
        field: the field of JSON lines, or the column of a table.
        first: the number of the first of the files.
        versions: what `version` has said of each file; asked for if not given.

    Raises:
        InputError: a file is not what its name says, holds no such field, is not complete, or changes while it is
            read; the message has the line or row.

    """
    before = 0
    for i, path in enumerate(paths):
        began = versions[i] if versions else version(path)
        for number, (text, read) in enumerate(_texts(path, layout, field)):
            yield Document(text, number, first + i, before + read)
        check_unchanged(path, began)
        before += began[0]


def _texts(path: File, layout: Layout, field: str) -> Iterator[tuple[str, int]]:
    with path.open("rb") as file:
        if (ending := path.suffix.lower()) in packed.COLUMNAR:
            yield from column(str(path), ending, file, field)
            return
        for name, ending, stream in packed.streams(file, path):
            if ending in DELIMITERS:
                found = separated(name, ending, stream, field)
            else:
                found = texts_in(name, stream, "jsonl" if ending in JSON_LINES else layout, field)
            for text in found:
                yield text, file.tell()
