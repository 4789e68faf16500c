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
from jaxmlm.errors import InputError
from jaxmlm.masking import Phrases
from jaxmlm.models import EncoderConfig
from jaxmlm.parallel import check_sizes, hosts, make_mesh
from jaxmlm.paths import describe, replace_path, to_json
from jaxmlm.preemption import stop_before, stoppable
from jaxmlm.studies import report as reports
from jaxmlm.studies.estimate import seconds_of, tokens_of
from jaxmlm.studies.evaluate import Evaluate, minimal_pairs
from jaxmlm.studies.finetune import Finetune, check, fits, settings, tune
from jaxmlm.studies.grid import Cell, Study, cells_of, original
from jaxmlm.studies.statistics import label
from jaxmlm.tasks import blimp
from jaxmlm.tasks.downstream import folder_of
from jaxmlm.tasks.phrases import phrases_of
from jaxmlm.tasks.run import (
    Run,
    append_rows,
    claim,
    identity,
    load,
    pretrain,
    read_rows,
    unclaimed,
)
from jaxmlm.tasks.shown import shown
from jaxmlm.tasks.texts import open_store


@stoppable()
def run_study(study: Study, dry_run: bool = False) -> dict[str, Any]:
    """Run what is not finished of a study, and write its report; `dry_run` lists the cells and their cost instead."""
    folder, cells = Path(study.workdir), cells_of(study)
    if dry_run:
        return _plan(study, cells if study.cells is None else _share(study, cells))
    hosts.agree("configurations", describe(replace_path(study, "run.data.store", None)))
    stop_before("anything was begun")
    _check(study, cells)
    hosts.share(folder)
    store = open_store(cells[0].run.text, folder, phrases=_phrases(cells))
    claim(folder, "study.json", _identity(study), {"config": describe(study)})
    if study.cells is not None:
        mine = _share(study, cells)
        for number, cell in enumerate(mine, 1):
            _run_cell(study, cell, cell, f"[{number}/{len(mine)} of {study.cells}] {cell.name.replace(',', ' ')}: ")
        return {"workdir": str(folder), "cells": [cell.name for cell in mine]}
    for number, cell in enumerate(cells, 1):
        _run_cell(study, cell, original(cell, cells), f"[{number}/{len(cells)}] {cell.name.replace(',', ' ')}: ")
        _collect(study, cells)
    if not hosts.speaks():
        return {"workdir": str(folder)}
    _describe(study, cells, store)
    return _draw(folder)


def store_run(study: Study) -> Run:
    """The run by which `prepare` makes the study's store; of a cell with phrases, if one wants them."""
    cells = cells_of(study)
    _phrases(cells)
    run = next((cell.run for cell in cells if phrases_of(cell.run.masking)), cells[0].run)
    return replace_path(run, "workdir", study.workdir)


def report(workdir: str) -> dict[str, Any]:
    """Draw the report of a study's folder again, from what its last run left there."""
    if not (Path(workdir) / "report.json").is_file():
        raise InputError(f"{workdir} holds no study with results (no report.json): give the --workdir of a study")
    return _draw(Path(workdir))


def _check(study: Study, cells: list[Cell]) -> None:
    """Everything that can be wrong, before anything that takes long; nothing on disk is changed."""
    unclaimed(Path(study.workdir), "study.json", _identity(study))
    for cell in cells:
        unclaimed(Path(cell.run.workdir), "run.json", identity(cell.run))
    _phrases(cells)
    _check_stores(cells)
    if not study.run.loop.save_every and (study.finetune or study.evaluate):
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
        blimp.read(folder_of(study.evaluate.blimp), study.evaluate.pairs)


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


def _phrases(cells: list[Cell]) -> Phrases | None:
    """The phrase list that the cells need: they share a store, which has the units of one list."""
    wanted = {phrases_of(cell.run.masking) for cell in cells} - {None}
    if len(wanted) > 1:
        raise InputError(
            f"the study's maskings want {len(wanted)} phrase lists, and a token store has one: make a study of each"
        )
    return wanted.pop() if wanted else None


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
    done = hosts.told_by_first([list(_key(row)) for row in read_rows(path)])
    wanted = [job for job in _jobs(study) if list(job[0]) not in done]
    if not wanted:
        return
    mesh = make_mesh(study.run.mesh)
    with jax.set_mesh(mesh):
        loaded = load(cell.run.workdir)
        for key, config, seed in wanted:
            stop_before(f"{config.task if isinstance(config, Finetune) else 'the minimal pairs'} of {cell.name}")
            if isinstance(config, Evaluate):
                row = minimal_pairs(loaded, config, mesh)
            else:
                row = tune(loaded, config, seed, mesh, stage)
            append_rows(path, [{**row, "settings": key[-1]}])


