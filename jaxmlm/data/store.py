"""A token store: uint16 or uint32 shards and a manifest that says what is in them and proves it.

    DIR/manifest.json  tokenizer.model  train-00000.bin  train-00000.docs ...  valid-00000.bin  valid-00000.docs ...
    with phrases also  phrases.parquet  train-00000.units ...  valid-00000.units ...

A split is one stream of tokens, each document followed by a separator. It is memory-mapped, so a corpus larger
than memory costs nothing.
"""

import json
import mmap
import os
import resource
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from jaxmlm.data import remote as cloud
from jaxmlm.data.config import Data
from jaxmlm.data.hf_tokenizer import open_tokenizer
from jaxmlm.data.sources import sha256
from jaxmlm.errors import InputError
from jaxmlm.json_files import write_json

MANIFEST = "manifest.json"
FILES = 1 << 16  # open at once, where the system lets us
DOCUMENT = np.dtype([("hash", "<u8"), ("number", "<u8"), ("file", "<u4"), ("tokens", "<u4")])
"""A document in a store: 64 bits of its text's SHA-1, its id (the `number`-th document of the `file`-th of the
manifest's "source") and its tokens, the separator counted."""


class Store:
    """A token store opened for reading: `tokenizer`, `manifest`, `tokens(split)`; one in a bucket is copied first."""

    def __init__(self, folder: str | Path):
        self.folder = cloud.copy_of(str(folder)) if cloud.remote(folder) else Path(folder)
        if cloud.remote(folder) and not cloud.pull(str(folder), self.folder, MANIFEST):
            raise InputError(f"{folder} holds no token store (no manifest.json): make one with jaxmlm prepare")
        path = self.folder / MANIFEST
        if not path.is_file():
            raise InputError(f"{self.folder} holds no token store (no manifest.json): make one with jaxmlm prepare")
        self.manifest = json.loads(path.read_text())
        files = [
            file for file in (self.folder / name for name in ("tokenizer.model", "tokenizer.json")) if file.is_file()
        ]
        if not files or sha256(files[0]) != self.manifest["tokenizer_sha256"]:
            name = files[0].name if files else "tokenizer.model"
            raise InputError(f"{self.folder}: {name} is not the one that wrote this store: prepare it again")
        self.tokenizer = open_tokenizer(self.folder)

    def check(self, data: Data) -> None:
        """Refuse a store that was made from another text or with other settings."""
        have, want = self.manifest["data"], data.content()
        for key in [*want, *have]:
            if have.get(key) != want.get(key):
                then, now = (repr(found[key]) if key in found else "as usual" for found in (have, want))
                raise InputError(
                    f"the token store {self.folder} was made with data.{key} {then}, this run wants {now}: name "
                    "another --data.store or --workdir"
                )

    def tokens(self, split: str) -> "np.ndarray | Stream":
        """The stream of a split, memory-mapped."""
        return self._stream(self.shards(split), np.dtype(self.manifest["dtype"]))

    def units(self, split: str) -> "np.ndarray | Stream | None":
        """Beside each token a uint8: bit 0, a word starts here, bit 1, a unit (a phrase or a lone word) does.

        Memory-mapped like the tokens; None in a store that was prepared without phrases.
        """
        if "phrases" not in self.manifest:
            return None
        return self._stream([(units_of(name), size) for name, size in self.shards(split)], np.dtype(np.uint8))

    def documents(self, split: str) -> np.ndarray:
        """What is known of each document of a split, in order: the fields of `DOCUMENT`."""
        parts = [
            (self.folder / documents_of(name), shard)
            for (name, _), shard in zip(self.shards(split), self.manifest[split]["shards"], strict=True)
        ]
        if lacking := [path for path, shard in parts if "documents" not in shard or not path.is_file()]:
            raise InputError(
                f"the token store {self.folder} has no list of its documents ({lacking[0].name}), which this "
                "data.format needs: delete the store and prepare it again"
            )
        lists = [whole_list(path, shard) for path, shard in parts]
        found = [entries for entries in lists if entries is not None]
        if len(found) < len(lists):
            path = next(path for (path, _), entries in zip(parts, lists, strict=True) if entries is None)
            raise InputError(f"{path} is not whole: delete the store and prepare it again")
        return np.concatenate(found)

    def shards(self, split: str) -> list[tuple[str, int]]:
        """Name and tokens of each shard of a split."""
        return [(shard["file"], shard["tokens"]) for shard in self.manifest[split]["shards"]]

    @property
    def cut(self) -> bool:
        """Whether a document is cut, its beginning in the train split and its end in the other one."""
        tokens = self.tokens("train")
        return bool(tokens[np.array([len(tokens) - 1])][0] != self.tokenizer.sep_id)

    def chunks(self, split: str, size: int = 1 << 23) -> Iterator[tuple[str, np.ndarray]]:
        """The split's tokens in order, as (shard, tokens): about `size` tokens, always whole documents."""
        for name, length in self.shards(split):
            tokens = self._map(name, np.dtype(self.manifest["dtype"]), length)
            start = 0
            while start < length:
                end = start
                while end < length:  # as often as a document is longer than a chunk
                    fresh, end = end, min(end + size, length)
                    ends = np.flatnonzero(tokens[fresh:end] == self.tokenizer.sep_id)
                    if len(ends) and end < length:
                        end = fresh + int(ends[-1]) + 1
                        break
                yield name, tokens[start:end]
                start = end

    def add_units(self, make: Callable[[Path], dict]) -> None:
        """Add the phrase list and the unit files that `make` writes into a folder; it returns what the manifest says.

        They take their places when all is written, the manifest last, so that it names whole files only.
        """
        part = self.folder / "units.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            entry = make(part)
            files = sorted(part.iterdir())
            entry["files"] = [{"file": file.name, "sha256": sha256(file)} for file in files]
            manifest = {**self.manifest, "phrases": entry}
            write_json(part / MANIFEST, manifest)
            for name in [*(file.name for file in files), MANIFEST]:
                os.replace(part / name, self.folder / name)
            self.manifest = manifest
        finally:
            shutil.rmtree(part)

    def _stream(self, files: list[tuple[str, int]], dtype: np.dtype) -> "np.ndarray | Stream":
        _allow_many_files()
        parts = [_at_random(self._map(name, dtype, size)) for name, size in files]
        return parts[0] if len(parts) == 1 else Stream(parts)

    def _map(self, name: str, dtype: np.dtype, size: int) -> np.memmap:
        path = self.folder / name
        if not path.is_file() or path.stat().st_size != size * dtype.itemsize:
            raise InputError(f"{path} is missing or not whole: delete the store and prepare it again")
        try:
            return np.memmap(path, dtype, mode="r")
        except OSError as error:
            raise InputError(
                f"{path} cannot be opened ({error.strerror}): if these are too many files, allow more with ulimit -n"
            ) from error


