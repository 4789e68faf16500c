"""The manifest of a token store: which files it has, and the checks before anything that it says is believed.

    {"format": 3, "dtype": "uint16", "vocab": 4096, "tokenizer": [{"file", "sha256"}, ...], "data": {...},
     "source": [{"file", ...}, ...], "checksum": SHA-256 of all the rest, in sorted order
     "train": {"documents", "tokens", "shards": [
         {"file": "train-00000.bin", "tokens", "documents", "sha256", "documents_sha256"}, ...]}, "valid": {...}}

with `mix`, the tokens taken from each text, in a store of several with weights; `duplicates`, the documents dropped;
`cleaning`, what `data.clean` has found and dropped;
`phrases`, with the files that the phrase pass has written.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from jaxmlm.errors import InputError
from jaxmlm.json_files import read_json, to_json, write_json

MANIFEST = "manifest.json"
FORMAT = 3
SPLITS = ("train", "valid")
SETS = "evaluation_sets"
TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json")
PHRASES_FILE = "phrases.parquet"
DOCUMENT = np.dtype([("hash", "<u8"), ("number", "<u8"), ("file", "<u4"), ("tokens", "<u4")])
"""A document in a store: 64 bits of its text's SHA-1, its id (the `number`-th document of the `file`-th of the
manifest's "source") and its tokens, the separator counted."""
UNITS = np.dtype(np.uint8)
MOST_UNIT_BITS = 3


class StoreFile(NamedTuple):
    """A file of a token store, as the manifest describes it.

    Attributes:
        name: in the directory of the store.
        sha256: of its bytes, in hexadecimal.
        size: in bytes; None where the manifest does not say.
        dtype: of the numbers in it, if they have a largest value.
        largest: the largest value that a number in it may have.

    """

    name: str
    sha256: str
    size: int | None = None
    dtype: np.dtype | None = None
    largest: int = 0


def token_dtype(vocab: int) -> np.dtype:
    """Return the type in which the token ids of a vocabulary are stored.

    >>> token_dtype(65_536).name, token_dtype(65_537).name
    ('uint16', 'uint32')
    """
    return np.dtype(np.uint16 if vocab <= 1 << 16 else np.uint32)


def units_of(shard: str) -> str:
    """Return the name of the file of unit bits beside a shard.

    >>> units_of("train-00000.bin")
    'train-00000.units'
    """
    return shard.removesuffix(".bin") + ".units"


def documents_of(shard: str) -> str:
    """Return the name of the list of documents beside a shard.

    >>> documents_of("train-00000.bin")
    'train-00000.docs'
    """
    return shard.removesuffix(".bin") + ".docs"


