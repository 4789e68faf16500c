"""A store is whole or absent, the same bytes from the same text, and refuses what does not belong to it."""

import functools
import gzip
import hashlib
import os
import random
import resource
from dataclasses import replace

import numpy as np
import pytest
import tokenizers

from jaxmlm.data import Data, SentencePieceTokenizer, Store, build, open_rows, opening
from jaxmlm.data.sources import TextSource
from jaxmlm.data.verification import RECORD
from jaxmlm.errors import InputError

DATA = Data(text="mine", vocab=50, valid=0.2, length=16)


def texts(count: int, seed: int = 0) -> list[str]:
    pick = random.Random(seed).choice
    words = "the a cat dogs runs sees house tree big small red under over".split()
    return [" ".join(pick(words) for _ in range(9)) + f" {i}" for i in range(count)]


TEXTS = texts(120)


def built(directory, texts=TEXTS, data=DATA) -> Store:
    return build(directory, data, [TextSource.of(lambda: texts, {"file": "mine"})])


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != RECORD}


def split(store, name) -> list[str]:
    """The documents of a split, cut at the separators."""
    tokens = store.tokens(name)[np.arange(len(store.tokens(name)))]
    ends = np.flatnonzero(tokens == store.tokenizer.sep_id)
    assert ends[-1] == len(tokens) - 1
    return [store.tokenizer.decode(part[:-1].tolist()) for part in np.split(tokens, ends[:-1] + 1)]


def test_the_documents_and_nothing_else_and_the_same_bytes_again(tmp_path):
    store = built(tmp_path / "a" / "store")
    train, valid = split(store, "train"), split(store, "valid")
    held_out = [hashlib.sha1(text.encode()).hexdigest() < "33333333" for text in TEXTS]  # a fifth, in any process
    assert valid == [text for text, held in zip(TEXTS, held_out, strict=True) if held] and 5 < len(valid) < 60
    assert train == [text for text, held in zip(TEXTS, held_out, strict=True) if not held]
    assert store.tokens("train").dtype == np.uint16
    built(tmp_path / "b")
    assert contents(tmp_path / "a" / "store") == contents(tmp_path / "b")
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".part")] == []
    for name, documents in (("train", train), ("valid", valid)):
        assert store.manifest[name]["documents"] == len(documents)
        for shard in store.manifest[name]["shards"]:
            assert hashlib.sha256((store.directory / shard["file"]).read_bytes()).hexdigest() == shard["sha256"]
    assert store.manifest["source"] == [{"file": "mine"}]


def test_more_documents_move_none_to_the_other_split(tmp_path):
    first, more = built(tmp_path / "a"), built(tmp_path / "b", texts(60, seed=1) + TEXTS[::-1])
    for name in ("train", "valid"):
        assert set(split(first, name)) <= set(split(more, name))


def test_several_shards_read_as_one_stream(tmp_path, monkeypatch):
    whole = built(tmp_path / "one").tokens("train")
    monkeypatch.setattr("jaxmlm.data.building.PART", 300)
    store = built(tmp_path / "many")
    stream, index = store.tokens("train"), np.random.default_rng(0).integers(0, len(whole), (50, 7))
    assert len(store.manifest["train"]["shards"]) > 5 and len(stream) == len(whole)
    np.testing.assert_array_equal(stream[index], whole[index])
    monkeypatch.setattr("jaxmlm.data.building.PART", 4)  # smaller than any document: one a shard, none empty
    assert all(shard["tokens"] for shard in built(tmp_path / "each").manifest["train"]["shards"])


