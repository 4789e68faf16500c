"""New words of a trained tokenizer: each is one token, and nothing else changes."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from jaxmlm.data import Data, SentencePieceTokenizer, Tokenizer, build, open_source
from jaxmlm.data.hf_tokenizer import HfTokenizer, export_tokenizer, open_tokenizer
from jaxmlm.data.new_words import LEAST, find, parts_of_new, with_new_words
from jaxmlm.data.opening import notes_of, open_store
from jaxmlm.errors import InputError
from jaxmlm.runs import Run
from jaxmlm.synthetic import world

KINDS = ("sentencepiece", "Unigram", "WordPiece", "BPE")
TEXTS = list(world.documents(0, 300))
WARD = (
    "The ward saw a tachycardia, and a cardiologist in the ward; the Cardiologists saw (tachycardia) and tachycardias."
)
DOMAIN = [WARD] * LEAST + ["One ward: a tachycardia!"] * 10 * LEAST
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def trained(kind: str, directory: Path) -> Tokenizer:
    """A small tokenizer of the generated world."""
    if kind in ("sentencepiece", "Unigram"):
        made = SentencePieceTokenizer.train(TEXTS, 300)
        if kind == "sentencepiece":
            return made
        export_tokenizer(made, directory, 64)
        return HfTokenizer(directory)
    library: Any = tokenizers
    if kind == "WordPiece":
        made = library.BertWordPieceTokenizer()
        made.train_from_iterator(TEXTS, vocab_size=300, show_progress=False)
    else:
        made = library.ByteLevelBPETokenizer()
        made.train_from_iterator(TEXTS, vocab_size=400, special_tokens=SPECIAL, show_progress=False)
    directory.mkdir(exist_ok=True)
    made.save(str(directory / "tokenizer.json"))
    return HfTokenizer(directory)


@pytest.fixture(scope="module")
def olds(tmp_path_factory) -> dict[str, Tokenizer]:
    return {kind: trained(kind, tmp_path_factory.mktemp("old") / kind) for kind in KINDS}


@pytest.fixture(scope="module")
def news(olds) -> dict[str, Tokenizer]:
    return {kind: with_new_words(old, DOMAIN, 3) for kind, old in olds.items()}


def expanded(ids: list[int], new: Tokenizer, old: Tokenizer) -> list[int]:
    """The ids with those of the pieces of each new word in its place."""
    parts = parts_of_new(new, old)
    return list(itertools.chain(*([i] if i < old.size else parts[i - old.size] for i in ids)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_word_is_one_token_that_stands_for_its_pieces(kind, olds, news):
    old, new = olds[kind], news[kind]
    words = new.piece_texts[old.size :]
    assert words[:2] == ["tachycardia", "ward"] and new.size == old.size + 3
    for text in (WARD, DOMAIN[-1], " tachycardia ward", "backward wards", "a ward's ward"):
        ids = new.encode(text)
        assert expanded(ids, new, old) == old.encode(text)
        assert new.decode(ids) == old.decode(old.encode(text))
        assert new.encode_batch([text]) == [ids] == [new.encode_offsets(text)[0]]
    assert new.encode(" ward") == [old.size + 1] and old.size + 1 in new.encode(WARD)
    spans = [WARD[begin:end] for i, (begin, end) in zip(*new.encode_offsets(WARD), strict=True) if i == old.size]
    assert spans and set(spans) == {"tachycardia"}


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_old_tokens_are_does_not_change(kind, olds, news):
    old, new = olds[kind], news[kind]
    assert new.pieces(range(old.size)) == old.pieces(range(old.size)) and not new.special[old.size :].any()
    assert np.array_equal(new.special[: old.size], old.special)
    assert np.array_equal(new.boundaries[: old.size], old.boundaries) and (new.boundaries[old.size :] == 1).all()
    assert new.encode_batch(TEXTS) == old.encode_batch(TEXTS)
    for text in ("[MASK] <mask>", "the <s> [SEP] of it", " \n a\tb"):
        assert new.encode(text) == old.encode(text) and new.encode_masked(text) == old.encode_masked(text)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_opened_it_is_the_same(kind, news, tmp_path):
    news[kind].save(tmp_path)
    again = open_tokenizer(tmp_path)
    assert again.model == news[kind].model and again.encode(WARD) == news[kind].encode(WARD)


@pytest.mark.parametrize("kind", KINDS)
def test_words_can_be_added_again(kind, olds, news):
    """To an encoder that was adapted before."""
    more = with_new_words(news[kind], ["a bradycardia of the ward"] * LEAST, 1)
    assert more.piece_texts[olds[kind].size :] == [*news[kind].piece_texts[olds[kind].size :], "bradycardia"]
    assert more.encode(WARD) == news[kind].encode(WARD)


def test_the_exported_tokenizer_has_the_new_words(olds, news, tmp_path):
    export_tokenizer(news["sentencepiece"], tmp_path, 64)
    exported = HfTokenizer(tmp_path)
    for text in [*DOMAIN, *TEXTS[:50]]:
        assert exported.encode(text) == news["sentencepiece"].encode(text)


def test_words_are_ordered_by_the_tokens_that_they_save(olds):
    """Count times (pieces - 1), then the alphabet; a rare word, one with digits, one after a bracket are not found."""
    old = olds["WordPiece"]
    rare = "zygote " * (LEAST - 1)
    found = find(["ward tachycardia " * LEAST + "ward " + rare + "zq7 zq7 zq7 zq7 zq7 zq7"], old)
    assert [(word.text, word.count) for word in found] == [("tachycardia", LEAST), ("ward", LEAST + 1)]
    assert [word.saved for word in found] == [word.count * (len(old.encode(word.text)) - 1) for word in found]
    assert find(["(tachycardia)" * LEAST], olds["BPE"]) == []
    same = find(["wardy wardx " * LEAST], old)
    assert [word.text for word in same] == sorted(word.text for word in same)


def test_too_many_words_and_tokenizers_that_cannot_be_extended_are_refused(olds, tmp_path):
    with pytest.raises(InputError, match=r"new_words is 900, and the text has \d words that the tokenizer cuts"):
        with_new_words(olds["BPE"], DOMAIN, 900)
    with pytest.raises(InputError, match="it is a BPE of SentencePiece"):
        with_new_words(SentencePieceTokenizer.train(TEXTS, 300, model_type="bpe"), DOMAIN, 1)
    plain = json.loads(olds["BPE"].model)
    vocab = plain["model"]["vocab"]
    never = next(b + a for a, b in itertools.pairwise("qzxjkvw") if b + a not in vocab)
    vocab[never] = len(vocab)
    (tmp_path / "tokenizer.json").write_text(json.dumps(plain))
    with pytest.raises(InputError, match=f"its merges never make its entry '{never}'"):
        with_new_words(HfTokenizer(tmp_path), DOMAIN, 1)
    with pytest.raises(InputError, match="new_words is -1: it must be an integer of at least 0"):
        Data(new_words=-1)
    with pytest.raises(InputError, match="new_words is 5, and the tokenizer is trained on this text: give a trained"):
        Run(data=Data(new_words=5))
    with pytest.raises(InputError, match="give a trained one"):
        open_store(Data(text="sample:100", new_words=5), tmp_path / "run")


def test_a_store_has_the_extended_tokenizer_and_its_words_are_part_of_what_it_is(olds, tmp_path):
    olds["BPE"].save(tmp_path)
    (tmp_path / "my.txt").write_text("\n\n".join(DOMAIN * 20))
    data = Data(
        text=str(tmp_path / "my.txt"), store=str(tmp_path / "store"), tokenizer=str(tmp_path), new_words=2, length=16
    )
    store = open_store(data, tmp_path, notes=False)
    assert store.tokenizer.size == olds["BPE"].size + 2 == store.manifest["vocab"]
    assert notes_of(store)[0] == "2 new words: tachycardia, ward"
    one = Path(store.directory, "tokenizer.json").read_bytes()
    assert {olds["BPE"].size, olds["BPE"].size + 1} <= set(store.tokens("train")[np.arange(200)].tolist())
    with pytest.raises(InputError, match=r"made with data.new_words 2, but this run wants the default"):
        open_store(Data(**{**vars(data), "new_words": 0}), tmp_path)
    # Two machines that share the work, and one thread for each.
    other = Data(**{**vars(data), "store": str(tmp_path / "other")})
    for shard in (0, 1):
        build(tmp_path / "other", other, [open_source(other.text, other)], workers=1, shard=(shard, 2))
    assert (tmp_path / "other.part" / "tokenizer.json").read_bytes() == one
