"""Documents out of a column of a CSV or TSV file."""

import csv
import io
from collections.abc import Iterator

from jaxmlm.data.layouts import LONGEST, MOST_NAMED, text_lines
from jaxmlm.errors import InputError, brief

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""What is between two values, by the ending of a file's name."""


def separated(name: str, ending: str, stream: io.BufferedIOBase, field: str) -> Iterator[str]:
    """The texts of a column of a CSV or TSV file, whose first line names the columns.

    CSV as RFC 4180 has it: a value in quotation marks may hold commas, quotation marks written twice and line ends. A
    TSV (IANA text/tab-separated-values) has no quoting: a quotation mark is one.

    Args:
        name: what messages call the file.
        ending: of its name; a key of `DELIMITERS`.
        stream: its bytes, unpacked.
        field: the column.

    Raises:
        InputError: there is no such column, or a row has another number of values than the first line.

    """
    allow_long_fields()
    quoting = csv.QUOTE_NONE if ending == ".tsv" else csv.QUOTE_MINIMAL
    lines = (line.replace("\r\r\n", "\n") for line in text_lines(name, stream))
    rows = csv.reader(lines, delimiter=DELIMITERS[ending], quoting=quoting, strict=True)
    names: list[str] = []
    row = 0
    try:
        names = next(rows, [])
        if names.count(field) != 1:
            there = ", ".join(names[:MOST_NAMED])[:500] or "none"
            what = "no column" if field not in names else "more than one column"
            raise InputError(
                f"{name}: {what} {field!r} in its first line, which names {there}: name one as --data.field"
            )
        at = names.index(field)
        for values in rows:
            if not values:  # an empty line
                continue
            row += 1
            if len(values) != len(names):
                raise InputError(
                    f"{name}, row {row} (line {rows.line_num}): {len(values)} values, and the first line names "
                    f"{len(names)} columns: put a value that holds {_word(ending)} in quotation marks, or write JSON "
                    "lines or Parquet"
                )
            yield values[at]
    except csv.Error as error:
        raise InputError(
            f"{name}, after row {row} (line {rows.line_num}): cannot be read as {ending[1:].upper()} "
            f"({brief(error)}): is a quotation mark left open?"
        ) from error


def allow_long_fields() -> None:
    """Let the library read values as long as a document; its own limit, one for all of the process, is 128 KiB."""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST))


def _word(ending: str) -> str:
    return "a comma" if ending == ".csv" else "a tab"
