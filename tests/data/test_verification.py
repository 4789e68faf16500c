"""A store proves itself: no byte of it changes, nothing in its manifest is believed, before that has been looked at."""

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxmlm import cli
from jaxmlm.data import Data, Store, verification
from jaxmlm.data.files import sha256
from jaxmlm.data.manifest import MANIFEST, SPLITS, read_manifest, write_manifest
from jaxmlm.data.opening import open_store
from jaxmlm.data.phrases import Phrases
from jaxmlm.data.phrases.counting import matcher
from jaxmlm.data.verification import RECORD
from jaxmlm.errors import InputError, Preempted

DATA = Data(text="sample:150", vocab=300, length=16, valid=0.1, phrases=Phrases(min_count=3, coverage=0.3))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A store of several shards, with phrases."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxmlm.data.building.PART", 12_000)
        return open_store(DATA, tmp_path_factory.mktemp("made"), phrases=True).directory


@pytest.fixture
def directory(made, tmp_path) -> Path:
    """A copy of that store, which nobody has verified."""
    copy = tmp_path / "store"
    shutil.copytree(made, copy, ignore=shutil.ignore_patterns(RECORD))
    return copy


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The names of the files that are read to be verified, in turn."""
    names: list[str] = []
    real = verification.verify_file
    monkeypatch.setattr(
        verification,
        "verify_file",
        lambda directory, file, *more: names.append(file.name) or real(directory, file, *more),
    )
    return names


def use(directory: Path) -> None:
    """Read all that a store holds, as a training and a preview do."""
    store = Store(directory)
    for split in SPLITS:
        store.tokens(split)
        store.documents(split)
        store.units(split)
    matcher(store)


def kinds(directory: Path) -> list[str]:
    names = sorted(path.name for path in directory.iterdir())
    assert len([name for name in names if name.startswith("train") and name.endswith(".bin")]) > 2
    return names


def test_a_flipped_bit_anywhere_is_refused_by_the_name_of_the_file(directory):
    random = np.random.default_rng(0)
    for name in kinds(directory):
        path = directory / name
        raw = path.read_bytes()
        for place in (0, len(raw) - 1, *random.integers(0, len(raw), 3).tolist()):
            flipped = bytearray(raw)
            flipped[place] ^= 1 << int(random.integers(0, 8))
            path.write_bytes(flipped)
            if name == MANIFEST and _means_the_same(flipped, raw):
                continue
            with pytest.raises(InputError, match=rf"{name} .*(: delete the store and|:|If not,) prepare") as error:
                use(directory)
            assert "\n" not in str(error.value)
        path.write_bytes(raw)
    use(directory)


def _means_the_same(one: bytes, other: bytes) -> bool:
    """Whether the flipped bit is in the space around a value."""
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


def test_each_file_is_read_once_and_again_when_it_was_written_to(directory, read):
    use(directory)
    every = sorted(name for name in kinds(directory) if name not in (MANIFEST, RECORD) and "tokenizer" not in name)
    assert sorted(read) == every
    use(directory)
    assert sorted(read) == every
    read.clear()
    (directory / "train-00001.bin").write_bytes((directory / "train-00001.bin").read_bytes())
    use(directory)
    assert read == ["train-00001.bin"]
    read.clear()
    about = (directory / "train-00000.docs").stat()
    os.utime(directory / "train-00000.docs", ns=(about.st_atime_ns, about.st_mtime_ns))  # as a tool that restores times
    use(directory)
    assert read == ["train-00000.docs"]


def test_a_copy_with_its_record_and_times_is_read_again(directory, tmp_path, read):
    use(directory)
    count = len(read)
    shutil.copytree(directory, tmp_path / "copy")  # with times, as cp -a and rsync -a
    use(tmp_path / "copy")
    assert len(read) == 2 * count


@pytest.mark.parametrize("record", [b"", b"{", b"[1]", b'{"train-00000.bin": 7}', b"\xff" * 9])
def test_a_damaged_record_vouches_for_nothing(directory, read, record):
    (directory / RECORD).write_bytes(record)
    Store(directory).tokens("train")
    assert "train-00000.bin" in read
    read.clear()
    Store(directory).tokens("train")
    assert not read


def test_a_store_that_cannot_be_written_to_is_remembered_in_the_cache(directory, tmp_path, monkeypatch, read):
    monkeypatch.setenv("JAXMLM_CACHE", str(tmp_path / "cache"))
    real = verification.write_json

    def write(path: Path, value: Any) -> None:
        if path.parent == directory:
            raise OSError(30, "Read-only file system")
        real(path, value)

    monkeypatch.setattr(verification, "write_json", write)
    Store(directory).tokens("train")
    assert read and not (directory / RECORD).exists() and len(list((tmp_path / "cache" / "verified").iterdir())) == 1
    read.clear()
    Store(directory).tokens("train")
    assert not read
    monkeypatch.setenv("JAXMLM_CACHE", "/dev/null/nowhere")  # neither place: it is read each time
    Store(directory).tokens("train")
    Store(directory).tokens("train")
    assert len(read) == 2 * len(Store(directory).shards("train"))


def test_verify_reads_all_of_it_again(directory, read):
    use(directory)
    read.clear()
    Store(directory).verify()
    assert set(kinds(directory)) == {*read, MANIFEST, RECORD}


def test_a_signal_ends_it_and_what_was_read_is_remembered(directory, monkeypatch, read):
    monkeypatch.setattr(verification, "SAID", 1)
    monkeypatch.setattr(verification, "THREADS", 1)

    def stop(doing: str) -> None:
        raise Preempted(doing)

    with monkeypatch.context() as patch:
        patch.setattr(verification, "raise_if_stop_requested", stop)
        with pytest.raises(Preempted):
            Store(directory).tokens("train")
    before = len(read)
    Store(directory).tokens("train")
    assert 0 < before <= len(read) <= len(Store(directory).shards("train")) + 1


def test_a_large_store_shows_how_far_it_is(directory, monkeypatch, capsys):
    monkeypatch.setattr(verification, "SAID", 1)
    monkeypatch.setattr(verification, "MEGABYTE", 1000)
    Store(directory).tokens("train")
    size = sum((directory / name).stat().st_size for name, _ in Store(directory).shards("train")) // 1000
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"verify store (MB): {size}/{size}")


def forge(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest as somebody would who knows how its checksum is made."""
    manifest = read_manifest(directory)
    change(manifest)
    write_manifest(directory, manifest)


