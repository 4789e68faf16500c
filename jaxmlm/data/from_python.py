"""Documents that a Python program gives, one after the other, as the source of a token store."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jaxmlm.data.building import words_in
from jaxmlm.data.config import Data
from jaxmlm.data.sources import TextSource
from jaxmlm.errors import InputError

PREFIX = "documents:"


def refused(text: str, data: Data) -> TextSource:
    """Say of a configuration whose documents come from a program, and whose store is not there, who makes it.

    Raises:
        InputError: always.

    """
    raise InputError(
        f"data.text {text!r} is documents that a program gives to jaxmlm.prepare, and their store is not there: run "
        "that program first, and name the same data.store"
    )


def given(documents: Iterable[Any], data: Data) -> TextSource:
    """Return these documents as a source.

    Args:
        documents: strings, or mappings with the text in `data.field`. They are read once, so an iterator will do: what
            the tokenizer is trained on is kept meanwhile.
        data: the configuration; its `text` is documents:NAME.

    Raises:
        InputError: `data.text` is another one; while they are read: a document is not text.

    """
    name = data.text.removeprefix(PREFIX)
    if not data.text.startswith(PREFIX) or not name or len(data.texts) > 1:
        raise InputError(
            f"data.text is {data.text!r}: of documents that a program gives write documents:NAME, with another NAME "
            "for other documents"
        )
    replayed = _Replayed(_texts(documents, data), data.tokenizer_words if data.new_words or not data.tokenizer else 0)
    return TextSource.of(lambda: iter(replayed), {"file": data.text})


def _texts(documents: Iterable[Any], data: Data) -> Iterator[str]:
    for number, document in enumerate(documents, 1):
        text = document.get(data.field) if isinstance(document, Mapping) else document
        if not isinstance(text, str):
            got = type(document).__name__
            if isinstance(document, Mapping):
                fields = ", ".join(map(str, document))[:200]
                got = f"{got} whose field {data.field!r} is {type(text).__name__} (it has {fields or 'none'})"
            raise InputError(
                f"{data.text}, document {number}: not text, but {got}: give strings, or mappings with a string in the "
                "field that data.field names"
            )
        yield text


class _Replayed:
    """An iterator that can be begun again until more words of it are read than the tokenizer is trained on."""

    def __init__(self, texts: Iterator[str], words: int):
        self._texts = texts
        self._words = words
        self._kept: list[str] = []
        self._complete = True

    def __iter__(self) -> Iterator[str]:
        if not self._complete:
            raise RuntimeError("the documents of a program are read once, and this is the second time")
        yield from self._kept
        for text in self._texts:
            if self._words > 0:
                self._words -= words_in(text)
                self._kept.append(text)
            else:
                self._complete = False
                self._kept.clear()
            yield text
