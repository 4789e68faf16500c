"""docs/extending.md does what it says: its files, as they stand there, run by the commands under them."""

import re
import shlex
from pathlib import Path

import pytest

from jaxmlm import cli

PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text()
SECTIONS = re.split(r"(?m)^## ", PAGE)[1:]
EXAMPLES = {section.splitlines()[0]: section for section in SECTIONS if "```python" in section}


def blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", section)


def test_every_door_has_an_example():
    assert list(EXAMPLES) == ["A masking"]


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_runs_as_it_stands_there(title, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for code in blocks(EXAMPLES[title], "python"):
        name = re.match(r"# (\w+\.py)", code)
        assert name, "the first line of an example names its file"
        (tmp_path / name[1]).write_text(code)
    lines = [line for block in blocks(EXAMPLES[title], "console") for line in block.splitlines()]
    assert lines
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "jaxmlm" and cli.main(words) == 0, capfd.readouterr().err
