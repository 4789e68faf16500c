"""Tables of sentences with labels: what their columns mean, and how their files are read.

A file is tab-separated without quoting, as GLUE's are, or a CSV file with quoting, by its name.
"""

import csv
import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmlm.errors import InputError

DEV_SHARE = 0.1
"""Share of the rows that a table without a dev file gives up for it."""
_MOST_CLASSES = 100


@dataclass(frozen=True)
class Table:
    """Which columns hold what, which labels there are, which scores count."""

    name: str
    texts: tuple[str, ...]
    """The columns of the one or two sentences."""
    label: str
    """The column of the label."""
    labels: tuple[str, ...] = ()
    """Label names as the files have them, in the order of the class numbers; none: a number is predicted."""
    low: float = 0.0
    high: float = 5.0
    """The range of that number."""
    decimals: int | None = None
    """Of that number in a prediction file, where it is clipped to its range; None: as it is."""
    metrics: tuple[str, ...] = ("accuracy",)
    """The official scores, the main one first (as in table 1 of the BERT paper)."""
    averaged: bool = False
    """Whether the benchmark counts their mean."""
    header: tuple[str, ...] = ()
    """The names of the columns where the file itself has no header line."""

    @property
    def classes(self) -> int:
        """How many numbers the classifier gives: 1 where a number is predicted."""
        return len(self.labels) or 1


class Rows(NamedTuple):
    """Sentences, one list for each text column; labels: class numbers, or scores (None: not given); ids as written."""

    table: Table
    texts: tuple[list[str], ...]
    labels: np.ndarray | None
    ids: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    def some(self, kept: np.ndarray) -> "Rows":
        """The rows with these numbers, in this order."""
        return Rows(
            self.table,
            tuple([column[i] for i in kept] for column in self.texts),
            None if self.labels is None else self.labels[kept],
            [self.ids[i] for i in kept],
        )


class Sets(NamedTuple):
    """What a task trains and is judged on, and in `notes` what is not as its makers had it.

    `judged` by the name of the judgement, the main one ("dev") first.
    """

    train: Rows
    judged: dict[str, Rows]
    notes: tuple[str, ...] = ()

    @property
    def table(self) -> Table:
        """What is learned."""
        return self.train.table


def read(table: Table, lines: Iterable[tuple[int, list[str]]], path: str | Path, labelled: bool = True) -> Rows:
    """The rows in numbered lines of fields; InputError names `path` and the line of what is wrong."""
    lines = iter(lines)
    number, columns = (1, list(table.header)) if table.header else next(lines, (1, []))
    wanted = (*table.texts, *([table.label] if labelled else []))
    if missing := [name for name in wanted if name not in columns]:
        there = f"{path}:{number}: no column {missing[0]!r}; there are: {', '.join(columns) or 'none'}"
        raise InputError(there + ("; rows without labels cannot be scored" if missing[0] == table.label else ""))
    where, label = [columns.index(name) for name in table.texts], columns.index(table.label) if labelled else None
    key = next((columns.index(name) for name in ("index", "id", "idx") if name in columns), None)
    texts, labels, ids, lines_of = tuple([] for _ in table.texts), [], [], {}
    for number, fields in lines:
        if len(fields) != len(columns):
            raise InputError(f"{path}:{number}: {len(fields)} fields, expected {len(columns)}: {', '.join(columns)}")
        if label is not None:
            labels.append(_label(table, fields[label], f"{path}:{number}"))
        for text, column in zip(texts, where, strict=True):
            text.append(fields[column])
        if key is None or fields[key] == "n/a":
            ids.append(str(len(ids)))
            continue
        ids.append(fields[key])
        if (first := lines_of.setdefault(ids[-1], number)) != number:
            raise InputError(f"{path}:{number}: the {columns[key]} {ids[-1]!r} is that of line {first} already")
    if not ids:
        raise InputError(f"{path}: no rows: expected at least one below the header")
    return Rows(table, texts, np.array(labels, np.int32 if table.labels else np.float32) if labelled else None, ids)


