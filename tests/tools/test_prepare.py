"""`jaxmlm prepare` says what is held out, and whether that is enough; its counts sum to the documents of the text."""

import json
from pathlib import Path

import pytest

from jaxmlm import cli
from jaxmlm.data import Data, Store
from jaxmlm.data.opening import open_store

RUN = str(Path(__file__).parents[2] / "configs" / "quickstart_run.py")
LINE = "the old baker sells a small loaf to the tall hen by the red river in the green wood"


def text(directory: Path, documents: int, lines: int) -> str:
    """A text whose documents differ."""
    parts = ["\n".join(f"{LINE} {d} {i}" for i in range(lines)) for d in range(documents)]
    (directory / "text.txt").write_text("\n\n".join(parts))
    return str(directory / "text.txt")


def prepare(directory: Path, capsys, *words: str) -> tuple[dict, str]:
    words = (
        "--workdir",
        str(directory / "run"),
        "--data.text",
        str(directory / "text.txt"),
        "--data.vocab",
        "44",
        *words,
    )
    assert cli.main(["prepare", RUN, *words, "--json"]) == 0
    captured = capsys.readouterr()
    return json.loads(captured.out.splitlines()[-1]), captured.err


def sums_of(directory: Path, capsys) -> dict[str, int]:
    assert cli.main(["prepare", "--inspect", str(directory / "run" / "store"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert all(sum(found[split]["lengths"].values()) == found[split]["documents"] for split in ("train", "valid"))
    return {split: found[split]["documents"] for split in ("train", "valid")}


def test_a_text_of_few_documents_holds_out_the_end_of_one_and_says_so(tmp_path, capsys):
    text(tmp_path, documents=9, lines=60)
    for _ in range(2):  # also of the store that is there
        found, said = prepare(tmp_path, capsys, "--data.valid", "0.01")
        held = found["valid"]["tokens"]
        assert found["documents"] == 9 and (found["train"]["documents"], found["valid"]["documents"]) == (9, 1)
        assert f"valid: 1 document, {held:,} tokens" in said and "held out, 1.0" in said
        assert said.count("one is cut, its beginning is trained on and its end is held out") == 1
        assert said.count(f"warning: the held-out part is small (1 document, {held:,} tokens)") == 1
    assert sums_of(tmp_path, capsys) == {"train": 9, "valid": 1}


@pytest.mark.parametrize(("documents", "lines", "small"), [(400, 3, False), (60, 1, True), (30, 60, True)])
def test_a_small_held_out_part_is_said_to_be_small(tmp_path, capsys, documents, lines, small):
    text(tmp_path, documents, lines)
    found, said = prepare(tmp_path, capsys, "--data.valid", "0.3")
    assert found["documents"] == documents == found["train"]["documents"] + found["valid"]["documents"]
    assert ("the held-out part is small" in said) == small and "one is cut" not in said
    assert sum(sums_of(tmp_path, capsys).values()) == documents


def test_a_pre_training_says_it_when_it_makes_the_store(tmp_path, capsys):
    data = Data(text=text(tmp_path, documents=9, lines=60), vocab=44, length=64)
    store = open_store(data, tmp_path, "pretrain: prepare")
    assert "the held-out part is small (1 document" in capsys.readouterr().err and store.cut
    open_store(data, tmp_path, "pretrain: prepare")
    assert "held-out" not in capsys.readouterr().err
    assert not Store(open_store(Data(text="sample:300", vocab=300, valid=0.3), tmp_path / "b").directory).cut
