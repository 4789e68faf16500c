"""The table of what goes with which JAX, held against what is installed."""

import importlib.metadata
import os

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from jaxmlm.parallel import rendezvous
from jaxmlm.tools.versions import RELEASES, asked, is_tested, wanted


def test_the_versions_of_this_run_are_in_the_table():
    """CI runs on what the table calls tested, and the table says what JAX's own metadata say."""
    have = rendezvous.installed_versions()
    assert is_tested(have) or "CI" not in os.environ, have
    assert wanted("libtpu", have["jax"]) == asked("libtpu") is not None
    ours, theirs = wanted("jaxlib", have["jax"]), asked("jaxlib")
    known = ["0.10.1", *(one.jax for one in RELEASES), importlib.metadata.version("jaxlib")]
    assert ours and theirs and list(ours.filter(known)) == list(theirs.filter(known))


def test_rows_are_in_order_and_two_are_tested():
    assert [one.jax for one in RELEASES] == sorted((one.jax for one in RELEASES), key=Version)
    assert sum(one.tested is not None for one in RELEASES) == 2
    for one in RELEASES:
        goes = wanted("jaxlib", one.jax)
        assert goes and one.jax in goes


@pytest.mark.parametrize(
    ("package", "jax", "goes", "not_"),
    [
        ("flax", "0.11.0", ["0.12.10", "0.12.12", "0.13.0"], ["0.12.8", "0.12.9"]),
        ("flax", "0.13.1", ["0.12.10"], ["0.12.8"]),
        ("jaxlib", "0.12.0.1", ["0.11.2", "0.12.0", "0.12.0.1"], ["0.11.1", "0.12.1", "0.10.2"]),
        ("libtpu", "0.12.0", ["0.0.50", "0.0.50.1"], ["0.0.48", "0.0.500"]),
    ],
)
def test_pairs_of_the_table(package, jax, goes, not_):
    one = wanted(package, jax)
    assert one and list(one.filter([*goes, *not_])) == goes


def test_a_release_that_is_not_in_the_table_speaks_for_itself():
    requirements = ["jaxlib<=0.13.1,>=0.13.0", 'libtpu==0.0.55.*; extra == "tpu"']
    assert wanted("jaxlib", "0.13.1", requirements) == SpecifierSet(">=0.13.0,<=0.13.1")
    assert wanted("libtpu", "0.13.1", requirements) == SpecifierSet("==0.0.55.*")
    assert wanted("jax-rocm7-plugin", "0.13.1", requirements) is None
    assert asked("jaxlib", importlib.metadata.requires("jax")) is not None
