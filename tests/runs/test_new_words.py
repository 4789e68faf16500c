"""A run that continues from an encoder with new words: the encoder as it was, with rows for them."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlm.data import Data
from jaxmlm.data.new_words import parts_of_new
from jaxmlm.errors import InputError
from jaxmlm.models import EncoderConfig
from jaxmlm.parallel import Mesh, make_mesh
from jaxmlm.runs import Run
from jaxmlm.runs.conversion import export
from jaxmlm.runs.loading import LoadedModel, load
from jaxmlm.runs.pretraining import pretrain
from jaxmlm.training import Loop

WORD = "tachycardia"
OLD_TEXT = "the old baker lives by the river"


pytestmark = pytest.mark.slow("pre-trains twice: tests/models and tests/data have the laws")


@pytest.fixture(scope="module")
def adapted(tmp_path_factory) -> Iterator[tuple[LoadedModel, LoadedModel]]:
    """An encoder, and what a run without steps makes of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *_, real=jax.devices: real()[:1])
        yield _adapted(tmp_path_factory.mktemp("adapted"))


def _adapted(work: Path) -> tuple[LoadedModel, LoadedModel]:
    model = EncoderConfig(layers=1, width=16, heads=2, positions="rope", dropout=0.0)
    data = Data("sample:200", vocab=383, length=16, valid=0.1)
    pretrain(Run(str(work / "base"), data=data, model=model, loop=Loop(0, 8)))
    (work / "my.txt").write_text(f"{OLD_TEXT} with {WORD}.\n\n" * 100)
    on = Data(str(work / "my.txt"), length=16, valid=0.1, new_words=1)
    pretrain(Run(str(work / "on"), init=str(work / "base"), data=on, model=model, loop=Loop(0, 8)))
    with jax.set_mesh(make_mesh(Mesh())):
        return load(work / "base"), load(work / "on")


def logits(loaded: LoadedModel, text: str) -> np.ndarray:
    ids = jnp.array([loaded.tokenizer.encode(text)])
    places = jnp.arange(ids.shape[1])[None]
    return np.asarray(loaded.model.logits_at(ids, jnp.ones_like(ids), places))


def test_texts_without_new_words_have_the_logits_that_they_had(adapted):
    before, after = adapted
    size = before.tokenizer.size
    assert after.tokenizer.size == after.encoder.vocab == size + 1 and after.tokenizer.piece_texts[size] == WORD
    assert after.tokenizer.encode(OLD_TEXT) == before.tokenizer.encode(OLD_TEXT)
    assert np.array_equal(logits(before, OLD_TEXT)[..., :size], logits(after, OLD_TEXT)[..., :size])
    table = np.asarray(after.encoder.embedding[...])
    (parts,) = parts_of_new(after.tokenizer, before.tokenizer)
    assert parts == before.tokenizer.encode(WORD) and len(parts) > 2
    np.testing.assert_allclose(table[size], table[parts].mean(0), rtol=1e-5, atol=1e-7)


def test_an_extended_vocabulary_goes_to_transformers_and_back(adapted, tmp_path):
    _, after = adapted
    export(str(after.directory), str(tmp_path / "out"))
    with jax.set_mesh(make_mesh(Mesh())):
        back = load(tmp_path / "out")
    assert back.encoder.vocab == after.encoder.vocab
    text = f"{OLD_TEXT} {WORD}, {WORD}s"
    assert back.tokenizer.encode(text) == after.tokenizer.encode(text)
    vocab = after.encoder.vocab
    assert np.array_equal(back.encoder.embedding[...][:vocab], after.encoder.embedding[...][:vocab])
    assert np.array_equal(logits(back, text)[..., :vocab], logits(after, text)[..., :vocab])


def test_new_words_need_a_tokenizer_that_is_trained(adapted, tmp_path):
    before, _ = adapted
    with pytest.raises(InputError, match="give a trained one"):
        Run(data=Data(new_words=1))
    more = Data("sample:200", length=16, valid=0.1, new_words=100_000)
    model = EncoderConfig(dropout=0.0)
    with pytest.raises(InputError, match="new_words is 100,000, and the text has [0-9,]+ words"):
        pretrain(Run(str(tmp_path / "x"), init=str(before.directory), data=more, model=model, loop=Loop(0, 8)))
    assert not Path(tmp_path / "x" / "store").exists()
