"""The main job: the same encoder pre-trained under several settings, evaluated alike, in one report.

    WORKDIR/study.json  store/  cells/NAME/ (a run each)  results.jsonl  report.json  report.html

A cell is one combination of the varied values and one seed. Everything that is finished is found again: a study that
was killed is resumed, one that is done only draws its report anew, and values, seeds and tasks can be added; a cell
that another study of `reuse` has finished is copied from there. A cell whose pre-training diverges is named in the
report and does not stop the others.
"""

import shlex
import sys
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from jaxmlm.data import Store
from jaxmlm.data.opening import open_store
from jaxmlm.data.sources import files
from jaxmlm.directories import expanded
from jaxmlm.errors import Diverged, InputError
from jaxmlm.fields import describe, replace_path
from jaxmlm.json_files import read_json, with_checksum, without_checksum, write_json
from jaxmlm.logs import read_log
from jaxmlm.models import EncoderConfig
from jaxmlm.parallel import check_sizes, hosts, make_mesh
from jaxmlm.preemption import raise_if_all_hosts_stop, stoppable
from jaxmlm.runs.evaluation import Bound, held_out, held_out_bound
from jaxmlm.runs.finetune_config import Finetune
from jaxmlm.runs.finetuning import check, fits, tune
from jaxmlm.runs.layer_probes import Probes, check_probes, probe
from jaxmlm.runs.loading import load
from jaxmlm.runs.pretraining import pretrain
from jaxmlm.runs.preview import Piece, preview
from jaxmlm.runs.results import Result
from jaxmlm.runs.run import Run, identity
from jaxmlm.runs.text_of_run import check_text, text_of
from jaxmlm.runs.workdir import append_results, check_workdir, claim_workdir, read_metadata, write_metadata
from jaxmlm.runs.zero_shot import BabyLM, ZeroShot, check_sentences, zero_shot
from jaxmlm.studies import dry_run as dry_runs
from jaxmlm.studies.examples import Examples, check_examples, examples_of
from jaxmlm.studies.grid import Cell, Study, cells_of, original
from jaxmlm.studies.jobs import jobs, key_of, keys, results_of
from jaxmlm.studies.labels import label_of
from jaxmlm.studies.results import CellResult, collect, read_cell_results
from jaxmlm.studies.reuse import take_over
from jaxmlm.studies.score_table import terminal_table
from jaxmlm.studies.summary import summarise
from jaxmlm.studies.titles import distinct, is_generated, titled
from jaxmlm.tasks import downstream

GENERATED = "The text is generated: this exercises the whole pipeline and is no evidence about masking rates."
"""Stands at the top of a report whose text is generated."""

UNITS = (
    "The cells mask different units, and the bound, the held-out losses and BLiMP mask single tokens, which favours "
    "encoders that were trained so. Compare units by fine-tuning or by probes."
)
"""Stands there where tokens are compared with words, spans or phrases."""

ROWS = (
    "The cells are trained and evaluated on rows of different lengths or formats. So their held-out losses, and where "
    "lengths differ the bound, are of different rows, and longer rows show more context. Compare rows by BLiMP, "
    "fine-tuning or probes."
)
"""Stands there where rows differ in length or format."""


@stoppable()
def run_study(study: Study, dry_run: bool = False) -> dict[str, Any]:
    """Run what is not finished of a study, and write its report.

    Args:
        study: the study.
        dry_run: list the cells and their cost instead.

    Returns:
        {"workdir", "report": its path} and the numbers (`studies.summary`); of a share of the cells {"workdir",
        "cells"}; of a dry run what `studies.dry_run` returns.

    Raises:
        InputError: a part of the study is wrong; then nothing was written.

    """
    directory = Path(study.workdir)
    cells = cells_of(study)
    if dry_run:
        return dry_runs.dry_run(study, cells if study.cells is None else _share(study, cells))
    downstream.forget()  # the files of tasks may have changed since
    hosts.assert_same("configurations", describe(replace_path(study, "run.data.store", None)))
    raise_if_all_hosts_stop("before anything was begun")
    _check(study, cells)
    if study.cells is not None:  # machines that share a study hold its cells one by one
        return _run(study, cells)
    with claim_workdir(directory, "study"):
        check_workdir(directory, "study.json", _identity(study))  # another command may have begun one meanwhile
        return _run(study, cells)


