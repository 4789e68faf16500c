"""Entities out of BIO tags, the entity F1 of CoNLL-2003 (whole spans that are right), and tagged parts of a text.

As seqeval and the script conlleval count them; written here, since seqeval needs scikit-learn and is not released any
more (tests/parity compares the two).
"""

import string
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2FA1F))


class Entity(NamedTuple):
    """An entity: its type, and its words [first, stop)."""

    label: str
    first: int
    stop: int


class Spans(NamedTuple):
    """How many entities of sentences are right, how many were predicted, how many there are: [sentences] each."""

    right: np.ndarray
    predicted: np.ndarray
    gold: np.ndarray


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a sentence. An I- tag that continues nothing begins an entity, as a model may predict it.

    >>> entities(["B-PER", "I-PER", "O", "I-LOC", "I-PER", "B-PER"])
    [Entity(label='PER', first=0, stop=2), Entity(label='LOC', first=3, stop=4), Entity(label='PER', first=4, stop=5), \
Entity(label='PER', first=5, stop=6)]
    """
    found: list[Entity] = []
    for i, tag in enumerate(tags):
        prefix, _, label = tag.partition("-")
        if prefix == "O":
            continue
        if prefix == "I" and found and found[-1].stop == i and found[-1].label == label:
            found[-1] = found[-1]._replace(stop=i + 1)
        else:
            found.append(Entity(label, i, i + 1))
    return found


def spans(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], label: str | None = None) -> Spans:
    """Count the entities of each sentence; those of one type, if a `label` is given."""
    counts = np.zeros((3, len(gold)), int)
    for i, (truth, said) in enumerate(zip(gold, predicted, strict=True)):
        a, b = ({one for one in entities(tags) if label in (None, one.label)} for tags in (truth, said))
        counts[:, i] = len(a & b), len(b), len(a)
    return Spans(*counts)


def span_f1(counts: np.ndarray) -> float:
    """The F1 of counts [sentences, 3] of right, predicted and gold entities; 0 where none is right.

    >>> span_f1(np.array([[1, 2, 1], [0, 0, 1]]))
    0.5
    """
    right, predicted, gold = counts.sum(axis=0).tolist()
    return 2 * right / (predicted + gold) if right else 0.0


def entity_scores(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """F1, precision and recall over the entities of all types, then the F1 of each type, as `f1_PER`."""
    counts = spans(gold, predicted)
    right, said, there = (int(part.sum()) for part in counts)
    scores = {
        "f1": span_f1(np.stack(counts, axis=1)),
        "precision": right / said if said else 0.0,
        "recall": right / there if there else 0.0,
    }
    types = sorted({tag.partition("-")[2] for tags in gold for tag in tags} - {""})
    return scores | {f"f1_{name}": span_f1(np.stack(spans(gold, predicted, name), axis=1)) for name in types}


class Tagged(NamedTuple):
    """A tagged part of a text: its characters [begin, end), and the mean of its words' probabilities."""

    text: str
    label: str
    begin: int
    end: int
    probability: float


def tagged(text: str, offsets: Sequence[tuple[int, int]], logits: np.ndarray, labels: Sequence[str]) -> list[Tagged]:
    """The entities of a text, if the labels are BIO; else every word with its tag. A word's is that of its first token.

    Args:
        text: the text.
        offsets: [L, 2] the characters [begin, end) of each token.
        logits: [L, C] of each token.
        labels: the names of the classes.

    >>> logits = np.array([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]])
    >>> [one] = tagged("Ada Lovelace wrote.", [(0, 3), (4, 12), (13, 19)], logits, ["B-PER", "I-PER", "O"])
    >>> one[:4]
    ('Ada Lovelace', 'PER', 0, 12)
    """
    words = words_of(text)
    first = first_pieces(offsets, *np.array(words, int).reshape(-1, 2).T)
    places = [place for place, at in zip(words, first, strict=True) if at >= 0]
    chosen = logits[first[first >= 0]].astype(np.float64)
    tags: list[str] = [labels[int(i)] for i in chosen.argmax(-1)]
    shares = np.exp(chosen.max(-1, initial=-np.inf) - np.logaddexp.reduce(chosen, axis=-1))
    found = entities(tags) if is_bio(labels) else [Entity(tag, i, i + 1) for i, tag in enumerate(tags)]
    parts = []
    for label, start, stop in found:
        begin, end = places[start][0], places[stop - 1][1]
        parts.append(Tagged(text[begin:end], label, begin, end, float(shares[start:stop].mean())))
    return parts


def first_pieces(
    offsets: Sequence[tuple[int, int]] | np.ndarray, begin: Sequence[int] | np.ndarray, end: Sequence[int] | np.ndarray
) -> np.ndarray:
    """For each word the first token that shares a character with it; -1 where none does.

    Args:
        offsets: [L, 2] the characters [begin, end) of each token.
        begin: [W] the first character of each word.
        end: [W] one past its last.

    >>> first_pieces([(0, 2), (2, 5), (6, 7)], [0, 5, 6], [5, 6, 7]).tolist()
    [0, -1, 2]
    """
    places = np.asarray(offsets, int).reshape(-1, 2)
    first = np.searchsorted(places[:, 1], begin, side="right")
    stop = np.searchsorted(places[:, 0], end, side="left")
    return np.where(first < stop, first, -1)


def is_bio(labels: Sequence[str]) -> bool:
    """Whether tags are O, B-TYPE and I-TYPE.

    >>> is_bio(["O", "B-PER"]), is_bio(["NOUN"])
    (True, False)
    """
    return all(label == "O" or label[:2] in ("B-", "I-") for label in labels)


def words_of(text: str) -> list[tuple[int, int]]:
    """The characters [begin, end) of the words of a text: spaces divide them, punctuation and ideographs stand alone.

    As BERT's tokenizer divides a text before it cuts words into pieces.

    >>> text = "Ada's machine, 1843."
    >>> [text[begin:end] for begin, end in words_of(text)]
    ['Ada', "'", 's', 'machine', ',', '1843', '.']
    """
    words: list[tuple[int, int]] = []
    open_word = False
    for i, letter in enumerate(text):
        alone = letter in string.punctuation or unicodedata.category(letter)[0] == "P" or _is_ideograph(ord(letter))
        if letter.isspace():
            open_word = False
        elif open_word and not alone:
            words[-1] = (words[-1][0], i + 1)
        else:
            words.append((i, i + 1))
            open_word = not alone
    return words


def _is_ideograph(code: int) -> bool:
    return any(low <= code <= high for low, high in _IDEOGRAPHS)
