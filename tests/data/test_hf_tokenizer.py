"""Tokenizers of the `transformers` format as people have them: what is saved beside the vocabulary changes no ids."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from jaxmlm.data.hf_tokenizer import HfTokenizer
from jaxmlm.data.word_boundaries import word_starts
from jaxmlm.errors import InputError

NAMES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*NAMES, "the", "old", "hen", "sees", "##s", "spar", "##row", "[", "]", "mask", "sep"]
TEXT = "the old [MASK] sees"


def write(directory: Path, vocabulary: dict[str, int] | None = None, added: bool = True, **changes: Any) -> Path:
    """A WordPiece tokenizer.json; `added`: the special tokens are listed in it, as most are."""
    vocabulary = vocabulary or {word: i for i, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if added:
        made.add_special_tokens([name for name in NAMES if name in vocabulary])
    (directory / "tokenizer.json").write_text(json.dumps(json.loads(made.to_str()) | changes))
    return directory


def beside(directory: Path, name: str = "tokenizer_config.json", encoding: str = "utf-8", **said: Any) -> None:
    (directory / name).write_text(json.dumps(said), encoding)


def ids_of(t: HfTokenizer, text: str = TEXT) -> list[list[int]]:
    """The ids of a text by each of the ways to encode one, which agree where it spells no special token."""
    return [t.encode(text), t.encode_masked(text), *t.encode_batch([text, text * 9])[:1], t.encode_offsets(text)[0]]


PADDING = {"direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
TRUNCATION = {"direction": "Right", "max_length": 2, "stride": 0}
SAVED = {
    "padded to a length": {"padding": {**PADDING, "strategy": {"Fixed": 32}}},
    "padded to the longest": {"padding": {**PADDING, "strategy": "BatchLongest"}},
    "padded on the left": {"padding": {**PADDING, "strategy": {"Fixed": 32}, "direction": "Left"}},
    "padded to a multiple": {"padding": {**PADDING, "strategy": "BatchLongest", "pad_to_multiple_of": 8}},
    **{f"cut {how}": {"truncation": {**TRUNCATION, "strategy": how}} for how in ("LongestFirst", "OnlyFirst")},
    "cut on the left": {"truncation": {**TRUNCATION, "strategy": "LongestFirst", "direction": "Left"}},
    "both": {
        "padding": {**PADDING, "strategy": {"Fixed": 32}}, "truncation": {**TRUNCATION, "strategy": "LongestFirst"}
    },
}  # fmt: skip


@pytest.mark.parametrize("saved", SAVED)
def test_padding_and_truncation_that_were_saved_are_off(tmp_path, saved):
    plain, changed = tmp_path / "plain", tmp_path / "changed"
    for directory, changes in ((plain, {}), (changed, SAVED[saved])):
        directory.mkdir()
        write(directory, **changes)
    for text in (TEXT, "the old hen sees the old hens", "the"):
        assert ids_of(HfTokenizer(changed), text) == ids_of(HfTokenizer(plain), text)
    assert len(HfTokenizer(changed).encode_masked(TEXT)) == 4
    assert HfTokenizer(changed).pair_separator_ids == HfTokenizer(plain).pair_separator_ids


def byte_level(directory: Path, texts: list[str], **changes: Any) -> HfTokenizer:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    made = tokenizers.ByteLevelBPETokenizer()
    made.train_from_iterator(texts * 9, vocab_size=400, min_frequency=2, special_tokens=special, show_progress=False)
    plain = json.loads(made._tokenizer.to_str())
    (directory / "tokenizer.json").write_text(json.dumps(plain | {"model": plain["model"] | changes}))
    return HfTokenizer(directory)


def test_the_dropout_of_bpe_is_off(tmp_path):
    text = "the old baker lives in the old house"
    t = byte_level(tmp_path, [text], dropout=0.9)
    assert t.encode(text) == t.encode_masked(text) == t.encode(text) and len(t.encode(text)) == 8


WHITE = {
    "a line's end": "\n",
    "a tab": "\t",
    "a carriage return": "\r\n",
    "a paragraph": "\n\n",
    "a form feed": "\f",
    "a space and a line's end": " \n",
    "a line's end and a space": "\n ",
    "spaces": "   ",
    "tabs and a space": "\t \t",
    "a no-break space": "\u00a0",
    "an ideographic space": "\u3000",
    "a line separator": "\u2028",
    "a next line": "\u0085",
}


@pytest.mark.parametrize("between", WHITE.values(), ids=WHITE.keys())
def test_white_space_of_any_kind_parts_words_of_byte_level_bpe(tmp_path, between):
    text = f"the old baker{between}lives in a house"
    t = byte_level(tmp_path, [text])
    ids = np.array(t.encode(text))
    assert len(ids) > 5 and t.decode(ids.tolist()) == text
    starts = np.flatnonzero(word_starts(t.boundaries[ids]))
    words = ["".join(t.piece_texts[i] for i in part) for part in np.split(ids, starts[1:])]
    assert [word for word in words if word] == ["the", "old", "baker", "lives", "in", "a", "house"]


def test_ids_with_holes(tmp_path):
    words = {word: i for i, word in enumerate(WORDS) if word != "[MASK]"}
    t = HfTokenizer(write(tmp_path, words | {"[MASK]": 20, "sparrow": 21}))
    holes = [4, *range(len(WORDS), 20)]
    assert t.size == 22 == len(t.special) == len(t.boundaries) == len(t.piece_texts)
    assert t.encode_masked("the [MASK] sees sparrow") == [5, 20, 8, 21] and t.mask_id == 20
    assert t.pieces(holes) == [""] * len(holes) and t.special[holes].all()  # never offered, drawn or hidden
    assert not t.special[[5, 21]].any()
    plain = json.loads((tmp_path / "tokenizer.json").read_text())
    plain["model"]["vocab"]["sparrow"] = 8
    (tmp_path / "tokenizer.json").write_text(json.dumps(plain))
    with pytest.raises(InputError, match="two tokens of the tokenizer have the same id"):
        HfTokenizer(tmp_path)


MASK = {"content": "[MASK]", "lstrip": True, "normalized": False, "rstrip": False, "single_word": False}
BESIDE = {
    "tokenizer_config.json": {"tokenizer_config.json": {"mask_token": "[MASK]"}},
    "its object": {"tokenizer_config.json": {"mask_token": MASK}},
    "special_tokens_map.json": {"special_tokens_map.json": {"mask_token": "[MASK]"}},
    "added_tokens_decoder": {"tokenizer_config.json": {"added_tokens_decoder": {"4": {**MASK, "special": True}}}},
    "nothing": {},
}


@pytest.mark.parametrize("where", BESIDE)
@pytest.mark.parametrize("listed", ["none", "no list", "not special"])
def test_special_tokens_that_tokenizer_json_does_not_list(tmp_path, where, listed):
    directory = write(tmp_path, added=listed == "not special")
    plain = json.loads((directory / "tokenizer.json").read_text())
    if listed == "no list":
        del plain["added_tokens"]
    for token in plain.get("added_tokens", []):
        token["special"] = False
    (directory / "tokenizer.json").write_text(json.dumps(plain))
    for name, said in BESIDE[where].items():
        beside(directory, name, **said)
    check_special(HfTokenizer(directory))
    (tmp_path / "saved").mkdir()
    HfTokenizer(directory).save(tmp_path / "saved")
    again = HfTokenizer(tmp_path / "saved")
    check_special(again)
    assert again.model == HfTokenizer(directory).model == (tmp_path / "saved" / "tokenizer.json").read_bytes()


def check_special(t: HfTokenizer) -> None:
    assert t.encode_masked(TEXT) == [5, 6, 4, 8] and t.mask_id == 4 and t.size == len(WORDS)
    assert np.flatnonzero(t.special).tolist() == [0, 1, 2, 3, 4]
    assert not {0, 2, 3, 4} & set(t.encode(TEXT + " [SEP]")) and t.decode([2, 5, 4, 3]) == "the"


def test_other_special_tokens_are_found_beside_too(tmp_path):
    words = {word: i for i, word in enumerate([*WORDS, "[ENT]", "[BOS]"])}
    directory = write(tmp_path, words, added=False)
    beside(directory, bos_token="[BOS]", eos_token="[EOS]", additional_special_tokens=["[ENT]", {"content": "[NOT]"}])
    t = HfTokenizer(directory)
    assert np.flatnonzero(t.special).tolist() == [0, 1, 2, 3, 4, words["[ENT]"], words["[BOS]"]]
    assert t.size == len(words)  # a name without a use makes no vocabulary larger than its model


def test_a_special_token_without_an_id_gets_the_next_as_in_transformers(tmp_path):
    words = {word: i for i, word in enumerate(word for word in WORDS if word != "[MASK]")}
    directory = write(tmp_path, words)
    with pytest.raises(InputError, match="the tokenizer has no mask token"):
        HfTokenizer(directory)
    beside(directory, mask_token="[MASK]")
    t = HfTokenizer(directory)
    assert t.mask_id == len(words) == t.size - 1 and t.encode_masked(TEXT)[2] == t.mask_id
    beside(directory, "special_tokens_map.json", mask_token="<blank>")  # the first that is named
    assert HfTokenizer(directory).pieces([t.mask_id]) == ["[MASK]"]


def test_what_is_complete_is_left_as_it_is(tmp_path):
    raw = (write(tmp_path) / "tokenizer.json").read_bytes()
    beside(tmp_path, mask_token="[MASK]", unk_token="[UNK]", pad_token="[PAD]")
    assert HfTokenizer(tmp_path).model == raw


def test_files_with_a_byte_order_mark(tmp_path):
    raw = (write(tmp_path, added=False) / "tokenizer.json").read_bytes()
    (tmp_path / "tokenizer.json").write_bytes(b"\xef\xbb\xbf" + raw)
    beside(tmp_path, encoding="utf-8-sig", mask_token="[MASK]")
    t = HfTokenizer(tmp_path)
    check_special(t)
    assert t.model.startswith(b"{")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("raw", [b"{", b"\xff\xfe{\0}\0", b"[1]", b""])
def test_files_that_are_none(tmp_path, name, raw):
    write(tmp_path)
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(InputError, match=name.replace(".", r"\.")) as error:
        HfTokenizer(tmp_path)
    assert "\n" not in str(error.value)
