"""From the parts of a token store to the store: duplicates dropped, files numbered, the manifest written last."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from jaxmlm.data.hf_tokenizer import open_tokenizer
from jaxmlm.data.sources import sha256
from jaxmlm.data.store import DOCUMENT, MANIFEST, Data, Store, whole_list
from jaxmlm.data.tokenizer import Tokenizer
from jaxmlm.errors import InputError
from jaxmlm.json_files import write_json

SPLITS = ("train", "valid")
PLAN = "plan.json"
TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json")


def unfinished(folder: Path) -> Path:
    """Where the parts of a store are while it is being made."""
    return folder.with_name(folder.name + ".part")


def part_name(group: int, part: int) -> str:
    """The file that says that a part is done.

    >>> part_name(0, 12)
    '00000-00012.json'
    """
    return f"{group:05d}-{part:05d}.json"


def shard_name(shard: int, shards: int) -> str:
    """The file that says that a machine has done its share."""
    return f"shard-{shard}-of-{shards}.json"


def check_place(folder: Path) -> None:
    """Refuse, before the work, a folder whose place the finished store cannot take."""
    if folder.is_symlink() or folder.is_mount():
        raise InputError(
            f"{folder} is a link or a mounted disk, whose place a token store cannot take: name a folder in it, as "
            f"--data.store {folder / 'store'}"
        )
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} is there and is no token store: name another --data.store or --workdir")


def merge(folder: Path, data: Data) -> Store:
    """Make one store of the parts that the machines of `build(..., shard=(i, n))` have written to DIR.part.

    InputError if a machine has not finished, had another tokenizer or other settings, or if a file is not whole.
    """
    part = unfinished(folder)
    check_place(folder)
    if not (part / PLAN).is_file():
        raise InputError(f"nothing to merge in {part}: prepare it with --shard 0/N to --shard N-1/N first")
    plan = json.loads((part / PLAN).read_text())
    have, want = plan["data"], data.content()
    if other := [key for key in [*want, *have] if have.get(key) != want.get(key)]:
        raise InputError(f"{part} was prepared with another data.{other[0]}: merge with the options of --shard")
    notes = sorted(part.glob("shard-*.json"))
    number = {file: int(file.stem.split("-of-")[1]) for file in notes}
    # Parts are the same whatever N is, so notes of another N, from before it was changed, do not matter.
    if not (whole := [n for n in number.values() if list(number.values()).count(n) == n]):
        found = ", ".join(file.name for file in notes) or "none"
        raise InputError(f"{part}: not every machine has finished (found {found}): run --shard for the others")
    n = whole[0]
    said = {file.name: json.loads(file.read_text()) for file in notes if number[file] == n}
    tokenizer = open_tokenizer(part)
    if len({shard["tokenizer"] for shard in said.values()} | {hashlib.sha256(tokenizer.model).hexdigest()}) != 1:
        raise InputError(
            f"{part}: the machines have trained different tokenizers: give all the same one as --data.tokenizer"
        )
    groups = {int(g): parts for shard in said.values() for g, parts in shard["groups"].items()}
    for name in (part_name(g, p) for g, parts in groups.items() for p in range(parts)):
        if not (part / name).is_file():
            raise InputError(f"{part / name} is missing: run --shard again on all {n} machines")
        for split in SPLITS:
            about = json.loads((part / name).read_text())[split]
            path = part / about["file"]
            tokens = path.is_file() and sha256(path) == about["sha256"]
            if not tokens or whole_list(path.with_suffix(".docs"), about) is None:
                lacking = path.with_suffix(".docs") if tokens else path
                raise InputError(f"{lacking} is missing or not whole: delete {name} and run --shard again")
    finish(part, folder, plan, data, tokenizer)
    return Store(folder)


def finish(part: Path, folder: Path, plan: dict[str, Any], data: Data, tokenizer: Tokenizer) -> None:
    """Make a store of the parts in a folder, and give the folder its name."""
    names = sorted(path for path in part.iterdir() if re.fullmatch(r"\d{5}-\d{5}\.json", path.name))
    parts = [json.loads(path.read_text()) for path in names]
    dtype = np.dtype(np.uint16 if tokenizer.size <= 1 << 16 else np.uint32)
    mix = {"mix": dict(zip(data.texts, parts[-1]["taken"], strict=True))} if data.weights and parts else {}
    dropped = {name: _drop_duplicates(part, [p[name] for p in parts], dtype) for name in SPLITS if data.drop_duplicates}
    if (got := sum(p[name]["tokens"] for p in parts for name in SPLITS)) < 4 * data.length:
        raise InputError(
            f"the text {data.text!r} gives {got} tokens, less than a few rows of {data.length}: give more text or "
            "a smaller data.length"
        )
    manifest = {
        "format": 2,
        "dtype": dtype.name,
        "vocab": tokenizer.size,
        "tokenizer_sha256": hashlib.sha256(tokenizer.model).hexdigest(),
        "data": plan["data"],
        "source": plan["source"],
        **mix,
        **({"duplicates": sum(dropped.values())} if data.drop_duplicates else {}),
        **{name: _numbered(part, name, [p[name] for p in parts]) for name in SPLITS},
    }
    if manifest["valid"]["tokens"] < data.length or manifest["train"]["tokens"] < data.length:
        _split_stream(part, manifest, dtype, data)
    shards = [part / shard["file"] for name in SPLITS for shard in manifest[name]["shards"]]
    kept = {*shards, *(path.with_suffix(".docs") for path in shards)}
    for path in part.iterdir():  # the notes of the work, and what was left by some that was killed
        if path not in kept and path.name not in TOKENIZER_FILES:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_json(part / MANIFEST, manifest)
    os.replace(part, folder)


def _drop_duplicates(folder: Path, shards: list[dict[str, Any]], dtype: np.dtype) -> int:
    """Drop from the files of a split the documents that stood there before; how many. 26 bytes of memory for each.

    Same texts are in the same split, since the text decides it.
    """
    paths = [folder / shard["file"] for shard in shards]
    if not shards:
        return 0
    ends = np.cumsum([shard["documents"] for shard in shards])
    hashes = np.empty(ends[-1], np.uint64)
    for path, part in zip(paths, np.split(hashes, ends[:-1]), strict=True):
        part[:] = np.fromfile(path.with_suffix(".docs"), DOCUMENT)["hash"]
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    kept = np.ones(len(hashes), bool)
    kept[order[1:]] = hashes[1:] != hashes[:-1]
    for path, shard, keep in zip(paths, shards, np.split(kept, ends[:-1]), strict=True):
        if not keep.all():
            part = np.fromfile(path.with_suffix(".docs"), DOCUMENT)
            tokens = np.fromfile(path, dtype)[np.repeat(keep, part["tokens"])]
            tokens.tofile(path)
            part[keep].tofile(path.with_suffix(".docs"))
            shard |= {"tokens": len(tokens), "documents": int(keep.sum()), "sha256": sha256(path)}
    return int((~kept).sum())


def _numbered(folder: Path, split: str, shards: list[dict[str, Any]]) -> dict[str, Any]:
    """Give the files of a split their names; what the manifest says of it. Parts without a document have no file."""
    kept = []
    for shard in shards:
        path = folder / shard["file"]
        if not shard["tokens"]:
            path.unlink()
            path.with_suffix(".docs").unlink()
            continue
        name = f"{split}-{len(kept):05d}"
        os.replace(path, folder / f"{name}.bin")
        os.replace(path.with_suffix(".docs"), folder / f"{name}.docs")
        kept.append({**shard, "file": f"{name}.bin"})
    totals = {key: sum(shard[key] for shard in kept) for key in ("documents", "tokens")}
    return {**totals, "shards": kept}


def _split_stream(folder: Path, manifest: dict, dtype: np.dtype, data: Data) -> None:
    """A text of few documents: one split got nothing, so the end of the stream is held out instead.

    The document that is cut counts in both, with the tokens that are there.
    """
    files = [folder / shard["file"] for name in SPLITS for shard in manifest[name]["shards"]]
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
        path = folder / f"{name}-00000.bin"
        part.tofile(path)
        documents.tofile(path.with_suffix(".docs"))
        about = {"documents": len(documents), "tokens": len(part)}
        manifest[name] = {**about, "shards": [{"file": path.name, **about, "sha256": sha256(path)}]}
