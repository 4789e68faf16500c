"""A masking over a batch of examples, in a program of the user's own, sharded or not."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, Key

from jaxmlm.errors import InputError
from jaxmlm.masking.masking import Masked, Masking
from jaxmlm.masking.replacement import Vocab
from jaxmlm.masking.schedule import Constant, Step
from jaxmlm.masking.units import Tokens
from jaxmlm.rng import check_random_bits


def mask_batch(
    masking: Masking,
    key: Key[Array, ""],
    example_ids: Integer[Array, " B"],
    tokens: Tokens,
    vocab: Vocab,
    step: Step | None = None,
    places: Integer[Array, " B"] | None = None,
    rows: int | None = None,
) -> Masked:
    """Mask a batch of examples, each by its own id. A pure function: wrap it in `jax.jit`, with any sharding.

    The last two arguments count only where the rate follows a law: its strata are shared out over the global batch.

    Args:
        masking: the masking.
        key: of this step, `step_key(seed, step)`. Its threefry bits do not depend on sharding.
        example_ids: [B] the id of each example.
        tokens: the examples, each field [B, L].
        vocab: of the tokenizer.
        step: of training, for the masking's schedule; without a schedule it may be left out.
        places: [B] the place of each example in the global batch; None: these examples are the global batch, in order.
        rows: examples of the global batch; None: B.

    Returns:
        Fields [B * views, ...]; rows b * views to (b + 1) * views - 1 are the views of example b.

    Raises:
        InputError: the masking has a schedule, and no step was given; or a setting of JAX gives keys other bits.

    """
    check_random_bits()
    if step is None:
        if masking.schedule != Constant():
            raise InputError(f"the masking follows a schedule, {masking.schedule}: give mask_batch the `step`")
        step = 0
    size = example_ids.shape[0]

    def masked(key: Any, example_ids: Any, tokens: Tokens, step: Any, places: Any) -> Masked:
        points = masking.points(key, jnp.arange(size) if places is None else places, rows or size)

        def mask_example(example_id: Integer[Array, ""], row: Tokens, point: Float[Array, ""] | None) -> Masked:
            own_key = jax.random.fold_in(key, example_id)
            if masking.views == 1:
                return masking(own_key, row, vocab, step, point=point)
            views = jnp.arange(masking.views)
            return jax.vmap(lambda view: masking(own_key, row, vocab, step, view, point))(views)

        found = jax.vmap(mask_example)(example_ids, tokens, points)
        return found if masking.views == 1 else jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), found)

    on_rows: Any = masked
    batch_axes, *_ = jax.typeof(example_ids).sharding.spec
    if batch_axes is not None:
        # The look-ups and sorts are all within a row: the compiler needs no collective.
        like_rows: Any = jax.P(batch_axes, None)
        on_rows = jax.sharding.auto_axes(masked, out_sharding=Masked(*(like_rows for _ in Masked._fields)))
    return on_rows(key, example_ids, tokens, step, places)
