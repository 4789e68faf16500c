"""A store prepared in parts: killed anywhere, by any number of threads or machines, the same bytes."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from jaxmlm.data import Data, Store, build, merge
from jaxmlm.data import building as parts
from jaxmlm.data import merging as finish
from jaxmlm.data.building import Progress
from jaxmlm.data.manifest import DOCUMENT
from jaxmlm.data.merging import part_name
from jaxmlm.data.sentencepiece_tokenizer import SentencePieceTokenizer
from jaxmlm.data.sources import Document, Group, TextSource
from jaxmlm.data.verification import RECORD
from jaxmlm.errors import InputError, Preempted
from jaxmlm.preemption import raise_if_stop_requested, stoppable

DATA = Data(text="red, big", vocab=40, valid=0.2, length=16)
PART = 1000


def texts(name: str, count: int) -> list[str]:
    pick = random.Random(name).choice
    words = "the a cat dogs runs sees house tree big small red under over".split()
    return [" ".join(pick(words) for _ in range(9)) + f" {name} {i}" for i in range(count)]


TEXTS = {"red": texts("red", 60), "big": texts("big", 90) + texts("red", 20) + texts("big", 30)}


def sources(groups: int = 2) -> list[TextSource]:
    """Two texts, each of some groups."""
    return [
        TextSource([group(lines, at) for at in np.array_split(np.arange(len(lines)), groups)], [{"file": name}])
        for name, lines in TEXTS.items()
    ]


def group(lines, at) -> Group:
    return Group(lambda: (Document(lines[i], i, 0, read) for read, i in enumerate(at.tolist(), 1)), len(at))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "PART", PART)
    monkeypatch.setattr(parts, "CHUNK", 300)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != RECORD}


@pytest.fixture(scope="module", params=["in turn", "mixed", "without duplicates"])
def made(request, tmp_path_factory):
    """Settings, and the store that one call of one thread makes with them."""
    data = replace(
        DATA,
        weights=(0.3, 0.7) if request.param == "mixed" else (),
        drop_duplicates=request.param == "without duplicates",
    )
    directory = tmp_path_factory.mktemp("made") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "PART", PART)
        build(directory, data, sources(), workers=1)
    return data, contents(directory)


def test_any_number_of_threads(made, tmp_path):
    data, wanted = made
    build(tmp_path / "store", data, sources(), workers=5)
    assert contents(tmp_path / "store") == wanted
    assert len([name for name in wanted if name.startswith("train") and name.endswith(".bin")]) > 5


@pytest.mark.parametrize("at", [70, 100, 170])
def test_what_was_done_before_a_kill_is_not_done_again(made, tmp_path, monkeypatch, at):
    data, wanted = made
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "store", data, dying(at), workers=1)
    assert not (tmp_path / "store").exists()
    kept = sorted(path.name for path in (tmp_path / "store.part").glob("*-*.json"))
    encoded = []
    real = parts._encode
    monkeypatch.setattr(parts, "_encode", lambda of, docs, *more: encoded.extend(docs) or real(of, docs, *more))
    monkeypatch.setattr(parts.SentencePieceTokenizer, "train", None)
    build(tmp_path / "store", data, sources(), workers=2)
    assert contents(tmp_path / "store") == wanted
    assert kept and len(encoded) < sum(map(len, TEXTS.values())) - 10 * len(kept)  # a part has some 17
    assert not (tmp_path / "store.part").exists()


def interrupt():
    raise KeyboardInterrupt


def dying(at: int, act: Callable[[], None] = interrupt) -> list[TextSource]:
    """The sources; when they are read for the second time, the encoding, something happens after `at` documents."""
    count = [0, 0]

    def dies(source):
        def documents(group):
            first = count[0] < 4 and not count.__setitem__(0, count[0] + 1)
            for document in group.documents():
                if not first:
                    count[1] += 1
                    if count[1] == at + 1:
                        act()
                yield document

        return source._replace(
            groups=[group._replace(documents=lambda group=group: documents(group)) for group in source.groups]
        )

    return [dies(source) for source in sources()]


def a_signal():
    os.kill(os.getpid(), signal.SIGTERM)


def an_error(error):
    raise error


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (a_signal, Preempted),
        (lambda: an_error(OSError(errno.ENOSPC, "No space left on device")), OSError),
        (lambda: an_error(InputError("text.txt, after line 7: cannot be read")), InputError),
    ],
    ids=["a signal", "a full disk", "a bad file"],
)
def test_the_parts_that_were_done_outlive_a_signal_and_an_error(made, tmp_path, monkeypatch, act, error):
    data, wanted = made

    def progress(documents: int) -> None:
        raise_if_stop_requested("prepared the text")

    with stoppable(), pytest.raises(error):
        build(tmp_path / "store", data, dying(100, act), progress, workers=1)
    kept = sorted(path.name for path in (tmp_path / "store.part").glob("*-*.json"))
    monkeypatch.setattr(parts.SentencePieceTokenizer, "train", None)
    written, real = [], parts._Writer._write
    monkeypatch.setattr(
        parts._Writer, "_write", lambda self, g, p, *more: written.append((g, p)) or real(self, g, p, *more)
    )
    build(tmp_path / "store", data, sources(), workers=1)
    assert contents(tmp_path / "store") == wanted
    assert kept and not {part_name(g, p) for g, p in written} & set(kept)


def test_a_kill_while_the_parts_become_a_store(made, tmp_path, monkeypatch):
    data, wanted = made
    monkeypatch.setattr("jaxmlm.data.merging.write_manifest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "store", data, sources(), workers=1)
    monkeypatch.undo()
    monkeypatch.setattr(parts, "PART", PART)
    build(tmp_path / "store", data, sources(), workers=1)
    assert contents(tmp_path / "store") == wanted


def test_parts_of_another_text_are_not_taken(made, tmp_path):
    data, wanted = made
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "store", replace(data, valid=0.3), dying(170), workers=1)
    assert list((tmp_path / "store.part").glob("*-*.json"))
    build(tmp_path / "store", data, sources(), workers=1)
    assert contents(tmp_path / "store") == wanted


@pytest.mark.parametrize(("shards", "groups"), [(2, 2), (3, 1), (5, 1), (4, 2)])
def test_shards_prepared_apart_and_merged_are_one_pass(tmp_path, shards, groups):
    data = replace(DATA, drop_duplicates=groups == 2)
    build(tmp_path / "one", data, sources(groups), workers=1)
    for shard in reversed(range(shards)):
        assert build(tmp_path / "many", data, sources(groups), workers=1, shard=(shard, shards)) is None
        if shard == 1:
            with pytest.raises(InputError, match=r"not every machine has finished \(found shard-1"):
                merge(tmp_path / "many", data)
    store = merge(tmp_path / "many", data)
    assert contents(store.directory) == contents(tmp_path / "one")


def test_machines_that_train_the_tokenizer_at_once_do_not_meet(tmp_path, monkeypatch):
    """The processes have the same number, as those of containers may."""
    save = SentencePieceTokenizer.save

    def meanwhile(tokenizer, directory):
        monkeypatch.setattr(SentencePieceTokenizer, "save", save)
        build(tmp_path / "many", DATA, sources(), workers=1, shard=(1, 2))
        save(tokenizer, directory)

    with monkeypatch.context():
        monkeypatch.setattr(SentencePieceTokenizer, "save", meanwhile)
        build(tmp_path / "many", DATA, sources(), workers=1, shard=(0, 2))
    build(tmp_path / "one", DATA, sources(), workers=1)
    assert contents(merge(tmp_path / "many", DATA).directory) == contents(tmp_path / "one")


def test_shares_of_another_number_of_machines_do_not_stand_in_the_way(tmp_path):
    build(tmp_path / "one", DATA, sources(), workers=1)
    for share in ((0, 3), (2, 3), (1, 2)):
        build(tmp_path / "many", DATA, sources(), workers=1, shard=share)
    with pytest.raises(InputError, match="not every machine has finished"):
        merge(tmp_path / "many", DATA)
    build(tmp_path / "many", DATA, sources(), workers=1, shard=(0, 2))
    assert contents(merge(tmp_path / "many", DATA).directory) == contents(tmp_path / "one")


def test_the_memory_that_dropping_duplicates_takes(tmp_path):
    shards = []
    for part in range(8):
        entries = np.zeros(50_000, DOCUMENT)
        entries["hash"], entries["tokens"] = np.arange(50_000) % 49_000 + part * 48_000, 1
        entries.tofile(tmp_path / f"{part}.docs")
        np.ones(50_000, np.uint16).tofile(tmp_path / f"{part}.bin")
        shards.append({"file": f"{part}.bin", "documents": 50_000, "tokens": 50_000})
    tracemalloc.start()
    dropped = finish._drop_duplicates(tmp_path, shards, np.dtype(np.uint16))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert dropped == 400_000 - 8 * 48_000 - 1_000 and peak < 30 * 400_000


def test_shares_that_do_not_make_a_store(tmp_path):
    with pytest.raises(InputError, match="nothing to merge"):
        merge(tmp_path / "store", DATA)
    with pytest.raises(InputError, match="data.weights do not go with --shard"):
        build(tmp_path / "store", replace(DATA, weights=(1.0, 1.0)), sources(), shard=(0, 2))
    assert list(tmp_path.iterdir()) == []
    for shard in (0, 1):
        build(tmp_path / "store", DATA, sources(), workers=1, shard=(shard, 2))
    part = tmp_path / "store.part"
    with pytest.raises(InputError, match=r"was prepared with another data.valid"):
        merge(tmp_path / "store", replace(DATA, valid=0.1))
    with pytest.raises(InputError, match="holds the parts of a different text"):
        build(tmp_path / "store", replace(DATA, valid=0.1), sources(), shard=(0, 2))
    whole, listed = ((part / f"train-00001-00000.{kind}").read_bytes() for kind in ("bin", "docs"))
    for file, raw, message in [
        ("train-00001-00000.bin", whole[:-2] + b"\0\0", "train-00001-00000.bin is missing or not complete"),
        ("train-00001-00000.docs", listed[:-24], "train-00001-00000.docs is missing or not complete"),
        ("shard-1-of-2.json", json.dumps({"tokenizer": "", "groups": {}}).encode(), "trained different tokenizers"),
    ]:
        kept = (part / file).read_bytes()
        (part / file).write_bytes(raw)
        with pytest.raises(InputError, match=message):
            merge(tmp_path / "store", DATA)
        (part / file).write_bytes(kept)
    (part / "00000-00001.json").unlink()
    with pytest.raises(InputError, match="00000-00001.json is missing: run --shard again on all 2 machines"):
        merge(tmp_path / "store", DATA)
    (part / "train-00000-00000.docs").write_bytes(b"")  # that part is done again
    build(tmp_path / "store", DATA, sources(), workers=1, shard=(0, 2))
    merge(tmp_path / "store", DATA)
    build(tmp_path / "one", DATA, sources(), workers=1)
    assert contents(tmp_path / "store") == contents(tmp_path / "one")


def test_duplicates_are_dropped_and_documents_have_ids(tmp_path):
    build(tmp_path / "store", replace(DATA, drop_duplicates=True), sources(), workers=2)
    store = Store(tmp_path / "store")
    found, lists = {}, list(TEXTS.values())
    for split in ("train", "valid"):
        tokens, start = store.tokens(split), 0
        for entry in store.documents(split):
            ids = tokens[np.arange(start, start + entry["tokens"])]
            start += int(entry["tokens"])
            assert ids[-1] == store.tokenizer.sep_id
            text = store.tokenizer.decode(ids[:-1].tolist())
            found[int(entry["file"]), int(entry["number"])] = text
        assert start == len(tokens)
    first = {}
    for file, lines in enumerate(lists):
        for i, line in enumerate(lines):
            first.setdefault(line, (file, i))
    assert sorted(found.values()) == sorted(first)
    assert {text: id_ for id_, text in found.items()} == first
    assert store.manifest["duplicates"] == sum(map(len, lists)) - len(first) == 50


@pytest.mark.parametrize("long", ["a bc " * 1000, "字" * 5000])
def test_the_tokenizer_is_trained_on_so_many_words_also_of_a_long_document(long):
    taken = list(parts.first_words(iter(["one two", long, "never read"]), 100))
    assert taken[0] == "one two" and long.startswith(taken[1]) and len(taken) == 2
    assert 98 <= parts.words_in(taken[1]) <= 99


def test_the_ids_of_a_long_document_are_never_all_in_a_list(made, tmp_path, monkeypatch):
    data, wanted = made
    monkeypatch.setattr(parts, "PIECE", 20)
    monkeypatch.setattr(parts, "BATCH", 2)
    most, real = [], parts.SentencePieceTokenizer.encode_batch
    monkeypatch.setattr(
        parts.SentencePieceTokenizer, "encode_batch", lambda self, texts: most.append(len(texts)) or real(self, texts)
    )
    build(tmp_path / "store", data, sources(), workers=1)
    assert contents(tmp_path / "store") == wanted and max(most) == 2


def test_a_store_that_another_command_makes_is_refused(tmp_path):
    """The second call comes from another thread while the first one reads its text."""
    refused = []

    def second():
        with pytest.raises(InputError, match="is in use: process") as error:
            build(tmp_path / "store", DATA, sources(), workers=1)
        refused.append(str(error.value))

    def beside():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()

    build(tmp_path / "store", DATA, dying(100, beside), workers=1)
    build(tmp_path / "alone", DATA, sources(), workers=1)
    assert len(refused) == 1 and contents(tmp_path / "store") == contents(tmp_path / "alone")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "store"]


def test_progress_counts_what_is_read(tmp_path):
    said: list[Progress] = []
    build(tmp_path / "store", DATA, [TextSource.of(lambda: TEXTS["big"] * 5, {"file": "big"}, 700)] * 2, said.append)
    assert said[0].stage == "tokenizer" and len(said) > 3
    counted = [(at.read, at.documents, at.tokens) for at in said[1:]]
    assert counted == sorted(counted) and all(at.size == 1400 and at.documents == at.read for at in said[1:])


def test_a_killed_process_goes_on(tmp_path):
    """kill -9 on the command itself."""
    text = tmp_path / "text.txt"
    text.write_text("\n".join(TEXTS["big"] * 40))
    program = (
        "import sys, jaxmlm.data.building as parts; parts.PART = 4000\n"
        "from jaxmlm.data import Data, build; from jaxmlm.data.sources import *\n"
        "from pathlib import Path; path = Path(sys.argv[1])\n"
        "data = Data(text='t', layout='line', vocab=40, length=16)\n"
        "build(path.parent / sys.argv[2], data, [text_source([path], 'line')], workers=1)"
    )
    words = [sys.executable, "-c", program, str(text)]
    process = subprocess.Popen([*words, "killed"])
    part = tmp_path / "killed.part"
    while process.poll() is None and len(list(part.glob("*-*.json"))) < 3:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "killed").exists()
    subprocess.run([*words, "killed"], check=True)
    subprocess.run([*words, "whole"], check=True)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
