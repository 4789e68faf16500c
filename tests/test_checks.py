"""Every number of every configuration: not finite, negative, zero and huge values are refused when it is made."""

import dataclasses
import importlib
import inspect
import math
import pkgutil
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

import jaxmlm
from jaxmlm.errors import InputError
from jaxmlm.masking.schedule import CosineDecay, LinearDecay, Piecewise, Stairs
from jaxmlm.parallel import Mesh
from jaxmlm.runs import Probes
from jaxmlm.studies.estimate import Assumed
from jaxmlm.tools.collators import CollatorAudit

MADE_BY_CODE = {
    "Batches", "PackedRows", "Vocab", "Result", "CellResult", "CellPlan", "Glue", "Sizes", "Table", "Trained",
    "BabyLM", "BabyLMTask", "Finding",
}  # fmt: skip
"""Dataclasses with numbers or choices that no user writes."""
NEEDED: dict[type, dict[str, Any]] = {
    LinearDecay: {"end": 0.5, "steps": 10},
    CosineDecay: {"end": 0.5, "steps": 10},
    Stairs: {"steps": (10,), "factors": (0.5,)},
    Piecewise: {"steps": (0, 10), "factors": (0.5, 1.0)},
    Assumed: {"name": "a machine", "flops_per_second": 1e12},
    Probes: {"treebank": "a directory"},
    CollatorAudit: {"collator": "module:name", "tokenizer": "a directory"},
}
"""Fields without a default."""
MAY_BE_ZERO = {
    "AdamW": {"b1", "b2", "weight_decay"},
    "Lamb": {"b1", "b2", "weight_decay"},
    "Lion": {"b1", "b2", "weight_decay"},
    "Adafactor": {"weight_decay"},
    "Muon": {"b1", "b2", "beta", "weight_decay"},
    "Optim": {"warmup", "decay"},
    "Loop": {"steps", "seed", "save_every", "eval_every"},
    "EncoderConfig": {"token_types", "dropout", "attention_dropout", "init"},
    "Replace": {"random", "keep"},
    "Finetune": {"warmup", "weight_decay", "seeds"},
    "Bound": {"seed"},
    "TextBound": {"seed"},
    "Data": {"new_words"},
    "Probes": {"sentences"},
    "Evaluation": {"rows", "bound_rows", "sentences", "seed"},
    "Uniform": {"low"},
    "Cosine": {"low"},
    "Study": {"seeds"},
    "Assumed": {"price"},
    "Plan": {"price"},
    "Audit": {"step"},
    "Show": {"draw"},
    "Hosts": {"process"},
    "Doctor": {"process"},
    "Piecewise": {"steps"},
}
TOGETHER = {"processes": {"coordinator": "here:1", "process": 0}, "process": {"coordinator": "here:1", "processes": 2}}
"""Options of `Hosts` that are given together."""


def dataclasses_of_the_package() -> dict[str, type]:
    """All dataclasses of the package by name."""
    found = {}
    for module in pkgutil.walk_packages(jaxmlm.__path__, "jaxmlm."):
        if not module.name.endswith("__main__"):
            for name, kind in vars(importlib.import_module(module.name)).items():
                if inspect.isclass(kind) and dataclasses.is_dataclass(kind) and kind.__module__ == module.name:
                    found[name] = kind
    return found


def choices_of(kind: Any) -> list[str]:
    """The fields that are a `Literal`, or one or None."""
    hints = get_type_hints(kind)
    return [
        field.name
        for field in dataclasses.fields(kind)
        if any(get_origin(hint) is Literal for hint in (hints[field.name], *get_args(hints[field.name])))
    ]


def numbers_of(kind: Any) -> dict[str, tuple[bool, bool]]:
    """Of each numeric field whether it is a float, and whether it is a tuple only."""
    hints = get_type_hints(kind)
    found = {}
    for field in dataclasses.fields(kind):
        arms = {hints[field.name], *get_args(hints[field.name])}
        of_tuples = {inner for arm in arms for inner in get_args(arm)}
        every = arms | of_tuples
        if {int, float} & every and dict not in {getattr(arm, "__origin__", None) for arm in arms}:
            found[field.name] = (float in every, not {int, float} & ({hints[field.name], *_arms(hints[field.name])}))
    return found


def _arms(hint: Any) -> tuple[Any, ...]:
    """The members of a union."""
    return () if getattr(hint, "__origin__", None) is tuple else get_args(hint)


ALL = dataclasses_of_the_package()
CLASSES = {name: kind for name, kind in ALL.items() if numbers_of(kind) and name not in MADE_BY_CODE}
"""The dataclasses that have numbers, without those that users do not write."""
CHOICES = [
    (kind, name) for title, kind in sorted(ALL.items()) if title not in MADE_BY_CODE for name in choices_of(kind)
]
FIELDS = [(kind, name, *kinds) for title, kind in sorted(CLASSES.items()) for name, kinds in numbers_of(kind).items()]


def test_the_walk_finds_the_numbers():
    assert {"Loop", "Optim", "AdamW", "Finetune", "Hosts", "Data", "Phrases", "Masking", "SpanUnits"} <= set(CLASSES)
    assert numbers_of(CLASSES["Finetune"])["epochs"] == (True, False)
    assert numbers_of(CLASSES["Study"])["seeds"] == (False, True) and "title" not in numbers_of(CLASSES["Study"])
    assert len(FIELDS) > 90


def test_numbers_that_cannot_be_are_refused():
    """In one line that names the field; what may be zero is listed above, and -1 is a value of mesh.data alone."""
    wrong = []
    for kind, name, is_float, is_tuple in FIELDS:
        try:
            wrong += [f"{kind.__name__}.{name}: {what}" for what in faults_of(kind, name, is_float, is_tuple)]
        except Exception as error:  # of another kind than InputError
            wrong.append(f"{kind.__name__}.{name}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


def test_choices_that_are_not_listed_are_refused():
    """In one line that names the field: a typo in a Python file must not build another model, or other data."""
    assert len(CHOICES) > 20
    for kind, name in CHOICES:
        made = kind(**NEEDED.get(kind, {}))
        object.__setattr__(made, name, "no-such")  # not by its constructor, whose types the tests check
        with pytest.raises(InputError, match=f"^[^\n]*{name} is 'no-such': it must be [^\n]*$"):
            made.__post_init__()


def faults_of(kind: Any, name: str, is_float: bool, is_tuple: bool) -> Iterator[str]:
    """The values that a field takes or refuses against the rule, and what is wrong with what it says."""
    called = "factors" if name == "end" else name.rstrip("s")
    needed = NEEDED.get(kind, {})
    together = TOGETHER.get(name, {}) if hasattr(kind, "coordinator") else {}

    def refused(value: Any) -> bool:
        given = (value, *needed.get(name, ())[1:]) if is_tuple else value
        try:
            kind(**{**needed, **together, name: given})
        except InputError as error:
            if "\n" in str(error) or called not in str(error):
                raise AssertionError(f"{value} is refused by {str(error)!r}") from None
            return True
        return False

    number = float if is_float else int
    for value in (math.nan, math.inf, -math.inf, 1e39) if is_float else (4_000_000_000,):
        if not refused(value):
            yield f"takes {value}"
    if refused(number(-1)) != (kind is not Mesh or name != "data"):
        yield "-1"
    if refused(number(0)) != (name not in MAY_BE_ZERO.get(kind.__name__, ())):
        yield "0"
