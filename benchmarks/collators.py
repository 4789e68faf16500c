"""The maskings of other systems in a few lines each, as their code has them, for `jaxmlm audit --collator`.

    cd benchmarks
    jaxmlm audit --collator collators:electra --tokenizer ../runs/quickstart_run --rate 0.4

Each is a function of rows as `jaxmlm.audit_collator` gives them. The ids are those of a tokenizer that `jaxmlm prepare`
trained: pad 0, cls 2, sep 3, mask 4, text from 5 on; `TOKENIZER` says which of them begin a word. `numpy.random.seed`
makes them repeatable.
"""

import math
from functools import lru_cache

import numpy as np

from jaxmlm.data import Tokenizer
from jaxmlm.data.hf_tokenizer import open_tokenizer
from jaxmlm.data.word_boundaries import word_starts

PAD, MASK = 0, 4
RATE = 0.4
TOKENIZER = "../runs/quickstart_run"
"""Directory of the tokenizer, for SpanBERT, which masks words."""
LENGTHS = np.arange(1, 11)
SPAN_LENGTHS = 0.8 ** (LENGTHS - 1) / (0.8 ** (LENGTHS - 1)).sum()
Rows = list[dict[str, list[int]]]


def _arrays(rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Padded ids, and where special tokens and padding are."""
    longest = max(len(row["input_ids"]) for row in rows)
    ids, special = (np.full((len(rows), longest), fill) for fill in (PAD, 1))
    for i, row in enumerate(rows):
        ids[i, : len(row["input_ids"])] = row["input_ids"]
        special[i, : len(row["input_ids"])] = row["special_tokens_mask"]
    return ids, special.astype(bool), ids == PAD


def _masked(ids: np.ndarray, chosen: np.ndarray, labels: np.ndarray | None = None) -> dict[str, np.ndarray]:
    labelled = chosen if labels is None else labels
    return {"input_ids": np.where(chosen, MASK, ids), "labels": np.where(labelled, ids, -100)}


def bert(rows: Rows) -> dict[str, np.ndarray]:
    """google-research/bert, create_pretraining_data.py: an exact count, at most 20 and at least 1."""
    ids, special, _ = _arrays(rows)
    order = np.where(special, 2.0, np.random.random(ids.shape)).argsort(1).argsort(1)
    length = (ids != PAD).sum(1)
    count = np.minimum(20, np.maximum(1, np.round(length * RATE)))
    return _masked(ids, (order < count[:, None]) & ~special)


def electra(rows: Rows) -> dict[str, np.ndarray]:
    """google-research/electra, pretrain_helpers.py: positions are drawn with replacement."""
    ids, special, _ = _arrays(rows)
    chosen = np.zeros_like(special)
    for i, candidates in enumerate(~special):
        drawn = np.random.choice(np.flatnonzero(candidates), max(1, round(RATE * candidates.sum())))
        chosen[i, drawn] = True
    return _masked(ids, chosen)


def fairseq(rows: Rows) -> dict[str, np.ndarray]:
    """facebookresearch/fairseq, mask_tokens_dataset.py: <s> and </s> are in the row when it is masked."""
    ids, _, padding = _arrays(rows)
    order = np.where(padding, 2.0, np.random.random(ids.shape)).argsort(1).argsort(1)
    count = np.floor(RATE * (~padding).sum(1) + np.random.random(len(ids)))
    return _masked(ids, order < count[:, None])


def modernbert(rows: Rows) -> dict[str, np.ndarray]:
    """AnswerDotAI/ModernBERT, sequence_packer.py: special tokens and padding are masked; padding has no label."""
    ids, _, padding = _arrays(rows)
    chosen = np.random.random(ids.shape) < RATE
    return _masked(ids, chosen, chosen & ~padding)


def spanbert(rows: Rows) -> dict[str, np.ndarray]:
    """facebookresearch/SpanBERT, masking.py: from a random token's word on, until the count (rounded up) is reached.

    Spans of 1 to 10 words, of which the last is cut off; 80-10-10 for each run of masked tokens. Rows have no <cls> and
    <sep> yet.
    """
    ids, special, _ = _arrays(rows)
    tokenizer = _tokenizer(TOKENIZER)
    inputs, labels = ids.copy(), np.full_like(ids, -100)
    for i, text in enumerate(~special):
        at = np.flatnonzero(text)
        chosen = np.zeros(len(at), bool)
        words = np.union1d([0, len(at)], np.flatnonzero(word_starts(tokenizer.boundaries[ids[i, at]])))
        budget = math.ceil(RATE * len(at))
        while chosen.sum() < budget:
            anchor, span = np.random.choice(len(at)), np.random.choice(LENGTHS, p=SPAN_LENGTHS)
            if not chosen[anchor]:
                first = int(np.searchsorted(words, anchor, "right")) - 1
                span_tokens = np.arange(int(words[first]), int(words[min(first + span, len(words) - 1)]))
                new = span_tokens[~chosen[span_tokens]]
                chosen[new[: budget - chosen.sum()]] = True
        labels[i, at[chosen]] = ids[i, at[chosen]]
        runs = np.cumsum(np.diff(chosen.astype(int), prepend=0) == 1)
        draw = np.random.random(runs.max() + 1)[runs]
        random = np.random.choice(np.flatnonzero(~tokenizer.special), len(at))
        new_ids = np.where(draw < 0.8, MASK, np.where(draw < 0.9, random, ids[i, at]))
        inputs[i, at] = np.where(chosen, new_ids, ids[i, at])
    return {"input_ids": inputs, "labels": labels}


@lru_cache(maxsize=1)
def _tokenizer(directory: str) -> Tokenizer:
    return open_tokenizer(directory)
