"""An extension of griffe: docstrings are plain text, and Markdown must not read them otherwise."""

import re
from typing import Any

import griffe

SPECIAL = re.compile(r"(?m)^(?P<doctest>>>> .+(?:\n.+)*)|`[^`]*`|(?P<tag><)(?=\w)")


class Docstrings(griffe.Extension):
    """Show doctests as code, since their brackets would be links, and <mask> as text, which would be a tag of HTML."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object before it is parsed."""
        if obj.docstring:
            obj.docstring.value = SPECIAL.sub(_shown, obj.docstring.value)


def _shown(found: re.Match) -> str:
    if found["doctest"]:
        return f"```pycon\n{found[0]}\n```"
    return "&lt;" if found["tag"] else found[0]
