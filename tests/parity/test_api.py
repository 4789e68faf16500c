"""The Python interface beside transformers: tokenizers, masks, embeddings, scores, classes, answers, both ways."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import tokenizers
import torch
import transformers

import jaxmlm
from jaxmlm import api
from jaxmlm.data import Data, SentencePieceTokenizer
from jaxmlm.data.hf_tokenizer import HfTokenizer
from jaxmlm.errors import InputError
from jaxmlm.masking import Masking
from jaxmlm.models import Encoder, EncoderConfig, with_head
from jaxmlm.runs.conversion import Export, check_import, export
from jaxmlm.runs.evaluation import Evaluation, evaluate
from jaxmlm.runs.finetuning import Finetune, finetune
from jaxmlm.runs.loading import LoadedModel, load, save
from jaxmlm.runs.pretraining import pretrain
from jaxmlm.runs.run import Run
from jaxmlm.synthetic import world
from jaxmlm.training import Loop

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

TEXTS = list(world.documents(0, 60))
HARD = [
    *(
        "",
        " ",
        "naïve café — “quotes”…",
        "שלום עולם",
        "e\u0301 a\u0308",
        "😀👍🏽 ok",
        "tabs\tand\nlines",
        "\ud800 lone",
    ),
    *("1,234.5 km²", "ﬁ ½ Ⅳ", "x" * 200, "a\u00a0b\u200bc", "don't stop"),
]
FAMILIES = ("Bert", "Roberta")


def words(family: str, directory: Path) -> None:
    """A tokenizer of the family's kind, trained on generated text."""
    if family == "Bert":
        made = tokenizers.BertWordPieceTokenizer()
        made.train_from_iterator(TEXTS, vocab_size=500, show_progress=False)
        fast = transformers.BertTokenizerFast(tokenizer_object=made._tokenizer)
    else:
        made = tokenizers.ByteLevelBPETokenizer()
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        made.train_from_iterator(TEXTS, vocab_size=500, special_tokens=special, show_progress=False)
        fast = transformers.RobertaTokenizerFast(tokenizer_object=made._tokenizer)
    fast.save_pretrained(directory)


