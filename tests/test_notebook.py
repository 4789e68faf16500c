"""The Colab notebook as it lies in the repository; `.ci/run` executes it whole."""

import ast
import json
from pathlib import Path

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


def _indented(source: str) -> list[str]:
    """The lines, with a magic command as a statement in its place."""
    lines = source.splitlines()
    return [line[: len(line) - len(line.lstrip())] + "pass" if line.strip().startswith("%") else line for line in lines]


def test_sentences_are_short():
    for text in TEXT:
        for sentence in text.replace("\n", " ").replace("**", "").split(". "):
            assert len(sentence.split()) <= 25, sentence
