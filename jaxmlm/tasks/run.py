"""A pre-training run: a config, a folder, and what stands in it.

WORKDIR/run.json  log.jsonl  tokenizer.model (or .json)  checkpoints/STEP/  results.jsonl  DONE
"""

import hashlib
import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmlm.data import Data, Tokenizer
from jaxmlm.data.hf_tokenizer import HfTokenizer, open_tokenizer
from jaxmlm.errors import InputError
from jaxmlm.masking import Masking, SpanUnits
from jaxmlm.models import Encoder, EncoderConfig, MaskedLM, interchange, with_head
from jaxmlm.models.encoder import HOW_TRAINED
from jaxmlm.models.formats import format_for
from jaxmlm.parallel import Mesh, abstract, check_sizes, hosts, make_mesh
from jaxmlm.paths import check_workdir, describe, differences, to_json
from jaxmlm.preemption import stop_before, stoppable
from jaxmlm.rng import make_key
from jaxmlm.tasks import epochs
from jaxmlm.tasks.folders import not_a_checkpoint
from jaxmlm.tasks.mlm import diverged, mlm_task
from jaxmlm.tasks.phrases import phrases_of
from jaxmlm.tasks.texts import open_store
from jaxmlm.training import Checkpoints, Loop, Optim, Task, TrainState, steps_within, train


@dataclass(frozen=True)
class Run:
    """One pre-training run."""

    workdir: str = "runs/run"
    """Folder of everything that the run writes."""
    init: str | None = None
    """Go on from this encoder and its tokenizer: the folder of a run, or one of the transformers format."""
    data: Data = field(default_factory=Data)
    masking: Masking = field(default_factory=Masking)
    model: EncoderConfig = field(default_factory=EncoderConfig)
    optim: Optim = field(default_factory=Optim)
    loop: Loop = field(default_factory=Loop)
    mesh: Mesh = field(default_factory=Mesh)
    most_epochs: float | None = epochs.MANY
    """Refuse to read the text more often than this; None: read it as often as the steps take."""

    def __post_init__(self) -> None:
        check_workdir(self.workdir)
        if self.init and self.data.tokenizer:
            raise InputError(
                "init and data.tokenizer are both given, and an encoder goes with its own tokenizer: leave out "
                "data.tokenizer"
            )
        if not self.init:  # else the encoder's own positions count
            _check_length(self.model, self.data.length)
        if self.loop.best:
            raise InputError("loop.best is for fine-tuning: what pre-training keeps is its last state: leave it out")
        units, text = self.masking.units, self.data.length - 2  # a row begins and ends with a special token
        if isinstance(units, SpanUnits) and units.most > text:
            raise InputError(
                f"masking.units.most {units.most} is longer than a row's {text} tokens of text (data.length "
                f"{self.data.length}): shorten the spans or lengthen the rows"
            )

    @property
    def text(self) -> Data:
        """The data, with the tokenizer that they are to be read by."""
        if not self.init:
            return self.data
        folder, step = _step_of(self.init)
        return replace(self.data, tokenizer=self.init if step is None else str(folder))


SAME_RUN = (
    "workdir", "most_epochs", "mesh", "data.store", "loop.save_every", "loop.eval_every", "loop.log_every",
    "loop.accumulate", "model.remat", "model.chunk",
)  # fmt: skip
"""What may differ between two starts of one run."""


class Loaded(NamedTuple):
    """A model read back: itself (`kind` is what its head is for), its tokenizer, its configuration, its folder.

    `kind` is "mlm", or for a folder of the transformers format that of `interchange.read`, as are `labels`. `about`
    is what a run's run.json says, or which architecture was read.
    """

    model: Any
    tokenizer: Tokenizer
    config: EncoderConfig
    folder: Path
    kind: str
    labels: tuple[str, ...]
    about: dict[str, Any]

    @property
    def encoder(self) -> Encoder:
        """The encoder without its head."""
        return self.model if self.kind == "encoder" else self.model.encoder


def identity(run: Run) -> dict[str, Any]:
    """What makes two runs the same run: all that changes the result, not where or how often things are written.

    Nor how the work is cut up, which changes the last bits at most, or with dropout which bits are drawn.
    """
    return _without(describe(run), SAME_RUN)


