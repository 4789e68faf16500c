"""config.json both ways, without PyTorch: what is refused, and what comes back."""

import functools
import json
import os
from pathlib import Path
from runpy import run_path

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxmlm.errors import InputError
from jaxmlm.models import Encoder, EncoderConfig, interchange, preset, with_head
from jaxmlm.models.as_bert import as_bert
from jaxmlm.models.formats import config_of, format_for, kinds_of, plain_of, recognise
from jaxmlm.models.names import weights
from jaxmlm.parallel import make_mesh

ROOT = Path(__file__).parents[2]
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
        preset("modern-base", window=None, local_rope_base=None, biases=True),
        EncoderConfig(**SMALL, positions="rope"),
        EncoderConfig(**SMALL, positions="rope", embed_norm=False, tied=False, dropout=0.0),
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
        ({"positions": "rope", "biases": False}, "model.biases False .it has True"),
        ({"positions": "rope", "rope_base": 500.0}, "model.rope_base 500.0 .it has 10000.0"),
        ({"positions": "rope", "window": 8}, "model.window 8 .it has None"),
        ({"positions": "rope", "norm": "post"}, "model.norm post .it has pre"),
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


@pytest.mark.parametrize("config", ["quickstart_run.py", "wiki_small.py", "continue.py"])
def test_what_the_configs_train_can_be_exported(config):
    found = run_path(str(ROOT / "configs" / config))["config"]()
    assert format_for(getattr(found, "run", found).model, "mlm").family in ("Esm", "RobertaPreLayerNorm")


def test_a_head_that_the_format_has_not_is_refused():
    with pytest.raises(InputError, match="has no EsmForQuestionAnswering that computes the same"):
        format_for(EncoderConfig(**SMALL, positions="rope"), "answer")


@pytest.mark.parametrize(
    ("family", "change", "said"),
    [
        ("rope", {"token_dropout": True}, "token_dropout True"),
        ("rope", {"position_embedding_type": "absolute"}, "position_embedding_type 'absolute'"),
        ("modern", {"norm_bias": True}, "norm_bias True, attention_bias False"),
    ],
)
def test_parts_of_rotary_formats_that_are_not_computed(family, change, said):
    config = EncoderConfig(**SMALL, positions="rope") if family == "rope" else preset("modern-base", **SMALL)
    form = format_for(config, "mlm")
    with pytest.raises(InputError, match=said):
        config_of(form, plain_of(form, config, "mlm", 1003, IDS) | change, Path("x"))


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


def write(directory: Path, config: EncoderConfig = POST, kind: str = "mlm", **change):
    """A directory of a small model, which is returned as it is read, and then these changes of its config.json.

    A change to `...` takes a key away.
    """
    model = fresh(config, kind)
    interchange.write(model, directory, kind, ids=IDS)
    model = interchange.read(directory).model
    plain = json.loads((directory / "config.json").read_text()) | change
    plain = {name: value for name, value in plain.items() if value is not ...}
    (directory / "config.json").write_text(json.dumps(plain))
    return model


def same(a, b) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


FAMILIES = {
    "bert": EncoderConfig(**SMALL, norm="post", token_types=2), "roberta": POST, "modernbert": MODERN,
    "biased": preset("modern-base", **SMALL, window=None, local_rope_base=None, biases=True),
    "esm": EncoderConfig(**SMALL, positions="rope"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "kind"),
    [(f, k) for f, config in FAMILIES.items() for k in kinds_of(format_for(config, "mlm"))],
)
def test_without_architectures_the_weights_tell_the_kind(family, kind, tmp_path):
    model = write(tmp_path, FAMILIES[family], kind, architectures=...)
    if not FAMILIES[family].first_norm and kind in ("classify", "answer", "tokens"):  # the same names in all three
        with pytest.raises(InputError, match="names no architecture"):
            interchange.read(tmp_path)
        return
    found = interchange.read(tmp_path)
    assert found.kind == kind and same(found.model, model)


def test_a_classifier_of_several_labels_a_text_is_refused(tmp_path):
    write(tmp_path, kind="classify", problem_type="multi_label_classification")
    with pytest.raises(InputError, match="multi_label_classification"):
        interchange.read(tmp_path)
    write(tmp_path, kind="classify", problem_type="single_label_classification")
    assert interchange.read(tmp_path).kind == "classify"


def test_a_regression_of_several_numbers_is_refused(tmp_path):
    """They would be served as probabilities."""
    for names in ({}, {"id2label": {"0": "joy", "1": "anger"}}):
        write(tmp_path, kind="classify", problem_type="regression", **names)
        with pytest.raises(InputError, match="problem_type regression of several numbers"):
            interchange.read(tmp_path)


def test_a_weight_without_a_place_is_never_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(interchange, "weights", lambda *a: weights(*a)[:-1])
    with pytest.raises(InputError, match="no weights named bias"):
        write(tmp_path)


