"""A sentence as a masking leaves it reads as text, whatever marks a vocabulary has for words and bytes."""

import tokenizers

from jaxmlm.data import Data
from jaxmlm.data.opening import open_store
from jaxmlm.masking import Masking
from jaxmlm.runs.preview import Piece, preview, preview_html
from jaxmlm.synthetic import world
from tests.data.test_hf_tokenizer import byte_level

SENTENCE = "the old hen sees sparrows, (and) isn't café"


def word_piece(directory, texts):
    made = tokenizers.BertWordPieceTokenizer(strip_accents=False)
    made.train_from_iterator([*texts, SENTENCE], vocab_size=500, show_progress=False)
    made.save(str(directory / "tokenizer.json"))


def shown(directory) -> list[Piece]:
    """The pieces of the sentence, every token selected."""
    store = open_store(Data("sample:60", valid=0.1, tokenizer=str(directory)), directory / "store")
    return preview(Masking(1.0), store, SENTENCE)


def test_of_any_vocabulary_it_is_the_text(tmp_path):
    texts = list(world.documents(0, 200))
    for make in (word_piece, byte_level):
        directory = tmp_path / make.__name__
        directory.mkdir()
        make(directory, texts)
        pieces = shown(directory)
        assert len(pieces) > 12 and {state for _, state in pieces} == {"mask"}
        told = "".join(text.replace("▁", " ") for text, _ in pieces).strip()
        assert told == SENTENCE or told == SENTENCE.replace("é", "\ufffd\ufffd"), told


def test_a_mask_within_a_word_stands_within_it():
    pieces = [Piece("▁play", "plain"), Piece("ing", "mask"), Piece("▁on", "mask")]
    said = 'play<span class="mask">[MASK]</span> <span class="mask">[MASK]</span>'
    assert preview_html(pieces) == said
