"""The Colab notebook as it lies in the repository; `.ci/run` executes it whole."""

import ast
import importlib.util
import json
import re
import shlex
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxmlm.masking import Masking
from jaxmlm.runs.run import Run

NOTEBOOK = Path(__file__).parent.parent / "tpu_scripts" / "colab_demo.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]
TEXT = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "markdown"]


def test_outputs_are_stripped():
    for cell in CELLS:
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None


def test_every_cell_is_python_and_replaces_no_jax():
    for source in CODE:
        ast.parse("\n".join(_indented(source)))
    installs = [line for source in CODE for line in source.splitlines() if "%pip" in line]
    assert len(installs) == 1 and "--constraint" in installs[0] and "-U" not in installs[0].split()
    assert "setup_tpu" not in "".join(CODE)


@pytest.mark.parametrize(
    ("source", "installed"),
    [
        ("my checkout", "{here}/my checkout"),
        ("  my checkout/ ", "{here}/my checkout"),
        ("{here}/a wheel-1.0-py3-none-any.whl", "{here}/a wheel-1.0-py3-none-any.whl"),
        ("git+https://example.com/x.git@main ", "git+https://example.com/x.git@main"),
        ("it's; $HOME", "it's; $HOME"),
    ],
)
def test_a_source_with_spaces_is_installed(source, installed, monkeypatch, tmp_path):
    """The words that pip gets from the shell that %pip runs it in; a directory by its whole path, which pip takes."""
    (cell,) = [source for source in CODE if "%pip" in source]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my checkout").mkdir()
    (tmp_path / "a wheel-1.0-py3-none-any.whl").touch()
    ran, asked, installs = [], source.format(here=tmp_path), cell.split("import jaxmlm\n")[0]
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jaxmlm" else find(name))
    installs = re.sub(r'SOURCE = ""', f"SOURCE = {asked!r}", installs)
    installs = re.sub(r"%pip (.*)", r'ran.append(f"\1")', installs)
    exec(installs, {"ran": ran})
    (line,) = ran
    assert shlex.split(line)[-1] == installed.format(here=tmp_path)
    assert shlex.split(line)[:-1] == ["install", "-q", "--constraint", "kept.txt"]


def _indented(source: str) -> list[str]:
    """The lines, with a magic command as a statement in its place."""
    lines = source.splitlines()
    return [line[: len(line) - len(line.lstrip())] + "pass" if line.strip().startswith("%") else line for line in lines]


def test_sentences_are_short():
    for text in TEXT:
        for sentence in text.replace("\n", " ").replace("**", "").split(". "):
            assert len(sentence.split()) <= 25, sentence


def test_a_training_cell_that_is_stopped_and_run_again_starts_no_second_trainer(monkeypatch, tmp_path):
    """Training is in a thread, which stopping the cell does not stop."""
    (cell,) = [source for source in CODE if "threading.Thread" in source]
    sleep, go_on, begun, shown = time.sleep, threading.Event(), [], []

    def pretrain(run):
        begun.append(run.masking.rate)
        assert go_on.wait(60)
        return {"rows": [run.masking.rate]}

    def display(figure):
        shown.append(figure)
        if len(shown) <= 2:
            raise KeyboardInterrupt
        go_on.set()

    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setattr(time, "sleep", lambda _: sleep(0.01))
    ipython = SimpleNamespace(get_ipython=lambda: None, version_info=(9, 0))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(clear_output=lambda wait: None))
    names = {"base": Run(), "replace": replace, "Masking": Masking, "DIRECTORY": str(tmp_path), "Path": Path}
    names |= {"pretrain": pretrain, "display": display}
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            exec(cell, names)
    exec(cell, names)
    assert begun == [0.15, 0.40] and names["rows"] == {0.15: [0.15], 0.40: [0.40]}
