"""A pre-training run: a config, a folder, and what stands in it.

WORKDIR/run.json  log.jsonl  tokenizer.model  checkpoints/STEP/  results.jsonl  DONE
"""

import importlib.metadata
import json
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxmlm.data import Data, Tokenizer
from jaxmlm.errors import InputError
from jaxmlm.masking import Masking, SpanUnits
from jaxmlm.models import Encoder, EncoderConfig, MaskedLM
from jaxmlm.parallel import Mesh, make_mesh
from jaxmlm.paths import describe
from jaxmlm.tasks.mlm import mlm_task, open_store
from jaxmlm.tasks.phrases import phrases_of
from jaxmlm.training import Checkpoints, Loop, Optim, train


@dataclass(frozen=True)
class Run:
    """One pre-training run."""

    workdir: str = "runs/run"
    """Folder of everything that the run writes."""
    data: Data = field(default_factory=Data)
    masking: Masking = field(default_factory=Masking)
    model: EncoderConfig = field(default_factory=EncoderConfig)
    optim: Optim = field(default_factory=Optim)
    loop: Loop = field(default_factory=Loop)
    mesh: Mesh = field(default_factory=Mesh)

    def __post_init__(self) -> None:
        if self.model.positions == "learned" and self.data.length > self.model.most_positions:
            raise InputError(
                f"data.length {self.data.length} is above model.most_positions {self.model.most_positions}: raise "
                "that, shorten the rows, or take --model.positions rope"
            )
        units, text = self.masking.units, self.data.length - 2  # a row begins and ends with a special token
        if isinstance(units, SpanUnits) and units.most > text:
            raise InputError(
                f"masking.units.most {units.most} is longer than a row's {text} tokens of text (data.length "
                f"{self.data.length}): shorten the spans or lengthen the rows"
            )


class Loaded(NamedTuple):
    """A model read back: itself, its tokenizer, its configuration, and the run's folder."""

    model: MaskedLM
    tokenizer: Tokenizer
    config: EncoderConfig
    folder: Path


def identity(run: Run) -> dict[str, Any]:
    """What makes two runs the same run: all that changes the result, not where or how often things are written."""
    plain = describe(run)
    for path in ("workdir", "mesh", "data.store", "loop.save_every", "loop.eval_every", "loop.log_every"):
        *parents, name = path.split(".")
        part = plain
        for parent in parents:
            part = part[parent]
        del part[name]
    return plain


def pretrain(run: Run, stage: str = "pretrain") -> dict[str, Any]:
    """Pre-train, or resume, or read what a finished run gave.

    Returns {"workdir", "rows": the lines of results.jsonl: what pre-training cost, and the held-out scores}.
    """
    folder = Path(run.workdir)
    unclaimed(folder, "run.json", identity(run))
    if (folder / "DONE").exists():
        return {"workdir": str(folder), "rows": read_rows(folder / "results.jsonl")}
    mesh = make_mesh(run.mesh)
    store = open_store(run.data, folder, f"{stage}: prepare", phrases_of(run.masking))
    with jax.set_mesh(mesh):
        task = mlm_task(store, run.data, run.masking, run.model, run.loop.batch, run.loop.seed)
    claim(folder, "run.json", identity(run), {"config": describe(run)})
    shutil.copyfile(store.folder / "tokenizer.model", folder / "tokenizer.model")
    started = time.perf_counter()
    done = train(task, run.optim, run.loop, mesh, folder, stage)
    rows = [
        {"stage": "pretrain", "task": "mlm", "tuning_seed": None, "main": None,
         "scores": {"loss": done.loss} if run.loop.steps else {},
         "seconds": round(time.perf_counter() - started, 2),
         "tokens": run.loop.steps * run.loop.batch * run.data.length, "views": run.masking.views,
         "tokens_per_second": round(done.tokens_per_second, 1) or None},
        {"stage": "heldout", "task": "mlm", "tuning_seed": None, "main": None, "scores": done.evals["heldout"],
         "seconds": None, "tokens": None, "tokens_per_second": None},
    ]  # fmt: skip
    if jax.process_index() == 0:
        append_rows(folder / "results.jsonl", rows)
        (folder / "DONE").touch()
    return {"workdir": str(folder), "rows": rows}


def load(path: str | Path) -> Loaded:
    """The model of a run's folder (its newest whole checkpoint), on the current mesh."""
    folder = Path(path)
    if not (folder / "run.json").is_file():
        raise InputError(f"{folder} is not the folder of a run (no run.json): give the --workdir of a pre-training")
    plain = json.loads((folder / "run.json").read_text())["config"]["model"]
    config = EncoderConfig(**{key: value for key, value in plain.items() if key != "class"})
    tokenizer = Tokenizer.load(folder / "tokenizer.model")

    def init(key: jax.Array) -> MaskedLM:
        return MaskedLM(Encoder(config, tokenizer.size, key), key)

    checkpoints = Checkpoints(folder / "checkpoints")
    # Made for real and thrown away: an abstract model would not carry the shardings of every leaf.
    model = checkpoints.model(jax.jit(init)(jax.random.key(0)))
    checkpoints.close()
    return Loaded(model, tokenizer, config, folder)


def unclaimed(folder: Path, name: str, identity: dict[str, Any]) -> None:
    """Refuse a folder that holds another configuration's run or study; change nothing."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder as --workdir")
    other = {"run.json": "study.json", "study.json": "run.json"}[name]
    if (folder / other).is_file():
        raise InputError(f"{folder} holds a {other.removesuffix('.json')}: name another --workdir")
    if (folder / name).is_file():
        have = json.loads((folder / name).read_text())["identity"]
        for where, old, new in _differences(have, json.loads(json.dumps(identity)), ""):
            raise InputError(
                f"{folder} holds another {name.removesuffix('.json')}: {where} is {old!r} there and {new!r} here: "
                "name another --workdir"
            )


def claim(folder: Path, name: str, identity: dict[str, Any], record: dict[str, Any]) -> None:
    """Write the configuration, the versions and the commit into a folder that `unclaimed` let pass, once."""
    if not (folder / name).is_file() and jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"identity": identity, **record, **provenance()}, indent=1) + "\n")


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
    """Append lines to a results.jsonl; a last line that a kill cut short gives way."""
    with open(path, "ab+") as f:
        f.seek(0)
        f.truncate(f.read().rfind(b"\n") + 1)
    with open(path, "a") as f:
        f.writelines(json.dumps(row) + "\n" for row in rows)


def _differences(a: Any, b: Any, at: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            yield from _differences(a.get(key), b.get(key), f"{at}.{key}" if at else key)
    elif a != b:
        yield at, a, b
