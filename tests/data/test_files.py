"""The same documents from any kind of file give the same store; what is not right is one line."""

import gzip
import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from jaxmlm.data.files import files
from jaxmlm.data.registry import open_source
from jaxmlm.data.sources import documents
from jaxmlm.errors import InputError
from tests.data.kinds_of_files import DATA, FORMS, TABLE, TEXTS, arrow_of, csv_of, made, parquet_of
from tests.data.mutations import damaged_bytes, survive


@pytest.mark.parametrize("name", ["seven-rows.parquet", "stream.arrow", "a.csv", "http"])
def test_any_kind_of_file_gives_the_same_store(forms, server, wanted, tmp_path, name):
    server.content = FORMS
    text = f"{server.url}/all-rows.parquet" if name == "http" else str(forms / name)
    assert made(text, tmp_path / "store") == wanted


@pytest.mark.parametrize("name", FORMS)
def test_any_kind_of_file_gives_the_same_documents(forms, name):
    found = list(documents(files(str(forms / name))))
    assert [document.text for document in found] == TEXTS
    assert [document.number for document in found] == list(range(len(TEXTS)))
    read = [document.read for document in found]
    assert read == sorted(read) and 0 < read[-1] <= len(FORMS[name])


def test_plain_text_gives_the_same_store_as_a_table_of_its_lines(forms, tmp_path):
    lines = [text.replace("\n", " ").replace("\t", " ") for text in TEXTS]
    (tmp_path / "a.txt").write_text("\n\n".join(lines))
    (tmp_path / "a.tsv").write_text("text\tid\n" + "\n".join(f"{text}\t{i}" for i, text in enumerate(lines)))
    parquet.write_table(pa.table({"body": lines}), tmp_path / "a.parquet")
    wanted = made(str(tmp_path / "a.txt"), tmp_path / "text")
    assert made(str(tmp_path / "a.tsv"), tmp_path / "tsv") == wanted
    assert made(str(tmp_path / "a.parquet"), tmp_path / "parquet", field="body") == wanted


def saved_dataset(directory, table: pa.Table, shards: int = 2):
    """As `datasets.Dataset.save_to_disk` writes it."""
    directory.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{shards:05d}.arrow" for i in range(shards)]
    each = -(-len(table) // shards)
    for i, name in enumerate(names):
        (directory / name).write_bytes(arrow_of(table.slice(i * each, each), True))
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "1", "_split": "train"}
    (directory / "state.json").write_text(json.dumps(state))
    (directory / "dataset_info.json").write_text(json.dumps({"features": {"text": {"dtype": "string"}}}))


def test_a_dataset_that_was_saved_to_disk(tmp_path):
    saved_dataset(tmp_path / "wiki" / "train", TABLE)
    (tmp_path / "wiki" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    source = open_source(str(tmp_path / "wiki" / "train"), DATA)
    assert [document.text for document in source.documents()] == TEXTS and len(source.about) == 2
    with pytest.raises(InputError, match=r"wiki holds several splits \(train, test\): name one, as .*wiki/train"):
        files(str(tmp_path / "wiki"))
    state = tmp_path / "wiki" / "train" / "state.json"
    plain = json.loads(state.read_text())
    for change, message in [
        ({"_data_files": [{"filename": "none.arrow"}]}, "'none.arrow' is missing, which state.json names"),
        ({"_data_files": 3}, "state.json is not that of a saved dataset"),
        ({"_indices_data_files": [{"filename": "i.arrow"}]}, "keeps its rows in another order than its files"),
    ]:
        state.write_text(json.dumps(plain | change))
        with pytest.raises(InputError, match=message):
            files(str(tmp_path / "wiki" / "train"))


NESTED = pa.table({"meta": [{"text": text, "n": 1} for text in TEXTS], "list": [[text] for text in TEXTS]})


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_field_of_a_column_of_structs(tmp_path, kind):
    raw = parquet_of(NESTED, row_group_size=50) if kind == "parquet" else arrow_of(NESTED, True)
    (tmp_path / f"a.{kind}").write_bytes(raw)
    found = documents(files(str(tmp_path / f"a.{kind}")), "line", "meta.text")
    assert [document.text for document in found] == TEXTS


BAD_COLUMNS = {
    "not there": ({"id": [1], "body": ["a"], "meta": [{"t": "b"}]}, "no column 'text'; there are body, meta.t: name"),
    "nested": ({"text": [["a"]], "body": ["a"]}, r"the column 'text' holds list<.*string>, not text: .*there are body"),
    "struct": ({"text": [{"a": "b"}]}, r"the column 'text' holds struct<.*there are text.a"),
    "numbers": ({"text": [1, 2]}, r"the column 'text' holds int64, not text: .*there are none"),
    "bytes": ({"text": [b"a"]}, "the column 'text' holds binary, not text"),
    "null": ({"text": ["a"] * 299 + [None]}, "row 300: the column 'text' holds null, not text"),
}


@pytest.mark.parametrize("name", BAD_COLUMNS)
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_column_that_is_not_text(tmp_path, name, kind):
    columns, message = BAD_COLUMNS[name]
    table = pa.table(columns)
    raw = parquet_of(table, row_group_size=250) if kind == "parquet" else arrow_of(table, False, rows=250)
    (tmp_path / f"a.{kind}").write_bytes(raw)
    with pytest.raises(InputError, match=rf"a\.{kind}[:,] .*{message}") as caught:
        list(documents(files(str(tmp_path / f"a.{kind}"))))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["seven-rows.parquet", "stream.arrow", "file.arrow"])
