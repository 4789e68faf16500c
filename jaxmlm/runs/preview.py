"""A text as a masking leaves it, to look at."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmlm.data import Store
from jaxmlm.data.inputs import with_special_tokens
from jaxmlm.data.phrases.counting import matcher
from jaxmlm.data.tokenizer import Tokenizer
from jaxmlm.masking import Masking, needs_phrases
from jaxmlm.rng import make_key
from jaxmlm.tasks.mlm import make_tokens, vocab_of

PIECE_STYLE = """
:root { --mask: #30343a; --on-mask: #fff; --random: #ffd9b8; --keep: #cfe8d8; }
@media (prefers-color-scheme: dark) {
  :root { --mask: #c9ced6; --on-mask: #15171a; --random: #7a4314; --keep: #1f5a38; }
}
.mask, .random, .keep { border-radius: 3px; padding: 0 .2em; }
.mask { background: var(--mask); color: var(--on-mask); white-space: nowrap; }
.random { background: var(--random); }
.keep { background: var(--keep); }
"""
"""The style sheet of `preview_html`, light and dark."""


class Piece(NamedTuple):
    """A token's text as the model sees it, a space before it as "▁", and its state: plain, mask, random or keep."""

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
        The text's tokens as the model sees them, each with its state.

    """
    tokenizer = store.tokenizer
    masking = masking.for_tokenizer(tokenizer)
    encoded, offsets = tokenizer.encode_offsets(text)
    ids = np.array(with_special_tokens(tokenizer, encoded).ids, np.int32)
    unit = jnp.asarray(matcher(store)(ids)) if needs_phrases(masking.units) else None
    tokens = make_tokens(tokenizer, jnp.asarray(ids), unit)
    key = make_key(seed)
    now = np.asarray(masking(key, tokens, vocab_of(store, masking), 0, view).inputs).tolist()
    _, selected = masking.select(key, tokens, 0, view)
    chosen = set(np.asarray(selected.positions)[: int(selected.count)].tolist())
    pieces = []
    end = 0
    for i, (begin, to) in enumerate(offsets, 1):  # behind the token that stands for the text
        state = "plain"
        if i in chosen:
            state = "mask" if now[i] == tokenizer.mask_id else "keep" if now[i] == ids[i] else "random"
        space = "▁" if i == 1 or text[end:begin].isspace() else ""
        pieces.append(Piece(space + _text_of(tokenizer, int(ids[i]) if state == "mask" else now[i]), state))
        end = max(end, to)
    return pieces


def _text_of(tokenizer: Tokenizer, token: int) -> str:
    """The text of a token; a special one as the vocabulary writes it."""
    if tokenizer.special[token]:
        return tokenizer.pieces([token])[0]
    decoded = tokenizer.decode([token])
    return decoded if "\ufffd" in decoded else tokenizer.piece_texts[token].strip()  # a part of a character


def preview_html(pieces: Sequence[Piece], reveal: bool = False, style: bool = False) -> str:
    """Tokens as HTML; those that are not plain stand in a span whose class is their state.

    Args:
        pieces: what `preview` returns.
        reveal: show a masked piece itself, and not [MASK].
        style: put the style sheet in front, for a place that has no `PIECE_STYLE`, as a cell of a notebook.

    >>> preview_html([Piece("▁a", "plain"), Piece("▁b", "mask"), Piece("c", "plain")])
    'a <span class="mask">[MASK]</span>c'
    """
    parts = []
    for text, state in pieces:
        gap = " " if text.startswith("▁") else ""
        shown = "[MASK]" if state == "mask" and not reveal else escape(text.replace("▁", " ").strip())
        parts.append(gap + (shown if state == "plain" else f'<span class="{escape(state)}">{shown}</span>'))
    text = "".join(parts).strip()
    return f"<style>{PIECE_STYLE}</style>{text}" if style else text
