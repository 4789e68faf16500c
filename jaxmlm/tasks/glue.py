"""GLUE: what the tasks are (a table), their official TSV files, and fine-tuning on one of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxmlm.data.buckets import Buckets, chosen, edges_to, filled, pad
from jaxmlm.data.tokenizer import Tokenizer
from jaxmlm.errors import InputError
from jaxmlm.tasks.metrics import METRICS, log_probability
from jaxmlm.training.task import Batch, Eval, Mean, Task


@dataclass(frozen=True)
class Glue:
    """One task: which columns of which files, which labels, which scores."""

    folder: str
    texts: tuple[str, ...]
    """The columns of the one or two sentences."""
    label: str
    """The column of the label."""
    labels: tuple[str, ...] = ()
    """Label names as the files have them, in the order of the class numbers; none: a number is predicted."""
    low: float = 0.0
    high: float = 5.0
    """The range of that number."""
    metrics: tuple[str, ...] = ("accuracy",)
    """The official scores, the main one first (as in table 1 of the BERT paper)."""
    train: str = "train.tsv"
    dev: str = "dev.tsv"
    header: tuple[str, ...] = ()
    """The names of the columns where the file itself has no header line."""

    @property
    def classes(self) -> int:
        """How many numbers the classifier gives: 1 where a number is predicted."""
        return len(self.labels) or 1


_PAIR = ("sentence1", "sentence2")
_MNLI = Glue("MNLI", _PAIR, "gold_label", ("entailment", "neutral", "contradiction"), dev="dev_matched.tsv")
TASKS: Mapping[str, Glue] = {
    "cola": Glue("CoLA", ("sentence",), "label", ("0", "1"), metrics=("matthews", "accuracy"),
                 header=("source", "label", "star", "sentence")),
    "sst2": Glue("SST-2", ("sentence",), "label", ("0", "1")),
    "mrpc": Glue("MRPC", ("#1 String", "#2 String"), "Quality", ("0", "1"), metrics=("f1", "accuracy")),
    "stsb": Glue("STS-B", _PAIR, "score", metrics=("spearman", "pearson")),
    "qqp": Glue("QQP", ("question1", "question2"), "is_duplicate", ("0", "1"), metrics=("f1", "accuracy")),
    "mnli": _MNLI,
    "mnli-mm": Glue(_MNLI.folder, _PAIR, _MNLI.label, _MNLI.labels, dev="dev_mismatched.tsv"),
    "qnli": Glue("QNLI", ("question", "sentence"), "label", ("entailment", "not_entailment")),
    "rte": Glue("RTE", _PAIR, "label", ("entailment", "not_entailment")),
    "wnli": Glue("WNLI", _PAIR, "label", ("0", "1")),
}  # fmt: skip


class Rows(NamedTuple):
    """A file's sentences, one list for each text column, and its labels: class numbers, or scores."""

    texts: tuple[list[str], ...]
    labels: np.ndarray


class Encoded(NamedTuple):
    """Token ids with special tokens, the labels, and how many rows were cut to fit."""

    sequences: list[np.ndarray]
    labels: np.ndarray
    truncated: int


def read(spec: Glue, folder: str | Path, split: str) -> Rows:
    """The rows of `split` ("train" or "dev") from `folder`, which holds the task's own folder, or is it."""
    folder = Path(folder)
    inside = folder / spec.folder if (folder / spec.folder).is_dir() else folder
    path = inside / {"train": spec.train, "dev": spec.dev}[split]
    if not path.is_file():
        there = ", ".join(sorted(p.name for p in inside.glob("*.tsv"))) or "none"
        raise InputError(
            f"{path} is missing: {spec.folder} needs {spec.train} and {spec.dev}; .tsv files there: {there}"
        )
    lines = _lines(path)
    number, columns = (1, list(spec.header)) if spec.header else next(lines, (1, []))
    missing = [name for name in (*spec.texts, spec.label) if name not in columns]
    if missing:
        raise InputError(f"{path}:{number}: no column {missing[0]!r}; there are: {', '.join(columns) or 'none'}")
    where, label = [columns.index(name) for name in spec.texts], columns.index(spec.label)
    texts, labels = tuple([] for _ in spec.texts), []
    for number, fields in lines:
        if len(fields) != len(columns):
            raise InputError(f"{path}:{number}: {len(fields)} tab-separated fields, expected {len(columns)}")
        labels.append(_label(spec, fields[label], f"{path}:{number}"))
        for text, column in zip(texts, where, strict=True):
            text.append(fields[column])
    if not labels:
        raise InputError(f"{path}: no rows: expected at least one below the header")
    return Rows(texts, np.array(labels, np.int32 if spec.labels else np.float32))


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields. Quotation marks are text: the official files are written without quoting."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as e:
                raise InputError(f"{path}:{number}: not UTF-8 ({e.reason}): convert the file to UTF-8") from e
            yield number, line.rstrip("\r\n").split("\t")


