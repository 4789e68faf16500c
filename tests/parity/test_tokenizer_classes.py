"""Classes of tokenizers that transformers builds by their own options: the same ids, and a note where files differ."""

import json

import pytest
import transformers

from jaxmlm.data.hf_tokenizer import HfTokenizer
from tests.parity.test_api import HARD as TEXTS
from tests.parity.test_api import words

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
HARD = TEXTS[:6]


@pytest.mark.parametrize(
    "change", [{"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False}]
)
def test_settings_beside_a_tokenizer_are_followed_as_by_transformers(change, tmp_path):
    words("Bert", tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_class": "BertTokenizer"} | change))
    ours, theirs = HfTokenizer(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ["The Old Hén 日本", *HARD]:
        assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]
    assert len(ours.notes) == 1


@pytest.mark.parametrize(
    ("family", "model_type", "named"),
    [
        *(("Bert", model_type, None) for model_type in ("bert", "distilbert", "electra")),
        *(("Bert", "bert", name) for name in ("DistilBertTokenizer", "ElectraTokenizerFast")),
        *(("Roberta", "roberta", name) for name in (None, "GPT2TokenizerFast")),
    ],
)
@pytest.mark.parametrize("change", [{"do_lower_case": False, "add_prefix_space": True}, {}])
def test_a_class_of_tokenizers_is_read_as_by_transformers(family, model_type, named, change, tmp_path):
    """By the name in tokenizer_config.json, or where it names none by the model_type: ids, and the types of pairs."""
    words(family, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    asked = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"tokenizer_class": named} | change
    kept = {key: value for key, value in asked.items() if value is not None and key != "model_input_names"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(kept))
    ours, theirs = HfTokenizer(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ["The Old Hén 日本", *HARD]:
        assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]
    assert len(ours.notes) == len(change) // 2
    assert ours.types == (1 in theirs("a hen", "an owl").get("token_type_ids", []))


@pytest.mark.parametrize(
    ("model_type", "told"), [("xlm-roberta", "model"), ("camembert", "model"), ("roberta", "model")]
)
def test_a_tokenizer_that_transformers_would_build_anew_is_told(model_type, told, tmp_path):
    """Its model is not that of the class: it is read as it is, and a note says that ids may differ there."""
    words("Bert", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    plain = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({k: v for k, v in plain.items() if k != "tokenizer_class"})
    )
    [note] = HfTokenizer(tmp_path).notes
    assert "tokenizer.json has the model WordPiece, and transformers builds a" in note
