"""Names of values are what a user wrote: in a table and in a figure they are read as they are, and they fit."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from jaxmlm.plotting import save
from jaxmlm.runs.tables import Column, Tables
from jaxmlm.studies import Assumed, Study
from jaxmlm.studies.dry_run import dry_run
from jaxmlm.studies.figures import blimp_fields, likelihood_curves, scores
from jaxmlm.studies.grid import cells_of
from jaxmlm.studies.heat_maps import loss_matrix
from jaxmlm.studies.score_table import terminal_table
from jaxmlm.studies.training_figures import held_out_losses, training_losses
from tests.studies.test_likelihood import LOW, bound
from tests.studies.test_report import results_of, row

ODD = ("[mask] only", "[red]80-10-10", ":warning:", "$x_{$", "\\frac", "_base")


def of_grid(names, learning_rates=(None,)):
    """Results of a grid, and the curves of its cells."""
    rows, curves = [], {}
    for rate in learning_rates:
        for name in names:
            values = {"masking": name} | ({} if rate is None else {"optim.learning_rate": rate})
            likelihood = bound(0.15, 0, LOW)["scores"]
            rows += [
                row(values, 0, "heldout", "mlm", {"loss@0.15": 3.0, "loss@0.40": 4.0}),
                row(values, 0, "blimp", "blimp", {"accuracy": 0.5, "field/syntax": 0.5}, main="accuracy"),
                row(values, 0, "bound", "heldout", likelihood, main="bound"),
            ]
            curves[rows[-1]["cell"]] = [
                {"step": i, "tokens": 1e6 * i, "loss": 4 - i / 9, "loss@0.15": 4 - i / 9} for i in range(1, 9)
            ]
    return results_of(rows), curves


def printed(what) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def test_a_table_shows_names_as_they_are():
    shown = printed(terminal_table(of_grid(ODD)[0]))
    assert all(name in shown for name in ODD)
    assert "[b]" in printed(Tables("", [Column("[b]", ["1"])], [Column("[b]", ["1"])]))


def test_a_dry_run_shows_the_name_of_the_machine_as_it_is(capsys):
    study = Study(assume=Assumed("a chip [red]", 1e12))
    dry_run(study, cells_of(study)[:1])
    assert "on a chip [red]" in " ".join(capsys.readouterr().out.split())


def test_figures_show_names_as_they_are(tmp_path):
    results, curves = of_grid(ODD)
    figures = [training_losses(results, curves), held_out_losses(results, curves), blimp_fields(results)]
    for figure in figures:
        save(figure, tmp_path / "figure.png")
        assert [text.get_text() for text in figure.legends[0].get_texts()] == list(ODD)
    for figure in (scores(results, ["blimp"]), loss_matrix(results)):
        save(figure, tmp_path / "figure.png")


@pytest.mark.parametrize(
    ("names", "learning_rates"),
    [
        (("0.15", "0.40", "0.80"), (None,)),
        (("0.15", "0.30", "0.40", "0.80"), np.linspace(1e-4, 6e-4, 6)),
        (("0.15", "0.30", "0.40", "0.60", "0.80"), np.linspace(1e-4, 7e-4, 7)),
        ((f"{n} words of several tokens in a row, at two fifths of all tokens of the text" for n in range(9)), (None,)),
    ],
    ids=["3", "24", "35", "long"],
)
def test_a_legend_leaves_the_figure_its_room(names, learning_rates, tmp_path: Path):
    results, curves = of_grid(tuple(names), learning_rates)
    drawn = (training_losses, held_out_losses)
    figures = [one(results, curves) for one in drawn] + [blimp_fields(results), likelihood_curves(results)]
    for figure in figures:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            save(figure, tmp_path / "figure.png")
        [legend] = figure.legends
        inches = figure.dpi_scale_trans.inverted()
        box = legend.get_window_extent().transformed(inches)
        axes = [one.get_window_extent().transformed(inches) for one in figure.axes]
        assert box.x0 >= 0 and box.x1 <= figure.get_figwidth() and box.y0 >= 0
        assert min(one.y0 for one in axes) > box.y1
        assert min(one.height for one in axes) > 1
