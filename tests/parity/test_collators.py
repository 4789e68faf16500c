"""The audit of the collators of `transformers`, by name and by their objects."""

import numpy as np
import pytest
import transformers

from jaxmlm.data import SentencePieceTokenizer, Tokenizer
from jaxmlm.data.hf_tokenizer import export_tokenizer
from jaxmlm.synthetic import world
from jaxmlm.tools.collators import TRANSFORMERS, audit_collator, named_collator

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return SentencePieceTokenizer.train(list(world.documents(1, 300)), 500)


def test_single_tokens(tokenizer):
    """80-10-10 as asked; its random tokens are drawn from all ids, special ones too."""
    np.random.seed(0)
    found = audit_collator(named_collator(f"transformers:{TRANSFORMERS[0]}", tokenizer, 0.15), tokenizer, 0.15)
    for name, share in (("selected", 0.15), ("masked", 0.8), ("random", 0.1), ("same", 0.1)):
        assert found["shares"][name]["low"] <= share <= found["shares"][name]["high"]
    assert found["special"]["special tokens"] == found["special"]["padding"] == 0
    assert found["special"]["random tokens that are special"] > 0 and not found["ok"]
    assert found["words"]["cut"] > 0.8 and found["positions"]["ok"] and found["lengths"]["ok"]


def test_whole_words(tokenizer):
    """No word is cut, and every one becomes [MASK]."""
    np.random.seed(0)
    found = audit_collator(named_collator(f"transformers:{TRANSFORMERS[1]}", tokenizer, 0.15), tokenizer, 0.15)
    assert found["words"]["cut"] == 0 and found["shares"]["masked"]["got"] == 1.0 and found["ok"]


def test_a_tokenizer_of_transformers(tokenizer, tmp_path):
    export_tokenizer(tokenizer, tmp_path, 128)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    collator = transformers.DataCollatorForLanguageModeling(theirs, mlm_probability=0.4, return_tensors="pt", seed=0)
    found = audit_collator(collator, theirs, rate=0.4, rows=100)
    assert found["shares"]["selected"]["ok"] and found["rows"] == 100