def _without(plain: dict[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """A dictionary of dictionaries without the entries at these dotted paths, where it has them."""
    here = {path for path in paths if "." not in path}
    deeper = {name: [path.partition(".")[2] for path in paths if path.startswith(name + ".")] for name in plain}
    return {
        name: _without(value, deeper[name]) if deeper[name] and isinstance(value, dict) else value
        for name, value in plain.items()
        if name not in here
    }


@stoppable()
def pretrain(run: Run, stage: str = "pretrain") -> dict[str, Any]:
    """Pre-train, or resume, or read what a finished run gave.

    Returns {"workdir", "rows": the lines of results.jsonl: what pre-training cost, and the held-out scores}.
    """
    folder = Path(run.workdir)
    hosts.agree("configurations", describe(replace(run, data=replace(run.data, store=None))))
    stop_before("anything was begun")
    unclaimed(folder, "run.json", identity(run))
    if hosts.told_by_first((folder / "DONE").exists()):
        return _result(folder, stage)
    if not run.loop.budget:  # of which the steps are not known yet
        epochs.check(run, run.loop.steps * run.loop.batch * run.data.length, epochs.size(run))
    hosts.share(folder)
    mesh = make_mesh(run.mesh)
    check_sizes(mesh, [run.loop.rows, *([] if run.init else run.model.sizes)])
    with jax.set_mesh(mesh):
        start, whole = _start(run, make_key(run.loop.seed)) if run.init else (None, run)
    check_sizes(mesh, whole.model.sizes)
    if (why := _why_not_exported(whole)) and hosts.speaks():
        print(f"note: this model cannot be exported: {why}", file=sys.stderr, flush=True)
    store = open_store(run.text, folder, f"{stage}: prepare", phrases_of(run.masking))
    with jax.set_mesh(mesh):
        task = mlm_task(store, run.data, run.masking, whole.model, run.loop.batch, run.loop.seed, start)
    vocab = store.tokenizer.size if start is None else start.encoder.vocab
    same = identity(run)
    if run.loop.budget:
        steps = _steps(run, task, mesh, folder)
        run, whole = (replace(r, loop=replace(r.loop, steps=steps)) for r in (run, whole))
    claim(folder, "run.json", same, {"config": describe(whole), "vocab": vocab, "tokenizer": _sha256(store.tokenizer)})
    if jax.process_index() == 0:
        store.tokenizer.save(folder)
    done = train(task, run.optim, run.loop, mesh, folder, stage)
    rows = [
        {"stage": "pretrain", "task": "mlm", "tuning_seed": None, "main": None,
         "scores": {"loss": done.loss} if run.loop.steps else {},
         "seconds": round(done.seconds, 2), "tokens": done.tokens, "views": run.masking.views,
         "tokens_per_second": round(done.tokens_per_second, 1) or None},
        {"stage": "heldout", "task": "mlm", "tuning_seed": None, "main": None, "scores": done.evals["heldout"],
         "seconds": None, "tokens": None, "tokens_per_second": None},
    ]  # fmt: skip
    if run.loop.steps and (why := diverged(done.evals["heldout"], vocab)):
        rows[0]["diverged"] = why
    append_rows(folder / "results.jsonl", rows)
    if jax.process_index() == 0:
        (folder / "DONE").touch()
    return _result(folder, stage, rows)


def _result(folder: Path, stage: str, rows: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """What `pretrain` returns; says so where the run diverged."""
    rows = read_rows(folder / "results.jsonl") if rows is None else rows
    for why in (row["diverged"] for row in rows if row.get("diverged") and hosts.speaks()):
        print(f"{stage}: the run diverged ({why}): try a lower optim.learning_rate", file=sys.stderr)
    return {"workdir": str(folder), "rows": rows}


def _why_not_exported(run: Run) -> str:
    """Why `jaxmlm export` will refuse the model of this run; an empty string if it will not."""
    own = not (run.init or run.data.tokenizer)
    if own and (run.data.pieces != "unigram" or run.data.byte_fallback):
        return "transformers has no tokenizer of the same ids: data.pieces unigram without data.byte_fallback has one"
    try:
        format_for(run.model, "mlm")
    except InputError as error:
        return str(error)
    return ""


def _steps(run: Run, task: Task, mesh: Any, folder: Path) -> int:
    """The steps that the budget of a run allows: as measured when it was started first."""
    if (folder / "run.json").is_file():
        return json.loads((folder / "run.json").read_text())["config"]["loop"]["steps"]
    return steps_within(str(run.loop.budget), task, run.optim, mesh, run.loop.accumulate)


def _start(run: Run, key: jax.Array) -> tuple[MaskedLM, Run]:
    """The model to go on from, and the run with that model's sizes; a bare encoder gets a new head."""
    found = load(str(run.init), run.model)
    usual = EncoderConfig()
    for field_ in fields(EncoderConfig):
        name = field_.name
        asked, have = getattr(run.model, name), getattr(found.config, name)
        if name not in HOW_TRAINED and asked not in (have, getattr(usual, name)):
            raise InputError(f"model.{name} is {asked!r} and the encoder in {run.init} has {have!r}: leave it out")
    _check_length(found.config, run.data.length)
    model = found.model if found.kind == "mlm" else jax.jit(MaskedLM)(found.encoder, key)
    return model, replace(run, model=found.config)


def _check_length(model: EncoderConfig, length: int) -> None:
    if model.positions == "learned" and length > model.most_positions:
        raise InputError(
            f"data.length {length} is above model.most_positions {model.most_positions}: raise that, shorten the "
            "rows, or take --model.positions rope"
        )


def load(path: str | Path, like: EncoderConfig | None = None) -> Loaded:
    """The model of a run's folder (its newest whole checkpoint), of a step's or of a transformers one, on the mesh.

    It will be trained with the dropout, type and rematerialisation that it had, or those of `like`.
    """
    folder, step = _step_of(path)
    if not (folder / "run.json").is_file():
        if (folder / "config.json").is_file():
            return from_transformers(folder, like)
        raise not_a_checkpoint(folder)
    about = json.loads((folder / "run.json").read_text())
    config = EncoderConfig.read(about["config"]["model"])
    config = config.trained_like(like) if like else config
    tokenizer = _tokenizer(folder, about)
    kind, labels = about.get("kind", "mlm"), tuple(about.get("labels", ()))

    def init(key: jax.Array) -> Any:
        return with_head(kind, Encoder(config, about.get("vocab", tokenizer.size), key), len(labels), key)

    if step is not None and "loop" in about["config"]:
        about["config"]["loop"]["steps"] = step  # as its model card says
    checkpoints = Checkpoints(folder / "checkpoints", read=True)
    model = checkpoints.model(abstract(init, make_key(0)), step)
    checkpoints.close()
    return Loaded(model, tokenizer, config, folder, kind, labels, about)


def _step_of(path: str | Path) -> tuple[Path, int | None]:
    """The folder of a run, and the step if `path` is that of one of its checkpoints."""
    folder = Path(path)
    if folder.parent.name == "checkpoints" and folder.name.isdigit() and (folder.parents[1] / "run.json").is_file():
        return folder.parents[1], int(folder.name)
    return folder, None


def _tokenizer(folder: Path, about: dict[str, Any]) -> Tokenizer:
    """The tokenizer of a run's folder; InputError if it is not the one that its model has learned with."""
    tokenizer = open_tokenizer(folder)
    vocab = about.get("vocab", tokenizer.size)
    # Runs of earlier versions say only how many pieces there are.
    if about.get("tokenizer", now := _sha256(tokenizer)) != now or tokenizer.size > vocab:
        raise InputError(
            f"{folder}: the tokenizer there ({tokenizer.size:,} pieces) is not the one of this model ({vocab:,}): put "
            "back the tokenizer file that the run wrote"
        )
    return tokenizer


def _sha256(tokenizer: Tokenizer) -> str:
    return hashlib.sha256(tokenizer.model).hexdigest()


def save(found: Loaded) -> None:
    """Write a model as a folder that `load` reads, in the place of what was there; all hosts write its arrays.

    `about` must be plain JSON values. A kill leaves the old folder or the new one.
    """
    folder, new = found.folder, found.folder.with_name(found.folder.name + ".new")
    first = jax.process_index() == 0
    with hosts.first_alone():
        if first:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
    plain = {
        "identity": {"kind": found.kind, **found.about},
        "config": {"model": describe(found.config)},
        "vocab": found.encoder.vocab,
        "kind": found.kind,
        "labels": list(found.labels),
        **found.about,
        "tokenizer": _sha256(found.tokenizer),
    }
    with closing(Checkpoints(new / "checkpoints")) as checkpoints:
        checkpoints.save(TrainState(jnp.zeros((), jnp.int32), found.model, ()))
    with hosts.first_alone():
        if first:
            found.tokenizer.save(new)
            (new / "run.json").write_text(to_json({**plain, **provenance()}, indent=1) + "\n")
            shutil.rmtree(folder, ignore_errors=True)
            new.rename(folder)


def from_transformers(folder: str | Path, like: EncoderConfig | None = None) -> Loaded:
    """The model and the tokenizer in a folder of the transformers format, on the current mesh."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise not_a_checkpoint(folder)
    found = interchange.read(folder, like)
    tokenizer = HfTokenizer(folder)
    if tokenizer.size > found.vocab:
        more = [piece for piece in tokenizer.pieces(range(found.vocab, tokenizer.size)) if piece]
        raise InputError(
            f"{folder}: the tokenizer has {tokenizer.size:,} pieces and the model {found.vocab:,}, which has no "
            f"rows for {', '.join(more[:5])}{', ...' if more[5:] else ''}: resize it (in transformers, "
            "model.resize_token_embeddings and save_pretrained), or take them out of the added_tokens of tokenizer.json"
        )
    about = {"architecture": found.architecture, "unused": list(found.unused), "notes": tokenizer.notes}
    return Loaded(found.model, tokenizer, found.config, folder, found.kind, found.labels, about)


def unclaimed(folder: Path, name: str, identity: dict[str, Any]) -> None:
    """Refuse a folder that holds another configuration's run or study; change nothing."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder as --workdir")
    for other in {"run.json", "study.json", "finetune.json"} - {name}:
        if (folder / other).is_file():
            raise InputError(f"{folder} holds a {other.removesuffix('.json')}: name another --workdir")
    if (folder / name).is_file():
        have = json.loads((folder / name).read_text())["identity"]
        have = _without(have, SAME_RUN)  # an earlier version may have written them
        # A field that a later version has added stands where it had no name yet: at its default.
        usual = describe(Run())
        for where, old, new in differences(have, json.loads(to_json(identity)), usual, ""):
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
