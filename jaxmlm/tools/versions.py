"""Which jaxlib, libtpu and Flax go with which JAX: one table, which the tests hold against JAX's own metadata."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version


class Release(NamedTuple):
    """A release of JAX and what goes with it, as requirements name versions."""

    jax: str
    jaxlib: str
    libtpu: str
    """Those that compile what this JAX lowers."""
    flax: str
    tested: tuple[str, str] | None = None
    """Python and Flax that the tests run on with it."""


RELEASES = (
    Release("0.10.2", ">=0.10.1,<0.10.3", "==0.0.42.*", ">=0.12.8", tested=("3.11", "0.12.8")),
    Release("0.11.0", ">=0.11.0,<0.11.1", "==0.0.44.*", ">=0.12.10"),
    Release("0.11.1", ">=0.11.1,<0.11.2", "==0.0.46.*", ">=0.12.10"),
    Release("0.11.2", ">=0.11.2,<0.11.3", "==0.0.48.*", ">=0.12.10"),
    Release("0.12.0", ">=0.11.2,<0.12.1", "==0.0.50.*", ">=0.12.10", tested=("3.13", "0.12.12")),
)
"""Every release from the oldest that is supported; `ci` runs the tests on those that are marked."""


def wanted(package: str, jax: str, requirements: Sequence[str] | None = None) -> SpecifierSet | None:
    """What a JAX wants of a package: by the table, or for a release that is not in it by the installed JAX's metadata.

    Args:
        package: jaxlib, libtpu, flax, or a plugin that JAX names in its requirements.
        jax: the version of JAX.
        requirements: the requirements of JAX; those of the one that is installed, if not given.

    Returns:
        None where nothing is known.

    >>> str(wanted("flax", "0.12.0.1")), "0.10.1" in wanted("jaxlib", "0.10.2")
    ('>=0.12.10', True)
    """
    row = next((one for one in RELEASES if _is_release(jax, one.jax)), None)
    if package == "flax":
        older = [one for one in RELEASES if Version(one.jax) <= Version(jax)]
        return SpecifierSet(older[-1].flax) if older else None
    if row is not None and package in ("jaxlib", "libtpu"):
        return SpecifierSet(row.jaxlib if package == "jaxlib" else row.libtpu)
    return asked(package, requirements)


def asked(package: str, requirements: Sequence[str] | None = None) -> SpecifierSet | None:
    """What the metadata of JAX ask of a package.

    >>> asked("libtpu", ['jaxlib<=0.10.2,>=0.10.1', 'libtpu==0.0.42.*; extra == "tpu"'])
    <SpecifierSet('==0.0.42.*')>
    """
    found = (importlib.metadata.requires("jax") or []) if requirements is None else requirements
    of_package = (one for one in map(Requirement, found) if one.name == package and one.specifier)
    return next((one.specifier for one in of_package), None)


def is_tested(have: Mapping[str, str]) -> bool:
    """Are these the versions of a run of the tests?"""
    for one in RELEASES:
        if one.tested is None or not _is_release(have["jax"], one.jax):
            continue
        python, flax = one.tested
        if have["python"] == python and _is_release(have["flax"], flax):
            return True
    return False


def _is_release(version: str, release: str) -> bool:
    """Whether a version is a release, or a later build of it, as 0.12.0.1 is of 0.12.0."""
    return Version(version).release[:3] == Version(release).release


def versions_of_the_tests() -> str:
    """The versions that the tests run on, in words."""
    rows = [(one.jax, *one.tested) for one in RELEASES if one.tested is not None]
    return " or ".join(f"Python {python} with jax {jax} and flax {flax}" for jax, python, flax in rows)
