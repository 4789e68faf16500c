"""SQuAD v1.1: the official JSON, strided windows, spans mapped by characters, and fine-tuning on it."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxmlm.data.buckets import Buckets, chosen, filled, pad
from jaxmlm.data.tokenizer import Tokenizer
from jaxmlm.errors import InputError
from jaxmlm.tasks import metrics
from jaxmlm.tasks.metrics import log_probability
from jaxmlm.training.task import Batch, Eval, Mean, Task

LONGEST_ANSWER = 30
"""Tokens of the longest answer that is predicted (as in BERT)."""
BEST = 20
"""Spans kept of each window (as in BERT)."""


class Question(NamedTuple):
    """A question about paragraph number `paragraph`; `answers` are (text, first character) pairs."""

    id: str
    text: str
    paragraph: int
    answers: tuple[tuple[str, int], ...]


class Squad(NamedTuple):
    """A file's paragraphs and the questions about them."""

    paragraphs: list[str]
    questions: list[Question]


class Windows(NamedTuple):
    """Every question's windows: arrays with one entry a window, and the tokens that they cut from.

    Window i reads `[cls] question [sep] paragraph[begin : begin + count] [sep]`. `start` and `end` are the
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
    """Questions none of whose answers lies whole in a window."""

    def first(self) -> np.ndarray:
        """The position of each window's first paragraph token."""
        return np.array([len(q) for q in self.questions])[self.question] + 2


def read(path: str | Path) -> Squad:
    """The paragraphs and questions of a SQuAD v1.1 JSON file; errors name the offending element."""
    path = Path(path)
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError as e:
        raise InputError(f"{path} is missing: expected a SQuAD v1.1 JSON file") from e
    except UnicodeDecodeError as e:
        raise InputError(f"{path}: not UTF-8 at byte {e.start}: convert the file to UTF-8") from e
    except json.JSONDecodeError as e:
        raise InputError(f"{path}:{e.lineno}: not JSON: {e.msg}") from e
    squad, seen = Squad([], []), set()
    for article, at_article in _items(content, "data", str(path)):
        for paragraph, at in _items(article, "paragraphs", at_article):
            context = _field(paragraph, "context", str, at)
            if not context.strip():
                raise InputError(f"{at}.context: an empty paragraph")
            for question, at_question in _items(paragraph, "qas", at):
                key = _field(question, "id", str, at_question)
                if key in seen:
                    raise InputError(f"{at_question}.id: {key!r} is used twice")
                seen.add(key)
                answers = tuple(
                    _answer(answer, context, at_answer)
                    for answer, at_answer in _items(question, "answers", at_question)
                )
                if not answers:
                    raise InputError(f"{at_question}.answers: no answer: this reads v1.1, not v2.0")
                text = _field(question, "question", str, at_question)
                squad.questions.append(Question(key, text, len(squad.paragraphs), answers))
            squad.paragraphs.append(context)
    if not squad.questions:
        raise InputError(f"{path}: no questions: expected a SQuAD v1.1 JSON file")
    return squad


def _field(element: Any, name: str, kind: type, at: str) -> Any:
    value = element.get(name) if isinstance(element, dict) else None
    if not isinstance(value, kind):
        wanted = {str: "a string", int: "a whole number", list: "a list"}[kind]
        raise InputError(f"{at}.{name}: expected {wanted}, got {json.dumps(value)[:40]}")
    return value


def _items(element: Any, name: str, at: str) -> Iterator[tuple[Any, str]]:
    prefix = f"{at}: " if at.endswith(".json") else f"{at}."
    for i, item in enumerate(_field(element, name, list, at)):
        yield item, f"{prefix}{name}[{i}]"


def _answer(answer: Any, context: str, at: str) -> tuple[str, int]:
    text, start = _field(answer, "text", str, at), _field(answer, "answer_start", int, at)
    if start < 0 or context[start : start + len(text)] != text:
        got = context[max(start, 0) : max(start, 0) + len(text)]
        raise InputError(f"{at}.answer_start: the paragraph has {got!r} at character {start}, not the answer {text!r}")
    return text, start


