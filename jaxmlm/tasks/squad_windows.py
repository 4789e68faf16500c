"""SQuAD's windows: paragraphs encoded once, cut for each question, answers found by their characters."""

from typing import NamedTuple

import numpy as np

from jaxmlm.data.inputs import token_span, with_special_tokens
from jaxmlm.data.tokenizer import Tokenizer
from jaxmlm.errors import InputError
from jaxmlm.tasks.squad_files import Squad


class Windows(NamedTuple):
    """Every question's windows: arrays with one entry a window, and the tokens that they cut from.

    Window i reads `[cls] question gap paragraph[begin : begin + count] [sep]`, the gap being the separators that the
    tokenizer puts between two texts. `start` and `end` are the
    positions of the answer's first and last token in that row, 0 (the [cls]) where the window does not hold
    the whole answer.
    """

    question: np.ndarray
    begin: np.ndarray
    count: np.ndarray
    start: np.ndarray
    end: np.ndarray
    questions: list[list[int]]
    paragraphs: list[np.ndarray]
    paragraph_of: np.ndarray
    offsets: list[np.ndarray]
    """Characters [begin, end) of each paragraph token: int [tokens, 2]."""
    lost: int
    """Questions with answers none of which lies whole in a window."""
    cut: int
    """Questions of which only the beginning is read."""
    gap: list[int]

    def first(self) -> np.ndarray:
        """The position of each window's first paragraph token."""
        return np.array([len(q) for q in self.questions])[self.question] + 1 + len(self.gap)

    def row(self, window: int, tokenizer: Tokenizer) -> list[int]:
        """The ids of a window."""
        question = self.question[window]
        begin = self.begin[window]
        paragraph = self.paragraphs[self.paragraph_of[question]][begin : begin + self.count[window]]
        return with_special_tokens(tokenizer, self.questions[question], paragraph.tolist()).ids


def spaced(question: str) -> str:
    """A question with one space between its words and none around them.

    As a BERT tokenizer reads it; byte-level BPE makes tokens of every space, which would take the paragraph's room.

    >>> spaced("   Who  sees the owl? ")
    'Who sees the owl?'
    """
    return " ".join(question.split())


def windows(squad: Squad, tokenizer: Tokenizer, length: int, stride: int) -> Windows:
    """Cut every question's paragraph into windows of at most `length` tokens in all.

    Each window begins `stride` paragraph tokens after the one before it (BERT's doc_stride), or follows it directly
    where a window holds fewer than that. A question is read with single spaces (`spaced`) and cut to a third of the
    length; one longer than a whole window is refused. The answer learned is a question's first one.
    """
    if length < 8 or stride < 1:
        raise InputError(f"length {length}, stride {stride}: windows need 8 tokens or more, and a stride of 1 or more")
    gap = list(tokenizer.pair_separator_ids)
    whole = tokenizer.encode_batch([spaced(q.text) for q in squad.questions])
    for question, ids in zip(squad.questions, whole, strict=True):
        if len(ids) > length - 3 - len(gap):
            raise InputError(
                f"{squad.path}: question {question.id!r} has {len(ids)} tokens, which a window of {length} does not "
                "hold: raise length, or shorten the question"
            )
    questions = [ids[: length // 3] for ids in whole]
    paragraph_of = np.array([q.paragraph for q in squad.questions])
    paragraphs, offsets = (
        [np.zeros(0, np.int32)] * len(squad.paragraphs),
        [np.zeros((0, 2), int)] * len(squad.paragraphs),
    )
    for p in np.unique(paragraph_of):
        ids, characters = tokenizer.encode_offsets(squad.paragraphs[p])
        paragraphs[p] = np.array(ids, np.int32)
        offsets[p] = np.array(characters, int).reshape(-1, 2)
    tokens = np.array([len(ids) for ids in paragraphs])[paragraph_of]
    room = length - 2 - len(gap) - np.array([len(ids) for ids in questions])
    step = np.minimum(stride, room)
    number = 1 + -(-np.maximum(tokens - room, 0) // step)
    question = np.repeat(np.arange(len(questions)), number)
    begin = (np.arange(len(question)) - np.repeat(np.cumsum(number) - number, number)) * step[question]
    count = np.minimum(room[question], tokens[question] - begin)
    start, end, lost = _answers(squad, offsets, question, begin, count)
    shift = np.where(start < 0, 0, 1 + len(gap) - begin + np.array([len(ids) for ids in questions])[question])
    start, end = np.maximum(start, 0) + shift, np.maximum(end, 0) + shift
    question, begin, count, start, end = (x.astype(np.int32) for x in (question, begin, count, start, end))
    cut = sum(len(ids) > length // 3 for ids in whole)
    return Windows(question, begin, count, start, end, questions, paragraphs, paragraph_of, offsets, lost, cut, gap)


def _answers(
    squad: Squad, offsets: list[np.ndarray], question: np.ndarray, begin: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """The paragraph tokens of each window's answer, -1 where it is not whole in it; the number of lost questions."""
    most = max(len(q.answers) for q in squad.questions)
    spans = np.full((2, len(squad.questions), most), -1)
    for i, q in enumerate(squad.questions):
        for j, (text, at) in enumerate(q.answers):
            begin_token, stop = token_span(offsets[q.paragraph], at, at + len(text))
            spans[:, i, j] = begin_token, max(begin_token, stop - 1)
    first, last = spans[:, question]
    inside = (first >= begin[:, None]) & (last < (begin + count)[:, None])
    held = np.zeros(len(squad.questions), bool)
    np.logical_or.at(held, question, inside.any(axis=1))
    lost = sum(bool(q.answers) and not kept for q, kept in zip(squad.questions, held.tolist(), strict=True))
    if not most:
        return np.full(len(question), -1), np.full(len(question), -1), lost
    return np.where(inside[:, 0], first[:, 0], -1), np.where(inside[:, 0], last[:, 0], -1), lost