def test_more_shards_than_the_system_opens_files_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxmlm.data.building.PART", 4)
    store = built(tmp_path / "store", texts(300))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = 200
    assert len(store.shards("train")) > few
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, limits[1]))
        with monkeypatch.context() as patch, pytest.raises(InputError, match=r"Too many open files.*ulimit -n"):
            patch.setattr(resource, "getrlimit", lambda _: (few, few))
            store.tokens("train")
        assert len(store.tokens("train")) == store.manifest["train"]["tokens"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("part", [1 << 28, 300])
def test_a_text_of_one_document_has_a_held_out_part(tmp_path, monkeypatch, part):
    monkeypatch.setattr("jaxmlm.data.building.PART", part)
    for name, documents, data in (("one", [" ".join(TEXTS)], DATA), ("few", TEXTS, replace(DATA, valid=1e-9))):
        store = built(tmp_path / name, documents, data)
        train, valid = store.tokens("train"), store.tokens("valid")
        assert len(valid) >= 16 and len(train) >= 16
        flat = [id_ for text in documents for id_ in [*store.tokenizer.encode(text), store.tokenizer.sep_id]]
        assert [*train[np.arange(len(train))], *valid[np.arange(len(valid))]] == flat
        named = {shard["file"] for part in ("train", "valid") for shard in store.manifest[part]["shards"]}
        assert named == {path.name for path in store.directory.glob("*.bin")}


def test_a_build_that_dies_leaves_nothing(tmp_path):
    calls = []

    def documents():
        calls.append(1)
        for i, text in enumerate(TEXTS * 10):
            if len(calls) == 2 and i == 900:
                assert (tmp_path / "new" / "store.part").is_dir()
                raise KeyboardInterrupt
            yield text

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "new" / "store", DATA, [TextSource.of(documents, {"file": "mine"})])
    assert len(calls) == 2 and list(tmp_path.iterdir()) == []
    (tmp_path / "store.part").mkdir()  # what a kill -9 leaves
    (tmp_path / "store.part" / "train-00007.bin").write_bytes(b"left over")
    built(tmp_path / "store")
    built(tmp_path / "clean")
    assert contents(tmp_path / "store") == contents(tmp_path / "clean")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clean", "store"]


def test_a_text_that_is_too_short_for_its_rows_is_not_encoded_again_for_shorter_ones(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"'mine' gives \d\d+ tokens, less than a few rows of 2000"):
        built(tmp_path / "store", data=replace(DATA, length=2000))
    assert [path.name for path in tmp_path.iterdir()] == ["store.part"]
    built(tmp_path / "clean")
    monkeypatch.setattr("jaxmlm.data.building._encode", None)
    built(tmp_path / "store")
    assert contents(tmp_path / "store") == contents(tmp_path / "clean")


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    for directory in (tmp_path, tmp_path / "letter.txt"):
        with pytest.raises(InputError, match="is not a token store"):
            built(directory)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    assert not tmp_path.with_name(tmp_path.name + ".part").exists()
    with pytest.raises(InputError, match="holds no token store .*: make one with jaxmlm prepare"):
        Store(tmp_path)
    built(tmp_path / "run" / "store")
    with pytest.raises(InputError, match=r"holds no token store .*: give \S+/run/store"):
        Store(tmp_path / "run")


@pytest.mark.parametrize("kind", ["link", "broken link", "mounted disk"])
def test_a_folder_whose_place_no_store_can_take_is_refused_before_the_work(tmp_path, monkeypatch, kind):
    if kind == "mounted disk":
        (tmp_path / "store").mkdir()
        monkeypatch.setattr(type(tmp_path), "is_mount", lambda path: path.name == "store")
    else:
        (tmp_path / "store").symlink_to(tmp_path if kind == "link" else tmp_path / "none")
    with pytest.raises(InputError, match=r"name a directory in it, as --data.store .*/store/store"):
        build(tmp_path / "store", DATA, [TextSource.of(lambda: pytest.fail("read"), {"file": "mine"})])
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", "yours"),
        ("vocab", 51),
        ("lowercase", False),
        ("valid", 0.1),
        ("layout", "line"),
        ("tokenizer_words", 9),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, field, value):
    store = built(tmp_path / "store")
    store.check(replace(DATA, store="elsewhere", length=99))
    with pytest.raises(InputError, match=rf"made with data\.{field} .* this run wants {value!r}"):
        store.check(replace(DATA, **{field: value}))


def test_what_does_not_belong_to_the_store_is_refused(tmp_path):
    store = built(tmp_path / "store")
    shard = tmp_path / "store" / "train-00000.bin"
    raw = shard.read_bytes()
    for change in (lambda: shard.write_bytes(raw[:-2]), lambda: shard.write_bytes(raw + b"aa"), shard.unlink):
        change()
        with pytest.raises(InputError, match="train-00000.bin is missing or not complete"):
            store.tokens("train")
    model = tmp_path / "store" / "tokenizer.model"
    other = SentencePieceTokenizer.train(TEXTS, 49).model
    for change in (lambda: model.write_bytes(other), lambda: model.write_bytes(b""), model.unlink):
        change()
        with pytest.raises(InputError, match="tokenizer.model is not the one that wrote this store"):
            Store(tmp_path / "store")


