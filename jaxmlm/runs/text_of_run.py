"""On which text a run is trained: its tokenizer, its tokens and its phrases by their SHA-256, as run.json has them.

A configuration names its text by a path, and the file there can change.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxmlm.data import Store
from jaxmlm.data.manifest import phrases_file
from jaxmlm.errors import InputError
from jaxmlm.runs.loading import sha256_of
from jaxmlm.runs.workdir import read_metadata


def text_of(store: Store, phrases: bool = False) -> dict[str, str]:
    """What run.json says of the text of a run.

    Args:
        store: the token store that it reads.
        phrases: whether its masks are of the phrases of that store.

    """
    found = {"tokenizer": sha256_of(store.tokenizer), "tokens": store.tokens_sha256}
    return found | ({"phrases": phrases_file(store.manifest).sha256} if phrases else {})


def is_of_text(about: Mapping[str, Any], text: Mapping[str, str]) -> bool:
    """Whether a run.json says this of its text; those of earlier versions say nothing of their tokens.

    >>> is_of_text({"tokenizer": "a", "tokens": "b"}, {"tokenizer": "a", "tokens": "c"})
    False
    >>> is_of_text({"tokenizer": "a"}, {"tokenizer": "a", "tokens": "c"})
    True
    """
    return all(about.get(name, sha256) == sha256 for name, sha256 in text.items())


def check_text(directory: Path, store: Store, phrases: bool = False) -> None:
    """Refuse to resume a run on another text than it was begun on.

    Args:
        directory: of the run; one that was not begun has no text yet.
        store: the token store that it would read now.
        phrases: whether its masks are of the phrases of that store.

    Raises:
        InputError: it was begun on others.

    """
    record = directory / "run.json"
    if not record.is_file() or not record.stat().st_size:
        return
    if not is_of_text(read_metadata(record), text_of(store, phrases)):
        raise InputError(
            f"{directory} holds a run of another text, tokenizer or phrase list than the token store "
            f"{store.directory} has now: put back what it was made of and prepare it again, or name another --workdir"
        )
