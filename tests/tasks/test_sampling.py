"""Sampling: what is masked is filled in, by the model's own probabilities, and nothing else is touched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlm.errors import InputError
from jaxmlm.models import Encoder, EncoderConfig, MaskedLM
from jaxmlm.tasks import sampling

MASK = 4
EXCLUDED = np.arange(8) < 5
SHARES = np.array([0.6, 0.3, 0.1])


@pytest.fixture(scope="module")
def model() -> MaskedLM:
    """Its probabilities are `SHARES` of the ids 5, 6 and 7, whatever it reads; the mask would have most."""
    key = jax.random.key(0)
    config = EncoderConfig(layers=1, width=8, heads=2, max_positions=512, dropout=0.0, attention_dropout=0.0)
    made = MaskedLM(Encoder(config, 8, key), key)
    made.encoder.embedding[...] = jnp.zeros_like(made.encoder.embedding[...])
    logits = jnp.log(jnp.array([1e-9, 1e-9, 1e-9, 1e-9, 50.0, *SHARES]))
    made.bias[...] = jnp.pad(logits, (0, 120))
    return made


def filled(model: MaskedLM, ids: np.ndarray, seed: int = 0, **options) -> np.ndarray:
    return sampling.fill_in(model, ids, np.ones_like(ids), MASK, EXCLUDED, jax.random.key(seed), **options)


def row(masks: int) -> np.ndarray:
    return np.array([[2, 6, *[MASK] * masks, 7, 3]], np.int32)


@pytest.mark.parametrize("order", ["certain", "random"])
@pytest.mark.parametrize("steps", [1, 3, None])
def test_only_masks_are_filled_and_with_no_special_token(model, order, steps):
    ids = row(7)
    found = filled(model, ids, steps=steps, order=order)
    kept = ids != MASK
    assert (found[kept] == ids[kept]).all() and (found[~kept] >= 5).all()
    assert (found == filled(model, ids, steps=steps, order=order)).all()
    assert any((found != filled(model, ids, seed, steps=steps, order=order)).any() for seed in (1, 2))


def test_tokens_have_the_model_s_probabilities(model):
    found = filled(model, row(500), steps=1)[0, 2:-2]
    share = np.bincount(found, minlength=8)[5:] / 500
    assert (np.abs(share - SHARES) < 3 * np.sqrt(SHARES * (1 - SHARES) / 500)).all()
    assert (filled(model, row(20), temperature=0.0)[0, 2:-2] == 5).all()


@pytest.mark.parametrize(("masks", "steps", "counts"), [(7, 3, [3, 2, 2]), (4, 4, [1, 1, 1, 1]), (5, 1, [5])])
def test_steps_share_the_masks(model, masks, steps, counts, monkeypatch):
    left = []
    draw = sampling._draw

    def counted(model, ids, *arguments):
        left.append(int((ids == MASK).sum()))
        return draw(model, ids, *arguments)

    monkeypatch.setattr(sampling, "_draw", counted)
    filled(model, row(masks), steps=steps)
    assert (-np.diff([*left, 0])).tolist() == counts


@pytest.mark.parametrize(("order", "first"), [("certain", [3, 5]), ("random", None)])
def test_the_most_certain_come_first(model, order, first, monkeypatch):
    seen = []

    def draw(model, ids, *_):
        seen.append(np.flatnonzero(ids[0] == MASK).tolist())
        return np.full_like(ids, 5), -np.array([[0, 0, 3, 1, 4, 2, 0, 0]], np.float32)  # of masks at 2 to 5

    monkeypatch.setattr(sampling, "_draw", draw)
    for seed in range(1 if first else 8):
        filled(model, row(4), seed, steps=2, order=order)
    kept = [sorted({2, 3, 4, 5} - set(after)) for after in seen[1::2]]
    assert kept[0] == first if first else len({*map(tuple, kept)}) > 2


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        (row(0), {}, "the template has no mask"),
        (row(3), {"steps": 4}, "steps is 4: it must be from 1 to the number of masks, 3"),
        (row(3), {"steps": 0}, "steps is 0"),
        (row(3), {"temperature": -1.0}, "temperature is -1.0"),
    ],
)
def test_what_cannot_be_is_refused(model, ids, options, message):
    with pytest.raises(InputError, match=message):
        filled(model, ids, **options)
