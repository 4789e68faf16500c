"""A token store: uint16 or uint32 shards and a manifest that says what is in them and proves it.

    DIR/manifest.json  tokenizer.model  train-00000.bin  train-00000.docs ...  valid-00000.bin  valid-00000.docs ...
    with phrases also  phrases.parquet  train-00000.units ...  valid-00000.units ...

A split is one stream of tokens, each document followed by a separator. It is memory-mapped, so a corpus larger
than memory costs nothing.
"""

import hashlib
import mmap
import os
import resource
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jaxmlm.data import remote as cloud
from jaxmlm.data.config import Data
from jaxmlm.data.files import sha256
from jaxmlm.data.hf_tokenizer import open_tokenizer
from jaxmlm.data.manifest import (
    DOCUMENT,
    MANIFEST,
    SPLITS,
    UNITS,
    StoreFile,
    all_files,
    document_files,
    documents_of,
    phrases_file,
    read_manifest,
    token_files,
    tokenizer_files,
    unit_files,
    write_manifest,
)
from jaxmlm.data.tokenizer import Vocabulary
from jaxmlm.data.verification import cure, verify
from jaxmlm.directories import expanded
from jaxmlm.errors import InputError
from jaxmlm.locks import claim

FILES = 1 << 16  # open at once, where the system lets us


@runtime_checkable
class TokenSplits(Protocol):
    """Token ids in a "train" and a "valid" split: all that batches are made of. A `Store` has them on disk.

    Attributes:
        directory: where they are, for messages.

    """

    directory: Path

    @property
    def tokenizer(self) -> Vocabulary:
        """The vocabulary that the ids are of."""
        ...

    def tokens(self, split: str) -> "np.ndarray | Stream":
        """Return the ids of a split [T], each document followed by a separator."""
        ...

    def units(self, split: str) -> "np.ndarray | Stream | None":
        """Return a uint8 beside each token [T]: bit 0, a word starts here, bit 1, a phrase or a lone word does.

        None where nobody has looked for phrases.
        """
        ...

    def documents(self, split: str) -> np.ndarray:
        """Return what is known of each document, in order [N]; its field "tokens" counts the separator."""
        ...


