"""What stands in the directory of a run, and whose it is: configuration, versions, results."""

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from jaxmlm.errors import InputError
from jaxmlm.json_files import to_json
from jaxmlm.paths import describe, differences
from jaxmlm.runs.run import SAME_RUN, Run


def unclaimed(folder: Path, name: str, identity: dict[str, Any]) -> None:
    """Refuse a folder that holds another configuration's run or study; change nothing."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder as --workdir")
    for other in {"run.json", "study.json", "finetune.json"} - {name}:
        if (folder / other).is_file():
            raise InputError(f"{folder} holds a {other.removesuffix('.json')}: name another --workdir")
    if (folder / name).is_file():
        have = json.loads((folder / name).read_text())["identity"]
        for where, old, new in differences(have, json.loads(to_json(identity))):
            raise InputError(
                f"{folder} holds another {name.removesuffix('.json')}: {where} is {old!r} there and {new!r} here: "
                "name another --workdir"
            )


def claim(folder: Path, name: str, identity: dict[str, Any], record: dict[str, Any]) -> None:
    """Write the configuration, the versions and the commit into a folder that `unclaimed` let pass, once."""
    if not (folder / name).is_file() and jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(to_json({"identity": identity, **record, **provenance()}, indent=1) + "\n")


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


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a results.jsonl; a last line that a kill cut short is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text().split("\n")[:-1]:
        rows.append(json.loads(line))
    return rows


def append_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append lines to a results.jsonl, on the first host; a last line that a kill cut short gives way."""
    if jax.process_index() != 0:
        return
    with open(path, "ab+") as f:
        f.seek(0)
        f.truncate(f.read().rfind(b"\n") + 1)
    with open(path, "a") as f:
        f.writelines(to_json(row) + "\n" for row in rows)


def step_of(path: str | Path) -> tuple[Path, int | None]:
    """The folder of a run, and the step if `path` is that of one of its checkpoints."""
    folder = Path(path)
    if folder.parent.name == "checkpoints" and folder.name.isdigit() and (folder.parents[1] / "run.json").is_file():
        return folder.parents[1], int(folder.name)
    return folder, None


def without(plain: dict[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """A dictionary of dictionaries without the entries at these dotted paths, where it has them."""
    here = {path for path in paths if "." not in path}
    deeper = {name: [path.partition(".")[2] for path in paths if path.startswith(name + ".")] for name in plain}
    return {
        name: without(value, deeper[name]) if deeper[name] and isinstance(value, dict) else value
        for name, value in plain.items()
        if name not in here
    }
