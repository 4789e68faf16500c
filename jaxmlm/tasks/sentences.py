"""Sentences and pairs of sentences with labels, as a task: encoded, batched, learned, scored, written."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxmlm.data.buckets import Buckets, chosen, edges_to, filled, pad
from jaxmlm.data.inputs import with_special_tokens
from jaxmlm.data.tokenizer import Tokenizer
from jaxmlm.errors import InputError
from jaxmlm.tasks import table as tables
from jaxmlm.tasks.downstream import DownstreamTask, EncodingOptions, limited_to
from jaxmlm.tasks.metrics import METRICS, log_probability
from jaxmlm.tasks.table import Examples, Sets, Table
from jaxmlm.training.task import Batch, Eval, Mean, Task


class Encoded(NamedTuple):
    """Rows with their token ids, special tokens included, and where the second text begins; how many were cut."""

    rows: Examples
    sequences: list[np.ndarray]
    second: np.ndarray
    truncated: int


class EncodedSentences(NamedTuple):
    """The examples of a task, encoded once for all its fine-tunings. `types`: the encoder has token types."""

    table: Table
    train: Encoded
    evaluated: dict[str, Encoded]
    tokenizer: Tokenizer
    length: int
    types: bool


@dataclass(frozen=True)
class SentenceTask(DownstreamTask):
    """Sentences, or pairs of them, with a class or a number. A task of yours says how its examples are read.

    Attributes:
        name: what the command line, the results and the reports call the task.
        table: the columns of the texts and the label, the labels in the order of the class numbers, the metrics.

    >>> @dataclass(frozen=True)
    ... class Polarity(SentenceTask):
    ...     def read(self, data):
    ...         rows = [{"text": "good", "label": "pos"}, {"text": "bad", "label": "neg"}]
    ...         return Sets(self.examples(rows), {"dev": self.examples(rows)})
    >>> Polarity("polarity", Table("polarity", ("text",), "label", ("neg", "pos"))).read(None).train.labels
    array([1, 0], dtype=int32)
    """

    table: Table | None = None

    head = "classify"
    predicts_files = True

    def examples(self, rows: Iterable[Mapping[str, Any]], labelled: bool = True) -> Examples:
        """Examples out of rows that map the table's columns to values; an "id" column is optional.

        Raises:
            InputError: a column is missing, or a label is not one of the table's.

        """
        if self.table is None:
            raise InputError(f"{self.name}: the task has no table: give one, or make Examples in `read`")
        return tables.from_mappings(self.table, rows, self.name, labelled)

    def labels(self, examples: Sets) -> tuple[str, ...]:
        """The class names, or the name of the number."""
        return examples.table.labels or (examples.table.label,)

    def metrics(self, examples: Sets) -> tuple[str, ...]:
        """Those of the table."""
        return examples.table.metrics

    def notes(self, examples: Sets, options: EncodingOptions) -> tuple[str, ...]:
        """What the reader noted, and the limit on training rows."""
        return (*examples.notes, *limited_to(options.limit, len(examples.train), "rows"))

    def encode(self, examples: Sets, tokenizer: Tokenizer, options: EncodingOptions) -> EncodedSentences:
        """Encode the rows of all sets."""
        return encode_sets(examples, tokenizer, options)

    def objective(self, encoded: EncodedSentences, init: Callable[[Any], Any], *, batch: int, seed: int) -> Task:
        """Cross-entropy of the class, or squared error of the number."""
        return objective(encoded, init, batch=batch, seed=seed)

    def finished(self, model: Any, examples: Sets) -> Any:
        """The model; one that predicts a number gives it in its own range, as others expect of a model."""
        table = examples.table
        if table.labels:
            return model
        half = (table.high - table.low) / 2
        middle = (table.high + table.low) / 2
        new = jax.tree.map(lambda x: x, model)  # new parameters: those of the trained model stay as they are
        new.out.kernel[...] = model.out.kernel[...] * half
        new.out.bias[...] = model.out.bias[...] * half + middle
        return new

    def unlabelled(self, path: Path, examples: Sets) -> Examples:
        """The rows of a .csv or .tsv file with the columns of the texts, with or without labels."""
        return tables.read(replace(examples.table, header=()), tables.fields_of(path), path, labelled=False)

    def prediction(self, name: str, rows: Examples, tokenizer: Tokenizer, options: EncodingOptions, batch: int) -> Eval:
        """An evaluation whose `save` writes the predictions, as GLUE's test server takes them."""
        # A saved model gives numbers in their own range.
        table = rows.table if rows.table.labels else replace(rows.table, low=-1.0, high=1.0)
        encoded = encode_sets(Sets(rows, {name: rows}), tokenizer, options)._replace(table=table)
        return evaluation(encoded, encoded.evaluated[name], batch, name)


def encode_sets(sets: Sets, tokenizer: Tokenizer, options: EncodingOptions) -> EncodedSentences:
    """Encode a task's rows."""
    train = sets.train
    if options.limit is not None:
        train = train.some(chosen(len(train), options.limit))
    evaluated = {name: encode(rows, tokenizer, options.length) for name, rows in sets.evaluated.items()}
    return EncodedSentences(
        sets.table,
        encode(train, tokenizer, options.length),
        evaluated,
        tokenizer,
        options.length,
        options.token_types,
    )