def test_ids_that_the_vocabulary_has_not_are_refused(directory):
    path = directory / "train-00001.bin"
    tokens = np.fromfile(path, np.uint16)
    tokens[5] = 300
    tokens.tofile(path)
    forge(directory, lambda m: m["train"]["shards"][1].update(sha256=sha256(path)))
    with pytest.raises(InputError, match=r"train-00001.bin holds the number 300, and the largest may be 299"):
        use(directory)


def test_documents_without_tokens_are_refused(directory):
    path = directory / "train-00000.docs"
    entries = np.fromfile(path, "<u8").reshape(-1, 3)
    entries[1, 2], entries[0, 2] = entries[1, 2] & 0xFFFFFFFF, entries[0, 2] + (entries[1, 2] >> 32 << 32)
    entries.tofile(path)
    forge(directory, lambda m: m["train"]["shards"][0].update(documents_sha256=sha256(path)))
    with pytest.raises(InputError, match=r"train-00000.docs does not fit the tokens"):
        use(directory)


FORGED: dict[str, Callable[[dict[str, Any]], object]] = {
    "another format": lambda m: m.update(format=99),
    "no format": lambda m: m.pop("format"),
    "a shard above": lambda m: m["train"]["shards"][0].update(file="../train-00000.bin"),
    "an absolute shard": lambda m: m["train"]["shards"][0].update(file="/etc/passwd"),
    "a shard with a NUL": lambda m: m["train"]["shards"][0].update(file="train\0.bin"),
    "a shard that is no name": lambda m: m["train"]["shards"][0].update(file=["train-00000.bin"]),
    "a shard that is no object": lambda m: m["train"]["shards"].append(7),
    "the same shard twice": lambda m: m["train"]["shards"].append(m["train"]["shards"][0]),
    "a tokenizer above": lambda m: m["tokenizer"][0].update(file="../tokenizer.model"),
    "no tokenizer": lambda m: m.update(tokenizer=[]),
    "more tokens than there are": lambda m: m["train"]["shards"][0].update(tokens=1 << 50),
    "tokens below none": lambda m: m["train"]["shards"][0].update(tokens=-1),
    "tokens as text": lambda m: m["train"].update(tokens="many"),
    "tokens as a fraction": lambda m: m["train"].update(tokens=0.5),
    "documents that do not sum up": lambda m: m["valid"].update(documents=m["valid"]["documents"] + 1),
    "shards as an object": lambda m: m["train"].update(shards={}),
    "no split": lambda m: m.pop("valid"),
    "another dtype": lambda m: m.update(dtype="uint32"),
    "an object dtype": lambda m: m.update(dtype="object"),
    "another vocabulary": lambda m: m.update(vocab=299),
    "a vocabulary of text": lambda m: m.update(vocab="300"),
    "a vocabulary that is true": lambda m: m.update(vocab=True),
    "a hash that is none": lambda m: m["train"]["shards"][0].update(sha256="0" * 63),
    "no settings": lambda m: m.update(data=[]),
    "a source without a file": lambda m: m.update(source=[{}]),
    "a mix of text": lambda m: m.update(mix={"a": "b"}),
    "duplicates of text": lambda m: m.update(duplicates="none"),
    "cleaning that is a list": lambda m: m.update(cleaning=[]),
    "cleaning of text": lambda m: m.update(cleaning={"near_duplicates": "none"}),
    "a table of cleaning without counts": lambda m: m.update(cleaning={"evaluation_sets": [{"set": "squad"}]}),
    "units above": lambda m: m["phrases"]["files"][0].update(file="../phrases.parquet"),
    "units left out": lambda m: m["phrases"]["files"].pop(),
    "phrases without settings": lambda m: m["phrases"].update(settings={}),
    "phrases without coverage": lambda m: m["phrases"].update(coverage={}),
    "phrases that are a list": lambda m: m.update(phrases=[]),
}