def saved(family: str, end: str, directory: Path, labels: tuple[str, ...] = ("no", "maybe", "yes")) -> Path:
    """A model with random weights and its tokenizer in a directory of the format."""
    words(family, directory)
    t = transformers.AutoTokenizer.from_pretrained(directory)
    torch.manual_seed(0)
    config = getattr(transformers, family + "Config")(
        vocab_size=len(t), hidden_size=48, num_attention_heads=3, num_hidden_layers=2, intermediate_size=64,
        max_position_embeddings=130, pad_token_id=t.pad_token_id, initializer_range=0.3,
        type_vocab_size=2 if family == "Bert" else 1,
        **({"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
           if "Classification" in end else {}),
    )  # fmt: skip
    getattr(transformers, family + end)(config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module", params=FAMILIES)
def masked(request, tmp_path_factory) -> Path:
    return saved(request.param, "ForMaskedLM", tmp_path_factory.mktemp(request.param))


def test_ids_and_offsets_are_those_of_transformers(masked):
    ours, theirs = HfTokenizer(masked), transformers.AutoTokenizer.from_pretrained(masked)
    for text in [*TEXTS[:20], *HARD]:
        clean = text.replace("\ud800", "\ufffd")  # theirs refuses what is no text
        found = theirs(clean, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = ours.encode_offsets(text)
        assert ids == found["input_ids"] == ours.encode(text) == ours.encode_batch([text])[0]
        for (begin, end), (their_begin, their_end) in zip(offsets, found["offset_mapping"], strict=True):
            assert text[begin:end].strip() == text[their_begin:their_end].strip()
    named = (ours.pad_id, ours.unk_id, ours.cls_id, ours.sep_id, ours.mask_id)
    assert named == (theirs.pad_token_id, theirs.unk_token_id, theirs.cls_token_id, theirs.sep_token_id,
                     theirs.mask_token_id)  # fmt: skip
    assert ours.size == len(theirs) and ours.special.sum() == 5


def _unlisted(plain: dict, config: dict) -> None:
    plain["added_tokens"] = []


def _listed_beside(plain: dict, config: dict) -> None:
    config["added_tokens_decoder"] = {str(token.pop("id")): token for token in plain["added_tokens"]}
    plain["added_tokens"] = []


def _without_an_id(plain: dict, config: dict) -> None:
    plain["added_tokens"] = [token for token in plain["added_tokens"] if token["content"] != config["mask_token"]]
    vocabulary = plain["model"]["vocab"]
    vocabulary[max(vocabulary, key=lambda piece: vocabulary[piece])] = vocabulary.pop(config["mask_token"])


def _with_holes(plain: dict, config: dict) -> None:
    at = 900
    plain["model"]["vocab"][config["mask_token"]] = at
    for token in plain["added_tokens"]:
        token["id"] = at if token["content"] == config["mask_token"] else token["id"]


def _padded_and_cut(plain: dict, config: dict) -> None:
    pad = {"direction": "Right", "pad_to_multiple_of": 8, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    plain["padding"] = {**pad, "strategy": {"Fixed": 32}}
    plain["truncation"] = {"direction": "Left", "max_length": 3, "stride": 0, "strategy": "LongestFirst"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("change", [_unlisted, _listed_beside, _without_an_id, _with_holes, _padded_and_cut])
def test_tokenizer_files_that_are_not_complete(family, change, tmp_path):
    """What is found beside tokenizer.json, and what is not to be used of it, as transformers does both."""
    words(family, tmp_path)
    files = [tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json"]
    plain, config = (json.loads(file.read_text()) for file in files)
    config |= {"tokenizer_class": "PreTrainedTokenizerFast"}
    change(plain, config)
    for file, value in zip(files, (plain, config), strict=True):
        file.write_text(json.dumps(value))
    ours, theirs = HfTokenizer(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in (f"{TEXTS[0][:40]} {theirs.mask_token} {TEXTS[1][:30]}", f"{theirs.mask_token}{TEXTS[2][:40]}"):
        assert ours.encode_masked(text) == theirs(text, add_special_tokens=False)["input_ids"]
    named = (ours.pad_id, ours.unk_id, ours.cls_id, ours.sep_id, ours.mask_id)
    assert named == (theirs.pad_token_id, theirs.unk_token_id, theirs.cls_token_id, theirs.sep_token_id,
                     theirs.mask_token_id)  # fmt: skip
    special = [i for i in np.flatnonzero(ours.special).tolist() if ours.pieces([i])[0]]
    assert special == sorted(theirs.all_special_ids)
    ours.save(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert again.mask_token_id == ours.mask_id and again(TEXTS[0])["input_ids"] == theirs(TEXTS[0])["input_ids"]


def test_a_tokenizer_is_saved_and_read_again(masked, tmp_path):
    ours = HfTokenizer(masked)
    ours.save(tmp_path)
    again = HfTokenizer(tmp_path)
    assert again.model == ours.model and again.mask_id == ours.mask_id
    assert np.array_equal(again.boundaries, ours.boundaries)


def test_filled_masks_are_those_of_the_pipeline(masked):
    theirs = transformers.pipeline("fill-mask", model=str(masked), tokenizer=str(masked))
    text = TEXTS[0].split(".")[0][:120].rsplit(" ", 1)[0]
    for one in (f"{text} [MASK] .", f"[MASK] {text}"):
        want = theirs(one.replace("[MASK]", theirs.tokenizer.mask_token), top_k=8)
        [got] = jaxmlm.load(masked).fill_mask(one, top=3)
        special = set(theirs.tokenizer.all_special_ids)
        want = [w for w in want if w["token"] not in special][:3]  # ours never offers a special token
        assert [fill.id for fill in got] == [w["token"] for w in want]
        assert [fill.token for fill in got] == [w["token_str"].strip() for w in want]
        ratio = [fill.probability / w["score"] for fill, w in zip(got, want, strict=True)]
        assert np.allclose(ratio, ratio[0], rtol=1e-4) and ratio[0] >= 1 - 1e-6


def test_embeddings_logits_and_scores(masked):
    ours, t = jaxmlm.load(masked), transformers.AutoTokenizer.from_pretrained(masked)
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(masked).eval()
    texts = [TEXTS[1][:60], TEXTS[2][:150], "a"]
    batch = t(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        hidden = theirs(**batch, output_hidden_states=True).hidden_states[-1].numpy()
        logits = theirs(**t(texts[0], return_tensors="pt")).logits[0].numpy()
    real = batch["attention_mask"].numpy()[:, :, None]
    assert np.abs(ours.embed(texts) - (hidden * real).sum(1) / real.sum(1)).max() < 2e-5
    assert np.abs(ours.embed(texts, pool="first") - hidden[:, 0]).max() < 2e-5
    assert np.abs(ours.logits(texts[0])[:, : logits.shape[1]] - logits).max() < 5e-5
    ids, total = t(texts[0], return_tensors="pt")["input_ids"], 0.0
    for i in range(1, ids.shape[1] - 1):
        one = ids.clone()
        one[0, i] = t.mask_token_id
        with torch.no_grad():
            total += float(torch.log_softmax(theirs(one).logits[0, i].double(), -1)[ids[0, i]])
    assert ours.score(texts[0]) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_classes_of_texts_and_pairs(family, tmp_path):
    directory = saved(family, "ForSequenceClassification", tmp_path)
    theirs = transformers.pipeline("text-classification", model=str(directory), tokenizer=str(directory), top_k=None)
    texts = [TEXTS[3][:80], (TEXTS[4][:40], TEXTS[5][:70])]
    got = jaxmlm.load(directory).classify(texts)
    for text, shares in zip(texts, got, strict=True):
        asked = text if isinstance(text, str) else {"text": text[0], "text_pair": text[1]}
        want = theirs(asked)
        want = {row["label"]: row["score"] for row in (want[0] if isinstance(want[0], list) else want)}
        assert shares == pytest.approx(want, abs=1e-5) and set(shares) == {"no", "maybe", "yes"}
    with pytest.raises(InputError, match="fill_mask needs a model of kind 'mlm'"):
        jaxmlm.load(directory).fill_mask("a [MASK]")


PAIRS = [(TEXTS[8][:50], TEXTS[9][:80]), ("", "a hen"), (TEXTS[10][:30], ".")]


def pairs_agree(ours: api.PretrainedModel, directory: Path) -> None:
    """Ids, types and probabilities of pairs by AutoTokenizer, from the files in a directory, and by a model of ours."""
    t = transformers.AutoTokenizer.from_pretrained(directory)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(directory).eval()
    for pair, shares in zip(PAIRS, ours.classify(PAIRS), strict=True):
        batch = t(*pair, return_tensors="pt")
        ids, types = ours._pair(pair)
        assert batch["input_ids"][0].tolist() == ids
        assert batch.get("token_type_ids", torch.zeros(1, len(ids)))[0].tolist() == types
        with torch.no_grad():
            logits = theirs(**batch).logits[0]
        assert list(shares.values()) == pytest.approx(torch.softmax(logits, -1).tolist(), abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_of_an_encoder_with_token_types_are_the_same_on_both_sides(family, tmp_path):
    """Of an import, of its export, and of an encoder of ours with this tokenizer or one of SentencePiece."""
    directory = saved("Bert", "ForSequenceClassification", tmp_path / "in")
    pairs_agree(jaxmlm.load(directory), directory)
    jaxmlm.export(directory, tmp_path / "out")
    pairs_agree(jaxmlm.load(directory), tmp_path / "out")
    pairs_agree(jaxmlm.load(tmp_path / "out"), tmp_path / "out")
    words(family, tmp_path / "words")
    sentences = SentencePieceTokenizer.train(TEXTS, 400)
    for name, tokenizer in {"words": HfTokenizer(tmp_path / "words"), "sentences": sentences}.items():
        config = EncoderConfig(1, 32, 2, max_positions=64, norm="post", token_types=2, init=0.5)
        key = jax.random.key(0)
        model = with_head("classify", Encoder(config, tokenizer.size, key), 2, key)
        about = {"task": "pairs", "scores": {}, "settings": ""}
        save(LoadedModel(model, tokenizer, config, tmp_path / name / "model", "classify", ("no", "yes"), about))
        jaxmlm.export(tmp_path / name / "model", tmp_path / name / "out")
        for source in ("model", "out"):
            pairs_agree(jaxmlm.load(tmp_path / name / source), tmp_path / name / "out")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_answer_is_the_best_span_of_the_context(family, tmp_path):
    directory = saved(family, "ForQuestionAnswering", tmp_path)
    t = transformers.AutoTokenizer.from_pretrained(directory)
    theirs = transformers.AutoModelForQuestionAnswering.from_pretrained(directory).eval()
    question, context = " ".join(TEXTS[6][:30].split()), TEXTS[7][:140]  # as the white space of a question is read
    batch = t(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets = batch.pop("offset_mapping")[0].tolist()
    inside = [i for i, part in enumerate(batch.sequence_ids(0)) if part == 1]
    with torch.no_grad():
        out = theirs(**batch)
    model = jaxmlm.load(directory)
    for longest in (1, 5):
        score, i, j = max(
            (float(out.start_logits[0, i] + out.end_logits[0, j]), i, j)
            for i in inside
            for j in inside
            if i <= j < i + longest
        )
        got = model.answer(question, context, longest)
        assert got.score == pytest.approx(score, abs=1e-4)
        assert got.text == context[offsets[i][0] : offsets[j][1]].strip() == context[got.begin : got.end]


def test_a_link_that_leads_nowhere_is_neither_copied_nor_written_to(masked, tmp_path):
    source = Path(shutil.copytree(masked, tmp_path / "in"))
    for link in (source / "x", tmp_path / "link"):
        link.symlink_to("nowhere")
    check_import(source, tmp_path / "copy")
    assert {p.name for p in (tmp_path / "copy").iterdir()} == {p.name for p in masked.iterdir()}
    for write in (check_import, jaxmlm.export):
        with pytest.raises(InputError, match="link is there already: name a new directory"):
            write(source, tmp_path / "link")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run of an architecture that the format has."""
    directory = tmp_path_factory.mktemp("run") / "run"
    pretrain(
        Run(
            workdir=str(directory),
            data=Data(text="sample:400", vocab=600, length=24, valid=0.05),
            masking=Masking(rate=0.4),
            model=EncoderConfig(layers=2, width=48, heads=3, max_positions=64),
            loop=Loop(steps=6, batch=8, log_every=1),
        )
    )
    return directory


def test_an_exported_run_works_in_transformers(run, tmp_path):
    made = jaxmlm.export(run, tmp_path / "out")
    assert made["architecture"] == "RobertaPreLayerNormForMaskedLM"
    t = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ours = jaxmlm.load(run)
    for text in [*TEXTS[:30], *HARD]:
        ids = ours.tokenizer.encode(text)
        assert t(text.replace("\ud800", "\ufffd"))["input_ids"] == [ours.tokenizer.cls_id, *ids, ours.tokenizer.sep_id]
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        logits = theirs(**t(TEXTS[0][:90], return_tensors="pt")).logits[0].numpy()
    assert np.abs(logits - ours.logits(TEXTS[0][:90])[:, : logits.shape[1]]).max() < 2e-5
    pipe = transformers.pipeline("fill-mask", model=str(tmp_path / "out"), tokenizer=str(tmp_path / "out"))
    [got] = ours.fill_mask("the [MASK] sees", top=3)
    want = [w["token"] for w in pipe("the <mask> sees", top_k=8) if w["token"] > 4][:3]
    assert [fill.id for fill in got] == want
    for text in ("the [MASK][MASK] sees", "\u2603[MASK]", "[MASK]ing \u2603 [MASK] .", "a\u200b[MASK]\u200bb"):
        assert t(text.replace("[MASK]", "<mask>"))["input_ids"] == ours._ids(text, masks=True)
    again = jaxmlm.load(tmp_path / "out")  # and back
    assert np.array_equal(again.logits(TEXTS[0][:90]), ours.logits(TEXTS[0][:90]))


def test_the_model_card_says_what_was_learned(run, tmp_path):
    jaxmlm.export(run, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    for part in ("sample:400, rows of 24", "6 of 8 rows, seed 0", "rate 0.4", "heldout mlm: loss@0.15", "jax "):
        assert part in card
    with pytest.raises(InputError, match="is there already"):
        jaxmlm.export(run, tmp_path / "out")


def test_pre_training_goes_on_from_a_folder_of_transformers(masked, tmp_path):
    """The first loss of the continued run is that of the imported model: its head, tokenizer and weights are there."""
    settings = {
        "init": str(masked),
        "data": Data(text="sample:200", length=24, valid=0.05),
        "masking": Masking(rate=0.4),
        "model": EncoderConfig(dropout=0.0, attention_dropout=0.0),
    }
    rows = pretrain(Run(workdir=str(tmp_path / "none"), loop=Loop(steps=0, batch=8), **settings))["rows"]
    first, second = load(masked), load(tmp_path / "none")
    assert second.tokenizer.model == first.tokenizer.model and second.config.width == 48
    text = TEXTS[0][:60]
    assert np.array_equal(jaxmlm.load(masked).logits(text), jaxmlm.load(tmp_path / "none").logits(text))
    more = pretrain(Run(workdir=str(tmp_path / "more"), loop=Loop(steps=30, batch=8), **settings))["rows"]
    assert more[1]["scores"]["loss@0.40"] < rows[1]["scores"]["loss@0.40"] - 1  # random weights learn fast
    exported = jaxmlm.export(tmp_path / "more", tmp_path / "back")
    assert exported["architecture"] == json.loads((masked / "config.json").read_text())["architectures"][0]


def test_a_folder_of_transformers_is_fine_tuned_and_evaluated(masked):
    [row] = finetune(str(masked), Finetune("rte", "sample:", epochs=1.0, limit=16, batch=8, length=32))["rows"]
    assert np.isfinite(row["scores"]["train_loss"])
    [row] = evaluate(str(masked), Evaluation(pairs=4, batch=64))["rows"]
    assert 0 <= row["scores"]["accuracy"] <= 1


def test_sentence_transformers_gives_the_vectors_of_embed(masked, tmp_path):
    from sentence_transformers import SentenceTransformer

    done = export(masked, tmp_path / "out", Export(sentence_transformers=True))
    theirs = SentenceTransformer(done["directory"], device="cpu")
    ours = jaxmlm.load(masked)
    texts = [TEXTS[0][:60], "a hen", TEXTS[1][:90]]
    assert np.abs(theirs.encode(texts) - ours.embed(texts)).max() < 1e-5
    assert theirs.max_seq_length == ours.longest
    assert jaxmlm.load(tmp_path / "out").kind == "mlm"
