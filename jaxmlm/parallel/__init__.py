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
from jaxmlm.parallel.rules import gathered, spec

__all__ = [
    "Mesh",
    "abstract",
    "check_sizes",
    "check_slices",
    "fetch",
    "gathered",
    "hosts",
    "make_mesh",
    "mine",
    "place",
    "platform",
    "rows_here",
    "spec",
]
