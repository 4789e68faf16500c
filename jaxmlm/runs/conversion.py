"""Checkpoints written to, and validated in, the `transformers` format."""

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxmlm import hub
from jaxmlm.data.hf_tokenizer import exported_files
from jaxmlm.directories import expanded
from jaxmlm.errors import InputError
from jaxmlm.models import interchange
from jaxmlm.models.formats import format_for
from jaxmlm.parallel import make_mesh
from jaxmlm.runs.loading import from_transformers, load, longest_input
from jaxmlm.runs.model_card import Published, card
from jaxmlm.runs.publishing import check_push, push, write_sentence_transformer
from jaxmlm.runs.sha256sums import write_sums


@dataclass(frozen=True)
class Export:
    """What an export writes beside the model, and where it is sent."""

    sentence_transformers: bool = False
    """Write what SentenceTransformer(DIR) reads too: its vectors are the means over the tokens, as those of embed."""
    push: str | None = None
    """Repository of the Hugging Face Hub to upload the directory to, as org/name; it is made if it is not there."""
    private: bool = False
    """Make a new repository private."""
    license: str | None = None
    """License that the model card names, as apache-2.0."""


def export(checkpoint: str | Path, directory: str | Path | None, options: Export = Export()) -> dict[str, Any]:
    """Write a checkpoint in the `transformers` format: weights, config, tokenizer and a model card.

    Args:
        checkpoint: what `load` takes.
        directory: a new directory; None: only with `options.push`, which alone keeps what is written.
        options: what is written beside, and where it is sent.

    Returns:
        {"directory": where it was written, "architecture": the class of `transformers` that reads it, "rows": []}, and
        "pushed", the address of the repository.

    Raises:
        InputError: the directory is there already, or the format has no architecture or no tokenizer that computes
            the same, or the Hub knows no login; nothing is written then.

    Examples:
        export("runs/rate-0.40", "exported")["architecture"]  # "RobertaPreLayerNormForMaskedLM"

    """
    if directory is None:
        if options.push is None:
            raise InputError("export needs a new directory, or a repository to push to: name one")
        with tempfile.TemporaryDirectory(prefix="jaxmlm-export-") as parent:
            return {**_export(checkpoint, Path(parent) / "model", options, "run the command again"), "directory": None}
    directory = expanded(directory)
    if directory.is_symlink() or (directory.exists() and (not directory.is_dir() or any(directory.iterdir()))):
        raise InputError(f"{directory} is there already: name a new directory")
    if directory.resolve() == Path.cwd():
        raise InputError(f"{directory} is the current directory, which an export would replace: name a new one")
    upload = shlex.join(["hf", "upload", str(options.push).removeprefix(hub.PREFIX), str(directory)])
    return _export(
        checkpoint, directory, options, f"{directory} is written: {upload}, or delete it and run the command again"
    )


def _export(checkpoint: str | Path, directory: Path, options: Export, again: str) -> dict[str, Any]:
    """`export` into a directory that is not there; `again`: what to do when an upload breaks."""
    repository = None if options.push is None else check_push(options.push)
    checkpoint = hub.local(checkpoint)
    with jax.set_mesh(make_mesh(devices=jax.devices()[:1])):
        loaded = load(checkpoint)
    t = loaded.tokenizer
    c = loaded.config
    format_for(c, loaded.kind)
    files = exported_files(t, longest_input(c), loaded.has_types)
    ids = {"pad": t.pad_id, "cls": t.cls_id, "sep": t.sep_id, "mask": t.mask_id}
    labels = loaded.labels if loaded.kind in ("classify", "tokens") else ()
    with _complete_or_absent(directory) as new:
        architecture = interchange.write(loaded.model, new, loaded.kind, ids=ids, labels=labels)
        for name, content in files.items():
            (new / name).write_bytes(content)
        if options.sentence_transformers:
            write_sentence_transformer(new, c.width, longest_input(c))
        about = {**loaded.about, "kind": loaded.kind}
        text = card(about, checkpoint, architecture, Published(repository, options.license))
        (new / "README.md").write_text(text, encoding="utf-8")
        write_sums(new)
    written = {"directory": str(directory), "architecture": architecture, "rows": []}
    return written if repository is None else {**written, "pushed": push(directory, repository, options.private, again)}


@contextmanager
def _complete_or_absent(directory: Path) -> Iterator[Path]:
    """A new directory to write into, which is renamed to this one when all is written: a failure leaves nothing."""
    directory = directory.absolute()
    new = directory.with_name(f".{directory.name}.jaxmlm-new")  # a name that no directory of a user's has
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        new.rename(directory)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def check_import(directory: str | Path, to: str | Path | None = None) -> dict[str, Any]:
    """Validate a directory of the `transformers` format, and copy it if `to` is given.

    Args:
        directory: the directory, or the name of a model on the Hub (hf:org/name).
        to: a new directory; None: it is not copied.

    Returns:
        {"directory", "kind": the head, "architecture", "unused": names of weights, "notes", "rows": []}.

    Raises:
        InputError: the model cannot be read, or `to` is there already.

    """
    copy = None if to is None else expanded(to)
    if copy is not None and os.path.lexists(copy):
        raise InputError(f"{to} is there already: name a new directory")
    source = hub.local(directory)
    if copy is not None and copy.resolve().is_relative_to(Path(source).resolve()):
        raise InputError(f"{to} lies in {directory}, which would be copied into itself: name a directory elsewhere")
    with jax.set_mesh(make_mesh(devices=jax.devices()[:1])):
        loaded = from_transformers(source)
    if copy is not None:
        with _complete_or_absent(copy) as new:
            shutil.copytree(source, new, dirs_exist_ok=True, ignore_dangling_symlinks=True)
    return {"directory": str(copy or directory), "kind": loaded.kind, **loaded.about, "rows": []}
