"""Is the rate that was asked for the rate that is given? A masking measured on rows of tokens.

Would have caught ELECTRA's 33 % for 40 % (positions drawn with replacement), the 15.6 % that BERT's cap of 20
predictions makes of 40 %, and every system that masks its special tokens.
"""

import math
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlm.masking.batch import mask_batch
from jaxmlm.masking.laws import Law
from jaxmlm.masking.masking import Masking
from jaxmlm.masking.replacement import Vocab
from jaxmlm.masking.selection import Selection
from jaxmlm.masking.units import PHRASE, WORD, Tokens, indices_in_units
from jaxmlm.rng import step_key

SIGMAS = 4.5
"""Half of an interval: what a right masking leaves once in 150,000 audits."""
_CHUNK = 256


class Drawn(NamedTuple):
    """What a masking did to rows: selected, predicted [R, K, L] bool, inputs [R, K, L], place [R, L] in the unit.

    slots [R, K]: predictions made. points [R]: where the rows stand in the law of the rate, 0 if it is one number.
    """

    selected: np.ndarray
    predicted: np.ndarray
    inputs: np.ndarray
    place: np.ndarray
    slots: np.ndarray
    points: np.ndarray


def audit(
    masking: Masking, tokens: Tokens, examples: np.ndarray, vocab: Vocab, seed: int = 0, step: int = 0, epochs: int = 3
) -> dict[str, Any]:
    """Measure a masking on rows [R, L] with ids `examples` [R]; `step` is the one whose rate is asked for.

    Returns shares of the maskable tokens, asked and got, with intervals; the units' lengths and how often each length
    and each position is selected; the share of words, of spans of three words and of phrases (where the unit bits
    know them) that is selected whole; faults, all of which must be 0; rows that predict nothing; of a rate that follows
    a law, "law": what `law_of_rates` gives; and "ok". Batches of 256 rows share the strata of a law out.
    """
    drawn = _draw(masking, tokens, examples, vocab, seed, step)
    tokens = Tokens(*map(np.asarray, tokens))  # pyright: ignore[reportArgumentType]
    maskable = np.asarray(tokens.maskable)
    views = masking.views
    factor = float(masking.schedule(step))
    rates = _rates(masking, drawn.points)
    expected = _expected(masking, factor * rates, factor, maskable.sum(-1))
    law = {"law": law_of_rates(masking.rate, rates)} if isinstance(masking.rate, Law) else {}
    shares = _shares(masking, drawn, tokens, vocab, factor, *expected)
    lengths = _by_length(masking, drawn, maskable, expected[0])
    changed = drawn.inputs != tokens.ids[:, None]
    faults = {
        "special tokens selected": int((drawn.selected & ~maskable[:, None]).sum()),
        "special tokens changed": int((changed & ~maskable[:, None]).sum()),
        "changed and not selected": int((changed & ~drawn.selected).sum()),
        "units cut": _cut(drawn, maskable),
        "predicted twice": int((drawn.predicted.sum(1) > 1).sum()),
        "over capacity": int((drawn.predicted.sum(-1) != drawn.slots).sum()),
    }
    again = [_draw(masking, tokens, examples, vocab, seed, step + 1 + epoch).selected for epoch in range(epochs - 1)]
    some = drawn.selected.any((1, 2))
    repeated = sum(int(((drawn.selected == other).all((1, 2)) & some).sum()) for other in again)
    at = drawn.selected.sum((0, 1)) / np.maximum(views * maskable.sum(0), 1)
    return {
        "rows": len(maskable),
        "tokens": int(maskable.sum()),
        "views": views,
        "shares": shares,
        "lengths": lengths,
        "positions": [round(float(p), 5) for p in at],
        "whole": _whole(drawn.selected, tokens),
        "faults": faults,
        "rows without a prediction": int((drawn.slots.sum(-1) == 0).sum()),
        "capacity": {"slots": masking.predictions(maskable.shape[1]), "most used": int(drawn.predicted.sum(-1).max())},
        "repeated masks": {"rows": repeated, "of": len(maskable) * (epochs - 1)},
        **law,
        "ok": all(one["ok"] for one in (*shares.values(), *lengths.values(), *law.values()))
        and not any(faults.values()),
    }


