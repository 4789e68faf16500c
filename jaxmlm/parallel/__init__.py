"""Devices, and which part of an array lives on which."""

from jaxmlm.parallel.mesh import Mesh, make_mesh, place, platform
from jaxmlm.parallel.rules import gathered, spec

__all__ = ["Mesh", "gathered", "make_mesh", "place", "platform", "spec"]
