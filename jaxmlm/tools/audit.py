"""`jaxmlm audit`: the rates asked and got, for one masking or all presets, on rows of the real token store."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.text import Text

from jaxmlm.checks import COUNT, NATURAL, check_numbers
from jaxmlm.data import Batches, Data, Store, open_rows
from jaxmlm.data.opening import open_store
from jaxmlm.json_files import write_json
from jaxmlm.masking import PRESETS, Tokens, needs_phrases, preset
from jaxmlm.masking.audit import audit as measure
from jaxmlm.os_errors import check_writable
from jaxmlm.plotting import audit_figures
from jaxmlm.runs.run import Run
from jaxmlm.runs.tables import Column, Tables
from jaxmlm.tasks.mlm import make_tokens, vocab_of


@dataclasses.dataclass(frozen=True)
class Audit:
    """What `jaxmlm audit` takes beside the options of the configuration."""

    presets: tuple[str, ...] = ()
    """Presets to audit (wettig2022, bert, ...; all: every one) in place of the configuration's masking."""
    rows: int = 2048
    """Rows of the train split to measure on."""
    step: int = 0
    """Training step whose rate is audited, where the masking has a schedule."""

    def __post_init__(self) -> None:
        check_numbers(self, "--", rows=COUNT, step=NATURAL)


def audit(run: Run, options: Audit) -> dict[str, Any]:
    """Measure maskings on a run's token store, made if it is not there.

    Writes WORKDIR/audit.json and audit-*.png. Returns {"ok", "maskings": {name: what `masking.audit` gives}}.
    """
    check_writable(Path(run.workdir), directory=True)
    names = tuple(PRESETS) if "all" in options.presets else options.presets
    maskings = {name: preset(name) for name in names} or {"this run": run.masking}
    phrases = any(needs_phrases(masking.units) for masking in maskings.values())
    store = open_store(run.text, Path(run.workdir), phrases=phrases)
    tokens, examples = rows_of(store, run.data, options.rows)
    maskings = {name: masking.for_tokenizer(store.tokenizer) for name, masking in maskings.items()}
    found = {
        name: measure(masking, tokens, examples, vocab_of(store, masking), run.loop.seed, options.step)
        for name, masking in maskings.items()
    }
    directory = Path(run.workdir)
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "audit.json", found)
    paths = audit_figures(found, directory)
    console = Console(stderr=True)
    for drawn in tables(found):
        console.print(drawn)
    console.print(f"{directory / 'audit.json'}, {', '.join(str(path) for path in paths)}", soft_wrap=True, markup=False)
    return {"ok": all(one["ok"] for one in found.values()), "maskings": found}


def rows_of(store: Store, data: Data, rows: int) -> tuple[Tokens, np.ndarray]:
    """The first rows of the train split as a masking sees them, and their ids."""
    units = store.units("train") is not None
    batches = Batches(open_rows(store, "train", data.length, data.format, units), 1)
    examples = np.arange(min(rows, batches.rows))
    batch = batches.take(examples)
    unit = jnp.asarray(batch["unit"]) if "unit" in batch else None
    return make_tokens(store.tokenizer, jnp.asarray(batch["ids"]), unit), examples


def tables(found: dict[str, dict[str, Any]]) -> list[Tables]:
    """Shares asked and got, and units that are selected entirely, for the terminal."""
    names = [Column("masking", list(found))]
    each = list(found.values())
    columns = []
    for kind in each[0]["shares"]:
        of = [one["shares"][kind] for one in each]
        said = [f"{100 * share['got']:.2f} ({100 * share['asked']:.2f})" for share in of]
        columns.append(Column(kind, [_marked(s, not share["ok"]) for s, share in zip(said, of, strict=True)]))
    faults = [sum(one["faults"].values()) + sum(not row["ok"] for row in one["lengths"].values()) for one in each]
    columns.append(Column("faults", [_marked(str(n), n > 0) for n in faults]))
    whole = []
    for kind in dict.fromkeys(kind for one in each for kind in one["whole"]):
        of = [one["whole"].get(kind, math.nan) for one in each]
        whole.append(Column(kind, ["" if math.isnan(share) else f"{100 * share:.2f}" for share in of]))
    title = "share of the maskable tokens, %: got (asked); red, with !: outside its interval"
    return [Tables(title, names, columns), Tables("selected entirely, %", names, whole)]


def _marked(said: str, bad: bool) -> Text:
    return Text(f"{said} !", style="red") if bad else Text(said)  # red is lost in a log
