"""Encoders at masks that others were trained with: python benchmarks/masks_of_others.py STORE CHECKPOINT ...

STORE is the token store of a study of strategies, the checkpoints are its runs. The held-out loss in nats at masks of
tokens, of whole words, of phrases and of spans, at 15 and 40 %, on the first rows of the held-out split; and the loss
at masks of tokens for tokens that are a word by themselves and for those of longer words. A line of results for each
checkpoint.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlm.data import Batches, Store, open_rows
from jaxmlm.json_files import with_checksum
from jaxmlm.masking import Masking, PhraseUnits, SpanUnits, TokenUnits, Vocab, WordUnits
from jaxmlm.masking.units import WORD
from jaxmlm.parallel import make_mesh
from jaxmlm.rng import make_key
from jaxmlm.runs.loading import load
from jaxmlm.studies.results import CellResult
from jaxmlm.tasks.mlm import make_tokens, mask, predictions, replacement_ids_of

ROWS = 512
LENGTH = 64
UNITS = {"tokens": TokenUnits(), "words": WordUnits(), "phrases": PhraseUnits(), "spans": SpanUnits()}


@jax.jit
def nats_of(model: Any, masked: Any) -> jax.Array:
    """The loss of every prediction."""
    return predictions(model, masked, None, None)[0]


def is_of_a_longer_word(tokenizer: Any, ids: np.ndarray) -> np.ndarray:
    """[B, L]: whether a token is one of several of its word."""
    tokens = make_tokens(tokenizer, jnp.asarray(ids))
    starts = (np.asarray(tokens.unit) & WORD > 0) | ~np.asarray(tokens.maskable)
    ends = np.concatenate([starts[:, 1:], np.ones_like(starts[:, :1])], 1)
    return ~(starts & ends)


def main(store_path: str, *checkpoints: str) -> None:
    """Print a line for each checkpoint."""
    store = Store(store_path)
    t = store.tokenizer
    vocab = Vocab(t.size, t.mask_id, t.pad_id, replacement_ids_of(t), None)
    batch = Batches(open_rows(store, "valid", LENGTH, phrases=True), 1).take(np.arange(ROWS))
    longer = is_of_a_longer_word(t, batch["ids"])
    with jax.set_mesh(make_mesh(devices=jax.devices()[:1])):
        masks = {
            f"{name} {rate:.0%}": mask(Masking(rate, units=units), make_key(0), batch, t, vocab)
            for name, units in UNITS.items()
            for rate in (0.15, 0.40)
        }
        masked = masks["tokens 15%"]
        weights = np.asarray(masked.weights)
        parts = np.take_along_axis(longer, np.asarray(masked.positions), 1)
        for checkpoint in checkpoints:
            model = load(checkpoint).model
            nats = {name: np.asarray(nats_of(model, masked)) for name, masked in masks.items()}
            losses = {name: nats[name].sum() / np.asarray(masks[name].weights).sum() for name in masks}
            for name, these in (("words of one token", ~parts), ("parts of longer words", parts)):
                losses[name] = (nats["tokens 15%"] * these).sum() / (weights * these).sum()
            scores = {name: round(float(loss), 4) for name, loss in losses.items()}
            cell = Path(checkpoint).name
            values: dict[str, Any] = dict(part.split("=", 1) for part in cell.split(","))
            seed = int(values.pop("seed"))
            line = CellResult("masks", "mlm", scores=scores, cell=cell, values=values, control=False, seed=seed)
            print(json.dumps(with_checksum(line.to_json())), flush=True)
    share = (parts * weights).sum() / weights.sum()
    print(f"{share:.1%} of the masked tokens are parts of longer words.", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