def test_a_list_of_documents_that_does_not_fit_the_tokens_is_refused(tmp_path):
    store = built(tmp_path / "store")
    path = tmp_path / "store" / "train-00000.docs"
    raw = path.read_bytes()
    assert len(store.documents("train")) == store.manifest["train"]["documents"]
    for wrong in (raw[:-24], raw[:-1], raw + b"\0" * 24, bytes(len(raw)), b""):
        path.write_bytes(wrong)
        with pytest.raises(InputError, match=r"train-00000.docs is .*: delete the store and prepare it again"):
            store.documents("train")


@pytest.mark.parametrize(("field", "value"), [("valid", 0.0), ("valid", 1.0), ("length", 7), ("vocab", 15)])
def test_settings_out_of_range(field, value):
    with pytest.raises(InputError, match=rf"data\.{field} (must|is .*: it must)"):
        Data(**{field: value})


def test_a_ready_tokenizer_is_taken_as_it_is(tmp_path):
    build(tmp_path / "first", DATA, [TextSource.of(lambda: TEXTS, {"file": "mine"})])
    ready = replace(DATA, tokenizer=str(tmp_path / "first"), vocab=9_999, lowercase=False)  # neither counts any more
    store = build(tmp_path / "second", ready, [TextSource.of(lambda: TEXTS, {"file": "mine"})])
    assert np.array_equal(store.tokens("train"), Store(tmp_path / "first").tokens("train"))
    store.check(replace(ready, tokenizer=str(tmp_path / "second" / "tokenizer.model")))  # the same model elsewhere
    with pytest.raises(InputError, match="data.tokenizer"):
        store.check(DATA)
    with pytest.raises(InputError, match="no tokenizer at"):
        replace(DATA, tokenizer=str(tmp_path / "none")).content()


def test_a_ready_tokenizer_and_no_text(tmp_path):
    built(tmp_path / "first")
    data = replace(DATA, tokenizer=str(tmp_path / "first"), drop_duplicates=True)
    with pytest.raises(InputError, match="gives 0 tokens"):
        built(tmp_path / "second", [], data)


def test_texts_are_mixed_by_their_share_of_the_tokens(tmp_path):
    marked = {name: [f"{name} {text}" for text in texts(count, seed=1)] for name, count in (("red", 90), ("big", 400))}
    data = replace(DATA, text="red, big", weights=(0.25, 0.75), valid=0.01)
    sources = [TextSource.of(lambda name=name: marked[name], {"file": name}) for name in ("red", "big")]
    store = build(tmp_path / "store", data, sources)
    taken, total = store.manifest["mix"], store.manifest["train"]["tokens"] + store.manifest["valid"]["tokens"]
    assert sum(taken.values()) == total and abs(taken["red"] / total - 0.25) < 0.01
    first = [text.split()[0] for text in split(store, "train")]
    assert 0.15 < first[:40].count("red") / 40 < 0.35  # all the way, not one after the other
    assert 85 < first.count("red") <= 90 and first.count("big") < 300  # ended with the first text that did
    assert store.manifest["source"] == [{"file": "red"}, {"file": "big"}]
    in_turn = build(tmp_path / "turn", replace(data, weights=()), sources)
    assert [text.split()[0] for text in split(in_turn, "train")] == sorted(
        [text.split()[0] for text in split(in_turn, "train")], reverse=True
    )
    assert "mix" not in in_turn.manifest
    with pytest.raises(InputError, match=r"data.weights \[0.25, 0.75\], but this run wants \[0.5, 0.5\]"):
        store.check(replace(data, weights=(0.5, 0.5)))


@pytest.mark.parametrize(
    ("weights", "message"), [((1.0,), "one weight for each"), ((1.0, 0.0), "data.weights is 0: it must be above 0")]
)
def test_weights_that_fit_no_text(weights, message):
    with pytest.raises(InputError, match=message):
        Data(text="a, b", weights=weights)


def test_a_text_that_changed_is_not_served_from_the_old_store(tmp_path):
    from jaxmlm.data.opening import open_store

    file = tmp_path / "text.txt"
    file.write_text("\n".join(TEXTS))
    data = replace(DATA, text=str(file), layout="line", vocab=40)
    made = open_store(data, tmp_path).manifest
    assert open_store(data, tmp_path).manifest == made
    file.write_text("\n".join(TEXTS[:-1]))
    with pytest.raises(InputError, match="text.txt of [0-9,]+ bytes was not in it"):
        open_store(data, tmp_path)
    file.unlink()
    assert open_store(data, tmp_path).manifest == made  # a store may travel without its text


