"""Studies of the shipped configs, shrunk: the telling cells of each pre-train from its own config."""

from pathlib import Path

import pytest

from jaxmlm import config
from jaxmlm.fields import replace_path
from jaxmlm.json_files import read_jsonl
from jaxmlm.models.flops import count_parameters
from jaxmlm.runs.pretraining import pretrain
from jaxmlm.studies.comparisons import compare_pairs
from jaxmlm.studies.results import CellResult, collect
from jaxmlm.studies.study import cells_of

CONFIGS = Path(__file__).parent.parent / "configs"
SMALL = {
    "data.text": "sample:400",
    "data.vocab": 700,
    "data.length": 24,
    "data.valid": 0.05,
    "model.layers": 1,
    "model.width": 16,
    "model.heads": 2,
    "loop.steps": 3,
    "loop.batch": 8,
    "loop.save_every": 0,
    "loop.log_every": 1,
}
CELLS = {
    "paper/strategies": "phrases 40%",
    "paper/corruption_vs_prediction": "20% masked 40% predicted (2 rows)",
    "paper/replacement": "80-10-10",
    "paper/schedules": "step 0.30 to 0.15",
    "paper/laws": "uniform, bound",
    "wiki_gpu": 0.4,
}


def test_the_run_for_one_chip_trains(tmp_path):
    """Shrunk, on one device; its encoder has the size that the file says."""
    run = config.load(CONFIGS / "one_chip.py", ["--text", "sample:400"])
    assert round(count_parameters(run.model, run.data.vocab) / 1e6) == 28
    for path, value in {"model.heads": 2, **SMALL, "workdir": str(tmp_path / "run"), "model.dtype": "float32"}.items():
        run = replace_path(run, path, value)
    assert pretrain(run)["rows"][0]["tokens"] == 3 * 8 * 24


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("replacement", ("replace=80-10-10,rate=0.40", "replace=mask,rate=0.40")),
        ("strategies", ("tokens 40%", "phrases 15%")),
        ("sizes", ("rate=0.40,model=mini", "rate=0.15,model=mini")),
        ("steps", ("rate=0.40,steps=300", "rate=0.15,steps=300")),
        ("laws", ("uniform, tokens", "0.40")),
    ],
)
def test_a_study_compares_what_it_asks_for(name, pair):
    cells = cells_of(config.load(CONFIGS / "paper" / f"{name}.py"))
    rows = [
        {"cell": c.name, "values": c.values, "control": c.control, "seed": c.seed, "stage": "blimp", "task": "blimp",
         "scores": {"accuracy": 0.5}}
        for c in cells
    ]  # fmt: skip
    results = collect(CellResult.from_json(one) for one in rows)
    compared = [{found.a, found.b} for found in compare_pairs(results, results.series["blimp"])]
    assert set(pair) in compared


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("paper") / "store")


@pytest.mark.slow("pre-trains a cell of each shipped study")
@pytest.mark.parametrize("name", CELLS)
def test_a_small_cell_of_each_study_trains(name, store, tmp_path):
    study = config.load(CONFIGS / f"{name}.py")
    cell = next(cell for cell in cells_of(study) if CELLS[name] in cell.values.values())
    run = cell.run
    for path, value in {**SMALL, "data.store": store, "workdir": str(tmp_path / "run")}.items():
        run = replace_path(run, path, value)
    rows = pretrain(run)["rows"]
    logged = [row for row in read_jsonl(tmp_path / "run" / "log.jsonl") if "eval" not in row]
    assert [row["step"] for row in logged] == [1, 2, 3]
    assert all(0 < row["loss"] < 20 for row in logged)
    assert rows[1]["scores"]["loss@0.15"] > 0
