"""Which jaxlib, libtpu and Flax go with which JAX: one table, which the tests hold against JAX's own metadata."""

import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Release(NamedTuple):
    """A release of JAX and what goes with it."""

    jax: str
    jaxlib: tuple[str, str]
    """The oldest and the newest jaxlib."""
    libtpu: str
    """The first numbers of the libtpu that compiles what this JAX lowers."""
    flax: str
    """The oldest Flax that works."""
    tested: tuple[str, str] | None = None
    """Python and Flax that the tests run on with it."""


RELEASES = (
    Release("0.10.2", ("0.10.1", "0.10.2"), "0.0.42", "0.12.8", tested=("3.11", "0.12.8")),
    Release("0.11.0", ("0.11.0", "0.11.0"), "0.0.44", "0.12.10"),
    Release("0.11.1", ("0.11.1", "0.11.1"), "0.0.46", "0.12.10"),
    Release("0.11.2", ("0.11.2", "0.11.2"), "0.0.48", "0.12.10"),
    Release("0.12.0", ("0.11.2", "0.12.0"), "0.0.50", "0.12.10", tested=("3.13", "0.12.12")),
)
"""Every release from the oldest that is supported; `ci` runs the tests on those that are marked."""


class Wanted(NamedTuple):
    """The oldest and the newest version that goes; None: any newer one."""

    oldest: str
    newest: str | None

    def admits(self, version: str) -> bool:
        """Does a version go? Numbers that the bounds leave open do not count.

        >>> Wanted("0.0.42", "0.0.42").admits("0.0.42.1"), Wanted("0.0.42", "0.0.42").admits("0.0.420")
        (True, False)
        """
        have = numbers(version)
        oldest = numbers(self.oldest)
        if have[: len(oldest)] < oldest:
            return False
        newest = have if self.newest is None else numbers(self.newest)
        return have[: len(newest)] <= newest

    def requirement(self, package: str) -> str:
        """As pip takes it."""
        if self.newest is None:
            return f"{package}>={self.oldest}"
        return f"{package}=={self.newest}.*"

    def __str__(self) -> str:
        if self.newest is None:
            return f"{self.oldest} or newer"
        return f"{self.newest}.*" if self.newest == self.oldest else f"{self.oldest} to {self.newest}"


def wanted(package: str, jax: str, requirements: Sequence[str] | None = None) -> Wanted | None:
    """What a JAX wants of a package: by the table, or for a release that is not in it by the installed JAX's metadata.

    Args:
        package: jaxlib, libtpu, flax, or a plugin that JAX names in its requirements.
        jax: the version of JAX.
        requirements: the requirements of JAX; those of the one that is installed, if not given.

    Returns:
        None where nothing is known.

    >>> str(wanted("flax", "0.12.0.1")), str(wanted("jaxlib", "0.10.2"))
    ('0.12.10 or newer', '0.10.1 to 0.10.2')
    """
    row = next((one for one in RELEASES if numbers(one.jax) == numbers(jax)[:3]), None)
    if package == "flax":
        older = [one for one in RELEASES if numbers(one.jax) <= numbers(jax)]
        return Wanted(older[-1].flax, None) if older else None
    if row is not None and package == "jaxlib":
        return Wanted(*row.jaxlib)
    if row is not None and package == "libtpu":
        return Wanted(row.libtpu, row.libtpu)
    return asked(package, requirements)


def asked(package: str, requirements: Sequence[str] | None = None) -> Wanted | None:
    """What the metadata of JAX ask of a package.

    >>> asked("libtpu", ['jaxlib<=0.10.2,>=0.10.1', 'libtpu==0.0.42.*; extra == "tpu"'])
    Wanted(oldest='0.0.42', newest='0.0.42')
    """
    found = (importlib.metadata.requires("jax") or []) if requirements is None else requirements
    for one in found:
        requirement = one.partition(";")[0].strip()
        if not re.match(rf"{re.escape(package)}\s*(\[|[<>=!~(]|$)", requirement):
            continue
        bounds = dict(re.findall(r"(==|<=|>=)\s*([0-9.]+[0-9])", requirement))
        exact = bounds.get("==")
        if exact is not None:
            return Wanted(exact, exact)
        if "<=" in bounds and ">=" in bounds:
            return Wanted(bounds[">="], bounds["<="])
    return None


def is_tested(have: Mapping[str, str]) -> bool:
    """Are these the versions of a run of the tests?"""
    for one in RELEASES:
        if one.tested is None or numbers(have["jax"])[:3] != numbers(one.jax):
            continue
        python, flax = one.tested
        if have["python"] == python and numbers(have["flax"])[:3] == numbers(flax):
            return True
    return False


def versions_of_the_tests() -> str:
    """The versions that the tests run on, in words."""
    rows = [(one.jax, *one.tested) for one in RELEASES if one.tested is not None]
    return " or ".join(f"Python {python} with jax {jax} and flax {flax}" for jax, python, flax in rows)


def numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version.

    >>> numbers("0.12.0.1")
    (0, 12, 0, 1)
    """
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