@pytest.mark.parametrize("ending", [".txt", ".txt.gz"])
def test_an_edit_that_keeps_the_size_is_noticed(tmp_path, monkeypatch, ending):
    """Only of files written since the store was made, so that what has not changed is not read."""
    file = tmp_path / f"text{ending}"
    raw = "\n".join(TEXTS).encode()
    pack = functools.partial(gzip.compress, compresslevel=0) if ending == ".txt.gz" else bytes
    file.write_bytes(pack(raw))
    os.utime(file, (0, 0))
    data = replace(DATA, text=str(file), layout="line", vocab=40)
    opening.open_store(data, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(opening, "sha256", None)
        opening.open_store(data, tmp_path)
    file.touch()
    opening.open_store(data, tmp_path)
    size = file.stat().st_size
    file.write_bytes(pack(raw.replace(b"dogs", b"cows")))
    assert file.stat().st_size == size
    with pytest.raises(InputError, match=rf"another text than .* \(text{ending} has changed since\): delete the store"):
        opening.open_store(data, tmp_path)


def test_a_store_made_for_shorter_rows_than_it_holds_out_says_so(tmp_path):
    """Of few documents as many tokens are held out as a row had, and the length of a row is not of the store."""
    store = built(tmp_path, [" ".join(TEXTS)], replace(DATA, valid=0.01))
    for format in ("packed", "documents", "sentences"):
        assert open_rows(store, "valid", 16, format).rows
    with pytest.raises(
        InputError, match=r"holds out \d+ tokens, no row of 100, .*name another --data.store, or delete"
    ):
        open_rows(store, "valid", 100)


AWKWARD = {
    "a long line": "word " * 4_000,
    "a long line without a space": "ab" * 4_000,
    "NULs": "a\0b \0",
    "lone surrogates": "a\ud800 \udfff",
    "nothing but marks": "\u0301\u200b\u00ad",
}


@pytest.mark.parametrize("kind", AWKWARD)
def test_awkward_documents_are_kept(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("jaxmlm.data.building.PIECE", 1000)
    store = built(tmp_path / "store", [*TEXTS, AWKWARD[kind], *TEXTS])
    found = [text for name in ("train", "valid") for text in split(store, name)]
    assert len(found) == 2 * len(TEXTS) + 1 == sum(store.manifest[name]["documents"] for name in ("train", "valid"))
    assert sorted(found, key=lambda text: text in TEXTS)[1:] == [t for t in found if t in TEXTS]
    if kind == "a long line":
        tokens = store.tokens("train"), store.tokens("valid")
        assert sum(len(part) for part in tokens) == sum(
            len(store.tokenizer.encode(text)) + 1 for text in [AWKWARD[kind], *TEXTS * 2]
        )


@pytest.mark.parametrize("raw", [b"\n \n\n", b"\xef\xbb\xbf\r\n", b"\xff\xfea\0b\0", b"fine\n\n\x00\x01\x80\x81"])
def test_a_file_that_gives_no_store_leaves_nothing(tmp_path, raw):
    from jaxmlm.data.opening import open_store

    (tmp_path / "a.txt").write_bytes(raw)
    with pytest.raises(InputError, match=r"the text is empty|a\.txt, line \d: not UTF-8 text .* at byte \d") as error:
        open_store(replace(DATA, text=str(tmp_path / "a.txt")), tmp_path / "run")
    assert "\n" not in str(error.value) and [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_ids_of_a_large_vocabulary_take_32_bits(tmp_path):
    store = built(tmp_path / "store")
    assert store.manifest["dtype"] == "uint16"
    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abc"])}
    words |= {f"##w{i}": i for i in range(8, 70_000)} | {"zebra": 70_000}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    store = built(tmp_path / "large", ["a zebra b"] * 40, replace(DATA, tokenizer=str(tmp_path)))
    assert store.tokens("train").dtype == np.uint32 and 70_000 in store.tokens("train")[np.arange(4)]
    with pytest.raises(InputError, match="data.vocab must be from 16 to 2,147,483,647"):
        Data(vocab=1 << 32)