@pytest.mark.parametrize("kind", FORGED)
def test_what_a_forged_manifest_says_is_not_believed(directory, kind):
    forge(directory, FORGED[kind])
    with pytest.raises(InputError, match=r"prepare") as error:
        use(directory)
    assert "\n" not in str(error.value)


def test_a_link_out_of_the_store_is_refused(directory, tmp_path):
    path = directory / "valid-00000.bin"
    path.rename(tmp_path / "elsewhere.bin")
    path.symlink_to(tmp_path / "elsewhere.bin")
    with pytest.raises(InputError, match=r"valid-00000.bin is a link out of the token store"):
        use(directory)
    path.unlink()
    os.mkfifo(path)
    assert stat.S_ISFIFO(path.stat().st_mode)
    with pytest.raises(InputError, match=r"valid-00000.bin is missing or not complete"):
        use(directory)


def test_a_damaged_store_ends_a_command_with_one_line(directory, capsys):
    raw = bytearray((directory / "valid-00000.bin").read_bytes())
    raw[7] ^= 64
    (directory / "valid-00000.bin").write_bytes(raw)
    assert cli.main(["prepare", "--inspect", str(directory)]) == cli.WRONG_INPUT
    [line] = capsys.readouterr().err.splitlines()
    assert "valid-00000.bin is damaged" in line and line.endswith("delete the store and prepare it again")
