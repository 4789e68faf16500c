"""Cells that another study has finished: the same pre-training is not done twice, whatever its name is there."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxmlm.data import Store
from jaxmlm.directories import expanded
from jaxmlm.json_files import to_json, with_checksum, write_text
from jaxmlm.locks import LOCK
from jaxmlm.parallel import hosts
from jaxmlm.runs.run import identity
from jaxmlm.runs.text_of_run import is_of_text, text_of
from jaxmlm.runs.workdir import read_metadata
from jaxmlm.studies.examples import Examples, of_others
from jaxmlm.studies.grid import Cell
from jaxmlm.studies.jobs import results_of

RESULTS = "results.jsonl"


def finished(cell: Cell, studies: Sequence[str]) -> Path | None:
    """The directory in which this cell's pre-training is finished: its own, or `finished_elsewhere`."""
    own = Path(cell.run.workdir)
    return own if _holds(own, _same(cell), {}) else finished_elsewhere(cell, studies)


def finished_elsewhere(cell: Cell, studies: Sequence[str], store: Store | None = None) -> Path | None:
    """The directory of a finished cell with this cell's run in one of these directories of studies.

    Args:
        cell: the cell; None is returned if it was started.
        studies: directories of studies; one that is not there has no cells.
        store: the token store of the cell, of which a finished cell must be too; None: it is not made yet, and a
            finished cell on a text of the same path will do.

    Raises:
        InputError: a cell's run.json is damaged.

    """
    if (Path(cell.run.workdir) / "run.json").exists():
        return None
    same = _same(cell)
    text = text_of(store, cell.run.needs_phrases) if store else {}
    directories = (done.parent for study in studies for done in sorted(expanded(study).glob("cells/*/DONE")))
    return next((directory for directory in directories if _holds(directory, same, text)), None)


def _same(cell: Cell) -> dict[str, Any]:
    """The identity of a cell's run, as run.json has it."""
    return json.loads(to_json(identity(cell.run)))


def _holds(directory: Path, same: dict[str, Any], text: dict[str, str]) -> bool:
    """Whether a directory holds a finished run of this identity, on this text."""
    record = directory / "run.json"
    if not (directory / "DONE").exists() or not record.exists():
        return False
    about = read_metadata(record)
    return about["identity"] == same and is_of_text(about, text)


def take_over(cell: Cell, studies: Sequence[str], store: Store, examples: Examples, stage: str) -> None:
    """Copy a finished cell of another study, weights and results, to be this cell; without one do nothing.

    Results on other examples than the files have now are left out. The directory of the cell must be held. A kill
    leaves a cell that was not started, and the next call copies again.
    """
    with hosts.primary_first():
        if not hosts.is_primary() or (found := finished_elsewhere(cell, studies, store)) is None:
            return
        directory = Path(cell.run.workdir)
        print(f"{stage}: finished in {found}: copied from there", flush=True)
        # Last what makes it a cell that was started, and then what makes it a finished one.
        other_than = shutil.ignore_patterns(LOCK, RESULTS, "run.json", "DONE")
        shutil.copytree(found, directory, ignore=other_than, dirs_exist_ok=True)
        done = results_of(found)
        others = of_others(done, examples)
        lines = [to_json(with_checksum(one.to_json())) + "\n" for one in done if one not in others]
        write_text(directory / RESULTS, "".join(lines))
        write_text(directory / "run.json", (found / "run.json").read_text())
        (directory / "DONE").touch()
