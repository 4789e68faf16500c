"""Helpers for messages: did-you-mean hints, counts with their nouns, how to install an extra."""

from collections.abc import Iterable
from difflib import SequenceMatcher
from pathlib import Path

_CHECKOUT = Path(__file__).parents[1]


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that `name` was most likely meant to be, or None if none is like it.

    >>> nearest("maskin.rate", ["masking.rate", "loop.steps"])
    'masking.rate'
    >>> nearest("rate", ["masking.rate", "loop.steps"])
    'masking.rate'
    """

    def likeness(candidate: str) -> float:
        whole = SequenceMatcher(None, name, candidate).ratio()
        last = SequenceMatcher(None, name, candidate.rpartition(".")[2]).ratio() if "." not in name else 0.0
        return max(whole, last)

    best = max(names, key=likeness, default=None)
    return best if best is not None and likeness(best) >= 0.6 else None


def hint(name: str, names: Iterable[str]) -> str:
    """Return "; did you mean X?" or, if nothing is like `name`, an empty string."""
    meant = nearest(name, names)
    return f"; did you mean {meant}?" if meant else ""


def counted(number: int, what: str) -> str:
    """Return a count in words.

    >>> counted(1, "document"), counted(0, "seed"), counted(2500, "cell")
    ('1 document', '0 seeds', '2,500 cells')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def install_command(extra: str) -> str:
    """Return the command that installs an extra of this package.

    In a checkout that is an editable install of the checkout; it names the directory if that is another than the
    current one.
    """
    if not (_CHECKOUT / "pyproject.toml").is_file():
        return f"pip install 'jaxmlm[{extra}]'"
    where = "" if _CHECKOUT.samefile(".") else f" in the checkout {_CHECKOUT}"
    return f"pip install -e '.[{extra}]'{where}"
