"""Tagging as a task: a tag for each word, read off its first piece; entities (ner) and parts of speech (upos).

As run_ner.py of `transformers` does it: the words of a sentence stand with single spaces between, the first piece of
each word is labelled, the others count for nothing.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxmlm.data import Tokenizer
from jaxmlm.data.buckets import Buckets, chosen, edges_to, filled, pad
from jaxmlm.data.inputs import with_special_tokens
from jaxmlm.errors import InputError
from jaxmlm.tasks import conllu, file_formats
from jaxmlm.tasks.downstream import DownstreamTask, EncodingOptions, TaskData, limited_to
from jaxmlm.tasks.entities import entity_scores, first_pieces, spans
from jaxmlm.tasks.file_formats import write_table
from jaxmlm.tasks.metrics import accuracy, log_probability
from jaxmlm.tasks.tagging_files import UPOS, TaggedFile, TaggedSentence, named_part, read_bio, read_upos, read_words
from jaxmlm.training.task import Batch, Eval, Mean, Task


class TaggedSets(NamedTuple):
    """The sentences of a task: to learn from, and by the name of the evaluation; the files of each evaluation."""

    labels: tuple[str, ...]
    train: list[TaggedSentence]
    evaluated: dict[str, list[TaggedSentence]]
    files: dict[str, list[Path]]
    notes: tuple[str, ...] = ()


class EncodedTags(NamedTuple):
    """Sentences as token ids, special tokens included, and the position of each word's first piece.

    A position is -1 where the word has no piece in the row: it was cut off, or the tokenizer drops all its characters.
    """

    sentences: list[TaggedSentence]
    sequences: list[np.ndarray]
    positions: list[np.ndarray]
    tags: list[np.ndarray]


class EncodedTagging(NamedTuple):
    """The examples of a task, encoded once for all its fine-tunings."""

    task: "TaggingTask"
    sets: TaggedSets
    train: EncodedTags
    evaluated: dict[str, EncodedTags]
    tokenizer: Tokenizer
    length: int


@dataclass(frozen=True)
class TaggingTask(DownstreamTask):
    """A tag for each word of a sentence. What kind of tags, and how they are scored, a subclass says."""

    head = "tokens"
    predicts_files = True

    def labels(self, examples: TaggedSets) -> tuple[str, ...]:
        """The tags, in the order of the class numbers."""
        return examples.labels

    def notes(self, examples: TaggedSets, options: EncodingOptions) -> tuple[str, ...]:
        """What the reader changed, and the limit on training sentences."""
        return (*examples.notes, *limited_to(options.limit, len(examples.train), "sentences"))

    def encode(self, examples: TaggedSets, tokenizer: Tokenizer, options: EncodingOptions) -> EncodedTagging:
        """Encode the sentences of all sets."""
        train = [examples.train[i] for i in chosen(len(examples.train), options.limit)]
        encoded = partial(_encode, tokenizer=tokenizer, labels=examples.labels, length=options.length)
        evaluated = {name: encoded(part) for name, part in examples.evaluated.items()}
        return EncodedTagging(self, examples, encoded(train), evaluated, tokenizer, options.length)

    def objective(self, encoded: EncodedTagging, init: Callable[[Any], Any], *, batch: int, seed: int) -> Task:
        """Cross-entropy of the tag at each word's first piece, a mean over the words of a batch."""
        train = encoded.train
        buckets = Buckets([len(ids) for ids in train.sequences], batch, edges_to(encoded.length), seed)

        def batch_at(step: int) -> Batch:
            return _batch(encoded, train, *buckets.at(step))

        evals = {name: _evaluation(encoded, name, batch) for name in encoded.evaluated}
        return Task(init=init, loss=_loss, batch_at=batch_at, evals=evals, epoch=buckets.steps_per_epoch)

    def unlabelled(self, path: Path, examples: TaggedSets) -> TaggedSets:
        """The sentences of a file of words: columns, JSON lines of tokens or CoNLL-U; they stand as if tagged."""
        any_tag = examples.labels[0]
        sentences = [
            TaggedSentence(words, [any_tag] * len(words), [number] * len(words))
            for number, words in enumerate(read_words(path), 1)
        ]
        return TaggedSets(examples.labels, [], {path.stem: sentences}, {path.stem: [path]})

    def prediction(
        self, name: str, rows: TaggedSets, tokenizer: Tokenizer, options: EncodingOptions, batch: int
    ) -> Eval:
        """An evaluation whose `save` writes NAME.tsv: a word and its tag a line, a blank line between sentences."""
        encoded = self.encode(rows, tokenizer, options)
        return _evaluation(encoded, name, batch, _write_tags)

    @abstractmethod
    def missing(self) -> str:
        """The tag of a word that the encoder does not read."""

    @abstractmethod
    def score(self, gold: list[list[str]], said: list[list[str]]) -> dict[str, float]:
        """The scores of predicted tags."""

    @abstractmethod
    def save(
        self, sentences: list[TaggedSentence], said: list[list[str]], files: list[Path], name: str, directory: Path
    ) -> None:
        """Write the predictions in the official form, and what `jaxmlm compare` reads."""