def windows(squad: Squad, tokenizer: Tokenizer, length: int, stride: int) -> Windows:
    """Cut every question's paragraph into windows of at most `length` tokens in all.

    Each window begins `stride` paragraph tokens after the one before it, or follows it directly where a
    window holds fewer than that. A question is cut to a third of the length. The answer learned is a
    question's first one.
    """
    questions = [ids[: length // 3] for ids in tokenizer.encode_batch([q.text for q in squad.questions])]
    encoded = {p: tokenizer.encode_offsets(squad.paragraphs[p]) for p in {q.paragraph for q in squad.questions}}
    paragraphs = [np.array(encoded.get(p, ([],))[0], np.int32) for p in range(len(squad.paragraphs))]
    offsets = [np.array(encoded[p][1], int).reshape(-1, 2) if p in encoded else np.zeros((0, 2), int)
               for p in range(len(squad.paragraphs))]  # fmt: skip
    rows, lost = [], 0
    for i, question in enumerate(squad.questions):
        tokens = len(paragraphs[question.paragraph])
        room = length - len(questions[i]) - 3
        begins = range(0, max(tokens - room, 0) + min(stride, room), min(stride, room))
        spans = [_tokens(offsets[question.paragraph], text, start) for text, start in question.answers]
        held = False
        for begin in begins:
            count = min(room, tokens - begin)
            inside = [begin <= a and b < begin + count for a, b in spans]
            held |= any(inside)
            shift = len(questions[i]) + 2 - begin
            start, end = (spans[0][0] + shift, spans[0][1] + shift) if inside[0] else (0, 0)
            rows.append((i, begin, count, start, end))
        lost += not held
    question, begin, count, start, end = np.array(rows, np.int32).T
    paragraph_of = np.array([q.paragraph for q in squad.questions])
    return Windows(question, begin, count, start, end, questions, paragraphs, paragraph_of, offsets, lost)


def _tokens(offsets: np.ndarray, text: str, start: int) -> tuple[int, int]:
    """The first and the last token that hold a character of the answer."""
    first = int(np.searchsorted(offsets[:, 1], start, side="right"))
    last = int(np.searchsorted(offsets[:, 0], start + max(len(text), 1), side="left")) - 1
    return first, max(first, last)


def task(
    files: str | Path | tuple[str | Path, str | Path],
    tokenizer: Tokenizer,
    init: Callable[[Any], Any],
    *,
    batch: int,
    length: int,
    stride: int,
    seed: int,
    limit: int | None = None,
) -> Task:
    """Fine-tune the span predictor that `init` makes; the eval "dev" gives "f1", "exact" and "lost".

    `files` is a folder with `train-v1.1.json` and `dev-v1.1.json` (or with a folder `squad` that has them),
    or those two files. `limit` keeps so many training questions, the same for every seed. "lost" counts the
    dev questions none of whose answers lies whole in a window. A training window without the whole answer
    points at its [cls], as in BERT's run_squad.py; a prediction is always a span of the paragraph.
    """
    train_file, dev_file = files if isinstance(files, tuple) else files_in(Path(files))
    train_squad, dev_squad = read(train_file), read(dev_file)
    train = windows(_first(train_squad, limit), tokenizer, length, stride)
    dev = windows(dev_squad, tokenizer, length, stride)
    edges = sorted({-(-length // 2), -(-length * 3 // 4), length})
    train_buckets, dev_buckets = (Buckets(w.first() + w.count + 1, batch, edges, seed) for w in (train, dev))

    def batch_at(step: int) -> Batch:
        rows, padded = train_buckets.at(step)
        return {**_batch(train, rows, padded, tokenizer), "start": train.start[rows], "end": train.end[rows]}

    def batches() -> Iterator[Batch]:
        first = dev.first().astype(np.int32)
        for rows, padded in dev_buckets.all():
            yield {**_batch(dev, rows, padded, tokenizer), "window": rows.astype(np.int32),
                   "first": first[rows], "count": dev.count[rows]}  # fmt: skip

    def score(outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
        texts = {key: spans[0][0] for key, spans in best(dev_squad, dev, outputs).items()}
        answers = {q.id: [text for text, _ in q.answers] for q in dev_squad.questions}
        return {**metrics.squad(texts, answers), "lost": float(dev.lost)}

    evals = {"dev": Eval(batches, _predict, score)}
    return Task(init=init, loss=_loss, batch_at=batch_at, evals=evals, epoch=train_buckets.steps_per_epoch)


def files_in(folder: Path) -> tuple[Path, Path]:
    """The training and the development file in a folder, or in its folder `squad`."""
    inside = folder / "squad" if (folder / "squad").is_dir() else folder
    train, dev = inside / "train-v1.1.json", inside / "dev-v1.1.json"
    for path in (train, dev):
        if not path.is_file():
            there = ", ".join(sorted(p.name for p in inside.glob("*.json"))) or "none"
            raise InputError(f"{path} is missing: SQuAD needs {train.name} and {dev.name}; .json files there: {there}")
    return train, dev


def _first(squad: Squad, limit: int | None) -> Squad:
    return Squad(squad.paragraphs, [squad.questions[i] for i in chosen(len(squad.questions), limit)])


def _batch(w: Windows, rows: np.ndarray, length: int, tokenizer: Tokenizer) -> Batch:
    cls, sep, sequences = [tokenizer.cls_id], [tokenizer.sep_id], []
    for row in filled(rows):
        question, begin = w.question[row], w.begin[row]
        paragraph = w.paragraphs[w.paragraph_of[question]][begin : begin + w.count[row]]
        sequences.append(np.concatenate([cls, w.questions[question], sep, paragraph, sep]))
    ids = pad(sequences, length, tokenizer.pad_id)
    return {
        "ids": ids,
        "segments": (ids != tokenizer.pad_id).astype(np.int32),
        "weight": (rows >= 0).astype(np.float32),
    }


def _loss(model: Any, batch: Mapping[str, Any], key: Any, step: Any) -> tuple[Mean, dict[str, Mean]]:
    logits = model(batch["ids"], batch["segments"], key)
    # Padding can never be chosen, so that a row's loss does not depend on the length it is padded to.
    logits = jnp.where(batch["segments"][..., None] > 0, logits.astype(jnp.float32), -1e9)
    start = log_probability(logits[..., 0], batch["start"])
    end = log_probability(logits[..., 1], batch["end"])
    weight = batch["weight"]
    return Mean(-((start + end) / 2 * weight).sum(), weight.sum()), {}


def _predict(model: Any, batch: Mapping[str, Any]) -> dict[str, Array]:
    """The best spans of each window, [B, BEST] each: score, first and last token, counted from the window's.

    Every pair of a start and an end within the paragraph and not more than LONGEST_ANSWER tokens apart is
    compared.
    """
    logits = model(batch["ids"], batch["segments"], None).astype(jnp.float32)
    length = logits.shape[1]
    position = jnp.arange(length)[None] - batch["first"][:, None]
    inside = (position >= 0) & (position < batch["count"][:, None])
    start, end = (jnp.where(inside, logits[..., i], -1e9) for i in range(2))
    later = jnp.pad(end, ((0, 0), (0, LONGEST_ANSWER - 1)), constant_values=-1e9)
    scores = jnp.concatenate([start + later[:, d : d + length] for d in range(LONGEST_ANSWER)], axis=1)
    best_scores, where = jax.lax.top_k(scores, BEST)
    begin = where % length - batch["first"][:, None]
    return {"window": batch["window"], "score": best_scores, "start": begin, "end": begin + where // length}


def best(squad: Squad, w: Windows, outputs: Mapping[str, np.ndarray]) -> dict[str, list[tuple[str, float]]]:
    """For each question id the best answers over all its windows, best first: (slice of the text, score)."""
    window = outputs["window"]
    begin, limit = w.begin[window][:, None], w.count[window][:, None]
    real = (outputs["start"] >= 0) & (outputs["end"] < limit) & (outputs["score"] > -1e8)
    row, column = np.nonzero(real)
    score = outputs["score"][row, column]
    start, end = ((outputs[name] + begin)[row, column] for name in ("start", "end"))
    question = w.question[window][row]
    found: dict[str, dict[str, float]] = {q.id: {} for q in squad.questions}
    for i in np.argsort(-score, kind="stable"):
        q = squad.questions[question[i]]
        offsets = w.offsets[q.paragraph]
        text = squad.paragraphs[q.paragraph][offsets[start[i], 0] : offsets[end[i], 1]]
        found[q.id].setdefault(text, float(score[i]))
    return {key: list(spans.items())[:BEST] or [("", 0.0)] for key, spans in found.items()}
