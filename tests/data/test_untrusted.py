"""Files that somebody else made, or that are torn: nothing but InputError of one line comes out of their readers.

JAXMLM_MUTATIONS=5000 pytest -m slow tests/data/test_untrusted.py   # the long form
"""

import bz2
import gzip
import io
import json
import lzma
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
import zstandard

from jaxmlm.data import Data, SentencePieceTokenizer, build, layouts, merge
from jaxmlm.data.hf_tokenizer import export_tokenizer, open_tokenizer
from jaxmlm.data.manifest import MANIFEST, write_manifest
from jaxmlm.data.opening import open_store
from jaxmlm.data.phrases import Phrases
from jaxmlm.data.phrases.counting import list_of
from jaxmlm.data.phrases.matching import find, trie
from jaxmlm.data.phrases.ranking import rank
from jaxmlm.data.phrases.ranking import read as read_phrases
from jaxmlm.data.sources import TextSource, documents, files
from jaxmlm.data.tokenizer import is_uncased
from jaxmlm.errors import InputError
from jaxmlm.json_files import parse_json, read_jsonl
from tests.data.mutations import COUNT, damaged_bytes, damaged_json, survive
from tests.data.test_verification import use

DATA = Data(text="sample:60", vocab=200, length=16, valid=0.2, phrases=Phrases(min_count=3, coverage=0.3))
LONG = [pytest.param(COUNT, marks=pytest.mark.slow("thousands of damaged files"))] if COUNT else []
FORMS = pytest.mark.parametrize("count", [40, *LONG])
WORDS = "the a cat dogs runs sees house tree big small red under over".split()
TEXTS = [" ".join(WORDS[(i * k) % 13] for k in range(1, 10)) + f" {i}" for i in range(80)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A store with phrases."""
    return open_store(DATA, tmp_path_factory.mktemp("made"), phrases=True).directory


@pytest.fixture
def store(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "store"))


@FORMS
def test_manifests(store, count):
    path = store / MANIFEST
    # Some changes leave the same values: 15 of 3,015.
    assert survive(path, damaged_json(path.read_bytes(), count, 0), lambda: use(store)) > 0.98 * count


@FORMS
def test_manifests_with_the_right_checksum(store, count):
    path = store / MANIFEST

    def reads() -> None:
        try:
            manifest = parse_json(path.read_bytes(), path)
        except InputError:
            return
        manifest.pop("checksum", None)
        write_manifest(store, manifest)
        use(store)

    survive(path, damaged_json(path.read_bytes(), count, 1), reads)


def word_pieces(directory: Path) -> None:
    import tokenizers

    words = {word: i for i, word in enumerate([*SPECIAL, *WORDS, *(f"##{letter}" for letter in "abcdefgh")])}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(words, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(SPECIAL)
    made.save(str(directory / "tokenizer.json"))
    about = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "mask_token": {"content": "[MASK]"}}
    about |= {"added_tokens_decoder": {"4": {"content": "[MASK]", "special": True}}, "model_max_length": 10**30}
    (directory / "tokenizer_config.json").write_text(json.dumps(about))


def byte_level(directory: Path) -> None:
    import tokenizers

    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIAL,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXTS, trainer)
    made.save(str(directory / "tokenizer.json"))
    (directory / "special_tokens_map.json").write_text(json.dumps({"mask_token": "[MASK]", "cls_token": "[CLS]"}))


def unigram(directory: Path) -> None:
    export_tokenizer(SentencePieceTokenizer.train(TEXTS, 45), directory, 64)


def read_tokenizer(directory: Path) -> Callable[[], None]:
    def reads() -> None:
        tokenizer = open_tokenizer(directory)
        ids, offsets = tokenizer.encode_offsets("The cat\u00e9 \ufb01ne [MASK] \u4e2d 12!")
        assert len(ids) == len(offsets)
        tokenizer.encode_batch(["a house", "\U0001f600 cats."])
        tokenizer.encode_masked(f"a {tokenizer.pieces([tokenizer.mask_id])[0]} cat")
        tokenizer.decode(ids)
        is_uncased(tokenizer)
        assert (tokenizer.boundaries[ids] <= 3).all()

    return reads


@FORMS
@pytest.mark.parametrize("kind", [word_pieces, byte_level, unigram])
def test_tokenizer_json(tmp_path, kind, count, capfd):
    kind(tmp_path)
    path = tmp_path / "tokenizer.json"
    assert survive(path, damaged_json(path.read_bytes(), count, 2), read_tokenizer(tmp_path)) > count // 8
    assert "panicked" not in capfd.readouterr().err


@FORMS
@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json", "config.json"])
def test_what_lies_beside_tokenizer_json(tmp_path, name, count):
    word_pieces(tmp_path)
    path = tmp_path / name
    if not path.is_file():
        path.write_text(json.dumps({"mask_token": {"content": "[MASK]"}, "model_type": "bert"}))
    survive(path, damaged_json(path.read_bytes(), count, 3), read_tokenizer(tmp_path))


@FORMS
def test_tokenizer_model(tmp_path, count):
    SentencePieceTokenizer.train(TEXTS, 45).save(tmp_path)
    path = tmp_path / "tokenizer.model"
    survive(path, damaged_bytes(path.read_bytes(), count, 4), read_tokenizer(tmp_path))


@pytest.mark.parametrize(
    ("kind", "place", "value", "message"),
    [
        (unigram, ("post_processor", "special_tokens"), {}, "which is not among its special tokens"),
        (unigram, ("normalizer", "normalizers", 1, "pattern"), {"String": ""}, "the pattern of a Replace is empty"),
        (byte_level, ("model", "continuing_subword_prefix"), "x" * 50, "does not continue a word with"),
    ],
)
def test_what_the_library_panics_at_is_refused_before(tmp_path, kind, place, value, message, capfd):
    kind(tmp_path)
    plain = json.loads((tmp_path / "tokenizer.json").read_text())
    within = plain
    for key in place[:-1]:
        within = within[key]
    within[place[-1]] = value
    (tmp_path / "tokenizer.json").write_text(json.dumps(plain))
    with pytest.raises(InputError, match=message):
        open_tokenizer(tmp_path)
    assert "panicked" not in capfd.readouterr().err


def test_a_store_without_phrases_has_no_phrase_list(tmp_path):
    data = Data(text="mine", vocab=45, valid=0.2, length=16)
    built = build(tmp_path / "store", data, [TextSource.of(lambda: TEXTS, {"file": "mine"})], workers=1)
    assert built is not None
    with pytest.raises(InputError, match="was prepared without phrases"):
        built.phrase_list()


def test_token_ids_of_a_vocabulary_with_a_forged_hole(tmp_path):
    word_pieces(tmp_path)
    plain = json.loads((tmp_path / "tokenizer.json").read_text())
    plain["model"]["vocab"]["zebra"] = 1 << 31
    (tmp_path / "tokenizer.json").write_text(json.dumps(plain))
    with pytest.raises(InputError, match=r"the largest token id is 2,147,483,648"):
        open_tokenizer(tmp_path)


@FORMS
@pytest.mark.parametrize("counts", [True, False])
def test_phrase_lists_of_parquet(store, tmp_path, count, counts):
    path = tmp_path / "list.parquet"
    table = parquet.read_table(store / "phrases.parquet")
    parquet.write_table(table if counts else table.select(["n", "phrase"]), path)
    phrases = Phrases(file=str(path), min_count=3)

    def reads() -> None:
        table = list_of(phrases, True, store)
        assert table is not None
        if "count" in table.column_names and "score" not in table.column_names:
            rank(table, phrases)
        find(trie(table["phrase"]), np.zeros(3, np.int32))

    survive(path, damaged_bytes(path.read_bytes(), count, 5), reads)


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "a.txt": bytes,
    "a.gz": gzip.compress,
    "a.xz": lzma.compress,
    "a.zst": zstandard.ZstdCompressor().compress,
    "a.jsonl": lambda raw: b"".join(json.dumps({"text": line.decode(), "meta": {"a": 1}}).encode() + b"\n"
                                    for line in raw.split(b"\n")),
}  # fmt: skip


def zipped(raw: bytes, method: int = zipfile.ZIP_DEFLATED, names: tuple[str, ...] = ("one.txt", "two.txt")) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name in names:
            archive.writestr(name, raw)
    return out.getvalue()


BOMBS: dict[str, Callable[[bytes], bytes]] = {
    "a.gz": gzip.compress,
    "a.bz2": bz2.compress,
    "a.xz": lambda raw: lzma.compress(raw, preset=0),
    "a.zst": zstandard.ZstdCompressor().compress,
    "a.zip": lambda raw: zipped(raw, names=("one.txt",)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_text_that_expands_a_thousand_times_takes_little_memory(tmp_path, name, monkeypatch):
    path = tmp_path / name
    size = 32 << 20
    monkeypatch.setattr(layouts, "LINE", 1 << 22)
    for line in (b"a" * ((1 << 18) - 1) + b"\n", b"a" * size):  # lines as they should be, and one line without an end
        path.write_bytes(BOMBS[name](line * (size // len(line))))
        assert path.stat().st_size < size // 900
        tracemalloc.start()
        try:
            if len(line) == size:
                with pytest.raises(InputError, match="line 1: a line of more than 4 MiB"):
                    list(documents(files(str(path)), "line"))
            else:
                assert sum(len(document.text) for document in documents(files(str(path)), "line")) == size - 128
            assert tracemalloc.get_traced_memory()[1] < 40 << 20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_its_library_unpacks_without_a_limit_is_refused(tmp_path, method):
    path = tmp_path / "a.zip"
    path.write_bytes(zipped(b"text\n", method))
    with pytest.raises(InputError, match=r"a\.zip, one\.txt: cannot be read .*is not deflate\): unpack it"):
        files(str(path))


def test_names_in_a_zip_are_shown_in_one_line(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(zipped(b"\xff", names=("x" * 5000 + ".txt", "a\n\x1b[2Jb.txt")))
    with pytest.raises(InputError, match="not UTF-8 text") as caught:
        list(documents(files(str(path))))
    assert len(str(caught.value)) < 1000 and str(caught.value).isprintable()
    path.write_bytes(zipped(b"text\n", names=("a\n\x1b[2Jb.txt.gz",)))
    with pytest.raises(InputError, match="packed itself") as caught:
        files(str(path))
    assert str(caught.value).isprintable()
    raw = zipped(b"text\n", names=("\u00e9.txt", "q"))
    nameless = raw[: raw.rfind(b"q")] + b"\0" + raw[raw.rfind(b"q") + 1 :]
    for bad in (raw.replace("\u00e9".encode(), b"\xff\xff"), nameless):
        path.write_bytes(bad)
        with pytest.raises(InputError, match="cannot be read"):
            list(documents(files(str(path))))


@FORMS
@pytest.mark.parametrize("name", [*PACKED, "a.zip"])
def test_texts(tmp_path, name, count):
    path = tmp_path / name
    path.write_bytes(PACKED.get(name, zipped)("\n".join(TEXTS).encode()))
    layout = "jsonl" if name.endswith("jsonl") else "line"
    survive(
        path,
        damaged_bytes(path.read_bytes(), count, 6),
        lambda: sum(len(document.text) for document in documents(files(str(path)), layout)),
    )


@FORMS
@pytest.mark.parametrize("name", ["plan.json", "shard-0-of-1.json", "00000-00000.json"])
def test_what_machines_say_that_they_have_done(tmp_path, name, count):
    data = Data(text="mine", vocab=45, valid=0.2, length=16)
    part = tmp_path / "store.part"

    def reads() -> None:
        kept = shutil.copytree(part, tmp_path / "kept")
        try:
            merge(tmp_path / "store", data)
        finally:
            shutil.rmtree(part, ignore_errors=True)
            shutil.rmtree(tmp_path / "store", ignore_errors=True)
            kept.rename(part)

    build(tmp_path / "store", data, [TextSource.of(lambda: TEXTS, {"file": "mine"})], workers=1, shard=(0, 1))
    survive(part / name, damaged_json((part / name).read_bytes(), count, 7), reads)


@FORMS
@pytest.mark.parametrize("name", ["plan.json", "00000-00000.json"])
def test_what_a_killed_prepare_has_left_is_done_again(tmp_path, name, count):
    data = Data(text="mine", vocab=45, valid=0.2, length=16)
    source = [TextSource.of(lambda: TEXTS, {"file": "mine"})]
    build(tmp_path / "whole", data, source, workers=1)
    part = tmp_path / "store.part"
    build(tmp_path / "store", data, source, workers=1, shard=(0, 1))
    kept = shutil.copytree(part, tmp_path / "kept")

    def reads() -> None:
        try:
            build(tmp_path / "store", data, source, workers=1)
        finally:
            shutil.rmtree(tmp_path / "store", ignore_errors=True)
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(kept, part)

    survive(part / name, damaged_json((part / name).read_bytes(), min(count, 300), 8), reads)


@FORMS
def test_json_lines(tmp_path, count):
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps({"step": i, "scores": {"loss": 1.5}}) + "\n" for i in range(5)))
    survive(path, damaged_json(b'{"step": 1, "scores": {"loss": 1.5}}', count, 9), lambda: read_jsonl(path))
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    with pytest.raises(InputError, match=r"results.jsonl, line 2 is not JSON"):
        read_jsonl(path)


def test_phrases_of_a_text_file(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("new york\nby the way\n")
    survive(path, damaged_bytes(path.read_bytes(), 60, 10), lambda: read_phrases(path, Phrases(file=str(path))))
