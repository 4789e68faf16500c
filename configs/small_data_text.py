"""The text of the small-data track: ten million words of Wikipedia and novels, chosen by a hash of each document."""

import hashlib
import re
from collections.abc import Iterator

from jaxmlm import InputError
from jaxmlm.data.sources import documents, files

WORDS = {"wiki": (6_000_000, 48_520_000), "novels": (4_000_000, 23_560_000)}
"""Words to take, and words that the files of the track have: each document is taken with this probability, whatever the
file, so a file of another length gives other words. Put its number here to take as many of it."""
DOCUMENT = 1000
"""A novel is cut after the paragraph in which a document reaches so many words."""
SENTENCE_END = re.compile(r"""(?<=[.!?])(["'”’)\]]*)\s+(?=["'“‘(\[]*[A-Z0-9])""")


def track(texts: str) -> Iterator[str]:
    """The documents of the track.

    Args:
        texts: WIKI+NOVELS, two text files with a blank line after each document and a line for each paragraph.

    """
    names = texts.split("+")
    if len(names) != len(WORDS):
        raise InputError(f"the track is made of WIKI+NOVELS, two text files; got {texts!r}")
    for name, (wanted, there) in zip(names, WORDS.values(), strict=True):
        for document in documents(files(name)):
            for text in _pieces(document.text):
                if _hash(text) < wanted / there:
                    yield text


def sentences(texts: str) -> Iterator[str]:
    """The sentences of the track's documents, each as a document of its own."""
    for document in track(texts):
        for paragraph in document.splitlines():
            yield from (piece for piece in SENTENCE_END.sub(r"\1\n", paragraph).splitlines() if len(piece.split()) > 2)


def _pieces(text: str) -> Iterator[str]:
    """A text in pieces of about `DOCUMENT` words that end with a paragraph; the last one may be shorter."""
    pending: list[str] = []
    words = 0
    for paragraph in text.splitlines():
        pending.append(paragraph)
        words += len(paragraph.split())
        if words >= DOCUMENT:
            yield "\n".join(pending)
            pending, words = [], 0
    if pending:
        yield "\n".join(pending)


def _hash(text: str) -> float:
    """A number in [0, 1) that the text decides."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
