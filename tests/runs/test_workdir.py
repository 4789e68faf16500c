"""The directory of a run: one command at a time, results once however often it is killed, damaged files."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from jaxmlm import locks
from jaxmlm.data import Data
from jaxmlm.data.opening import store_directory
from jaxmlm.errors import InputError
from jaxmlm.json_files import read_jsonl
from jaxmlm.locks import claim
from jaxmlm.models import EncoderConfig
from jaxmlm.runs import Finetune, finetune
from jaxmlm.runs.comparison import compare
from jaxmlm.runs.conversion import check_import, export
from jaxmlm.runs.loading import load, put_back, save
from jaxmlm.runs.pretraining import pretrain
from jaxmlm.runs.results import Result, read_results
from jaxmlm.runs.run import Run, identity
from jaxmlm.runs.suite import finetune_all
from jaxmlm.runs.workdir import append_results, read_metadata
from jaxmlm.studies import Study
from jaxmlm.tasks import blimp
from jaxmlm.training import Loop


@contextmanager
def held_by_another(directory: Path) -> Iterator[None]:
    """A directory that another thread holds, as another process would."""
    with ThreadPoolExecutor(1) as pool:
        held = claim(directory, "run")
        pool.submit(held.__enter__).result()
        try:
            yield
        finally:
            pool.submit(held.__exit__, None, None, None).result()


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[Run, list]:
    """A run of two steps, and its results."""
    directory = tmp_path_factory.mktemp("workdir")
    run = Run(
        str(directory / "run"),
        data=Data("sample:200", store=str(directory / "store"), vocab=400, length=24, valid=0.1),
        model=EncoderConfig(layers=1, width=16, heads=2, max_positions=32),
        loop=Loop(2, 8, save_every=2, log_every=1),
    )
    return run, pretrain(run)["rows"]


def files_in(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_run_in_use_is_refused_and_not_touched(done, tmp_path):
    run = replace(done[0], workdir=str(tmp_path / "run"))
    with held_by_another(tmp_path / "run"):
        before = files_in(tmp_path)
        with pytest.raises(InputError, match=r"run is in use: process \d+ on .* works on this run since"):
            pretrain(run)
        assert files_in(tmp_path) == before
    assert pretrain(run)["rows"][1] == done[1][1]
    with held_by_another(tmp_path / "run"):  # what is finished is read at any time
        assert pretrain(run)["rows"][1] == done[1][1]


def test_a_fine_tuning_in_use_is_refused(done, tmp_path):
    config = Finetune("cola", "sample:", length=24, workdir=str(tmp_path / "all" / "cola"))
    with held_by_another(tmp_path / "all" / "cola"), pytest.raises(InputError, match="is in use"):
        finetune(done[0].workdir, config)
    second = replace(config, task="rte", workdir=str(tmp_path / "all" / "rte"))
    with held_by_another(tmp_path / "all"), pytest.raises(InputError, match="all is in use"):
        finetune_all(done[0].workdir, [config, second])
    assert not list(tmp_path.iterdir())


def test_what_a_later_classifier_reads_makes_another_run():
    """A study may vary it. Runs that were written before `model.pool` was an option resume."""
    run = Run()
    assert identity(replace(run, model=replace(run.model, pool="mean"))) != identity(run)
    assert "pool" not in identity(run)["model"]


def test_a_tilde_is_the_home_directory(done, tmp_path, monkeypatch):
    """Whoever writes it: a shell does not expand the one of --workdir=~/runs/a, nor does Python."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert Run(workdir="~/runs/a").workdir == Study(workdir="~/runs/a").workdir == str(tmp_path / "runs" / "a")
    assert store_directory(Data(store="~/store"), tmp_path) == tmp_path / "store"
    shutil.copytree(done[0].workdir, tmp_path / "mine")
    with pytest.raises(InputError, match=str(tmp_path / "tuned")):
        compare("~/tuned", "~/tuned")
    with pytest.raises(InputError, match=str(tmp_path / "pairs")):
        blimp.read("~/pairs")
    assert load("~/mine").directory == tmp_path / "mine"
    assert check_import(export("~/mine", "~/out")["directory"], "~/copy")["directory"] == str(tmp_path / "copy")
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "out", "copy"}


def test_an_export_leaves_the_directories_beside_it_alone(done, tmp_path):
    (tmp_path / "model.new").mkdir()
    (tmp_path / "model.new" / "mine").touch()
    export(done[0].workdir, tmp_path / "model")
    assert (tmp_path / "model.new" / "mine").exists() and len(list(tmp_path.iterdir())) == 2
    with pytest.raises(InputError, match="which would be copied into itself"):
        check_import(tmp_path / "model", tmp_path / "model" / "copy")


@pytest.mark.parametrize("renames", [0, 1])
def test_a_kill_while_a_model_is_replaced_loses_none(done, tmp_path, monkeypatch, renames):
    """Wherever it comes: between the two renames the old one has another name, until it is put back."""
    directory = tmp_path / "model"
    found = load(done[0].workdir)._replace(directory=directory)
    save(found)
    rename, called = Path.rename, []

    def killed(self, to):
        if len(called) == renames:
            raise KeyboardInterrupt
        called.append(to)
        return rename(self, to)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            save(found)
    assert directory.exists() == (renames == 0)
    put_back(directory)
    assert load(directory).config == found.config
    save(found)
    assert [path.name for path in tmp_path.iterdir()] == ["model"] and load(directory).config == found.config


def test_a_run_leaves_no_lock(done):
    assert not list(Path(done[0].workdir).rglob(locks.LOCK))


