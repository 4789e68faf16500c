"""Tokenizers with new words: transformers gives the same ids."""

import pytest
import transformers

from jaxmlm.data.hf_tokenizer import export_tokenizer
from jaxmlm.data.new_words import with_new_words
from tests.data.test_new_words import DOMAIN, KINDS, TEXTS, WARD, trained

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("kind", KINDS)
def test_an_extended_tokenizer_gives_the_ids_that_transformers_gives(kind, tmp_path):
    new = with_new_words(trained(kind, tmp_path / "old"), DOMAIN, 3)
    export_tokenizer(new, tmp_path / "new", 64)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "new")
    assert len(theirs) == new.size
    for text in [WARD, "backward wards", " a\tward's  TACHYCARDIA", *TEXTS[:50]]:
        assert theirs(text, add_special_tokens=False)["input_ids"] == new.encode(text)
