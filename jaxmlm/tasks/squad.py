"""SQuAD v1.1 and v2.0: fine-tuning a span predictor, the best spans over all windows, null odds, prediction files."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxmlm.data.buckets import Buckets, chosen, filled, pad
from jaxmlm.data.tokenizer import Tokenizer
from jaxmlm.tasks.file_formats import write_table
from jaxmlm.tasks.metrics import log_probability
from jaxmlm.tasks.squad_files import TASKS, Question, Squad, Version, files_in, notes, read, read_answers
from jaxmlm.tasks.squad_scores import evaluate, of_questions
from jaxmlm.tasks.squad_windows import Windows, windows
from jaxmlm.training.task import Batch, Eval, Mean, Task

__all__ = [
    "TASKS",
    "CandidateAnswer",
    "Question",
    "Squad",
    "Version",
    "Windows",
    "best",
    "encode",
    "evaluate",
    "files_in",
    "notes",
    "nulls",
    "objective",
    "read",
    "read_answers",
    "windows",
]

LONGEST_ANSWER = 30
"""Tokens of the longest answer that is predicted (as in BERT)."""
BEST = 20
"""Spans kept of each window, and answers of each question (as in BERT)."""
NOWHERE = -1e6
"""The score of an invalid span: far below every logit, and finite, so that all that is written is JSON."""


class CandidateAnswer(NamedTuple):
    """A predicted span of a paragraph; its score is the sum of both logits."""

    text: str
    start_logit: float
    end_logit: float

    @property
    def score(self) -> float:
        """How good it is, next to other spans for the question."""
        return self.start_logit + self.end_logit


class EncodedSquad(NamedTuple):
    """What a task needs of its data, encoded once for all its fine-tunings. `types`: the encoder has token types."""

    name: str
    dev_squad: Squad
    train: Windows
    dev: Windows
    tokenizer: Tokenizer
    length: int
    types: bool


def encode(
    squads: tuple[Squad, Squad],
    tokenizer: Tokenizer,
    length: int,
    stride: int,
    limit: int | None = None,
    name: str = "squad",
    types: bool = False,
) -> EncodedSquad:
    """Cut the training and the development questions of SQuAD v1.1 ("squad") or v2.0 ("squad2") into windows.

    `limit` keeps so many training questions, the same for every seed. `types`: the encoder has token types, of which
    the paragraph gets the second.
    """
    train = windows(_first(squads[0], limit), tokenizer, length, stride)
    dev = windows(squads[1], tokenizer, length, stride)
    return EncodedSquad(name, squads[1], train, dev, tokenizer, length, types)


def objective(data: EncodedSquad, init: Callable[[Any], Any], *, batch: int, seed: int) -> Task:
    """Fine-tune the span predictor that `init` makes.

    A training window without the whole answer points at its [cls], as in BERT's run_squad.py; the spans that are
    compared lie in the paragraph.

    The eval "dev" gives the official scores as shares of 1: "exact" and "f1", and for v2.0 these with an answer
    (HasAns), without (NoAns), and at the best threshold of the null odds (best_exact, best_f1 and their _thresh);
    "exact" and "f1" take 0 as threshold. "lost" counts the dev questions none of whose answers lies whole in a window,
    "cut" those of which only the beginning is read; "degenerate" is 1 if all answers are the same. Its `save` writes
    the official files: predictions.json and nbest_predictions.json, and for v2.0 null_odds.json and best_spans.json,
    which has the best span also where predictions.json says none: what evaluate-v2.0.py needs to find the best
    threshold; and scores.tsv, what each question adds to the scores.
    """
    train = data.train
    dev = data.dev
    edges = sorted({-(-data.length * eighths // 8) for eighths in (3, 4, 5, 6, 8)})
    train_buckets, dev_buckets = (Buckets(w.first() + w.count + 1, batch, edges, seed) for w in (train, dev))

    def batch_at(step: int) -> Batch:
        rows, padded = train_buckets.at(step)
        return {**_batch(data, train, rows, padded), "start": train.start[rows], "end": train.end[rows]}

    def batches() -> Iterator[Batch]:
        first = dev.first().astype(np.int32)
        for rows, padded in dev_buckets.all():
            yield {
                **_batch(data, dev, rows, padded),
                "window": rows.astype(np.int32),
                "first": first[rows],
                "count": dev.count[rows],
            }

    dev_eval = Eval(batches, _predict, partial(_score, data.dev_squad, dev), partial(_save, data.dev_squad, dev))
    return Task(init=init, loss=_loss, batch_at=batch_at, evals={"dev": dev_eval}, epoch=train_buckets.steps_per_epoch)


def _first(squad: Squad, limit: int | None) -> Squad:
    return squad._replace(questions=[squad.questions[i] for i in chosen(len(squad.questions), limit)])


def _batch(data: EncodedSquad, w: Windows, rows: np.ndarray, length: int) -> Batch:
    real = filled(rows)
    tokenizer = data.tokenizer
    ids = pad([w.row(row, tokenizer) for row in real.tolist()], length, tokenizer.pad_id)
    segments = (ids != tokenizer.pad_id).astype(np.int32)
    first = np.array([1 + len(w.questions[q]) + len(w.gap) for q in w.question[real]])
    second = np.arange(length) > first[:, None] - len(w.gap)  # after the first separator, as of any pair
    return {
        "ids": ids,
        "segments": segments,
        **({"types": segments * second} if data.types else {}),
        "weight": (rows >= 0).astype(np.float32),
    }


def _logits(model: Any, batch: Mapping[str, Any], key: Any) -> Array:
    more = {"types": batch["types"]} if "types" in batch else {}
    return model(batch["ids"], batch["segments"], key, **more).astype(jnp.float32)


def _loss(model: Any, batch: Mapping[str, Any], key: Any, step: Any) -> tuple[Mean, dict[str, Mean]]:
    logits = _logits(model, batch, key)
    # Padding can never be chosen, so that a row's loss does not depend on the length it is padded to.
    logits = jnp.where(batch["segments"][..., None] > 0, logits, -1e9)
    start = log_probability(logits[..., 0], batch["start"])
    end = log_probability(logits[..., 1], batch["end"])
    weight = batch["weight"]
    return Mean(-((start + end) / 2 * weight).sum(), weight.sum()), {}


def _predict(model: Any, batch: Mapping[str, Any]) -> dict[str, Array]:
    """The best spans of each window, [B, BEST] each: logits, first and last token, counted from the window's.

    Every pair of a start and an end within the paragraph and not more than LONGEST_ANSWER tokens apart is
    compared. "null" [B, 2] are the logits of the [cls], which says that there is no answer.
    """
    logits = _logits(model, batch, None)
    length = logits.shape[1]
    position = jnp.arange(length)[None] - batch["first"][:, None]
    inside = (position >= 0) & (position < batch["count"][:, None])
    start, end = (jnp.where(inside, logits[..., i], NOWHERE) for i in range(2))
    later = jnp.pad(end, ((0, 0), (0, LONGEST_ANSWER - 1)), constant_values=NOWHERE)
    scores = jnp.concatenate([start + later[:, d : d + length] for d in range(LONGEST_ANSWER)], axis=1)
    best_scores, where = jax.lax.top_k(scores, BEST)
    start_logit = jnp.take_along_axis(start, where % length, axis=1)
    begin = where % length - batch["first"][:, None]
    return {
        "window": batch["window"],
        "start": begin,
        "end": begin + where // length,
        "start_logit": start_logit,
        "end_logit": best_scores - start_logit,
        "null": logits[:, 0],
    }


def best(squad: Squad, w: Windows, outputs: Mapping[str, np.ndarray]) -> dict[str, list[CandidateAnswer]]:
    """For each question id the best answers over all its windows, best first; each text once.

    A question whose windows hold no span at all, as when its paragraph has no tokens, has no answers here.
    """
    window = outputs["window"]
    in_order = (outputs["start"] >= 0) & (outputs["start"] <= outputs["end"])
    row, column = np.nonzero(in_order & (outputs["end"] < w.count[window][:, None]))
    logits = np.stack([outputs[name][row, column] for name in ("start_logit", "end_logit")]).astype(np.float64)
    start, end = ((outputs[name] + w.begin[window][:, None])[row, column] for name in ("start", "end"))
    question = w.question[window][row]
    found: list[dict[str, CandidateAnswer]] = [{} for _ in squad.questions]
    for i in np.lexsort((end, start, -logits.sum(axis=0), question)):
        answers = found[question[i]]
        if len(answers) < BEST:
            paragraph = squad.questions[question[i]].paragraph
            offsets = w.offsets[paragraph]
            text = squad.paragraphs[paragraph][offsets[start[i], 0] : offsets[end[i], 1]]
            answers.setdefault(text, CandidateAnswer(text, float(logits[0, i]), float(logits[1, i])))
    return {q.id: list(answers.values()) for q, answers in zip(squad.questions, found, strict=True)}


def nulls(squad: Squad, w: Windows, outputs: Mapping[str, np.ndarray]) -> dict[str, CandidateAnswer]:
    """For each question id the answer "": the logits of the [cls] of the window that is least sure of it."""
    scores = outputs["null"].astype(np.float64)
    question = w.question[outputs["window"]]
    order = np.lexsort((-scores.sum(axis=1), question))  # the lowest of each question comes last, and stays
    return {
        squad.questions[question[i]].id: CandidateAnswer("", float(scores[i, 0]), float(scores[i, 1])) for i in order
    }


class _Predictions(NamedTuple):
    """By question id: the best span, how much better the null is, the better of both (v2.0), all that were compared."""

    spans: dict[str, str]
    odds: dict[str, float]
    texts: dict[str, str]
    answers: dict[str, list[CandidateAnswer]]


def _predictions(squad: Squad, w: Windows, outputs: Mapping[str, np.ndarray]) -> _Predictions:
    answers = best(squad, w, outputs)
    spans = {key: found[0].text if found else "" for key, found in answers.items()}
    if not squad.unanswerable:
        return _Predictions(spans, {}, spans, answers)
    null = nulls(squad, w, outputs)
    odds = {key: null[key].score - (found[0].score if found else NOWHERE) for key, found in answers.items()}
    texts = {key: "" if odds[key] > 0 else text for key, text in spans.items()}
    both = {key: sorted([*found, null[key]], key=lambda a: -a.score)[:BEST] for key, found in answers.items()}
    # As BERT's: the null is always in the list.
    answers = {key: found if null[key] in found else [*found, null[key]] for key, found in both.items()}
    return _Predictions(spans, odds, texts, answers)


def _score(squad: Squad, w: Windows, outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
    said = _predictions(squad, w, outputs)
    if squad.unanswerable:
        official = evaluate(squad, said.spans, said.odds, threshold=0.0)
    else:
        official = evaluate(squad, said.spans)
    scores = {
        name.removesuffix("_match"): value if name.endswith("_thresh") else value / 100.0
        for name, value in official.items()
        if not name.endswith("total")
    }
    silent = len(set(said.texts.values())) == 1
    return {**scores, "lost": float(w.lost), "cut": float(w.cut), "degenerate": float(silent)}


def _save(squad: Squad, w: Windows, outputs: Mapping[str, np.ndarray], directory: Path) -> None:
    said = _predictions(squad, w, outputs)
    files: dict[str, Any] = {"predictions": said.texts, "nbest_predictions": _nbest(said.answers)}
    if squad.unanswerable:
        files |= {"null_odds": said.odds, "best_spans": said.spans}
    for name, content in files.items():
        text = json.dumps(content, indent=4, ensure_ascii=False) + "\n"
        (directory / f"{name}.json").write_text(text, encoding="utf-8")
    scores = of_questions(squad, said.spans, said.odds or None)
    columns = zip(squad.questions, *scores.values(), strict=True)
    write_table(directory / "scores.tsv", [("id", *scores), *((q.id, *map(repr, row)) for q, *row in columns)])


def _nbest(answers: Mapping[str, list[CandidateAnswer]]) -> dict[str, list[dict[str, Any]]]:
    """As BERT's nbest_predictions.json: the probability is that among the answers listed."""
    out = {}
    for key, found in answers.items():
        scores = np.array([answer.score for answer in found] or [0.0])
        share = np.exp(scores - scores.max())
        shares = (share / share.sum()).tolist()
        out[key] = [
            {"text": a.text, "probability": p, "start_logit": a.start_logit, "end_logit": a.end_logit}
            for a, p in zip(found, shares, strict=False)
        ] or [{"text": "", "probability": 1.0, "start_logit": 0.0, "end_logit": 0.0}]
    return out
