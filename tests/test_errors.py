"""Errors while a file is read: what the file may cause is one line, a fault of jaxmlm is not hidden."""

import pytest

from jaxmlm.errors import Diverged, InputError, reading

OURS = {"__name__": "jaxmlm.data.somewhere"}


def ours(body: str) -> None:
    """Run a line as one of jaxmlm."""
    exec(body, dict(OURS))


@pytest.mark.parametrize("body", ["{}['file']", "[][0]", "int('x')", "'x'.get", "1 / 0", "None + 1"])
def test_what_a_file_may_cause_is_one_line(body):
    with pytest.raises(InputError, match=r"^a.bin cannot be read as numbers \("), reading("a.bin", "numbers"):
        ours(body)


@pytest.mark.parametrize(
    ("body", "kind"), [("mispelt", NameError), ("import nothing_here", ImportError), ("assert 0", AssertionError)]
)
def test_a_fault_of_our_own_is_not_hidden(body, kind):
    with pytest.raises(kind), reading("a.bin", "numbers"):
        ours(body)


def test_whatever_a_library_raises_is_one_line():
    with pytest.raises(InputError, match="panicked"), reading("a.bin", "numbers"):
        raise BaseException("panicked")


def test_a_divergence_says_why_without_its_advice():
    assert Diverged("step 3: not finite: the loss: lower it", "step 3: not finite: the loss").why.endswith("loss")
    assert Diverged("x").why == "x"
