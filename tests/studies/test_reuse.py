"""Cells that another study has finished: copied under their new name, weights and results, and never trained twice."""

from pathlib import Path

import pytest

from jaxmlm.data import Data
from jaxmlm.masking import Masking
from jaxmlm.models import EncoderConfig
from jaxmlm.paths import replace_path
from jaxmlm.runs import Run
from jaxmlm.studies import Study, Vary, run_study
from jaxmlm.studies.grid import Cell, cells_of
from jaxmlm.studies.reuse import finished_elsewhere
from jaxmlm.training import Loop

CELL = "rate=0.15,seed=0"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Study:
    """A study of one rate and the control."""
    model = EncoderConfig(layers=1, width=16, heads=2, max_positions=32, dropout=0.0, attention_dropout=0.0)
    run = Run(data=Data("sample:200", vocab=400, length=24, valid=0.1), model=model, loop=Loop(2, 8, save_every=2))
    study = Study(str(tmp_path_factory.mktemp("rates")), run=run, vary=(Vary("masking.rate", (0.15,)),), bound=None)
    run_study(study)
    return study


@pytest.fixture
def other(finished, tmp_path) -> Study:
    """A study that calls the same cells by other names, with a token store that is there already."""
    other = replace_path(finished, "workdir", str(tmp_path / "other"))
    other = replace_path(other, "run.data.store", str(Path(finished.workdir) / "store"))
    return replace_path(other, "vary", (Vary("masking", (Masking(0.15),), ("few",)),))


def test_a_cell_that_another_study_has_finished_is_copied_from_there(finished, other, tmp_path, capsys):
    """And a dry run counts nothing of it."""
    before = run_study(other, dry_run=True)
    assert not any(cell["pretrained"] for cell in before["cells"]) and before["estimated_seconds"] > 0
    capsys.readouterr()
    other = replace_path(other, "reuse", (str(tmp_path / "absent"), finished.workdir))
    plan = run_study(other, dry_run=True)
    assert all(cell["pretrained"] for cell in plan["cells"]) and plan["estimated_seconds"] == 0
    assert "2 cells, about 0.0 min for what is left on this machine" in " ".join(capsys.readouterr().out.split())
    run_study(other)
    assert f"[1/2] masking=few seed=0: pretrain: finished in {finished.workdir}/cells/{CELL}" in capsys.readouterr().out
    here, there = (Path(study.workdir) / "cells" for study in (other, finished))
    for name in ("log.jsonl", "results.jsonl", "run.json"):
        assert (here / "masking=few,seed=0" / name).read_bytes() == (there / CELL / name).read_bytes()
    assert '"masking": "few"' in (Path(other.workdir) / "results.jsonl").read_text()


def begun(cell: Cell) -> None:
    Path(cell.run.workdir).mkdir(parents=True)
    (Path(cell.run.workdir) / "run.json").write_text("{}")


def test_a_cell_that_was_begun_or_is_another_run_is_not_copied(finished, other):
    cell, control = cells_of(other)
    studies = (finished.workdir,)
    assert finished_elsewhere(cell, studies) == Path(finished.workdir) / "cells" / CELL
    assert finished_elsewhere(control, studies) == Path(finished.workdir) / "cells" / "control,seed=0"
    for path, value in (("run.loop.steps", 3), ("seeds", (1,)), ("run.model.width", 32)):
        assert finished_elsewhere(cells_of(replace_path(other, path, value))[0], studies) is None
    begun(cell)
    assert finished_elsewhere(cell, studies) is None


def test_a_cell_that_is_not_finished_there_is_not_copied(finished, other):
    done = Path(finished.workdir) / "cells" / CELL / "DONE"
    done.unlink()
    assert finished_elsewhere(cells_of(other)[0], (finished.workdir,)) is None
    done.touch()


def test_a_kill_while_copying_leaves_a_cell_that_is_copied_again(finished, other, monkeypatch):
    """Not one that looks finished, or that is resumed from half a checkpoint."""
    other = replace_path(other, "reuse", (finished.workdir,))
    with monkeypatch.context() as patched:
        patched.setattr("jaxmlm.studies.reuse.write_text", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_study(other)
    cell = cells_of(other)[0]
    assert (Path(cell.run.workdir) / "checkpoints").is_dir() and not (Path(cell.run.workdir) / "DONE").exists()
    run_study(other)
    assert (Path(cell.run.workdir) / "DONE").exists()
