"""Devices, and which part of an array lives on which."""

from jaxmlm.parallel import hosts
from jaxmlm.parallel.mesh import (
    Mesh,
    abstract,
    check_sizes,
    check_slices,
    fetch,
    host_shard,
    local_rows,
    make_mesh,
    place,
    platform,
)
from jaxmlm.parallel.rules import all_reduce, gathered, keep_unreduced, spec

__all__ = [
    "Mesh",
    "abstract",
    "keep_unreduced",
    "check_sizes",
    "check_slices",
    "fetch",
    "gathered",
    "hosts",
    "all_reduce",
    "make_mesh",
    "local_rows",
    "place",
    "platform",
    "host_shard",
    "spec",
]
