"""Tables of sentences with labels: what their columns mean, and how their files are read.

A file is tab-separated without quoting, as GLUE's are, or a CSV file with quoting, by its name.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmlm.errors import InputError
from jaxmlm.tasks import file_formats
from jaxmlm.tasks.file_formats import brief

DEV_SHARE = 0.1
"""Share of the rows that a table without a dev file gives up for it."""
_MOST_CLASSES = 100
FORMATS = "give a .csv (commas, quoted fields) or a .tsv (tabs, unquoted) in UTF-8, whose first line names its columns"
"""What is said of a file of another format."""


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


class Examples(NamedTuple):
    """Sentences, one list for each text column; labels: class numbers, or scores (None: not given); ids as written."""

    table: Table
    texts: tuple[list[str], ...]
    labels: np.ndarray | None
    ids: list[str]
    left_out: int = 0
    """Rows of the file that are none of these, as they were broken over lines."""

    def __len__(self) -> int:
        return len(self.ids)

    def some(self, kept: np.ndarray) -> "Examples":
        """The rows with these numbers, in this order."""
        return Examples(
            self.table,
            tuple([column[i] for i in kept] for column in self.texts),
            None if self.labels is None else self.labels[kept],
            [self.ids[i] for i in kept],
        )


class Sets(NamedTuple):
    """What a task is trained and evaluated on, and in `notes` what is not as its makers had it.

    `evaluated` by the name of the evaluation, the main one ("dev") first.
    """

    train: Examples
    evaluated: dict[str, Examples]
    notes: tuple[str, ...] = ()

    @property
    def table(self) -> Table:
        """What is learned."""
        return self.train.table


def read(
    table: Table,
    lines: Iterable[tuple[int, list[str]]],
    path: str | Path,
    labelled: bool = True,
    broken: bool = False,
) -> Examples:
    """The rows in numbered lines of fields; InputError names `path` and the line of what is wrong.

    `broken`: the file is known for rows that are broken over lines; those with too few fields are left out and counted.
    """
    lines = iter(lines)
    number, columns = (1, list(table.header)) if table.header else next(lines, (1, []))
    wanted = (*table.texts, *([table.label] if labelled else []))
    if missing := [name for name in wanted if name not in columns]:
        there = f"{path}:{number}: no column {missing[0]!r}; there are: {_named(columns)}"
        raise InputError(there + ("; rows without labels cannot be scored" if missing[0] == table.label else ""))
    where = [columns.index(name) for name in table.texts]
    label = columns.index(table.label) if labelled else None
    key = next((columns.index(name) for name in ("index", "id", "idx") if name in columns), None)
    texts = tuple([] for _ in table.texts)
    labels = []
    ids = []
    lines_of = {}
    left_out = 0
    for number, fields in lines:
        if broken and len(fields) < len(columns):
            left_out += 1
            continue
        if len(fields) != len(columns):
            raise InputError(f"{path}:{number}: {len(fields)} fields, expected {len(columns)}: {_named(columns)}")
        if label is not None:
            labels.append(_label(table, fields[label], f"{path}:{number}"))
        for text, column in zip(texts, where, strict=True):
            text.append(fields[column])
        if key is None or fields[key] == "n/a":
            ids.append(str(len(ids)))
            continue
        ids.append(fields[key])
        if (first := lines_of.setdefault(ids[-1], number)) != number:
            raise InputError(f"{path}:{number}: the {columns[key]} {brief(ids[-1])!r} is that of line {first} already")
    if not ids:
        raise InputError(f"{path}: no rows: expected at least one below the header")
    kind = np.int32 if table.labels else np.float32
    return Examples(table, texts, np.array(labels, kind) if labelled else None, ids, left_out)


def from_mappings(table: Table, rows: Iterable[Mapping[str, Any]], where: str, labelled: bool = True) -> Examples:
    """The examples in rows that map column names to values, as lines of JSON do.

    Args:
        table: which columns hold what; a value that is not a text is read as JSON writes it (true, 3).
        rows: the rows; a column "id" names them, else they are counted.
        where: what an error message calls them.
        labelled: whether they have labels.

    """
    kept = (*table.texts, *([table.label] if labelled else []))

    def lines() -> Iterator[tuple[int, list[str]]]:
        for number, row in enumerate(rows, 1):
            if missing := [name for name in kept if name not in row]:
                raise InputError(f"{where}:{number}: no column {missing[0]!r}; there are: {_named(list(row))}")
            values = [row[name] for name in kept] + [row.get("id", number - 1)]
            yield number, [value if isinstance(value, str) else json.dumps(value, default=_item) for value in values]

    found = read(replace(table, header=(*kept, "id")), lines(), where, labelled)
    return Examples(table, found.texts, found.labels, found.ids)


def _item(value: Any) -> Any:
    """The number in a NumPy scalar, as columns of a data frame have them; what is not one (a date) as it is written."""
    return value.item() if isinstance(value, np.generic) else str(value)


def own(path: str | Path, dev: str | Path | None = None, regression: bool = False) -> Sets:
    """A CSV or TSV file of one's own: columns text, label, perhaps text_b and id; its labels are classes or numbers.

    Labels that are all numbers, not all of them whole, are predicted as numbers; so are whole ones where `regression`
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
    if regression and not values:
        bad = next(text for text in written if not _is_number(text))
        raise InputError(
            f"{path}: numbers are asked for and a label is {brief(bad)!r}: leave out --regression for classes"
        )
    if values and (regression or not all(value.is_integer() for value in values)):
        low = min(values)
        high = max(values)
        if not low < high or not math.isfinite(low) or not math.isfinite(high):
            raise InputError(f"{path}: the labels go from {low:g} to {high:g}: expected numbers that differ")
        table = replace(plain, low=low, high=high, metrics=("spearman", "pearson"), averaged=True)
    else:
        seen = set(_column(plain, path))
        if len(seen) < 2 or len(seen) > _MOST_CLASSES:
            hint = "numbers to predict? give --regression" if values else "expected a class name in each row"
            hint = "expected at least two" if len(seen) < 2 else hint
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


