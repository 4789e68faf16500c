"""`jaxmlm audit --collator FILE.py:NAME`: what a collator of anyone's does to rows, beside what it is asked for."""

import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from jaxmlm.checks import COUNT, POSITIVE_SHARE, check_numbers, integers
from jaxmlm.data.buckets import pad
from jaxmlm.data.hf_tokenizer import export_tokenizer, open_tokenizer
from jaxmlm.data.inputs import with_special_tokens
from jaxmlm.data.sources import documents, files
from jaxmlm.data.tokenizer import Tokenizer
from jaxmlm.data.word_boundaries import word_starts
from jaxmlm.errors import InputError, brief
from jaxmlm.masking.collators import Collated, Rows, audit_collated
from jaxmlm.synthetic import world
from jaxmlm.user_code import find_object
from jaxmlm.wording import hint, install_command

Collator = Callable[[list[dict[str, list[int]]]], Mapping[str, Any]]
"""From rows {"input_ids", "attention_mask", "special_tokens_mask"} to padded "input_ids" and "labels" [B, L]."""
BATCH = 32
"""Rows that a collator gets at a time."""
TRANSFORMERS = ("DataCollatorForLanguageModeling", "DataCollatorForWholeWordMask")
"""The collators of `transformers` that are known by name; the second is the first with `whole_word_mask`."""


@dataclass(frozen=True)
class CollatorAudit:
    """What `jaxmlm audit --collator` takes."""

    collator: str
    """The collator as MODULE:NAME or FILE.py:NAME: a function of rows, or one of transformers' classes
    (transformers:DataCollatorForLanguageModeling, transformers:DataCollatorForWholeWordMask)."""
    tokenizer: str
    """Directory of the tokenizer: a run, a token store, or one of the transformers format."""
    rate: float = 0.15
    """Masking rate that the collator is asked for."""
    text: str | None = None
    """Text files, one document after the other; None: the generated sample."""
    rows: int = 512
    """Rows to measure on."""
    length: int = 128
    """Tokens of the longest row, special tokens included."""
    epochs: int = 3
    """How often the collator gets the same rows."""

    def __post_init__(self) -> None:
        check_numbers(self, "", rate=POSITIVE_SHARE, rows=COUNT, length=integers(8), epochs=COUNT)


def audit_collator(
    function: Collator,
    tokenizer: Any,
    rate: float = 0.15,
    texts: Sequence[str] | None = None,
    rows: int = 512,
    length: int = 128,
    epochs: int = 3,
) -> dict[str, Any]:
    """Measure what a collator does to rows: any callable that makes inputs and labels of token ids.

    Args:
        function: from a list of {"input_ids", "attention_mask", "special_tokens_mask"}, one dict a row, to a mapping
            with "input_ids" and "labels" [B, L], padded at the end; labels are -100 where nothing is predicted.
        tokenizer: a directory, one of jaxmlm's, or one of transformers'.
        rate: the masking rate that was asked for.
        texts: a row is cut from the beginning of each; None: sentences of the generated sample.
        rows: how many rows, at most.
        length: tokens of the longest row.
        epochs: how often the collator gets the same rows.

    Returns:
        see `jaxmlm.masking.collators.audit_collated`.

    Raises:
        InputError: the collator changes ids outside its labels, or its labels are not the ids that were there.

    """
    if not 0 < rate <= 1:
        raise InputError(f"rate must be above 0 and at most 1; got {rate:g}: try 0.15")
    if rows < 1 or epochs < 1 or length < 3:
        raise InputError(f"got {rows} rows of {length} tokens and {epochs} epochs: a row needs 3 tokens, the rest 1")
    known = tokenizer if isinstance(tokenizer, Tokenizer) else _opened(tokenizer)
    found = _sample(rows) if texts is None else list(texts)[:rows]
    encoded = [with_special_tokens(known, ids[: length - 2]).ids for ids in known.encode_batch(found) if ids]
    if not encoded:
        raise InputError("the texts have no tokens: give texts with words in them")
    features = [_features(known, ids) for ids in encoded]
    longest = max(map(len, encoded))
    ids = pad(encoded, longest, known.pad_id)
    padding = np.arange(longest) >= np.array([len(row) for row in encoded])[:, None]
    passes = [_collated(function, features, longest, known.pad_id) for _ in range(epochs)]
    starts = word_starts(known.boundaries[ids]).astype(bool)
    return audit_collated(
        Rows(ids, known.special[ids] & ~padding, padding, starts), passes, known.mask_id, known.special, rate
    )


def audit_named(options: CollatorAudit) -> dict[str, Any]:
    """Measure the collator that the command line names; prints a table and returns what was measured."""
    tokenizer = open_tokenizer(options.tokenizer)
    function = named_collator(options.collator, tokenizer, options.rate)
    texts = None if options.text is None else [text for text, *_ in documents(files(options.text))]
    found = audit_collator(function, tokenizer, options.rate, texts, options.rows, options.length, options.epochs)
    Console(stderr=True).print(table(options.collator, found))
    return found


def named_collator(name: str, tokenizer: Tokenizer, rate: float) -> Collator:
    """The collator that is called MODULE:NAME or FILE.py:NAME.

    Args:
        name: of a function; or transformers: and one of `TRANSFORMERS`, which is made with the tokenizer and the rate.
        tokenizer: for those of transformers.
        rate: for those of transformers.

    """
    if name.startswith("transformers:"):
        return _of_transformers(name.removeprefix("transformers:"), tokenizer, rate)
    found: Any = find_object(name, "--collator: a function of rows")
    if not callable(found) or isinstance(found, type):
        raise InputError(f"--collator {name} is not a function of rows: name one, or transformers:{TRANSFORMERS[0]}")
    function: Any = found
    return function