def _run(study: Study, cells: list[Cell]) -> dict[str, Any]:
    """Run the cells, in a directory that this command holds unless it shares it."""
    directory = Path(study.workdir)
    hosts.check_shared_directory(directory)
    examples = examples_of(study)
    hosts.assert_same("examples of tasks", {key.task: sha256 for key, sha256 in examples.items()}, hosts.SAME_FILES)
    check_examples(study, cells, examples)
    store = open_store(cells[0].run.text, directory, phrases=_needs_phrases(cells))
    hosts.assert_same("texts", text_of(store, _needs_phrases(cells)), hosts.SAME_FILES)
    for cell in cells:
        check_text(Path(cell.run.workdir), store, cell.run.needs_phrases)
    write_metadata(directory, "study.json", _identity(study), {"config": describe(study)})
    if study.cells is not None:
        share = _share(study, cells)
        if not share and hosts.is_primary():
            print(f"note: share {study.cells} has none of the {len(cells)} cells", file=sys.stderr, flush=True)
        for number, cell in enumerate(share, 1):
            stage = f"[{number}/{len(share)} of {study.cells}] {cell.name.replace(',', ' ')}: "
            _run_cell(study, cell, store, examples, stage)
        return {"workdir": str(directory), "cells": [cell.name for cell in share]}
    for number, cell in enumerate(cells, 1):
        if original(cell, cells) is cell:
            _run_cell(study, cell, store, examples, f"[{number}/{len(cells)}] {cell.name.replace(',', ' ')}: ")
        _collect_results(study, cells)
    if not hosts.is_primary():
        return {"workdir": str(directory)}
    _write_report_json(study, cells, store)
    return _draw(directory)


def store_run(study: Study) -> Run:
    """The run by which `prepare` makes the study's store; of a cell with phrases, if one wants them."""
    cells = cells_of(study)
    _needs_phrases(cells)
    run = next((cell.run for cell in cells if cell.run.needs_phrases), cells[0].run)
    return replace_path(run, "workdir", study.workdir)


def report(workdir: str, markdown: bool = False) -> dict[str, Any]:
    """Draw the report of a study's directory again, from what its last run left there.

    Args:
        workdir: directory of the study: report.json, results.jsonl, and the logs of its cells if they are there.
        markdown: also write report.md, which says the same, and figures/*.png.

    """
    directory = expanded(workdir)
    if not directory.is_dir():
        raise InputError(f"{workdir} is missing: give the --workdir of a study")
    if not (directory / "report.json").is_file():
        raise InputError(f"{workdir} has no results of a study (no report.json): give the --workdir of a study")
    return _draw(directory, markdown)


def _check(study: Study, cells: list[Cell]) -> None:
    """Everything that can be wrong, before anything that takes long; nothing on disk is changed."""
    check_workdir(Path(study.workdir), "study.json", _identity(study))
    for cell in cells:
        check_workdir(Path(cell.run.workdir), "run.json", identity(cell.run))
    _needs_phrases(cells)
    _check_stores(cells)
    dry_runs.check_epochs(study, [cell for cell in cells if not cell.run.loop.budget])
    if not study.run.loop.save_every and next(jobs(study), None):
        raise InputError("loop.save_every is 0, so there are no weights to evaluate: give --run.loop.save-every")
    if study.general:
        files(study.general)
    for config in study.finetune:
        _ = config.point  # raises: a grid would give several results to one place of the report
        check(config)
    mesh = make_mesh(study.run.mesh)
    for cell in cells:
        check_sizes(mesh.shape, cell.run.sizes)  # cells do not differ in their mesh
    for model in _models(cells, mesh):
        for config in study.finetune:
            fits(config, model, mesh)
    if study.zero_shot is not None:
        check_sizes(mesh.shape, [("zero_shot.batch", study.zero_shot.batch, "batch")])
        check_sentences(study.zero_shot)
    if study.probes is not None:
        check_probes(study.probes.treebank)


