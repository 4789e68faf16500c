"""Models beside those of transformers: logits, both ways, for every architecture and head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from jaxmlm.errors import InputError
from jaxmlm.models import count_parameters, interchange, preset

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

V, RNG = 1003, np.random.default_rng(0)
SIZES = {"vocab_size": V, "hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 80}
HEADS = ["ForMaskedLM", "Model", "ForSequenceClassification", "ForQuestionAnswering", "ForTokenClassification"]
CASES = [(family, end) for family in ("Bert", "Roberta", "RobertaPreLayerNorm") for end in HEADS]


def made(family: str, end: str, **changes):
    torch.manual_seed(0)
    if family == "ModernBert":
        more = {"num_hidden_layers": 4, "local_attention": 6, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        more |= {"cls_token_id": 1, "sep_token_id": 2}
    else:
        more = {"num_hidden_layers": 2, "max_position_embeddings": 40, "pad_token_id": 1}
    more |= {"num_labels": 3} if "Classification" in end else {}
    if family == "Esm":
        more |= {"position_embedding_type": "rotary", "emb_layer_norm_before": True, "mask_token_id": 4}
    more |= changes
    config = getattr(transformers, family + "Config")(**SIZES, **more, initializer_range=0.2)
    config._attn_implementation = "eager"
    model = getattr(transformers, family + end)(config).eval()
    for parameter in model.parameters():  # norms and biases too must be seen
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def inputs(shape: tuple[int, int], real: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
    ids, segments = RNG.integers(5, V, shape).astype(np.int32), np.ones(shape, np.int32)
    ids[-1, real:], segments[-1, real:] = pad, 0
    return ids, segments


def theirs(model, ids, segments) -> np.ndarray:
    with torch.no_grad():
        out = model(torch.tensor(ids).long(), attention_mask=torch.tensor(segments).long())
    if "start_logits" in out:
        return torch.stack([out.start_logits, out.end_logits], -1).numpy()
    return (out.logits if "logits" in out else out.last_hidden_state).numpy()


@jax.jit
def called(model, ids, segments):
    return model(ids, segments)


@jax.jit
def masked(model, ids, segments):
    return model.logits(model.hidden(ids, segments), jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape))


def ours(found: interchange.Imported, ids, segments) -> np.ndarray:
    got = np.asarray((masked if found.kind == "mlm" else called)(found.model, ids, segments))
    return got[..., :V] if found.kind == "mlm" else got


def apart(a: np.ndarray, b: np.ndarray, segments: np.ndarray) -> float:
    """The largest difference, as a share of the largest number: float32 has a relative precision."""
    gap = np.abs(a - b) / max(1.0, np.abs(b).max())
    return float((gap if gap.ndim == 2 else gap[segments > 0]).max())


WHOLE = {"layer_types": ["full_attention"] * 4}
BIASED = dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True)
ROTARY = [
    *(("ModernBert", "ForMaskedLM", changes) for changes in ({}, WHOLE, BIASED)),
    *(("ModernBert", end, changes) for end in HEADS[2:] for changes in ({}, BIASED)),
    ("ModernBert", "ForSequenceClassification", {"classifier_pooling": "mean"}),
    *((family, end, {}) for family in ("XLMRoberta", "Camembert") for end in ("ForMaskedLM", "ForTokenClassification")),
    *(("DistilBert", end, {"hidden_dim": 80}) for end in HEADS if end != "ForSequenceClassification"),
    *(("Electra", end, {"embedding_size": 48}) for end in ("Model", "ForTokenClassification", "ForQuestionAnswering")),
    *(("Esm", end, {}) for end in HEADS if end != "ForQuestionAnswering"),
    ("Esm", "ForMaskedLM", {"emb_layer_norm_before": False, "tie_word_embeddings": False}),
]


@pytest.mark.parametrize(("family", "end", "changes"), [*((*case, {}) for case in CASES), *ROTARY])
def test_logits_are_those_of_transformers_and_the_way_back_is_bitwise(family, end, changes, tmp_path):
    model = made(family, end, **changes)
    model.save_pretrained(tmp_path / "in")
    found = interchange.read(tmp_path / "in")
    for shape, real in (((2, 17), 11), ((1, 1), 1), ((3, 37), 37)):
        ids, segments = inputs(shape, real, model.config.pad_token_id)
        assert apart(ours(found, ids, segments), theirs(model, ids, segments), segments) < 2e-5
    written = {"pad": model.config.pad_token_id, "cls": 2, "sep": 3, "mask": 4}
    labels = found.labels if "Classification" in end else ()
    name = interchange.write(found.model, tmp_path / "out", found.kind, ids=written, labels=labels)
    again = interchange.read(tmp_path / "out")
    assert again.config == found.config and again.labels == found.labels
    same = map(np.array_equal, jax.tree.leaves(found.model), jax.tree.leaves(again.model))
    assert all(same)
    back = getattr(transformers, name).from_pretrained(tmp_path / "out").eval()
    ids, segments = inputs((2, 17), 11, model.config.pad_token_id)
    assert apart(theirs(back, ids, segments), theirs(model, ids, segments), segments) < 2e-5


def test_the_discriminator_of_electra_is_read_as_an_encoder(tmp_path):
    model = made("Electra", "ForPreTraining", embedding_size=48)
    model.save_pretrained(tmp_path)
    found = interchange.read(tmp_path)
    ids, segments = inputs((2, 17), 11, 1)
    assert found.kind == "encoder"
    assert apart(ours(found, ids, segments), theirs(model.electra, ids, segments), segments) < 2e-5


@pytest.mark.parametrize("family", ["Bert", "RobertaPreLayerNorm"])
def test_logits_at_base_size_and_full_length(family, tmp_path):
    torch.manual_seed(0)
    model = getattr(transformers, family + "ForMaskedLM")(
        getattr(transformers, family + "Config")(vocab_size=V, max_position_embeddings=514, pad_token_id=1)
    ).eval()
    model.save_pretrained(tmp_path)
    found = interchange.read(tmp_path)
    ids, segments = inputs((2, 512), 400, 1)
    assert apart(ours(found, ids, segments), theirs(model, ids, segments), segments) < 1e-4


def test_the_patched_layout_of_princeton_nlp_and_bin_files(tmp_path):
    """Called RoBERTa, pre-layer-norm, a dead norm in every attention, both names of the tied table, in a .bin."""
    model = made("RobertaPreLayerNorm", "ForMaskedLM")
    weights = {k.replace("roberta_prelayernorm.", "roberta."): v for k, v in model.state_dict().items()}
    for layer in range(2):
        for name in ("weight", "bias"):
            weights[f"roberta.encoder.layer.{layer}.attention.self.LayerNorm.{name}"] = torch.ones(48)
    model.config.architectures = ["RobertaPreLayerNormForMaskedLM"]
    model.config.save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    text = text.replace('"roberta-prelayernorm"', '"roberta"').replace("RobertaPreLayerNormFor", "RobertaFor")
    (tmp_path / "config.json").write_text(text)
    torch.save(weights, tmp_path / "pytorch_model.bin")
    found = interchange.read(tmp_path)
    assert found.config.norm == "pre" and sum("self.LayerNorm" in name for name in found.unused) == 4
    ids, segments = inputs((2, 9), 5, 1)
    assert apart(ours(found, ids, segments), theirs(model, ids, segments), segments) < 2e-5


def test_every_wrong_weight_is_named(tmp_path):
    model = made("Bert", "ForMaskedLM")
    weights = dict(model.state_dict())
    del weights["bert.encoder.layer.1.output.dense.bias"]
    weights["bert.extra"] = torch.ones(2)
    weights["cls.predictions.transform.dense.bias"] = torch.ones(47)
    model.config.architectures = ["BertForMaskedLM"]
    model.config.save_pretrained(tmp_path)
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError) as error:
        interchange.read(tmp_path)
    for fault in (
        "bert.encoder.layer.1.output.dense.bias is missing",
        "bert.extra is not known",
        "cls.predictions.transform.dense.bias is [47], config.json says [48]",
    ):
        assert fault in str(error.value)


def test_a_bin_file_with_more_than_weights_is_refused(tmp_path):
    model = made("Bert", "ForMaskedLM")
    model.config.save_pretrained(tmp_path)
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="save the state_dict of the model alone"):
        interchange.read(tmp_path)


def test_parameters_are_weights_too(tmp_path):
    """A .bin of the parameters themselves, which require a gradient."""
    model = made("Bert", "ForMaskedLM")
    model.config.save_pretrained(tmp_path)
    torch.save(dict(model.named_parameters()), tmp_path / "pytorch_model.bin")
    ids, segments = inputs((2, 9), 5, model.config.pad_token_id)
    assert apart(ours(interchange.read(tmp_path), ids, segments), theirs(model, ids, segments), segments) < 2e-5


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.to_sparse(),
        lambda one: one.to("meta"),
        lambda one: one.to(torch.complex64),
    ],
    ids=["sparse", "meta", "complex"],
)
def test_a_bin_file_of_other_tensors_is_refused_by_name(change, tmp_path):
    model = made("Bert", "ForMaskedLM")
    model.config.save_pretrained(tmp_path)
    name = "bert.embeddings.word_embeddings.weight"
    torch.save({**model.state_dict(), name: change(model.state_dict()[name])}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=f"{name} is not a dense tensor of real numbers"):
        interchange.read(tmp_path)


def test_a_bin_file_that_is_empty_or_has_no_names_is_refused(tmp_path):
    made("Bert", "ForMaskedLM").config.save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(InputError, match="holds more than weights, or is damaged: EOFError"):
        interchange.read(tmp_path)
    torch.save({1: torch.ones(2)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="is not a table of names and tensors"):
        interchange.read(tmp_path)


@pytest.mark.parametrize("family", ["Bert", "Roberta", "RobertaPreLayerNorm"])
def test_an_untied_masked_lm_has_every_weight_that_transformers_asks_for(family, tmp_path):
    made(family, "ForMaskedLM", tie_word_embeddings=False).save_pretrained(tmp_path / "in")
    found = interchange.read(tmp_path / "in")
    ids = {"pad": 1, "cls": 2, "sep": 3, "mask": 4}
    kind = getattr(transformers, interchange.write(found.model, tmp_path / "out", "mlm", ids=ids))
    _, about = kind.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not about["missing_keys"] and not about["unexpected_keys"]
    again = interchange.read(tmp_path / "out")
    assert all(map(np.array_equal, jax.tree.leaves(found.model), jax.tree.leaves(again.model)))


@pytest.mark.parametrize(
    ("name", "options", "vocab", "published"),
    [
        ("base", {"norm": "post", "token_types": 2}, 30_522, 109_514_298),  # bert-base-uncased
        ("base", {"norm": "post", "token_types": 1}, 50_265, 124_697_433 - 2 * 768),  # roberta-base, less 2 dead rows
        ("large", {"norm": "post", "token_types": 1}, 50_265, 355_412_057 - 2 * 1024),  # roberta-large, likewise
    ],
)
def test_parameter_counts_are_the_published_ones(name, options, vocab, published):
    assert count_parameters(preset(name, **options), vocab) == published


@pytest.mark.parametrize(("name", "sizes"), [("modern-base", {}), ("modern-large", {"hidden_size": 1024})])
def test_parameter_counts_of_modern_presets_are_those_of_transformers(name, sizes):
    if sizes:
        sizes = {**sizes, "num_hidden_layers": 28, "num_attention_heads": 16, "intermediate_size": 2624}
    with torch.device("meta"):
        model = transformers.ModernBertForMaskedLM(transformers.ModernBertConfig(**sizes))
    assert count_parameters(preset(name), 50_368) == model.num_parameters()
