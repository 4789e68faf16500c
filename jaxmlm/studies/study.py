"""The main job: the same encoder pre-trained under several settings, judged alike, in one report.

    WORKDIR/study.json  store/  cells/NAME/ (a run each)  results.jsonl  report.html

A cell is one combination of the varied values and one seed. Everything that is finished is found again: a study
that was killed goes on, one that is done only draws its report anew, and values, seeds and tasks can be added.
"""

import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from jaxmlm.data import Store
from jaxmlm.data.opening import open_store
from jaxmlm.errors import InputError
from jaxmlm.json_files import read_jsonl, write_json
from jaxmlm.models import EncoderConfig
from jaxmlm.parallel import check_sizes, hosts, make_mesh
from jaxmlm.paths import counted, describe, replace_path
from jaxmlm.preemption import stop_before, stoppable
from jaxmlm.runs import epochs
from jaxmlm.runs.evaluation import Evaluate, held_out, minimal_pairs
from jaxmlm.runs.finetune_config import Finetune, settings
from jaxmlm.runs.finetuning import check, fits, tune
from jaxmlm.runs.loading import load
from jaxmlm.runs.pretraining import pretrain
from jaxmlm.runs.preview import preview
from jaxmlm.runs.run import Run, identity
from jaxmlm.runs.tables import Column, Tables
from jaxmlm.runs.workdir import append_results, check_workdir, write_metadata
from jaxmlm.studies import report as reports
from jaxmlm.studies.estimate import seconds_of, training_tokens
from jaxmlm.studies.grid import Cell, Study, cells_of, original
from jaxmlm.studies.results import label
from jaxmlm.tasks import blimp
from jaxmlm.tasks.downstream import directory_of
from jaxmlm.tasks.mlm import HELD_OUT_RATES, named

GENERATED = "A generated world: this shows that the road works; it is no evidence about masking rates."
"""Stands at the top of a report whose text is generated."""


@stoppable()
def run_study(study: Study, dry_run: bool = False) -> dict[str, Any]:
    """Run what is not finished of a study, and write its report; `dry_run` lists the cells and their cost instead."""
    folder, cells = Path(study.workdir), cells_of(study)
    if dry_run:
        return _plan(study, cells if study.cells is None else _share(study, cells))
    hosts.assert_same("configurations", describe(replace_path(study, "run.data.store", None)))
    stop_before("anything was begun")
    _check(study, cells)
    hosts.check_shared_directory(folder)
    store = open_store(cells[0].run.text, folder, phrases=_needs_phrases(cells))
    write_metadata(folder, "study.json", _identity(study), {"config": describe(study)})
    if study.cells is not None:
        mine = _share(study, cells)
        for number, cell in enumerate(mine, 1):
            _run_cell(study, cell, cell, f"[{number}/{len(mine)} of {study.cells}] {cell.name.replace(',', ' ')}: ")
        return {"workdir": str(folder), "cells": [cell.name for cell in mine]}
    for number, cell in enumerate(cells, 1):
        _run_cell(study, cell, original(cell, cells), f"[{number}/{len(cells)}] {cell.name.replace(',', ' ')}: ")
        _collect(study, cells)
    if not hosts.is_primary():
        return {"workdir": str(folder)}
    _describe(study, cells, store)
    return _draw(folder)


def store_run(study: Study) -> Run:
    """The run by which `prepare` makes the study's store; of a cell with phrases, if one wants them."""
    cells = cells_of(study)
    _needs_phrases(cells)
    run = next((cell.run for cell in cells if cell.run.needs_phrases), cells[0].run)
    return replace_path(run, "workdir", study.workdir)


def report(workdir: str) -> dict[str, Any]:
    """Draw the report of a study's folder again, from what its last run left there."""
    if not (Path(workdir) / "report.json").is_file():
        raise InputError(f"{workdir} holds no study with results (no report.json): give the --workdir of a study")
    return _draw(Path(workdir))


