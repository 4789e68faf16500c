"""Fixed ids, no special id out of text, exact word starts and offsets, training that is a function of its text."""

import io
import random
import re

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HfModel
from tokenizers import models, pre_tokenizers

from jaxmlm.data import SentencePieceTokenizer, Tokenizer
from jaxmlm.data.hf_tokenizer import HfTokenizer
from jaxmlm.data.tokenizer import pieces_of
from jaxmlm.data.word_boundaries import boundaries
from jaxmlm.errors import InputError

WORDS = (
    "the a cat dogs runs sees house tree big small café naïve file over straße office 1 2 k g . , ⁄ mask pad".split()
)
WORDS += ["שלום", "😀"]
_random = random.Random(0)
TEXTS = [" ".join(_random.choice(WORDS) for _ in range(12)) for _ in range(200)]


@pytest.fixture(scope="module", params=[True, False], ids=["lower", "cased"])
def tokenizer(request) -> Tokenizer:
    return SentencePieceTokenizer.train(TEXTS, 66, request.param)


def test_fixed_ids_and_tables(tokenizer):
    assert tokenizer.pieces(range(5)) == ["<pad>", "<unk>", "<cls>", "<sep>", "<mask>"]
    ids = (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id)
    assert ids == (0, 1, 2, 3, 4) and tokenizer.size == 66
    assert np.flatnonzero(tokenizer.special).tolist() == [0, 1, 2, 3, 4] and tokenizer.special.shape == (66,)
    for id_, piece in enumerate(tokenizer.pieces(range(66))):
        mark = piece.lstrip("▁") in (".", ",", "⁄", "😀") or id_ < 5
        assert tokenizer.boundaries[id_] == (3 if mark else piece.startswith("▁")), piece
        assert tokenizer.piece_texts[id_] == ("" if id_ < 5 else piece.replace("▁", ""))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=8))
def test_round_trip_and_one_word_start_a_word(tokenizer, words):
    text = " ".join(words)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text and tokenizer.unk_id not in ids
    pieces = tokenizer.pieces(ids)
    assert [piece.startswith("▁") for piece in pieces].count(True) == len(words)
    # A word that punctuation is not cut out of is one word: from its mark to the next.
    starts = (tokenizer.boundaries[ids] & 1) | (np.append(2, tokenizer.boundaries[ids[:-1]]) >> 1)
    assert all(starts[i] for i, piece in enumerate(pieces) if piece.startswith("▁"))
    if not {"⁄", ".", ",", "😀"} & set(words):
        assert starts.sum() == len(words)
    assert tokenizer.encode_batch([text, "a"]) == [ids, tokenizer.encode("a")]


@pytest.mark.parametrize(
    "text", ["<mask>", "<pad><cls> <sep>", "the <mask> cat", "<unk>", "<s></s>", "[MASK]", "▁<mask>"]
)
def test_text_that_spells_a_special_piece(tokenizer, text):
    ids = tokenizer.encode(text)
    assert not {tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id} & set(ids) and len(ids) > 1
    assert tokenizer.decode([2, *tokenizer.encode("the cat"), 4, 3, 0]) == "the cat"


def ready(kind: str, directory) -> HfTokenizer:
    """A tokenizer.json whose vocabulary has every letter, and the special tokens among its pieces."""
    names = ["<pad>", "<unk>", "<cls>", "<sep>", "<mask>"]
    letters = [*"\u2581abcdefghijklmnopqrstuvwxyz<>", "\u2581a"]
    if kind == "Unigram":
        model = models.Unigram([(name, 0.0) for name in names] + [(letter, -5.0) for letter in letters], unk_id=1)
    else:
        words = [*names, *letters, *(f"##{letter}" for letter in letters)]
        model = models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    made = HfModel(model)
    made.pre_tokenizer = pre_tokenizers.Metaspace() if kind == "Unigram" else pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(names)
    made.save(str(directory / "tokenizer.json"))
    return HfTokenizer(directory)


@pytest.mark.parametrize("kind", ["Unigram", "WordPiece"])
@pytest.mark.parametrize("text", ["<mask>", "a <sep> b", "<pad><cls> <sep>", "a<mask>"])
def test_text_that_spells_a_special_token_of_a_ready_tokenizer(tmp_path, kind, text):
    tokenizer = ready(kind, tmp_path)
    special = {tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id}
    found = [tokenizer.encode(text), tokenizer.encode_batch([text])[0], tokenizer.encode_offsets(text)[0]]
    assert found[0] == found[1] == found[2] and found[0] and not special & set(found[0])
    assert tokenizer.encode_masked("a <mask> b").count(tokenizer.mask_id) == 1
    assert tokenizer.encode_masked("a b") == tokenizer.encode("a b")


