"""Pseudo-log-likelihoods: the sum of a row's tokens' log-probabilities, each token masked in turn.

Salazar et al. 2020, arXiv 1910.14659. Every token costs a pass over a masked copy of its row: a batch holds copies of
many rows of similar length, and the model computes its last block and its logits at the masked position only.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array

from jaxmlm.data import Batches, Tokenizer
from jaxmlm.data.buckets import Buckets, chosen, edges_to, filled, pad
from jaxmlm.data.inputs import with_special_tokens
from jaxmlm.data.rows import PackedRows
from jaxmlm.data.sources import documents, files
from jaxmlm.data.tokenizer import clean
from jaxmlm.data.word_boundaries import word_starts
from jaxmlm.errors import InputError
from jaxmlm.tasks.metrics import log_probability, perplexity_of
from jaxmlm.training import Batch, Eval

LENGTHS = (*range(8, 33, 2), 40, 48, 64, 96, 128, 192, 256, 384, 512)
"""Padded lengths."""
OFTEN = 20
"""A length of so many batches is one of its own: the padding that it saves costs more than a program to compile."""
BATCH = 256
"""Masked copies in a model pass."""


class ScoredRows(NamedTuple):
    """Rows of one document or a part of one.

    Attributes:
        ids: token ids of each row, with its special tokens.
        words: [R] words of the text that begin in a row.
        bytes: [R] bytes of the text, in UTF-8, from where a row begins to where the next row of its document does.

    """

    ids: list[np.ndarray]
    words: np.ndarray
    bytes: np.ndarray


class Copies:
    """Every token of these rows masked in turn, in batches of one of a few lengths.

    Special tokens at the ends of a text (<cls>, <sep>) are not masked. Batches hold ids and segments [B, L], the masked
    position [B, 1], the token that was there and its row [B].

    Args:
        rows: token ids of each row.
        tokenizer: of the model.
        batch: copies in a batch.
        begins: for each row the first position that is masked; None: all are.
        pll_word: mask, with a token, those of its word that follow it, which otherwise give it away (Kauf and Ivanova
            2023, arXiv 2305.10588, PLL-word-l2r).

    """

    def __init__(
        self,
        rows: Sequence[Sequence[int]] | Sequence[np.ndarray],
        tokenizer: Tokenizer,
        batch: int,
        begins: Sequence[int] | None = None,
        pll_word: bool = False,
    ):
        self.rows = [np.asarray(row, np.int32) for row in rows]
        self.tokenizer = tokenizer
        self.batch = batch
        lengths = np.array([len(row) for row in self.rows])
        ends = (tokenizer.cls_id, tokenizer.sep_id)
        self._ids = pad(self.rows, int(lengths.max()), tokenizer.pad_id)
        every = np.arange(self._ids.shape[1])
        places = (every < lengths[:, None]) & ~np.isin(self._ids, ends)
        if begins is not None:
            places &= every >= np.asarray(begins)[:, None]
        self._words = _words(self._ids, tokenizer) if pll_word else None
        self.tokens = places.sum(1)
        self._row, self._position = (at.astype(np.int32) for at in np.nonzero(places))
        own = np.flatnonzero(np.bincount(lengths[self._row]) >= OFTEN * batch).tolist()
        edges = edges_to(int(lengths.max()), sorted({*LENGTHS, *own}))
        self._buckets = Buckets(lengths[self._row], batch, edges)

    def __len__(self) -> int:
        """How many batches there are."""
        return self._buckets.steps_per_epoch

    def batches(self) -> Iterator[Batch]:
        """Each copy once; the last batch is filled up with copies of weight 0."""
        t = self.tokenizer
        every = np.arange(self.batch)
        for copies, length in self._buckets.all():
            full = filled(copies)
            row = self._row[full]
            position = self._position[full]
            ids = self._ids[row, :length]
            segments = (ids != t.pad_id).astype(np.int32)
            target = ids[every, position]
            ids[every, position] = t.mask_id
            if self._words is not None:
                words = self._words[row, :length]
                rest = np.arange(length) > position[:, None]
                ids = np.where(rest & (words == words[every, position][:, None]), t.mask_id, ids).astype(np.int32)
            yield {
                "ids": ids,
                "segments": segments,
                "position": position[:, None],
                "target": target,
                "row": row,
                "weight": (copies >= 0).astype(np.float32),
            }

    def sums(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The pseudo-log-likelihood of each row in nats, out of what `predict` gave."""
        return np.bincount(outputs["row"], outputs["log_probability"].astype(np.float64), len(self.rows))


