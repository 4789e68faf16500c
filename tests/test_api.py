"""The Python interface on small models with random weights: masks, empty and wrong inputs (numbers: tests/parity)."""

import copy
import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxmlm
from jaxmlm.answers import lines_of_a_model
from jaxmlm.api import PretrainedModel
from jaxmlm.data import SentencePieceTokenizer, Tokenizer
from jaxmlm.data.hf_tokenizer import HfTokenizer, export_tokenizer
from jaxmlm.errors import InputError
from jaxmlm.models import Encoder, EncoderConfig, interchange, with_head
from jaxmlm.runs import loading, preview
from jaxmlm.runs.conversion import check_import, export
from jaxmlm.runs.model_card import card
from jaxmlm.synthetic import world
from jaxmlm.tasks import bound

IDS = {"pad": 0, "cls": 2, "sep": 3, "mask": 4}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "old", "hen", "sees", "a", "an", "##s", "[", "]", "m"]
BERT = EncoderConfig(layers=1, width=16, heads=2, max_positions=24, norm="post", token_types=2)
SIZES = {"layers": 1, "width": 16, "heads": 2, "max_positions": 24}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return SentencePieceTokenizer.train(world.documents(0, 150), 300)


@functools.cache
def model(kind: str, tokenizer) -> PretrainedModel:
    labels = {"classify": ("no", "yes"), "answer": ("start", "end")}.get(kind, ())
    key = jax.random.key(0)
    head = with_head(kind, Encoder(EncoderConfig(**SIZES), tokenizer.size, key), len(labels), key)
    return PretrainedModel(head, tokenizer, kind, labels, {})


MASKED = [
    ("the [MASK][MASK] sees", 2),
    ("the [MASK] [MASK] sees", 2),
    ("the <mask>[MASK]<mask>", 3),
    ("\u2603[MASK]", 1),
    ("[MASK]\u2603", 1),
    ("\u2603 [MASK] \u2603[MASK]\u2603", 2),
    ("[MASK]", 1),
    ("the hen[MASK]s", 1),
    ("the hen\n[MASK].", 1),
    ("\u201c[MASK]\u201d", 1),
]


@pytest.mark.parametrize(("text", "masks"), MASKED)
def test_masks_are_read_wherever_they_stand(text, masks, tokenizer):
    loaded = model("mlm", tokenizer)
    assert loaded._ids(text, masks=True).count(tokenizer.mask_id) == masks == len(loaded.fill_mask(text, top=1))


def test_what_stands_beside_a_mask_is_read_as_without_it(tokenizer):
    loaded, mask = model("mlm", tokenizer), [tokenizer.mask_id]
    the, sees = tokenizer.encode("the"), tokenizer.encode("sees")
    assert loaded._ids("the [MASK][MASK] sees", masks=True)[1:-1] == [*the, *mask, *mask, *sees]
    assert tokenizer.decode(loaded._ids("[MASK]ing", masks=True)) == tokenizer.decode(tokenizer.encode("ing"))
    for text in ("the old hen", "a\u200bb \u2603 c", ""):
        assert loaded._ids(text, masks=True) == loaded._ids(text)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory) -> HfTokenizer:
    directory = tmp_path_factory.mktemp("wordpiece")
    wordpiece(directory)
    return HfTokenizer(directory)


