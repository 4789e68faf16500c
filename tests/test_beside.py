"""A user's file imports the files beside it, and what they define is part of a run's identity."""

import sys
from pathlib import Path

import pytest

from jaxmlm.cli import main
from jaxmlm.config import load
from jaxmlm.errors import InputError
from jaxmlm.fields import source_hash
from jaxmlm.runs.run import identity
from jaxmlm.user_code import find_object

UNITS = """
from dataclasses import dataclass
import jax.numpy as jnp

@dataclass(frozen=True)
class Pairs:
    max_length = 2

    def starts(self, key, tokens):
        return jnp.arange(tokens.ids.shape[0]) % 2 == 0

@dataclass(frozen=True)
class Long(Pairs):
    max_length = 4

class Bare(Pairs):
    max_length = 4
"""
USE = """
from jaxmlm import Data, EncoderConfig, Loop, Masking, Run

def config():
    model = EncoderConfig(layers=1, width=32, heads=2)
    return Run(workdir="run", data=Data("sample:400", vocab=300, length=64), masking=Masking(0.4, units=Pairs()),
        model=model, loop=Loop(0, 8))
"""
DOORS = {
    "at the top": "from units_beside import Pairs" + USE,
    "in config()": USE.replace("    model =", "    from units_beside import Pairs\n    model ="),
    "run": "from pathlib import Path\nfrom runpy import run_path\n"
    "Pairs = run_path(str(Path(__file__).with_name('units_beside.py')))['Pairs']" + USE,
}
DOORS["run, without functions"] = DOORS["run"].replace("['Pairs']", "['Long']")


def source(config: Path) -> str:
    return identity(load(config))["masking"]["units"]["source"]


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_an_edited_file_beside_the_config_is_another_run(door, tmp_path):
    before = list(sys.path)
    (tmp_path / "units_beside.py").write_text(UNITS)
    (tmp_path / "config.py").write_text(door)
    first = source(tmp_path / "config.py")
    assert source(tmp_path / "config.py") == first and sys.path == before
    (tmp_path / "units_beside.py").write_text(UNITS.replace("% 2 == 0", "% 2 == 10"))
    assert source(tmp_path / "config.py") != first


def test_an_edited_file_that_was_run_is_refused_by_the_command(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.py").write_text(DOORS["run"])
    (tmp_path / "units_beside.py").write_text(UNITS)
    assert main(["pretrain", "config.py"]) == 0
    assert main(["pretrain", "config.py"]) == 0
    (tmp_path / "units_beside.py").write_text(UNITS.replace("% 2 == 0", "% 2 == 10"))
    assert main(["pretrain", "config.py"]) == 2
    assert "another masking.units: the file that defines its class has changed" in capfd.readouterr().err


def test_each_directory_has_its_own_files(tmp_path):
    """Of the same name too, and a class keeps the hash of its own file."""
    made = {}
    for name, every in (("one", 2), ("other", 40)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "units_beside.py").write_text(UNITS.replace("% 2", f"% {every}"))
        (tmp_path / name / "config.py").write_text(DOORS["at the top"])
        made[name] = load(tmp_path / name / "config.py").masking.units
    ids = [type(units).starts.__globals__["__file__"] for units in made.values()]
    assert ids == [str(tmp_path.resolve() / name / "units_beside.py") for name in made]
    assert source_hash(type(made["one"])) != source_hash(type(made["other"]))
    assert source(tmp_path / "one" / "config.py") == source_hash(type(made["one"]))["source"]


def test_every_door_imports_from_beside(tmp_path, monkeypatch):
    """FILE.py:NAME from the file's directory, MODULE:NAME from the one where the command is typed."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "letters_beside.py").write_text("def rows(rows):\n    return rows\n")
    (tmp_path / "there" / "own_beside.py").write_text("from letters_beside import rows\n")
    monkeypatch.chdir(tmp_path / "here")
    assert find_object("../there/own_beside.py:rows", "--x: a function")([1]) == [1]
    with pytest.raises(InputError, match="own_beside cannot be imported"):
        find_object("own_beside:rows", "--x: a function")
    monkeypatch.chdir(tmp_path / "there")
    assert find_object("own_beside:rows", "--x: a function")([1]) == [1]


def test_only_a_class_without_functions_that_was_run_has_no_hash(tmp_path):
    (tmp_path / "units_beside.py").write_text(UNITS)
    (tmp_path / "own.py").write_text(
        "from runpy import run_path\nfrom pathlib import Path\nimport units_beside\n"
        "FOUND = run_path(str(Path(__file__).with_name('units_beside.py')))\n"
    )
    own = find_object(f"{tmp_path / 'own.py'}:FOUND", "it")
    imported = find_object(f"{tmp_path / 'own.py'}:units_beside", "it")
    assert source_hash(own["Pairs"]) == source_hash(own["Long"]) == source_hash(imported.Bare) != {}
    assert source_hash(own["Bare"]) == {}
