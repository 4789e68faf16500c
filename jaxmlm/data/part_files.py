"""The files of a part of a token store that is being made: tokens, lists of documents, marks of the cleaning."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from jaxmlm.data.cleaning.marking import MARK
from jaxmlm.data.manifest import DOCUMENT


class SplitFiles:
    """The documents of a split in a part, as they are written.

    Args:
        directory: where the parts are.
        name: of the files, without their endings.
        dtype: of the tokens.
        marked: whether each document has a mark.

    """

    def __init__(self, directory: Path, name: str, dtype: np.dtype, marked: bool = False):
        self.directory, self.name, self.dtype = directory, name, dtype
        self.marks: list[np.ndarray] | None = [] if marked else None
        self.file, self.sha = open(directory / f"{name}.bin", "wb"), hashlib.sha256()
        self.documents: list[tuple[int, int, int, int]] = []

    def add(self, ids: np.ndarray, entry: tuple[int, int, int, int], mark: np.ndarray | None = None) -> None:
        """Add a document: its tokens, its entry in the list of documents, and its mark [1]."""
        raw = ids.tobytes()
        self.file.write(raw)
        self.sha.update(raw)
        self.documents.append(entry)
        if self.marks is not None and mark is not None:
            self.marks.append(mark)

    def close(self) -> dict[str, Any]:
        """Finish the files; what the manifest says of them."""
        self.file.close()
        entries = np.array(self.documents, DOCUMENT)
        entries.tofile(self.directory / f"{self.name}.docs")
        marks = {} if self.marks is None else write_marks(self.directory / f"{self.name}.marks", self.marks)
        return {
            **marks,
            "file": f"{self.name}.bin",
            "tokens": int(entries["tokens"].sum(dtype=np.int64)),
            "documents": len(entries),
            "sha256": self.sha.hexdigest(),
            "documents_sha256": hashlib.sha256(entries.tobytes()).hexdigest(),
        }


def write_marks(path: Path, marks: list[np.ndarray]) -> dict[str, Any]:
    """Write the marks of the documents of a split; what the part's file says of them."""
    found = np.concatenate(marks) if marks else np.zeros(0, MARK)
    found.tofile(path)
    return {"marks_sha256": hashlib.sha256(found.tobytes()).hexdigest()}


def read_marks(path: Path, about: dict[str, Any]) -> np.ndarray | None:
    """Read the marks of the documents of a split in a part.

    Args:
        path: the file of its tokens.
        about: what the part's file says of the split.

    Returns:
        MARK of each document [D], or None where they are missing or damaged.

    """
    path = path.with_suffix(".marks")
    if not path.is_file() or path.stat().st_size != about["documents"] * MARK.itemsize:
        return None
    found = np.fromfile(path, MARK)
    return found if hashlib.sha256(found.tobytes()).hexdigest() == about.get("marks_sha256") else None


def write_found(path: Path, found: np.ndarray) -> str:
    """Write which runs of the evaluation sets a part has [runs]; the SHA-256 of the file."""
    raw = np.packbits(found).tobytes()
    path.write_bytes(raw)
    return hashlib.sha256(raw).hexdigest()


def read_found(path: Path, sha256: Any, runs: int) -> np.ndarray | None:
    """Read which runs of the evaluation sets a part has [runs]; None where the file is missing or damaged."""
    raw = path.read_bytes() if path.is_file() else b""
    if len(raw) != -(-runs // 8) or hashlib.sha256(raw).hexdigest() != sha256:
        return None
    return np.unpackbits(np.frombuffer(raw, np.uint8), count=runs).astype(bool)
