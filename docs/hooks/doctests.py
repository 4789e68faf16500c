"""An extension of griffe: the doctests of a docstring are shown as code."""

import re
from typing import Any

import griffe

DOCTEST = re.compile(r"(?m)(?<=^)>>> .+(?:\n.+)*")


class Doctests(griffe.Extension):
    """Put each doctest, up to the next blank line, into a fenced block: as text its brackets would be links."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object before it is parsed."""
        if obj.docstring:
            obj.docstring.value = DOCTEST.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
