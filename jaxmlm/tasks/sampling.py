"""Text written by a masked language model: what is masked is filled in step by step.

Each step predicts all masked tokens and keeps some of them, the most certain first or at random (Ghazvininejad et al.
2019, arXiv 1904.09324; Chang et al. 2022, arXiv 2202.04200). At random and with one token a step, the text is a sample
of the model whose likelihood `jaxmlm.tasks.bound` bounds.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmlm.errors import InputError
from jaxmlm.tasks.metrics import log_probability

Order = Literal["certain", "random"]
"""Which tokens a step keeps: those that the model is most certain of, or any."""


def fill_in(
    model: Any,
    ids: Int[np.ndarray, "1 L"],
    segments: Int[np.ndarray, "1 L"],
    mask_id: int,
    excluded: Bool[np.ndarray, " V"],
    key: Key[Array, ""],
    steps: int | None = None,
    order: Order = "certain",
    temperature: float = 1.0,
) -> Int[np.ndarray, "1 L"]:
    """Replace the mask tokens of one row.

    Args:
        model: with a masked-LM head.
        ids: token ids.
        segments: 0 for padding, else the number of the token's document.
        mask_id: the id of the mask token.
        excluded: the ids that are never written, as special tokens.
        key: of the tokens that are drawn, and of a random order.
        steps: passes of the model; None: one for each mask. Each fills in as many masks as the others, or one fewer.
        order: which masks a step fills in.
        temperature: tokens are drawn from the probabilities to the power 1 / temperature; 0: the most probable ones.

    Returns:
        the ids, in which no mask token is left.

    Raises:
        InputError: nothing is masked, or an option has a value that it cannot have.

    >>> from jaxmlm.models import Encoder, EncoderConfig, MaskedLM
    >>> key = jax.random.key(0)
    >>> model = MaskedLM(Encoder(EncoderConfig(layers=1, width=8), vocab=9, key=key), key)
    >>> ids = np.array([[1, 4, 7, 4, 4, 2]], np.int32)
    >>> filled = fill_in(model, ids, np.ones_like(ids), mask_id=4, excluded=np.arange(9) < 5, key=key, steps=2)
    >>> (filled[ids != 4] == ids[ids != 4]).all(), (filled[ids == 4] >= 5).all()
    (np.True_, np.True_)

    """
    masks = int((ids == mask_id).sum())
    if not masks:
        raise InputError("the template has no mask: write [MASK] where a token is to be written, or give a length")
    if order not in ("certain", "random"):
        raise InputError(f"order is {order!r}: certain or random")
    if not 0 <= temperature <= float(np.finfo(np.float32).max):
        raise InputError(f"temperature is {temperature}: it must be a number of at least 0")
    if steps is not None and not 1 <= steps <= masks:
        raise InputError(f"steps is {steps}: it must be from 1 to the number of masks, {masks}")
    left = masks - np.ceil(np.linspace(0, masks, (steps or masks) + 1)).astype(int)
    filled = ids.copy()
    for step, count in enumerate(left[:-1] - left[1:]):
        token_key, order_key = jax.random.split(jax.random.fold_in(key, step))
        drawn, certainty = map(np.asarray, _draw(model, filled, segments, excluded, token_key, np.float32(temperature)))
        if order == "random":
            certainty = np.asarray(jax.random.uniform(order_key, ids.shape, jnp.float32))
        certainty = np.where(filled == mask_id, certainty, -np.inf)
        chosen = np.argsort(-certainty[0], kind="stable")[:count]
        filled[0, chosen] = drawn[0, chosen]
    return filled


@jax.jit
def _draw(
    model: Any,
    ids: Int[Array, "1 L"],
    segments: Int[Array, "1 L"],
    excluded: Bool[Array, " V"],
    key: Key[Array, ""],
    temperature: Float[Array, ""],
) -> tuple[Int[Array, "1 L"], Float[Array, "1 L"]]:
    """A token drawn at every position, and its log-probability."""
    every = jnp.arange(ids.shape[1])[None]
    logits = model.without(excluded).logits(model.hidden(ids, segments), every)
    noise = jax.random.gumbel(key, logits.shape)
    drawn = jnp.argmax(logits + temperature * noise, axis=-1)
    return drawn, log_probability(logits, drawn)
