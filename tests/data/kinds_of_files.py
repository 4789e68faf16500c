"""The same documents as files of every kind, for several tests."""

import bz2
import csv
import gzip
import io
import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as parquet

from jaxmlm.data import Data, Store
from jaxmlm.data.manifest import MANIFEST
from jaxmlm.data.opening import open_store
from jaxmlm.data.verification import RECORD

WORDS = "the a cat dogs runs sees house tree big small red under over".split()
TEXTS = [" ".join(WORDS[(i * k) % 13] for k in range(1, 12)) + f' {i}, he said: "caf\u00e9"' for i in range(120)]
TEXTS[7] = "two lines\nof a text,\n\tand a tab"
TABLE = pa.table({"id": range(len(TEXTS)), "text": TEXTS, "other": [{"n": 1}] * len(TEXTS)})
DATA = Data(vocab=60, valid=0.2, length=16)


def parquet_of(table: pa.Table, **options) -> bytes:
    out = io.BytesIO()
    parquet.write_table(table, out, **options)
    return out.getvalue()


def arrow_of(table: pa.Table, stream: bool, rows: int = 50, **options) -> bytes:
    out = io.BytesIO()
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with make(out, table.schema, **options) as writer:
        writer.write_table(table, max_chunksize=rows)
    return out.getvalue()


def csv_of(texts: list[str]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["id", "text"])
    writer.writerows(enumerate(texts))
    return out.getvalue().encode()


TEXT = "\n\n".join(TEXTS).replace("\t", "").encode()
JSON = "\n".join(json.dumps({"id": i, "text": text}) for i, text in enumerate(TEXTS)).encode()
FORMS = {
    "a.jsonl": JSON,
    "a.jsonl.bz2": bz2.compress(JSON),
    "one-row.parquet": parquet_of(TABLE, row_group_size=1),
    "seven-rows.parquet": parquet_of(TABLE, row_group_size=7, compression="zstd", use_dictionary=False),
    "all-rows.parquet": parquet_of(TABLE),
    "stream.arrow": arrow_of(TABLE, True),
    "file.arrow": arrow_of(TABLE, False, options=pa.ipc.IpcWriteOptions(compression="zstd")),
    "a.feather": arrow_of(TABLE, False, rows=3),
    "a.csv": csv_of(TEXTS),
    "a.csv.gz": gzip.compress(b"\xef\xbb\xbf" + csv_of(TEXTS)),
}


def contents(store: Store) -> dict:
    """The files of a store; of its manifest all but what names the text."""
    found = {path.name: path.read_bytes() for path in store.directory.iterdir() if path.name not in (RECORD, MANIFEST)}
    manifest = {key: value for key, value in store.manifest.items() if key not in ("source", "data", "checksum")}
    return {**found, MANIFEST: manifest}


def made(text: str, directory, **options) -> dict:
    return contents(
        open_store(replace(DATA, text=text, store=str(directory), **options), directory.parent, notes=False)
    )
