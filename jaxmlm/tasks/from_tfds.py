"""GLUE and SQuAD out of TensorFlow Datasets: the rows that the official files give."""

import numpy as np

from jaxmlm.data import from_tfds
from jaxmlm.errors import InputError
from jaxmlm.tasks import glue, squad_files
from jaxmlm.tasks.squad_files import Squad
from jaxmlm.tasks.table import Examples, Sets, Table

CLASSES = {
    "cola": ("unacceptable", "acceptable"),
    "sst2": ("negative", "positive"),
    "mrpc": ("not_equivalent", "equivalent"),
    "qqp": ("not_duplicate", "duplicate"),
    "wnli": ("not_entailment", "entailment"),
}
"""What the classes 0 and 1 of the official files are called there; the other tasks have names in their files too."""
TEXTS = {"mrpc": ("sentence1", "sentence2"), "mnli": ("premise", "hypothesis"), "ax": ("premise", "hypothesis")}
"""The features of the texts, where their names are not those of the official columns."""
SPLITS = {
    "mnli": {
        "dev": "validation_matched",
        "mm": "validation_mismatched",
        "MNLI-m": "test_matched",
        "MNLI-mm": "test_mismatched",
    },
}
"""The splits of a task by the evaluation or prediction file that they are for; else validation and test."""
SQUAD = {"squad": "squad/v1.1", "squad2": "squad/v2.0"}


def sets(name: str) -> Sets:
    """The train and dev rows of a GLUE task, in the order of the official files."""
    task = glue.TASKS[name]
    splits = {"dev": "validation", **SPLITS.get(name, {})}
    train = rows(name, "train", task.table)
    parts = [part for part in ("dev", *dict(task.more)) if part in splits]
    evaluated = {part: rows(name, splits[part], task.table) for part in parts}
    notes = tuple(
        f"{part}: {len(found):,} rows of tfds:glue/{name}, officially {official:,}"
        for part, found, official in zip(("train", "dev"), (train, evaluated["dev"]), task.rows, strict=True)
        if len(found) != official
    )
    return Sets(train, evaluated, notes)


def tests(name: str) -> dict[str, Examples]:
    """The rows that GLUE's test server asks of a task, by the name of the prediction file."""
    task = glue.TASKS[name]
    splits = SPLITS.get(name, {})
    return {
        file: rows("ax" if file == "AX" else name, splits.get(file, "test"), task.table, labelled=False)
        for file, _ in task.tests
    }


def rows(name: str, split: str, table: Table, labelled: bool = True) -> Examples:
    """One split of a GLUE task; InputError if its classes are not those of the table, in the same order."""
    found = from_tfds.examples(f"glue/{name}", split)
    if labelled and table.labels:
        have = found.classes.get("label", ())
        want = CLASSES.get(name, table.labels)
        if have != want:
            raise InputError(f"{found.name}: the classes are {', '.join(have) or 'none'}, expected {', '.join(want)}")
    every = sorted(found.rows, key=lambda row: row["idx"])
    texts = tuple([row[column] for row in every] for column in TEXTS.get(name, table.texts))
    kind = np.int32 if table.labels else np.float32
    labels = np.array([row["label"] for row in every], kind) if labelled else None
    low, high = (0, len(table.labels) - 1) if table.labels else (table.low, table.high)
    if labels is not None and not ((labels >= low) & (labels <= high)).all():
        raise InputError(f"{found.name}: rows without labels cannot be scored")
    return Examples(table, texts, labels, [str(row["idx"]) for row in every])


def squads(name: str) -> tuple[Squad, Squad]:
    """The train and the dev questions of a SQuAD."""
    train, dev = (_squad(name, split) for split in ("train", "validation"))
    return train, dev


def _squad(name: str, split: str) -> Squad:
    found = from_tfds.examples(SQUAD[name], split)
    paragraphs: dict[str, list[dict]] = {}
    for row in found.rows:
        said = row["answers"]
        answers = [
            {"text": text, "answer_start": int(at)} for text, at in zip(said["text"], said["answer_start"], strict=True)
        ]
        marked = {"is_impossible": bool(row["is_impossible"])} if "is_impossible" in row else {}
        paragraphs.setdefault(row["context"], []).append({**row, "answers": answers, **marked})
    content = {"data": [{"paragraphs": [{"context": text, "qas": qas} for text, qas in paragraphs.items()]}]}
    return squad_files.parsed(content, found.name, squad_files.TASKS[name].unanswerable)