FAMILIES = {
    "SentencePiece": {
        "<s>": 3, "▁new": 1, "er": 0, "▁": 1, ".": 3, "▁.": 3, "▁(": 3, "...": 3, "▁$": 3, "'": 3, "'s": 0, "▁1990": 1,
        "7": 0, "é": 0, "\u0301": 0, "▁עִ": 1, "##": 3, "Ġa": 0, "。": 3, "²": 0, "\n": 3, "\t": 3, "<0x0A>": 3,
        "<0x09>": 3, "<0x20>": 1, "<0x2D>": 3, "<0x41>": 0, "<0xE2>": 0, "##a": 0, "hen</w>": 0,
    },
    "WordPiece": {
        "[CLS]": 3, "[unused1]": 1, "new": 1, "##er": 0, "##s": 0, "##ing": 0, ".": 3, "(": 3, "é": 1, "▁": 3, "Ġ": 1,
        "##.": 0,
    },
    "byte-level BPE": {
        "<s>": 3, "Ġnew": 1, "er": 0, "Ġ": 1, ".": 3, "Ġ(": 3, "Ċ": 3, "âĢĻ": 3, "âĢĻs": 0, "âĢ": 0, "Ã©": 0, "ĠÃ©t": 1,
        "##": 3, "Ġ1990": 1, "Ġ-": 3,
        "ĊĊ": 3, "ĉ": 3, "Âł": 3, "ãĢĢ": 3, "ĠĠ": 1, "ĠĊ": 3, "ĊĠ": 1, "ĉcell": 1, ".Ċ": 3, "Â": 0, "ł": 0,
    },
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_boundaries_of_the_families_of_vocabularies(family):
    pieces = list(FAMILIES[family])
    got = boundaries(pieces, np.arange(len(pieces)) == 0)
    assert dict(zip(pieces, got.tolist(), strict=True)) == FAMILIES[family]


NONE = {
    "no marks": (["new", "er"], "no piece"),
    "ends of words": (["new", "er</w>"], "no piece .* 1 end in '</w>'"),
    "ends of words and a stray ##": (
        ["the</w>", "hen</w>", "sp", "arrow</w>", "##</w>"],
        "no piece .* 4 end in '</w>'",
    ),
    "ends of words and other strays": (
        ["the</w>", "hen</w>", "sp", "arrow</w>", "##y</w>", "\u2581", "Ġa</w>"],
        "only 1 ",
    ),
    "parts that go on": (["the", "hen", "sp@@", "arrow", "##", "Ġ", "▁"], "no piece .* 1 end in '@"),
    "spaces at the ends": (["the▁", "hen▁", "sp", "arrow▁", "▁", "▁▁"], "end in '▁'"),
    "whole words of many alphabets": (["the", "hen", "中", "—", "Ġorġ", "Ġ", "ħ", "ą"], "no piece"),
    "as many of two families": (["▁the", "##er", "hen"], "only 1 "),
}


@pytest.mark.parametrize("kind", NONE)
def test_a_vocabulary_of_no_family_is_refused(kind):
    pieces, message = NONE[kind]
    with pytest.raises(InputError, match=rf"{message}.*") as error:
        boundaries(["<s>", *pieces], np.arange(len(pieces) + 1) == 0)
    assert f"of this vocabulary (as {pieces[:3]})" in str(error.value)


@pytest.mark.parametrize("mark", ["▁", "Ġ"])
def test_a_vocabulary_of_single_characters_has_its_mark_alone(mark):
    assert boundaries(["<s>", mark, "a", "b"], np.arange(4) == 0).tolist() == [3, 1, 0, 0]


def test_an_attached_full_stop_is_no_part_of_the_word():
    tokenizer = SentencePieceTokenizer.train(TEXTS, 66)
    ids = tokenizer.encode("the house. (cat")
    starts = (tokenizer.boundaries[ids] & 1) | (np.append(2, tokenizer.boundaries[ids[:-1]]) >> 1)
    ends = np.append(np.flatnonzero(starts), len(ids))
    words = ["".join(tokenizer.piece_texts[i] for i in ids[a:b]) for a, b in zip(ends[:-1], ends[1:], strict=True)]
    assert [word for word in words if word] == ["the", "house", ".", "cat"]  # "(" is unknown to this tokenizer


HARD = """Café  naïve|cafe\u0301 nai\u0308ve e\u0301| 😀😀  the 👩\u200d👧 😀 |ﬁle oﬃce ½ ㎏ ①
|the… a…b …|ｆｉｌｅ ﷺ x|STRASSE Straße İ
|שלום עִבְרִית cat|a\ud800b \udfff|a\0b \0|  the   cat  |a\u3000b\tc\nd\u00a0e|한글 가|the\u200bcat\u00ad||   |\n""".split(
    "|"
)


def check_offsets(tokenizer, text):
    ids, offsets = tokenizer.encode_offsets(text)
    assert ids == tokenizer.encode(text) and len(offsets) == len(ids)
    begins, ends = [begin for begin, _ in offsets], [end for _, end in offsets]
    assert begins == sorted(begins) and all(0 <= b <= e <= len(text) for b, e in offsets)
    covered = {i for b, e in offsets for i in range(b, e)}
    assert covered >= {i for i, c in enumerate(text) if tokenizer.encode(c)}  # others are spaces, or count as such
    for id_, begin, end in zip(ids, begins, ends, strict=True):
        assert not text[begin:end][:1].isspace()
        assert begin < end or tokenizer.pieces([id_]) == ["▁"]


@pytest.mark.parametrize("text", HARD, ids=ascii)
def test_offsets_of_hard_texts(tokenizer, text):
    check_offsets(tokenizer, text)


@settings(max_examples=100, deadline=None)
@given(st.text("aethcſ ​ﬁ½…é\u0301\u0308עִ😀\u200dﷺ㎏İ\u0000\ud800\u00a0\u3000\n<>", max_size=20))
def test_offsets_of_any_text(tokenizer, text):
    check_offsets(tokenizer, text)


def test_offsets_where_normalisation_changes_lengths(tokenizer):
    text = "ﬁle … cafe\u0301 ½ the ㎏ cat"
    ids, offsets = tokenizer.encode_offsets(text)
    words: dict[str, list[str]] = {}
    for piece, (begin, end) in zip(tokenizer.pieces(ids), offsets, strict=True):
        if begin < end:
            begin = text.rfind(" ", 0, begin + 1) + 1
            words.setdefault(re.split(" ", text[begin:])[0], []).append(piece.strip("▁"))
    assert {word: "".join(pieces) for word, pieces in words.items()} == {
        "ﬁle": "file", "…": "...", "cafe\u0301": "café", "½": "1⁄2", "the": "the", "㎏": "kg", "cat": "cat",
    }  # fmt: skip
    begin, end = next(o for p, o in zip(tokenizer.pieces(ids), offsets, strict=True) if p.startswith("▁café"))
    assert text[begin:end] == "cafe\u0301"


@pytest.mark.parametrize("byte_fallback", [False, True])
def test_a_text_too_small_for_any_vocabulary_is_called_so(byte_fallback):
    """To set data.vocab to what it gives would be refused by the configuration."""
    with pytest.raises(InputError, match="at most [0-9]+ tokens, and data.vocab must be at least .*: give more text"):
        SentencePieceTokenizer.train(["a b", "c"], 4000, byte_fallback=byte_fallback)


def test_a_vocabulary_that_does_not_fit_names_one_that_does():
    with pytest.raises(InputError, match="a vocabulary of 5000 tokens is too large .* at most") as large:
        SentencePieceTokenizer.train(TEXTS, 5000)
    most = int(re.search(r"data.vocab to (\d+) or less", str(large.value))[1])
    assert SentencePieceTokenizer.train(TEXTS, most).size == most
    with pytest.raises(InputError, match="a vocabulary of 16 tokens is too small") as small:
        SentencePieceTokenizer.train(TEXTS, 16)
    least = int(re.search(r"data.vocab to (\d+) or more", str(small.value))[1])
    assert SentencePieceTokenizer.train(TEXTS, least).size == least
    with pytest.raises(InputError, match="too large"):
        SentencePieceTokenizer.train(TEXTS, most + 1)
    with pytest.raises(InputError, match="too small"):
        SentencePieceTokenizer.train(TEXTS, least - 1)


@pytest.mark.parametrize("texts", [[], [""], ["\0"], [" \n "]])
def test_no_text_to_train_on(texts):
    with pytest.raises(InputError, match="the text is empty, or white space alone"):
        SentencePieceTokenizer.train(texts, 30)


def test_training_is_a_function_of_the_text(tokenizer, tmp_path):
    model = SentencePieceTokenizer.train(TEXTS, 60).model
    assert SentencePieceTokenizer.train(iter(TEXTS), 60).model == model != SentencePieceTokenizer.train(TEXTS, 61).model
    (tmp_path / "tokenizer.model").write_bytes(model)
    loaded = SentencePieceTokenizer.load(tmp_path / "tokenizer.model")
    assert loaded.encode(TEXTS[0]) == SentencePieceTokenizer(model).encode(TEXTS[0])


def test_special_pieces_of_other_makers_are_found_by_name():
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 4), model_writer=out, vocab_size=60, minloglevel=2,
        control_symbols=["[CLS]", "[SEP]", "[MASK]"], pad_id=0, unk_id=1, bos_id=-1, eos_id=-1,
    )  # fmt: skip
    tokenizer = SentencePieceTokenizer(out.getvalue())
    ids = (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id)
    assert tokenizer.pieces(ids) == ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    assert np.flatnonzero(tokenizer.special).tolist() == sorted(ids)


