"""The phrase pass over a store: unit bits for every token, whole or absent, and settings that are held to."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from jaxmlm.data import Batches, Data, Store, open_rows
from jaxmlm.data import store as store_module
from jaxmlm.data.manifest import write_manifest
from jaxmlm.data.opening import open_store
from jaxmlm.data.phrases import counting as module
from jaxmlm.data.phrases.counting import count_store, describe_phrases
from jaxmlm.data.phrases.ranking import Phrases, merge
from jaxmlm.data.verification import RECORD
from jaxmlm.errors import InputError
from jaxmlm.masking import Masking, PhraseUnits
from jaxmlm.runs.run import Run
from jaxmlm.tools.prepare import prepare

DATA = Data(text="sample:300", vocab=600, length=16, valid=0.05)
PHRASES = Phrases(min_count=5, coverage=0.3)


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> dict[str, bytes]:
    """The files of a store without phrases, of several shards."""
    directory = tmp_path_factory.mktemp("bare")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxmlm.data.building.PART", 12_000)
        open_store(DATA, directory)
    return contents(directory / "store")


@pytest.fixture
def workdir(tmp_path, bare) -> Path:
    (tmp_path / "store").mkdir()
    for name, raw in bare.items():
        (tmp_path / "store" / name).write_bytes(raw)
    return tmp_path


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != RECORD}


def words_of(store: Store, split: str) -> tuple[list[int], list[str]]:
    """Where words start in a split and what they are, token by token."""
    tokens = store.tokens(split)[np.arange(len(store.tokens(split)))].tolist()
    starts, words = [], []
    for i, token in enumerate(tokens):
        before = store.tokenizer.boundaries[tokens[i - 1]] if i else 3
        if store.tokenizer.boundaries[token] & 1 or before & 2:
            starts.append(i)
            words.append("")
        words[-1] += store.tokenizer.piece_texts[token]
    return starts, words


def test_unit_bits_of_every_token(workdir):
    store = open_store(replace(DATA, phrases=PHRASES), workdir, phrases=True)
    listed = set(parquet.read_table(workdir / "store" / "phrases.parquet")["phrase"].to_pylist())
    assert len(store.shards("train")) > 3
    for split in ("train", "valid"):
        units = store.units(split)
        bits = units[np.arange(len(units))]
        starts, words = words_of(store, split)
        assert len(bits) == len(store.tokens(split)) and np.flatnonzero(bits & 1).tolist() == starts
        assert set(np.flatnonzero(bits & 2)) <= set(starts)
        ends = np.append(np.flatnonzero(bits[starts] & 2), len(starts))
        groups = [" ".join(words[a:b]) for a, b in zip(ends[:-1], ends[1:], strict=True)]
        phrases = [group for group in groups if " " in group]
        assert len(phrases) > 20 and set(phrases) <= listed
        alone = [words[a] for a, b in zip(ends[:-1], ends[1:], strict=True) if b - a == 1]
        pairs = {" ".join(two) for two in zip(words, words[1:], strict=False)}
        assert alone and pairs & listed and not any(" " in word for word in alone)
        places = [*starts, len(bits)]
        inside = sum(places[b] - places[a] for a, b in zip(ends[:-1], ends[1:], strict=True) if b - a > 1)
        assert store.manifest["phrases"]["coverage"][split] == pytest.approx(inside / len(bits), abs=1e-4)
    assert store.manifest["phrases"]["coverage"]["train"] == pytest.approx(0.3, abs=0.02)


def test_chunks_are_whole_documents_and_decide_nothing(workdir, tmp_path_factory, monkeypatch):
    other = tmp_path_factory.mktemp("other")
    store = open_store(replace(DATA, phrases=PHRASES), workdir, phrases=True)
    chunks = list(store.chunks("train", 300))
    assert len(chunks) > 30 and all(tokens[-1] == store.tokenizer.sep_id for _, tokens in chunks)
    np.testing.assert_array_equal(
        np.concatenate([tokens for _, tokens in chunks]), store.tokens("train")[np.arange(len(store.tokens("train")))]
    )
    (other / "store").mkdir()
    bare = [path for kind in ("*.bin", "*.docs", "tokenizer.model") for path in (workdir / "store").glob(kind)]
    for path in bare:
        (other / "store" / path.name).write_bytes(path.read_bytes())
    plain = {key: value for key, value in store.manifest.items() if key != "phrases"}
    write_manifest(other / "store", plain)
    monkeypatch.setattr(Store, "chunks", lambda self, split, real=Store.chunks: real(self, split, 2000))
    again = open_store(replace(DATA, phrases=PHRASES), other, phrases=True)
    assert contents(other / "store") == contents(workdir / "store") and again.manifest == store.manifest


def test_the_manifest_and_the_line_of_prepare(workdir, capsys):
    run = Run(workdir=str(workdir), data=DATA)
    assert "phrases" not in prepare(run)
    run = replace(
        run, masking=Masking(units=PhraseUnits()), data=replace(run.data, phrases=replace(PHRASES, size=9999))
    )
    capsys.readouterr()
    shown = prepare(run)
    line = capsys.readouterr().err.splitlines()[-1]
    entry = Store(workdir / "store").manifest["phrases"]
    assert line == describe_phrases(entry) and "quotas that ran short: 2 words by" in line
    assert shown["phrases"]["number"] == entry["number"] and sum(entry["number"].values()) < 9999
    for file in entry["files"]:
        assert store_module.sha256(workdir / "store" / file["file"]) == file["sha256"]
    shards = json.loads((workdir / "store" / "manifest.json").read_text())
    names = [shard["file"].replace(".bin", ".units") for s in ("train", "valid") for shard in shards[s]["shards"]]
    assert sorted(file["file"] for file in entry["files"]) == sorted(["phrases.parquet", *names])
    (workdir / "store" / names[0]).write_bytes(b"")
    with pytest.raises(InputError, match="train-00000.units is missing or not complete"):
        Store(workdir / "store").units("train")


def test_a_coverage_out_of_reach_is_said(workdir):
    store = open_store(replace(DATA, phrases=replace(PHRASES, coverage=1.0)), workdir, phrases=True)
    assert "(100.0% asked, the text gives no more); quotas" in describe_phrases(store.manifest["phrases"])


@pytest.mark.parametrize("at", ["count", "match", "manifest"])
def test_a_pass_that_dies_leaves_the_store_as_it_was(workdir, bare, monkeypatch, at):
    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if at == "manifest":
            real = store_module.os.replace
            patch.setattr(
                store_module.os, "replace", lambda a, b: die() if str(b).endswith(".json") else real(a, b)
            )  # fmt: skip
        else:
            patch.setattr(module, at, die)
        with pytest.raises(KeyboardInterrupt):
            open_store(replace(DATA, phrases=PHRASES), workdir, phrases=True)
    after = contents(workdir / "store")
    assert {name: after[name] for name in bare} == bare and Store(workdir / "store").units("train") is None
    if at != "manifest":
        assert after == bare
    (workdir / "store" / "units.part").mkdir()  # what a kill -9 leaves
    (workdir / "store" / "units.part" / "left.units").touch()
    assert len(open_store(replace(DATA, phrases=PHRASES), workdir, phrases=True).units("train")) > 0
    assert not list((workdir / "store").glob("*.part")) and not list((workdir / "store").glob("left*"))


def test_the_same_settings_are_not_done_again_and_others_refused(workdir, monkeypatch):
    open_store(replace(DATA, phrases=PHRASES), workdir, phrases=True)
    before = contents(workdir / "store")
    monkeypatch.setattr(module, "count", None)
    open_store(replace(DATA, phrases=PHRASES), workdir, phrases=True)
    open_store(DATA, workdir)
    for field, value in (("overlap", "longest"), ("size", 10), ("pmi_power", 1), ("shares", (0.4, 0.35, 0.125, 0.125))):
        with pytest.raises(InputError, match=rf"with data\.phrases\.{field} .* this run wants .*another --data\.store"):
            open_store(replace(DATA, phrases=replace(PHRASES, **{field: value})), workdir, phrases=True)
    (workdir / "list.txt").write_text("the cat\n")
    with pytest.raises(InputError, match=r"with data\.phrases\.file None, but this run wants"):
        open_store(replace(DATA, phrases=replace(PHRASES, file=str(workdir / "list.txt"))), workdir, phrases=True)
    assert contents(workdir / "store") == before


def test_batches_with_units(workdir):
    with pytest.raises(InputError, match="was prepared without phrases: run jaxmlm prepare"):
        open_rows(open_store(DATA, workdir), "train", 16, phrases=True)
    store = open_store(replace(DATA, phrases=PHRASES), workdir, phrases=True)
    b = Batches(open_rows(store, "train", 16, phrases=True), 4)
    got, places = b.at(3), b.at(3)["example"][:, None] * 15 + np.arange(1, 15)
    np.testing.assert_array_equal(got["unit"][:, 2:], store.units("train")[places])
    assert "unit" not in Batches(open_rows(store, "train", 16), 4).at(3)


def some_list(workdir: Path) -> list[str]:
    """Phrases that stand in the text."""
    return count_store(Store(workdir / "store"), PHRASES).filter(pa.compute.field("n") > 1)["phrase"].to_pylist()[1:60]


def test_a_ready_list(workdir):
    (workdir / "list.txt").write_text("\n".join([*some_list(workdir), "not in this text", "co-op shop"]))
    store = open_store(replace(DATA, phrases=Phrases(file=str(workdir / "list.txt"))), workdir, phrases=True)
    entry = store.manifest["phrases"]
    assert 0 < entry["coverage"]["train"] < 1 and entry["short"] == {} and sum(entry["number"].values()) == 61
    (workdir / "copy.txt").write_bytes((workdir / "list.txt").read_bytes())
    open_store(
        replace(DATA, phrases=Phrases(file=str(workdir / "copy.txt"))), workdir, phrases=True
    )  # the same list, elsewhere
    (workdir / "copy.txt").write_text("\n".join(some_list(workdir)[:20]))
    with pytest.raises(InputError, match=r"with data\.phrases\.file "):
        open_store(replace(DATA, phrases=Phrases(file=str(workdir / "copy.txt"))), workdir, phrases=True)


def test_a_list_of_ours_and_merged_counts_give_the_units_that_made_them(workdir, tmp_path_factory):
    store = Store(workdir / "store")
    parquet.write_table(count_store(store, PHRASES), workdir / "counts.parquet")
    merge([workdir / "counts.parquet"], workdir / "merged.parquet", PHRASES.min_count)
    units = {}
    for name in ("own", "list", "merged"):
        directory = tmp_path_factory.mktemp(name)
        (directory / "store").mkdir()
        for path in (workdir / "store").iterdir():  # shards and all
            (directory / "store" / path.name).write_bytes(path.read_bytes())
        file = {"own": None, "list": str(workdir / "list.parquet"), "merged": str(workdir / "merged.parquet")}[name]
        made = open_store(replace(DATA, phrases=replace(PHRASES, file=file)), directory, phrases=True)
        if name == "own":
            (workdir / "list.parquet").write_bytes((directory / "store" / "phrases.parquet").read_bytes())
        units[name] = contents(made.directory)["train-00000.units"]
    assert units["own"] == units["list"] == units["merged"]


def test_casing(workdir, tmp_path_factory):
    lower = some_list(workdir)
    (workdir / "cased.txt").write_text("\n".join([lower[0], lower[1].title(), *lower[2:]]))
    with pytest.raises(
        InputError, match=r"cased\.txt is cased \(1 of 59 phrases, as '.*'\) and the .* lower-cased: give"
    ):
        open_store(replace(DATA, phrases=Phrases(file=str(workdir / "cased.txt"))), workdir, phrases=True)
    with pytest.raises(InputError, match="is cased"):  # before a store is made
        open_store(
            replace(DATA, store=str(workdir / "new"), phrases=Phrases(file=str(workdir / "cased.txt"))),
            workdir,
            phrases=True,
        )
    assert not (workdir / "new").exists()
    cased = tmp_path_factory.mktemp("cased")
    (cased / "text.txt").write_text("\n\n".join(["The Red House is here. the Red house is Not. I see it"] * 60))
    data = replace(DATA, text=str(cased / "text.txt"), lowercase=False, vocab=26)
    for name, phrases, wanted in (
        ("lower", "red house", ["Red House", "Red house"]), ("cased", "Red House", ["Red House"])
    ):  # fmt: skip
        (cased / f"{name}.txt").write_text(phrases)
        listed = Phrases(file=str(cased / f"{name}.txt"))
        store = open_store(replace(data, store=str(cased / name), phrases=listed), cased, phrases=True)
        starts, words = words_of(store, "train")
        bits = store.units("train")[np.array(starts)]
        ends = np.append(np.flatnonzero(bits & 2), len(starts))
        groups = {" ".join(words[a:b]) for a, b in zip(ends, ends[1:], strict=False) if b - a > 1}
        assert groups == set(wanted)


def test_lists_that_give_nothing(workdir, bare):
    (workdir / "list.txt").write_text("quuxly frobnication\n")
    with pytest.raises(InputError, match=r"no phrase of .*list\.txt stands in the text"):
        open_store(replace(DATA, phrases=Phrases(file=str(workdir / "list.txt"))), workdir, phrases=True)
    with pytest.raises(InputError, match="no two words stand together 100000 times"):
        open_store(replace(DATA, phrases=Phrases(min_count=100000)), workdir, phrases=True)
    assert contents(workdir / "store") == bare