@dataclass(frozen=True)
class NerTask(TaggingTask):
    """Entities in BIO tags, scored by CoNLL-2003's entity F1."""

    def read(self, data: TaskData) -> TaggedSets:
        """The sentences of train, dev and, where it is there, test in a directory."""
        directory = self.directory(data)
        paths = {part: named_part(directory, part, getattr(data, part, None)) for part in ("train", "dev", "test")}
        found = {part: read_bio(path) for part, path in paths.items() if path is not None}
        types = sorted({tag[2:] for sentence in found["train"].sentences for tag in sentence.tags} - {""})
        if not types:
            raise InputError(f"{found['train'].path}: every tag is O: there is no entity to learn")
        for file in found.values():
            _refuse_unknown(file, types, found["train"].path)
        return TaggedSets(
            ("O", *(f"{prefix}-{name}" for name in types for prefix in "BI")),
            found["train"].sentences,
            {part: file.sentences for part, file in found.items() if part != "train"},
            {part: [file.path] for part, file in found.items()},
            tuple(note for file in found.values() for note in file.notes),
        )

    def metrics(self, examples: TaggedSets) -> tuple[str, ...]:
        """Entity F1, its precision and recall, and the share of words whose tag is right."""
        return ("f1", "precision", "recall", "accuracy")

    def missing(self) -> str:
        """No entity."""
        return "O"

    def score(self, gold: list[list[str]], said: list[list[str]]) -> dict[str, float]:
        """Those of `metrics`, and the F1 of each type."""
        return entity_scores(gold, said) | {"accuracy": _accuracy(gold, said)}

    def save(
        self, sentences: list[TaggedSentence], said: list[list[str]], files: list[Path], name: str, directory: Path
    ) -> None:
        """NAME.txt as conlleval takes it: word, tag, predicted tag; of dev scores.tsv, the counts of each sentence."""
        blocks = [
            "".join(
                f"{word} {tag} {guess}\n" for word, tag, guess in zip(sentence.words, sentence.tags, tags, strict=True)
            )
            for sentence, tags in zip(sentences, said, strict=True)
        ]
        (directory / f"{name}.txt").write_bytes("\n".join(blocks).encode())
        if name == "dev":
            counts = spans([sentence.tags for sentence in sentences], said)
            rows = zip(sentences, *(part.tolist() for part in counts), strict=True)
            table = [(str(sentence.rows[0]), *map(str, numbers)) for sentence, *numbers in rows]
            write_table(directory / "scores.tsv", [("id", *counts._fields), *table])