NAMED = ["[CLS]", "[SEP]", "[MASK]"]


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize(
    "options",
    [
        {"user_defined_symbols": NAMED, "bos_id": -1, "eos_id": -1},
        {"user_defined_symbols": ["<mask>"], "bos_piece": "<cls>", "eos_piece": "<sep>"},
        {"user_defined_symbols": [*NAMED, "[PAD]", "<s>"], "pad_id": -1, "bos_id": -1, "eos_id": -1},
        {"control_symbols": NAMED, "user_defined_symbols": ["<x>", "."], "bos_id": -1, "eos_id": -1},
    ],
    ids=["all but padding", "the mask", "all", "none"],
)
def test_no_special_id_comes_out_of_text_that_spells_a_user_defined_piece(kind, options):
    out = io.BytesIO()
    texts = [*TEXTS * 4, "[CLS] [SEP] [MASK] [PAD] <mask>"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=out, vocab_size=66, minloglevel=2, model_type=kind,
        **{"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3, **options},
    )  # fmt: skip
    t = SentencePieceTokenizer(out.getvalue())
    special = {t.pad_id, t.cls_id, t.sep_id, t.mask_id}
    assert t.model == out.getvalue() and len(special) == 4
    for name in t.pieces(special):
        text = f"the {name} cat{name}"
        ids = t.encode(text)
        assert not special & set(ids) and t.encode_batch([text]) == [ids] == [t.encode_offsets(text)[0]]
        assert t.decode([*t.encode("the cat"), *special]) == "the cat"
    for name in options.get("user_defined_symbols", []):  # others are what they were
        assert name in t.pieces(special) or t.encode(f"a {name}")[-1:] == [t.pieces(range(t.size)).index(name)]


def test_a_tokenizer_without_a_mask_is_refused(tmp_path):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 4), model_writer=out, vocab_size=60, pad_id=0, unk_id=1, bos_id=2, eos_id=3,
        minloglevel=2,
    )  # fmt: skip
    with pytest.raises(InputError, match=r"has no mask piece \(looked for \[MASK\] and <mask>\)"):
        SentencePieceTokenizer(out.getvalue())
    (tmp_path / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(InputError, match="cannot be read as a SentencePiece model"):
        SentencePieceTokenizer.load(tmp_path / "tokenizer.model")


KINDS = {"bpe": ("bpe", False), "bpe with bytes": ("bpe", True), "unigram with bytes": ("unigram", True)}


@pytest.fixture(scope="module", params=KINDS)
def other_kind(request) -> Tokenizer:
    pieces, byte_fallback = KINDS[request.param]
    return SentencePieceTokenizer.train(TEXTS, 66 + 256 * byte_fallback, False, pieces, byte_fallback)


@pytest.mark.parametrize("text", HARD, ids=ascii)
def test_offsets_of_other_kinds(other_kind, text):
    check_offsets(other_kind, text)


def test_byte_fallback_spells_what_has_no_piece(other_kind):
    text = "the cat 猫 sees \U0001f680 a\u0308"
    ids = other_kind.encode(text)
    assert other_kind.pieces(range(5)) == ["<pad>", "<unk>", "<cls>", "<sep>", "<mask>"]
    spelt = any(piece.startswith("<0x") for piece in other_kind.pieces(range(other_kind.size)))
    assert (other_kind.unk_id in ids) != spelt
    if spelt:
        assert other_kind.decode(ids) == "the cat 猫 sees \U0001f680 ä"
        starts = other_kind.boundaries[ids] & 1
        assert starts.sum() == 6  # the bytes go on with the word
        assert not other_kind.special[ids].any()


def test_bpe_and_unigram_are_other_models():
    models = {SentencePieceTokenizer.train(TEXTS, 66, True, pieces).model for pieces in ("bpe", "unigram")}
    assert len(models) == 2


def test_a_kind_that_has_no_tokenizer_json(other_kind):
    from jaxmlm.data.hf_tokenizer import sentencepiece_json

    with pytest.raises(InputError, match="only unigram tokenizers without byte fallback"):
        sentencepiece_json(other_kind)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_long_text_in_pieces_has_the_tokens_of_the_whole(kind):
    tokenizer = SentencePieceTokenizer.train(TEXTS, 66, True, kind)
    text = "  ".join(TEXTS[:50]) + "\n" + " ".join(TEXTS[50:80])
    for most in (7, 40, 333):
        pieces = pieces_of(text, most)
        assert "".join(pieces) == text and len(pieces) > 5
        assert [i for ids in tokenizer.encode_batch(pieces) for i in ids] == tokenizer.encode(text) or most == 7
    assert [len(piece) for piece in pieces_of("x" * 25, 10)] == [10, 10, 5]
