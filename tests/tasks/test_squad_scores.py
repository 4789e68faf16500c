"""SQuAD's official scores: known values, the scripts' corner cases, any predictions beside the rules written plainly.

`by_the_rules` follows the published rules of evaluate-v1.1.py and evaluate-v2.0.py one question at a time.
"""

import random
import re
import string
from collections import Counter

import pytest

from jaxmlm.errors import InputError
from jaxmlm.tasks import squad
from jaxmlm.tasks.squad_scores import evaluate, of_questions

WORDS = (
    "the The a an fox Fox. hen 5,000 caf\u00e9 CAF\u00c9 \u2014 's - \u0130stanbul \u5317\u4eac \ufb01ne U.S.".split()
)
WORDS += ["$3", "e\u0301", "\t", "\u00a0", "\u200b"]


def plain(text):
    text = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def by_the_rules(questions, said, v2, odds=None, threshold=1.0):
    """{question id: (exact, f1)}; `questions` is {id: answer texts}."""
    out = {}
    for key, answers in questions.items():
        pairs, truths = [], list(answers)
        if v2:
            truths = [truth for truth in truths if plain(truth)] or [""]
        for truth in truths:
            words, right = plain(said[key]), plain(truth)
            same = sum(min(count, Counter(right)[word]) for word, count in Counter(words).items())
            f1 = 2 * same / (len(words) + len(right)) if same else 0.0
            if v2 and not (words and right):
                f1 = float(words == right)
            pairs.append((float(words == right), f1))
        exact, f1 = (max(one) for one in zip(*pairs, strict=True))
        if v2 and odds is not None and odds[key] > threshold:
            exact = f1 = float(not answers)
        out[key] = (exact, f1)
    return out


def mean(scores, keys):
    return tuple(100 * sum(scores[key][i] for key in keys) / len(keys) for i in range(2))


def made(draw, count=200):
    phrase = lambda: " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, 4)))  # noqa: E731
    return {f"q{i}": [phrase() for _ in range(draw.randint(1, 3))] for i in range(count)}


def squad_of(questions, unanswerable):
    asked = [squad.Question(key, "?", 0, tuple((text, 0) for text in texts)) for key, texts in questions.items()]
    return squad.Squad(["x"], asked, unanswerable)


