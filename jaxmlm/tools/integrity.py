"""Is all that a run, a study or a fine-tuning left on disk what was written? For `jaxmlm doctor --workdir`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxmlm.data.manifest import MANIFEST
from jaxmlm.data.store import Store
from jaxmlm.errors import InputError
from jaxmlm.json_files import read_json
from jaxmlm.logs import read_log
from jaxmlm.runs.results import read_results
from jaxmlm.runs.workdir import read_metadata
from jaxmlm.training import Checkpoints

_READERS: dict[str, Callable[[Path], Any]] = {
    "run.json": read_metadata,
    "study.json": read_metadata,
    "finetune.json": read_metadata,
    "report.json": read_json,
    "results.jsonl": read_results,
    "log.jsonl": read_log,
}


def damage(directory: Path) -> Iterator[tuple[str, str]]:
    """Read everything that jaxmlm wrote in a directory and below it, and compare it with its checksums.

    Args:
        directory: of a run, a study, a fine-tuning or a token store.

    Yields:
        What was read, and what is wrong with it; an empty string where nothing is.

    """
    if (directory / MANIFEST).is_file():
        yield f"token store {directory}", _error(lambda: Store(directory).verify())
    for name, read in _READERS.items():
        path = directory / name
        if path.is_file():
            yield str(path), _error(lambda path=path, read=read: read(path))
    if (directory / "checkpoints").is_dir():
        checkpoints = Checkpoints(directory / "checkpoints", read=True)
        for step, why in checkpoints.verify():
            yield f"checkpoint {directory / 'checkpoints' / str(step)}", why
        checkpoints.close()
    for below in (directory / "store", directory / "model", *sorted((directory / "cells").glob("*"))):
        if below.is_dir():
            yield from damage(below)


def _error(read: Callable[[], Any]) -> str:
    try:
        read()
    except InputError as error:
        return str(error)
    return ""
