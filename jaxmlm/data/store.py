"""A token store: uint16 or uint32 shards and a manifest that says what is in them and proves it.

    DIR/manifest.json  tokenizer.model  train-00000.bin ...  valid-00000.bin ...
    with phrases also  phrases.parquet  train-00000.units ...  valid-00000.units ...

A split is one stream of tokens, each document followed by a separator. It is memory-mapped, so a corpus larger
than memory costs nothing.
"""

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxmlm.data.hf_tokenizer import open_tokenizer
from jaxmlm.data.sources import Layout, Source, mixed, sha256
from jaxmlm.data.tokenizer import Tokenizer
from jaxmlm.errors import InputError

SHARD = 1 << 28  # tokens
CHUNK = 500  # documents that are encoded at once


@dataclass(frozen=True)
class Data:
    """The text to learn from, and how it is cut into tokens and rows."""

    text: str = "sample:20000"
    """Text file or glob (plain, .gz, .xz, .zst); tfds:NAME a data set of TensorFlow Datasets;
    sample:N is N generated documents. Several are separated by commas."""
    weights: tuple[float, ...] = ()
    """Mix the several texts: the share of each in tokens. The mix ends when one of them does."""
    layout: Layout = "blank-line"
    """What ends a document: a blank line, each line, the end of the file; jsonl: each line is a JSON object."""
    field: str = "text"
    """Where the text stands in the objects of JSON lines, or in the examples of a TensorFlow dataset."""
    store: str | None = None
    """Folder of the token store; by default WORKDIR/store. Made when it is not there."""
    tokenizer: str | None = None
    """A ready tokenizer: a folder or file of tokenizer.model or tokenizer.json. Without it one is trained."""
    vocab: int = 4096
    """Pieces of the SentencePiece vocabulary."""
    lowercase: bool = True
    """Lower-case the text."""
    tokenizer_words: int = 2_000_000
    """The tokenizer is trained on the first this many words."""
    valid: float = 0.01
    """Share of the documents held out, chosen by a hash of their text."""
    length: int = 128
    """Tokens in a row, the first of which is <cls>."""

    def __post_init__(self) -> None:
        if not 0 < self.valid < 1:
            raise InputError(f"data.valid must lie between 0 and 1; got {self.valid:g}: try 0.01")
        if self.length < 8:
            raise InputError(f"data.length must be at least 8 tokens; got {self.length}: try 128")
        if self.vocab < 16:
            raise InputError(f"data.vocab must be at least 16 pieces; got {self.vocab}: try 4096")
        if self.weights and len(self.weights) != len(self.parts):
            raise InputError(
                f"data.weights are {len(self.weights)} and data.text names {len(self.parts)} texts "
                f"({', '.join(self.parts)}): give one weight for each, or none to read one text after the other"
            )
        if wrong := [weight for weight in self.weights if not 0 < weight < float("inf")]:
            raise InputError(f"data.weights must be positive numbers; got {wrong[0]:g}: leave that text out instead")

    @property
    def parts(self) -> list[str]:
        """The texts that `text` names, one by one."""
        return [part.strip() for part in self.text.split(",")]

    def content(self) -> dict:
        """What decides the bytes of the store (the length of a row does not, nor where the store lies)."""
        aside = {"store", "length", "tokenizer"}
        if self.layout != "jsonl" and not any(part.startswith("tfds:") for part in self.parts):
            aside.add("field")
        if not self.weights:
            aside.add("weights")
        plain = asdict(self) | {"weights": list(self.weights)}
        if self.tokenizer is None:
            return {key: value for key, value in plain.items() if key not in aside}
        aside |= {"vocab", "lowercase", "tokenizer_words"}
        ready = {"tokenizer": hashlib.sha256(open_tokenizer(self.tokenizer).model).hexdigest()}
        return {key: value for key, value in plain.items() if key not in aside} | ready


