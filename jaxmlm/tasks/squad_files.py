"""SQuAD's files: the official JSON of v1.1 and v2.0, read with every mistake named by its place."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxmlm.directories import expanded
from jaxmlm.errors import InputError
from jaxmlm.tasks.file_formats import brief, json_of

OFFICIAL = {
    "3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955": "train-v1.1.json",
    "95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9": "dev-v1.1.json",
    "68dcfbb971bd3e96d5b46c7177b16c1a4e7d4bdef19fb204502738552dede002": "train-v2.0.json",
    "80a5225e94905956a6446d296ca1093975c4d3b3260f1d6c8f68bc2ab77182d8": "dev-v2.0.json",
}
"""SHA-256 of the files that SQuAD's authors publish (as TensorFlow Datasets lists them)."""


class Version(NamedTuple):
    """One of the two SQuADs.

    Attributes:
        train: the official training file.
        dev: the official dev file.
        unanswerable: whether questions may have no answer.
        main: the main metric.
        questions: how many there are, officially: train, dev.

    """

    train: str
    dev: str
    unanswerable: bool
    main: str
    questions: tuple[int, int]


TASKS = {
    "squad": Version("train-v1.1.json", "dev-v1.1.json", False, "f1", (87_599, 10_570)),
    "squad2": Version("train-v2.0.json", "dev-v2.0.json", True, "best_f1", (130_319, 11_873)),
}
"""The tasks by name. The main metric of v2.0 is, as is usual, the F1 at the threshold that suits the dev set best."""


class Question(NamedTuple):
    """A question about paragraph number `paragraph`; `answers` are (text, first character), none in some of v2.0."""

    id: str
    text: str
    paragraph: int
    answers: tuple[tuple[str, int], ...]


class Squad(NamedTuple):
    """A file's paragraphs and the questions about them.

    `unanswerable`: read as v2.0, where a question may have no answer.
    """

    paragraphs: list[str]
    questions: list[Question]
    unanswerable: bool = False
    path: str = "SQuAD"
    mended: int = 0
    """Strings of the file with half of a surrogate pair, for which U+FFFD stands here."""


def files_in(
    directory: str | Path, name: str = "squad", train: str | None = None, dev: str | None = None
) -> tuple[Path, Path]:
    """The training and the development file of a task in a directory, or in its directory `squad`.

    `train` and `dev` are other files to use: paths, or the names of files in the directory.
    """
    directory = Path(directory)
    inside = directory / "squad" if (directory / "squad").is_dir() else directory
    found = []
    for usual, other in ((TASKS[name].dev, dev), (TASKS[name].train, train)):
        path = inside / (other or usual)
        if other is not None and not path.is_file():
            path = expanded(other)
        if not path.is_file():
            there = ", ".join(sorted(p.name for p in inside.glob("*.json"))) or "none"
            what = "train" if usual == TASKS[name].train else "dev"
            raise InputError(
                f"{path} is missing: {name} needs {TASKS[name].train} and {TASKS[name].dev}; .json files there: "
                f"{there}; --{what} FILE takes another one"
            )
        found.append(path)
    return found[1], found[0]


def notes(files: tuple[Path, Path], name: str) -> list[str]:
    """What is not the official data set among a task's training and development file, for a result's notes."""
    usual = (TASKS[name].train, TASKS[name].dev)
    out = []
    for split, path, official in zip(("train", "dev"), files, usual, strict=True):
        found = OFFICIAL.get(hashlib.sha256(path.read_bytes()).hexdigest())
        if found != official:
            what = f"the official {found}" if found else f"{path.name}, whose bytes are none of the official files'"
            out.append(f"{split}: {what} (official: {official})")
    return out