def law_of_rates(law: Law, rates: np.ndarray) -> dict[str, Any]:
    """Are these rates draws of this law? Their mean, and how many there are in each of ten parts of the law.

    Args:
        law: the law.
        rates: [R] the rates that rows drew.

    Returns:
        The mean "asked" and "got", with its interval "low" to "high"; "chi_square": the statistic of the counts in ten
        intervals of equal probability (fewer where many rows have one rate), or at each of a few rates, and "p", how
        likely independent draws of the law exceed it (stratified ones have a statistic near 0); "ok".

    """
    exact = np.asarray(law.quantile((jnp.arange(20_000) + 0.5) / 20_000), np.float64)
    values = np.unique(exact)
    few = len(values) <= 50
    # A rate that many rows have is several of the tenths at once: they are one part, and what is above may be empty.
    edges = (values[1:] + values[:-1]) / 2 if few else np.unique(np.quantile(exact, np.arange(1, 10) / 10))
    asked = np.bincount(np.searchsorted(edges, exact), minlength=len(edges) + 1) / len(exact) * len(rates)
    got = np.bincount(np.searchsorted(edges, rates), minlength=len(edges) + 1)
    some = asked > 0
    statistic = float(((got - asked)[some] ** 2 / asked[some]).sum())
    likely = float(jax.scipy.special.gammaincc(max(some.sum() - 1, 1) / 2, statistic / 2))
    half = SIGMAS * float(exact.std()) / math.sqrt(len(rates)) + 1e-4
    return {
        "asked": round(law.mean, 6),
        "got": round(float(rates.mean()), 6),
        "low": round(law.mean - half, 6),
        "high": round(law.mean + half, 6),
        "chi_square": round(statistic, 3),
        "p": round(likely, 6),
        "ok": abs(float(rates.mean()) - law.mean) <= half
        and likely > 1e-5
        and not got[~some].any()  # rates that the law never draws
        and bool(rates.max() <= law.high + 1e-6),
    }


@partial(jax.jit, static_argnums=(0, 1, 4))
def _chunk(masking: Masking, seed: int, tokens: Tokens, examples: jax.Array, vocab: Vocab, step: jax.Array) -> Any:
    length = tokens.ids.shape[1]
    views = masking.views
    points = masking.points(step_key(seed, step), jnp.arange(_CHUNK), _CHUNK)

    def one(example: jax.Array, row: Tokens, point: jax.Array | None) -> Any:
        key = jax.random.fold_in(step_key(seed, step), example)

        def dense(selection: Selection) -> jax.Array:
            filled = jnp.arange(selection.positions.shape[0]) < selection.count
            return jnp.zeros(length, bool).at[jnp.where(filled, selection.positions, length)].set(True, mode="drop")

        def view(number: jax.Array) -> Any:
            predicted, selected = masking.select(key, row, step, number, point)
            return dense(selected), dense(predicted), predicted.count

        starts = masking.units.starts(masking.keys(key).units, row)
        index = indices_in_units(starts, row.maskable, masking.units.max_length)
        return *jax.vmap(view)(jnp.arange(views)), index

    selected, predicted, slots, place = jax.vmap(one)(examples, tokens, points)
    inputs = mask_batch(masking, step_key(seed, step), examples, tokens, vocab, step).inputs
    points = jnp.zeros(_CHUNK) if points is None else points
    return selected, predicted, inputs.reshape(-1, views, length), place, slots, points


def _draw(masking: Masking, tokens: Tokens, examples: np.ndarray, vocab: Vocab, seed: int, step: int) -> Drawn:
    def parts() -> Iterator[Drawn]:
        for start in range(0, len(examples), _CHUNK):
            # The last rows are drawn twice rather than compiled for again.
            here = np.minimum(np.arange(start, start + _CHUNK), len(examples) - 1)
            rows = Tokens(*(jnp.asarray(np.asarray(x)[here]) for x in tokens))
            out = _chunk(masking, seed, rows, jnp.asarray(examples[here], jnp.int32), vocab, jnp.int32(step))
            yield Drawn(*(np.asarray(x)[: len(examples) - start] for x in out))

    return Drawn(*(np.concatenate(part) for part in zip(*parts(), strict=True)))


