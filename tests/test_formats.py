"""config.json both ways, without PyTorch: what is refused, and what comes back."""

from pathlib import Path

import pytest

from jaxmlm.errors import InputError
from jaxmlm.models import EncoderConfig, preset
from jaxmlm.models.formats import config_of, format_for, plain_of, recognise

IDS = {"pad": 0, "cls": 2, "sep": 3, "mask": 4}
SMALL = {"layers": 2, "width": 48, "heads": 3, "mlp": 80}


@pytest.mark.parametrize(
    "config",
    [
        EncoderConfig(**SMALL),
        EncoderConfig(**SMALL, norm="post", tied=False),
        EncoderConfig(**SMALL, norm="post", token_types=2, activation="gelu_tanh"),
        preset("modern-base"),
        preset("modern-base", activation="geglu_tanh", global_every=2, window=64),
    ],
    ids=str,
)
def test_a_config_comes_back_from_its_config_json(config):
    form = format_for(config, "mlm")
    plain = plain_of(form, config, "mlm", 1003, IDS)
    assert recognise(plain, [], Path("x")) == (form, "mlm")
    back, vocab, _ = config_of(form, plain, Path("x"))
    types = {"token_types": config.token_types}  # a table of zeros stands for none: `read` takes it away
    assert vocab == 1003 and EncoderConfig(**{**vars(back), **types}) == config


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"positions": "rope", "width": 32, "heads": 2}, "model.biases True .it has False"),
        ({"biases": False}, "model.biases False .it has True"),
        ({"embed_norm": False}, "model.embed_norm"),
        ({"window": 8}, "model.window 8"),
        ({"activation": "geglu"}, "model.activation geglu"),
        ({"activation": "gelu_tanh"}, "model.activation gelu_tanh"),
    ],
    ids=str,
)
def test_what_no_architecture_computes_is_refused(options, named):
    with pytest.raises(InputError, match=named):
        format_for(EncoderConfig(**{**SMALL, **options}), "mlm")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2'"),
        ({"architectures": ["BertForMultipleChoice"]}, "no reader for BertForMultipleChoice"),
    ],
)
def test_other_architectures_are_refused(change, named):
    with pytest.raises(InputError, match=named):
        recognise({"model_type": "bert", **change}, [], Path("x"))


@pytest.mark.parametrize("change", [{"hidden_act": "relu"}, {"position_embedding_type": "relative_key"}])
def test_other_parts_are_refused(change):
    config = EncoderConfig(**SMALL, norm="post", token_types=2)
    form = format_for(config, "mlm")
    with pytest.raises(InputError, match=next(iter(change))):
        config_of(form, {**plain_of(form, config, "mlm", 1003, IDS), **change}, Path("x"))
