"""Devices, and which part of an array lives on which."""

from jaxmlm.parallel import hosts
from jaxmlm.parallel.mesh import (
    Mesh,
    abstract,
    check_sizes,
    check_slices,
    fetch,
    make_mesh,
    mine,
    place,
    platform,
    rows_here,
)
from jaxmlm.parallel.rules import apart, gathered, joined, spec

__all__ = [
    "Mesh",
    "abstract",
    "apart",
    "check_sizes",
    "check_slices",
    "fetch",
    "gathered",
    "hosts",
    "joined",
    "make_mesh",
    "mine",
    "place",
    "platform",
    "rows_here",
    "spec",
]