@pytest.mark.parametrize("value", [None, True, -1, 1.5, 2**40, float("nan"), "8", [8], {"a": 8}], ids=str)
def test_a_field_of_any_type_is_read_or_refused_in_a_line(value, tmp_path):
    """Every field of every format with every kind of value: an `InputError` or a model, and at once."""
    for config in (EncoderConfig(**SMALL), preset("modern-base", **SMALL)):
        directory = tmp_path / config.positions
        write(directory, config)
        plain = json.loads((directory / "config.json").read_text())
        for name in plain:
            changed = {**plain, name: value}
            (directory / "config.json").write_text(json.dumps(changed))
            try:
                interchange.read(directory)
            except InputError as error:
                assert str(directory) in str(error) and "\n" not in str(error), name


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    write(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    name = next(iter(tensors))
    for bad in (np.nan, np.inf):
        safetensors.numpy.save_file({**tensors, name: np.full_like(tensors[name], bad)}, file)
        with pytest.raises(InputError, match=f"{name} holds numbers that are not finite"):
            interchange.read(tmp_path)
    raw = file.read_bytes()
    file.write_bytes(raw.replace(b'"F32"', b'"U32"', 1))
    with pytest.raises(InputError, match="is of type U32: convert the weights"):
        interchange.read(tmp_path)


def test_weights_outside_of_the_directory_are_not_read(tmp_path):
    write(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path.parent / "elsewhere.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    for name in ("../elsewhere.safetensors", str(tmp_path.parent / "elsewhere.safetensors"), 7):
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(InputError, match="give names of files in the same directory"):
            interchange.read(tmp_path)


def test_a_depth_that_the_weights_do_not_have_is_refused_at_once(tmp_path):
    write(tmp_path)
    plain = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**plain, "num_hidden_layers": 10**9}))
    with pytest.raises(InputError, match="num_hidden_layers 1000000000, and there are only"):
        interchange.read(tmp_path)


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


WRONG_LABELS = [
    ({"0": "no", "2": "yes"}, "id2label with the ids 0, 2"),
    ({"1": "no", "2": "yes"}, "id2label with the ids 1, 2"),
    ({"no": 0, "yes": 1}, "id2label with the ids no, yes"),
    (["no", "yes"], r"id2label \['no', 'yes'\]"),
    ({"0": "yes", "1": "yes"}, "id2label with 'yes' twice"),
]


@pytest.mark.parametrize(("named", "said"), WRONG_LABELS, ids=str)
def test_labels_that_do_not_name_every_output_are_refused(named, said, tmp_path):
    write(tmp_path, kind="classify", id2label=named)
    with pytest.raises(InputError, match=said):
        interchange.read(tmp_path)


def test_labels_of_a_model_without_classes_are_passed_over(tmp_path):
    write(tmp_path, id2label={"0": "no", "2": "yes"})
    assert interchange.read(tmp_path).labels == ()


def renamed(directory: Path, name) -> None:
    """The weights of a directory, each with the name that this function makes of its own."""
    tensors = safetensors.numpy.load_file(directory / "model.safetensors")
    safetensors.numpy.save_file({name(key): x for key, x in tensors.items()}, directory / "model.safetensors")


@pytest.mark.parametrize(
    ("kind", "change", "name", "said"),
    [
        ("mlm", {}, "module.{}".format, "are called module.NAME"),
        ("mlm", {}, "_orig_mod.{}".format, "are called _orig_mod.NAME"),
        ("classify", {}, "model.{}".format, "are called model.NAME"),
        ("encoder", {}, "module.{}".format, "are called module.NAME"),
        ("encoder", {"architectures": ["RobertaForMaskedLM"]}, str, 'lack the prefix roberta. .*"RobertaModel"'),
    ],
)
def test_a_prefix_of_every_weight_is_named(kind, change, name, said, tmp_path):
    write(tmp_path, kind=kind, **change)
    renamed(tmp_path, name)
    with pytest.raises(InputError, match=said) as error:
        interchange.read(tmp_path)
    assert len(str(error.value)) < 500


def test_of_many_wrong_weights_the_first_are_named(tmp_path):
    write(tmp_path)
    renamed(tmp_path, lambda key: key.replace("layer", "block"))
    with pytest.raises(InputError, match="layer.0.attention.self.query.weight is missing; .*; and [0-9]+ more"):
        interchange.read(tmp_path)


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_all_files_have_the_mode_of_the_umask(mask, tmp_path):
    before = os.umask(mask)
    try:
        write(tmp_path)
    finally:
        os.umask(before)
    assert {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {
        "config.json": 0o666 & ~mask, "model.safetensors": 0o666 & ~mask
    }  # fmt: skip


def test_labels_that_are_null_are_numbers(tmp_path):
    write(tmp_path, kind="classify", id2label=None)
    assert interchange.read(tmp_path).labels == ("0", "1")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("config.json", "[1]", "holds a JSON list"),
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


def test_a_family_that_is_not_computed_is_refused_in_one_line():
    plain = {"model_type": "deberta-v2", "architectures": ["DebertaV2ForMaskedLM"]}
    with pytest.raises(InputError, match="model_type 'deberta-v2', which jaxmlm does not compute: take .* bert, rob"):
        recognise(plain, [], Path("microsoft-deberta"))


@pytest.mark.parametrize(
    ("plain", "names", "said"),
    [
        ({"model_type": "distilbert"}, ["pre_classifier.weight"], "has a ReLU"),
        ({"model_type": "electra", "architectures": ["ElectraForMaskedLM"]}, [], "no reader for ElectraForMaskedLM"),
        (
            {"model_type": "electra", "embedding_size": 128, "hidden_size": 256},
            [],
            "embedding_size 128 and hidden_size",
        ),
    ],
)
def test_what_bert_does_not_have_is_refused(plain, names, said):
    with pytest.raises(InputError, match=said):
        as_bert(plain, names, Path("x"))


def test_weights_of_the_discriminator_alone_are_left_out():
    found = as_bert(
        {"model_type": "electra", "architectures": ["ElectraForPreTraining"], "hidden_size": 8, "embedding_size": 8},
        ["electra.embeddings.LayerNorm.bias", "discriminator_predictions.dense.bias"],
        Path("x"),
    )
    assert found.config["architectures"] == ["BertModel"] and found.config["model_type"] == "bert"
    assert found.names == {
        "electra.embeddings.LayerNorm.bias": "bert.embeddings.LayerNorm.bias",
        "discriminator_predictions.dense.bias": None,
    }