def encode(rows: Examples, tokenizer: Tokenizer, length: int) -> Encoded:
    """`[cls] a [sep]`, or `[cls] a GAP b [sep]` with the model's own separators, in at most `length` tokens.

    The longer sentence is cut first, as by `transformers`' longest_first.
    """
    columns = [tokenizer.encode_batch(column) for column in rows.texts]
    special = len(with_special_tokens(tokenizer, [], None if len(columns) == 1 else []).ids)
    room = length - special
    sequences = []
    second = []
    truncated = 0
    for parts in zip(*columns, strict=True):
        kept = _shares([len(part) for part in parts], room)
        truncated += sum(kept) < sum(map(len, parts))
        row = with_special_tokens(tokenizer, *(part[:size] for part, size in zip(parts, kept, strict=True)))
        sequences.append(np.array(row.ids, np.int32))
        second.append(row.second)
    return Encoded(rows, sequences, np.array(second), truncated)


def _shares(lengths: list[int], room: int) -> list[int]:
    """How much of each sentence stays.

    >>> _shares([10, 3], 8), _shares([10, 9], 9), _shares([9, 10], 9), _shares([2, 3], 8)
    ([5, 3], [5, 4], [4, 5], [2, 3])
    """
    if len(lengths) == 1:
        return [min(lengths[0], room)]
    a, b = lengths
    half = room - room // 2 if a > b else room // 2
    return [min(a, max(room - b, half)), min(b, max(room - a, room - half))]


def objective(data: EncodedSentences, init: Callable[[Any], Any], *, batch: int, seed: int) -> Task:
    """Fine-tune the classifier that `init` makes; the evaluations give the official scores.

    Batches hold ids and segments [B, L], types [B, L] for an encoder that has them, labels, weight and row [B].
    A number is learned by squared error, its range scaled to [-1, 1], and predicted in its own range.
    """
    edges = edges_to(data.length)
    buckets = Buckets([len(ids) for ids in data.train.sequences], batch, edges, seed)

    def batch_at(step: int) -> Batch:
        return _batch(data, data.train, *buckets.at(step))

    evals = {name: evaluation(data, part, batch, name) for name, part in data.evaluated.items()}
    return Task(init=init, loss=_loss_of(data.table), batch_at=batch_at, evals=evals, epoch=buckets.steps_per_epoch)


def evaluation(data: EncodedSentences, part: Encoded, batch: int, name: str) -> Eval:
    """Evaluate rows with labels, and write `NAME.tsv` with predictions and labels; without labels only predictions."""
    table = part.rows.table
    edges = edges_to(data.length)
    buckets = Buckets([len(ids) for ids in part.sequences], batch, edges)

    def batches() -> Iterator[Batch]:
        for rows, padded in buckets.all():
            yield _batch(data, part, rows, padded)

    def in_order(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        return outputs["predictions"][np.argsort(outputs["row"])]

    def scores(outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
        return {} if part.rows.labels is None else score(table, part.rows.labels, in_order(outputs))

    def save(outputs: Mapping[str, np.ndarray], directory: Path) -> None:
        tables.write(part.rows, in_order(outputs), directory / f"{name}.tsv", truth=part.rows.labels is not None)

    return Eval(batches, _predict_of(data.table), scores, save)


def score(table: Table, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """The official scores, their average where the benchmark takes it, and whether all predictions are one."""
    found = {name: METRICS[name](labels, predictions) for name in table.metrics}
    if table.averaged:
        found["average"] = sum(found.values()) / len(found)
    return {**found, "degenerate": float(len(np.unique(predictions)) == 1 or not np.isfinite(predictions).all())}


def _batch(data: EncodedSentences, part: Encoded, rows: np.ndarray, length: int) -> Batch:
    some = filled(rows)
    ids = pad([part.sequences[row] for row in some], length, data.tokenizer.pad_id)
    sizes = np.array([len(part.sequences[row]) for row in some])[:, None]
    places = np.arange(length)[None]
    labels = part.rows.labels
    types = {"types": ((places >= part.second[some][:, None]) & (places < sizes)).astype(np.int32)}
    return {
        "ids": ids,
        "segments": (places < sizes).astype(np.int32),
        **(types if data.types else {}),
        "labels": np.zeros(len(some), np.int32) if labels is None else labels[some],
        "weight": (rows >= 0).astype(np.float32),
        "row": some.astype(np.int32),
    }


# One function object for a table: what is compiled for it serves all its fine-tunings.
@cache
def _loss_of(table: Table) -> Callable:
    return partial(_loss, table)


@cache
def _predict_of(table: Table) -> Callable:
    return partial(_predict, table)


def _outputs(model: Any, batch: Mapping[str, Any], key: Any) -> Array:
    more = {"types": batch["types"]} if "types" in batch else {}
    return model(batch["ids"], batch["segments"], key, **more)


def _loss(table: Table, model: Any, batch: Mapping[str, Any], key: Any, step: Any) -> tuple[Mean, dict[str, Mean]]:
    outputs = _outputs(model, batch, key)
    labels = batch["labels"]
    weight = batch["weight"]
    count = weight.sum()
    if not table.labels:
        middle = (table.high + table.low) / 2
        half = (table.high - table.low) / 2
        losses = jnp.square(outputs[:, 0].astype(jnp.float32) - (labels - middle) / half)
        return Mean((losses * weight).sum(), count), {}
    right = (outputs.argmax(-1) == labels) * weight
    return Mean(-(log_probability(outputs, labels) * weight).sum(), count), {"accuracy": Mean(right.sum(), count)}


def _predict(table: Table, model: Any, batch: Mapping[str, Any]) -> dict[str, Array]:
    outputs = _outputs(model, batch, None)
    if table.labels:
        predictions = outputs.argmax(-1)
    else:
        predictions = (table.high + table.low) / 2 + outputs[:, 0] * (table.high - table.low) / 2
    return {"predictions": predictions, "row": batch["row"]}
