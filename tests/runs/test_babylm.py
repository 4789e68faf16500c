"""BabyLM's evaluation through the commands: a directory in its form, a checkpoint that has learned nothing."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from jaxmlm import cli
from jaxmlm.runs import Evaluation, evaluate
from jaxmlm.runs.zero_shot import ZeroShot
from jaxmlm.synthetic import world
from jaxmlm.tasks import babylm, babylm_sets
from tests.tasks.test_babylm import GLUE, write, write_directory

PAGE = (Path(__file__).parents[2] / "docs" / "babylm.md").read_text()
TINY = {
    "prepare": "--data.vocab 200 --data.length 32 --model.layers 1 --model.width 16 --model.heads 2 --loop.batch 8",
    "pretrain": "--data.vocab 200 --data.length 32 --model.layers 1 --model.width 16 --model.heads 2 --loop.batch 8 "
    "--loop.steps 2 --masking.schedule.steps 2 --model.max-positions 64",
    "evaluate": "--batch 64",
    "finetune": "--epochs 1 --batch 8 --length 32",
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    return write_directory(tmp_path_factory.mktemp("babylm") / "evaluation_data")


def test_the_predictions_lie_where_the_pipeline_looks_for_them(checkpoint, directory, tmp_path, capfd):
    words = ["evaluate", checkpoint, "--babylm", str(directory), "--predictions", str(tmp_path / "main"), "--json"]
    assert cli.main(words) == 0
    said = capfd.readouterr()
    assert "not evaluated: ewok (ewok_filtered), wug_past (wug_past_tense), comps (comps)" in said.err
    assert "note: blimp: 67 rows, officially 59,875" in said.err
    rows = {row["task"]: row for row in json.loads(said.out.splitlines()[-1])["rows"]}
    assert list(rows) == ["blimp", "supplement", "entity_tracking", "wug_adj"]
    assert {row["stage"] for row in rows.values()} == {"babylm"}
    assert rows["wug_adj"]["main"] == "spearman"
    for name, file in {
        "blimp": "blimp/blimp_filtered",
        "supplement": "blimp/supplement_filtered",
        "entity_tracking": "entity_tracking/entity_tracking",
        "wug_adj": "wug_adj/wug_adj_nominalization",
    }.items():
        found = json.loads((tmp_path / "main/zero_shot/mlm" / file / "predictions.json").read_text())
        assert list(found) == list(dict.fromkeys(row.choice.set for row in babylm.read(directory, name)))
    chosen = json.loads((tmp_path / "main/zero_shot/mlm/blimp/blimp_filtered/predictions.json").read_text())
    right = [found["predictions"][0]["pred"] == "the old hen sees the fox" for found in chosen.values()]
    assert sum(right) / len(right) == rows["blimp"]["scores"]["accuracy"]


def test_some_tasks_from_python_and_in_a_study(checkpoint, directory):
    """Accuracy is the same by either; the minimal pairs of a study are found again whatever is asked of BabyLM."""
    asked = ZeroShot(blimp=None, babylm=str(directory), fast=True, babylm_tasks=("supplement",), batch=64)
    assert [(stage, task) for stage, task, _ in asked.parts] == [("babylm", "supplement")]
    both = ZeroShot(babylm=str(directory)).parts
    assert [task for _, task, _ in both] == ["blimp", "blimp", "supplement", "entity_tracking", "wug_adj"]
    assert both[0][2] == ZeroShot().parts[0][2]
    config = Evaluation(babylm=str(directory), fast=True, babylm_tasks=("supplement",), batch=64, pll_word=True)
    (row,) = evaluate(checkpoint, config)["rows"]
    assert set(row["scores"]) == {
        "accuracy",
        "accuracy_ties_half",
        "same",
        *(f"set/{s}" for s in babylm_sets.SUPPLEMENT),
    }


@pytest.mark.parametrize(("words", "message"), [
    (["--fast"], "fast is of BabyLM's tasks: give --babylm DIRECTORY too"),
    (["--babylm", "nowhere"], "babylm: nowhere is not a directory"),
    (["--babylm", "DIRECTORY", "--babylm-tasks", "ewok"], "lacks ewok (ewok_filtered)"),
])  # fmt: skip
def test_a_wrong_request_is_one_line(checkpoint, directory, capfd, words, message):
    words = [str(directory) if word == "DIRECTORY" else word for word in words]
    assert cli.main(["evaluate", checkpoint, *words]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert message in line


def test_missing_training_rows_are_one_line(checkpoint, directory, capfd):
    words = ["finetune", checkpoint, "--task", "babylm", "--data", str(directory), "--length", "32"]
    assert cli.main(words) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "boolq.train.jsonl is missing" in line and "--task babylm-mnli,babylm-mrpc,babylm-qqp,babylm-rte" in line


@pytest.mark.slow("pre-trains, and fine-tunes on seven tasks")
def test_the_page_leads_from_the_directory_to_an_upload(tmp_path, monkeypatch, capfd):
    """Its commands as they stand there, on little text and a tiny model."""
    monkeypatch.chdir(tmp_path)
    root = write_directory(tmp_path / "evaluation_data")
    for name in ("boolq", "multirc"):
        write(root / f"full_eval/glue_filtered/{name}.train.jsonl", [{**GLUE[name], "label": i % 2} for i in range(8)])
    (tmp_path / "train_10M").mkdir()
    (tmp_path / "train_10M/a.txt").write_text("\n\n".join(world.documents(0, 300)))
    code, *_ = re.findall(r"(?ms)^```python\n(# baby.py\n.*?)^```", PAGE)
    (tmp_path / "baby.py").write_text(code)
    lines = [line for block in re.findall(r"(?ms)^```console\n(.*?)^```", PAGE) for line in block.splitlines()]
    assert [line.split()[1] for line in lines] == ["prepare", "pretrain", "evaluate", "evaluate", "finetune"]
    for line in lines:
        program, verb, *words = shlex.split(line)
        assert program == "jaxmlm" and cli.main([verb, *words, *TINY[verb].split()]) == 0, capfd.readouterr().err
    assert "average over 7 of the 7 tasks of BabyLM" in capfd.readouterr().out
    copies = next(block for block in re.findall(r"(?ms)^```bash\n(.*?)^```", PAGE) if "for task" in block)
    subprocess.run(["bash", "-ec", copies], check=True)
    for name in GLUE:
        found = json.loads((tmp_path / f"results/baby/main/finetune/{name}/predictions.json").read_text())
        assert [line["id"] for line in found[name]["predictions"]] == [f"{name}_{i}" for i in range(8)]
        assert {line["pred"] for line in found[name]["predictions"]} <= {0, 1, 2}
