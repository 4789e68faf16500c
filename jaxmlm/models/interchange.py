"""Models to and from the `transformers` format: config.json and model.safetensors (or PyTorch's .bin)."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jax.sharding import NamedSharding, PartitionSpec

from jaxmlm.errors import InputError
from jaxmlm.json_files import read_json
from jaxmlm.models.as_bert import as_bert
from jaxmlm.models.config_json import checked
from jaxmlm.models.encoder import Encoder
from jaxmlm.models.encoder_config import EncoderConfig
from jaxmlm.models.formats import HEADS, config_of, format_for, plain_of, recognise
from jaxmlm.models.heads import with_head
from jaxmlm.models.names import ESM, MODERN, Format, Weight, weights
from jaxmlm.models.weight_files import WHAT, Tensors
from jaxmlm.parallel import without_mesh
from jaxmlm.rng import make_key

# Weights that stand in published files and that no output depends on.
_UNUSED = re.compile(
    r"(position_ids|token_type_ids|rotary_embeddings\.inv_freq)$|(^|\.)(pooler|contact_head)\.|^cls\.seq_relationship\."
)
# The patched RoBERTa of princeton-nlp/efficient_mlm_* makes a layer norm in every attention and never calls it.
_DEAD = re.compile(r"\.attention\.self\.LayerNorm\.(weight|bias)$")
MOST_FAULTS = 20
"""Wrong weights that a message names."""


class Imported(NamedTuple):
    """A model as it was read: itself, what it is, its labels, and the weights in the file that it does not use."""

    model: Any
    config: EncoderConfig
    kind: str
    vocab: int
    labels: tuple[str, ...]
    architecture: str
    unused: tuple[str, ...]


def read(directory: str | Path, like: EncoderConfig | None = None) -> Imported:
    """The model in a directory of the `transformers` format, on the current mesh; trained as `like` says, if given.

    Its kind is that of the architecture in config.json: "mlm", "encoder", "classify", "answer" or "tokens".
    InputError names every weight that is missing, not known or of another shape, and what no option here spans.
    """
    directory = Path(directory)
    plain = read_json(directory / "config.json", WHAT)
    with Tensors(directory) as tensors:
        plain, renamed = as_bert(plain, tensors.shapes, directory)
        tensors.rename_all(renamed)
        plain = checked(plain, directory)
        form, kind = recognise(plain, tensors.shapes, directory)
        if kind == "encoder":
            tensors.strip(form.prefix)
        try:
            config, vocab, offset = config_of(form, plain, directory)
        except InputError as error:
            if str(directory) in str(error):
                raise
            raise InputError(f"{directory}: config.json has values that do not go together: {error}") from error
        if config.layers > len(tensors.shapes):  # before their names are counted up
            raise InputError(
                f"{directory}: config.json has num_hidden_layers {config.layers}, and there are only "
                f"{len(tensors.shapes)} weights: copy the model again"
            )
        if kind == "mlm" and not config.tied and form.head + "decoder.bias" not in tensors.shapes and form is not ESM:
            tensors.rename(form.head + "bias", form.head + "decoder.bias")  # transformers 4 saves one of the two names
        if config.token_types == 1 and not form.rotary:
            types = next((name for name in tensors.shapes if name.endswith("token_type_embeddings.weight")), None)
            if types is not None and not tensors.read(types).any():  # how a format without the option says it
                config = EncoderConfig(**{**vars(config), "token_types": 0})
                tensors.drop(types)
        config = config.with_runtime_fields_of(like) if like else config
        labels = _labels(plain, directory) if kind in ("classify", "tokens") else ()
        table = weights(form, config, kind, vocab, offset)
        abstract = _abstract(config, kind, vocab, len(labels))
        unused = _check(table, abstract, tensors, form, config, directory)
        leaves = {ours: array for weight in table for ours, array in _joined(weight, abstract, tensors, config)}
    model = jax.tree_util.tree_map_with_path(lambda path, leaf: _placed(leaves[_name(path)], leaf), abstract)
    return Imported(model, config, kind, vocab, labels, f"{form.family}{HEADS[kind]}", unused)


def _labels(plain: dict[str, Any], directory: Path) -> tuple[str, ...]:
    """The names of a classifier's outputs, in their order: without names, their numbers."""
    named = plain.get("id2label")
    if not named:
        count = plain.get("num_labels") or 2
        if not isinstance(count, int) or count < 1:
            raise InputError(
                f"{directory}: config.json has num_labels {count!r}: give how many outputs the classifier has"
            )
        return tuple(map(str, range(count)))
    if not isinstance(named, dict) or {str(i) for i in range(len(named))} != set(named):
        keys = f"the ids {', '.join(map(str, named))}" if isinstance(named, dict) else f"{named!r}"
        raise InputError(
            f"{directory}: config.json has id2label with {keys}: name every output of the classifier, from 0 on, as in "
            '{"0": "no", "1": "yes"}'
        )
    names = [str(named[str(i)]) for i in range(len(named))]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(
            f"{directory}: config.json has id2label with {twice[0]!r} twice: give every output its own name"
        )
    return tuple(names)


