"""The bound in a report: the envelope and the price against numbers by hand, the verdict, the page."""

import numpy as np
import pytest

from jaxmlm.studies import figures, verdict
from jaxmlm.studies.content import Report
from jaxmlm.studies.likelihood import BOUND, HOW_TO_READ, PRICE, RATES, envelopes, mean_curve, price
from jaxmlm.studies.page import to_html
from jaxmlm.studies.score_table import mean_and_deviation, score_columns
from jaxmlm.studies.summary import summarise
from jaxmlm.tasks.bound import BINS, curve_name
from tests.studies.test_report import results_of, row, whole

LOW = np.array([1.0] * 5 + [5.0] * 5)
HIGH = np.array([2.0] * 5 + [3.0] * 5)
"""Curves of models that are best at low and at high rates."""


def bound(rate: float | None, seed: int, curve: np.ndarray, halves: tuple[float, float] = (0.0, 0.0)) -> dict:
    """A line of results; the halves of the text are so much harder than the whole."""
    scores = {"bound": float(curve.mean()), "bound_se": 0.1, "bits_per_byte": 1.0, "rows": 9.0}
    scores |= {curve_name("curve", i): float(curve[i]) for i in range(BINS)}
    for half in (0, 1):
        scores |= {curve_name(f"half/{half}", i): float(curve[i]) + halves[half] for i in range(BINS)}
    return row(rate and {"masking.rate": rate}, seed, "bound", "heldout", scores, main="bound")


def three_seeds() -> list[dict]:
    """The second model is better by .5 nats, with a little noise."""
    noise = (0.0, 0.02, -0.01)
    rows = [bound(rate, s, curve + n * k) for s, n in enumerate(noise) for rate, curve, k in CURVES]
    return rows + [bound(None, s, np.full(BINS, 6.0) + n) for s, n in enumerate(noise)]


CURVES = ((0.15, LOW, 1.0), (0.8, HIGH, -1.0))


def test_the_envelope_and_the_price_are_those_by_hand():
    results = results_of([bound(0.15, 0, LOW), bound(0.8, 0, HIGH)])
    assert envelopes(results, results.labels)[0].tolist() == [1.0] * 5 + [3.0] * 5
    assert price(results).by_label == {"0.15": {0: pytest.approx(1.0)}, "0.80": {0: pytest.approx(0.5)}}
    assert mean_curve(results, "0.15").tolist() == LOW.tolist()
    assert len(RATES) == BINS and RATES[0] == 0.05


def test_a_model_is_chosen_on_the_half_on_which_it_is_not_scored():
    """One that is better on its own half by chance gains nothing there."""
    results = results_of([bound(0.15, 0, LOW, (-9.0, 9.0)), bound(0.8, 0, LOW)])
    assert envelopes(results, results.labels)[0].tolist() == (LOW + 4.5).tolist()


def test_a_price_below_0_stays_below_0():
    """On either half chance chooses the other model, which on the other half is the worse."""
    rows = [bound(0.15, seed, LOW + 0.07 * (seed == 2)) for seed in range(3)]
    rows += [bound(0.8, seed, LOW + 0.02, (-0.04, 0.04)) for seed in range(3)]
    results = results_of(rows)
    found = price(results).by_label["0.15"]
    assert [round(one, 3) for one in found.values()] == [-0.03, -0.03, 0.05]
    assert price(results).spread("0.15").mean == pytest.approx(-0.01 / 3)
    assert "one model for all rates loses 0.15 -0.003, 0.80 -0.007" in " ".join(verdict.sentences(results))


def price_of_better(curve: np.ndarray) -> float:
    """The price of a model that is better than the other at every rate."""
    return price(results_of([bound(0.15, 0, curve, (-0.1, 0.1)), bound(0.8, 0, curve + 1.0)])).by_label["0.15"][0]


def test_a_price_that_is_0_but_for_rounding_has_no_sign():
    best = next(
        curve
        for seed in range(100)
        if -1e-9 < price_of_better(curve := np.random.default_rng(seed).uniform(3, 7, BINS)) < 0
    )
    results = results_of([bound(0.15, 0, best, (-0.1, 0.1)), bound(0.8, 0, best + 1.0)])
    table = {column.heading: mean_and_deviation(column, "0.15") for column in score_columns(results)}
    assert table["price (nats)"] == ("0.000", "(1)")
    assert "loses 0.15 0.000," in " ".join(verdict.sentences(results))


def test_there_is_no_envelope_of_one_model_nor_of_a_curve_with_a_gap():
    assert price(results_of([bound(0.15, 0, LOW)])) is None
    gap = bound(0.8, 0, HIGH)
    del gap["scores"][curve_name("half/1", 3)]
    assert price(results_of([bound(0.15, 0, LOW), gap])) is None
    assert price(results_of([bound(0.15, 0, LOW), bound(0.8, 1, HIGH)])) is None  # other seeds


def test_the_verdict_goes_by_the_bound_first_and_lower_is_better():
    said = verdict.sentences(results_of([*three_seeds(), *whole()]))
    assert said[-1].startswith("Verdict: by the likelihood bound, 0.80 is best. By BLiMP accuracy, 0.40 is best. By ")
    text = " ".join(said)
    assert "The likelihood bound: 0.80 is best beyond noise." in text and "Means 0.80 2.497, 0.15 3.003." in text
    assert "0.80 over 0.15: -0.507 nats, interval -0.5" in text
    assert "the lower envelope of the models is 2.000 nats per token" in text
    assert "one model for all rates loses 0.15 1.003, 0.80 0.497" in text
    one_seed = verdict.sentences(results_of([bound(0.15, 0, LOW), bound(0.8, 0, HIGH)]))[-1]
    assert "a tendency only" in one_seed and "by the likelihood bound, 0.80 is ahead" in one_seed


def test_the_table_the_summary_and_the_page_have_it():
    results = results_of(three_seeds())
    found = {column.heading: mean_and_deviation(column, "0.80") for column in score_columns(results)}
    assert found == {"bound (nats)": ("2.497", "± 0.015 (3)"), "price (nats)": ("0.497", "± 0.015 (3)")}
    numbers = summarise(results)
    assert numbers["rates"]["0.80"]["scores"][BOUND]["mean"] == pytest.approx(2.4967, abs=1e-4)
    assert numbers["rates"]["0.15"]["scores"][PRICE]["n"] == 3
    assert [pair["beyond_noise"] for pair in numbers["pairs"]] == [True]
    page = to_html(Report("title", results))
    assert all(sentence in page for sentence in HOW_TO_READ) and 'id="likelihood-' in page
    assert "half/" not in page and "curve@" not in page
    curves, above = figures.likelihood_curves(results).axes
    assert sum(line.get_linewidth() > 1 for line in curves.lines) == 4  # two models, the control, the envelope
    zero, *models = above.lines
    assert set(zero.get_ydata()) == {0} and len(models) == 2
    lost = [np.mean(line.get_ydata()) for line in models]
    assert lost == pytest.approx([1.003, 0.497], abs=1e-3)  # the price of not specialising
    assert figures.likelihood_curves(results_of(whole())) is None
