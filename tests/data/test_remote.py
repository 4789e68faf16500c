"""Stores and texts in a bucket, by fsspec's file system in memory: copied here, prepared apart, joined there."""

import itertools
import re
import sys

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from jaxmlm import cli
from jaxmlm.data import Store
from jaxmlm.data import remote as cloud
from jaxmlm.data.verification import RECORD
from jaxmlm.errors import InputError
from jaxmlm.wording import install_command

SMALL = ["--data.vocab", "40", "--data.valid", "0.2", "--data.length", "16", "--loop.batch", "2"]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Call it to sit at another machine, with a disk of its own."""
    numbers = itertools.count()

    def sit() -> None:
        monkeypatch.setenv("JAXMLM_CACHE", str(tmp_path / f"machine-{next(numbers)}"))

    sit()
    return sit


@pytest.fixture
def text():
    """Two files of text in a bucket of this test's own."""
    fs = fsspec.filesystem("memory")
    words = "the a cat dogs runs sees house tree big small red under over".split()
    for file in (0, 1):
        lines = [" ".join(words[(i * k + file) % 13] for k in range(1, 12)) + f" {i}" for i in range(60)]
        fs.pipe(f"/mine/text/{file}.txt", "\n\n".join(lines).encode())
    yield "memory://mine/text/*.txt"
    fs.rm("/mine", recursive=True)


def prepare(text, store, *more):
    words = ["--data.text", text, "--data.store", str(store), *SMALL]
    return cli.main(["prepare", "configs/quickstart_run.py", *words, *more])


def contents(url):
    fs, root = fsspec.url_to_fs(url)
    return {path.rpartition("/")[2]: fs.cat_file(path) for path in fs.ls(root, detail=False)}


def on_disk(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != RECORD}


def test_a_store_in_a_bucket_is_that_on_a_disk_and_travels(machine, text, tmp_path):
    assert prepare(text, tmp_path / "store") == 0
    wanted = on_disk(tmp_path / "store")
    assert prepare(text, "memory://mine/store") == 0
    assert contents("memory://mine/store") == wanted
    machine()
    store = Store("memory://mine/store")
    assert on_disk(store.directory) == wanted
    assert prepare(text, "memory://mine/store") == 0 and on_disk(store.directory) == wanted


def test_shares_of_several_machines_meet_in_the_bucket(machine, text, tmp_path, capsys):
    assert prepare(text, tmp_path / "store") == 0
    for share in ("1/2", "0/2"):
        machine()
        assert prepare(text, "memory://mine/store", "--shard", share) == 0
        if share == "1/2":
            assert prepare(text, "memory://mine/store", "--merge") == cli.WRONG_INPUT
            assert "not every machine has finished (found shard-1-of-2.json)" in capsys.readouterr().err
    machine()
    assert prepare(text, "memory://mine/store", "--shard", "0/2", "--data.valid", "0.3") == cli.WRONG_INPUT
    assert "of a different text or of different settings" in capsys.readouterr().err
    machine()
    assert prepare(text, "memory://mine/store", "--merge") == 0
    assert contents("memory://mine/store") == on_disk(tmp_path / "store")
    assert not fsspec.filesystem("memory").exists("/mine/store.part")
    assert prepare(text, "memory://mine/store", "--shard", "0/2") == cli.WRONG_INPUT
    assert "memory://mine/store is there already" in capsys.readouterr().err


def test_a_copy_is_made_again_when_the_bucket_has_another_store_or_text(machine, text):
    assert prepare(text, "memory://mine/store") == 0
    first = on_disk(Store("memory://mine/store").directory)
    fs = fsspec.filesystem("memory")
    fs.pipe("/mine/text/0.txt", fs.cat_file("/mine/text/0.txt").replace(b"cat", b"cow"))
    fs.rm("/mine/store", recursive=True)
    machine()
    assert prepare(text, "memory://mine/store") == 0
    second = contents("memory://mine/store")
    assert second != first and set(second) == set(first)
    directory = Store("memory://mine/store").directory
    assert on_disk(directory) == second
    (directory / "train-00000.bin").unlink()
    assert on_disk(Store("memory://mine/store").directory) == second


