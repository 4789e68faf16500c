"""The files of tagging tasks: CoNLL-2003's columns, JSON lines of tokens and tags, CoNLL-U; mistakes by their rows."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxmlm.directories import expanded
from jaxmlm.errors import InputError
from jaxmlm.tasks import conllu, file_formats
from jaxmlm.tasks.file_formats import brief, decoded, json_lines

UPOS = ("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT", "SCONJ",
        "SYM", "VERB", "X")  # fmt: skip
"""The universal parts of speech (universaldependencies.org/u/pos), in the order of the class numbers."""
_NAMES = {
    "train": ("train.txt", "train.conll", "train.bio", "eng.train", "train.jsonl", "train.json"),
    "dev": (
        *("dev.txt", "valid.txt", "dev.conll", "valid.conll", "dev.bio", "eng.testa"),
        *("dev.jsonl", "valid.jsonl", "validation.jsonl", "dev.json", "valid.json"),
    ),
    "test": ("test.txt", "test.conll", "test.bio", "eng.testb", "test.jsonl", "test.json"),
}
"""What the files of a part are called, by CoNLL-2003, its copies and others in its format."""
_DOCUMENT = "-DOCSTART-"
_BETWEEN = re.compile("[ \t\r\n]+")  # words; any other white space is of a word
_BIO = re.compile(r"O|[BI]-\S+")


class TaggedSentence(NamedTuple):
    """The words of a sentence and the tag of each; `rows` are their lines in the file (upos: the sentence)."""

    words: list[str]
    tags: list[str]
    rows: list[int]


class TaggedFile(NamedTuple):
    """The sentences of a file, and what was changed in them."""

    path: Path
    sentences: list[TaggedSentence]
    notes: tuple[str, ...] = ()


def named_part(directory: Path, part: str, given: str | None) -> Path | None:
    """The file of a part: the one `given`, in the directory or elsewhere, or the one with a usual name.

    Raises:
        InputError: there are several of a usual name, or the training or dev file is missing.

    """
    if given is not None:
        path = directory / given
        return path if path.is_file() else expanded(given)
    found = [directory / name for name in _NAMES[part] if (directory / name).is_file()]
    if len(found) > 1:
        raise InputError(
            f"{directory}: {' and '.join(path.name for path in found)} may both be the {part} part: name one, --{part}"
            if part != "test"
            else f"{directory}: {' and '.join(path.name for path in found)} may both be the test part: leave one there"
        )
    if not found and part != "test":
        raise InputError(
            f"{directory}: no {part} part: expected one of {', '.join(_NAMES[part])}; --{part} FILE takes another one"
        )
    return found[0] if found else None


def read_bio(path: Path) -> TaggedFile:
    """Sentences with BIO tags: JSON lines (.jsonl, .json), or columns of which the first is the word, the last the tag.

    Tags of CoNLL-2003's own files, where B- stands between two entities of one type only (IOB1), become those of today
    (IOB2), which a note says.

    Raises:
        InputError: a column is missing, a tag is not O, B-TYPE or I-TYPE, or an I-TYPE continues nothing.

    """
    sentences = _sentences(path, tagged=True)
    for sentence in sentences:
        for tag, row in zip(sentence.tags, sentence.rows, strict=True):
            if not _BIO.fullmatch(tag):
                raise InputError(
                    f"{path}:{row}: the tag is {brief(tag)!r}: expected O, B-TYPE or I-TYPE (BIO), as B-PER; other "
                    "schemes, as BIOES, must be converted"
                )
    broken = next((fault for sentence in sentences if (fault := _broken(sentence)) is not None), None)
    if broken is None:
        return TaggedFile(path, sentences)
    if all(_is_iob1(sentence.tags) for sentence in sentences):
        kept = [sentence._replace(tags=_iob2(sentence.tags)) for sentence in sentences]
        return TaggedFile(path, kept, (f"{path.name}: tags in IOB1, as CoNLL-2003's own files, are read as IOB2",))
    row, tag, before = broken
    raise InputError(
        f"{path}:{row}: the tag {brief(tag)!r} continues nothing: before it stands {brief(before)}; an entity begins "
        f"with B-{brief(tag[2:])}"
    )


def read_words(path: Path) -> list[list[str]]:
    """The words of each sentence of a file whose tags, if it has any, are not read.

    CoNLL-U (.conllu), JSON lines of tokens (.jsonl, .json), or columns of which the first is the word.

    Raises:
        InputError: there is no such file, or it has no words or is of another form.

    """
    if path.suffix.lower() == ".conllu":
        found = [[word.form for word in sentence.words] for sentence in conllu.read(path)]
    else:
        found = [sentence.words for sentence in _sentences(path, tagged=False)]
    return [words for words in found if words]


def _sentences(path: Path, tagged: bool) -> list[TaggedSentence]:
    """The sentences of JSON lines or columns; without tags these are empty strings."""
    if not path.is_file():
        raise InputError(f"{path} is missing")
    as_json = path.suffix.lower() in (".jsonl", ".json")
    sentences = list(_of_json(path, tagged) if as_json else _of_columns(path, tagged))
    if not any(sentence.words for sentence in sentences):
        line, item = ("a word and its tag", "tokens and tags") if tagged else ("a word", "tokens")
        raise InputError(f"{path}: no words: expected {line} on each line, or JSON lines of {item}")
    return sentences


def read_upos(path: Path) -> TaggedFile:
    """The words of a CoNLL-U file and their parts of speech.

    Raises:
        InputError: it is not CoNLL-U, or a part of speech is not one of the universal ones.

    """
    sentences = [sentence for sentence in conllu.read(path, UPOS) if sentence.words]  # others have empty nodes only
    found = []
    for number, sentence in enumerate(sentences, 1):
        words = [word.form for word in sentence.words]
        found.append(TaggedSentence(words, [word.upos for word in sentence.words], [number] * len(words)))
    return TaggedFile(path, found)


def _of_columns(path: Path, tagged: bool) -> Iterator[TaggedSentence]:
    columns = 0
    words: list[str] = []
    tags: list[str] = []
    rows: list[int] = []
    with path.open("rb") as file:
        lines = [(number, _fields(decoded(raw, f"{path}:{number}"))) for number, raw in file_formats.lines(file)]
    for number, fields in [*lines, (len(lines) + 1, [])]:
        if not fields or fields[0] == _DOCUMENT:
            if words:
                yield TaggedSentence(words, tags, rows)
                words = []
                tags = []
                rows = []
            continue
        columns = columns or len(fields)
        if tagged and (len(fields) < 2 or len(fields) != columns):
            wanted = columns if columns > 1 else "2 or more"
            raise InputError(
                f"{path}:{number}: {len(fields)} columns, expected {wanted}: a word, perhaps others, and the tag last, "
                "separated by spaces or tabs"
            )
        words.append(fields[0])
        tags.append(fields[-1] if tagged else "")
        rows.append(number)


def _fields(line: str) -> list[str]:
    r"""The columns of a line, between spaces and tabs.

    >>> _fields("10\u00a0000\tO "), _fields(" ")
    (['10\xa0000', 'O'], [])
    """
    return _BETWEEN.split(line.strip(" \t\r")) if line.strip() else []


def _of_json(path: Path, tagged: bool) -> Iterator[TaggedSentence]:
    for where, item in json_lines(path):
        words = _list_of(item, "tokens", where)
        tags = _list_of(item, "tags", where) if tagged else [""] * len(words)
        for name, part in (("tokens", words), ("tags", tags)):
            if wrong := [one for one in part if not isinstance(one, str)]:
                hint = ": class numbers have no order of their own, give the names" if name == "tags" else ""
                raise InputError(f"{where}: {name} holds {brief(repr(wrong[0]))}, expected strings{hint}")
        if len(words) != len(tags):
            raise InputError(f"{where}: {len(words)} tokens and {len(tags)} tags: give each token its tag")
        if wrong := [word for word in words if not word.strip() or _BETWEEN.search(word)]:
            raise InputError(f"{where}: the token {brief(wrong[0])!r} is empty or has white space: give single words")
        row = int(where.rpartition(":")[2])
        yield TaggedSentence(words, tags, [row] * len(words))


def _list_of(item: Any, name: str, where: str) -> list[Any]:
    found = item.get(name) if isinstance(item, dict) else None
    if not isinstance(found, list):
        there = f"; there are: {brief(', '.join(map(str, item)))}" if isinstance(item, dict) else ""
        raise InputError(f'{where}: no list {name!r}: write {{"tokens": [...], "tags": [...]}}{there}')
    return found


def _broken(sentence: TaggedSentence) -> tuple[int, str, str] | None:
    """The row and the tag of the first I-TYPE that does not continue a TYPE, and what stands before it."""
    before = ""
    for tag, row in zip(sentence.tags, sentence.rows, strict=True):
        if tag.startswith("I-") and before[2:] != tag[2:]:
            return row, tag, repr(before) if before else "nothing"
        before = tag
    return None


def _is_iob1(tags: Sequence[str]) -> bool:
    """Whether every B-TYPE follows a TYPE."""
    pairs = zip(["O", *tags], tags, strict=False)
    return all(before[2:] == tag[2:] for before, tag in pairs if tag.startswith("B-"))


def _iob2(tags: Sequence[str]) -> list[str]:
    """IOB1 as IOB2: the first word of each entity has B-.

    >>> _iob2(["I-PER", "I-PER", "B-PER", "I-LOC", "O"])
    ['B-PER', 'I-PER', 'B-PER', 'B-LOC', 'O']
    """
    pairs = zip(["O", *tags], tags, strict=False)
    return ["B" + tag[1:] if tag.startswith("I-") and before[2:] != tag[2:] else tag for before, tag in pairs]
