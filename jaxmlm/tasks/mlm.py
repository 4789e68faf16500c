"""Masked language modelling as a `Task`: masks drawn inside the jitted step, loss at the predicted positions only."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Integer, Key

from jaxmlm.data import Batches, Data, TokenSplits, Vocabulary, open_rows
from jaxmlm.data.buckets import chosen
from jaxmlm.data.word_boundaries import word_starts
from jaxmlm.masking import Masked, Masking, Tokens, Vocab, mask_batch, needs_phrases
from jaxmlm.masking.laws import Law
from jaxmlm.models import Encoder, EncoderConfig, MaskedLM
from jaxmlm.parallel import host_shard, jitted, keep_unreduced, out_spec, spec, without_mesh
from jaxmlm.rng import make_key
from jaxmlm.tasks.metrics import log_probability, perplexity_of
from jaxmlm.training import Batch, Eval, Mean, Task

HELD_OUT_RATES = (0.15, 0.40, 0.80)
"""The rates at which every model is evaluated, at masks that are the same for all: the columns of the loss matrix."""
HELD_OUT_ROWS = 1024
_HELD_OUT_SEED = 2202_08005 % 2**31
UNIGRAM_TOKENS = 1 << 25
"""How often each token occurs is counted on the first so many of a text."""
LOGITS_BYTES = 2**30
"""Logits of one device above this are made in chunks, if `EncoderConfig.logits_chunk` says nothing else."""
_DROPOUT = 0xFFFFFFFF  # an id that no example has


def vocab_of(store: TokenSplits, masking: Masking) -> Vocab:
    """What this masking must know of a store's tokenizer and text."""
    tokenizer = store.tokenizer
    replacement_ids = replacement_ids_of(tokenizer)
    unigram = None
    if masking.replace.ids == "unigram" and masking.replace.random > 0:
        tokens = store.tokens("train")
        some = tokens[np.arange(min(len(tokens), UNIGRAM_TOKENS))]
        unigram = np.bincount(some, minlength=tokenizer.size)[replacement_ids]
    return Vocab(tokenizer.size, tokenizer.mask_id, tokenizer.pad_id, replacement_ids, unigram)


def replacement_ids_of(tokenizer: Vocabulary) -> np.ndarray:
    """The ids that a random replacement may be: no special one, no [unusedN] of BERT's, none without a piece."""
    text = [re.fullmatch(r"(\[unused\d+\])?", piece) is None for piece in tokenizer.pieces(range(tokenizer.size))]
    return np.flatnonzero(~tokenizer.special & text).astype(np.int32)


def make_tokens(tokenizer: Vocabulary, ids: Int[Array, "*B L"], unit: Integer[Array, "*B L"] | None = None) -> Tokens:
    """Token rows as a masking wants them; `unit` is what the store says of them, else words are found by their ids."""
    if unit is None:
        unit = word_starts(jnp.asarray(tokenizer.boundaries)[ids])
    return Tokens(ids, ~jnp.asarray(tokenizer.special)[ids], unit.astype(jnp.uint8))


def mask(
    masking: Masking,
    key: Key[Array, ""],
    batch: Batch,
    tokenizer: Vocabulary,
    vocab: Vocab,
    step: int | Integer[Array, ""] = 0,
) -> Masked:
    """Mask the rows of a batch on the device, each by its own id, sharded like them; `key` is that of the step.

    The batch is the global one. It has "ids" [B, L], "example" [B], "unit" [B, L] where the masking needs what only the
    store knows, and "place" [B] where the rate follows a law and rows are not in the order of their places.
    """
    size = batch["ids"].shape[0]

    def local(key: Any, rows: Batch, step: Any) -> Masked:
        tokens = make_tokens(tokenizer, rows["ids"], rows.get("unit"))
        return mask_batch(masking, key, rows["example"], tokens, vocab, step, rows.get("place"), size)

    # Masking knows no mesh. Its look-ups and sorts are all within a row, so the compiler needs no collective.
    rows: Any = spec("batch", None)
    mask_sharded: Any = jax.sharding.auto_axes(local, out_sharding=Masked(rows, rows, rows, rows))
    used = ("ids", "example", "unit", "place")
    return mask_sharded(key, {name: batch[name] for name in used if name in batch}, step)


