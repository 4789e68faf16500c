"""Devices, and which part of an array lives on which."""

from jaxmlm.parallel import hosts
from jaxmlm.parallel.mesh import Mesh, fetch, make_mesh, mine, place, platform
from jaxmlm.parallel.rules import gathered, spec

__all__ = ["Mesh", "fetch", "gathered", "hosts", "make_mesh", "mine", "place", "platform", "spec"]