def table(name: str, found: dict[str, Any]) -> Table:
    """What was measured, for the terminal."""
    shown = Table(title=f"{name}: {found['rows']} rows, {found['tokens']:,} maskable tokens", show_header=False)
    for kind, share in found["shares"].items():
        asked = f", asked {100 * share['asked']:.2f} %" if "asked" in share else " of them"
        interval = f"({100 * share['low']:.2f} to {100 * share['high']:.2f})"
        shown.add_row(kind, f"{100 * share['got']:.2f} % {interval}{asked}")
    for kind, count in found["special"].items():
        shown.add_row(kind if "that" in kind else f"{kind} selected or changed", f"{count:,}")
    words = found["words"]
    repeats = found["repeats"]
    shown.add_row("words of several tokens that are cut", f"{100 * words['cut']:.1f} % of {words['touched']:,}")
    shown.add_row("bias by position", f"{found['positions']['bias']} standard errors at most")
    shown.add_row("bias by length of the word", f"{found['lengths']['bias']} standard errors at most")
    by_chance = f" ({repeats['chance']:,.0f} by chance)" if repeats["chance"] >= 0.5 else ""
    shown.add_row("rows masked as in the first pass", f"{repeats['rows']:,} of {repeats['of']:,}{by_chance}")
    shown.add_row("rows without a prediction", f"{found['rows without a prediction']:,}")
    shown.add_row("as asked", "yes" if found["ok"] else "no")
    return shown


def _features(tokenizer: Tokenizer, ids: list[int]) -> dict[str, list[int]]:
    special = tokenizer.special[ids].astype(int).tolist()
    return {"input_ids": list(ids), "attention_mask": [1] * len(ids), "special_tokens_mask": special}


def _collated(function: Collator, features: list[dict[str, list[int]]], length: int, pad_id: int) -> Collated:
    """What a collator makes of all rows in one pass, padded to the longest."""
    inputs = []
    labels = []
    for start in range(0, len(features), BATCH):
        rows = [{name: list(values) for name, values in row.items()} for row in features[start : start + BATCH]]
        try:
            made = function(rows)
        except Exception as error:
            raise InputError(f"the collator fails on the rows: {type(error).__name__}: {brief(error)}") from error
        try:
            both = [np.asarray(made[name], np.int64) for name in ("input_ids", "labels")]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                "a collator returns a mapping with the arrays input_ids and labels; this one's result cannot be read "
                f"({type(error).__name__}: {error})"
            ) from error
        if any(x.ndim != 2 or len(x) != len(rows) for x in both):
            raise InputError(f"the collator makes {both[0].shape} inputs of {len(rows)} rows: it must keep rows")
        for x, to, fill in ((both[0], inputs, pad_id), (both[1], labels, -100)):
            more = max(length - x.shape[1], 0)
            to.append(np.pad(x, ((0, 0), (0, more)), constant_values=fill)[:, :length])
    return Collated(np.concatenate(inputs), np.concatenate(labels))


def _opened(tokenizer: Any) -> Tokenizer:
    """A tokenizer by its directory, or one of transformers' by the files that it writes."""
    if isinstance(tokenizer, str | Path):
        return open_tokenizer(tokenizer)
    if not hasattr(tokenizer, "save_pretrained"):
        raise InputError(f"the tokenizer is a {type(tokenizer).__name__}: give a directory, or a fast tokenizer")
    with tempfile.TemporaryDirectory() as directory:
        tokenizer.save_pretrained(directory)
        return open_tokenizer(directory)


def _sample(rows: int) -> list[str]:
    """Generated texts of one to several sentences."""
    rng = random.Random(0)
    texts = []
    for document in world.documents(0, rows):
        sentences = document.split(". ")
        texts.append(". ".join(sentences[: rng.randint(1, len(sentences))]))
    return texts


def _of_transformers(name: str, tokenizer: Tokenizer, rate: float) -> Collator:
    if name not in TRANSFORMERS:
        raise InputError(f"--collator transformers:{name} is not known here{hint(name, TRANSFORMERS)}")
    try:
        from transformers import AutoTokenizer, DataCollatorForLanguageModeling
    except ImportError as error:
        raise InputError(f"--collator transformers:... needs it: {install_command('parity')}") from error
    with tempfile.TemporaryDirectory() as directory:
        export_tokenizer(tokenizer, directory, 512)
        theirs = AutoTokenizer.from_pretrained(directory)
    if name == TRANSFORMERS[0]:
        return DataCollatorForLanguageModeling(theirs, mlm_probability=rate, return_tensors="np")
    collator = DataCollatorForLanguageModeling(
        theirs,
        mlm_probability=rate,
        whole_word_mask=True,
        mask_replace_prob=1.0,
        random_replace_prob=0.0,
        return_tensors="np",
    )

    def whole_words(rows: list[dict[str, list[int]]]) -> dict[str, Any]:
        # It pads no offsets: row by row.
        made = [collator([{**row, "offset_mapping": _offsets(tokenizer, row)}]) for row in rows]
        longest = max(len(row["input_ids"]) for row in rows)
        fills = {"input_ids": tokenizer.pad_id, "labels": -100}
        return {name: pad([one[name][0] for one in made], longest, fill) for name, fill in fills.items()}

    return whole_words


def _offsets(tokenizer: Tokenizer, row: dict[str, list[int]]) -> list[tuple[int, int]]:
    """Characters [begin, end) that say the same of words: the tokens of one word touch, special tokens have none."""
    ids = np.array(row["input_ids"])
    at = 0
    offsets = []
    for starts, special in zip(word_starts(tokenizer.boundaries[ids]), tokenizer.special[ids], strict=True):
        at += int(starts)
        offsets.append((0, 0) if special else (at, at + 1))
        at += int(not special)
    return offsets