def read(path: str | Path, unanswerable: bool = False) -> Squad:
    """The paragraphs and questions of a JSON file of v1.1, or of v2.0 (`unanswerable`).

    Errors name the offending element. v2.0's plausible answers are not answers and are not read.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as e:
        raise InputError(f"{path} is missing or unreadable: expected a SQuAD JSON file") from e
    content, mended = _json(path, raw)
    return parsed(content, path, unanswerable)._replace(mended=mended)


def parsed(content: Any, path: str | Path, unanswerable: bool = False) -> Squad:
    """The same of what the JSON file at `path` holds."""
    squad = Squad([], [], unanswerable, str(path))
    seen = set()
    for article, at_article in _items(content, "data", str(path)):
        for paragraph, at in _items(article, "paragraphs", at_article):
            context = _field(paragraph, "context", str, at)
            if not context.strip():
                raise InputError(f"{at}.context: an empty paragraph")
            for question, at_question in _items(paragraph, "qas", at):
                key = _field(question, "id", str, at_question)
                if key in seen:
                    raise InputError(f"{at_question}.id: {brief(key)!r} is used twice")
                seen.add(key)
                text = _field(question, "question", str, at_question)
                answers = _answers(question, context, at_question, unanswerable)
                squad.questions.append(Question(key, text, len(squad.paragraphs), answers))
            squad.paragraphs.append(context)
    if not squad.questions:
        raise InputError(f"{path}: no questions: expected a SQuAD JSON file")
    return squad


def read_answers(path: str | Path, kind: type) -> dict[str, Any]:
    """A file that maps question ids to predictions (`str`) or null odds (`float`)."""
    path = Path(path)
    wanted = {str: "a string", float: "a number"}[kind]
    if not path.is_file():
        raise InputError(f"{path} is missing: expected a JSON object from question ids to {wanted} each")
    content, _ = _json(path, path.read_bytes())
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object from question ids to {wanted} each")
    for key, value in content.items():
        if not isinstance(value, (int, float) if kind is float else str) or isinstance(value, bool):
            raise InputError(f"{path}: {brief(key)!r}: expected {wanted}, got {json.dumps(value)[:40]}")
    return content


def _json(path: Path, raw: bytes) -> tuple[Any, int]:
    try:
        return json_of(raw)
    except UnicodeDecodeError as e:
        raise InputError(f"{path}: not UTF-8 at byte {e.start}: convert the file to UTF-8") from e
    except json.JSONDecodeError as e:
        raise InputError(f"{path}:{e.lineno}: not JSON: {e.msg}") from e
    except (RecursionError, ValueError) as e:  # nested too deeply, or a number of thousands of digits
        raise InputError(f"{path}: not JSON that can be read: {str(e).partition(';')[0]}") from e


def _field(element: Any, name: str, kind: type, at: str) -> Any:
    value = element.get(name) if isinstance(element, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = {str: "a string", int: "a whole number", list: "a list"}[kind]
        raise InputError(f"{at}.{name}: expected {wanted}, got {json.dumps(value)[:40]}")
    return value


def _items(element: Any, name: str, at: str) -> Iterator[tuple[Any, str]]:
    prefix = f"{at}." if at.endswith("]") else f"{at}: "
    for i, item in enumerate(_field(element, name, list, at)):
        yield item, f"{prefix}{name}[{i}]"


def _answers(question: Any, context: str, at: str, unanswerable: bool) -> tuple[tuple[str, int], ...]:
    answers = tuple(_answer(answer, context, where) for answer, where in _items(question, "answers", at))
    marked = question.get("is_impossible")
    if not answers and not unanswerable:
        raise InputError(f"{at}.answers: no answer: this is v2.0; read it as task squad2")
    if unanswerable and marked is not None and bool(marked) == bool(answers):
        raise InputError(f"{at}.is_impossible: {json.dumps(marked)}, but there are {len(answers)} answers")
    return answers


def _answer(answer: Any, context: str, at: str) -> tuple[str, int]:
    text = _field(answer, "text", str, at)
    start = _field(answer, "answer_start", int, at)
    if not text:
        raise InputError(f"{at}.text: an empty answer; a question without an answer has an empty list of answers")
    if start < 0 or context[start : start + len(text)] != text:
        got = context[max(start, 0) : max(start, 0) + len(text)]
        raise InputError(
            f"{at}.answer_start: the paragraph has {brief(got)!r} at character {start}, not the answer {brief(text)!r}"
        )
    return text, start