def is_table(path: str) -> bool:
    """Whether a file is one that is read as a table, by its name.

    >>> is_table("Reviews.CSV"), is_table("reviews.txt")
    (True, False)
    """
    return Path(path).suffix.lower() in (".csv", ".tsv")


def fields_of(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields of a .csv file (quoted) or a .tsv file (tabs, quotation marks are text)."""
    if not is_table(path.name):
        raise InputError(f"{path} is not a table that can be read: {FORMATS}")
    if not path.is_file():
        raise InputError(f"{path} is missing")
    with path.open("rb") as file:
        yield from (file_formats.read_csv if path.suffix.lower() == ".csv" else file_formats.read_tabs)(file, path)


def _column(table: Table, path: Path) -> list[str]:
    """The labels as written; the other columns are checked on the way."""
    lines = fields_of(path)
    number, columns = next(lines, (1, []))
    if missing := [name for name in (*table.texts, table.label) if name not in columns]:
        raise InputError(f"{path}:{number}: no column {missing[0]!r}; there are: {_named(columns)}")
    at = columns.index(table.label)
    found = []
    for number, fields in lines:
        if len(fields) != len(columns):
            raise InputError(f"{path}:{number}: {len(fields)} fields, expected {len(columns)}: {_named(columns)}")
        if not fields[at].strip():
            raise InputError(f"{path}:{number}: an empty label")
        found.append(fields[at])
    if not found:
        raise InputError(f"{path}: no rows: expected at least one below the header")
    return found


def _named(names: Sequence[str]) -> str:
    """Columns or labels in a message, which stays one line whatever the file holds."""
    return brief(", ".join(names)) or "none"


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _label(table: Table, text: str, where: str) -> int | float:
    if table.labels:
        if text not in table.labels:
            raise InputError(
                f"{where}: unknown label {brief(text)!r} in {table.label}, expected one of: {_named(table.labels)}"
            )
        return table.labels.index(text)
    value = float(text) if _is_number(text) else float("nan")
    if not table.low <= value <= table.high:
        raise InputError(
            f"{where}: {table.label} is {brief(text)!r}, expected a number from {table.low:g} to {table.high:g}"
        )
    return value


def _hash(texts: Iterable[str]) -> float:
    digest = hashlib.blake2b("\t".join(texts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def write(rows: Examples, predictions: np.ndarray, path: Path, truth: bool = False) -> None:
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
    file_formats.write_table(path, lines)
