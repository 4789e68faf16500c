"""What models are evaluated on, as passages of words: any text of some words in the files of a task."""

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmlm.data.cleaning.ngrams import WordHashes, ngrams
from jaxmlm.data.separated import allow_long_fields
from jaxmlm.directories import expanded, files_below
from jaxmlm.errors import InputError, brief
from jaxmlm.textfiles import read_text

ENDINGS = (".json", ".jsonl", ".tsv", ".csv", ".txt")
SHORTEST = 8
LONGEST = 13
"""The words of a run, n: 13 (Brown et al. 2020, appendix C), and fewer for a set of short texts, as BLiMP's sentences:
half of a set's words are in passages of at least n words."""


class EvaluationSet(NamedTuple):
    """The passages of an evaluation set.

    Attributes:
        name: what tables call it.
        n: words of a run that counts as held.
        ngrams: the runs of its passages [R], sorted, each once.
        passage: which passages a run is of: `passage[first[i]:first[i + 1]]` for run i.
        first: [R + 1].
        passages: how many have at least n words.
        runs: of each passage [passages].

    """

    name: str
    n: int
    ngrams: np.ndarray
    passage: np.ndarray
    first: np.ndarray
    passages: int
    runs: np.ndarray


def named(text: str) -> tuple[str, Path]:
    """The name of an evaluation set, as `NAME=PATH` or PATH gives it, and where it is.

    >>> named("glue=data/glue_data")[0], named("data/glue_data/")[0]
    ('glue', 'glue_data')
    """
    name, equals, path = text.partition("=")
    where = expanded(path if equals else text)
    return (name if equals else where.name), where


def files_of(text: str) -> list[Path]:
    """The files of an evaluation set; InputError if there is none."""
    name, where = named(text)
    found = [where]
    if not where.is_file():
        below = files_below(where) if where.is_dir() else ()
        found = sorted(path for path in below if path.suffix.lower() in ENDINGS)
    if not name or not found or any(path.suffix.lower() not in ENDINGS for path in found):
        raise InputError(
            f"data.clean.evaluation_sets: no file that ends in {', '.join(ENDINGS)} at {str(where)!r}: name a file or "
            "directory, or NAME=PATH"
        )
    return found


def fingerprint(text: str) -> dict[str, Any]:
    """What the manifest of a store says of an evaluation set: its name, and one SHA-256 over its files."""
    sums = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files_of(text)]
    return {"set": named(text)[0], "files": len(sums), "sha256": hashlib.sha256("".join(sums).encode()).hexdigest()}


def read(text: str) -> EvaluationSet:
    """Read an evaluation set.

    Raises:
        InputError: there is none, a file is damaged, or no passage has 8 words.

    """
    hashes = WordHashes()
    distinct = dict.fromkeys(passage for path in files_of(text) for passage in _passages(path))
    long = (passage for passage in distinct if len(passage) >= 2 * SHORTEST - 1)  # most are numbers and labels
    passages = [words for words in map(hashes, long) if len(words) >= SHORTEST]
    if not passages:
        raise InputError(f"data.clean.evaluation_sets: no text of {SHORTEST} words or more in {text!r}: name another")
    lengths = np.sort([len(words) for words in passages])
    half = lengths[np.searchsorted(lengths.cumsum(), lengths.sum() / 2)]
    n = int(min(half, LONGEST))
    passages = [words for words in passages if len(words) >= n]
    runs = np.array([len(words) - n + 1 for words in passages])
    # Over all passages at once, without the runs from one into the next.
    ends = np.cumsum([len(words) for words in passages])
    within = np.ones(ends[-1], bool)
    for k in range(1, n):
        within[ends - k] = False
    found = ngrams(np.concatenate(passages), n)[within[: ends[-1] - n + 1]]
    order = np.argsort(found, kind="stable")
    different, first = np.unique(found[order], return_index=True)
    passage = np.repeat(np.arange(len(passages)), runs)[order]
    return EvaluationSet(named(text)[0], n, different, passage, np.append(first, len(found)), len(passages), runs)


def _passages(path: Path) -> Iterator[str]:
    """Every text in a file: a string in JSON, a field of a table, what is between blank lines."""
    content = read_text(path)
    try:
        if path.suffix.lower() == ".txt":
            yield from content.split("\n\n")
        elif path.suffix.lower() == ".json":
            yield from _strings(json.loads(content))
        elif path.suffix.lower() == ".jsonl":
            for line in filter(None, content.split("\n")):
                yield from _strings(json.loads(line))
        else:
            # Those of GLUE have quotation marks that are not closed.
            tabs = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if path.suffix.lower() == ".tsv" else {}
            allow_long_fields()
            for row in csv.reader(io.StringIO(content, newline=""), **tabs):
                yield from row
    except (ValueError, RecursionError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as an evaluation set ({brief(error)}): is it complete?") from error


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