class Store:
    """A token store on disk, opened for reading; one in a bucket is copied first. Its splits are `TokenSplits`.

    Every file is verified once before its first use: see `verification`.

    Args:
        directory: its directory, or the URL of one in a bucket.

    Attributes:
        directory: its directory on this machine.
        manifest: what `read_manifest` returns.
        tokenizer: the tokenizer that wrote it.

    Raises:
        InputError: there is none, its manifest is damaged, or the tokenizer is not the one that wrote it.

    """

    def __init__(self, directory: str | Path):
        self.directory = cloud.copy_of(str(directory)) if cloud.remote(directory) else expanded(directory)
        if cloud.remote(directory) and not cloud.pull(str(directory), self.directory, MANIFEST):
            raise InputError(f"{directory} holds no token store (no manifest.json): make one with jaxmlm prepare")
        if not (self.directory / MANIFEST).is_file():
            within = self.directory / "store"
            advice = f"give {within}" if (within / MANIFEST).is_file() else "make one with jaxmlm prepare"
            raise InputError(f"{self.directory} holds no token store (no manifest.json): {advice}")
        self.manifest = read_manifest(self.directory)
        files = tokenizer_files(self.manifest)
        for file in files:
            path = self.directory / file.name
            if not path.is_file() or path.is_symlink() or sha256(path) != file.sha256:
                raise InputError(f"{path} is not the one that wrote this store: {cure(self.directory)}")
        self.tokenizer = open_tokenizer(self.directory / files[0].name)
        if self.tokenizer.size != self.manifest["vocab"]:
            raise InputError(
                f"{self.directory}: the tokenizer has {self.tokenizer.size:,} tokens, and the manifest says "
                f"{self.manifest['vocab']:,}: {cure(self.directory)}"
            )

    def verify(self) -> None:
        """Read every file of the store and compare it with the manifest, whether or not that was done before.

        Raises:
            InputError: one is damaged; the message names it.

        """
        verify(self.directory, all_files(self.manifest), again=True)

    def check(self, data: Data) -> None:
        """Compare the store with a configuration.

        Raises:
            InputError: it was made from another text or with other settings.

        """
        have = self.manifest["data"]
        want = data.content()
        for key in [*want, *have]:
            if have.get(key) != want.get(key):
                then, now = (repr(found[key]) if key in found else "the default" for found in (have, want))
                raise InputError(
                    f"the token store {self.directory} was made with data.{key} {then}, but this run wants {now}: name "
                    "another --data.store or --workdir"
                )

    @property
    def tokens_sha256(self) -> str:
        """The SHA-256 of the SHA-256 of all shards, by which a run knows its text again."""
        sums = [file.sha256 for split in SPLITS for file in token_files(self.manifest, split)]
        return hashlib.sha256("".join(sums).encode()).hexdigest()

    def tokens(self, split: str) -> "np.ndarray | Stream":
        """Return the ids of a split [T], each document followed by a separator; memory-mapped."""
        return self._stream(token_files(self.manifest, split), np.dtype(self.manifest["dtype"]))

    def units(self, split: str) -> "np.ndarray | Stream | None":
        """Return a uint8 beside each token [T]: bit 0, a word starts here, bit 1, a phrase or a lone word does.

        Memory-mapped like the tokens; None in a store that was prepared without phrases.
        """
        if "phrases" not in self.manifest:
            return None
        return self._stream(unit_files(self.manifest, split), UNITS)

    def documents(self, split: str) -> np.ndarray:
        """Return what is known of each document of a split, in order [N]: the fields of `DOCUMENT`."""
        verify(self.directory, document_files(self.manifest, split))
        lists = []
        for shard in self.manifest[split]["shards"]:
            path = self.directory / documents_of(shard["file"])
            entries = read_document_list(path, shard)
            if entries is None:
                raise InputError(f"{path} does not fit the tokens of {shard['file']}: {cure(self.directory)}")
            lists.append(entries)
        return np.concatenate([np.zeros(0, DOCUMENT), *lists])

    def phrase_list(self) -> Path:
        """Return the file of the phrase list.

        Raises:
            InputError: the store was prepared without phrases, or the file is damaged.

        """
        if "phrases" not in self.manifest:
            raise InputError(
                f"the token store {self.directory} was prepared without phrases: run jaxmlm prepare with a masking "
                "that needs them, or name another --data.store"
            )
        file = phrases_file(self.manifest)
        verify(self.directory, [file])
        return self.directory / file.name

    def shards(self, split: str) -> list[tuple[str, int]]:
        """Return the name and the number of tokens of each shard of a split."""
        return [(shard["file"], shard["tokens"]) for shard in self.manifest[split]["shards"]]

    @property
    def cut(self) -> bool:
        """Whether a document is cut, its beginning in the train split and its end in the other one."""
        tokens = self.tokens("train")
        return bool(tokens[np.array([len(tokens) - 1])][0] != self.tokenizer.sep_id)

    def chunks(self, split: str, size: int = 1 << 23) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the tokens of a split in order, complete documents each time.

        Args:
            split: "train" or "valid".
            size: about so many tokens at a time; more where a document is longer.

        Yields:
            The name of a shard, and token ids of it.

        """
        dtype = np.dtype(self.manifest["dtype"])
        files = token_files(self.manifest, split)
        verify(self.directory, files)
        for file in files:
            tokens = self._map(file, dtype)
            length = len(tokens)
            start = 0
            while start < length:
                end = start
                while end < length:  # as often as a document is longer than a chunk
                    fresh = end
                    end = min(end + size, length)
                    ends = np.flatnonzero(tokens[fresh:end] == self.tokenizer.sep_id)
                    if len(ends) and end < length:
                        end = fresh + int(ends[-1]) + 1
                        break
                yield file.name, tokens[start:end]
                start = end

    def add_units(self, make: Callable[[Path], dict]) -> None:
        """Add a phrase list and the files of unit bits to the store.

        They take their places when all is written, the manifest last, so that it names complete files only.

        Args:
            make: writes the files into the directory that it is given, and returns what the manifest says of them.

        Raises:
            InputError: another process is writing to this store.

        """
        with claim(self.directory, "token store", beside=True):
            self._add_units(make)

    def _add_units(self, make: Callable[[Path], dict]) -> None:
        part = self.directory / "units.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            entry = make(part)
            files = sorted(part.iterdir())
            entry["files"] = [{"file": file.name, "sha256": sha256(file)} for file in files]
            manifest = {**self.manifest, "phrases": entry}
            write_manifest(part, manifest)
            for name in [*(file.name for file in files), MANIFEST]:
                os.replace(part / name, self.directory / name)
            self.manifest = manifest
        finally:
            shutil.rmtree(part)

    def _stream(self, files: list[StoreFile], dtype: np.dtype) -> "np.ndarray | Stream":
        verify(self.directory, files)
        if not files:
            return np.zeros(0, dtype)
        _allow_many_files()
        parts = [_at_random(self._map(file, dtype)) for file in files]
        return parts[0] if len(parts) == 1 else Stream(parts)

    def _map(self, file: StoreFile, dtype: np.dtype) -> np.memmap:
        path = self.directory / file.name
        try:
            return np.memmap(path, dtype, mode="r")
        except (OSError, ValueError) as error:  # ValueError: it became empty meanwhile
            why = getattr(error, "strerror", None) or error
            raise InputError(
                f"{path} cannot be opened ({why}): if these are too many files, allow more with ulimit -n"
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


def read_document_list(path: Path, shard: dict[str, Any]) -> np.ndarray | None:
    """The list of a shard's documents; None if it is not what the manifest says of the shard."""
    if not path.is_file() or path.stat().st_size != shard["documents"] * DOCUMENT.itemsize:
        return None
    entries = np.fromfile(path, DOCUMENT)
    fits = entries["tokens"].sum(dtype=np.int64) == shard["tokens"] and entries["tokens"].all()
    return entries if fits else None


class Stream:
    """Several shards as one array of tokens, of which only what is asked for is read."""

    def __init__(self, parts: Sequence[np.ndarray]):
        # Plain views: a slice of a memmap costs ten times as much as one of an array.
        self.parts = [np.asarray(part) for part in parts]
        self.starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        """Return the tokens at these places, in the shape of `index`."""
        flat = index.ravel()
        out = np.empty(flat.shape, self.parts[0].dtype)
        which = np.searchsorted(self.starts, flat, "right") - 1
        order = np.argsort(which, kind="stable")
        shards, first = np.unique(which[order], return_index=True)
        for shard, here in zip(shards, np.split(order, first[1:]), strict=True):
            out[here] = self.parts[shard][flat[here] - self.starts[shard]]
        return out.reshape(index.shape)

    def runs(self, starts: np.ndarray, width: int) -> np.ndarray:
        """Return the `width` tokens from each of these places on, [B, width]."""
        out = np.empty((len(starts), width), self.parts[0].dtype)
        which = np.searchsorted(self.starts, starts, "right") - 1
        within = starts - self.starts[which]
        for row, start, shard, at in zip(out, starts.tolist(), which.tolist(), within.tolist(), strict=True):
            part = self.parts[shard][at : at + width]
            row[: len(part)] = part
            if len(part) < width:
                row[len(part) :] = self[np.arange(start + len(part), start + width)]
        return out