def _shares(
    masking: Masking,
    drawn: Drawn,
    tokens: Tokens,
    vocab: Vocab,
    factor: float,
    selected: np.ndarray,
    predicted: np.ndarray,
) -> dict[str, dict[str, Any]]:
    """Shares of the maskable tokens, each asked and got; got is a mean over rows, whose spread gives the interval.

    The interval is about what `masking.count` makes of the share asked: an exact count of short rows is another one.
    """
    n = np.asarray(tokens.maskable).sum(-1)
    views = masking.views
    replace = masking.replace
    masked = drawn.selected & (drawn.inputs == vocab.mask_id)
    kept = drawn.selected & (drawn.inputs == tokens.ids[:, None])
    same = _same(masking, tokens, vocab)  # random tokens that happen to be the one that was there
    fates = {
        "masked": replace.mask,
        "random": replace.random * (1 - same),
        "kept": replace.keep + replace.random * same,
    }
    got = {"selected": drawn.selected, "masked": masked, "random": drawn.selected & ~masked & ~kept, "kept": kept}
    got["corrupted"] = drawn.selected & ~kept
    parts = {"selected": 1.0} | fates | {"corrupted": fates["masked"] + fates["random"]}
    got["predicted"] = drawn.predicted
    shares = {}
    for name, where in got.items():
        if name == "predicted":
            of = n.sum()
            asked = masking.mean_predicted
            expected = predicted
        else:
            of = n.sum() * views
            asked = masking.mean_rate * parts[name]
            expected = selected * parts[name]
        off = where.sum((1, 2)) - expected
        half = SIGMAS * math.sqrt(len(n)) * float(off.std()) + 1e-3 * len(n)  # of a token, for the mean over u
        low = (expected.sum() - half) / of
        high = (expected.sum() + half) / of
        share = where.sum() / of
        shares[name] = {
            "asked": round(asked * factor, 6),
            "got": round(float(share), 6),
            "low": round(float(low), 6),
            "high": round(float(high), 6),
            "ok": bool(low - 1e-7 <= share <= high + 1e-7),
        }
    return shares


def _rates(masking: Masking, points: np.ndarray) -> np.ndarray:
    """The masking rates [R] of rows that stand at these points of its law."""
    if not isinstance(masking.rate, Law):
        return np.full(len(points), masking.rate)
    return np.asarray(masking.rate.quantile(jnp.asarray(points)), np.float64)