def test_a_kill_between_the_results_and_the_mark_of_the_end_writes_nothing_twice(done, tmp_path):
    """The same command again finds its lines and gives them back: also the seconds that it took the first time."""
    directory = shutil.copytree(done[0].workdir, tmp_path / "run")
    before = (directory / "results.jsonl").read_bytes()
    for _ in range(2):
        (directory / "DONE").unlink()
        assert pretrain(replace(done[0], workdir=str(directory)))["rows"] == done[1]
    assert (directory / "results.jsonl").read_bytes() == before and (directory / "DONE").is_file()


@pytest.mark.parametrize("kept", [0, 40, 450])
def test_a_kill_in_the_last_second_leaves_complete_results(done, tmp_path, kept):
    """However much of the results was written, each line is there once at last, and its speed is that of the log."""
    directory = shutil.copytree(done[0].workdir, tmp_path / "run")
    content = (directory / "results.jsonl").read_bytes()
    (directory / "results.jsonl").write_bytes(content[:kept])
    (directory / "DONE").unlink()
    rows = pretrain(replace(done[0], workdir=str(directory)))["rows"]
    assert rows == read_results(directory / "results.jsonl")
    assert [row["stage"] for row in rows] == ["pretrain", "heldout"]
    assert rows[1] == done[1][1] and rows[0]["tokens_per_second"] > 0 and rows[0]["scores"] == done[1][0]["scores"]


def test_appending_is_repeatable(tmp_path):
    path = tmp_path / "results.jsonl"
    rows = [
        {"stage": "finetune", "task": "rte", "tuning_seed": seed, "settings": "{}", "scores": {}} for seed in (0, 1)
    ]
    assert append_results(path, [rows[0] | {"seconds": 1.0}]) == [rows[0] | {"seconds": 1.0}]
    with open(path, "a") as file:
        file.write('{"stage": "fine')
    assert append_results(path, [rows[0] | {"seconds": 2.0}, rows[1]]) == [rows[0] | {"seconds": 1.0}, rows[1]]
    assert read_results(path) == [rows[0] | {"seconds": 1.0}, rows[1]] and path.read_bytes().count(b"\n") == 2
    assert append_results(path, [rows[1] | {"cell": "another"}]) == [rows[1] | {"cell": "another"}]
    assert len(read_jsonl(path)) == 3


def test_a_result_that_is_cut_short_is_told_once(tmp_path, capsys):
    """Whoever reads the others would not know that one is missing."""
    path = tmp_path / "results.jsonl"
    row = {"stage": "finetune", "task": "rte", "tuning_seed": 0, "settings": "{}", "scores": {}}
    append_results(path, [row, row | {"tuning_seed": 1}])
    assert len(read_results(path)) == 2 and capsys.readouterr().err == ""
    path.write_bytes(path.read_bytes()[:-1])
    assert [len(read_results(path)) for _ in range(2)] == [1, 1]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: the last line of {path} is cut short, or damaged, and left out: the command that")


def test_an_empty_run_json_of_a_full_disk_does_not_block_the_run(done, tmp_path):
    run = replace(done[0], workdir=str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()
    assert pretrain(run)["rows"][1] == done[1][1]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["identity"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty, so that nobody knows whose directory this is: delete that file"),
        ('{"identity": {"lo', "run.json is not JSON"),
        ("[]", "holds a JSON list, not an object"),
        ('{"identity": {}}', "has no config: it was not written by jaxmlm, or edited"),
        ('{"identity": 3, "config": {}}', "has no identity"),
    ],
)
def test_a_damaged_run_json_is_told_in_one_line(done, tmp_path, content, message):
    directory = shutil.copytree(done[0].workdir, tmp_path / "run")
    (directory / "run.json").write_text(content)
    for use in (lambda: pretrain(replace(done[0], workdir=str(directory))), lambda: load(directory)):
        with pytest.raises(InputError, match=message) as refused:
            use()
        assert "\n" not in str(refused.value)


def test_every_flipped_bit_of_a_record_or_a_result_is_noticed(done, tmp_path):
    """Where a number, a name or a text stands: one bit of it is another value, of which nothing else tells."""

    def record(path: Path) -> list:
        found = read_metadata(path)
        return [found.get(name) for name in ("identity", "config", "vocab", "tokenizer", "versions")]

    def results(path: Path) -> list:
        return [Result.from_json(row) for row in read_results(path)]

    for name, read in (("run.json", record), ("results.jsonl", results)):
        content = (Path(done[0].workdir) / name).read_bytes()
        wanted = read(Path(done[0].workdir) / name)
        noticed = 0
        # Without its last byte, a line end, the last line is one that a kill has cut off: it is made again.
        for place in range(0, len(content) - 1, 7):
            changed = bytearray(content)
            changed[place] ^= 1 << place % 8
            (tmp_path / name).write_bytes(changed)
            try:
                assert read(tmp_path / name) == wanted  # a blank, say, or the name of the checksum
            except InputError as error:
                assert "\n" not in str(error)
                noticed += 1
        assert noticed > len(content) / 7 / 2


def test_a_line_that_is_no_result_is_named(done, tmp_path):
    directory = shutil.copytree(done[0].workdir, tmp_path / "run")
    lines = (directory / "results.jsonl").read_text().splitlines()
    (directory / "results.jsonl").write_text(lines[0] + '\n{"stage": 3}\n')
    with pytest.raises(InputError, match="results.jsonl, line 2 is not a result"):
        pretrain(replace(done[0], workdir=str(directory)))
