"""The likelihood bound: an upper bound of the negative log-likelihood of a text, which weighs all masking rates alike.

Of an example's n maskable tokens k are masked, k uniform on 1..n. The mean over k of the mean loss of the masked tokens
is, times n, the bound of an any-order autoregressive model (Uria et al. 2014, arXiv 1310.1757; Hoogeboom et al. 2022,
arXiv 2110.02037), which masked diffusion models are trained on (Sahoo et al. 2024, arXiv 2406.07524). Its term k = 1 is
the pseudo-log-likelihood.

The number of masked tokens is exact: k = 1 + floor(r n) for r uniform on [0, 1). Rounding r n at random instead, as a
masking of rate r does, draws k = n half as often as the others and leaves k = 0 out; that is not a bound.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxmlm.data import Vocabulary
from jaxmlm.data.buckets import Buckets, edges_to, filled, pad
from jaxmlm.errors import InputError
from jaxmlm.masking import Masked, Vocab
from jaxmlm.tasks.likelihood import ScoredRows
from jaxmlm.tasks.mlm import predictions
from jaxmlm.training import Batch, Eval

BINS = 10
"""Rates at which the curve of the loss is measured: the means over equal parts of (0, 1]."""
PARTS = (0.0, 0.3, 0.7, 1.0)
"""Between which rates the parts of the bound are."""
LENGTHS = (16, 32, 64, 128, 256, 512)
"""Padded lengths."""
SLOTS = 4
"""Prediction slots of a batch are a multiple of this share of its length."""
LEAST_ROWS = 4
"""A standard error needs so many rows."""


class Draws(NamedTuple):
    """How many tokens are masked, of R rows D times each.

    Attributes:
        rate: [R, D] the rate r on [0, 1), stratified over the rows.
        masked: [R, D] the number of masked tokens, k = 1 + floor(r n).
        half: [R] which half of the rows this one is in, 0 or 1; each half is stratified by itself.

    """

    rate: np.ndarray
    masked: np.ndarray
    half: np.ndarray


def draw_counts(tokens: Int[np.ndarray, " R"], draws: int, seed: int) -> Draws:
    """Draw the numbers of masked tokens, so that the rates of all rows together lie evenly (low discrepancy).

    [0, 1) is cut into as many strata as a half has rows, and each of its rows, in random order, gets one of them and a
    uniform place in it. The draws of a row are at that place of each of D equal parts of [0, 1). Each rate by itself is
    uniform. (Masked diffusion draws its times alike: Kingma et al. 2021, arXiv 2107.00630, appendix I.1.)

    Args:
        tokens: maskable tokens of each row, n.
        draws: D, the number of times that each row is masked.
        seed: of the rates.

    >>> draws = draw_counts(np.array([4, 4, 4, 4]), draws=2, seed=0)
    >>> sorted(draws.masked.ravel().tolist())
    [1, 1, 2, 2, 3, 3, 4, 4]
    """
    random = _generator(seed)
    order = random.permutation(len(tokens))
    place = np.zeros(len(tokens))
    half = np.zeros(len(tokens), int)
    for number in (0, 1):
        mine = order[number::2]
        place[mine] = (np.arange(len(mine)) + random.random(len(mine))) / max(len(mine), 1)
        half[mine] = number
    rate = np.minimum((np.arange(draws) + place[:, None]) / draws, np.nextafter(1.0, 0.0))
    count = tokens[:, None]
    masked = np.minimum(1 + np.floor(rate * count).astype(int), count)
    return Draws(rate, masked, half)


class MaskedCopies:
    """Copies of rows in which the drawn numbers of tokens are masked, in batches of a few shapes.

    Special tokens are not masked. Batches hold inputs and segments [B, L], positions, targets and weights [B, P], and
    copy [B], the number of the copy. Which tokens are masked is a function of (seed, row, draw).
    """

    def __init__(
        self,
        rows: Sequence[np.ndarray],
        special: np.ndarray,
        tokenizer: Vocabulary | Vocab,
        batch: int,
        draws: int,
        seed: int,
    ):
        self._rows = rows
        self._tokenizer = tokenizer
        self._seed = seed
        self._maskable = [np.flatnonzero(~special[row]) for row in rows]
        self.tokens = np.array([len(positions) for positions in self._maskable])
        self.draws = draw_counts(self.tokens, draws, seed)
        masked = self.draws.masked.ravel()
        self._order = np.argsort(masked, kind="stable")  # those of a batch need a like number of slots
        lengths = np.repeat([len(row) for row in rows], draws)[self._order]
        self._buckets = Buckets(lengths, batch, edges_to(int(lengths.max()), LENGTHS))

    def __len__(self) -> int:
        """How many batches there are."""
        return self._buckets.steps_per_epoch

    def batches(self) -> Iterator[Batch]:
        """Each copy once; the last batch is filled up with copies of weight 0."""
        for found, length in self._buckets.all():
            copies = self._order[filled(found)]
            yield {**self._batch(copies, length), "weight": (found >= 0).astype(np.float32)}

    def _batch(self, copies: np.ndarray, length: int) -> Batch:
        row, draw = np.divmod(copies, self.draws.masked.shape[1])
        masked = [self._masked(*at) for at in zip(row.tolist(), draw.tolist(), strict=True)]
        step = math.ceil(length / SLOTS)
        slots = min(length, step * math.ceil(max(map(len, masked)) / step))
        ids = pad([self._rows[i] for i in row], length, self._tokenizer.pad_id)
        # An empty slot has a token that can be masked: another one's logarithm, times weight 0, would not be a number.
        positions = np.stack([np.pad(places, (0, slots - len(places)), constant_values=places[0]) for places in masked])
        positions = positions.astype(np.int32)
        weights = pad([np.ones(len(places)) for places in masked], slots, 0)
        inputs = ids.copy()
        for one, places in zip(inputs, masked, strict=True):
            one[places] = self._tokenizer.mask_id
        return {
            "inputs": inputs,
            "positions": positions,
            "targets": np.take_along_axis(ids, positions, 1),
            "weights": weights.astype(np.float32),
            "segments": pad([np.ones(len(self._rows[i])) for i in row], length, 0),
            "copy": copies.astype(np.int32),
        }

    def _masked(self, row: int, draw: int) -> np.ndarray:
        """The positions that are masked, in order."""
        places = self._maskable[row]
        chosen = _generator(self._seed, row, draw).permutation(len(places))[: self.draws.masked[row, draw]]
        return np.sort(places[chosen])


def likelihood_bound(rows: ScoredRows, tokenizer: Vocabulary, batch: int, draws: int = 1, seed: int = 0) -> Eval:
    """The bound of rows of text, each a document or a part of one, as an evaluation of a masked language model.

    Only [MASK] stands at a masked token, and only tokens that can stand in a text have a probability: special tokens
    have none. Special tokens of a text, unknown ones among them, are neither masked nor counted.

    Args:
        rows: of a text: see `rows_of_documents`.
        tokenizer: of the model.
        batch: rows in one pass of the model.
        draws: how often each row is masked.
        seed: of the masks.

    Returns:
        an evaluation with the metrics of `estimate`, the numbers of rows, tokens, words and bytes, and tokens per word.

    Raises:
        InputError: no row has a token that can be masked.

    """
    special = tokenizer.special
    keep = np.array([not special[row].all() for row in rows.ids], bool)
    if not keep.any():
        raise InputError(f"none of the {len(rows.ids)} rows has a token that can be masked: give another text")
    ids = [row for row, kept in zip(rows.ids, keep, strict=True) if kept]
    words = rows.words[keep]
    sizes = rows.bytes[keep]
    copies = MaskedCopies(ids, special, tokenizer, batch, draws, seed)
    unknown = sum(int((row == tokenizer.unk_id).sum()) for row in ids)

    def score(outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
        nats = np.zeros(copies.draws.masked.size)
        nats[outputs["copy"]] = outputs["nats"]
        losses = nats.reshape(copies.draws.masked.shape) / copies.draws.masked
        found = estimate(losses, copies.draws, copies.tokens, words, sizes)
        counts = {"rows": len(ids), "tokens": copies.tokens.sum(), "words": words.sum(), "bytes": sizes.sum()}
        counts |= {"unknown": unknown} if unknown else {}
        counts |= {"tokens_per_word": counts["tokens"] / counts["words"]} if counts["words"] else {}
        return found | {name: float(value) for name, value in counts.items()}

    return Eval(copies.batches, _predict(np.asarray(special, bool).tobytes()), score, size=len(copies))


@lru_cache(maxsize=8)
def _predict(special: bytes) -> Callable[[Any, Batch], dict[str, jax.Array]]:
    """The nats of the masked tokens of each copy; one function for a vocabulary, so that it is compiled once."""
    excluded = np.frombuffer(special, bool)

    def predict(model: Any, batch: Batch) -> dict[str, jax.Array]:
        masked = Masked(*(batch[name] for name in Masked._fields))
        nats, _ = predictions(model.without(jnp.asarray(excluded)), masked, batch["segments"], None)
        return {"copy": batch["copy"], "nats": nats.sum(-1)}

    return predict


def estimate(
    losses: Float[np.ndarray, "R D"],
    draws: Draws,
    tokens: Int[np.ndarray, " R"],
    words: Int[np.ndarray, " R"],
    sizes: Int[np.ndarray, " R"],
) -> dict[str, float]:
    """Estimate the bound, its parts and its curve.

    Args:
        losses: mean nats of the masked tokens, for each row and draw.
        draws: the rates at which they were masked.
        tokens: maskable tokens of each row.
        words: words of each row.
        sizes: bytes of each row.

    Returns:
        "bound" (nats per token), "bits_per_word" and "bits_per_byte", each with its standard error over the rows
        ("bound_se"); "part@0-0.3" and so on, which sum to the bound; "curve@0.05" and so on, the loss at the rates of a
        tenth, and "half/0@0.05", the same of one half of the rows. What no row says anything of is left out.

    """
    nats = losses.mean(1) * tokens
    found = {}
    for name, total, count in (
        ("bound", nats, tokens),
        ("bits_per_word", nats / math.log(2), words),
        ("bits_per_byte", nats / math.log(2), sizes),
    ):
        if count.sum():
            found[name] = float(total.sum() / count.sum())
            if len(tokens) >= LEAST_ROWS:
                found[f"{name}_se"] = _standard_error(total, count, draws)
    weights = np.broadcast_to(tokens[:, None] / losses.shape[1], losses.shape)
    for low, high in zip(PARTS, PARTS[1:], strict=False):
        inside = (draws.rate >= low) & (draws.rate < high)
        found[f"part@{low:g}-{high:g}"] = float((losses * weights)[inside].sum() / tokens.sum())
    every = np.ones(len(tokens), bool)
    found |= _curve("curve", losses, weights, draws, every)
    for half in (0, 1):
        found |= _curve(f"half/{half}", losses, weights, draws, draws.half == half)
    return found


def curve_name(name: str, bin: int) -> str:
    """The name of a point of a curve, by the middle of its rates.

    >>> curve_name("curve", 0), curve_name("half/1", 9)
    ('curve@0.05', 'half/1@0.95')
    """
    return f"{name}@{(bin + 0.5) / BINS:.2f}"


def _curve(name: str, losses: np.ndarray, weights: np.ndarray, draws: Draws, rows: np.ndarray) -> dict[str, float]:
    """The mean loss in each of `BINS` equal parts of the rates, over some of the rows."""
    part = np.minimum((draws.rate[rows] * BINS).astype(int), BINS - 1).ravel()
    total = np.bincount(part, (losses * weights)[rows].ravel(), BINS)
    count = np.bincount(part, weights[rows].ravel(), BINS)
    return {curve_name(name, i): float(total[i] / count[i]) for i in range(BINS) if count[i]}


def _standard_error(total: np.ndarray, count: np.ndarray, draws: Draws) -> float:
    """Of total.sum() / count.sum() over the rows, which are a sample of a text and whose rates are stratified.

    By the differences of rows whose rates are neighbours, since a stratified sample does not vary by the differences
    between its strata (Wolter 2007, Introduction to Variance Estimation, chapter 8).
    """
    rest = total - total.sum() / count.sum() * count
    square = 0.0
    pairs = 0
    for half in (0, 1):
        mine = np.flatnonzero(draws.half == half)
        step = np.diff(rest[mine[np.argsort(draws.rate[mine, 0])]])
        square += float((step**2).sum())
        pairs += len(step)
    return math.sqrt(len(total) * square / (2 * pairs)) / float(count.sum())


def _generator(*numbers: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([number % 2**32 for number in numbers])))
