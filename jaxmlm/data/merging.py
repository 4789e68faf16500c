"""From the parts of a token store to the store: duplicates dropped, files numbered, the manifest written last."""

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from jaxmlm.data.cleaning.dropping import cleaned, keep_documents, sums
from jaxmlm.data.cleaning.marking import Marker
from jaxmlm.data.config import Data
from jaxmlm.data.files import sha256
from jaxmlm.data.hf_tokenizer import open_tokenizer
from jaxmlm.data.manifest import DOCUMENT, FORMAT, SPLITS, TOKENIZER_FILES, is_sha256, token_dtype, write_manifest
from jaxmlm.data.part_files import read_marks
from jaxmlm.data.store import Store, read_document_list
from jaxmlm.data.tokenizer import Tokenizer
from jaxmlm.errors import InputError, reading
from jaxmlm.json_files import read_json
from jaxmlm.locks import claim

PLAN = "plan.json"
_PART = re.compile(r"\d{5}-\d{5}\.json")
_SHARD = re.compile(r"shard-(\d{1,6})-of-(\d{1,6})\.json")


def unfinished(directory: Path) -> Path:
    """Where the parts of a store are while it is being made."""
    return directory.with_name(directory.name + ".part")


def part_name(group: int, part: int) -> str:
    """The file that says that a part is done.

    >>> part_name(0, 12)
    '00000-00012.json'
    """
    return f"{group:05d}-{part:05d}.json"


def shard_name(shard: int, shards: int) -> str:
    """The file that says that a machine has done its share."""
    return f"shard-{shard}-of-{shards}.json"


def check_place(directory: Path) -> None:
    """Refuse, before the work, a directory whose place the finished store cannot take."""
    if directory.is_symlink() or directory.is_mount():
        raise InputError(
            f"{directory} is a link or a mounted disk, whose place a token store cannot take: name a directory in it, "
            f"as --data.store {directory / 'store'}"
        )
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise InputError(f"{directory} is there and is not a token store: name another --data.store or --workdir")


def read_part(path: Path) -> dict[str, Any]:
    """Read what a part's file says of it; InputError if it is damaged, or names files of another part."""
    what = "what a part of a token store is"
    part = read_json(path, what)
    with reading(path, what):
        for split in SPLITS:
            about = part[split]
            if about["file"] != f"{split}-{path.stem}.bin":
                raise ValueError(f"it names {about['file']}")
            counts = (about["tokens"], about["documents"], *part.get("taken", ()), *part.get("passed", ()))
            if not all(type(count) is int and count >= 0 for count in counts):
                raise ValueError(f"a count of {counts}")
            if not (is_sha256(about["sha256"]) and is_sha256(about["documents_sha256"])):
                raise ValueError("a SHA-256 is none")
    return part


def merge(directory: Path, data: Data) -> Store:
    """Make one store of the parts that the machines of `build(..., shard=(i, n))` have written to DIR.part.

    InputError if a machine has not finished, had another tokenizer or other settings, or if a file is not complete.
    """
    with claim(directory, "token store", beside=True):
        return _merge(directory, data)


def _merge(directory: Path, data: Data) -> Store:
    part = unfinished(directory)
    check_place(directory)
    if not (part / PLAN).is_file():
        raise InputError(f"nothing to merge in {part}: prepare it with --shard 0/N to --shard N-1/N first")
    plan = read_json(part / PLAN, "the plan of a token store")
    with reading(part / PLAN, "the plan of a token store"):
        have = dict(plan["data"])
        want = data.content()
        list(plan["source"])
    if other := [key for key in [*want, *have] if have.get(key) != want.get(key)]:
        raise InputError(f"{part} was prepared with another data.{other[0]}: merge with the options of --shard")
    machines, shards = _finished_machines(part)
    tokenizer = open_tokenizer(part)
    if len({shard["tokenizer"] for shard in shards} | {hashlib.sha256(tokenizer.model).hexdigest()}) != 1:
        raise InputError(
            f"{part}: the machines have trained different tokenizers: give all the same one as --data.tokenizer"
        )
    groups = {int(g): parts for shard in shards for g, parts in shard["groups"].items()}
    for name in (part_name(g, p) for g, parts in groups.items() for p in range(parts)):
        if not (part / name).is_file():
            raise InputError(f"{part / name} is missing: run --shard again on all {machines} machines")
        about = read_part(part / name)
        for split in SPLITS:
            path = part / about[split]["file"]
            tokens = path.is_file() and sha256(path) == about[split]["sha256"]
            if data.clean.asked and tokens and read_marks(path, about[split]) is None:
                raise InputError(
                    f"{path.with_suffix('.marks')} is missing or not complete: delete {name} and run --shard again"
                )
            if not tokens or read_document_list(path.with_suffix(".docs"), about[split]) is None:
                lacking = path.with_suffix(".docs") if tokens else path
                raise InputError(f"{lacking} is missing or not complete: delete {name} and run --shard again")
    finish(part, directory, plan, data, tokenizer)
    return Store(directory)


def _finished_machines(part: Path) -> tuple[int, list[dict[str, Any]]]:
    """How many machines have shared the work, and what each says that it has done.

    Parts are the same whatever that number is, so notes of another one, from before it was changed, do not matter.
    """
    notes: dict[int, list[Path]] = {}
    for path in sorted(part.iterdir()):
        if match := _SHARD.fullmatch(path.name):
            notes.setdefault(int(match[2]), []).append(path)
    complete = [machines for machines, paths in notes.items() if len(paths) == machines]
    if not complete:
        found = ", ".join(path.name for paths in notes.values() for path in paths) or "none"
        raise InputError(f"{part}: not every machine has finished (found {found}): run --shard for the others")
    shards = []
    for path in notes[complete[0]]:
        shard = read_json(path, "what a machine has done")
        with reading(path, "what a machine has done"):
            shards.append({"tokenizer": str(shard["tokenizer"]), "groups": shard["groups"]})
            if not all(g.isdecimal() and type(parts) is int for g, parts in shard["groups"].items()):
                raise ValueError("its groups have no numbers")
    return complete[0], shards