def wordpiece(directory: Path, second: int = 1, **config) -> None:
    """A WordPiece tokenizer that lowers letters, and these settings of it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(WORDS[:5])
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=f"[CLS] $A [SEP] $B:{second} [SEP]:{second}",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )  # fmt: skip
    directory.mkdir(exist_ok=True)
    made.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


def test_the_bound_s_first_term_is_the_score(tokenizer, monkeypatch):
    """With one token masked, each once, by a model that gives special tokens nothing."""
    loaded = model("mlm", tokenizer)
    text = "the old hen sees"
    n = len(tokenizer.encode(text))
    plain = copy.copy(loaded)
    plain.model = loaded.model.without(jax.numpy.asarray(tokenizer.special))
    each = bound.Draws(np.zeros((1, n)), np.ones((1, n), int), np.zeros(1, int))
    monkeypatch.setattr(bound, "draw_counts", lambda *_: each)
    monkeypatch.setattr(bound.MaskedCopies, "_masked", lambda self, row, draw: self._maskable[row][[draw]])
    assert loaded.bound([text], draws=n)["bound"] == pytest.approx(-plain.score(text) / n, rel=1e-5)


def test_the_bound_of_texts(tokenizer):
    loaded = model("mlm", tokenizer)
    texts = ["the old hen sees the river", "a tree"]
    found = loaded.bound(texts, draws=4)
    assert found["words"] == 8 and found["rows"] == 2 and abs(found["bound"] - np.log(295)) < 0.5
    assert "bound_se" not in found and "bound_se" in loaded.bound(texts * 2)
    assert loaded.bound(texts, draws=4, seed=1)["bound"] != found["bound"] == loaded.bound(texts, draws=4)["bound"]
    assert loaded.bound([" ".join(texts) * 9], length=12)["rows"] > 3
    for wrong, message in (([], "no tokens in the texts"), (["", " "], "no tokens"), ("one", "takes several texts")):
        with pytest.raises(InputError, match=message):
            loaded.bound(wrong)


def test_samples_fill_a_template_or_a_length(tokenizer):
    loaded = model("mlm", tokenizer)
    key = jax.random.key(1)
    assert loaded.sample(6) == loaded.sample(6) != loaded.sample(6, key=key)
    found = loaded.sample("the old hen [MASK][MASK][MASK] the river", 2, key)
    assert found.startswith("the old hen") and found.endswith("the river") and "mask" not in found
    assert loaded.sample("[MASK] hen", order="random", temperature=0.0).endswith("hen")
    for wrong, message in (("the hen", "no mask"), (0, "template is 0"), (23, "25 tokens, the model reads 24")):
        with pytest.raises(InputError, match=message):
            loaded.sample(wrong)


SPELLED = ["[CLS] x", "x [SEP] y", "<cls> x", "[PAD]", "<s></s>", "[UNK]"]


@pytest.mark.parametrize("text", SPELLED)
@pytest.mark.parametrize("kind", ["pieces", "tokenizer"])
def test_a_spelled_special_token_is_text(kind, text, request):
    """With a mask in the text and without: the mask token alone is read, where a method takes masks."""
    t = request.getfixturevalue(kind)
    loaded = model("mlm", t)
    special = {t.pad_id, t.cls_id, t.sep_id, t.mask_id}
    assert not special & set(loaded._ids(text)[1:-1]) and not special & set(loaded._ids(text, masks=True)[1:-1])
    assert [i for i in loaded._ids(f"{text} [MASK]", masks=True)[1:-1] if i in special] == [t.mask_id]
    assert len(loaded.fill_mask(f"{text} [MASK]", top=1)) == 1


@pytest.mark.parametrize("kind", ["pieces", "tokenizer"])
def test_methods_that_take_no_masks_read_one_as_text(kind, request):
    t = request.getfixturevalue(kind)
    mlm, classifier, answerer = (model(head, t) for head in ("mlm", "classify", "answer"))
    plain = t.encode("the [MASK] sees")
    assert t.mask_id not in plain and mlm._ids("the [MASK] sees")[1:-1] == plain
    assert t.mask_id not in classifier._pair(("the [MASK]", "a <mask>"))[0]
    assert mlm.score("the [MASK]") == mlm.score("the [MASK]") != 0
    assert len(mlm.logits("the [MASK]")) == len(t.encode("the")) + 3
    assert answerer.answer("[MASK]?", "the [MASK]").text in "the [MASK]"


@pytest.mark.parametrize(
    ("kind", "call", "said"),
    [
        ("answer", lambda m: m.answer("who?", ""), "the context is empty"),
        ("answer", lambda m: m.answer("who?", " \n"), "the context is empty"),
        ("answer", lambda m: m.answer("", "a hen"), "the question is empty"),
        ("answer", lambda m: m.answer("who?", "a hen", longest=0), "longest is 0: it must be at least 1"),
        ("answer", lambda m: m.answer("who?", "a hen", longest=-2), "longest is -2"),
        ("answer", lambda m: m.answer("the " * 21, "a hen"), "which leaves none for the context"),
        ("mlm", lambda m: m.embed("a text"), r"several texts, got one: give a list, \['a text'\]"),
        ("classify", lambda m: m.classify("a text"), "several texts, got one"),
        ("classify", lambda m: m._pair(("a", "b", "c")), "is neither a text nor a pair"),
        ("mlm", lambda m: m.fill_mask("a [MASK]", top=0), "top is 0: it must be at least 1"),
        ("mlm", lambda m: m.fill_mask("a [MASK]", top=-1), "top is -1"),
        ("mlm", lambda m: m.fill_mask(""), "has no .MASK."),
        ("mlm", lambda m: m.sample("a [MASK]", temperature=float("nan")), "temperature is nan"),
        ("mlm", lambda m: m.sample("a [MASK]", temperature=1e40), r"temperature is 1e\+40"),
        ("mlm", lambda m: m.sample("a [MASK]", temperature=-1.0), "temperature is -1.0: it must be a number of at"),
        ("mlm", lambda m: m.fill_mask("the " * 40 + "[MASK]"), "the model reads 24: shorten it"),
    ],
)
def test_inputs_that_mean_nothing_are_refused(kind, call, said, tokenizer):
    with pytest.raises(InputError, match=said):
        call(model(kind, tokenizer))


def test_empty_inputs_have_empty_results(tokenizer):
    mlm, classifier = model("mlm", tokenizer), model("classify", tokenizer)
    assert classifier.classify([]) == [] and mlm.embed([]).shape == (0, 16)
    assert mlm.score("") == 0.0 and mlm.logits("").shape[0] == 2
    assert [sum(shares.values()) for shares in classifier.classify(["", ("", "")])] == pytest.approx([1, 1])
    assert mlm.embed([""]).shape == (1, 16) and np.isfinite(mlm.embed([""])).all()
    assert model("answer", tokenizer).answer("who?", "a hen", longest=500).text


def test_more_predictions_than_pieces_are_all_pieces(pieces):
    [found] = model("mlm", pieces).fill_mask("the [MASK]", top=100)
    assert {fill.id for fill in found} == set(np.flatnonzero(~pieces.special).tolist())


def test_the_piece_of_a_space_is_shown(tokenizer):
    [found] = model("mlm", tokenizer).fill_mask("the [MASK]", top=10**6)
    assert all(fill.token for fill in found) and [fill.token for fill in found].count("▁") == 1


def test_a_tokenizer_config_that_disagrees_is_followed_and_told(tmp_path):
    """As transformers does; the tokenizer that goes on from here is the one that was read."""
    for name, config, told in (
        ("same", {"tokenizer_class": "BertTokenizer"}, None),
        ("named", {"tokenizer_class": "BertTokenizerFast", "do_lower_case": False}, "do_lower_case false: read with"),
        ("family", {"do_lower_case": False}, "do_lower_case false: read with"),
        ("accents", {"strip_accents": False}, "strip_accents false: read with"),
        ("other", {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False}, None),
    ):
        directory = tmp_path / name
        wordpiece(directory, **config)
        key = jax.random.key(0)
        interchange.write(with_head("mlm", Encoder(BERT, len(WORDS), key), 0, key), directory, ids=IDS)
        found = check_import(directory)
        assert [told in note for note in found["notes"]] == ([True] if told else [])
        assert any(line.startswith("note: tokenizer.json has") for line in lines_of_a_model(found)) == bool(told)
        cased = told is not None and "lower" in told
        t = HfTokenizer(directory)
        assert (t.encode("The hen") == [1, 7]) == cased == (t.encode("The hen") != [5, 7])
        t.save(directory)
        assert HfTokenizer(directory).model == t.model and not HfTokenizer(directory).notes


def test_tokens_that_the_model_has_no_rows_for_are_named(tmp_path):
    wordpiece(tmp_path)
    key = jax.random.key(0)
    interchange.write(with_head("mlm", Encoder(BERT, len(WORDS) - 2, key), 0, key), tmp_path, ids=IDS)
    with pytest.raises(
        InputError, match=r"15 pieces and the model 13, which has no rows for \], m: resize it .* or take"
    ):
        jaxmlm.load(tmp_path)


def test_a_tokenizer_that_transformers_builds_otherwise_is_told(tmp_path):
    wordpiece(tmp_path, tokenizer_class="BertTokenizer")
    plain = json.loads((tmp_path / "tokenizer.json").read_text())
    plain["normalizer"] = {"type": "Lowercase"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(plain))
    assert "the normalizer Lowercase, and transformers builds" in HfTokenizer(tmp_path).notes[0]


@pytest.mark.parametrize(
    ("second", "config", "types"),
    [
        (1, {}, True),  # BertTokenizer, by the family
        (0, {"tokenizer_class": "BertTokenizer"}, True),
        (1, {"model_input_names": ["input_ids", "attention_mask"]}, False),
        (1, {"tokenizer_class": "PreTrainedTokenizerFast"}, False),
        (0, {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["token_type_ids"]}, False),
        (1, {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["token_type_ids"]}, True),
    ],
)
def test_an_imported_pair_has_the_types_that_transformers_feeds(second, config, types, tmp_path):
    wordpiece(tmp_path, second, **config)
    key = jax.random.key(0)
    classifier = with_head("classify", Encoder(BERT, len(WORDS), key), 2, key)
    interchange.write(classifier, tmp_path, "classify", ids=IDS, labels=("no", "yes"))
    loaded = jaxmlm.load(tmp_path)
    assert loaded._pair(("the hen", "a hen")) == ([2, 5, 7, 3, 9, 7, 3], [0, 0, 0, 0, *[int(types)] * 3])


@pytest.mark.parametrize("types", [False, True])
@pytest.mark.parametrize("second", [0, 1])
@pytest.mark.parametrize("own", [False, True])
def test_an_exported_tokenizer_gives_pairs_their_types(own, second, types, tokenizer, tmp_path):
    wordpiece(tmp_path / "in", second)
    t = tokenizer if own else HfTokenizer(tmp_path / "in")
    export_tokenizer(t, tmp_path / "out", 24, types)
    again, one = HfTokenizer(tmp_path / "out"), t.encode("the hen")
    made = again._tokenizer.encode("the hen", "the hen")
    assert made.ids == [t.cls_id, *one, t.sep_id, *one, t.sep_id] and again.types == types
    if types:
        assert made.type_ids == [0] * (len(one) + 2) + [1] * (len(one) + 1)
    said = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["model_input_names"]
    assert ("token_type_ids" in said) == types


def saved(directory: Path, tokenizer, config: EncoderConfig, kind: str = "mlm", **about) -> Path:
    """A checkpoint of a model with random weights."""
    key = jax.random.key(0)
    head = with_head(kind, Encoder(config, tokenizer.size, key), 2, key)
    loading.save(loading.LoadedModel(head, tokenizer, config, directory, kind, ("no", "yes"), about))
    return directory


@pytest.mark.parametrize("what", ["tokenizer", "encoder", "disk"])
def test_a_failed_export_leaves_nothing(what, tokenizer, tmp_path, monkeypatch):
    """Neither files nor a directory, so that the next try finds none; one that was there and empty stays so."""
    bpe = SentencePieceTokenizer.train(world.documents(0, 150), 300, model_type="bpe")
    config = EncoderConfig(**SIZES, biases=what != "encoder")
    checkpoint = saved(tmp_path / "run", bpe if what == "tokenizer" else tokenizer, config)
    if what == "disk":

        def full(*_):
            raise OSError("no space left")

        monkeypatch.setattr("jaxmlm.runs.conversion.card", full)
    (tmp_path / "empty").mkdir()
    for directory in ("out", "empty", "new/out"):
        with pytest.raises(OSError if what == "disk" else InputError, match="space|only unigram|cannot hold"):
            export(checkpoint, tmp_path / directory)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert {name for name in left if not name.startswith("run")} <= {"empty", "new"}
    if what == "disk":
        monkeypatch.undo()
        for directory in ("out", "empty"):
            export(checkpoint, tmp_path / directory)
            assert len({file.stat().st_mode for file in (tmp_path / directory).iterdir()}) == 1


def test_a_file_that_is_not_as_it_was_exported_is_told(checkpoint, tmp_path, capsys):
    """And used: its owner may have changed it. A model card is written to be edited."""
    export(checkpoint, tmp_path / "out")
    (tmp_path / "out" / "README.md").write_text("mine")
    jaxmlm.load(tmp_path / "out")
    assert capsys.readouterr().err == ""
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        path = tmp_path / "out" / name
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]) if name == "model.safetensors" else before + b" ")
        jaxmlm.load(tmp_path / "out")
        said = capsys.readouterr().err
        assert said.startswith(f"note: {name} in {tmp_path / 'out'}: not as it was exported") and said.count("\n") == 1
        path.write_bytes(before)


def test_a_rotary_encoder_of_the_small_configs_comes_back(tokenizer, tmp_path):
    """With its tokenizer; and what was fine-tuned from it has a card that names it and no directory of its owner."""
    config = EncoderConfig(**SIZES, positions="rope")
    assert export(saved(tmp_path / "run", tokenizer, config), tmp_path / "out")["architecture"] == "EsmForMaskedLM"
    ours, again = jaxmlm.load(tmp_path / "run"), jaxmlm.load(tmp_path / "out")
    assert np.array_equal(ours.logits("the [MASK] sees")[:, : tokenizer.size], again.logits("the [MASK] sees"))
    about = {"task": "my/own/reviews.csv", "scores": {"accuracy": 0.5}, "base": "my/own/encoder"}
    export(saved(tmp_path / "tuned", tokenizer, config, "classify", **about), tmp_path / "tuned_out")
    text = (tmp_path / "tuned_out" / "README.md").read_text()
    assert "encoder, fine-tuned on reviews.csv with jaxmlm" in text and "own" not in text and str(tmp_path) not in text


def test_a_card_is_for_readers():
    config = {
        "init": "my/own/bert-base/checkpoints/80",
        "data": {"text": "my/own/books/*.txt, sample:20,my/own/wiki.txt.xz", "length": 64},
        "loop": {"steps": 10, "batch": 8, "seed": 0},
        "masking": {"class": "Masking", "rate": 0.4, "views": 1, "schedule": {"class": "Constant"}, "order": None,
                    "units": {"class": "SpanUnits", "law": {"class": "Law", "file": "my/own/list.txt"}},
                    "replace": {"class": "Replace", "mask": 0.8, "random": 0.1}},
    }  # fmt: skip
    text = card({"config": config, "versions": {"jax": "1"}}, Path("none"), "BertForMaskedLM")
    assert "A masked language model: bert-base, step 80, pre-trained further with jaxmlm." in text
    assert "- text: *.txt, sample:20, wiki.txt.xz, rows of 64 tokens" in text
    assert "units SpanUnits (law Law (file list.txt)), replace Replace (mask 0.8, random 0.1)" in text
    assert "own" not in text and "{" not in text and "class" not in text and "None" not in text


@pytest.mark.parametrize(
    ("kind", "pipeline"),
    [
        ("mlm", "fill-mask"),
        ("classify", "text-classification"),
        ("tokens", "token-classification"),
        ("answer", "question-answering"),
        ("encoder", "feature-extraction"),
    ],
)
def test_a_model_of_another_origin_has_a_card_for_its_head(tokenizer, tmp_path, kind, pipeline):
    """Exported, read again and exported again: the second card knows no task, and the model is what it is."""
    config = EncoderConfig(**SIZES, norm="post", first_norm=True)
    export(saved(tmp_path / "run", tokenizer, config, kind), tmp_path / "first")
    export(tmp_path / "first", tmp_path / "second")
    text = (tmp_path / "second" / "README.md").read_text()
    assert f"pipeline_tag: {pipeline}\n" in text and f'pipeline("{pipeline}"' in text


def test_a_loaded_model_says_what_it_is(tokenizer, tmp_path):
    loaded = jaxmlm.load(saved(tmp_path / "run", tokenizer, EncoderConfig(**SIZES)))
    for part in ("mlm: 1 x 16, 2 heads", f"{tokenizer.size} pieces", "reads 24 tokens", str(tmp_path / "run")):
        assert part in repr(loaded)


def test_the_public_names_are_there_and_editors_see_them():
    assert {name for name in dir(jaxmlm) if not name.startswith("__")} == set(jaxmlm.__all__) - {"__version__"}
    for name in jaxmlm.__all__:
        assert getattr(jaxmlm, name) is not None
    assert (Path(jaxmlm.__file__).parent / "py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'Maskin'"):
        _ = jaxmlm.Maskin


def test_a_preview_brings_its_style_where_there_is_none():
    pieces = [preview.Piece("▁a", "mask")]
    assert preview.preview_html(pieces) == '<span class="mask">[MASK]</span>'
    styled = preview.preview_html(pieces, style=True)
    assert styled == f"<style>{preview.PIECE_STYLE}</style>{preview.preview_html(pieces)}"
