"""Files that somebody else made, or that are torn: nothing but InputError of one line comes out of their readers.

JAXMLM_MUTATIONS=5000 pytest -m slow tests/data/test_untrusted.py   # the long form
"""

import gzip
import io
import json
import lzma
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
import zstandard

from jaxmlm.data import Data, SentencePieceTokenizer, build, merge
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
    return open_store(DATA, tmp_path_factory.mktemp("made"), phrases=True).folder


@pytest.fixture
def store(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "store"))


@FORMS
def test_manifests(store, count):
    path = store / MANIFEST
    assert survive(path, damaged_json(path.read_bytes(), count, 0), lambda: use(store)) > count


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


def word_pieces(folder: Path) -> None:
    import tokenizers

    words = {word: i for i, word in enumerate([*SPECIAL, *WORDS, *(f"##{letter}" for letter in "abcdefgh")])}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(words, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(SPECIAL)
    made.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "mask_token": {"content": "[MASK]"}}
    about |= {"added_tokens_decoder": {"4": {"content": "[MASK]", "special": True}}, "model_max_length": 10**30}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


def byte_level(folder: Path) -> None:
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
    made.save(str(folder / "tokenizer.json"))
    (folder / "special_tokens_map.json").write_text(json.dumps({"mask_token": "[MASK]", "cls_token": "[CLS]"}))


def unigram(folder: Path) -> None:
    export_tokenizer(SentencePieceTokenizer.train(TEXTS, 45), folder, 64)


def read_tokenizer(folder: Path) -> Callable[[], None]:
    def reads() -> None:
        tokenizer = open_tokenizer(folder)
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


def zipped(raw: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("one.txt", raw)
        archive.writestr("two.txt", raw)
    return out.getvalue()


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
