"""Splash attention, the TPU kernel for long rows: memory linear in their length, and no work outside a window."""

from typing import Any

import jax
from jaxtyping import Array, Bool, Float, Int

from jaxmlm.parallel import spec

FITS = 128
"""Rows must be a multiple of this long."""


def splash(
    q: Float[Array, "B L H K"],
    k: Float[Array, "B L H K"],
    v: Float[Array, "B L H K"],
    segments: Int[Array, "B L"],
    window: int | None = None,
    whole: Bool[Array, ""] | None = None,
    interpret: bool = False,
) -> Float[Array, "B L H K"]:
    """What `attention.attend` gives at every token that is no padding; each device works on its own rows and heads.

    With a window the tokens at most window // 2 away are seen, or all of the segment where `whole` is true.
    `interpret` runs the kernel's program step by step on any backend, slowly.
    """

    # Here, for it takes a third of a second, and few runs have such long rows.
    from jax.experimental.pallas.ops.tpu import splash_attention as pallas

    def local(q: Array, k: Array, v: Array, segments: Array, whole: Array | None) -> Array:
        length, heads = q.shape[1:3]
        q, k, v = (x.swapaxes(1, 2) for x in (q * q.shape[-1] ** -0.5, k, v))

        def over(mask: Any) -> Array:
            masks = pallas.MultiHeadMask([mask] * heads)
            kernel: Any = pallas.make_splash_mha(masks, head_shards=1, q_seq_shards=1, interpret=interpret)
            return jax.vmap(lambda q, k, v, s: kernel(q, k, v, pallas.SegmentIds(q=s, kv=s)))(q, k, v, segments)

        everything = pallas.FullMask((length, length))
        if window is None:
            return over(everything).swapaxes(1, 2)
        near = pallas.LocalMask((length, length), (window // 2, window // 2), 0)
        if whole is None:
            return over(near).swapaxes(1, 2)
        return jax.lax.cond(whole, lambda: over(everything), lambda: over(near)).swapaxes(1, 2)

    rows = spec("batch", None, "heads", None)
    apart = jax.shard_map(
        local, in_specs=(rows, rows, rows, spec("batch", None), spec()), out_specs=rows, check_vma=False
    )
    return apart(q, k, v, segments, whole).astype(v.dtype)


def suits(length: int) -> bool:
    """Whether a row is long enough for the kernel to pay: from 1,024 tokens on, where L x L shares fill the memory."""
    return length >= 1024 and length % FITS == 0