def own(path: str | Path, dev: str | Path | None = None, numbers: bool = False) -> Sets:
    """A CSV or TSV file of one's own: columns text, label, perhaps text_b and id; its labels are classes or numbers.

    Labels that are all numbers, not all of them whole, are predicted as numbers; so are whole ones where `numbers`
    says so. Without a `dev` file a tenth of the rows, chosen by a hash of the texts, so that equal texts stay together.
    """
    path, parts = Path(path), [Path(path), *([Path(dev)] if dev else [])]
    first = next(fields_of(path), (1, []))[1]
    texts = ("text", "text_b") if "text_b" in first else ("text",)
    plain = Table(path.name, texts, "label")
    written = [label for part in parts for label in _column(plain, part)]
    try:
        values = [float(text) for text in written]
    except ValueError:
        values = []
    if numbers and not values:
        bad = next(text for text in written if not _is_number(text))
        raise InputError(f"{path}: numbers are asked for and a label is {bad!r}: leave out --numbers for classes")
    if values and (numbers or not all(value.is_integer() for value in values)):
        low, high = min(values), max(values)
        if not low < high or not math.isfinite(low) or not math.isfinite(high):
            raise InputError(f"{path}: the labels go from {low:g} to {high:g}: expected numbers that differ")
        table = replace(plain, low=low, high=high, metrics=("spearman", "pearson"), averaged=True)
    else:
        seen = set(_column(plain, path))
        if len(seen) < 2 or len(seen) > _MOST_CLASSES:
            hint = "numbers to predict? give --numbers" if values else "expected a class name in each row"
            raise InputError(f"{path}: {len(seen)} different labels in the column 'label': {hint}")
        names = sorted(seen, key=float) if values else sorted(seen)
        table = replace(plain, labels=tuple(names), metrics=("accuracy", "matthews"))
    train = read(table, fields_of(path), path)
    if dev is not None:
        return Sets(train, {"dev": read(table, fields_of(Path(dev)), dev)})
    aside = np.array([_hash(texts) < DEV_SHARE for texts in zip(*train.texts, strict=True)])
    if not aside.any() or aside.all():
        raise InputError(f"{path}: {len(train)} rows are too few to put a tenth aside for dev: give a file by --dev")
    kept, held = (train.some(np.flatnonzero(mask)) for mask in (~aside, aside))
    note = f"dev: {len(held):,} of the {len(train):,} rows of {path.name}, by a hash of their texts"
    return Sets(kept, {"dev": held}, (note,))


def fields_of(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields of a .csv file (quoted), or of any other (tabs, quotation marks are text)."""
    if not path.is_file():
        raise InputError(f"{path} is missing")
    with path.open("rb") as file:
        if path.suffix == ".csv":
            yield from _quoted(file, path)
        else:
            yield from tabs(file, path)


def tabs(lines: Iterable[bytes], path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields. Quotation marks are text: the official files are written without quoting."""
    for number, raw in enumerate(lines, 1):
        yield number, _decoded(raw, path, number).rstrip("\r\n").split("\t")


def _quoted(lines: Iterable[bytes], path: Path) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(1 << 30)
    texts = (_decoded(raw, path, number) for number, raw in enumerate(lines, 1))
    reader, begun = csv.reader(texts, strict=True), 1
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{path}:{begun}: not CSV: {error}") from error
        if fields is None:
            return
        if fields:  # an empty line is none
            yield begun, fields
        begun = reader.line_num + 1


def _decoded(raw: bytes, path: str | Path, number: int) -> str:
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}:{number}: not UTF-8 ({error.reason}): convert the file to UTF-8") from error


def _column(table: Table, path: Path) -> list[str]:
    """The labels as written; the other columns are checked on the way."""
    lines = fields_of(path)
    number, columns = next(lines, (1, []))
    if missing := [name for name in (*table.texts, table.label) if name not in columns]:
        raise InputError(f"{path}:{number}: no column {missing[0]!r}; there are: {', '.join(columns) or 'none'}")
    at = columns.index(table.label)
    found = []
    for number, fields in lines:
        if len(fields) != len(columns):
            raise InputError(f"{path}:{number}: {len(fields)} fields, expected {len(columns)}: {', '.join(columns)}")
        if not fields[at].strip():
            raise InputError(f"{path}:{number}: an empty label")
        found.append(fields[at])
    if not found:
        raise InputError(f"{path}: no rows: expected at least one below the header")
    return found


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _label(table: Table, text: str, where: str) -> int | float:
    if table.labels:
        if text not in table.labels:
            raise InputError(
                f"{where}: unknown label {text!r} in {table.label}, expected one of: {', '.join(table.labels)}"
            )
        return table.labels.index(text)
    value = float(text) if _is_number(text) else float("nan")
    if not table.low <= value <= table.high:
        raise InputError(f"{where}: {table.label} is {text!r}, expected a number from {table.low:g} to {table.high:g}")
    return value


def _hash(texts: Iterable[str]) -> float:
    digest = hashlib.blake2b("\t".join(texts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def write(rows: Rows, predictions: np.ndarray, path: Path, truth: bool = False) -> None:
    """A prediction file as GLUE's test server takes it: index and label name, or number.

    `truth` is for rows with labels: a third column has them, and numbers are written in full.
    """
    table = rows.table

    def said(value: int | float) -> str:
        if table.labels:
            return table.labels[int(value)]
        if truth or table.decimals is None:
            return repr(float(value))
        return f"{np.clip(value, table.low, table.high):.{table.decimals}f}"

    columns = [rows.ids, [said(value) for value in predictions.tolist()]]
    if truth and rows.labels is not None:
        columns.append([said(value) for value in rows.labels.tolist()])
    lines = [("index", "prediction", "label")[: len(columns)], *zip(*columns, strict=True)]
    path.write_text("".join("\t".join(line) + "\n" for line in lines))