def write(
    model: Any, directory: str | Path, kind: str = "mlm", *, ids: dict[str, int], labels: Iterable[str] = ()
) -> str:
    """Write config.json and model.safetensors; returns the name of the architecture.

    `ids` are those of the tokenizer's pad, cls, sep and mask. InputError, before anything is written, if no
    architecture of the format computes what this model does.
    """
    encoder: Encoder = model if kind == "encoder" else model.encoder
    config = encoder.config
    vocab = encoder.vocab
    form = format_for(config, kind)
    offset = ids["pad"] + 1 if form.offset else 0
    names = list(labels)
    plain = plain_of(form, config, kind, vocab, ids) | (
        {"id2label": {str(i): name for i, name in enumerate(names)}, "label2id": {n: i for i, n in enumerate(names)}}
        if names
        else {}
    )
    leaves = {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(model)}
    tensors: dict[str, np.ndarray] = {}
    table = weights(form, config, kind, vocab, offset)
    left = leaves.keys() - {name for weight in table for name in weight.ours.split()}
    if left:
        raise InputError(
            f"{form.family}, the transformers format of this encoder, has no weights named {', '.join(sorted(left))}: "
            "export a model without parameters of your own"
        )
    for weight in table:
        parts = [np.asarray(jax.device_get(leaves[name])) for name in weight.ours.split()]
        ours = parts[0] if len(parts) == 1 else np.stack(parts, axis=1)
        for number in range(config.layers) if weight.layered else [None]:
            one = weight.split(ours if number is None else ours[number])
            for name, tensor in zip(weight.theirs, one, strict=True):
                # Safetensors writes the memory of a transposed array as if it were not, without a word.
                tensors[name.format(number)] = np.ascontiguousarray(tensor)
    prefix = "" if kind == "encoder" else form.prefix
    if not config.token_types and not form.rotary:
        tensors[f"{prefix}embeddings.token_type_embeddings.weight"] = np.zeros((1, config.width), np.float32)
    if kind == "mlm" and not config.tied and form not in (ESM, MODERN):  # a second name that transformers asks for
        tensors[f"{form.head}bias"] = tensors[f"{form.head}decoder.bias"]
    if form is ESM:  # what transformers would call missing: the frequencies, and a head that no masked LM uses
        size = config.width // config.heads
        turns = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
        tensors[f"{prefix}rotary_embeddings.inv_freq"] = 1 / np.float32(config.rope_base) ** turns
        for name, shape in (("weight", (1, config.layers * config.heads)), ("bias", (1,))):
            tensors[f"{prefix}contact_head.regression.{name}"] = np.zeros(shape, np.float32)
    if form is MODERN:  # a first block without a norm has no weights of one
        tensors = {name: value for name, value in tensors.items() if "layers.0.attn_norm" not in name}
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(plain, indent=2) + "\n")
    file = directory / "model.safetensors"
    safetensors.numpy.save_file(tensors, file, metadata={"format": "pt"})
    # The library lets the owner alone read it, whatever the umask, which config.json has been written by.
    file.chmod((directory / "config.json").stat().st_mode & 0o777)
    return plain["architectures"][0]


def _abstract(config: EncoderConfig, kind: str, vocab: int, classes: int) -> Any:
    return jax.eval_shape(lambda key: with_head(kind, Encoder(config, vocab, key), classes, key), make_key(0))


def _name(path: tuple) -> str:
    names = [str(getattr(part, "name", getattr(part, "key", part))) for part in path]
    return ".".join(name for name in names if name not in ("value", "raw_value"))


def _placed(array: np.ndarray, like: Any) -> jax.Array:
    if without_mesh():
        return jnp.asarray(array)
    spec = getattr(like.sharding, "spec", None) if like.sharding is not None else None
    return jax.device_put(array, NamedSharding(jax.sharding.get_mesh(), PartitionSpec() if spec is None else spec))


def _shape(leaves: dict[str, Any], weight: Weight) -> tuple[int, ...]:
    """The shape of ours that `split` takes: of one layer, two parameters stacked."""
    names = weight.ours.split()
    shape = leaves[names[0]].shape[1:] if weight.layered else leaves[names[0]].shape
    return shape if len(names) == 1 else (len(names), *shape)