def finish(
    part: Path, directory: Path, plan: dict[str, Any], data: Data, tokenizer: Tokenizer, marker: Marker | None = None
) -> None:
    """Make a store of the parts in a directory, and give the directory its name.

    `marker` is what has marked the documents, if it is there; else it is made again.
    """
    parts = [read_part(path) for path in sorted(part.iterdir()) if _PART.fullmatch(path.name)]
    dtype = token_dtype(tokenizer.size)
    mix = {"mix": dict(zip(data.texts, parts[-1]["taken"], strict=True))} if data.weights and parts else {}
    dropped = {name: _drop_duplicates(part, [p[name] for p in parts], dtype) for name in SPLITS if data.drop_duplicates}
    cleaning = {}
    if data.clean.asked:
        cleaning["cleaning"] = cleaned(part, parts, data.clean, marker or Marker(data.clean), dtype)
    if (got := sum(p[name]["tokens"] for p in parts for name in SPLITS)) < 4 * data.length:
        raise InputError(
            f"the text {data.text!r} gives {got} tokens, less than a few rows of {data.length}: give more text or "
            "a smaller data.length"
        )
    tokenizer_files = [part / name for name in TOKENIZER_FILES if (part / name).is_file()]
    manifest = {
        "format": FORMAT,
        "dtype": dtype.name,
        "vocab": tokenizer.size,
        "tokenizer": [{"file": path.name, "sha256": sha256(path)} for path in tokenizer_files],
        "data": plan["data"],
        "source": plan["source"],
        **mix,
        **({"duplicates": sum(dropped.values())} if data.drop_duplicates else {}),
        **cleaning,
        **{name: _numbered(part, name, [p[name] for p in parts]) for name in SPLITS},
    }
    if manifest["valid"]["tokens"] < data.length or manifest["train"]["tokens"] < data.length:
        _split_stream(part, manifest, dtype, data)
    shards = [part / shard["file"] for name in SPLITS for shard in manifest[name]["shards"]]
    kept = {*tokenizer_files, *shards, *(path.with_suffix(".docs") for path in shards)}
    for path in part.iterdir():  # the notes of the work, and what was left by some that was killed
        if path not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_manifest(part, manifest)
    os.replace(part, directory)


def _drop_duplicates(directory: Path, shards: list[dict[str, Any]], dtype: np.dtype) -> int:
    """Drop from the files of a split the documents that stood there before; how many. 26 bytes of memory for each.

    Same texts are in the same split, since the text decides it.
    """
    paths = [directory / shard["file"] for shard in shards]
    if not shards:
        return 0
    ends = np.cumsum([shard["documents"] for shard in shards])
    hashes = np.empty(ends[-1], np.uint64)
    for path, part in zip(paths, np.split(hashes, ends[:-1]), strict=True):
        part[:] = np.fromfile(path.with_suffix(".docs"), DOCUMENT)["hash"]
    del part  # a view, which would keep the unsorted hashes
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    kept = np.ones(len(hashes), bool)
    kept[order[1:]] = hashes[1:] != hashes[:-1]
    for path, shard, keep in zip(paths, shards, np.split(kept, ends[:-1]), strict=True):
        keep_documents(path, shard, keep, dtype)
    return int((~kept).sum())


def _numbered(directory: Path, split: str, shards: list[dict[str, Any]]) -> dict[str, Any]:
    """Give the files of a split their names; what the manifest says of it. Parts without a document have no file."""
    kept = []
    for shard in shards:
        path = directory / shard["file"]
        if not shard["tokens"]:
            path.unlink()
            path.with_suffix(".docs").unlink()
            continue
        name = f"{split}-{len(kept):05d}"
        os.replace(path, directory / f"{name}.bin")
        os.replace(path.with_suffix(".docs"), directory / f"{name}.docs")
        kept.append({key: value for key, value in shard.items() if key != "marks_sha256"} | {"file": f"{name}.bin"})
    totals = {key: sum(shard[key] for shard in kept) for key in ("documents", "tokens")}
    return {**totals, "shards": kept}


def _split_stream(directory: Path, manifest: dict, dtype: np.dtype, data: Data) -> None:
    """A text of few documents: one split got nothing, so the end of the stream is held out instead.

    The document that is cut counts in both, with the tokens that are there.
    """
    files = [directory / shard["file"] for name in SPLITS for shard in manifest[name]["shards"]]
    whole = np.concatenate([np.fromfile(file, dtype) for file in files])
    entries = np.concatenate([np.fromfile(file.with_suffix(".docs"), DOCUMENT) for file in files])
    for file in files:
        file.unlink()
        file.with_suffix(".docs").unlink()
    cut = len(whole) - max(data.length, int(data.valid * len(whole)))
    ends = np.cumsum(entries["tokens"], dtype=np.int64)
    at = int(np.searchsorted(ends, cut))
    head, tail = entries[: at + 1].copy(), entries[at:].copy()
    head["tokens"][-1] -= ends[at] - cut
    tail["tokens"][0] = ends[at] - cut
    tail = tail[tail["tokens"] > 0]
    for name, part, documents in (("train", whole[:cut], head), ("valid", whole[cut:], tail)):
        path = directory / f"{name}-00000.bin"
        part.tofile(path)
        documents.tofile(path.with_suffix(".docs"))
        about = {"documents": len(documents), "tokens": len(part)}
        manifest[name] = {**about, "shards": [{"file": path.name, **about, **sums(path)}]}
