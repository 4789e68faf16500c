"""How training went: what is read from a log, and the figure of the held-out loss along the way."""

import json

import pytest

from jaxmlm.studies.content import Report, sections_of
from jaxmlm.studies.results import CellResult, collect
from jaxmlm.studies.study import _curve
from jaxmlm.studies.training_figures import held_out_losses, training_losses

LOG = [
    {"step": 10, "loss": 5.0, "tokens": 640},
    {"step": 10, "eval": "heldout", "loss@0.15": 4.9, "loss@0.40": 5.1, "loss@0.80": 6.0},
    {"step": 20, "loss": 9.0, "tokens": 1280},
    {"step": 20, "loss": 4.0, "tokens": 1280},  # again, after a kill
    {"step": 20, "eval": "heldout", "loss@0.15": 3.9, "loss@0.40": 4.1, "loss@0.80": 5.0},
]


def results_of(seeds: int):
    """Cells of two rates with a held-out loss."""
    scores = {"loss@0.15": 1.0, "loss@0.40": 1.0, "loss@0.80": 1.0}

    def one(rate: float, seed: int) -> CellResult:
        cell = {"cell": f"rate={rate},seed={seed}", "values": {"masking.rate": rate}, "control": False, "seed": seed}
        return CellResult("heldout", "mlm", scores=scores, **cell)

    return collect(one(rate, seed) for rate in (0.15, 0.4) for seed in range(seeds))


@pytest.fixture
def curve(tmp_path):
    """The lines of a log, as a report has them."""
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))
    return _curve(tmp_path / "log.jsonl")


def test_a_log_gives_each_loss_once_and_the_tokens_of_every_evaluation(curve):
    assert [(line["step"], line["loss"]) for line in curve if "loss" in line] == [(10, 5.0), (20, 4.0)]
    assert [(line["tokens"], line["loss@0.15"]) for line in curve if "eval" in line] == [(640, 4.9), (1280, 3.9)]


def test_a_log_without_losses_has_no_curve(tmp_path):
    (tmp_path / "log.jsonl").write_text(json.dumps(LOG[1]) + "\n")
    assert _curve(tmp_path / "log.jsonl") == [] == _curve(tmp_path / "none.jsonl")


def test_a_log_that_was_edited_to_step_0_is_drawn(tmp_path):
    (tmp_path / "log.jsonl").write_text(json.dumps(LOG[0] | {"step": 0}) + "\n")
    assert [line["step"] for line in _curve(tmp_path / "log.jsonl")] == [0]


def test_the_held_out_loss_along_the_way_is_a_mean_over_seeds(curve):
    worse = [line | {"loss@0.15": line["loss@0.15"] + 1} if "eval" in line else line for line in curve]
    curves = {"rate=0.15,seed=0": curve, "rate=0.15,seed=1": worse, "rate=0.4,seed=0": curve}
    figure = held_out_losses(results_of(2), curves)
    assert [axes.get_title() for axes in figure.axes] == ["15 % masks", "40 % masks", "80 % masks"]
    means = {line.get_color(): line for line in figure.axes[0].lines if line.get_linewidth() > 1}
    assert [list(line.get_ydata()) for line in means.values()] == [[5.4, 4.4], [4.9, 3.9]]
    assert [list(line.get_xdata()) for line in means.values()] == [pytest.approx([0.00064, 0.00128])] * 2
    assert len(figure.axes[0].lines) == 5  # two means, three cells
    assert training_losses(results_of(2), curves) is not None


def test_cells_that_were_evaluated_once_have_no_such_figure(curve):
    once = [line for line in curve if line["step"] == 20]
    assert held_out_losses(results_of(1), {"rate=0.15,seed=0": once}) is None
    titles = [
        [section.title for section in sections_of(Report("title", results_of(1), {"rate=0.15,seed=0": lines}))]
        for lines in (once, curve)
    ]
    assert "Along the way" not in titles[0] and "Along the way" in titles[1]
