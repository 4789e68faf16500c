"""config.json both ways, without PyTorch: what is refused, and what comes back."""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxmlm.errors import InputError
from jaxmlm.models import Encoder, EncoderConfig, interchange, preset, with_head
from jaxmlm.models.formats import HEADS, config_of, format_for, plain_of, recognise
from jaxmlm.models.names import weights
from jaxmlm.parallel import make_mesh

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
        ({"activation": "geglu", "norm": "post", "token_types": 2}, "model.activation geglu"),
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


POST = EncoderConfig(**SMALL, norm="post")
MODERN = preset("modern-base", **SMALL)


@pytest.fixture(autouse=True)
def mesh():
    with jax.set_mesh(make_mesh(devices=jax.devices()[:1])):
        yield


@functools.cache
def fresh(config: EncoderConfig, kind: str):
    keys = jax.random.split(jax.random.key(0))
    return with_head(kind, Encoder(config, 40, keys[0]), 2, keys[1])


def write(folder: Path, config: EncoderConfig = POST, kind: str = "mlm", **change):
    """A folder of a small model, which is returned as it is read, and then these changes of its config.json.

    A change to `...` takes a key away.
    """
    model = fresh(config, kind)
    interchange.write(model, folder, kind, ids=IDS)
    model = interchange.read(folder).model
    plain = json.loads((folder / "config.json").read_text()) | change
    plain = {name: value for name, value in plain.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(plain))
    return model


def same(a, b) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


FAMILIES = {"bert": EncoderConfig(**SMALL, norm="post", token_types=2), "roberta": POST, "modernbert": MODERN}


@pytest.mark.parametrize(
    ("family", "kind"), [(f, k) for f in FAMILIES for k in HEADS if f != "modernbert" or k in ("mlm", "encoder")]
)
def test_without_architectures_the_weights_tell_the_kind(family, kind, tmp_path):
    model = write(tmp_path, FAMILIES[family], kind, architectures=...)
    found = interchange.read(tmp_path)
    assert found.kind == kind and same(found.model, model)


def test_a_classifier_of_several_labels_a_text_is_refused(tmp_path):
    write(tmp_path, kind="classify", problem_type="multi_label_classification")
    with pytest.raises(InputError, match="multi_label_classification"):
        interchange.read(tmp_path)
    write(tmp_path, kind="classify", problem_type="single_label_classification")
    assert interchange.read(tmp_path).kind == "classify"


def test_a_weight_without_a_place_is_never_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(interchange, "weights", lambda *a: weights(*a)[:-1])
    with pytest.raises(AssertionError, match="no place for bias"):
        write(tmp_path)


def test_rotary_bases_of_transformers_4(tmp_path):
    config = preset("modern-base", **SMALL, global_every=2, rope_base=5_000.0, local_rope_base=700.0)
    write(tmp_path, config, layer_types=..., rope_parameters=...)  # which version 4 does not know
    assert interchange.read(tmp_path).config == config
    write(tmp_path, config, rope_parameters=..., local_rope_theta=None)
    assert interchange.read(tmp_path).config.local_rope_base == 5_000.0
    write(tmp_path, config, rope_scaling={"rope_type": "linear", "factor": 2.0})
    with pytest.raises(InputError, match="rope_scaling"):
        interchange.read(tmp_path)


def test_an_untied_head_whose_bias_has_its_first_name(tmp_path):
    """As transformers 4 saves it."""
    model = write(tmp_path, EncoderConfig(**SMALL, norm="post", tied=False))
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    tensors["lm_head.bias"] = tensors.pop("lm_head.decoder.bias")
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    assert same(interchange.read(tmp_path).model, model)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vocab_size": None}, "vocab_size None"),
        ({"hidden_size": None}, "hidden_size None"),
        ({"intermediate_size": "80"}, "intermediate_size '80'"),
        ({"pad_token_id": None}, "pad_token_id None"),
    ],
    ids=str,
)
def test_sizes_that_are_missing_are_named(change, said):
    form = format_for(POST, "mlm")
    with pytest.raises(InputError, match=said):
        config_of(form, plain_of(form, POST, "mlm", 1003, IDS) | change, Path("x"))


def test_labels_that_are_null_are_numbers(tmp_path):
    write(tmp_path, kind="classify", id2label=None)
    assert interchange.read(tmp_path).labels == ("0", "1")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("config.json", "[1]", "holds a list"),
        ("model.safetensors.index.json", "{}", "no weight_map"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "one.safetensors"}}', "one.safetensors is missing"),
    ],
)
def test_files_that_hold_something_else_are_named(name, text, said, tmp_path):
    write(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=said):
        interchange.read(tmp_path)