@dataclass(frozen=True)
class UposTask(TaggingTask):
    """The universal parts of speech of a Universal Dependencies treebank, word by word."""

    def read(self, data: TaskData) -> TaggedSets:
        """The sentences of the train, the dev and, where it is there, the test part of a treebank's directory."""
        directory = self.directory(data)
        files: dict[str, list[Path]] = {}
        for part, given in (("train", data.train), ("dev", data.dev), ("test", None)):
            if given is not None:
                files[part] = [path for path in (named_part(directory, part, given),) if path is not None]
            elif part != "test" or any(part in path.stem.lower() for path in file_formats.named(directory, ".conllu")):
                files[part] = conllu.files_of(directory, part)
        read = {part: [s for path in paths for s in read_upos(path).sentences] for part, paths in files.items()}
        train = read.pop("train")
        return TaggedSets(UPOS, train, read, files)

    def metrics(self, examples: TaggedSets) -> tuple[str, ...]:
        """The share of words whose part of speech is right."""
        return ("accuracy",)

    def missing(self) -> str:
        """Other."""
        return "X"

    def score(self, gold: list[list[str]], said: list[list[str]]) -> dict[str, float]:
        """The accuracy over words."""
        return {"accuracy": _accuracy(gold, said)}

    def save(
        self, sentences: list[TaggedSentence], said: list[list[str]], files: list[Path], name: str, directory: Path
    ) -> None:
        """NAME.conllu: the treebank with the predicted parts of speech; of dev also dev.tsv, word by word."""
        guesses = iter([tag for tags in said for tag in tags])
        with (directory / f"{name}.conllu").open("wb") as out:
            for path in files:
                with path.open("rb") as file:
                    for _, raw in file_formats.lines(file):
                        fields = raw.split(b"\t")
                        if fields[0].isdigit():  # a word, and not a comment, a range or an empty node
                            fields[3] = next(guesses).encode()
                        out.write(b"\t".join(fields) + b"\n")
        if name == "dev":
            words = [
                (f"{number}.{i}", guess, tag)
                for number, (sentence, tags) in enumerate(zip(sentences, said, strict=True), 1)
                for i, (guess, tag) in enumerate(zip(tags, sentence.tags, strict=True), 1)
            ]
            write_table(directory / "dev.tsv", [("index", "prediction", "label"), *words])


def _encode(sentences: list[TaggedSentence], tokenizer: Tokenizer, labels: tuple[str, ...], length: int) -> EncodedTags:
    numbers = {label: i for i, label in enumerate(labels)}
    sequences = []
    positions = []
    for sentence in sentences:
        ids, offsets = tokenizer.encode_offsets(" ".join(sentence.words))
        sizes = np.array([len(word) for word in sentence.words])
        end = np.cumsum(sizes + 1) - 1
        found = first_pieces(offsets, end - sizes, end)
        kept = ids[: length - 2]
        sequences.append(np.array(with_special_tokens(tokenizer, kept).ids, np.int32))
        positions.append(np.where((found >= 0) & (found < len(kept)), found + 1, -1))
    tags = [np.array([numbers[tag] for tag in sentence.tags], np.int32) for sentence in sentences]
    return EncodedTags(sentences, sequences, positions, tags)


def _batch(data: EncodedTagging, part: EncodedTags, rows: np.ndarray, length: int) -> Batch:
    """ids, segments, tags and counted [B, L], weight and row [B]; counted is 1 at the first piece of a word."""
    some = filled(rows)
    ids = pad([part.sequences[row] for row in some], length, data.tokenizer.pad_id)
    sizes = np.array([len(part.sequences[row]) for row in some])[:, None]
    tags = np.zeros(ids.shape, np.int32)
    counted = np.zeros(ids.shape, np.float32)
    for i, row in enumerate(rows):
        if row >= 0:
            at, kept = np.unique(part.positions[row], return_index=True)  # of two words in one piece the first counts
            kept = kept[at >= 0]
            at = at[at >= 0]
            tags[i, at] = part.tags[row][kept]
            counted[i, at] = 1.0
    return {
        "ids": ids,
        "segments": (np.arange(length)[None] < sizes).astype(np.int32),
        "tags": tags,
        "counted": counted,
        "weight": (rows >= 0).astype(np.float32),
        "row": some.astype(np.int32),
    }