def _jobs(study: Study) -> Iterator[tuple[tuple, Evaluate | Finetune, int]]:
    """What every cell is judged by: a key that its line of results has, the configuration, the tuning seed."""
    if study.evaluate is not None:
        yield ("blimp", "blimp", None, _settings(study.evaluate)), study.evaluate, 0
    for config in study.finetune:
        for seed in config.seeds:
            yield ("finetune", config.task, seed, settings(config)), config, seed


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
    have = {(row["cell"], *_key(row)) for row in read_rows(path)}
    for cell in cells:
        where = {"cell": cell.name, "values": cell.values, "control": cell.control, "seed": cell.seed}
        if cell.control and cell.run.init:
            where["given"] = True  # it is no encoder of random weights
        found = read_rows(Path(original(cell, cells).run.workdir) / "results.jsonl")
        new = [row for row in found if _key(row) in keys and (cell.name, *_key(row)) not in have]
        append_rows(path, [{**where, **row} for row in new])


def _describe(study: Study, cells: list[Cell], store: Store) -> None:
    """Write report.json: what the report says beside the numbers, and which lines of the results belong to it."""
    runs = [Path(cell.run.workdir) for cell in cells if original(cell, cells) is cell]
    made = [json.loads((folder / "run.json").read_text()) for folder in runs]
    page = {
        "title": study.title,
        "note": study.note,
        "sentences": {label(c.values): shown(c.run.masking, store, study.sentence) for c in cells if not c.control},
        "origin": {
            "command": shlex.join(["jaxmlm", *sys.argv[1:]]),
            "commit": _distinct(one["git"] or "unknown" for one in made),
            "versions": _distinct(", ".join(f"{name} {v}" for name, v in one["versions"].items()) for one in made),
            "machine": _distinct(f"{one['device']}, Python {one['python']}" for one in made),
        },
        "keys": [[c.name, *key] for c in cells for key in _keys(study)],
        "logs": {c.name: str(Path("cells") / original(c, cells).name / "log.jsonl") for c in cells},
    }
    (Path(study.workdir) / "report.json").write_text(to_json(page, indent=1) + "\n")


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
    rows = [row for row in read_rows(folder / "results.jsonl") if [row["cell"], *_key(row)] in page["keys"]]
    origin = page["origin"] | {"work": _hours(sum(row["seconds"] or 0 for row in rows))}
    curves = {cell: _curve(folder / log) for cell, log in page["logs"].items()}
    sentences = {name: [(piece, state) for piece, state in pieces] for name, pieces in page["sentences"].items()}
    summary = reports.write(folder, reports.Report(page["title"], rows, curves, sentences, origin, page["note"]))
    console = Console(stderr=True)
    console.print(reports.table(rows))
    console.print(f"report: {folder / 'report.html'}\n{summary['verdict']}", soft_wrap=True)
    return {"workdir": str(folder), "report": str(folder / "report.html"), **summary}


def _curve(path: Path) -> list[dict[str, Any]]:
    """The training losses of a log; a step that was done again after a kill counts once, the last time."""
    lines = {row["step"]: row for row in read_rows(path) if "eval" not in row}
    return [lines[step] for step in sorted(lines)]


def _plan(study: Study, cells: list[Cell]) -> dict[str, Any]:
    listed, total = [], 0.0
    for cell in cells:
        run = cell.run
        again = original(cell, cells) is not cell
        seconds = 0.0 if again else seconds_of(run, study.evaluate, study.finetune, study.assume)
        done = (Path(run.workdir) / "DONE").exists()
        tokens = tokens_of(run, study.assume)
        listed.append({"cell": cell.name, "tokens": tokens, "estimated_seconds": round(seconds), "pretrained": done})
        total += seconds
        print(f"{cell.name:40} {tokens:>16,} tokens  about {_hours(seconds):>8}{'  pre-trained' if done else ''}")
    machine = study.assume.name if study.assume else "this machine"
    print(f"{len(cells)} cells, about {_hours(total)} on {machine}")
    return {"cells": listed, "estimated_seconds": round(total), "machine": machine}


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.1f} min"