def test_what_a_kill_kept_from_the_bucket_comes_there_with_the_next_call(machine, text, tmp_path, monkeypatch):
    assert prepare(text, tmp_path / "store") == 0
    wanted = on_disk(tmp_path / "store")

    def killed(directory, url, last):
        raise KeyboardInterrupt

    for words in ([], ["--merge"]):
        if words:
            fsspec.filesystem("memory").rm("/mine/store", recursive=True)
            assert prepare(text, "memory://mine/store", "--shard", "0/1") == 0
        with monkeypatch.context() as patch:
            patch.setattr(cloud, "push", killed)
            assert prepare(text, "memory://mine/store", *words) != 0
        assert not fsspec.filesystem("memory").exists("/mine/store")
        assert prepare(text, "memory://mine/store", *words) == 0
        assert contents("memory://mine/store") == wanted


def test_a_store_that_was_deleted_from_the_bucket_is_made_again_not_put_back(machine, text):
    fs = fsspec.filesystem("memory")
    assert prepare(text, "memory://mine/store") == 0
    for words in ([], ["--shard", "0/1"]):
        first = contents("memory://mine/store")
        assert prepare(text, "memory://mine/store", "--shard", "0/1") == cli.WRONG_INPUT
        fs.rm("/mine/store", recursive=True)
        fs.pipe("/mine/text/0.txt", fs.cat_file("/mine/text/0.txt") + b"\n\na cat more")
        assert prepare(text, "memory://mine/store", *words) == 0
        if words:
            assert prepare(text, "memory://mine/store", "--merge") == 0
        assert contents("memory://mine/store") != first
    machine()
    assert prepare(text, "memory://mine/store", "--shard", "0/1") == cli.WRONG_INPUT
    fs.rm("/mine/store", recursive=True)
    assert prepare(text, "memory://mine/store") == 0


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://mine/none", "memory://mine/none holds no token store"),
        ("gs://mine/store", re.escape(install_command("gcp"))),
        ("gss://mine/store", "gss://mine/store cannot be used"),
    ],
)
def test_buckets_without_a_store(machine, monkeypatch, url, message):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InputError, match=message):
        Store(url)


def test_texts_that_are_not_there(machine, text):
    assert prepare("memory://mine/nothing/*.txt", "memory://mine/store") == cli.WRONG_INPUT
    assert not fsspec.filesystem("memory").exists("/mine/store")


@pytest.mark.parametrize("config", ["quickstart", "quickstart_run"])
def test_a_workdir_is_a_folder(config, capsys):
    verb = "study" if config == "quickstart" else "pretrain"
    assert cli.main([verb, f"configs/{config}.py", "--workdir", "gs://mine/run"]) == cli.WRONG_INPUT
    assert "mount the bucket (gcsfuse mine DIRECTORY)" in capsys.readouterr().err


def test_machines_that_copy_one_file_at_once_do_not_meet(text, tmp_path, monkeypatch):
    """Into one directory, by processes of the same number; also where the copy there is an old one."""
    get = MemoryFileSystem.get_file
    (tmp_path / "0.txt").touch()

    def meanwhile(fs, name, path):
        get(fs, name, path)
        monkeypatch.setattr(MemoryFileSystem, "get_file", get)
        (tmp_path / "0.txt").write_bytes(b"old")
        cloud.pull("memory://mine/text", tmp_path, "0.txt")

    monkeypatch.setattr(MemoryFileSystem, "get_file", meanwhile)
    cloud.pull("memory://mine/text", tmp_path, "0.txt")
    assert on_disk(tmp_path) == contents("memory://mine/text")
