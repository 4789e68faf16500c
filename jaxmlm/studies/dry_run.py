"""`jaxmlm study --dry-run`: the cells of a study with their tokens, epochs and estimated time."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from jaxmlm.fields import replace_path
from jaxmlm.runs import epochs
from jaxmlm.runs.tables import Column, Tables
from jaxmlm.studies.estimate import seconds_of_job, seconds_of_pretraining, training_tokens
from jaxmlm.studies.grid import Cell, Study, original
from jaxmlm.studies.jobs import jobs, key_of, results_of
from jaxmlm.studies.reuse import finished
from jaxmlm.wording import counted


@dataclass(frozen=True)
class CellPlan:
    """What a cell will take.

    Attributes:
        cell: its name.
        tokens: training tokens.
        epochs: how often they read the text; None where its size is not known.
        estimated_seconds: what is left of pre-training, evaluation and fine-tuning; 0 where another cell has the same
            pre-training.
        pretrained: whether the pre-training is done already, here or in a study of `reuse`.

    """

    cell: str
    tokens: int
    epochs: float | None
    estimated_seconds: int
    pretrained: bool


def dry_run(study: Study, cells: Sequence[Cell]) -> dict[str, Any]:
    """Print what the cells will take.

    Returns:
        {"cells": each as `CellPlan`, "estimated_seconds", "machine", "price": None where none is given}.

    Raises:
        InputError: a cell reads its text more often than most_epochs.

    """
    plans = _plans(study, cells)
    total = sum(plan.estimated_seconds for plan in plans)
    left = "" if not any(plan.pretrained for plan in plans) else " for what is left"
    machine = "this machine" if study.assume is None else study.assume.name
    price = None
    console = Console()
    console.print(_table(plans))
    message = f"{counted(len(plans), 'cell')}, about {duration(total)}{left} on {machine}"
    if study.assume is not None:
        chip_hours = total / 3600 * study.assume.chips
        cost = "for a price give --assume.price, that of a chip for an hour"
        if study.assume.price is not None:
            price = chip_hours * study.assume.price
            cost = f"price {price:,.0f}"
        message += f": {chip_hours:,.1f} chip-hours; {cost}"
    console.print(Text(message))  # names are no markup
    return {
        "cells": [asdict(plan) for plan in plans],
        "estimated_seconds": total,
        "machine": machine,
        "price": price,
    }


def check_epochs(study: Study, cells: Sequence[Cell]) -> dict[str, float | None]:
    """How often each cell reads its text; None where the size of the text is not known.

    Raises:
        InputError: a cell reads it more often than most_epochs. A budget of time stops a run at that many by itself.

    """
    runs = {cell.run.data: cell.run for cell in cells}
    sizes = {data: epochs.size(run) for data, run in runs.items()}
    found = {}
    for cell in cells:
        run = replace_path(cell.run, "most_epochs", None) if cell.run.loop.budget else cell.run
        tokens = training_tokens(run, study.assume)
        found[cell.name] = epochs.check(run, tokens, sizes[cell.run.data], "--run.most-epochs")
    return found


def duration(seconds: int | float) -> str:
    """Seconds for a reader.

    >>> duration(90), duration(9000)
    ('1.5 min', '2.5 h')
    """
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.1f} min"


def _plans(study: Study, cells: Sequence[Cell]) -> list[CellPlan]:
    often = check_epochs(study, cells)
    plans = []
    for cell in cells:
        source = finished(cell, study.reuse)
        seconds = 0.0
        if original(cell, cells) is cell:
            done = {key_of(result) for result in results_of(source)} if source else set()
            seconds = 0.0 if source else seconds_of_pretraining(cell.run, study.assume)
            left = [job.what for job in jobs(study) if job.key not in done]
            seconds += sum(seconds_of_job(cell.run, what, study.assume) for what in left)
        plans.append(
            CellPlan(
                cell=cell.name,
                tokens=training_tokens(cell.run, study.assume),
                epochs=often[cell.name],
                estimated_seconds=round(seconds),
                pretrained=source is not None,
            )
        )
    return plans


def _table(plans: Sequence[CellPlan]) -> Tables:
    columns = [
        Column("tokens", [f"{plan.tokens:,}" for plan in plans]),
        Column("epochs", ["?" if plan.epochs is None else f"{plan.epochs:,.1f}" for plan in plans]),
        Column("about", [duration(plan.estimated_seconds) for plan in plans]),
    ]
    if any(plan.pretrained for plan in plans):
        columns.append(Column("", ["pre-trained" if plan.pretrained else "" for plan in plans]))
    return Tables("", [Column("cell", [plan.cell for plan in plans])], columns)
