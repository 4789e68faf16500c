"""What stands in the directory of a run, and whose it is: configuration, versions, results."""

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax

from jaxmlm.data.store import MANIFEST
from jaxmlm.directories import expanded
from jaxmlm.errors import InputError, Preempted
from jaxmlm.fields import differences
from jaxmlm.json_files import append_jsonl, read_json, to_json, with_checksum, without_checksum, write_json
from jaxmlm.locks import claim
from jaxmlm.os_errors import writing_to
from jaxmlm.parallel import hosts
from jaxmlm.runs.results import key_of, read_results


@contextmanager
def claim_workdir(directory: Path, what: str) -> Iterator[None]:
    """Hold a directory for all processes of this command; all of them must call it.

    Args:
        directory: the directory.
        what: what it is: run, study, fine-tuning.

    Raises:
        InputError: on all of them: another command is at work there (see `locks.claim`); or its disk is full.

    """
    with ExitStack() as held:
        refused = None
        if hosts.is_primary():
            try:
                held.enter_context(claim(directory, what))
            except (InputError, Preempted) as error:
                refused = [type(error).__name__, str(error)]
        refused = hosts.broadcast_from_primary(refused)
        if refused is not None:
            kind, message = refused
            raise Preempted(message) if kind == "Preempted" else InputError(message)
        with writing_to(directory):
            yield


def check_workdir(directory: Path, name: str, identity: dict[str, Any]) -> None:
    """Refuse a directory that holds another configuration's run or study; change nothing."""
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file: name a directory as --workdir")
    if (directory / MANIFEST).is_file():
        raise InputError(f"{directory} holds a token store: name another --workdir, and give the store as --data.store")
    for other in {"run.json", "study.json", "finetune.json"} - {name}:
        if (directory / other).is_file():
            raise InputError(f"{directory} holds a {other.removesuffix('.json')}: name another --workdir")
    if not _is_missing(directory, name):
        have = read_metadata(directory / name)["identity"]
        for where, old, new in differences(have, json.loads(to_json(identity))):
            if where.endswith(".source") and old and new:
                raise InputError(
                    f"{directory} holds a {name.removesuffix('.json')} with another {where.removesuffix('.source')}: "
                    "the file that defines its class has changed since: name another --workdir, or undo the change"
                )
            longer = " and continue from this one with --init" if where == "loop.steps" else ""
            raise InputError(
                f"{directory} holds another {name.removesuffix('.json')}: {where} is {old!r} there and {new!r} here: "
                f"name another --workdir{longer}"
            )


def write_metadata(directory: Path, name: str, identity: dict[str, Any], record: dict[str, Any]) -> None:
    """Write the configuration, the versions and the commit into a directory that `check_workdir` let pass, once."""
    if _is_missing(directory, name) and hosts.is_primary():
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / name, with_checksum({"identity": identity, **record, **provenance()}))


def _is_missing(directory: Path, name: str) -> bool:
    """Whether a directory has no such file, or an empty one that a full disk left before anything was trained."""
    path = directory / name
    if not path.is_file():
        return True
    return (
        not path.stat().st_size
        and not (directory / "checkpoints").exists()
        and not (directory / "results.jsonl").exists()
    )


def read_metadata(path: Path) -> dict[str, Any]:
    """Read a run.json, study.json or finetune.json.

    Raises:
        InputError: it is torn, damaged, or was edited by hand.

    """
    if path.is_file() and not path.stat().st_size:
        raise InputError(
            f"{path} is empty, so that nobody knows whose directory this is: delete that file, and the same command "
            "that made the directory writes it again; or name another --workdir"
        )
    found = read_json(path, "what jaxmlm wrote there when it was started first")
    for key in ("identity", "config"):
        if not isinstance(found.get(key), dict):
            raise InputError(f"{path} has no {key}: it was not written by jaxmlm, or edited: put back the one it wrote")
    return without_checksum(found, path)


def provenance() -> dict[str, Any]:
    """Versions, machine and commit, as written beside every run."""
    names = ("jaxmlm", "jax", "flax", "optax", "orbax-checkpoint")
    versions = {name: importlib.metadata.version(name) for name in names}
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return {
        "versions": versions,
        "python": platform.python_version(),
        "device": device,
        "git": _commit(),
    }


def _commit() -> str:
    """The commit of this copy of jaxmlm; an empty string where it is not in a repository, or git is not installed."""
    command = ["git", "-C", str(Path(__file__).parents[2]), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def append_results(path: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Append the lines that a results.jsonl does not have yet, on the primary host alone.

    A command that was killed after it had written a line finds that line, and writes none twice.

    Args:
        path: the file.
        rows: results as JSON objects (see `Result`).

    Returns:
        For each of them the result that is in the file, where it has a checksum; the same on all hosts.

    """
    lines = []
    if hosts.is_primary():
        known = {key_of(row): row for row in read_results(path)}
        new = {key_of(row): row for row in rows if key_of(row) not in known}
        if new:
            append_jsonl(path, map(with_checksum, new.values()))
        lines = [known.get(key_of(row), row) for row in rows]
    return hosts.broadcast_from_primary(json.loads(to_json(lines)))


def step_of(path: str | Path) -> tuple[Path, int | None]:
    """The directory of a run, and the step if `path` is that of one of its checkpoints."""
    directory = expanded(path)
    if (
        directory.parent.name == "checkpoints"
        and directory.name.isdigit()
        and (directory.parents[1] / "run.json").is_file()
    ):
        return directory.parents[1], int(directory.name)
    return directory, None
