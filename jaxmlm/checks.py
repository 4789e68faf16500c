"""The numbers of a configuration, each finite and in its range, and its choices: checked when it is made.

Ranges end where 32 bits do: steps, sizes and seeds become int32 on the devices, learning rates float32.
"""

import math
from collections.abc import Iterable
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple, get_args, get_origin

from jaxmlm.errors import InputError

INT32 = 2**31 - 1
TINY = 2.0**-126
"""The least float32 above 0 that is not rounded to 0 by a device."""
HUGE = 3.4028234e38
"""The greatest float32."""


class Range(NamedTuple):
    """Which numbers a field may have.

    Attributes:
        low: the least of them.
        high: the greatest.
        said: what follows "it must" in a message.
        whole: whether they are integers.

    >>> SHARE.holds(0.5), SHARE.holds(2), SHARE.holds(math.nan), COUNT.holds(1.5)
    (True, False, False, False)
    """

    low: float
    high: float
    said: str
    whole: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a value is one of these numbers."""
        kind = Integral if self.whole else Real
        return isinstance(value, kind) and not isinstance(value, bool) and self.low <= float(value) <= self.high


def integers(low: int, high: int = INT32) -> Range:
    """The integers from `low` to `high`."""
    return Range(low, high, f"be an integer of at least {low:,} and at most {high:,}", whole=True)


NATURAL = integers(0)
COUNT = integers(1)
POSITIVE = Range(TINY, HUGE, "be above 0 and finite")
NOT_NEGATIVE = Range(0.0, HUGE, "be at least 0 and finite")
SHARE = Range(0.0, 1.0, "be between 0 and 1")
POSITIVE_SHARE = Range(TINY, 1.0, "be above 0 and at most 1")
BELOW_ONE = Range(0.0, math.nextafter(1.0, 0.0), "be at least 0 and below 1")
INSIDE = Range(TINY, math.nextafter(1.0, 0.0), "lie between 0 and 1, both excluded")


def check_constant(path: str, value: Any) -> None:
    """Refuse an object of a configuration that cannot be a constant of a compiled program.

    Args:
        path: the field that has it, as "masking.units".
        value: a dataclass.

    Raises:
        InputError: it cannot be hashed.

    """
    try:
        hash(value)
    except TypeError:
        listed = [one.name for one in fields(value) if isinstance(getattr(value, one.name), list | dict | set)]
        name = type(value).__name__
        raise InputError(
            f"{path}: {name} cannot be hashed: write {', '.join(listed) or 'its fields'} as tuples"
        ) from None


def check_numbers(config: Any, prefix: str, **ranges: Range) -> None:
    """Refuse a number of a configuration that is not in its range.

    Args:
        config: the dataclass. A field that is None is not looked at, of a tuple every value is.
        prefix: what stands before the name of a field in messages, as "loop.".
        ranges: by the name of a field, which numbers it may have.

    Raises:
        InputError: it names the field, the value and the range.

    >>> class Loop:
    ...     steps, lengths, window = -1, (1, 2), None
    >>> check_numbers(Loop, "loop.", lengths=COUNT, window=COUNT, steps=NATURAL)
    Traceback (most recent call last):
    jaxmlm.errors.InputError: loop.steps is -1: it must be an integer of at least 0 and at most 2,147,483,647
    """
    for name, numbers in ranges.items():
        value = getattr(config, name)
        values: Iterable[Any] = value if isinstance(value, tuple) else (value,)
        for one in values:
            if one is not None and not numbers.holds(one):
                shown = f"{one:g}" if isinstance(one, float) else repr(one)
                raise InputError(f"{prefix}{name} is {shown}: it must {numbers.said}")


def check_choices(config: Any, prefix: str) -> None:
    """Refuse a value that the `Literal` of its field does not list, as a Python file may have; a flag cannot.

    Args:
        config: the dataclass. Its fields that are a `Literal`, or one or None, are looked at.
        prefix: what stands before the name of a field in messages, as "masking.".

    Raises:
        InputError: it names the field, the value and the choices.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Masking:
    ...     count: Literal["expected", "exact"]
    >>> check_choices(Masking("about"), "masking.")
    Traceback (most recent call last):
    jaxmlm.errors.InputError: masking.count is 'about': it must be expected or exact
    """
    for field in fields(config):
        value = getattr(config, field.name)
        kinds = (field.type, *get_args(field.type))  # of a union, its members too
        choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
        is_none = value is None and type(None) in kinds
        if choices and not is_none and not any(type(value) is type(choice) and value == choice for choice in choices):
            raise InputError(f"{prefix}{field.name} is {value!r}: it must be {' or '.join(map(str, choices))}")
