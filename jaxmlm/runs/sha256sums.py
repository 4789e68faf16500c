"""What proves the files of an exported directory: SHA256SUMS, which `sha256sum --check` reads too.

The `transformers` format has no checksum of its own, and whoever owns the directory may change a file on purpose: one
that is not as it was exported is told, and used.
"""

import hashlib
from pathlib import Path

from jaxmlm.textfiles import read_bytes

NAME = "SHA256SUMS"
FREE = (NAME, "README.md")
"""Files without a sum: a model card is written to be edited."""


def write_sums(directory: Path) -> None:
    """Write the SHA-256 of every file of a directory, but for the model card.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     _ = (Path(name) / "config.json").write_text("{}")
    ...     write_sums(Path(name))
    ...     _ = (Path(name) / "config.json").write_text("[]")
    ...     changed(Path(name))
    ['config.json']
    """
    files = sorted(path for path in directory.iterdir() if path.is_file() and path.name not in FREE)
    (directory / NAME).write_text("".join(f"{_sha256(path)}  {path.name}\n" for path in files))


def changed(directory: Path) -> list[str]:
    """Return the names of files that are missing, or not as they were exported; none where there is no list."""
    path = directory / NAME
    if not path.is_file():
        return []
    lines = [line.split("  ", 1) for line in read_bytes(path, "SHA-256 sums").decode(errors="replace").splitlines()]
    names = {parts[-1]: parts[0] for parts in lines}
    return [name for name, sum_ in names.items() if Path(name).name != name or _sha256(directory / name) != sum_]


def _sha256(path: Path) -> str:
    if not path.is_file():
        return "missing"
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
