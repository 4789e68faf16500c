"""Models read back from a run, a checkpoint or a `transformers` directory, and written as one."""

import hashlib
import shutil
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmlm import hub
from jaxmlm.data import Tokenizer
from jaxmlm.data.hf_tokenizer import HfTokenizer, open_tokenizer
from jaxmlm.errors import InputError
from jaxmlm.fields import describe
from jaxmlm.json_files import with_checksum, write_json
from jaxmlm.models import Encoder, EncoderConfig, interchange, with_head
from jaxmlm.parallel import abstract, hosts
from jaxmlm.rng import make_key
from jaxmlm.runs.checkpoint_advice import not_a_checkpoint
from jaxmlm.runs.sha256sums import changed
from jaxmlm.runs.workdir import provenance, read_metadata, step_of
from jaxmlm.training import Checkpoints, TrainState

MAX_INPUT = 8192
"""Tokens of the longest input of an encoder whose positions set no limit."""


def longest_input(config: EncoderConfig) -> int:
    """Tokens of the longest input that an encoder reads."""
    return config.max_positions if config.positions == "learned" else MAX_INPUT


class LoadedModel(NamedTuple):
    """A model read back: itself (`kind` is what its head is for), its tokenizer, its configuration, its directory.

    `kind` is "mlm", or for a directory of the transformers format that of `interchange.read`, as are `labels`. `about`
    is what a run's run.json says, or which architecture was read.
    """

    model: Any
    tokenizer: Tokenizer
    config: EncoderConfig
    directory: Path
    kind: str
    labels: tuple[str, ...]
    about: dict[str, Any]

    @property
    def encoder(self) -> Encoder:
        """The encoder without its head."""
        return self.model if self.kind == "encoder" else self.model.encoder

    @property
    def has_types(self) -> bool:
        """Whether the second text of a pair has its own token type; in a `transformers` directory, by its tokenizer."""
        if self.config.token_types > 1 and "architecture" in self.about and isinstance(self.tokenizer, HfTokenizer):
            return self.tokenizer.types
        return self.config.token_types > 1


def load(path: str | Path, like: EncoderConfig | None = None) -> LoadedModel:
    """Load a model and its tokenizer onto the current mesh.

    Args:
        path: the directory of a run (its newest complete checkpoint), of one of its steps, or one in the `transformers`
            format, or the name of one on the Hub: hf:org/name, or hf:org/name@revision.
        like: the dropout, number type and rematerialisation to train it with; None: those that it had.

    Raises:
        InputError: there is no such model, or its tokenizer is another one.

    """
    directory, step = step_of(hub.local(path))
    if not (directory / "run.json").is_file():
        if (directory / "config.json").is_file():
            return from_transformers(directory, like)
        raise not_a_checkpoint(directory)
    about = read_metadata(directory / "run.json")
    try:
        config = EncoderConfig(**{name: value for name, value in about["config"]["model"].items() if name != "class"})
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{directory / 'run.json'}: config.model is not that of an encoder ({error})") from error
    config = config.with_runtime_fields_of(like) if like else config
    tokenizer = _tokenizer(directory, about)
    kind = about.get("kind", "mlm")
    labels = tuple(about.get("labels", ()))

    def init(key: jax.Array) -> Any:
        return with_head(kind, Encoder(config, about.get("vocab", tokenizer.size), key), len(labels), key)

    if step is not None and "loop" in about["config"]:
        about["config"]["loop"]["steps"] = step  # as its model card says
    checkpoints = Checkpoints(directory / "checkpoints", read=True)
    model = checkpoints.model(abstract(init, make_key(0)), step)
    checkpoints.close()
    return LoadedModel(model, tokenizer, config, directory, kind, labels, about)


def _tokenizer(directory: Path, about: dict[str, Any]) -> Tokenizer:
    """The tokenizer of a run's directory; InputError if it is not the one that its model has learned with."""
    tokenizer = open_tokenizer(directory)
    vocab = about.get("vocab", tokenizer.size)
    # Runs of earlier versions say only how many pieces there are.
    if about.get("tokenizer", now := sha256_of(tokenizer)) != now or tokenizer.size > vocab:
        raise InputError(
            f"{directory}: the tokenizer there ({tokenizer.size:,} pieces) is not the one of this model ({vocab:,}): "
            "put back the tokenizer file that the run wrote"
        )
    return tokenizer


def sha256_of(tokenizer: Tokenizer) -> str:
    """The SHA-256 of a tokenizer's file, by which run.json knows it."""
    return hashlib.sha256(tokenizer.model).hexdigest()


def save(found: LoadedModel) -> None:
    """Write a model as a directory that `load` reads, in the place of what was there; all hosts write its arrays.

    `about` must be plain JSON values. A kill leaves the old directory or the new one; between two renames the old one
    has another name, which `put_back` takes from it.
    """
    directory = found.directory
    new = found.directory.with_name(found.directory.name + ".new")
    first = hosts.is_primary()
    with hosts.primary_first():
        if first:
            put_back(directory)
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
    plain = {
        "identity": {"kind": found.kind, **found.about},
        "config": {"model": describe(found.config)},
        "vocab": found.encoder.vocab,
        "kind": found.kind,
        "labels": list(found.labels),
        **found.about,
        "tokenizer": sha256_of(found.tokenizer),
    }
    with closing(Checkpoints(new / "checkpoints")) as checkpoints:
        checkpoints.save(TrainState(jnp.zeros((), jnp.int32), found.model, ()))
    with hosts.primary_first():
        if first:
            found.tokenizer.save(new)
            write_json(new / "run.json", with_checksum({**plain, **provenance()}))
            old = _old(directory)
            shutil.rmtree(old, ignore_errors=True)
            if directory.exists():
                directory.rename(old)
            new.rename(directory)
            shutil.rmtree(old, ignore_errors=True)


def put_back(directory: Path) -> None:
    """Restore the previous model if `save` was killed while putting a new one in its place."""
    if not directory.exists() and _old(directory).exists():
        _old(directory).rename(directory)


def _old(directory: Path) -> Path:
    return directory.with_name(directory.name + ".old")


def from_transformers(directory: str | Path, like: EncoderConfig | None = None) -> LoadedModel:
    """The model and the tokenizer in a directory of the transformers format, on the current mesh."""
    directory = hub.local(directory)
    if not (directory / "config.json").is_file():
        raise not_a_checkpoint(directory)
    if (other := changed(directory)) and hosts.is_primary():
        print(
            f"note: {', '.join(other)} in {directory}: not as it was exported (SHA256SUMS there): damaged, unless it "
            "was changed on purpose",
            file=sys.stderr,
            flush=True,
        )
    found = interchange.read(directory, like)
    tokenizer = HfTokenizer(directory)
    if tokenizer.size > found.vocab:
        more = [piece for piece in tokenizer.pieces(range(found.vocab, tokenizer.size)) if piece]
        raise InputError(
            f"{directory}: the tokenizer has {tokenizer.size:,} pieces and the model {found.vocab:,}, which has no "
            f"rows for {', '.join(more[:5])}{', ...' if more[5:] else ''}: resize it (in transformers, "
            "model.resize_token_embeddings and save_pretrained), or take them out of the added_tokens of tokenizer.json"
        )
    about = {"architecture": found.architecture, "unused": list(found.unused), "notes": tokenizer.notes}
    return LoadedModel(found.model, tokenizer, found.config, directory, found.kind, found.labels, about)