def write_manifest(directory: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a store, with its checksum."""
    write_json(directory / MANIFEST, {**manifest, "checksum": _checksum(manifest)})


def read_manifest(directory: Path) -> dict[str, Any]:
    """Read the manifest of a store, which somebody else may have written.

    Returns:
        What `write_manifest` wrote: every entry that the store is read by is there and has its type, each file name is
        the one that such a file has, and the counts of the shards sum up to those of their split.

    Raises:
        InputError: the file is not such a manifest, was damaged, or has another format.

    """
    path = directory / MANIFEST
    try:
        manifest = read_json(path, "the manifest of a token store")
    except InputError as error:
        raise InputError(f"{error} If not, prepare the store again") from error
    if manifest.get("format") != FORMAT:
        have = _brief(manifest.get("format"))
        raise InputError(f"{path} has format {have}, and this version of jaxmlm reads {FORMAT}: prepare it again")
    checksum = manifest.pop("checksum", None)
    if checksum != _checksum(manifest):
        raise InputError(f"{path} is damaged, its checksum does not fit what it says: prepare the store again")
    if fault := next(_faults(manifest), None):
        raise InputError(f"{path} is not the manifest of a token store ({fault}): prepare the store again")
    return manifest


def _checksum(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(to_json(manifest, sort_keys=True).encode()).hexdigest()


def tokenizer_files(manifest: dict[str, Any]) -> list[StoreFile]:
    """Return the files of the store's tokenizer, the one that holds its vocabulary first."""
    return [StoreFile(entry["file"], entry["sha256"]) for entry in manifest["tokenizer"]]


def token_files(manifest: dict[str, Any], split: str) -> list[StoreFile]:
    """Return the shards of a split."""
    dtype = np.dtype(manifest["dtype"])
    largest = manifest["vocab"] - 1
    return [
        StoreFile(shard["file"], shard["sha256"], shard["tokens"] * dtype.itemsize, dtype, largest)
        for shard in manifest[split]["shards"]
    ]


def document_files(manifest: dict[str, Any], split: str) -> list[StoreFile]:
    """Return the lists of documents of a split, one for each shard."""
    return [
        StoreFile(documents_of(shard["file"]), shard["documents_sha256"], shard["documents"] * DOCUMENT.itemsize)
        for shard in manifest[split]["shards"]
    ]


def unit_files(manifest: dict[str, Any], split: str) -> list[StoreFile]:
    """Return the files of unit bits of a split, one for each shard; the store has phrases."""
    sums = _phrase_sums(manifest)
    return [
        StoreFile(name, sums[name], shard["tokens"], UNITS, MOST_UNIT_BITS)
        for shard in manifest[split]["shards"]
        for name in [units_of(shard["file"])]
    ]


def phrases_file(manifest: dict[str, Any]) -> StoreFile:
    """Return the phrase list of a store that has phrases."""
    return StoreFile(PHRASES_FILE, _phrase_sums(manifest)[PHRASES_FILE])


def all_files(manifest: dict[str, Any]) -> list[StoreFile]:
    """Return every file that a manifest names."""
    files = tokenizer_files(manifest)
    for split in SPLITS:
        files += token_files(manifest, split)
        files += document_files(manifest, split)
        if "phrases" in manifest:
            files += unit_files(manifest, split)
    return [*files, phrases_file(manifest)] if "phrases" in manifest else files


def _phrase_sums(manifest: dict[str, Any]) -> dict[str, str]:
    return {entry["file"]: entry["sha256"] for entry in manifest["phrases"]["files"]}


def _faults(manifest: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a manifest; each check may rely on those before it."""
    vocab = manifest.get("vocab")
    if not _is_count(vocab) or not 5 <= vocab < 1 << 31:  # five special tokens
        yield f"vocab is {_brief(vocab)}"
        return
    if manifest.get("dtype") != token_dtype(vocab).name:
        yield f"dtype is {_brief(manifest.get('dtype'))}, and ids of {vocab:,} tokens are {token_dtype(vocab).name}"
    yield from _file_faults("tokenizer", manifest.get("tokenizer"), set(TOKENIZER_FILES))
    if not isinstance(manifest.get("data"), dict):
        yield "data is not an object"
    source = manifest.get("source")
    if not isinstance(source, list) or not all(isinstance(e, dict) and isinstance(e.get("file"), str) for e in source):
        yield "source is not a list of files"
    for split in SPLITS:
        yield from _split_faults(split, manifest.get(split))
    if not _is_count(manifest.get("duplicates", 0)):
        yield f"duplicates is {_brief(manifest['duplicates'])}"
    mix = manifest.get("mix", {})
    if not isinstance(mix, dict) or not all(map(_is_count, mix.values())):
        yield "mix is not the tokens of each text"
    cleaning = manifest.get("cleaning", {})
    if not isinstance(cleaning, dict) or not isinstance(rows := cleaning.get(SETS, []), list):
        yield "cleaning is not an object with a table"
    elif not all(map(_is_row, rows)) or not all(_is_count(cleaning[key]) for key in cleaning if key != SETS):
        yield "cleaning is not what was found and dropped"
    if "phrases" in manifest:
        yield from _phrase_faults(manifest)


def _is_row(row: Any) -> bool:
    columns = ("words", "passages", "touched", "found", "documents")
    return isinstance(row, dict) and isinstance(row.get("set"), str) and all(_is_count(row.get(key)) for key in columns)


def _split_faults(split: str, about: Any) -> Iterator[str]:
    if not isinstance(about, dict) or not isinstance(about.get("shards"), list):
        yield f"{split} has no shards"
        return
    for number, shard in enumerate(about["shards"]):
        wanted = f"{split}-{number:05d}.bin"
        if not isinstance(shard, dict):
            yield f"{split} has a shard {_brief(shard)}"
        elif shard.get("file") != wanted:
            yield f"{split} has a shard called {_brief(shard.get('file'))} in the place of {wanted}"
        elif not all(_is_count(shard.get(what)) and shard[what] for what in ("tokens", "documents")):
            yield f"{wanted} has no tokens or no documents"
        elif not is_sha256(shard.get("sha256")) or not is_sha256(shard.get("documents_sha256")):
            yield f"{wanted} or its list of documents has no SHA-256"
    for what in ("tokens", "documents"):
        if about.get(what) != sum(shard[what] for shard in about["shards"]):
            yield f"{split} has {_brief(about.get(what))} {what}, and its shards have another number"


def _phrase_faults(manifest: dict[str, Any]) -> Iterator[str]:
    phrases = manifest["phrases"]
    kinds = {"settings": dict, "number": dict, "coverage": dict, "short": dict, "scored": bool, "files": list}
    if not isinstance(phrases, dict) or not all(isinstance(phrases.get(key), kind) for key, kind in kinds.items()):
        yield "phrases lack one of " + ", ".join(kinds)
        return
    shards = [shard["file"] for split in SPLITS for shard in manifest[split]["shards"]]
    wanted = {PHRASES_FILE, *map(units_of, shards)}
    yield from _file_faults("phrases", phrases["files"], wanted)
    if len(phrases["files"]) != len(wanted):
        yield f"phrases have {len(phrases['files'])} files and should have {len(wanted)}"
    settings = phrases["settings"]
    if not {"overlap", "coverage", "size"} <= set(settings) or settings["overlap"] not in ("random", "longest"):
        yield "phrases lack their settings"
    if not all(isinstance(phrases["coverage"].get(split), int | float) for split in SPLITS):
        yield "phrases lack their coverage"
    if not all(map(_is_count, [*phrases["number"].values(), *phrases["short"].values()])):
        yield "phrases lack their numbers"


def _file_faults(what: str, files: Any, names: set[str]) -> Iterator[str]:
    """Yield what is wrong with a list of files that have these names, each at most once."""
    if not isinstance(files, list) or not files:
        yield f"{what} names no files"
        return
    seen = set()
    for entry in files:
        if not isinstance(entry, dict) or not isinstance(entry.get("file"), str) or entry["file"] not in names:
            yield f"{what} names a file {_brief(entry)}"
            return
        if not is_sha256(entry.get("sha256")):
            yield f"{entry['file']} has no SHA-256"
        seen.add(entry["file"])
    if len(seen) < len(files):
        yield f"{what} names a file twice"


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 1 << 62


def is_sha256(value: Any) -> bool:
    """Whether a value is a SHA-256 as the manifest writes it."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