def _check(study: Study, cells: list[Cell]) -> None:
    """Everything that can be wrong, before anything that takes long; nothing on disk is changed."""
    check_workdir(Path(study.workdir), "study.json", _identity(study))
    for cell in cells:
        check_workdir(Path(cell.run.workdir), "run.json", identity(cell.run))
    _needs_phrases(cells)
    _check_stores(cells)
    _epochs(study, [cell for cell in cells if not cell.run.loop.budget])
    if not study.run.loop.save_every and next(_jobs(study), None):
        raise InputError("loop.save_every is 0, so that no weights are there to be judged: give --run.loop.save-every")
    for config in study.finetune:
        _ = config.point  # a grid would give several lines to one place of the report
        check(config)
    mesh = make_mesh(study.run.mesh)
    for cell in cells:
        check_sizes(make_mesh(cell.run.mesh), [cell.run.loop.rows, *([] if cell.run.init else cell.run.model.sizes)])
    for model in _models(cells, mesh):
        for config in study.finetune:
            fits(config, model, mesh)
    if study.evaluate is not None:
        check_sizes(mesh, [(f"evaluate.batch {study.evaluate.batch}", study.evaluate.batch, "batch")])
        blimp.read(directory_of(study.evaluate.blimp), study.evaluate.pairs)


def _check_stores(cells: list[Cell]) -> None:
    """Refuse cells that share a token store and want other texts or tokenizers in it."""
    wanted: dict[str | None, dict[str, Any]] = {}
    for data in dict.fromkeys(cell.run.text for cell in cells):
        want = data.content()
        have = wanted.setdefault(data.store, want)
        if other := [key for key in want | have if want.get(key) != have.get(key)]:
            raise InputError(
                f"vary: the cells share a token store and differ in data.{other[0]}, which is one in a store: make a "
                "study of each"
            )


def _models(cells: list[Cell], mesh: jax.sharding.Mesh) -> list[EncoderConfig]:
    """The encoders of the cells, each once; one that a run goes on from is read to know it."""
    found = {}
    for run in (cell.run for cell in cells):
        if (run.init, run.model) not in found:
            with jax.set_mesh(mesh):
                found[run.init, run.model] = load(run.init, run.model).config if run.init else run.model
    return list(found.values())


def _needs_phrases(cells: list[Cell]) -> bool:
    """Whether a cell needs the phrases of the token store that they share, which has those of one list."""
    wanted = {cell.run.data.phrases for cell in cells if cell.run.needs_phrases}
    if len(wanted) > 1:
        raise InputError(
            f"the study's maskings want {len(wanted)} phrase lists, and a token store has one: make a study of each"
        )
    return bool(wanted)


def _identity(study: Study) -> dict[str, Any]:
    """What a folder's studies share: the base run but for what is varied. Values, seeds and tasks may be added."""
    plain = identity(study.run)
    for path in ("loop.seed", *(v.path for v in study.vary)):
        *parents, name = path.split(".")
        part = plain
        for parent in parents:
            part = part[parent]
        part.pop(name, None)
    return {**plain, "vary": [v.path for v in study.vary]}


def _share(study: Study, cells: list[Cell]) -> list[Cell]:
    """This machine's share of the pre-trainings, as `study.cells` says; equal ones are one."""
    part, parts = map(int, str(study.cells).split("/"))
    return [cell for cell in cells if original(cell, cells) is cell][part::parts]


def _run_cell(study: Study, cell: Cell, first: Cell, stage: str) -> None:
    if first is not cell:
        return
    pretrain(cell.run, f"{stage}pretrain")
    path = Path(cell.run.workdir) / "results.jsonl"
    done = hosts.broadcast_from_primary([list(_key(row)) for row in read_jsonl(path)])
    wanted = [job for job in _jobs(study) if list(job[0]) not in done]
    if not wanted:
        return
    mesh = make_mesh(study.run.mesh)
    with jax.set_mesh(mesh):
        loaded = load(cell.run.workdir)
        for key, config, seed in wanted:
            stop_before(f"{config.task if isinstance(config, Finetune) else key[1]} of {cell.name}")
            if isinstance(config, int | float):
                row = held_out(loaded, cell.run.data, config, mesh)
            elif isinstance(config, Evaluate):
                row = minimal_pairs(loaded, config, mesh)
            else:
                row = tune(loaded, config, seed, mesh, stage)
            append_results(path, [{**row, "settings": key[-1]}])


