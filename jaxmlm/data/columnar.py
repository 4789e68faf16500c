"""Documents out of a column of a Parquet or Arrow file, some rows in memory at a time."""

import io
import itertools
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import ipc, parquet

from jaxmlm.data.compression import PARQUET
from jaxmlm.data.layouts import MOST_NAMED
from jaxmlm.errors import InputError, brief

ROWS = 128
"""Rows of a Parquet file that are decoded at once: a row may be a book."""
BUFFER = 1 << 20
"""Bytes of a column of a Parquet file that are read at once, so that a row group may be larger than memory."""
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"
_FILE_BEGINNING = b"ARROW1"


def column(name: str, ending: str, stream: io.BufferedIOBase, field: str) -> Iterator[tuple[str, int]]:
    """The texts of a column of a Parquet or Arrow file, and how many bytes of the file are read with each.

    Args:
        name: what messages call the file.
        ending: of its name; one of `compression.COLUMNAR`.
        stream: its bytes, which can be read from anywhere.
        field: the column; `meta.text` is a field of a column of structs.

    Raises:
        InputError: the file is cut off, encrypted or another one, there is no such column, or a row holds no text.

    """
    row = 0
    try:
        batches = _parquet(name, stream, field) if ending in PARQUET else _arrow(name, stream, field)
        for values, read in batches:
            for row, value in enumerate(values, row + 1):  # noqa: B020 (rows are counted over all batches)
                text = value.as_py()
                if text is None:
                    raise InputError(
                        f"{name}, row {row}: the column {field!r} holds null, not text: leave such rows out, or name "
                        "another column as --data.field"
                    )
                yield text, read
    except InputError:
        raise
    except Exception as error:  # of Arrow, Python's files and file systems in a network: they have no common base
        kind = "Parquet" if ending in PARQUET else "Arrow"
        raise InputError(
            f"{name}, after row {row}: cannot be read as {kind} ({brief(error)}): is it complete, and not encrypted?"
        ) from error


def _parquet(name: str, stream: io.BufferedIOBase, field: str) -> Iterator[tuple[pa.Array, int]]:
    table = parquet.ParquetFile(stream, buffer_size=BUFFER, pre_buffer=False)
    _check_column(name, table.schema_arrow, field)
    rows = table.metadata.num_rows
    size = stream.seek(0, io.SEEK_END)
    done = 0
    for batch in table.iter_batches(ROWS, columns=[field], use_threads=False):
        done += batch.num_rows
        yield _values(batch, field), size * done // rows
    if done != rows:
        raise EOFError(f"{done} of {rows} rows are there")


def _arrow(name: str, stream: io.BufferedIOBase, field: str) -> Iterator[tuple[pa.Array, int]]:
    in_blocks = stream.read(len(_FILE_BEGINNING)) == _FILE_BEGINNING  # an IPC file, not an IPC stream
    size = stream.seek(0, io.SEEK_END)
    if not in_blocks:
        stream.seek(max(size - len(_STREAM_END), 0))
        if stream.read() != _STREAM_END:  # without it a file that was cut off between two batches is read as complete
            raise EOFError("it does not end as an Arrow stream does")
    opened = ipc.open_file if in_blocks else ipc.open_stream
    stream.seek(0)
    schema = opened(stream).schema
    _check_column(name, schema, field)
    wanted = field if field in schema.names else field.partition(".")[0]
    options = ipc.IpcReadOptions(included_fields=[schema.get_field_index(wanted)], use_threads=False)
    stream.seek(0)
    table = opened(stream, options=options)
    batches = map(table.get_batch, range(table.num_record_batches)) if in_blocks else table
    for batch in batches:
        yield _values(batch, field), min(stream.tell(), size)


def _values(batch: pa.RecordBatch, field: str) -> pa.Array:
    """The column of a batch; of a column of structs the field in it, null where the struct is null."""
    names = [field] if field in batch.schema.names else field.split(".")
    found: Any = batch.column(names[0])
    found.validate(full=True)  # of a damaged file the library would read anywhere in memory
    for name in names[1:]:
        found = pc.struct_field(found, name)  # pyright: ignore[reportAttributeAccessIssue] (made as it is imported)
    return found


def _check_column(name: str, schema: pa.Schema, field: str) -> None:
    columns = dict(_columns(schema))
    texts = ", ".join(itertools.islice((key for key, kind in columns.items() if _is_text(kind)), MOST_NAMED))
    there = texts[:500] or "none"
    if field not in columns:
        raise InputError(f"{name}: no column {field!r}; there are {there}: name one as --data.field")
    if schema.names.count(field) > 1:
        raise InputError(f"{name}: {schema.names.count(field)} columns are called {field!r}: rename all but one")
    if not _is_text(columns[field]):
        raise InputError(
            f"{name}: the column {field!r} holds {columns[field]}, not text: name another one as --data.field "
            f"(there are {there})"
        )


def _columns(fields: Any, within: str = "", depth: int = 5) -> Iterator[tuple[str, pa.DataType]]:
    """The columns and their types, those in structs by the way to them."""
    for field in fields:
        yield within + field.name, field.type
        if pa.types.is_struct(field.type) and depth:
            yield from _columns(field.type, f"{within}{field.name}.", depth - 1)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