KINDS = {
    "random": lambda draw, texts: " ".join(draw.choice(WORDS) for _ in range(3)),
    "perfect": lambda draw, texts: texts[-1] if texts else "",
    "empty": lambda draw, texts: "",
    "shifted": lambda draw, texts: " ".join([*" ".join(texts).split()[1:], "hen"]),
    "loud": lambda draw, texts: " the ".join(texts).upper() + "!",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_any_predictions_get_what_the_rules_say(kind, seed):
    draw = random.Random(f"{kind}/{seed}")
    questions = made(draw)
    said = {key: KINDS[kind](draw, texts) for key, texts in questions.items()}
    expected = mean(by_the_rules(questions, said, v2=False), list(questions))
    found = evaluate(squad_of(questions, False), said)
    assert (found["exact_match"], found["f1"]) == pytest.approx(expected, abs=1e-9)

    some = {key: texts if draw.random() < 0.6 else [] for key, texts in questions.items()}
    said = {key: KINDS[kind](draw, texts) for key, texts in some.items()}
    odds = {key: round(draw.gauss(-2.0 if texts else 1.0, 3.0), 1) for key, texts in some.items()}  # some are equal
    found = evaluate(squad_of(some, True), said, odds, threshold=0.0)
    scores = by_the_rules(some, said, True, odds, 0.0)
    groups = {"": list(some), "HasAns_": [k for k in some if some[k]], "NoAns_": [k for k in some if not some[k]]}
    for name, keys in groups.items():
        assert (found[f"{name}exact"], found[f"{name}f1"]) == pytest.approx(mean(scores, keys), abs=1e-9)
        assert found[f"{name}total"] == len(keys)
    sure = evaluate(squad_of(some, True), said, dict.fromkeys(said, 0.0))
    assert evaluate(squad_of(some, True), said) == {name: sure[name] for name in sure if not name.startswith("best")}


def test_no_threshold_is_better_than_the_best(seed=3):
    """Against every threshold, with a text wherever the question is answered at all and no equal odds."""
    draw = random.Random(seed)
    questions = {key: texts if draw.random() < 0.5 else [] for key, texts in made(draw, 60).items()}
    said = {key: draw.choice([*texts, "fox"]) for key, texts in questions.items()}
    odds = {key: draw.gauss(-1.0 if texts else 1.0, 2.0) for key, texts in questions.items()}
    data = squad_of(questions, True)
    found = evaluate(data, said, odds)
    for name in ("exact", "f1"):
        at = {limit: evaluate(data, said, odds, limit)[name] for limit in [-99.0, *odds.values()]}
        assert found[f"best_{name}"] == pytest.approx(max(at.values()))
        assert at[found[f"best_{name}_thresh"]] == pytest.approx(max(at.values()))


def test_silence_everywhere_gets_the_share_of_questions_without_an_answer():
    questions = {"1": ["fox"], "2": [], "3": ["the"], "4": []}  # "the" normalises to nothing: silence is right
    found = evaluate(squad_of(questions, True), dict.fromkeys(questions, ""), dict.fromkeys(questions, 7.0))
    assert found["exact"] == 50.0 and found["best_exact"] == 75.0 and found["best_exact_thresh"] == 7.0
    assert evaluate(squad_of(questions, True), dict.fromkeys(questions, ""))["exact"] == 75.0


def test_what_is_missing():
    data = squad_of({"1": ["fox"], "2": ["hen"]}, False)
    assert evaluate(data, {"1": "the fox", "9": "cow"}) == {"exact_match": 50.0, "f1": 50.0}
    with pytest.raises(InputError, match="no prediction for 1 of 2 questions, such as '2'"):
        evaluate(data._replace(unanswerable=True), {"1": "fox"})
    with pytest.raises(InputError, match="no null odds for 2 of 2 questions, such as '1'"):
        evaluate(data._replace(unanswerable=True), {"1": "fox", "2": ""}, {})


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("[]", str, "expected a JSON object from question ids to a string each"),
        ('{"1": 3}', str, "'1': expected a string, got 3"),
        ('{"1": "x"}', float, "'1': expected a number, got \"x\""),
        ('{"1": true}', float, "'1': expected a number, got true"),
        ("{", str, ":1: not JSON"),
    ],
)
def test_wrong_prediction_files(tmp_path, text, kind, message):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(InputError) as error:
        squad.read_answers(tmp_path / "p.json", kind)
    assert str(error.value).startswith(str(tmp_path / "p.json")) and message in str(error.value)
    with pytest.raises(InputError, match="p2.json is missing"):
        squad.read_answers(tmp_path / "p2.json", kind)


@pytest.mark.parametrize("odds", ["random", "tied", "never", "always"])
def test_what_questions_add_is_what_the_scores_are(odds):
    """Means of the questions are the official scores, at the best thresholds too, wherever these lie."""
    draw = random.Random(1)
    questions = {key: texts if draw.random() < 0.6 else [] for key, texts in made(draw).items()}
    data = squad_of(questions, True)
    # Right for half of the answers; some text, now and then none, where there is no answer.
    said = {
        key: texts[0] if texts and draw.random() < 0.5 else draw.choice(["", "hen"]) for key, texts in questions.items()
    }
    if odds == "never":  # no text is worth saying
        said = {key: "nothing right" for key in questions}
    scale = {"random": lambda: draw.gauss(0, 3), "tied": lambda: float(draw.randint(-1, 1)), "never": draw.random,
             "always": lambda: -draw.random()}[odds]  # fmt: skip
    null = {key: scale() for key in questions}
    found, official = of_questions(data, said, null), evaluate(data, said, null, threshold=0.0)
    assert list(found) == ["exact", "f1", "best_exact", "best_f1"]
    for name, values in found.items():
        assert 100 * sum(values) / len(values) == pytest.approx(official[name]), name
    plain = squad_of({key: texts or ["x"] for key, texts in questions.items()}, False)
    found, official = of_questions(plain, said), evaluate(plain, said)
    assert 100 * sum(found["exact"]) / 200 == pytest.approx(official["exact_match"])
    assert 100 * sum(found["f1"]) / 200 == pytest.approx(official["f1"])
