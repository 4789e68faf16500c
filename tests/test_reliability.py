"""docs/reliability.md: every promise is proven by tests that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "reliability.md").read_text()


def proofs(page: str) -> list[str]:
    """What stands in backticks in the last column of the tables of promises."""
    rows = [line.rstrip("| ").rpartition(" | ")[2] for line in page.splitlines() if line.startswith("|")]
    return [proof for row in rows if row != "proven by" and set(row) != set("|-") for proof in proof_names(row)]


def proof_names(cell: str) -> list[str]:
    """The names in a cell, or the cell itself where it names nothing."""
    return re.findall(r"`([^`]+)`", cell) or [cell]


def is_test(proof: str) -> bool:
    """Whether this is the path of a file with tests and, after "::", the name of one of them."""
    file, _, name = proof.partition("::")
    path = ROOT / file
    if not (file.startswith("tests/") and path.is_file()):
        return False
    functions = (node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef))
    tests = {function for function in functions if function.startswith("test_")}
    return name in tests if name else bool(tests)


def test_every_promise_is_proven_by_tests_that_exist():
    named = proofs(PAGE)
    assert len(named) > 25 and [proof for proof in named if not is_test(proof)] == []


@pytest.mark.parametrize(
    "cell",
    [
        "nothing",
        "`test_every_promise_is_proven_by_tests_that_exist`",
        "`tests/test_reliability.py::test_of_no_name`",
        "`tests/test_reliability.py::is_test`",
        "`tests/test_of_no_file.py`",
        "`tests/test_reliability.py`, `test_of_no_file`",
    ],
)
def test_a_promise_without_a_test_is_found(cell):
    assert not all(map(is_test, proofs(f"| promise | proven by |\n|---|---|\n| It works. | {cell} |\n")))