def _expected(masking: Masking, rates: np.ndarray, factor: float, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many tokens rows of n are expected to select, over all views, and to predict: the budgets averaged over u.

    A view selects m_corr, or its slice of the predictions where rounding makes that one larger.
    """
    u = (np.array([0.5]) if masking.count == "exact" else (np.arange(1000) + 0.5) / 1000).astype(np.float32)
    kinds, at = np.unique(np.stack([rates, n]), axis=1, return_inverse=True)
    # In single precision, as masks are drawn: 0.7 * 45 is 31.5 there, and below it in double precision.
    rate, sizes = kinds.astype(np.float32)[:, :, None]

    def budget(rate: np.ndarray | float) -> np.ndarray:
        return np.minimum(np.floor(np.float32(rate) * sizes + u), sizes)

    cells = np.clip(np.ceil(rate * sizes), np.minimum(sizes, 1), sizes)
    select = cells + 0 * u if masking.weights == "bound" else budget(rate)
    predict = select if masking.predict is None else budget(masking.predict * factor)
    edges = [predict * view // masking.views for view in range(masking.views + 1)]
    selected = np.sum([np.maximum(select, end - begin) for begin, end in pairwise(edges)], axis=0)
    return selected.mean(1)[at.ravel()], predict.mean(1)[at.ravel()]


def _same(masking: Masking, tokens: Tokens, vocab: Vocab) -> float:
    """How likely a random token is the one that it replaces."""
    weight = np.ones(len(vocab.replacement_ids)) if masking.replace.ids == "uniform" else vocab.unigram
    if masking.replace.random == 0 or weight is None:
        return 0.0
    law = np.zeros(vocab.size)
    law[vocab.replacement_ids] = weight / weight.sum()
    return float(law[np.asarray(tokens.ids)[tokens.maskable]].mean())


def _by_length(masking: Masking, drawn: Drawn, maskable: np.ndarray, selected: np.ndarray) -> dict[str, dict[str, Any]]:
    """For each length of a unit: how many there are, and how often one is selected; as often as any of its row."""
    first = maskable & (drawn.place == 0)
    length = _unit_lengths(drawn.place, maskable)
    rate = selected / np.maximum(masking.views * maskable.sum(-1), 1)
    rows = {}
    for size in np.unique(length[first]):
        here = first & (length == size)
        hits = (drawn.selected & here[:, None]).sum((1, 2))
        units = here.sum(-1) * masking.views
        share = float(hits.sum() / units.sum())
        off = hits - rate * units
        # The spread within a row, not below that of independent draws: rare lengths show too little of it.
        spread = max(float((off**2).sum()), float((rate * (1 - rate) * units).sum()))
        wanted = float((rate * units).sum() / units.sum())
        half = SIGMAS * math.sqrt(spread) * masking.views / float(units.sum())
        rows[str(int(size))] = {
            "units": int(here.sum()),
            "selected": round(share, 5),
            "low": round(wanted - half, 5),
            "high": round(wanted + half, 5),
            "ok": abs(share - wanted) <= half,
        }
    return rows


def _unit_lengths(place: np.ndarray, maskable: np.ndarray) -> np.ndarray:
    """At each unit's first token: how many tokens the unit has."""
    starts = (place == 0) | ~maskable
    at = np.arange(place.shape[1])
    # The next start after each token, from the right.
    upcoming = np.where(starts, at, place.shape[1])
    after = np.minimum.accumulate(upcoming[:, ::-1], 1)[:, ::-1]
    following = np.concatenate([after[:, 1:], np.full((len(place), 1), place.shape[1])], 1)
    return following - at


def _cut(drawn: Drawn, maskable: np.ndarray) -> int:
    """Tokens whose fate, selected or not, is not that of their unit's first token."""
    at = np.arange(maskable.shape[1])
    first = at - np.where(maskable, drawn.place, 0)
    cut = 0
    for marks in (drawn.selected, drawn.predicted):
        cut += int((marks != np.take_along_axis(marks, first[:, None].repeat(marks.shape[1], 1), -1)).sum())
    return cut


def _whole(selected: np.ndarray, tokens: Tokens) -> dict[str, float]:
    """Shares of the words, of three words in a row, and of the phrases of several words that are selected whole."""
    unit = np.asarray(tokens.unit)
    maskable = np.asarray(tokens.maskable)
    gap = maskable & ~np.concatenate([np.zeros((len(unit), 1), bool), maskable[:, :-1]], 1)
    word = maskable & ((unit & WORD > 0) | gap)
    found = {"words": _groups(selected, maskable, word)}
    found["words of several tokens"] = _groups(selected, maskable, word, least=2)
    number = np.cumsum(word, 1)
    threes = word & ((number % 3 == 1) | gap)
    found["three words in a row"] = _groups(selected, maskable, threes, words=word, exactly=3)
    phrase = maskable & ((unit & PHRASE > 0) | gap)
    if (phrase & word).sum() < word.sum() and (unit & PHRASE > 0).any():
        found["phrases"] = _groups(selected, maskable, phrase, words=word, several=True)
    return found


def _groups(
    selected: np.ndarray,
    maskable: np.ndarray,
    starts: np.ndarray,
    least: int = 1,
    words: np.ndarray | None = None,
    exactly: int | None = None,
    several: bool = False,
) -> float:
    """The share of groups of consecutive maskable tokens, each beginning at a start, that is selected whole."""
    rows, length = maskable.shape
    group = np.where(maskable, np.cumsum(starts, 1) + np.arange(rows)[:, None] * (length + 1), 0).ravel()
    size = np.bincount(group, minlength=rows * (length + 1) + length)
    kept = size >= least
    kept[0] = False
    if words is not None:
        many = np.bincount(group, words.ravel(), minlength=len(size))
        kept &= many == exactly if exactly else many >= 2 if several else True
    whole = [
        np.bincount(group, selected[:, view].ravel(), minlength=len(size)) == size for view in range(selected.shape[1])
    ]
    return round(float(np.mean([w[kept].mean() for w in whole])), 5) if kept.any() else math.nan
