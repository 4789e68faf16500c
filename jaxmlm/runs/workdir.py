"""What stands in the directory of a run, and whose it is: configuration, versions, results."""

import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

from jaxmlm.errors import InputError
from jaxmlm.json_files import append_jsonl, to_json, write_json
from jaxmlm.parallel import hosts
from jaxmlm.paths import differences


def check_workdir(folder: Path, name: str, identity: dict[str, Any]) -> None:
    """Refuse a folder that holds another configuration's run or study; change nothing."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder as --workdir")
    for other in {"run.json", "study.json", "finetune.json"} - {name}:
        if (folder / other).is_file():
            raise InputError(f"{folder} holds a {other.removesuffix('.json')}: name another --workdir")
    if (folder / name).is_file():
        have = json.loads((folder / name).read_text())["identity"]
        for where, old, new in differences(have, json.loads(to_json(identity))):
            if where.endswith(".source") and old and new:
                raise InputError(
                    f"{folder} holds a {name.removesuffix('.json')} with another {where.removesuffix('.source')}: the "
                    "file that defines its class has changed since: name another --workdir, or undo the change"
                )
            raise InputError(
                f"{folder} holds another {name.removesuffix('.json')}: {where} is {old!r} there and {new!r} here: "
                "name another --workdir"
            )


def write_metadata(folder: Path, name: str, identity: dict[str, Any], record: dict[str, Any]) -> None:
    """Write the configuration, the versions and the commit into a folder that `check_workdir` let pass, once."""
    if not (folder / name).is_file() and hosts.is_primary():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / name, {"identity": identity, **record, **provenance()})


def provenance() -> dict[str, Any]:
    """Versions, machine and commit, as written beside every run."""
    names = ("jaxmlm", "jax", "flax", "optax", "orbax-checkpoint")
    versions = {name: importlib.metadata.version(name) for name in names}
    root = Path(__file__).parents[2]
    git = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude", "*"],
        capture_output=True,
        text=True,
    )
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return {
        "versions": versions,
        "python": platform.python_version(),
        "device": device,
        "git": git.stdout.strip(),
    }


def append_results(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append lines to a results.jsonl, on the primary host alone."""
    if hosts.is_primary():
        append_jsonl(path, rows)


def step_of(path: str | Path) -> tuple[Path, int | None]:
    """The folder of a run, and the step if `path` is that of one of its checkpoints."""
    folder = Path(path)
    if folder.parent.name == "checkpoints" and folder.name.isdigit() and (folder.parents[1] / "run.json").is_file():
        return folder.parents[1], int(folder.name)
    return folder, None