def _allow_many_files() -> None:
    """Each mapped shard is an open file, and the usual 1,024 are a limit that a process may raise by itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(ValueError, OSError):  # a system with a limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _at_random(mapped: np.memmap) -> np.memmap:
    """Tell the system that rows are read in any order: else it reads 128 KiB ahead of each, of which none is used."""
    if hasattr(mmap, "MADV_RANDOM"):
        mapped._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
    return mapped


def units_of(shard: str) -> str:
    """The name of the file of unit bits beside a shard.

    >>> units_of("train-00000.bin")
    'train-00000.units'
    """
    return shard.removesuffix(".bin") + ".units"


def documents_of(shard: str) -> str:
    """The name of the list of documents beside a shard.

    >>> documents_of("train-00000.bin")
    'train-00000.docs'
    """
    return shard.removesuffix(".bin") + ".docs"


def whole_list(path: Path, shard: dict[str, Any]) -> np.ndarray | None:
    """The list of a shard's documents; None if it is not what the manifest says of the shard."""
    if not path.is_file() or path.stat().st_size != shard["documents"] * DOCUMENT.itemsize:
        return None
    entries = np.fromfile(path, DOCUMENT)
    return entries if entries["tokens"].sum(dtype=np.int64) == shard["tokens"] else None


class Stream:
    """Several shards as one array of tokens, of which only what is asked for is read."""

    def __init__(self, parts: Sequence[np.ndarray]):
        # Plain views: a slice of a memmap costs ten times as much as one of an array.
        self.parts, self.starts = [np.asarray(part) for part in parts], np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        """The tokens at these places, in the shape of `index`."""
        flat = index.ravel()
        out, which = np.empty(flat.shape, self.parts[0].dtype), np.searchsorted(self.starts, flat, "right") - 1
        order = np.argsort(which, kind="stable")
        shards, first = np.unique(which[order], return_index=True)
        for shard, here in zip(shards, np.split(order, first[1:]), strict=True):
            out[here] = self.parts[shard][flat[here] - self.starts[shard]]
        return out.reshape(index.shape)

    def runs(self, starts: np.ndarray, width: int) -> np.ndarray:
        """The `width` tokens from each of these places on, [B, width]."""
        out = np.empty((len(starts), width), self.parts[0].dtype)
        which = np.searchsorted(self.starts, starts, "right") - 1
        for row, start, shard, at in zip(
            out, starts.tolist(), which.tolist(), (starts - self.starts[which]).tolist(), strict=True
        ):
            part = self.parts[shard][at : at + width]
            row[: len(part)] = part
            if len(part) < width:
                row[len(part) :] = self[np.arange(start + len(part), start + width)]
        return out