def build(
    folder: Path,
    data: Data,
    sources: list[Source],
    progress: Callable[[str, int, int], None] = lambda stage, documents, tokens: None,
) -> "Store":
    """Train the tokenizer, or take the ready one, and write the store; it appears whole under its name, or not at all.

    The sources are read one after the other, or mixed by `data.weights`, once or twice; the manifest tells what they
    are and, of a mix, the tokens taken from each. `progress` is told (stage, documents done, tokens done).
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} is there and is no token store: name another --data.store or --workdir")
    progress("tokenizer", 0, 0)
    if data.tokenizer is not None:
        tokenizer = open_tokenizer(data.tokenizer)
    else:
        texts = _joined([source.documents() for source in sources], data.weights, _words_in)
        tokenizer = Tokenizer.train(_first_words(texts, data.tokenizer_words), data.vocab, data.lowercase)
    with _whole(folder) as part, ExitStack() as opened:
        tokenizer.save(part)
        dtype = np.dtype(np.uint16 if tokenizer.size <= 1 << 16 else np.uint32)
        splits = {name: opened.enter_context(_Writer(part, name, dtype)) for name in ("train", "valid")}
        taken = [0] * len(sources)
        encoded = [_encoded(i, source.documents(), tokenizer) for i, source in enumerate(sources)]
        for number, (of, text, ids) in enumerate(_joined(encoded, data.weights, lambda item: len(item[2])), 1):
            splits["valid" if _hash(text) < data.valid * 2**64 else "train"].add(ids)
            taken[of] += len(ids)
            if number % CHUNK == 0:
                progress("tokens", number, sum(taken))
        manifest = {
            "format": 1,
            "dtype": dtype.name,
            "vocab": tokenizer.size,
            "tokenizer_sha256": hashlib.sha256(tokenizer.model).hexdigest(),
            "data": data.content(),
            "source": [about for source in sources for about in source.about],
            **({"mix": dict(zip(data.parts, taken, strict=True))} if data.weights else {}),
            **{name: writer.close() for name, writer in splits.items()},
        }
        least = 4 * data.length
        if (got := manifest["train"]["tokens"] + manifest["valid"]["tokens"]) < least:
            raise InputError(
                f"the text {data.text!r} gives {got} tokens, less than a few rows of {data.length}: give more text or "
                "a smaller data.length"
            )
        if manifest["valid"]["tokens"] < data.length or manifest["train"]["tokens"] < data.length:
            _split_stream(part, manifest, dtype, data)
        (part / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return Store(folder)


class Store:
    """A token store opened for reading: `tokenizer`, `manifest`, `tokens(split)`."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        path = self.folder / "manifest.json"
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
        if differing := [key for key in want if have.get(key) != want[key]]:
            key = differing[0]
            raise InputError(
                f"the token store {self.folder} was made with data.{key} {have.get(key)!r}, this run wants "
                f"{want[key]!r}: name another --data.store or --workdir"
            )

    def tokens(self, split: str) -> "np.ndarray | Stream":
        """The stream of a split, memory-mapped."""
        parts = [self._map(name, np.dtype(self.manifest["dtype"]), size) for name, size in self.shards(split)]
        return parts[0] if len(parts) == 1 else Stream(parts)

    def units(self, split: str) -> "np.ndarray | Stream | None":
        """Beside each token a uint8: bit 0, a word starts here, bit 1, a unit (a phrase or a lone word) does.

        Memory-mapped like the tokens; None in a store that was prepared without phrases.
        """
        if "phrases" not in self.manifest:
            return None
        parts = [self._map(units_of(name), np.dtype(np.uint8), size) for name, size in self.shards(split)]
        return parts[0] if len(parts) == 1 else Stream(parts)

    def shards(self, split: str) -> list[tuple[str, int]]:
        """Name and tokens of each shard of a split."""
        return [(shard["file"], shard["tokens"]) for shard in self.manifest[split]["shards"]]

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
            (part / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
            for name in [*(file.name for file in files), "manifest.json"]:
                os.replace(part / name, self.folder / name)
            self.manifest = manifest
        finally:
            shutil.rmtree(part)

    def _map(self, name: str, dtype: np.dtype, size: int) -> np.ndarray:
        path = self.folder / name
        if not path.is_file() or path.stat().st_size != size * dtype.itemsize:
            raise InputError(f"{path} is missing or not whole: delete the store and prepare it again")
        return np.memmap(path, dtype, mode="r")


def units_of(shard: str) -> str:
    """The name of the file of unit bits beside a shard.

    >>> units_of("train-00000.bin")
    'train-00000.units'
    """
    return shard.removesuffix(".bin") + ".units"


class Stream:
    """Several shards as one array of tokens, of which only what is asked for is read."""

    def __init__(self, parts: list[np.ndarray]):
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


class _Writer:
    def __init__(self, folder: Path, split: str, dtype: np.dtype):
        self.folder, self.split, self.dtype = folder, split, dtype
        self.documents = self.tokens = 0
        self.shards: list[dict] = []
        self._next()

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, ids: list[int]) -> None:
        """Append a document."""
        if self.shards[-1]["tokens"] and self.shards[-1]["tokens"] + len(ids) > SHARD:
            self._file.close()
            self._next()
        array = np.asarray(ids, self.dtype)
        self._file.write(array.tobytes())
        self.shards[-1]["tokens"] += len(array)
        self.documents += 1
        self.tokens += len(array)

    def _next(self) -> None:
        name = f"{self.split}-{len(self.shards):05d}.bin"
        self._file = open(self.folder / name, "wb")
        self.shards.append({"file": name, "tokens": 0})

    def close(self) -> dict:
        """Finish the files; what the manifest says of the split."""
        self._file.close()
        for shard in self.shards:
            shard["sha256"] = sha256(self.folder / shard["file"])
        return {"documents": self.documents, "tokens": self.tokens, "shards": self.shards}