def _own_rates(study: Study) -> list[float]:
    """The rates that cells are trained at and that are not among the usual ones of the loss matrix."""
    rates = {cell.run.masking.rate for cell in cells_of(study) if not cell.control}
    return sorted(rates - set(HELD_OUT_RATES))


def _jobs(study: Study) -> Iterator[tuple[tuple, float | Evaluate | Finetune, int]]:
    """What every cell is judged by: a key that its line of results has, the configuration, the tuning seed.

    A rate is that of one more column of the loss matrix, which has each model's own.
    """
    for rate in _own_rates(study):
        yield ("heldout", f"mlm at {named(rate)}", None, None), rate, 0
    if study.evaluate is not None:
        yield ("blimp", "blimp", None, _settings(study.evaluate)), study.evaluate, 0
    for config in study.finetune:
        for seed in config.seeds:
            yield ("finetune", config.task_name, seed, settings(config)), config, seed


def _settings(config: Evaluate) -> str:
    plain = {key: value for key, value in describe(config).items() if key != "class"}
    return json.dumps(plain, sort_keys=True)


def _key(row: dict[str, Any]) -> tuple:
    return row["stage"], row["task"], row["tuning_seed"], row.get("settings")


def _keys(study: Study) -> list[tuple]:
    """The lines that every cell's results have when it is done."""
    return [
        ("pretrain", "mlm", None, None),
        ("heldout", "mlm", None, None),
        *(key for key, _, _ in _jobs(study)),
    ]


def _collect(study: Study, cells: list[Cell]) -> None:
    """Append to the study's results what its cells have and it has not."""
    path, keys = Path(study.workdir) / "results.jsonl", _keys(study)
    have = {(row["cell"], *_key(row)) for row in read_jsonl(path)}
    for cell in cells:
        where = {"cell": cell.name, "values": cell.values, "control": cell.control, "seed": cell.seed}
        if cell.control and cell.run.init:
            where["given"] = True  # it is no encoder of random weights
        found = read_jsonl(Path(original(cell, cells).run.workdir) / "results.jsonl")
        new = [row for row in found if _key(row) in keys and (cell.name, *_key(row)) not in have]
        append_results(path, [{**where, **row} for row in new])


def _describe(study: Study, cells: list[Cell], store: Store) -> None:
    """Write report.json: what the report says beside the numbers, and which lines of the results belong to it."""
    runs = [Path(cell.run.workdir) for cell in cells if original(cell, cells) is cell]
    made = [json.loads((folder / "run.json").read_text()) for folder in runs]
    page = {
        "title": titled(study),
        "note": " ".join(note for note in (study.note, _generated(study)) if note),
        "sentences": {label(c.values): preview(c.run.masking, store, study.sentence) for c in cells if not c.control},
        "origin": {
            "command": shlex.join(["jaxmlm", *sys.argv[1:]]),
            "commit": _distinct(one["git"] or "unknown" for one in made),
            "versions": _distinct(", ".join(f"{name} {v}" for name, v in one["versions"].items()) for one in made),
            "machine": _distinct(f"{one['device']}, Python {one['python']}" for one in made),
        },
        "keys": [[c.name, *key] for c in cells for key in _keys(study)],
        "logs": {c.name: str(Path("cells") / original(c, cells).name / "log.jsonl") for c in cells},
    }
    write_json(Path(study.workdir) / "report.json", page)


def titled(study: Study) -> str:
    """The title of a report, made from the text, the tokens and the encoder that are used."""
    run, tokens = study.run, training_tokens(study.run, study.assume) if not study.run.loop.budget else 0
    texts = ["the generated sample" if _is_generated(part) else part.rsplit("/", 1)[-1] for part in run.data.texts]
    size = f"{tokens / 1e6:.3g} M" if tokens >= 1e6 else f"{tokens / 1e3:.3g} k"
    made = {
        "{text}": " + ".join(texts),
        "{tokens}": f"{run.loop.budget} of" if run.loop.budget else size,
        "{encoder}": str(run.init) if run.init else f"{run.model.layers} x {run.model.width}",
    }
    title = study.title
    for name, value in made.items():
        title = title.replace(name, value)
    return title