def _label(spec: Glue, text: str, where: str) -> int | float:
    if spec.labels:
        if text not in spec.labels:
            raise InputError(
                f"{where}: unknown label {text!r} in {spec.label}, expected one of: {', '.join(spec.labels)}"
            )
        return spec.labels.index(text)
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not spec.low <= value <= spec.high:
        raise InputError(f"{where}: {spec.label} is {text!r}, expected a number from {spec.low:g} to {spec.high:g}")
    return value


def first(rows: Rows, limit: int | None) -> Rows:
    """`limit` of the rows, always the same ones, so that every seed and every model trains on them."""
    kept = chosen(len(rows.labels), limit)
    return Rows(tuple([column[i] for i in kept] for column in rows.texts), rows.labels[kept])


def encode(rows: Rows, tokenizer: Tokenizer, length: int) -> Encoded:
    """`[cls] a [sep]` or `[cls] a [sep] b [sep]` in `length` tokens: the longer sentence is cut first."""
    columns = [tokenizer.encode_batch(column) for column in rows.texts]
    room = length - 1 - len(columns)
    cls, sep = [tokenizer.cls_id], [tokenizer.sep_id]
    sequences, truncated = [], 0
    for parts in zip(*columns, strict=True):
        kept = _shares([len(part) for part in parts], room)
        truncated += sum(kept) < sum(map(len, parts))
        ids = cls + [i for part, k in zip(parts, kept, strict=True) for i in part[:k] + sep]
        sequences.append(np.array(ids, np.int32))
    return Encoded(sequences, rows.labels, truncated)


def _shares(lengths: list[int], room: int) -> list[int]:
    """How much of each sentence stays.

    >>> _shares([10, 3], 8), _shares([10, 9], 9), _shares([2, 3], 8)
    ([5, 3], [5, 4], [2, 3])
    """
    if len(lengths) == 1:
        return [min(lengths[0], room)]
    a, b = lengths
    return [min(a, max(room - b, room - room // 2)), min(b, max(room - a, room // 2))]


def task(
    spec: Glue,
    folder: str | Path,
    tokenizer: Tokenizer,
    init: Callable[[Any], Any],
    *,
    batch: int,
    length: int,
    seed: int,
    limit: int | None = None,
) -> Task:
    """Fine-tune the classifier that `init` makes; the eval "dev" gives the official scores.

    `limit` keeps so many training rows. Batches hold ids and segments [B, L], labels and weight [B].
    A number is learned by squared error, its range scaled to [-1, 1], and predicted in its own range.
    """
    train = encode(first(read(spec, folder, "train"), limit), tokenizer, length)
    dev = encode(read(spec, folder, "dev"), tokenizer, length)
    train_buckets, dev_buckets = (
        Buckets([len(ids) for ids in part.sequences], batch, edges_to(length), seed) for part in (train, dev)
    )

    def batch_at(step: int) -> Batch:
        return _batch(train, *train_buckets.at(step), tokenizer.pad_id)

    def batches() -> Iterator[Batch]:
        for rows, padded in dev_buckets.all():
            yield _batch(dev, rows, padded, tokenizer.pad_id)

    evals = {"dev": Eval(batches, partial(_predict, spec), partial(_score, spec))}
    return Task(
        init=init, loss=partial(_loss, spec), batch_at=batch_at, evals=evals, epoch=train_buckets.steps_per_epoch
    )


def _batch(data: Encoded, rows: np.ndarray, length: int, pad_id: int) -> Batch:
    ids = pad([data.sequences[row] for row in filled(rows)], length, pad_id)
    return {
        "ids": ids,
        "segments": (ids != pad_id).astype(np.int32),
        "labels": data.labels[rows],
        "weight": (rows >= 0).astype(np.float32),
    }


def _loss(spec: Glue, model: Any, batch: Mapping[str, Any], key: Any, step: Any) -> tuple[Mean, dict[str, Mean]]:
    outputs = model(batch["ids"], batch["segments"], key)
    labels, weight = batch["labels"], batch["weight"]
    count = weight.sum()
    if not spec.labels:
        middle, half = (spec.high + spec.low) / 2, (spec.high - spec.low) / 2
        losses = jnp.square(outputs[:, 0].astype(jnp.float32) - (labels - middle) / half)
        return Mean((losses * weight).sum(), count), {}
    right = (outputs.argmax(-1) == labels) * weight
    return Mean(-(log_probability(outputs, labels) * weight).sum(), count), {"accuracy": Mean(right.sum(), count)}


def _predict(spec: Glue, model: Any, batch: Mapping[str, Any]) -> dict[str, Array]:
    outputs = model(batch["ids"], batch["segments"], None)
    if spec.labels:
        predictions = outputs.argmax(-1)
    else:
        predictions = (spec.high + spec.low) / 2 + outputs[:, 0] * (spec.high - spec.low) / 2
    return {"predictions": predictions, "labels": batch["labels"]}


def _score(spec: Glue, outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {name: METRICS[name](outputs["labels"], outputs["predictions"]) for name in spec.metrics}