def _split_stream(folder: Path, manifest: dict, dtype: np.dtype, data: Data) -> None:
    """A text of few documents: one split got nothing, so the end of the stream is held out instead."""
    files = [folder / shard["file"] for name in ("train", "valid") for shard in manifest[name]["shards"]]
    whole = np.concatenate([np.fromfile(file, dtype) for file in files])
    for file in files:
        file.unlink()
    cut = len(whole) - max(data.length, int(data.valid * len(whole)))
    for name, part in (("train", whole[:cut]), ("valid", whole[cut:])):
        path = folder / f"{name}-00000.bin"
        part.tofile(path)
        shard = {"file": path.name, "tokens": len(part), "sha256": sha256(path)}
        manifest[name] = {"documents": manifest[name]["documents"], "tokens": len(part), "shards": [shard]}


def _hash(text: str) -> int:
    """64 bits of the text, the same for ever."""
    return int.from_bytes(hashlib.sha1(text.encode("utf-8", "replace")).digest()[:8])


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A new folder beside this one, which takes its name at the end; after an error nothing is left of it."""
    part = folder.with_name(folder.name + ".part")
    fresh = [parent for parent in part.parents if not parent.exists()]
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        os.replace(part, folder)
    except BaseException:
        shutil.rmtree(part)
        with suppress(OSError):  # somebody else wrote there meanwhile
            for parent in fresh:
                parent.rmdir()
        raise


def _joined(streams: list[Iterator], weights: Sequence[float], size: Callable[[Any], int]) -> Iterator:
    return mixed(streams, weights, size) if weights else itertools.chain(*streams)


def _words_in(text: str) -> int:
    return text.count(" ") + 1


def _first_words(texts: Iterator[str], words: int) -> Iterator[str]:
    for text in texts:
        yield text
        words -= _words_in(text)
        if words <= 0:
            return


def _encoded(of: int, texts: Iterator[str], tokenizer: Tokenizer) -> Iterator[tuple[int, str, list[int]]]:
    while chunk := list(itertools.islice(texts, CHUNK)):
        for text, ids in zip(chunk, tokenizer.encode_batch(chunk), strict=True):
            yield of, text, [*ids, tokenizer.sep_id]
