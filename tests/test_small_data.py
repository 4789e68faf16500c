"""The small-data track: its text, and that each of its questions is a study that compares what it asks for."""

from pathlib import Path
from typing import get_args

import pytest

from jaxmlm import config
from jaxmlm.errors import InputError
from jaxmlm.studies.study import cells_of
from jaxmlm.user_code import find_object

CONFIGS = Path(__file__).parent.parent / "configs"
QUESTIONS = get_args(find_object(f"{CONFIGS / 'small_data.py'}:Question", "the questions"))
track = find_object(f"{CONFIGS / 'small_data_text.py'}:track", "the track")
sentences = find_object(f"{CONFIGS / 'small_data_text.py'}:sentences", "the track")


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> str:
    """Two texts: 2,000 short articles, and three novels of 200 paragraphs of 100 words."""
    directory = tmp_path_factory.mktemp("track")
    articles = [f"Article {n}\nIts number is {n}. It says so twice: {n}." for n in range(2000)]
    novels = ["\n".join(" ".join([f"{n}-{p}."] * 100) for p in range(200)) for n in range(3)]
    (directory / "wiki.txt").write_text("\n\n".join(articles))
    (directory / "novels.txt").write_text("\n\n".join(novels))
    return f"{directory / 'wiki.txt'}+{directory / 'novels.txt'}"


def test_the_track_takes_its_shares_by_a_hash_of_each_document(texts):
    found = list(track(texts))
    articles = [text for text in found if text.startswith("Article")]
    pieces = [text for text in found if not text.startswith("Article")]
    assert 190 < len(articles) < 310  # 6.00 of 48.52 in 2,000: 247, a standard deviation of 15
    assert all(len(piece.split()) == 1000 for piece in pieces)  # ten paragraphs
    assert 2 < len(pieces) < 20  # 4.00 of 23.56 in 60: 10
    assert found == list(track(texts))
    wiki, novels = texts.split("+")
    longer = Path(wiki).with_name("longer.txt")
    longer.write_text("Another article\nOf a few words.\n\n" + Path(wiki).read_text())
    # Whether a document is taken does not depend on what stands before it.
    assert set(articles) <= set(track(f"{longer}+{novels}"))


def test_sentences_are_documents_of_their_own(texts):
    found = list(sentences(texts))
    assert len(found) > len(list(track(texts)))
    assert all(text.count(". ") == 0 for text in found if text.startswith("Its"))
    assert "Its number is" in found[0] + found[1]


def test_a_text_that_is_not_two_is_refused():
    with pytest.raises(InputError, match=r"WIKI\+NOVELS, two text files; got 'one.txt'"):
        list(track("one.txt"))


@pytest.mark.parametrize("scale", ["cpu", "gpu", "pod"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_each_question_is_a_study_with_seeds(question, scale):
    study = config.load(CONFIGS / "small_data.py", ["--question", question, "--scale", scale])
    cells = [cell for cell in cells_of(study) if not cell.control]
    assert len({str(cell.values) for cell in cells}) * len(study.seeds) == len(cells)
    assert len(study.seeds) >= 2
    loops = [(cell.run.loop, cell.run.data.length) for cell in cells]
    assert len({loop.steps for loop, _ in loops}) == 1
    assert len({loop.steps * loop.batch * length for loop, length in loops}) == 1  # equal tokens
