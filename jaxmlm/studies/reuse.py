"""Cells that another study has finished: the same pre-training is not done twice, whatever its name is there."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from jaxmlm.json_files import to_json, write_text
from jaxmlm.locks import LOCK
from jaxmlm.parallel import hosts
from jaxmlm.runs.run import identity
from jaxmlm.runs.workdir import read_metadata
from jaxmlm.studies.grid import Cell


def finished_elsewhere(cell: Cell, studies: Sequence[str]) -> Path | None:
    """The directory of a finished cell with this cell's run in one of these directories of studies.

    Args:
        cell: the cell; None is returned if it was started.
        studies: directories of studies; one that is not there has no cells.

    Raises:
        InputError: a cell's run.json is damaged.

    """
    if (Path(cell.run.workdir) / "run.json").exists():
        return None
    same = json.loads(to_json(identity(cell.run)))
    for study in studies:
        for done in sorted(Path(study).glob("cells/*/DONE")):
            if (done.parent / "run.json").exists() and read_metadata(done.parent / "run.json")["identity"] == same:
                return done.parent
    return None


def take_over(cell: Cell, studies: Sequence[str], stage: str) -> None:
    """Copy a finished cell of another study, weights and results, to be this cell; without one do nothing.

    The directory of the cell must be held. A kill leaves a cell that was not started, and the next call copies again.
    """
    with hosts.primary_first():
        if not hosts.is_primary() or (found := finished_elsewhere(cell, studies)) is None:
            return
        directory = Path(cell.run.workdir)
        print(f"{stage}: finished in {found}: copied from there", flush=True)
        # Last what makes it a cell that was started, and then what makes it a finished one.
        shutil.copytree(found, directory, ignore=shutil.ignore_patterns(LOCK, "run.json", "DONE"), dirs_exist_ok=True)
        write_text(directory / "run.json", (found / "run.json").read_text())
        (directory / "DONE").touch()
