"""Documents out of TensorFlow Datasets: read without TensorFlow where they are prepared as array_record."""

import importlib.util
import os
import re
import socket
import urllib.parse
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmlm.data.sources import Document, Group, TextSource
from jaxmlm.errors import InputError, brief
from jaxmlm.wording import hint, install_command

PREFIX = "tfds:"
GROUP_EXAMPLES = 100_000
"""Examples are read in groups of so many, which machines can share among them."""


def opened(text: str, field: str) -> TextSource:
    """The documents of `tfds:NAME[/CONFIG][:VERSION][:SPLIT]` (the split is train if not given), and what they are.

    The data set is prepared first where it is not there yet, as array_record, below $TFDS_DATA_DIR
    (~/tensorflow_datasets). InputError says what is missing for it: a name, TensorFlow, a file to download.
    """
    asked = re.fullmatch(r"([^:]+)(:\d[\d.*]*)?(?::(.+))?", text.removeprefix(PREFIX))
    if asked is None:
        raise InputError(f"{text}: write tfds:NAME, as tfds:lm1b, tfds:wikipedia/20230601.en or tfds:lm1b:test")
    name = asked[1] + (asked[2] or "")
    split = asked[3] or "train"
    builder = _ready(name, split, text)
    features = dict(builder.info.features.items())
    if field not in features:
        raise InputError(
            f"{text}: no field {field!r}; there are {', '.join(sorted(features))}: name one as --data.field"
        )

    size = builder.info.splits[split].num_examples

    def texts(first: int, last: int) -> Iterator[Document]:
        for i, example in enumerate(_examples(builder, split, text, first, last), first):
            value = example[field]
            found = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            if not isinstance(found, str):
                raise InputError(f"{text}: the field {field!r} holds no text: name another as --data.field")
            yield Document(plain(found), i, 0, i + 1 - first)

    # Only array_record can be entered anywhere.
    each = GROUP_EXAMPLES if builder.info.file_format.value == "array_record" else max(size, 1)
    starts = range(0, size, each)
    groups = [Group(partial(texts, i, min(i + each, size)), min(each, size - i)) for i in starts]
    return TextSource(groups, [{"file": text, "version": str(builder.version), "documents": size}])


class Examples(NamedTuple):
    """The examples of a split as numpy gives them, text decoded; the names of each feature's classes, in order."""

    rows: list[dict[str, Any]]
    classes: dict[str, tuple[str, ...]]
    name: str


def examples(name: str, split: str) -> Examples:
    """A whole split of `NAME[/CONFIG]` in memory, prepared first as by `opened`; in the order that it was prepared in.

    That order is none of the data set's own: the library shuffles by a hash of each example's key.
    """
    text = f"{PREFIX}{name}:{split}"
    builder = _ready(name, split, text)
    found = _examples(builder, split, text, 0, builder.info.splits[split].num_examples)
    classes = {key: tuple(f.names) for key, f in builder.info.features.items() if getattr(f, "names", None)}
    return Examples([_decoded(example) for example in found], classes, f"{PREFIX}{name}:{builder.version}:{split}")


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _decoded(part) for key, part in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return [_decoded(part) for part in value] if isinstance(value, np.ndarray | list) else value


def plain(text: str) -> str:
    """The text without the marks of structure that wiki40b has.

    >>> plain("_START_ARTICLE_\\nA city\\n_START_PARAGRAPH_\\nIt lies_NEWLINE_there")
    'A city\\nIt lies\\nthere'
    """
    for mark in ("_START_ARTICLE_\n", "_START_SECTION_\n", "_START_PARAGRAPH_\n"):
        text = text.replace(mark, "")
    return text.replace("_NEWLINE_", "\n").strip()


def _ready(name: str, split: str, text: str) -> Any:
    """The builder of a data set that is prepared, if need be now, and has the split."""
    builder = _builder(name)
    if not builder.data_path.exists():
        _prepare(builder, name)
    if split.partition("[")[0] not in builder.info.splits:
        raise InputError(f"{text}: no split {split!r}; there are {', '.join(sorted(builder.info.splits))}")
    return builder


def _builder(name: str) -> Any:
    tfds = _library()
    where = {"data_dir": os.environ.get("TFDS_DATA_DIR"), "try_gcs": False}  # the library looks at its import only
    try:
        return tfds.builder(name, file_format="array_record", **where)
    except (tfds.core.DatasetNotFoundError, ImportError):
        raise InputError(f"no data set {name!r} in TensorFlow Datasets{hint(name, _names())}") from None
    except ValueError as error:
        if re.search("does not match the file formats|File format is already set", str(error)):  # there, in another one
            return tfds.builder(name, **where)
        raise InputError(f"{PREFIX}{name}: {brief(error)}") from error


def _names() -> list[str]:
    """The data sets that can be listed without TensorFlow, which the library's own list wants."""
    tfds = _library()
    packages = (path.name for root in tfds.__path__ for path in Path(root, "datasets").glob("[a-z]*"))
    return sorted({*packages, *tfds.core.registered.list_imported_builders()})


def _prepare(builder: Any, name: str) -> None:
    tfds = _library()
    manual = Path(builder._data_dir_root, "downloads", "manual")
    infos = (getattr(builder, "url_infos", None) or {}).items()
    try:
        for url, info in infos:
            if not (manual / info.filename).exists():  # asked here, where the library tries for minutes
                socket.getaddrinfo(urllib.parse.urlsplit(url).hostname, None)
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(manual)))
    except ImportError as error:
        command = install_command("tf") if "tensorflow" in str(error.name) else f"pip install {error.name}"
        raise InputError(
            f"{PREFIX}{name} is not in {builder._data_dir_root}, and preparing it needs {error.name}: "
            f"{command}, or copy the prepared directory there"
        ) from error
    except Exception as error:  # of the network, of checksums, of many libraries
        files = [f"{info.filename} (SHA-256 {info.checksum}) from {url}" for url, info in infos]
        raise InputError(
            f"{PREFIX}{name} cannot be prepared: {brief(error)}"
            + (f"; put into {manual}: {'; '.join(files[:4])}" if files else "")
        ) from error


def _examples(builder: Any, split: str, text: str, first: int, last: int) -> Iterator[Any]:
    if builder.info.file_format.value == "array_record":
        source = builder.as_data_source(split=split)
        for start in range(first, last, 256):
            yield from source.__getitems__(range(start, min(start + 256, last)))
        return
    if importlib.util.find_spec("tensorflow") is None:
        raise InputError(
            f"{text} is prepared as {builder.info.file_format.value}, which TensorFlow reads: "
            f"{install_command('tf')}, "
            'or prepare it with file_format="array_record"'
        )
    yield from _library().as_numpy(builder.as_dataset(split=split, shuffle_files=False))


def _library() -> Any:
    with warnings.catch_warnings():  # of modules that it imports
        warnings.simplefilter("ignore")
        import tensorflow_datasets as tfds
        import tensorflow_datasets.text  # noqa: F401  (its loop over all data sets stops before these without h5py)
    return tfds