def _evaluation(data: EncodedTagging, name: str, batch: int, write: Callable[..., None] | None = None) -> Eval:
    part = data.evaluated[name]
    task = data.task
    buckets = Buckets([len(ids) for ids in part.sequences], batch, edges_to(data.length))

    def batches() -> Iterator[Batch]:
        for rows, padded in buckets.all():
            yield _batch(data, part, rows, padded)

    def said(outputs: Mapping[str, np.ndarray]) -> list[list[str]]:
        classes = outputs["classes"][np.argsort(outputs["row"])]
        return [
            [data.sets.labels[row[at]] if at >= 0 else task.missing() for at in places.tolist()]
            for row, places in zip(classes, part.positions, strict=True)
        ]

    def score(outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
        predicted = said(outputs)
        cut = sum(int((places < 0).sum()) for places in part.positions)
        one = len({tag for tags in predicted for tag in tags}) == 1
        scores = task.score([sentence.tags for sentence in part.sentences], predicted)
        return {**scores, "cut": float(cut), "degenerate": float(one)}

    def save(outputs: Mapping[str, np.ndarray], directory: Path) -> None:
        (write or task.save)(part.sentences, said(outputs), data.sets.files[name], name, directory)

    return Eval(batches, _predict_to(data.length), score, save)


def _write_tags(
    sentences: list[TaggedSentence], said: list[list[str]], files: list[Path], name: str, directory: Path
) -> None:
    """NAME.tsv: columns of words and predicted tags, as `read_bio` and conlleval read them."""
    blocks = [
        "".join(f"{word}\t{tag}\n" for word, tag in zip(sentence.words, tags, strict=True))
        for sentence, tags in zip(sentences, said, strict=True)
    ]
    (directory / f"{name}.tsv").write_bytes("\n".join(blocks).encode())


def _loss(model: Any, batch: Mapping[str, Any], key: Any, step: Any) -> tuple[Mean, dict[str, Mean]]:
    logits = model(batch["ids"], batch["segments"], key).astype(jnp.float32)
    counted = batch["counted"]
    right = (logits.argmax(-1) == batch["tags"]) * counted
    count = counted.sum()
    return Mean(-(log_probability(logits, batch["tags"]) * counted).sum(), count), {
        "accuracy": Mean(right.sum(), count)
    }


# One function object for a length: what is compiled for it serves all fine-tunings of a grid.
@cache
def _predict_to(length: int) -> Callable:
    return partial(_predict, length)


def _predict(length: int, model: Any, batch: Mapping[str, Any]) -> dict[str, Array]:
    """The class of every token; all rows are padded to one length, so that batches can be joined."""
    classes = model(batch["ids"], batch["segments"], None).argmax(-1)
    rest = length - classes.shape[1]
    return {"classes": jnp.pad(classes, ((0, 0), (0, rest))), "row": batch["row"]}


def _accuracy(gold: list[list[str]], said: list[list[str]]) -> float:
    truth, guesses = (np.array([tag for tags in part for tag in tags]) for part in (gold, said))
    return accuracy(truth, guesses)


def _refuse_unknown(file: TaggedFile, types: list[str], train: Path) -> None:
    for sentence in file.sentences:
        for tag, row in zip(sentence.tags, sentence.rows, strict=True):
            if tag[2:] and tag[2:] not in types:
                raise InputError(
                    f"{file.path}:{row}: the tag {file_formats.brief(tag)!r} is of a type that {train.name} does not "
                    f"have; there are {file_formats.brief(', '.join(types))}"
                )


TASKS: dict[str, DownstreamTask] = {task.name: task for task in (NerTask("ner"), UposTask("upos"))}
"""The tasks by name."""
