"""SQuAD's official scores: what evaluate-v1.1.py and evaluate-v2.0.py compute, to the last bit."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from jaxmlm.errors import InputError
from jaxmlm.tasks import metrics
from jaxmlm.tasks.squad_files import Question, Squad

normalized = lru_cache(maxsize=1 << 16)(metrics.normalize_answer)


def evaluate(
    squad: Squad,
    predictions: Mapping[str, str],
    null_odds: Mapping[str, float] | None = None,
    threshold: float = 1.0,
) -> dict[str, int | float]:
    """The official scores, in percent, of a text for each question id.

    v1.1: "exact_match" and "f1"; a question without a prediction scores 0. v2.0: "exact", "f1" and "total", the same
    for the questions with (HasAns) and without (NoAns) an answer, and with `null_odds`, how sure the model is that
    there is none, the best scores and their thresholds. Where null odds are above `threshold`, "" is taken as the
    prediction. The official v2.0 script ends in an error when a question has no prediction; so does this.

    >>> squad = Squad(["The fox sees the hen."], [Question("q1", "Who?", 0, (("The fox", 0),))])
    >>> evaluate(squad, {"q1": "a red fox"})
    {'exact_match': 0.0, 'f1': 66.66666666666666}
    """
    if not squad.unanswerable:
        return _v1(squad.questions, predictions)
    odds = dict.fromkeys(predictions, 0.0) if null_odds is None else null_odds
    for what, said in (("prediction", predictions), ("null odds", odds)):
        if missing := [q.id for q in squad.questions if q.id not in said]:
            raise InputError(
                f"no {what} for {len(missing)} of {len(squad.questions)} questions, such as {missing[0]!r}"
            )
    answered = {q.id: bool(q.answers) for q in squad.questions}
    exact, f1 = _v2(squad.questions, predictions)
    exact_at, f1_at = (_at_threshold(scores, odds, answered, threshold) for scores in (exact, f1))
    out = _means(exact_at, f1_at, list(answered))
    for name, value in (("HasAns", True), ("NoAns", False)):
        if ids := [key for key, has in answered.items() if has is value]:
            out |= {f"{name}_{what}": score for what, score in _means(exact_at, f1_at, ids).items()}
    if null_odds is not None:
        for name, scores in (("exact", exact), ("f1", f1)):
            out[f"best_{name}"], out[f"best_{name}_thresh"], _ = _best(predictions, scores, null_odds, answered)
    return out


def of_questions(
    squad: Squad, predictions: Mapping[str, str], null_odds: Mapping[str, float] | None = None
) -> dict[str, list[float]]:
    """What each question adds to the scores of `evaluate`, as shares of 1; their means are those scores.

    "exact" and "f1"; of v2.0 these at the threshold 0, and "best_exact" and "best_f1" at their best thresholds.
    """
    if not squad.unanswerable:
        pairs = [_of_question(q, predictions) for q in squad.questions]
        return {"exact": [exact for exact, _ in pairs], "f1": [f1 for _, f1 in pairs]}
    odds = dict.fromkeys(predictions, 0.0) if null_odds is None else null_odds
    answered = {q.id: bool(q.answers) for q in squad.questions}
    out = {}
    every = _v2(squad.questions, predictions)
    for name, scores in zip(("exact", "f1"), every, strict=True):
        out[name] = list(_at_threshold(scores, odds, answered, 0.0).values())
    for name, scores in zip(("best_exact", "best_f1"), every, strict=True):
        spoken = _best(predictions, scores, odds, answered).spoken
        out[name] = [
            float(not has) if key not in spoken else scores[key] if has else float(not predictions[key])
            for key, has in answered.items()
        ]
    return out


def _v1(questions: Sequence[Question], predictions: Mapping[str, str]) -> dict[str, float]:
    exact = 0.0
    f1 = 0.0
    for question in questions:
        same, overlap = _of_question(question, predictions)
        exact = exact + same
        f1 = f1 + overlap
    return {"exact_match": 100.0 * exact / len(questions), "f1": 100.0 * f1 / len(questions)}


def _of_question(question: Question, predictions: Mapping[str, str]) -> tuple[float, float]:
    if question.id not in predictions:
        return 0.0, 0.0
    said = predictions[question.id]
    exact = max(normalized(said) == normalized(text) for text, _ in question.answers)
    return float(exact), max(_overlap(said, text) for text, _ in question.answers)


def _v2(questions: Sequence[Question], predictions: Mapping[str, str]) -> tuple[dict[str, float], dict[str, float]]:
    exact = {}
    f1 = {}
    for question in questions:
        said = predictions[question.id]
        # An answer of nothing but articles and punctuation is none, as is no answer.
        truths = [text for text, _ in question.answers if normalized(text)] or [""]
        same = [float(normalized(said) == normalized(text)) for text in truths]
        exact[question.id] = max(same)
        f1[question.id] = max(
            _overlap(said, text) if normalized(said) and normalized(text) else equal
            for text, equal in zip(truths, same, strict=True)
        )
    return exact, f1


def _overlap(said: str, truth: str) -> float:
    """F1 of the two bags of words, in the official order of operations; nothing in common is 0."""
    ours = normalized(said).split()
    theirs = normalized(truth).split()
    same = sum((Counter(ours) & Counter(theirs)).values())
    if same == 0:
        return 0.0
    precision = 1.0 * same / len(ours)
    recall = 1.0 * same / len(theirs)
    return (2 * precision * recall) / (precision + recall)


def _at_threshold(
    scores: Mapping[str, float], odds: Mapping[str, float], answered: Mapping[str, bool], threshold: float
) -> dict[str, float]:
    return {key: float(not answered[key]) if odds[key] > threshold else score for key, score in scores.items()}


def _means(exact: Mapping[str, float], f1: Mapping[str, float], ids: Sequence[str]) -> dict[str, int | float]:
    parts = {
        name: 100.0 * sum(scores[key] for key in ids) / len(ids) for name, scores in (("exact", exact), ("f1", f1))
    }
    return {**parts, "total": len(ids)}


class _Best(NamedTuple):
    """The best score over all thresholds, the lowest such threshold, the questions not silenced by it."""

    score: float
    threshold: float
    spoken: set[str]


def _best(
    predictions: Mapping[str, str], scores: Mapping[str, float], odds: Mapping[str, float], answered: Mapping[str, bool]
) -> _Best:
    """Questions turn answered one by one, those with the lowest null odds first."""
    now = best = float(sum(not has for has in answered.values()))
    order = sorted((key for key in odds if key in scores), key=lambda key: odds[key])
    threshold = 0.0
    kept = 0
    for number, key in enumerate(order, 1):
        now += scores[key] if answered[key] else -1 if predictions[key] else 0
        if now > best:
            best = now
            threshold = odds[key]
            kept = number
    return _Best(100.0 * best / len(scores), threshold, set(order[:kept]))