def _is_generated(text: str) -> bool:
    return text.startswith("sample:")


def _generated(study: Study) -> str:
    return GENERATED if _is_generated(study.run.data.text) else ""


def _distinct(found: Iterable[str]) -> str:
    """What the cells say of where they were pre-trained; where they differ, how many say which.

    >>> _distinct(["a", "a"]), _distinct(["a", "b", "a"])
    ('a', 'a (2 cells); b (1 cell)')
    """
    counts = Counter(found)
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{said} ({n} cell{'s' if n > 1 else ''})" for said, n in counts.items())


def _draw(folder: Path) -> dict[str, Any]:
    page = json.loads((folder / "report.json").read_text())
    rows = [row for row in read_jsonl(folder / "results.jsonl") if [row["cell"], *_key(row)] in page["keys"]]
    origin = page["origin"] | {"work": _hours(sum(row["seconds"] or 0 for row in rows))}
    curves = {cell: _curve(folder / log) for cell, log in page["logs"].items()}
    sentences = {name: [(piece, state) for piece, state in pieces] for name, pieces in page["sentences"].items()}
    summary = reports.write(folder, reports.Report(page["title"], rows, curves, sentences, origin, page["note"]))
    console = Console(stderr=True)
    console.print(reports.table(rows))
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True)
    for sentence in summary["sentences"]:  # a line each, broken between words
        console.print(sentence, markup=False, highlight=False)
    return {"workdir": str(folder), "report": str(folder / "report.html"), **summary}


def _curve(path: Path) -> list[dict[str, Any]]:
    """The training losses of a log; a step that was done again after a kill counts once, the last time."""
    lines = {row["step"]: row for row in read_jsonl(path) if "eval" not in row}
    return [lines[step] for step in sorted(lines)]


def _plan(study: Study, cells: list[Cell]) -> dict[str, Any]:
    listed, often = [], _epochs(study, cells)
    for cell in cells:
        run = cell.run
        again = original(cell, cells) is not cell
        seconds = 0.0 if again else seconds_of(run, study.evaluate, study.finetune, study.assume)
        done = (Path(run.workdir) / "DONE").exists()
        found = {"tokens": training_tokens(run, study.assume), "epochs": often[cell.name]}
        listed.append({"cell": cell.name, **found, "estimated_seconds": round(seconds), "pretrained": done})
    total = sum(one["estimated_seconds"] for one in listed)
    columns = [
        Column("tokens", [f"{one['tokens']:,}" for one in listed]),
        Column("epochs", ["?" if one["epochs"] is None else f"{one['epochs']:,.1f}" for one in listed]),
        Column("about", [_hours(one["estimated_seconds"]) for one in listed]),
    ]
    if any(one["pretrained"] for one in listed):
        columns.append(Column("", ["pre-trained" if one["pretrained"] else "" for one in listed]))
    console = Console()
    console.print(Tables("", [Column("cell", [cell.name for cell in cells])], columns))
    machine = study.assume.name if study.assume else "this machine"
    said = f"{counted(len(cells), 'cell')}, about {_hours(total)} on {machine}"
    price = None
    if study.assume:
        hours = total / 3600 * study.assume.chips
        price = None if study.assume.price is None else hours * study.assume.price
        cost = "for a price give --assume.price, of a chip for an hour" if price is None else f"price {price:,.0f}"
        said += f": {hours:,.1f} chip-hours; {cost}"
    console.print(said, highlight=False)
    return {"cells": listed, "estimated_seconds": round(total), "machine": machine, "price": price}


def _epochs(study: Study, cells: list[Cell]) -> dict[str, float | None]:
    """How often each cell reads its text; refuses what is more than was asked for, as a budget asks by itself."""
    have = {run.data: epochs.size(run) for run in {cell.run.data: cell.run for cell in cells}.values()}
    found = {}
    for cell in cells:
        run = replace_path(cell.run, "most_epochs", None) if cell.run.loop.budget else cell.run
        tokens = training_tokens(run, study.assume)
        found[cell.name] = epochs.check(run, tokens, have[cell.run.data], "--run.most-epochs")
    return found


def _hours(seconds: int | float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.1f} min"
