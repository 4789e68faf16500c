"""Which source a text of `data.text` names: text files, or what is registered under its prefix."""

from collections.abc import Callable, Iterable

from jaxmlm.data import from_python, from_tfds
from jaxmlm.data.config import Data
from jaxmlm.data.sources import TextSource, open_files
from jaxmlm.errors import InputError
from jaxmlm.fields import source_hash
from jaxmlm.synthetic import world

Opener = Callable[[str, Data], TextSource]
"""Opens a text, as written in `data.text`, for a configuration."""


def register_source(name: str, documents: Callable[[str], Iterable[str]]) -> None:
    """Add a text source of your own, from a config file: `data.text = "NAME:ARGUMENT"` reads `documents(ARGUMENT)`.

    A token store remembers the file that the function is defined in; one that was made with another is refused.

    Args:
        name: the prefix; letters, digits, `-` and `_`.
        documents: gives the same documents, in the same order, each time it is called.

    Raises:
        InputError: the name is taken, or is not a prefix.

    >>> register_source("fables", lambda animal: [f"the {animal} and the grapes", f"the {animal} and the crow"])
    >>> source = open_source("fables:fox", Data())
    >>> [document.text for document in source.documents()]
    ['the fox and the grapes', 'the fox and the crow']
    """
    if not name.replace("-", "").replace("_", "").isalnum() or len(name) == 1:  # one letter is a drive
        raise InputError(f"a text source cannot be called {name!r}: give two or more letters, digits, - or _")
    if name in BUILT_IN or name in ("gs", "hf", "http", "https", "s3"):
        raise InputError(f"there is a text source {name!r} already: give yours another name")

    def opener(text: str, data: Data) -> TextSource:
        return TextSource.of(lambda: documents(_argument(text)), {"file": text, **source_hash(documents)})

    _SOURCES[name] = opener


def open_source(text: str, data: Data) -> TextSource:
    """Open one of the texts that a configuration names.

    Raises:
        InputError: there is no such file, data set or source.

    """
    opener = _opener(text)
    return opener(text, data) if opener else open_files(text, data.layout, data.field)


def is_files(text: str) -> bool:
    """Whether a text is files, on this machine or anywhere else.

    >>> is_files("my/*.txt"), is_files("gs://bucket/a.txt"), is_files("sample:20"), is_files("tfds:lm1b")
    (True, True, False, False)
    """
    return _opener(text) is None


def _opener(text: str) -> Opener | None:
    name, colon, _ = text.partition(":")
    return _SOURCES.get(name) if colon else None


def _argument(text: str) -> str:
    return text.partition(":")[2]


def _generated(text: str, data: Data) -> TextSource:
    count = _argument(text)
    if not count.isdecimal() or int(count) < 1:
        raise InputError(f"data.text {text!r}: write sample:N with N generated documents, as sample:20000")
    return TextSource.of(lambda: world.documents(0, int(count)), {"file": text}, int(count))


_SOURCES: dict[str, Opener] = {
    "documents": from_python.refused,
    "sample": _generated,
    "tfds": lambda text, data: from_tfds.opened(text, data.field),
}
BUILT_IN = frozenset(_SOURCES)
