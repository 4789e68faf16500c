"""A result: one line of a results.jsonl."""

import math
import sys
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from jaxmlm.errors import InputError
from jaxmlm.json_files import has_truncated_line, read_jsonl, without_checksum

OneResult = TypeVar("OneResult", bound="Result")


@dataclass(frozen=True)
class Result:
    """What one pre-training, evaluation or fine-tuning came to. Its fields are the keys of the JSON line.

    A field from `views` on stands in the line only where it is not None: it belongs to some stages.

    Attributes:
        stage: pretrain, heldout, bound, masked, likelihood, blimp, probe or finetune.
        task: the task, the text or the probe.
        main: the main metric among `scores`, by which settings are compared.
        scores: metrics and their values; empty where the run diverged.
        tuning_seed: of a fine-tuning.
        seconds: wall time.
        tokens: tokens that were trained on.
        tokens_per_second: speed of the training.
        views: rows that an example became (pre-training).
        diverged: why a pre-training counts as diverged.
        generated: whether the examples are generated ones.
        steps: steps of a fine-tuning.
        select: which state of it is scored: "last" or "best".
        degenerate: whether all its predictions are the same, or it diverged.
        notes: what of its examples is not as the task's makers have it.
        settings: its settings as JSON; results are found again by them.
        predictions: the directory of its prediction files, in the workdir.
        chosen_step: the step that is scored.
        by_step: the main metric after each epoch, by step.
        examples: SHA-256 of the examples, where a study read them from files.

    >>> Result("heldout", "mlm", scores={"loss": 4.5}).to_json()["scores"]
    {'loss': 4.5}
    """

    stage: str
    task: str
    tuning_seed: int | None = None
    main: str | None = None
    scores: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None
    tokens: int | None = None
    tokens_per_second: float | None = None
    views: int | None = None
    diverged: str | None = None
    generated: bool | None = None
    steps: int | None = None
    select: str | None = None
    degenerate: bool | None = None
    notes: list[str] | None = None
    settings: str | None = None
    predictions: str | None = None
    chosen_step: int | None = None
    by_step: dict[str, float] | None = None
    examples: str | None = None

    @property
    def has_no_model(self) -> bool:
        """Whether it is that of a pre-training which diverged, so that there is nothing to evaluate."""
        return self.diverged is not None and not self.scores

    def to_json(self) -> dict[str, Any]:
        """The line as a dictionary."""
        always = ("stage", "task", "tuning_seed", "main", "scores", "seconds", "tokens", "tokens_per_second")
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if name in always or value is not None}

    @classmethod
    def from_json(cls: type[OneResult], line: dict[str, Any]) -> OneResult:
        """The result that a line stands for; JSON has null for a score that is not finite.

        >>> result = Result("heldout", "mlm", scores={"loss": 4.5})
        >>> Result.from_json(result.to_json()) == result
        True
        """
        scores = {name: math.nan if score is None else score for name, score in line["scores"].items()}
        if unknown := line.keys() - {one.name for one in fields(cls)}:
            raise InputError(f"a result has no {min(unknown)!r}: results.jsonl was edited, or is of another version")
        return cls(**{**line, "scores": scores})


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """What no two lines of a results.jsonl have in common.

    >>> key_of({"stage": "finetune", "task": "rte", "tuning_seed": 0, "settings": "{}", "scores": {}})
    (None, 'finetune', 'rte', 0, '{}')
    """
    return row.get("cell"), row["stage"], row["task"], row["tuning_seed"], row.get("settings")


def read_results(path: Path) -> list[dict[str, Any]]:
    """Read the complete lines of a results.jsonl; no file has none. A note says that the last one is cut short.

    Raises:
        InputError: a line is not a result, or does not have its checksum.

    """
    rows = [without_checksum(row, f"{path}, line {number}") for number, row in enumerate(read_jsonl(path), 1)]
    if has_truncated_line(path):
        _note_cut_line(path)
    for number, row in enumerate(rows, 1):
        known = isinstance(row.get("stage"), str) and isinstance(row.get("task"), str) and "tuning_seed" in row
        if not known or not isinstance(row.get("scores"), dict):
            raise InputError(f"{path}, line {number} is not a result of jaxmlm: it was edited: delete that line")
    return rows


@cache
def _note_cut_line(path: Path) -> None:
    """Say once that a result is lost: by a kill or a full disk while it was written, or since."""
    print(
        f"note: the last line of {path} is cut short, or damaged, and left out: the command that wrote it, started "
        "again, puts the result back",
        file=sys.stderr,
        flush=True,
    )
