"""The configuration of the cleaning: what is looked for, and what happens to it."""

import importlib
import importlib.util
from dataclasses import asdict, dataclass
from typing import Any, Literal

from jaxmlm.checks import check_choices
from jaxmlm.data.cleaning.evaluation_sets import fingerprint, named
from jaxmlm.errors import InputError
from jaxmlm.wording import install_command

MOST_SETS = 32
"""Evaluation sets that a document can be marked with."""


@dataclass(frozen=True)
class Clean:
    """What is left out of a text when its token store is made."""

    near_duplicates: bool = False
    """Whether near duplicates of a document are dropped: texts that share about three quarters of their runs of five
    words. The extra `clean` finds them."""
    evaluation_sets: tuple[str, ...] = ()
    """Files or directories of what models are evaluated on, as squad=SQuAD/dev-v1.1.json glue_data blimp/data:
    documents that hold a run of 8 to 13 words of them are found."""
    contaminated: Literal["drop", "count"] = "drop"
    """What happens to a document that holds words of an evaluation set."""

    def __post_init__(self) -> None:
        check_choices(self, "data.clean.")
        if self.near_duplicates and importlib.util.find_spec("rensa") is None:
            raise InputError(f"data.clean.near_duplicates needs rensa: {install_command('clean')}")
        if len(self.evaluation_sets) > MOST_SETS:
            raise InputError(f"data.clean.evaluation_sets are {len(self.evaluation_sets)}: give at most {MOST_SETS}")
        names = [named(text)[0] for text in self.evaluation_sets]
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(
                f"two of data.clean.evaluation_sets are called {twice[0]}: write NAME=PATH for one of them"
            )

    @property
    def asked(self) -> bool:
        """Whether anything is to be cleaned."""
        return self.near_duplicates or bool(self.evaluation_sets)

    def content(self) -> dict[str, Any]:
        """What decides which documents are left out: the options, and the SHA-256 of the evaluation sets."""
        plain: dict[str, Any] = asdict(self) | {"evaluation_sets": [fingerprint(text) for text in self.evaluation_sets]}
        if self.near_duplicates:
            plain["min_hash"] = int(importlib.import_module("rensa").RMinHash.ALGORITHM_VERSION)
        return plain
