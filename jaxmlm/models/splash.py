"""Splash attention, the TPU kernel for long rows: memory linear in their length, and no work outside a window."""

from typing import Any

import jax
from jaxtyping import Array, Bool, Float, Int

from jaxmlm.parallel import spec, without_mesh

BLOCK = 128
"""The length of a row must be a multiple of this."""


def splash(
    q: Float[Array, "B L H K"],
    k: Float[Array, "B L H K"],
    v: Float[Array, "B L H K"],
    segments: Int[Array, "B L"],
    window: int | None = None,
    is_global: Bool[Array, ""] | None = None,
    interpret: bool = False,
) -> Float[Array, "B L H K"]:
    """What `attention.attend` gives at every token that is not padding; each device works on its own rows and heads.

    Args:
        q: queries.
        k: keys.
        v: values.
        segments: a token attends to those of its own segment.
        window: with a window, only to those at most window // 2 tokens away; None: to all of the segment.
        is_global: with a window, true takes all of the segment all the same.
        interpret: run the kernel's program step by step on any backend, slowly.

    """
    # Imported here: it takes a third of a second, and few runs have such long rows.
    from jax.experimental.pallas.ops.tpu import splash_attention as pallas

    def local(q: Array, k: Array, v: Array, segments: Array, is_global: Array | None) -> Array:
        length, heads = q.shape[1:3]
        q = (q * q.shape[-1] ** -0.5).swapaxes(1, 2)
        k = k.swapaxes(1, 2)
        v = v.swapaxes(1, 2)

        def attend_within(mask: Any) -> Array:
            masks = pallas.MultiHeadMask([mask] * heads)
            kernel: Any = pallas.make_splash_mha(masks, head_shards=1, q_seq_shards=1, interpret=interpret)
            return jax.vmap(lambda q, k, v, s: kernel(q, k, v, pallas.SegmentIds(q=s, kv=s)))(q, k, v, segments)

        everything = pallas.FullMask((length, length))
        if window is None:
            return attend_within(everything).swapaxes(1, 2)
        near = pallas.LocalMask((length, length), (window // 2, window // 2), 0)
        if is_global is None:
            return attend_within(near).swapaxes(1, 2)
        return jax.lax.cond(is_global, lambda: attend_within(everything), lambda: attend_within(near)).swapaxes(1, 2)

    if without_mesh():
        return local(q, k, v, segments, is_global).astype(v.dtype)
    rows = spec("batch", None, "heads", None)
    on_each_device = jax.shard_map(
        local, in_specs=(rows, rows, rows, spec("batch", None), spec()), out_specs=rows, check_vma=False
    )
    return on_each_device(q, k, v, segments, is_global).astype(v.dtype)


def pays(length: int) -> bool:
    """Whether a row is long enough for the kernel to pay: from 1,024 tokens, where L x L scores fill the memory."""
    return length >= 1024 and length % BLOCK == 0
