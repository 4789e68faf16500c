"""CoNLL-U treebanks: words with part of speech, features, head and relation, and where they stand in the text.

The format: https://universaldependencies.org/format.html
"""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from jaxmlm.errors import InputError
from jaxmlm.tasks import file_formats
from jaxmlm.tasks.file_formats import brief


class Word(NamedTuple):
    """A syntactic word: head 0 is the root; [begin, end) its characters in the sentence.

    The words of a multiword token ("don't": do, n't) share the characters of the token.
    """

    form: str
    upos: str
    features: dict[str, str]
    head: int
    relation: str
    begin: int
    end: int


class Sentence(NamedTuple):
    """The text, rebuilt from the tokens and their SpaceAfter=No; its words; the characters of each token."""

    text: str
    words: list[Word]
    tokens: list[tuple[int, int]]


def files_of(directory: Path, part: str) -> list[Path]:
    """The one file of a part, or those that it is cut into: xx-ud-train-a.conllu, xx-ud-train-b.conllu."""
    found = [path for path in file_formats.named(directory, ".conllu") if part in path.stem.lower()]
    names = [path.stem.lower().rpartition(part) for path in found]
    one = len(found) == 1 or (len({before for before, *_ in names}) == 1 and all(after for *_, after in names))
    if not one:
        there = f" ({file_formats.brief(', '.join(path.name for path in found))})" if found else ""
        raise InputError(
            f"{directory}: {len(found)} files *{part}*.conllu{there}: "
            "give the directory of one Universal Dependencies treebank"
        )
    return found


def read(path: str | Path, parts: Collection[str] = ()) -> list[Sentence]:
    """The sentences of a file, without empty nodes (1.1), which are not in the text; `parts`: of speech that pass."""
    sentences: list[Sentence] = []
    rows: list[tuple[int, list[str]]] = []
    try:
        with Path(path).open("rb") as file:
            lines = list(file_formats.lines(file))
    except OSError as e:
        raise InputError(f"{path}: cannot be read: {e.strerror}") from e
    for number, raw in [*lines, (len(lines) + 1, b"")]:
        line = file_formats.decoded(raw, f"{path}:{number}")
        if not line.strip():
            if rows:
                sentences.append(_sentence(rows, str(path), parts))
                rows = []
        elif not line.startswith("#"):
            columns = line.split("\t")
            if len(columns) != 10:
                raise InputError(f"{path}:{number}: {len(columns)} columns: CoNLL-U has 10, separated by tabs")
            rows.append((number, columns))
    if not sentences:
        raise InputError(f"{path}: no sentences: expected CoNLL-U, a word on each line")
    return sentences


def _sentence(rows: list[tuple[int, list[str]]], path: str, parts: Collection[str]) -> Sentence:
    text = ""
    covered = 0
    count = sum(c[0].isdecimal() for _, c in rows)
    words: list[Word] = []
    tokens: list[tuple[int, int]] = []
    for number, (id_, form, _, upos, _, features, head, relation, _, misc) in rows:
        where = f"{path}:{number}"
        if "." in id_:
            continue
        first, dash, last = id_.partition("-")
        if not first.isdecimal() or int(first) != len(words) + 1 or (dash and not last.isdecimal()):
            raise InputError(
                f"{where}: the id is {brief(id_)!r}: expected {len(words) + 1}, or a range that begins there"
            )
        if dash or int(first) > covered:  # a token of the text: all but the words inside of a multiword token
            tokens.append((len(text), len(text) + len(form)))
            text += form + ("" if "SpaceAfter=No" in misc.split("|") else " ")
            covered = int(last or first)
        if dash:
            continue
        if not head.isdecimal() or int(head) > count or int(head) == int(first):
            raise InputError(
                f"{where}: the head of word {id_} is {brief(head)!r}: expected another word, 1 to {count}, or 0"
            )
        if parts and upos not in parts:
            raise InputError(f"{where}: the part of speech is {brief(upos)!r}: expected one of {', '.join(parts)}")
        pairs = (pair.partition("=") for pair in features.split("|") if pair != "_")
        words.append(Word(form, upos, {k: v for k, _, v in pairs}, int(head), relation, *tokens[-1]))
    if covered > count:
        raise InputError(f"{path}:{rows[-1][0]}: a multiword token ends at word {covered} and the last one is {count}")
    return Sentence(text.rstrip(" "), words, tokens)


def depth(sentence: Sentence) -> int:
    """The longest path from the root to a word, in arcs; -1 where the heads go round in a circle.

    >>> word = Word("a", "X", {}, 0, "root", 0, 1)
    >>> depth(Sentence("a a", [word, word._replace(head=1, relation="dep")], [(0, 1), (2, 3)]))
    1
    """
    deepest = 0
    for word in sentence.words:
        steps = 0
        at = word
        while at.head:
            steps = steps + 1
            at = sentence.words[at.head - 1]
            if steps > len(sentence.words):
                return -1
        deepest = max(deepest, steps)
    return deepest
