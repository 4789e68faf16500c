"""A text as a masking leaves it, to look at."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmlm.data import Store
from jaxmlm.data.inputs import with_special_tokens
from jaxmlm.data.phrases.counting import matcher
from jaxmlm.masking import Masking, needs_phrases
from jaxmlm.rng import make_key
from jaxmlm.tasks.mlm import make_tokens, vocab_of


class Piece(NamedTuple):
    """A token's piece as the model sees it, and its state: plain, mask, random or keep."""

    text: str
    state: str


def preview(masking: Masking, store: Store, text: str, seed: int = 0, view: int = 0) -> list[Piece]:
    """Show a text as one draw of a masking leaves it.

    Args:
        masking: the masking.
        store: a token store, for its tokenizer and, where the masking needs them, its phrases.
        text: the text.
        seed: another number gives another draw.
        view: which of the masking's views, from 0.

    Returns:
        The text's pieces as the model sees them, each with its state.

    """
    tokenizer = store.tokenizer
    masking = masking.for_tokenizer(tokenizer)
    ids = np.array(with_special_tokens(tokenizer, tokenizer.encode(text)).ids, np.int32)
    unit = jnp.asarray(matcher(store)(ids)) if needs_phrases(masking.units) else None
    tokens = make_tokens(tokenizer, jnp.asarray(ids), unit)
    key = make_key(seed)
    now = np.asarray(masking(key, tokens, vocab_of(store, masking), 0, view).inputs).tolist()
    _, selected = masking.select(key, tokens, 0, view)
    chosen = set(np.asarray(selected.positions)[: int(selected.count)].tolist())
    pieces = []
    for i in np.flatnonzero(~tokenizer.special[ids]).tolist():
        state = "plain"
        if i in chosen:
            state = "mask" if now[i] == tokenizer.mask_id else "keep" if now[i] == ids[i] else "random"
        pieces.append(Piece(tokenizer.pieces([int(ids[i]) if state == "mask" else now[i]])[0], state))
    return pieces