def _words(ids: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """The number of the word that each token [R, L] is of, in its row; special tokens are words of their own."""
    return word_starts(tokenizer.boundaries[ids]).cumsum(1)


def predict(model: Any, batch: Mapping[str, Any]) -> dict[str, Array]:
    """The log-probability of the masked token of each copy."""
    logits = model.logits_at(batch["ids"], batch["segments"], batch["position"])
    return {"row": batch["row"], "log_probability": log_probability(logits[:, 0], batch["target"])}


def perplexity(rows: ScoredRows, tokenizer: Tokenizer, batch: int, pll_word: bool = False) -> Eval:
    """Pseudo-perplexity: exp(- the rows' pseudo-log-likelihoods / their tokens), and the same by their words.

    That by words compares models of different vocabularies. `loss` is in nats for each token. `pll_word`: see `Copies`.
    """
    copies = Copies(rows.ids, tokenizer, batch, pll_word=pll_word)

    def score(outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
        nats = -copies.sums(outputs).sum()
        tokens = copies.tokens.sum()
        words = rows.words.sum()
        per_word = perplexity_of(nats / max(words, 1))
        return {
            "pseudo_perplexity": perplexity_of(nats / tokens),
            "pseudo_perplexity_word": per_word,
            "loss": float(nats / tokens),
            "tokens": float(tokens),
            "words": float(words),
        }

    return Eval(copies.batches, predict, score, size=len(copies))


def rows_of_text(text: str, tokenizer: Tokenizer, length: int, limit: int | None) -> ScoredRows:
    """Rows of the documents of text files: see `rows_of_documents`."""
    found = (document.text for document in documents(files(text)))
    return rows_of_documents(found, tokenizer, length, limit, repr(text))


def rows_of_documents(
    texts: Iterable[str], tokenizer: Tokenizer, length: int, limit: int | None, name: str = "the texts"
) -> ScoredRows:
    """Documents, cut into rows of at most `length` tokens; `limit` rows, always the same ones.

    A document's rows have its tokens in order, each row between <cls> and <sep>. A word is what spaces separate; it is
    of the row in which it begins.

    Args:
        texts: the documents.
        tokenizer: of the model.
        length: most tokens of a row, special tokens included.
        limit: rows to take; None: all.
        name: what an error calls the documents.

    Raises:
        InputError: the documents have no tokens.

    """
    ids = []
    words = []
    sizes = []
    for text in map(clean, texts):
        found, offsets = tokenizer.encode_offsets(text)
        starts = range(0, len(found), length - 2)
        edges = [0, *(offsets[start][0] for start in starts[1:]), len(text)]
        for start, begin, end in zip(starts, edges, edges[1:], strict=False):
            part = found[start : start + length - 2]
            ids.append(np.array(with_special_tokens(tokenizer, part).ids, np.int32))
            begins = {b for b, e in offsets[start : start + length - 2] if b < e}
            words.append(sum(b == 0 or text[b - 1].isspace() for b in begins))
            sizes.append(len(text[begin:end].encode()))
    if not ids:
        raise InputError(f"no tokens in {name}: give a text of at least one word")
    keep = np.sort(chosen(len(ids), limit))
    return ScoredRows([ids[i] for i in keep], np.array(words)[keep], np.array(sizes)[keep])


def rows_of_split(split: Batches, tokenizer: Tokenizer, limit: int | None) -> ScoredRows:
    """Rows of a store's split, as pre-training cuts them; a packed row is read as one text.

    The documents of a packed row are scored as rows of their own. Words and bytes are those of the decoded
    tokens.
    """
    rows = split.take(np.sort(chosen(split.rows, limit)))
    segments = rows.get("segments", np.ones_like(rows["ids"]))
    ids = [row[own == n] for row, own in zip(rows["ids"], segments, strict=True) for n in range(1, own.max() + 1)]
    texts = [tokenizer.decode(row.tolist()) for row in ids]
    words = np.array([len(text.split()) for text in texts])
    return ScoredRows(ids, words, np.array([len(clean(text).encode()) for text in texts]))


def packed(text: str, tokenizer: Tokenizer, length: int) -> Batches:
    """The documents of text files as a store would hold them: one stream, cut into rows of `length` tokens."""
    found = tokenizer.encode_batch([document.text for document in documents(files(text))])
    none = np.zeros(0, np.int32)  # of a file of blank lines
    stream = np.concatenate([none, *(np.array([*ids, tokenizer.sep_id], np.int32) for ids in found)])
    if len(stream) < length - 1:
        raise InputError(f"{text}: {len(stream)} tokens, fewer than one row of {length}: give more text or --length")
    return Batches(PackedRows(stream, tokenizer.cls_id, length), 1)