def test_a_table_that_is_cut_off_or_damaged(tmp_path, name):
    raw = FORMS[name]
    path = tmp_path / name
    for size in (len(raw) // 2, len(raw) - 8, 5, 0):
        path.write_bytes(raw[:size] or b"no table at all")
        with pytest.raises(InputError, match=rf"{name}, after row \d+: cannot be read as (Parquet|Arrow) .*complete"):
            list(documents(files(str(path))))
    path.write_bytes(raw)
    survive(path, damaged_bytes(raw, 60, 3), lambda: list(documents(files(str(path)))))


def test_a_stream_of_arrow_that_ends_between_two_batches(tmp_path):
    path = tmp_path / "a.arrow"
    path.write_bytes(FORMS["stream.arrow"][:-8])
    with pytest.raises(InputError, match="after row 0: cannot be read as Arrow .*does not end as an Arrow stream"):
        list(documents(files(str(path))))


def test_an_encrypted_parquet_file(tmp_path):
    encryption = pytest.importorskip("pyarrow.parquet.encryption")

    class Kms(encryption.KmsClient):
        def wrap_key(self, key_bytes, master_key_identifier):
            return key_bytes.hex()

        def unwrap_key(self, wrapped_key, master_key_identifier):
            return bytes.fromhex(wrapped_key)

    factory = encryption.CryptoFactory(lambda _: Kms())
    settings = encryption.EncryptionConfiguration(footer_key="f", column_keys={"c": ["text"]})
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), settings)
    with parquet.ParquetWriter(tmp_path / "a.parquet", TABLE.schema, encryption_properties=properties) as writer:
        writer.write_table(TABLE)
    with pytest.raises(InputError, match=r"a\.parquet, after row 0: cannot be read as Parquet .*not encrypted\?"):
        list(documents(files(str(tmp_path / "a.parquet"))))


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("a.csv", b"id,body\n1,a\n", r"no column 'text' in its first line, which names id, body: name one as"),
        ("a.csv", b"text,text\n1,a\n", "more than one column 'text'"),
        ("a.csv", b"id,text\n1,a\n\n2,b,c\n", r"row 2 \(line 4\): 3 values, and the first line names 2 columns"),
        ("a.csv", b'id,text\n1,a\n2,"b\n\n3,c\n', r"after row 1 \(line 5\): cannot be read as CSV .*left open"),
        ("a.csv", b"id,text\n1,caf\xe9\n", "line 2: not UTF-8 text"),
        ("a.tsv", b"id\ttext\n1\ta\tb\n", r"row 1 \(line 2\): 3 values, .*a value that holds a tab"),
        ("a.csv.gz", gzip.compress(csv_of(TEXTS))[:-9], r"after line \d+: cannot be read"),
    ],
)
def test_a_csv_or_tsv_file_that_is_none(tmp_path, name, raw, message):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(InputError, match=message):
        list(documents(files(str(tmp_path / name))))


def test_what_stands_in_a_csv_and_a_tsv(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'text,id\r\n"a, ""b""\r\nc",1\r\n\r\n' + b'"' + b"x" * 200_000 + b'",2\r\n')
    assert [d.text for d in documents(files(str(tmp_path / "a.csv")))] == ['a, "b"\r\nc', "x" * 200_000]
    (tmp_path / "a.tsv").write_bytes(b'id\ttext\n1\t"a" b\n2\t"c\n3\td\n')
    assert [d.text for d in documents(files(str(tmp_path / "a.tsv")))] == ['"a" b', '"c', "d"]


def test_packed_tables_are_refused(tmp_path):
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress(b"x"))
    with pytest.raises(InputError, match=r"a.parquet.gz: .parquet files are packed within.*: unpack it"):
        files(str(tmp_path / "a.parquet.gz"))
    (tmp_path / "a.txt").write_bytes(FORMS["file.arrow"])
    with pytest.raises(InputError, match=r"a.txt is a .arrow file that is not named so: name it a.txt.arrow"):
        files(str(tmp_path / "a.txt"))


@pytest.mark.parametrize("kind", ["parquet", "arrow", "csv"])
def test_a_table_takes_little_memory(tmp_path, kind):
    """Of one row group and many batches."""
    path = tmp_path / f"a.{kind}"
    lines = ["the cat sees a house " * 200] * 64
    table = pa.table({"text": lines, "other": lines})
    if kind == "csv":
        path.write_bytes(csv_of(lines * 200))
    elif kind == "arrow":
        path.write_bytes(arrow_of(pa.concat_tables([table] * 200), True, rows=64))
    else:
        with parquet.ParquetWriter(path, table.schema, compression="none", use_dictionary=False) as writer:
            writer.write_table(pa.concat_tables([table] * 200), row_group_size=1 << 20)
    size = sum(map(len, lines)) * 200
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        read = most = 0
        for document in documents(files(str(path))):
            read += len(document.text)
            most = max(most, pa.total_allocated_bytes() - before)
        assert read == size > 50 << 20
        assert most < 8 << 20 and tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
