"""Files on other machines, over HTTP on loopback and in memory: read as streams, and never half."""

import os
import re
import sys
from dataclasses import replace

import fsspec
import pytest

import jaxmlm
from jaxmlm.data import building as parts
from jaxmlm.data import files as module
from jaxmlm.data.files import files
from jaxmlm.data.manifest import MANIFEST
from jaxmlm.data.registry import open_source
from jaxmlm.data.sources import documents
from jaxmlm.errors import InputError
from jaxmlm.wording import install_command
from tests.data.kinds_of_files import DATA, FORMS, JSON, TEXTS, contents


def test_every_kind_over_a_network_is_read_there_and_not_copied(server, forms, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMLM_CACHE", str(tmp_path / "cache"))
    server.content = FORMS
    for name in FORMS:
        assert [document.text for document in documents(files(f"{server.url}/{name}"))] == TEXTS, name
    assert not (tmp_path / "cache").exists()


def test_shares_of_machines_and_a_mix_from_a_network_are_those_from_a_disk(server, forms, tmp_path, monkeypatch):
    server.content = FORMS
    monkeypatch.setattr(parts, "PART", 1000)
    local, remote = ([f"{where}/{name}" for name in ("a.csv", "seven-rows.parquet")] for where in (forms, server.url))
    for options in ({}, {"weights": (0.3, 0.7)}):
        stores = []
        for number, texts in enumerate((local, remote)):
            directory = tmp_path / f"{number}{len(options)}"
            data = replace(DATA, text=",".join(texts), **options)
            sources = [open_source(text, data) for text in data.texts]
            if number and not options:
                for shard in (1, 0):
                    parts.build(directory, data, sources, workers=1, shard=(shard, 2))
                stores.append(contents(jaxmlm.data.merge(directory, data)))
            else:
                stores.append(contents(parts.build(directory, data, sources, workers=1)))
        then, now = stores
        if options:  # of which the manifest names the texts
            then[MANIFEST]["mix"], now[MANIFEST]["mix"] = ([*m[MANIFEST]["mix"].values()] for m in stores)
        assert then == now


def test_files_have_one_order_on_a_disk_elsewhere_and_in_a_glob(tmp_path):
    names = ["part/b.txt", "part/sub/a.txt", "part-2/x.txt", "part.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    for where in (str(tmp_path), f"file://{tmp_path}", f"{tmp_path}/**/*.txt", f"file://{tmp_path}/**/*.txt"):
        assert [text for text, *_ in documents(files(where))] == names, where


def test_a_directory_on_a_disk_and_in_a_bucket(tmp_path):
    fs = fsspec.filesystem("memory")
    names = ["b.jsonl", "sub/a.parquet", "c.csv.gz"]
    for name, raw in zip(
        [*names, "README.md", ".hidden.txt"],
        [JSON, FORMS["all-rows.parquet"], FORMS["a.csv.gz"]] + [b"x"] * 2,
        strict=True,
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(raw)
        fs.pipe(f"/directory/{name}", raw)
    try:
        for where in (str(tmp_path), "memory://directory", "memory://directory/"):
            found = files(where)
            assert [file.name for file in found] == ["b.jsonl", "c.csv.gz", "a.parquet"]
            assert [document.text for document in documents(found)] == TEXTS * 3
        assert [file.name for file in files("memory://directory/*.jsonl")] == ["b.jsonl"]
    finally:
        fs.rm("/directory", recursive=True)
    (tmp_path / "sub" / "a.parquet").unlink()
    (tmp_path / "sub" / "notes.md").write_bytes(b"x")
    with pytest.raises(InputError, match=r"no text file at .*those that end in \.txt, .* it has notes.md: give a glob"):
        files(str(tmp_path / "sub"))


@pytest.mark.parametrize("where", ["disk", "http"])
@pytest.mark.parametrize("name", ["a.jsonl", "seven-rows.parquet"])
def test_a_file_that_changes_under_way_is_noticed(server, tmp_path, where, name):
    raw = FORMS[name]
    server.content = {name: raw}
    (tmp_path / name).write_bytes(raw)
    text = str(tmp_path / name) if where == "disk" else f"{server.url}/{name}"
    data = replace(DATA, text=text, store=str(tmp_path / "store"))
    source = open_source(text, data)
    found = source.documents()
    next(found)
    server.content[name] = raw.replace(b"cat", b"cow")
    (tmp_path / name).write_bytes(raw.replace(b"cat", b"cow"))
    os.utime(tmp_path / name, ns=(1, 1))
    with pytest.raises(InputError, match=rf"{name} has changed while it was read: .* begins anew"):
        list(found)
    with pytest.raises(InputError, match="has changed while it was read"):  # it is the same to the other machines
        parts.build(tmp_path / "store", data, [source], workers=1)
    again = open_source(text, data)
    assert again.about != source.about and len(list(again.documents())) == len(TEXTS)


def test_a_dropped_connection_is_tried_again(server, monkeypatch):
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    server.content = FORMS
    for name in ("all-rows.parquet", "a.jsonl"):
        found = files(f"{server.url}/{name}")
        server.drop = 2
        assert [document.text for document in documents(found)] == TEXTS and server.drop == 0
        server.drop = 10**6
        with pytest.raises(InputError, match=rf"{name}, after (row|line) 0: cannot be read .*") as caught:
            list(documents(found))
        server.drop = 0
        assert "\n" not in str(caught.value)


def test_a_server_that_sends_complete_files_only(server):
    server.content, server.ranges = FORMS, False
    try:
        assert [document.text for document in documents(files(f"{server.url}/a.csv.gz"))] == TEXTS
        with pytest.raises(InputError, match="the server does not send parts of a file"):
            list(documents(files(f"{server.url}/all-rows.parquet")))
    finally:
        server.ranges = True


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("{server}/none.parquet", r"none.parquet cannot be read \(.*404.*\): look at its name, at the network"),
        ("http://127.0.0.1:9/a.jsonl", r"a.jsonl cannot be read \(.*\): look at its name, at the network"),
        ("s3://mine/a.parquet", "s3://mine/a.parquet: .*: " + re.escape(install_command("s3"))),
        ("gs://mine/*.txt", r"gs://mine/\*.txt: .*: " + re.escape(install_command("gcp"))),
        ("nowhere://mine/a.txt", "nowhere://mine/a.txt cannot be read .*Protocol not known"),
    ],
)
def test_a_place_that_cannot_be_reached(server, monkeypatch, url, message):
    for name in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=message) as caught:
        files(url.format(server=server.url))
    assert "\n" not in str(caught.value)
