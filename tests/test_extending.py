"""docs/extending.md does what it says: its files, as they stand there, run by the commands under them."""

import json
import re
import shlex
from pathlib import Path

import pytest

from jaxmlm import cli
from jaxmlm.tasks import registry

PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text()
SECTIONS = re.split(r"(?m)^## ", PAGE)[1:]
EXAMPLES = {section.splitlines()[0]: section for section in SECTIONS if "```python" in section}


def blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", section)


def test_every_door_has_an_example():
    assert list(EXAMPLES) == [
        "A masking", "A replacement", "A law of the rate", "An optimizer", "A downstream task", "A text source",
        "A metric sink",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "title",
    [
        title if title == "A masking" else pytest.param(title, marks=pytest.mark.slow("runs a section's commands"))
        for title in EXAMPLES
    ],
)
def test_an_example_runs_as_it_stands_there(title, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "TASKS", dict(registry.TASKS))
    for code in (code for section in EXAMPLES.values() for code in blocks(section, "python")):
        name = re.match(r"# (\w+\.py)", code)
        assert name, "the first line of an example names its file"
        (tmp_path / name[1]).write_text(code)
    for split in ("train", "dev"):
        rows = (
            {"question": f"is the {i} fox red?", "passage": "red" if i % 3 else "grey", "answer": i % 3 > 0}
            for i in range(40)
        )
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [line for block in blocks(EXAMPLES[title], "console") for line in block.splitlines()]
    assert lines
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "jaxmlm" and cli.main(words) == 0, capfd.readouterr().err


def test_an_edited_class_is_another_run(tmp_path, monkeypatch, capfd):
    """A comment and config() may change; the class, or a function that it calls, may not."""
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(EXAMPLES["A masking"], "python")

    def start(code: str) -> int:
        (tmp_path / "sentences.py").write_text(code)
        return cli.main(["pretrain", "sentences.py"])

    assert start(code) == 0
    assert start(code.replace("max_length = 32", "max_length = 32  # tokens")) == 0, capfd.readouterr().err
    assert start(code.replace('workdir="runs/sentences"', 'workdir="runs/../runs/sentences"')) == 0
    assert start(code.replace("ends[:-1]", "~ends[:-1]")) == 2
    assert (
        "holds a run with another masking.units: the file that defines its class has changed" in capfd.readouterr().err
    )


def test_an_edited_optimizer_is_another_run(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(EXAMPLES["An optimizer"], "python")
    start = lambda: cli.main(["pretrain", "adan.py", "--loop.steps", "0"])  # noqa: E731
    (tmp_path / "adan.py").write_text(code)
    assert start() == 0
    (tmp_path / "adan.py").write_text(code.replace("mask=decayed", "mask=None"))
    assert start() == 2
    assert "another optim.optimizer: the file that defines its class has changed" in capfd.readouterr().err


def test_a_store_of_an_edited_source_is_refused(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(EXAMPLES["A text source"], "python")

    def prepare(code: str) -> int:
        (tmp_path / "letters.py").write_text(code)
        return cli.main(["prepare", "letters.py"])

    assert prepare(code) == 0
    assert prepare(code + "# a comment\n") == 0
    assert prepare(code.replace("came late", "came early")) == 2
    assert "was made of letters:post.db by another function" in capfd.readouterr().err
