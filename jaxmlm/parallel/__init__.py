"""Devices, and which part of an array lives on which."""

from jaxmlm.parallel import hosts
from jaxmlm.parallel.compiling import jit, jitted
from jaxmlm.parallel.mesh import (
    Mesh,
    abstract,
    check_sizes,
    fetch,
    host_shard,
    local_rows,
    make_mesh,
    place,
    platform,
    undivided,
)
from jaxmlm.parallel.rules import all_reduce, gathered, keep_unreduced, out_spec, shard, spec, without_mesh

__all__ = [
    "Mesh",
    "abstract",
    "all_reduce",
    "check_sizes",
    "fetch",
    "gathered",
    "host_shard",
    "hosts",
    "jit",
    "jitted",
    "keep_unreduced",
    "local_rows",
    "make_mesh",
    "out_spec",
    "place",
    "platform",
    "shard",
    "spec",
    "undivided",
    "without_mesh",
]