def _check(
    table: list[Weight], abstract: Any, tensors: Tensors, form: Format, config: EncoderConfig, directory: Path
) -> tuple[str, ...]:
    """Compare names and shapes before anything is read; the names that are known and not used."""
    leaves = {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)}
    wanted: dict[str, tuple[int, ...]] = {}
    for weight in table:
        blank = np.broadcast_to(np.float32(0), _shape(leaves, weight))
        for name, part in zip(weight.theirs, weight.split(blank), strict=True):
            for number in range(config.layers) if weight.layered else [0]:
                wanted[name.format(number)] = part.shape
    if not config.first_norm:
        wanted = {name: shape for name, shape in wanted.items() if "layers.0.attn_norm" not in name}
    have = tensors.shapes
    faults = [f"{name} is missing" for name in wanted if name not in have]
    unused = []
    for name in have:
        if name in wanted:
            if have[name] != wanted[name]:
                faults.append(f"{name} is {list(have[name])}, config.json says {list(wanted[name])}")
        elif _UNUSED.search(name) or (form.pre and _DEAD.search(name)) or _is_twin(name, config, tensors, table):
            unused.append(name)
        else:
            faults.append(f"{name} is not known")
    if faults:
        _same_prefix(list(wanted), list(have), form, directory)
        more = f"; and {len(faults) - MOST_FAULTS:,} more" if len(faults) > MOST_FAULTS else ""
        raise InputError(
            f"the weights in {directory} are not those of the {form.family} in its config.json: "
            f"{'; '.join(faults[:MOST_FAULTS])}{more}"
        )
    return tuple(unused)


def _same_prefix(wanted: list[str], have: list[str], form: Format, directory: Path) -> None:
    """Refuse weights of which most have a prefix too many or too few: one cause, not a fault of each."""
    if prefix := _prefix(wanted, have):
        raise InputError(
            f"the weights in {directory} are called {prefix}NAME, as a wrapped model calls them (DataParallel, "
            f"torch.compile, Lightning): save the model inside (model.module.save_pretrained), or take {prefix} off "
            "every name"
        )
    if prefix := _prefix(have, wanted):
        raise InputError(
            f"the weights in {directory} lack the prefix {prefix} of the architecture in config.json: for a bare "
            f'encoder write "architectures": ["{form.family}{HEADS["encoder"]}"] there, else put {prefix} before names'
        )


def _prefix(short: list[str], long: list[str]) -> str:
    """What stands before most of the short names in the long ones; an empty string where nothing does.

    >>> _prefix(["a.x", "a.y", "b"], ["module.a.x", "module.a.y", "c"]), _prefix(["x"], ["x"])
    ('module.', '')
    """
    found = Counter(other.removesuffix(name) for name in short for other in long if other.endswith("." + name))
    [(prefix, count)] = found.most_common(1) or [("", 0)]
    return prefix if 2 * count > len(short) else ""


def _is_twin(name: str, config: EncoderConfig, tensors: Tensors, table: list[Weight]) -> bool:
    """A second name of a weight of the masked-LM head, as .bin files and untied checkpoints carry."""
    if not re.fullmatch(r"(cls\.predictions\.|lm_head\.)(decoder\.(weight|bias)|bias)|decoder\.weight", name):
        return False
    ours = "bias" if name.endswith("bias") else "encoder.embedding"
    first = next((weight.theirs[0] for weight in table if weight.ours == ours), None)
    if first is None or first not in tensors.shapes:
        return False
    if config.tied and not np.array_equal(tensors.read(name), tensors.read(first)):
        raise InputError(
            f"{tensors.directory}: config.json ties {name} to {first}, which differs: set tie_word_embeddings to false"
        )
    return True


def _joined(weight: Weight, abstract: Any, tensors: Tensors, config: EncoderConfig) -> Iterator[tuple[str, np.ndarray]]:
    """Our arrays of one row of the table, layers stacked."""
    names = weight.ours.split()
    if not weight.layered:
        yield names[0], np.ascontiguousarray(weight.join([tensors.read(name) for name in weight.theirs]))
        return
    leaves = {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)}
    # A first block without a norm has none to read: ones and zeros, as a new one has.
    stacked = [np.full(leaves[name].shape, float(not name.endswith("bias")), np.float32) for name in names]
    for number in range(config.layers):
        if number == 0 and not config.first_norm and "blocks.attention_norm" in names[0]:
            continue
        joined = weight.join([tensors.read(name.format(number)) for name in weight.theirs])
        for array, part in zip(stacked, joined if len(names) > 1 else [joined], strict=True):
            array[number] = part
    yield from zip(names, stacked, strict=True)
