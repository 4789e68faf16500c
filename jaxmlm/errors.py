"""The exceptions that the command line knows."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Wrong input. The message is one line: what is wrong, what was got, what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class Diverged(ArithmeticError):
    """Training cannot continue: a loss, a weight or the optimizer's state is not finite.

    The message names the step, what is not finite and what to try. The command line prints it without a traceback and
    exits with code 1; no checkpoint of such a state is written.

    Attributes:
        why: the step and what is not finite, without the advice.

    """

    def __init__(self, message: str, why: str = ""):
        super().__init__(message)
        self.why = why or message


class Preempted(Exception):
    """A signal asked for a stop, and what was done is saved: the same command resumes from there.

    The command line prints the message and exits with code 75.
    """


_NOT_OF_DATA = (NameError, AssertionError, ImportError, NotImplementedError)
"""What no file can cause: where a line of jaxmlm raises it, it is a fault of that line."""


@contextmanager
def reading(path: object, what: str) -> Iterator[None]:
    """Turn whatever a library raises at a file that somebody else made into one InputError that names the file.

    Such libraries have no common exception, and one written in Rust raises a BaseException where it panics. What code
    of jaxmlm itself raises counts only if data can be the cause: a misspelt name is not a fault of the file.

    Args:
        path: the file, or the place in it.
        what: what it should be.

    >>> with reading("a.bin", "numbers"):
    ...     [][0]
    Traceback (most recent call last):
    ...
    jaxmlm.errors.InputError: a.bin cannot be read as numbers (list index out of range): is it complete?
    """
    try:
        yield
    except (InputError, Preempted, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if _is_ours(error) and isinstance(error, _NOT_OF_DATA):
            raise
        raise InputError(f"{path} cannot be read as {what} ({brief(error)}): is it complete?") from error


def _is_ours(error: BaseException) -> bool:
    """Whether it was raised by a line of jaxmlm, and not within a library."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and str(place.tb_frame.f_globals.get("__name__")).startswith("jaxmlm.")


def brief(error: BaseException) -> str:
    r"""Return what an exception says, as a part of one line.

    >>> brief(ValueError("no\n  such name")), brief(EOFError())
    ('no such name', 'EOFError')
    """
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
