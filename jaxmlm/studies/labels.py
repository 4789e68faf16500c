"""What the points of a study's grid are called in its tables, figures and sentences."""

from collections.abc import Iterable, Mapping
from typing import Any

CONTROL = "not pre-trained"
"""Label of a control whose weights are random."""
GIVEN = "as it was given"
"""Label of a control that is the encoder from which the runs continue."""


def format_value(value: object) -> str:
    """A value of a varied path as it is written everywhere.

    >>> format_value(0.4), format_value(0.125), format_value(23000), format_value("word")
    ('0.40', '0.125', '23000', 'word')
    """
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2f}" if 0 < value < 1 and round(value, 2) == value else f"{value:g}"


def path_in_words(path: str) -> str:
    """A dotted path as a heading.

    >>> path_in_words("loop.save_every")
    'loop save every'
    """
    return path.replace(".", " ").replace("_", " ")


def last_name(path: str) -> str:
    """The field that a dotted path ends in.

    >>> last_name("masking.rate")
    'rate'
    """
    return path.rsplit(".", 1)[-1]


def label_of(values: Mapping[str, Any]) -> str:
    """The name of one point of the grid: the key of a report's sentences and of its summary.

    >>> label_of({"masking.rate": 0.4}), label_of({"masking.rate": 0.4, "model.layers": 2})
    ('0.40', 'rate=0.40,layers=2')
    """
    if not values:
        return "base"
    if len(values) == 1:
        return format_value(next(iter(values.values())))
    names = [last_name(path) for path in values]
    if len(set(names)) < len(names):
        names = list(values)
    return ",".join(f"{name}={format_value(value)}" for name, value in zip(names, values.values(), strict=True))


def label_of_control(values: Mapping[str, Any], given: bool) -> str:
    """The name of a control, one for all its seeds; `given`: it is the encoder from which the runs continue.

    >>> label_of_control({"model.layers": 2}, given=False)
    'not pre-trained, layers 2'
    """
    return ", ".join([GIVEN if given else CONTROL, *named_values(values)])


def named_values(values: Mapping[str, Any]) -> list[str]:
    """Values with their names.

    >>> named_values({"masking.rate": 0.4, "model.layers": 2})
    ['rate 0.40', 'layers 2']
    """
    return [f"{last_name(path)} {format_value(value)}" for path, value in values.items()]


def changes_encoder(path: str) -> bool:
    """Whether a varied path makes another encoder before any training, which then is a control of its own.

    >>> changes_encoder("model.layers"), changes_encoder("masking.rate")
    (True, False)
    """
    return path.split(".")[0] in ("model", "init", "data")


def all_numbers(values: Iterable[object]) -> bool:
    """Whether values lie on a line of numbers."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
