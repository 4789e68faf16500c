"""Cells that another study has finished: copied under their new name, weights and results, and never trained twice."""

import shutil
from pathlib import Path

import pytest

from jaxmlm.data import Data
from jaxmlm.data.opening import open_store
from jaxmlm.errors import InputError
from jaxmlm.fields import replace_path
from jaxmlm.masking import Masking
from jaxmlm.models import EncoderConfig
from jaxmlm.runs import Evaluation, Run, evaluate, pretrain
from jaxmlm.studies import Study, Vary, run_study
from jaxmlm.studies.grid import Cell, cells_of
from jaxmlm.studies.reuse import finished_elsewhere
from jaxmlm.studies.study import ROWS
from jaxmlm.synthetic import world
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


def write_text(path: Path, seed: int) -> None:
    """A text of 200 documents."""
    path.write_text("\n\n".join(world.documents(seed, 200)))


@pytest.fixture
def of_a_file(finished, tmp_path) -> Study:
    """A study of a text file, with its own token store."""
    write_text(tmp_path / "my.txt", 0)
    study = replace_path(finished, "run.data.text", str(tmp_path / "my.txt"))
    study = replace_path(study, "control", False)
    return replace_path(study, "workdir", str(tmp_path / "mine"))


def test_a_cell_of_another_text_of_the_same_path_is_not_copied(of_a_file, tmp_path):
    """The configuration says only where the text is; run.json says which it was."""
    run_study(of_a_file)
    again = replace_path(of_a_file, "reuse", (of_a_file.workdir,))
    alike = run_study(replace_path(again, "workdir", str(tmp_path / "alike")))
    assert alike["missing"] == []
    write_text(tmp_path / "my.txt", 1)
    run_study(replace_path(again, "workdir", str(tmp_path / "changed")))
    logs = [(tmp_path / name / "cells" / CELL / "log.jsonl").read_text() for name in ("mine", "alike", "changed")]
    assert logs[0] == logs[1] != logs[2]


def test_a_report_says_that_its_rows_are_of_different_lengths(finished, tmp_path):
    study = replace_path(finished, "vary", (Vary("data.length", (16, 24)),))
    study = replace_path(study, "run.data.store", str(Path(finished.workdir) / "store"))
    study = replace_path(replace_path(study, "control", False), "workdir", str(tmp_path / "lengths"))
    run_study(study)
    assert ROWS in (tmp_path / "lengths" / "report.html").read_text()
    assert ROWS not in (Path(finished.workdir) / "report.html").read_text()


def test_a_study_whose_text_has_changed_is_refused(of_a_file, tmp_path):
    """Else seeds of two texts were averaged: the store is made again when it is deleted."""
    run_study(of_a_file)
    write_text(tmp_path / "my.txt", 1)
    shutil.rmtree(Path(of_a_file.workdir) / "store")
    before = (Path(of_a_file.workdir) / "results.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"holds a run of another text, tokenizer or phrase list than"):
        run_study(replace_path(of_a_file, "seeds", (0, 1)))
    assert (Path(of_a_file.workdir) / "results.jsonl").read_bytes() == before
    write_text(tmp_path / "my.txt", 0)
    shutil.rmtree(Path(of_a_file.workdir) / "store")
    run_study(replace_path(of_a_file, "seeds", (0, 1)))


def test_a_run_whose_text_has_changed_is_not_resumed(of_a_file, tmp_path):
    run = replace_path(of_a_file.run, "workdir", str(tmp_path / "run"))
    pretrain(run)
    for name in ("DONE", "results.jsonl"):
        (tmp_path / "run" / name).unlink()
    write_text(tmp_path / "my.txt", 1)
    shutil.rmtree(tmp_path / "run" / "store")
    tokenizer = (tmp_path / "run" / "tokenizer.model").read_bytes()
    with pytest.raises(InputError, match=r"another text, tokenizer or phrase list than the token store"):
        pretrain(run)
    assert (tmp_path / "run" / "tokenizer.model").read_bytes() == tokenizer


def test_what_another_text_holds_out_is_not_what_a_run_held_out(of_a_file, tmp_path):
    """Even with the same tokenizer: the run may have been trained on it."""
    run = replace_path(of_a_file.run, "workdir", str(tmp_path / "run"))
    pretrain(run)
    write_text(tmp_path / "my.txt", 1)
    shutil.rmtree(tmp_path / "run" / "store")
    open_store(replace_path(run, "data.tokenizer", str(tmp_path / "run")).data, tmp_path / "run")
    with pytest.raises(InputError, match="has another text than the model in"):
        evaluate(str(tmp_path / "run"), Evaluation(text="heldout:", rows=0, batch=32))
