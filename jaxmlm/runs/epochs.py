"""How often a run reads its text, known before it is started."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from jaxmlm.data import Data
from jaxmlm.data import remote as cloud
from jaxmlm.data.files import File
from jaxmlm.data.hf_tokenizer import open_tokenizer
from jaxmlm.data.manifest import MANIFEST, read_manifest
from jaxmlm.data.opening import store_directory
from jaxmlm.data.registry import is_files
from jaxmlm.data.sources import documents, files
from jaxmlm.errors import InputError
from jaxmlm.parallel import hosts
from jaxmlm.synthetic import world

MANY = 100.0
"""More epochs than this are hardly meant."""
_FILES = 3
_CHARACTERS = 1 << 20
_DOCUMENTS = 300
"""What is read of a text to estimate its tokens: so many files, so much of each; so many of documents that are made."""
_GENERATED = 1.28
"""Tokens of a word of the generated world, which has few words."""


def size(run: Any) -> int | None:
    """Estimate the tokens of a `Run`'s text; None where it cannot be read from here, as one in a bucket."""
    # The vocabulary of an encoder that a run starts from is like those that were published.
    data = replace(run.data, vocab=30_000) if run.init else run.data
    tokens = tokens_in(data, Path(run.workdir))
    return hosts.broadcast_from_primary(tokens)


def check(run: Any, tokens: int, have: int | None, flag: str = "--most-epochs") -> float | None:
    """How often a `Run` reads its text, about.

    Args:
        run: the run.
        tokens: of all its steps.
        have: of the text; None if that is not known.
        flag: how the command line asks for more than its `most_epochs`.

    Raises:
        InputError: it is more often than `most_epochs`.

    """
    found = tokens / have if have else None
    if found is not None and run.most_epochs is not None and found > run.most_epochs:
        raise InputError(
            f"the text has about {have:,} tokens, and the steps would read it {found:,.0f} times, more than "
            f"most_epochs {run.most_epochs:g}: give more text or fewer steps, or ask for it with {flag} "
            f"{10 ** math.ceil(math.log10(found)):.0f}"
        )
    return found


def most_steps(run: Any) -> int | None:
    """The steps in which a `Run` reads its text `most_epochs` times; None where there is no such limit, or no size."""
    have = size(run)
    if have is None or run.most_epochs is None:
        return None
    return max(1, int(run.most_epochs * have / (run.loop.batch * run.data.length)))


def tokens_in(data: Data, workdir: Path) -> int | None:
    """The tokens to train on in a text: those of its store if it is there, else an estimate by a part of the text."""
    directory = store_directory(data, workdir)
    if (directory / MANIFEST).is_file():
        return read_manifest(directory)["train"]["tokens"]
    parts = [_estimate(part, data) for part in data.texts]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        return None
    if data.weights:  # the mix ends when one of its texts does
        total = min(tokens * sum(data.weights) / weight for tokens, weight in zip(found, data.weights, strict=True))
    else:
        total = sum(found)
    return round(total * (1 - data.valid))


def _estimate(text: str, data: Data) -> float | None:
    """The tokens of one text; None if it is not to be read here."""
    if text.startswith("sample:"):
        count = text.removeprefix("sample:")
        if not count.isdecimal() or int(count) < 1:
            return None  # which is refused where it is opened
        some = [len(document.split()) for document in islice(world.documents(0, int(count)), _DOCUMENTS)]
        return _GENERATED * sum(some) * int(count) / len(some)
    if cloud.remote(text) or not is_files(text):  # which would be fetched for it
        return None
    try:
        paths = files(text)
    except InputError:
        return None
    return _of_files(paths, data)


def _of_files(paths: Sequence[File], data: Data) -> float:
    """By the beginnings of some files: their tokens for each byte on disk, times the bytes of all."""
    some = [paths[i * len(paths) // min(_FILES, len(paths))] for i in range(min(_FILES, len(paths)))]
    tokens = read = 0.0
    for path in some:
        size = path.stat().st_size
        texts = []
        for document in _first(documents([path], data.layout, data.field)):
            texts.append(document.text)
            at = document.read
        tokens = tokens + _tokens(texts, data)
        read = read + (min(at, size) if texts else size)
    return tokens * sum(path.stat().st_size for path in paths) / max(read, 1.0)


def _first(found: Iterable) -> Iterator:
    size = 0
    for document in found:
        yield document
        size += len(document.text)
        if size > _CHARACTERS:
            return


def _tokens(texts: Sequence[str], data: Data) -> float:
    """The tokens of these documents, each with its separator: by the ready tokenizer, or as English has them."""
    if data.tokenizer is not None:
        return float(sum(len(ids) + 1 for ids in open_tokenizer(data.tokenizer).encode_batch(list(texts))))
    # A larger vocabulary has longer pieces: 3.4 characters of 4,096, 4.5 of 32,000.
    characters = max(0.55 * math.log(data.vocab) - 1.2, 1.0)
    return float(sum(max(len(text) / characters, len(text.split())) + 1 for text in texts))
