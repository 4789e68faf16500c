"""The heat map of a study that varies two numbers: every mean in its place, and the best one framed."""

import itertools

import pytest
from matplotlib.colors import to_hex

from jaxmlm.studies.content import Report, sections_of
from jaxmlm.studies.heat_maps import BEST, score_map
from tests.studies.test_report import blimp, results_of, row

RATES = (0.15, 0.4, 0.8)
STEPS = (100, 1000)


def of_two_numbers(stage: str, task: str, score: str) -> list[dict]:
    """Three rates by two numbers of steps, two seeds; rate 0.8 with 1000 steps has not run."""
    return [
        row({"masking.rate": rate, "loop.steps": steps}, seed, stage, task, {score: 0.5 + rate / 5 + steps / 1e4})
        for rate, steps, seed in itertools.product(RATES, STEPS, range(2))
        if (rate, steps) != (0.8, 1000)
    ]


def texts_of(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def framed(figure) -> list[int]:
    """The numbers of the cells with a frame."""
    edges = [patch.get_edgecolor() for patch in figure.axes[0].patches]
    return [number for number, edge in enumerate(edges) if edge[-1] and to_hex(edge) == BEST.lower()]


def test_a_bound_is_best_where_it_is_lowest_and_gaps_stay_empty():
    figure = score_map(results_of(of_two_numbers("bound", "heldout", "bound")))
    assert figure is not None
    assert texts_of(figure) == ["0.540", "0.630", "0.590", "0.680", "0.670"]
    assert framed(figure) == [0]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["0.15", "0.40", "0.80"]
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["100", "1000"]


def test_an_accuracy_is_best_where_it_is_highest():
    figure = score_map(results_of(of_two_numbers("blimp", "blimp", "accuracy")))
    assert figure is not None
    assert texts_of(figure) == ["54.0", "63.0", "59.0", "68.0", "67.0"]
    assert framed(figure) == [3]


def test_one_number_a_name_or_controls_alone_have_no_heat_map():
    named = [
        row({"masking.rate": rate, "masking.units": units}, 0, "blimp", "blimp", {"accuracy": rate})
        for rate, units in itertools.product((0.15, 0.4), ("tokens", "words"))
    ]
    of_controls = [row(None, 0, "bound", "heldout", {"bound": 9.0}), *of_two_numbers("heldout", "mlm", "loss@0.15")]
    for rows in (blimp({0.15: [0.6], 0.4: [0.7]}), named, of_controls):
        assert score_map(results_of(rows)) is None


@pytest.mark.parametrize(
    ("stage", "task", "score", "caption"),
    [
        ("bound", "heldout", "bound", "Likelihood bound, nats a token, over both varied numbers"),
        ("blimp", "blimp", "accuracy", "BLiMP, accuracy (%), over both varied numbers"),
    ],
)
def test_the_report_has_it(stage, task, score, caption):
    sections = sections_of(Report("Two numbers", results_of(of_two_numbers(stage, task, score))))
    drawings = [block for section in sections for block in section.blocks if getattr(block, "name", "") == "map"]
    assert len(drawings) == 1 and drawings[0].caption.startswith(caption)
