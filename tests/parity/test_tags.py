"""Tags beside the token-classification pipeline of transformers: spans, characters, probabilities."""

import pytest
import transformers

import jaxmlm
from tests.parity.test_api import TEXTS, saved

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def test_spans_are_those_of_the_pipeline(tmp_path):
    """With the first piece of each word deciding; a model with random weights predicts every tag."""
    directory = saved("Bert", "ForTokenClassification", tmp_path, ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"))
    theirs = transformers.pipeline(
        "token-classification", model=str(directory), tokenizer=str(directory), aggregation_strategy="first"
    )
    ours = jaxmlm.load(directory)
    labels = set()
    for text in [*(text[:90] for text in TEXTS[:12]), "a hen, in London's east."]:
        want = theirs(text)
        found = ours.tag(text)
        assert [(one.label, one.begin, one.end) for one in found] == [
            (one["entity_group"], one["start"], one["end"]) for one in want
        ]
        assert [one.probability for one in found] == pytest.approx([float(one["score"]) for one in want], abs=1e-5)
        labels |= {one.label for one in found}
    assert labels == {"PER", "LOC"}
