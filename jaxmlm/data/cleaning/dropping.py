"""From the marks of all documents to those that stay in a store."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxmlm.data.cleaning.config import Clean
from jaxmlm.data.cleaning.marking import Marker
from jaxmlm.data.cleaning.near_duplicates import copies
from jaxmlm.data.files import sha256
from jaxmlm.data.manifest import DOCUMENT, SETS, SPLITS
from jaxmlm.data.part_files import read_found, read_marks, write_marks
from jaxmlm.errors import InputError


def cleaned(
    directory: Path, parts: list[dict[str, Any]], clean: Clean, marker: Marker, dtype: np.dtype
) -> dict[str, Any]:
    """Drop from the files of the parts what `data.clean` asks for.

    Which documents these are depends on the documents alone: not on the parts, their order or who made them. Of near
    duplicates the first by (file, number) stays, whichever split it is in.

    Args:
        directory: where the parts are.
        parts: what their files say; what changes is written there.
        clean: what is dropped.
        marker: what has made the marks.
        dtype: of the tokens.

    Returns:
        What the manifest says: how many documents were dropped, and a table of the evaluation sets.

    Raises:
        InputError: the marks of a part are missing or damaged.

    """
    shards = [part[split] for split in SPLITS for part in parts]
    paths = [directory / shard["file"] for shard in shards]
    entries = np.concatenate([np.fromfile(path.with_suffix(".docs"), DOCUMENT) for path in paths])
    marks = np.concatenate([_marks(path, shard) for path, shard in zip(paths, shards, strict=True)])
    said: dict[str, Any] = {}
    kept = np.ones(len(entries), bool)
    if marker.sets:
        held = marks["sets"]
        documents = [int((held >> bit & 1).sum()) for bit in range(len(marker.sets))]
        said[SETS] = marker.table(_found(directory, parts, marker.runs), documents)
        if clean.contaminated == "drop":
            kept &= held == 0
            said["contaminated"] = int((~kept).sum())
    if clean.near_duplicates:
        left = np.flatnonzero(kept)
        ids = entries["file"][left].astype(np.uint64) << np.uint64(40) | entries["number"][left]
        copy, groups = copies(marks["bands"][left], ids)
        kept[left[copy]] = False
        said["near_duplicates"] = int(copy.sum())
        said["near_duplicate_groups"] = groups
    ends = np.cumsum([shard["documents"] for shard in shards])[:-1]
    for path, shard, keep in zip(paths, shards, np.split(kept, ends), strict=True):
        keep_documents(path, shard, keep, dtype)
    return said


def _marks(path: Path, shard: dict[str, Any]) -> np.ndarray:
    found = read_marks(path, shard)
    if found is None:
        raise InputError(
            f"{path.with_suffix('.marks')} is missing or not complete: delete {path.parent} and prepare it again"
        )
    return found


def _found(directory: Path, parts: list[dict[str, Any]], runs: int) -> np.ndarray:
    """Which runs of the evaluation sets are in any part."""
    found = np.zeros(runs, bool)
    for part in parts:
        path = directory / (part[SPLITS[0]]["file"].partition("-")[2].removesuffix(".bin") + ".found")
        some = read_found(path, part.get("found_sha256"), runs)
        if some is None:
            raise InputError(f"{path} is missing or not complete: delete {directory} and prepare it again")
        found |= some
    return found


def keep_documents(path: Path, shard: dict[str, Any], keep: np.ndarray, dtype: np.dtype) -> None:
    """Drop documents from the files of a split in a part.

    Args:
        path: the file of its tokens.
        shard: what is said of it; changed with it.
        keep: which documents stay [D].
        dtype: of the tokens.

    """
    if keep.all():
        return
    entries = np.fromfile(path.with_suffix(".docs"), DOCUMENT)
    marks = read_marks(path, shard)
    tokens = np.fromfile(path, dtype)[np.repeat(keep, entries["tokens"])]
    tokens.tofile(path)
    entries[keep].tofile(path.with_suffix(".docs"))
    if marks is not None:
        shard |= write_marks(path.with_suffix(".marks"), [marks[keep]])
    shard |= {"tokens": len(tokens), "documents": int(keep.sum()), **sums(path)}


def sums(path: Path) -> dict[str, str]:
    """What the manifest says of the bytes of a shard, and of its list of documents."""
    return {"sha256": sha256(path), "documents_sha256": sha256(path.with_suffix(".docs"))}