def _check_stores(cells: list[Cell]) -> None:
    """Refuse cells that share a token store and want other texts or tokenizers in it."""
    wanted: dict[str | None, dict[str, Any]] = {}
    for data in dict.fromkeys(cell.run.text for cell in cells):
        want = data.content()
        have = wanted.setdefault(data.store, want)
        if other := [key for key in want | have if want.get(key) != have.get(key)]:
            raise InputError(
                f"vary: the cells share a token store and differ in data.{other[0]}, of which a store has one: make a "
                "study of each"
            )


def _models(cells: list[Cell], mesh: jax.sharding.Mesh) -> list[EncoderConfig]:
    """The encoders of the cells, each once; one from which a run continues is read to know it."""
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
    """What the studies of one directory share: the base run but for what is varied.

    Values, seeds and tasks may be added.
    """
    plain = identity(study.run)
    varied = [axis.path for axis in study.vary]
    for path in ("loop.seed", *varied):
        *parents, name = path.split(".")
        part = plain
        for parent in parents:
            part = part.get(parent, {})  # phrases, of a base run that needs none
        part.pop(name, None)
    return {**plain, "vary": varied}


def _share(study: Study, cells: list[Cell]) -> list[Cell]:
    """This machine's share of the pre-trainings, as `study.cells` says; equal ones are one."""
    share, shares = map(int, str(study.cells).split("/"))
    return [cell for cell in cells if original(cell, cells) is cell][share::shares]


def _run_cell(study: Study, cell: Cell, store: Store, examples: Examples, stage: str) -> None:
    """Pre-train a cell and evaluate it, but for what is done; `stage` begins its lines of progress."""
    with claim_workdir(Path(cell.run.workdir), "run"):
        take_over(cell, study.reuse, store, examples, f"{stage}pretrain")
        _run_claimed(study, cell, examples, stage)


def _run_claimed(study: Study, cell: Cell, examples: Examples, stage: str) -> None:
    """Run a cell in a directory that this command holds."""
    path = Path(cell.run.workdir) / "results.jsonl"
    if not _pretrained(cell, path, f"{stage}pretrain"):
        return
    done = hosts.broadcast_from_primary([list(key_of(result)) for result in results_of(cell.run.workdir)])
    missing = [job for job in jobs(study) if list(job.key) not in done]
    if not missing:
        return
    mesh = make_mesh(study.run.mesh)
    with jax.set_mesh(mesh):
        loaded = load(cell.run.workdir)
        for key, what in missing:
            raise_if_all_hosts_stop(f"before {what.task if isinstance(what, Finetune) else key.task} of {cell.name}")
            if isinstance(what, Bound):
                line = held_out_bound(loaded, cell.run.data, what, mesh)
            elif isinstance(what, ZeroShot | BabyLM):
                line = zero_shot(loaded, what, mesh)
            elif isinstance(what, Probes):
                line = probe(loaded, what, mesh)
            elif isinstance(what, Finetune):
                line = tune(loaded, what, key.tuning_seed or 0, mesh, stage)
            else:
                line = held_out(loaded, cell.run.data, what, mesh)
            line |= {"settings": key.settings} | ({"examples": examples[key]} if key in examples else {})
            append_results(path, [line])


def _pretrained(cell: Cell, path: Path, stage: str) -> bool:
    """Pre-train a cell; False if it diverges, which is a result of the study, and not its end."""
    known = [result.diverged for result in results_of(cell.run.workdir) if result.has_no_model]
    why = hosts.broadcast_from_primary(known[0] if known else None)
    if why is None:
        try:
            pretrain(cell.run, stage)
            return True
        except Diverged as error:
            why = error.why
            append_results(path, [Result("pretrain", "mlm", diverged=why).to_json()])
    if hosts.is_primary():
        print(f"{stage}: diverged ({why}): this cell is left out", file=sys.stderr, flush=True)
    return False


def _collect_results(study: Study, cells: list[Cell]) -> None:
    """Append to the study's results those of its cells that are not there yet."""
    path = Path(study.workdir) / "results.jsonl"
    wanted = keys(study)
    have = {(result.cell, key_of(result)) for result in read_cell_results(path)}
    for cell in cells:
        new = [
            CellResult(
                **result.to_json(),
                cell=cell.name,
                values=cell.values,
                control=cell.control,
                seed=cell.seed,
                given=True if cell.control and cell.run.init else None,
            )
            for result in results_of(original(cell, cells).run.workdir)
            if key_of(result) in wanted and (cell.name, key_of(result)) not in have
        ]
        append_results(path, [result.to_json() for result in new])


