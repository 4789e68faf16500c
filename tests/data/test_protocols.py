"""A tokenizer or a store of the user's own does what ours do, without inheriting from them."""

import numpy as np
import pytest

from jaxmlm.data import (
    Batches,
    Data,
    RowFormat,
    SentencePieceTokenizer,
    Store,
    Tokenizer,
    TokenSplits,
    Vocabulary,
    build,
    open_rows,
)
from jaxmlm.data.hf_tokenizer import HfTokenizer, export_tokenizer
from jaxmlm.data.inputs import with_special_tokens
from jaxmlm.data.sources import TextSource
from jaxmlm.errors import InputError
from jaxmlm.masking import Masking
from jaxmlm.tasks.mlm import vocab_of
from jaxmlm.tools.stand_ins import BlankStore, BlankVocabulary

TEXTS = ["the old owl sees a hen", "a hen sleeps by the old oak", "she saw the owl"] * 9


class Characters:
    """A tokenizer of a user: a character is a token; written against the docstring of `Tokenizer` alone."""

    model = b"characters"
    size = 5 + 128
    pad_id, unk_id, cls_id, sep_id, mask_id = range(5)
    pair_separator_ids = [3]  # noqa: RUF012 (nobody changes it)

    def __init__(self):
        self.special = np.arange(self.size) < 5
        self.piece_texts = ["" if i < 5 else chr(i - 5) for i in range(self.size)]
        self.boundaries = np.array([3 if not text.isalpha() else 0 for text in self.piece_texts], np.uint8)

    def pieces(self, ids):
        return [f"<{i}>" if i < 5 else chr(i - 5) for i in ids]

    def encode(self, text):
        return [ord(c) + 5 if ord(c) < 128 else self.unk_id for c in text]

    def encode_batch(self, texts):
        return [self.encode(text) for text in texts]

    def encode_masked(self, text):
        return [i for part in text.split("<4>") for i in (*self.encode(part), self.mask_id)][:-1]

    def encode_offsets(self, text):
        return self.encode(text), [(i, i + 1) for i in range(len(text))]

    def decode(self, ids):
        return "".join(self.piece_texts[i] for i in ids)

    def save(self, directory):
        (directory / "characters").touch()


@pytest.fixture(scope="module")
def trained():
    return SentencePieceTokenizer.train(TEXTS, 26)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    directory = tmp_path_factory.mktemp("exported")
    export_tokenizer(trained, directory, 32)
    return HfTokenizer(directory)


def check_tokenizer(tokenizer) -> None:
    """What the docstrings of `Vocabulary` and `Tokenizer` promise."""
    text = "a hen sees the owl"
    ids = tokenizer.encode(text)
    assert tokenizer.encode_batch([text, "owl"]) == [ids, tokenizer.encode("owl")]
    found, offsets = tokenizer.encode_offsets(text)
    assert found == ids and [text[a:b] for a, b in offsets if b > a][-1] == text[offsets[-1][0] :]
    assert tokenizer.decode([tokenizer.cls_id, *ids, tokenizer.sep_id]) == text
    assert not tokenizer.special[ids].any()
    five = [tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id]
    assert len(set(five)) == 5 and tokenizer.special[five].all() and not any(tokenizer.piece_texts[i] for i in five)
    assert "".join(tokenizer.piece_texts[i] for i in ids).replace(" ", "") == text.replace(" ", "")
    assert len(tokenizer.special) == len(tokenizer.boundaries) == len(tokenizer.piece_texts) == tokenizer.size
    mask = tokenizer.pieces([tokenizer.mask_id])[0]
    assert tokenizer.encode_masked(f"a {mask} sees").count(tokenizer.mask_id) == 1
    pair = with_special_tokens(tokenizer, ids, ids).ids
    assert pair == [tokenizer.cls_id, *ids, *tokenizer.pair_separator_ids, *ids, tokenizer.sep_id]


def test_the_implementations_keep_the_protocols(trained, exported, tmp_path):
    source = TextSource.of(lambda: TEXTS, {"file": "mine"})
    store = build(tmp_path / "store", Data(text="mine", vocab=26, valid=0.3, length=8), [source], workers=1)
    assert isinstance(store, Store)
    for tokenizer in (trained, exported, store.tokenizer, Characters()):
        assert isinstance(tokenizer, Tokenizer) and isinstance(tokenizer, Vocabulary)
        check_tokenizer(tokenizer)
    blank = BlankStore(Data(vocab=26, length=8), 4)
    assert isinstance(blank.tokenizer, BlankVocabulary) and not isinstance(blank.tokenizer, Tokenizer)
    for splits in (store, blank):
        assert isinstance(splits, TokenSplits) and isinstance(splits.tokenizer, Vocabulary)
        rows = open_rows(splits, "train", 8, "documents")
        assert isinstance(rows, RowFormat) and rows.take(np.arange(2))["ids"].shape == (2, 8)


@pytest.mark.parametrize("form", ["packed", "documents", "sentences"])
def test_a_store_of_ones_own_gives_batches(form):
    class InMemory:
        directory = "memory"
        tokenizer = Characters()

        def tokens(self, split):
            return np.array([i for text in TEXTS for i in (*self.tokenizer.encode(text), 3)], np.uint16)

        def units(self, split):
            return None

        def documents(self, split):
            return np.array([len(text) + 1 for text in TEXTS], [("tokens", "<u4")])

    store = InMemory()
    batches = Batches(open_rows(store, "train", 16, form), 4)
    text = "".join(TEXTS)
    for row in batches.at(0)["ids"]:
        assert store.tokenizer.decode(row) in text
    assert vocab_of(store, Masking(0.4)).mask_id == 4
    with pytest.raises(InputError, match="prepared without phrases"):
        open_rows(store, "train", 16, form, phrases=True)


def test_a_tokenizer_of_ones_own_is_not_exported(tmp_path):
    with pytest.raises(InputError, match="a Characters cannot be written as a tokenizer.json"):
        export_tokenizer(Characters(), tmp_path, 16)