def mlm_task(
    store: TokenSplits,
    data: Data,
    masking: Masking,
    encoder: EncoderConfig,
    batch_size: int,
    seed: int,
    start: MaskedLM | None = None,
) -> Task:
    """Pre-train an encoder on a token store under a masking, from random weights or from the model `start`.

    Where the rate follows a law, the rows of a device share their prediction slots; the metric "slot_overflow" counts
    the predictions that found none: 0, see `Masking.pool_slots`.

    The eval "heldout" gives loss (nats) and accuracy at the fixed masks of each of `HELD_OUT_RATES`, and the
    perplexity at the first of them.
    """
    tokenizer = store.tokenizer
    masking = masking.for_tokenizer(tokenizer)
    host, of = host_shard(jax.sharding.get_mesh())
    rows = open_rows(store, "train", data.length, data.format, needs_phrases(masking.units))
    train = Batches(rows, batch_size, seed, host, of)
    vocab = vocab_of(store, masking)

    def init(key: jax.Array) -> MaskedLM:
        if start is None:
            return jitted(fresh, key)
        return jax.tree.map(jnp.copy, start)  # the first step gives its buffers away

    def fresh(key: jax.Array) -> MaskedLM:
        encoder_key, head_key = jax.random.split(key)
        return MaskedLM(Encoder(encoder, tokenizer.size, encoder_key), head_key)

    def corrupt(batch: Batch, key: jax.Array, step: jax.Array) -> Batch:
        masked = mask(masking, key, batch, tokenizer, vocab, step)
        return masked._asdict() | _segments(masked, batch)

    def loss(model: Any, batch: Batch, key: jax.Array, step: jax.Array) -> tuple[Mean, dict[str, Mean]]:
        masked = Masked(*(batch[name] for name in Masked._fields))
        metrics = {}
        if masking.pools_slots:
            rows, length = masked.inputs.shape
            devices = batch_shards()
            masked, dropped = pool(masked, masking.pool_slots(length, batch_size, devices, batch_size // rows), devices)
            # Divided by nothing: of several steps the metric is the sum.
            metrics["slot_overflow"] = Mean(dropped, jnp.zeros(()))
        nats, right = predictions(
            model, masked, batch.get("segments"), jax.random.fold_in(key, _DROPOUT), masking.pools_slots
        )
        count = masked.weights.sum()
        return Mean(nats.sum(), count), {"accuracy": Mean(right.sum(), count), **metrics}

    def batch_at(step: int) -> Batch:
        rows = train.at(step)
        if isinstance(masking.rate, Law):
            share = len(rows["example"])
            rows["place"] = np.arange(host * share, (host + 1) * share, dtype=np.int32)
        return rows

    return Task(init, loss, batch_at, {"heldout": heldout(store, data, batch_size)}, train.rows // batch_size, corrupt)


def heldout(store: TokenSplits, data: Data, batch: int) -> Eval:
    """Loss and accuracy on rows of the held-out split, at fixed masks for each of `HELD_OUT_RATES`."""
    rows = open_rows(store, "valid", data.length, data.format)
    return at_rates(Batches(rows, 1), store.tokenizer, batch)


def at_rates(valid: Batches, tokenizer: Vocabulary, batch: int, rates: Sequence[float] = HELD_OUT_RATES) -> Eval:
    """Loss and accuracy on rows of a split, at fixed masks for each rate: the same for every model.

    The rows are drawn from all of the split, which has the texts one after the other.
    """
    vocab = Vocab(tokenizer.size, tokenizer.mask_id, tokenizer.pad_id, replacement_ids_of(tokenizer), None)
    rows = np.sort(chosen(valid.rows, HELD_OUT_ROWS))

    def batches() -> Iterator[Batch]:
        for start in range(0, len(rows), batch):
            index = np.arange(start, start + batch)
            taken = valid.take(rows[np.minimum(index, len(rows) - 1)])
            yield {**taken, "weight": (index < len(rows)).astype(np.float32)}

    def predict(model: Any, batch: Batch) -> dict[str, jax.Array]:
        outputs = {}
        for rate in rates:
            masked = mask(Masking(rate), make_key(_HELD_OUT_SEED), batch, tokenizer, vocab)
            nats, right = predictions(model, masked, batch.get("segments"), None)
            sums = {"loss": nats, "accuracy": right, "count": masked.weights}
            outputs |= {f"{name}@{named(rate)}": x.sum(-1) for name, x in sums.items()}
        return outputs

    def score(outputs: dict[str, np.ndarray]) -> dict[str, float]:
        scores = {}
        for rate in rates:
            count = outputs[f"count@{named(rate)}"].sum(dtype=np.float64)
            for name in (f"{what}@{named(rate)}" for what in ("loss", "accuracy")):
                scores[name] = float(outputs[name].sum(dtype=np.float64) / count)
        return scores | {"perplexity": perplexity_of(scores[f"loss@{named(rates[0])}"])}

    return Eval(batches, predict, score)


def named(rate: float) -> str:
    """A rate in the name of a score.

    >>> named(0.4), named(0.225)
    ('0.40', '0.225')
    """
    return f"{rate:.2f}" if round(rate, 2) == rate else f"{rate:g}"


def diverged(scores: Mapping[str, float], vocab: int) -> str:
    """Why held-out scores are those of a run that diverged; "" if they are not.

    Guessing all of the vocabulary alike has a loss of its logarithm; an untrained encoder has little more than that.

    >>> diverged({"loss@0.15": 5.1, "perplexity": 164.0}, 4096), diverged({"loss@0.15": 9e4, "perplexity": math.inf}, 9)
    ('', 'held-out perplexity is not finite')
    """
    if bad := [name for name, value in scores.items() if not math.isfinite(value)]:
        return f"held-out {', '.join(bad)} {'is' if len(bad) == 1 else 'are'} not finite"
    worst = max(value for name, value in scores.items() if name.startswith("loss@"))
    guessing = math.log(vocab)
    return f"a held-out loss of {worst:.1f} nats, where guessing has {guessing:.1f}" if worst > 2 * guessing else ""


def predictions(
    model: Any, masked: Masked, segments: jax.Array | None, key: jax.Array | None, pooled: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Nats and hits of every prediction times its weight; packed rows are one segment, without padding.

    Where the predictions are `pooled`, [G, S] as `pool` gives them, positions count through all rows of a device.

    Where the logits of all predictions would not fit (`EncoderConfig.logits_chunk`) they are made a chunk at a time,
    and made again in the backward pass.
    """
    segments = jnp.ones_like(masked.inputs) if segments is None else segments
    hidden = model.hidden(masked.inputs, segments, key)
    rows, most = masked.targets.shape
    if pooled:
        by_device = (rows, hidden.shape[0] // rows * hidden.shape[1], hidden.shape[2])
        hidden = jnp.reshape(hidden, by_device, out_sharding=out_spec("batch", None, None))
    x = model.features(hidden, masked.positions)
    table = model.table(x.dtype)  # outside of the loop: gathered once

    def cross_entropy(x: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = model.project(x, table)
        found = log_probability(logits, targets)
        return found, found >= jax.lax.stop_gradient(logits.max(-1) - jax.nn.logsumexp(logits, axis=-1))

    # Cut over the batch and the vocabulary, so over all devices.
    fits = LOGITS_BYTES * jax.sharding.get_abstract_mesh().size // (4 * rows * table.shape[0])
    chunks = -(-most // min(model.encoder.config.logits_chunk or max(fits, 1), most))
    if chunks == 1:
        found, right = cross_entropy(x, masked.targets)
    else:
        short = -most % chunks
        table = keep_unreduced(table)  # its gradient is added up over the devices once, not for each chunk

        def cut(x: jax.Array) -> jax.Array:
            x = jnp.pad(x, ((0, 0), (0, short), *((0, 0),) * (x.ndim - 2)))
            return jnp.moveaxis(x.reshape(rows, chunks, -1, *x.shape[2:]), 1, 0)

        _, found_right = jax.lax.scan(
            lambda _, part: (None, jax.checkpoint(cross_entropy)(*part)), None, (cut(x), cut(masked.targets))
        )
        found, right = (jnp.moveaxis(y, 0, 1).reshape(rows, -1)[:, :most] for y in found_right)
    return -found * masked.weights, right * masked.weights


def batch_shards() -> int:
    """Among how many devices the rows of a batch are divided."""
    sizes = jax.sharding.get_abstract_mesh().shape
    axes = spec("batch")[0]
    return math.prod(sizes.get(axis, 1) for axis in axes)


def pool(masked: Masked, slots: int, devices: int) -> tuple[Masked, jax.Array]:
    """Gather the predictions of all rows of a device into so many slots, where rows predict unequally much.

    Args:
        masked: rows of which each has as many slots as it may need.
        slots: S, of a device.
        devices: G, among which the rows are divided.

    Returns:
        The same inputs, positions in the device's rows one after the other, targets and weights [G, S]; and how many
        predictions found no slot.

    """
    length = masked.inputs.shape[1]

    def local(masked: Masked) -> tuple[Masked, jax.Array]:
        rows = masked.inputs.shape[0] // devices
        first = length * (jnp.arange(devices * rows) % rows)
        each = [x.reshape(devices, -1) for x in (masked.positions + first[:, None], masked.targets, masked.weights)]
        used = each[2] > 0
        # The slots that are used come first, in their order.
        order = jnp.argsort(~used, axis=1, stable=True)[:, :slots]
        dropped = jnp.maximum(used.sum(1) - slots, 0).astype(jnp.float32)
        return Masked(masked.inputs, *(jnp.take_along_axis(x, order, axis=1) for x in each)), dropped

    if without_mesh():
        pooled, dropped = local(masked)
    else:
        rows: Any = spec("batch", None)
        pool_sharded: Any = jax.sharding.auto_axes(local, out_sharding=(Masked(rows, rows, rows, rows), spec("batch")))
        pooled, dropped = pool_sharded(masked)
    return pooled, dropped.sum()


def _segments(masked: Masked, batch: Batch) -> Batch:
    """The segments of the rows that were made of a batch, if it has them: all views of an example have the same."""
    if "segments" not in batch:
        return {}
    views = masked.inputs.shape[0] // batch["segments"].shape[0]
    repeated: Any = jax.sharding.auto_axes(lambda x: jnp.repeat(x, views, axis=0), out_sharding=spec("batch", None))
    return {"segments": repeated(batch["segments"])}