def _write_report_json(study: Study, cells: list[Cell], store: Store) -> None:
    """Write report.json: what the report says beside the numbers, and which lines of the results belong to it."""
    trained = [Path(cell.run.workdir) for cell in cells if original(cell, cells) is cell]
    metadata = [read_metadata(directory / "run.json") for directory in trained]
    versions = [", ".join(f"{name} {version}" for name, version in one["versions"].items()) for one in metadata]
    sentences = {
        label_of(cell.values): preview(cell.run.masking, store, study.sentence) for cell in cells if not cell.control
    }
    units = {type(cell.run.masking.units) for cell in cells if not cell.control}
    rows = {(cell.run.data.length, cell.run.data.format) for cell in cells if not cell.control}
    notes = [
        study.note,
        GENERATED if is_generated(study.run.data.text) else "",
        UNITS if len(units) > 1 else "",
        ROWS if len(rows) > 1 else "",
    ]
    content = {
        "title": titled(study),
        "note": " ".join(note for note in notes if note),
        "sentences": sentences,
        "origin": {
            "command": shlex.join(["jaxmlm", *sys.argv[1:]]),
            "commit": distinct(one["git"] or "unknown" for one in metadata),
            "versions": distinct(versions),
            "machine": distinct(f"{one['device']}, Python {one['python']}" for one in metadata),
        },
        "keys": [[cell.name, *key] for cell in cells for key in keys(study)],
        "logs": {cell.name: str(Path("cells") / original(cell, cells).name / "log.jsonl") for cell in cells},
    }
    write_json(Path(study.workdir) / "report.json", with_checksum(content))


def _draw(directory: Path, markdown: bool = False) -> dict[str, Any]:
    """Write report.html, and report.md if asked, print the table and the verdict, and return the numbers."""
    # Here, because a worker that draws no report needs no matplotlib, which takes a second to import.
    from jaxmlm.studies.content import Report
    from jaxmlm.studies.markdown import write_markdown
    from jaxmlm.studies.page import write_page

    path = directory / "report.json"
    content = without_checksum(read_json(path, "what the last run of the study wrote there"), path)
    if absent := {"title", "note", "sentences", "origin", "keys", "logs"} - content.keys():
        raise InputError(f"{path} has no {min(absent)}: run the study again, which writes it anew")
    keys = content["keys"]
    lines = read_cell_results(directory / "results.jsonl")
    results = collect(result for result in lines if [result.cell, *key_of(result)] in keys)
    seconds = sum(result.seconds or 0.0 for result in results.results)
    report = Report(
        title=content["title"],
        results=results,
        curves={cell: _curve(directory / log) for cell, log in content["logs"].items()},
        sentences={label: [Piece(*piece) for piece in pieces] for label, pieces in content["sentences"].items()},
        provenance=content["origin"] | {"work": dry_runs.duration(seconds)},
        note=content["note"],
    )
    path = write_page(directory, report)
    document = write_markdown(directory, report) if markdown else None
    summary = summarise(results)
    console = Console(stderr=True)
    console.print(terminal_table(results))
    console.print(f"report: {path}", soft_wrap=True, markup=False)
    if document:
        console.print(f"        {document}", soft_wrap=True, markup=False)
    for sentence in summary["sentences"]:  # a line each, broken between words
        console.print(sentence, markup=False, highlight=False)
    return {"workdir": str(directory), "report": str(path), **summary}


def _curve(path: Path) -> list[dict[str, Any]]:
    """The training and the held-out losses of a log; lines of the latter get the tokens of their step.

    A step that was done again after a kill counts once, the last time.
    """
    log = read_log(path)
    training = {line["step"]: line for line in log if "eval" not in line and {"loss", "tokens"} <= line.keys()}
    if not training:
        return []
    last = max(training)
    tokens = training[last]["tokens"] / max(last, 1)  # a log has no checksum, and may say anything
    held_out = {line["step"]: line | {"tokens": tokens * line["step"]} for line in log if line.get("eval") == "heldout"}
    return [lines[step] for lines in (training, held_out) for step in sorted(lines)]
