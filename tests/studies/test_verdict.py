"""The verdict in words: a win, noise, tendencies, intervals and sentences of one family."""

import itertools
import json

import numpy as np
import pytest

from jaxmlm.studies import verdict
from jaxmlm.studies.comparisons import best_beyond_noise, compare_with_controls
from tests.studies.test_report import blimp, last, results_of, row, summary, verdict_of, whole


def test_a_clear_win_is_said_with_its_numbers():
    rows = blimp({0.15: [0.60, 0.62, 0.61], 0.4: [0.70, 0.72, 0.725], None: [0.50, 0.51, 0.49]})
    assert last(rows) == (
        "Verdict: by BLiMP accuracy, 0.40 is best. "
        "Pre-training beats the untrained encoder beyond noise at every value."
    )
    assert "BLiMP accuracy: 0.40 is best beyond noise. Means 0.40 71.5, 0.15 61.0." in verdict_of(rows)
    assert "0.40 over 0.15: +10.5 points, interval +" in verdict_of(rows)
    assert verdict_of(rows).endswith(last(rows))
    results = results_of(rows)
    assert best_beyond_noise(results, results.series["blimp"]) == {"0.40"}
    assert [pair.a for pair in compare_with_controls(results, results.series["blimp"])] == ["0.15", "0.40"]


def test_noise_is_called_noise():
    rows = blimp({0.15: [0.60, 0.66, 0.61], 0.4: [0.64, 0.60, 0.65]})
    assert last(rows) == "Verdict: by BLiMP accuracy, no difference beyond noise."
    results = results_of(rows)
    assert best_beyond_noise(results, results.series["blimp"]) == set()


def test_one_value_may_be_worse_without_any_being_best():
    rows = blimp({0.15: [0.70, 0.72, 0.71], 0.4: [0.71, 0.705, 0.725], 0.8: [0.50, 0.521, 0.509]})
    assert last(rows) == (
        "Verdict: by BLiMP accuracy, 0.80 is worse than 0.15 and 0.40; no value is best beyond noise."
    )


def test_scores_that_say_the_same_share_a_sentence_and_the_control_has_its_own():
    noise, lead = [0.60, 0.66, 0.61], [0.60, 0.62, 0.61]
    rows = blimp({0.15: noise, 0.4: [0.64, 0.60, 0.65], None: [0.50, 0.51, 0.49]})
    tuned = {0.15: noise, 0.4: [0.62, 0.61, 0.65], None: lead}
    rows += [
        row(rate and {"masking.rate": rate}, seed, "finetune", "rte", {"accuracy": score}, main="accuracy", tuning=0)
        for rate, scores in tuned.items()
        for seed, score in enumerate(scores)
    ]
    assert last(rows) == (
        "Verdict: by BLiMP accuracy and fine-tuning on rte, no difference beyond noise. "
        "Pre-training beats the untrained encoder beyond noise: by BLiMP accuracy at every value. "
        "Pre-training does not beat the untrained encoder beyond noise: by fine-tuning on rte."
    )


def test_values_that_share_the_best_mean_are_all_named():
    rows = blimp({0.15: [0.527], 0.4: [0.527], 0.8: [0.473]})
    assert last(rows).endswith("by BLiMP accuracy, 0.15 and 0.40 are ahead.")
    assert last(rows[:2]).endswith("by BLiMP accuracy, there is no difference.")
    three_seeds = blimp({0.15: [0.52, 0.53, 0.54], 0.4: [0.54, 0.52, 0.53], 0.8: [0.473, 0.47, 0.48]})
    assert "BLiMP accuracy: 0.15 and 0.40 share the highest mean. Means" in verdict_of(three_seeds)
    losses = [row({"masking.rate": rate}, 0, "heldout", "mlm", {"loss@0.15": 3.0}) for rate in (0.15, 0.4)]
    assert "lowest: 0.15 and 0.40 at 15 % masks." in verdict_of(losses)


def test_who_is_best_is_decided_on_the_seeds_that_both_have():
    """A seed that one value lacks, as its pre-training diverged, moves the mean of the others."""
    rows = blimp({0.15: [0.60, 0.62, 0.61, 0.90, 0.91], 0.4: [0.70, 0.721, 0.709]})
    said = verdict_of(rows)
    assert last(rows) == "Verdict: by BLiMP accuracy, 0.40 is best."
    assert "0.15 has the highest mean over its own seeds, but is behind 0.40 over the seeds that both have." in said
    assert "its lead" not in said
    results = results_of(rows)
    assert best_beyond_noise(results, results.series["blimp"]) == {"0.40"}
    control = blimp({0.4: [0.70, 0.721, 0.709], 0.15: [0.6, 0.62, 0.61], None: [0.50, 0.51, 0.49, 0.99, 0.99, 0.99]})
    results = results_of(control)
    assert best_beyond_noise(results, results.series["blimp"]) == {"0.40"}


def test_nobody_leads_where_a_comparison_says_otherwise():
    """Neither beyond noise nor within it."""
    noisy = blimp({0.15: [0.60, 0.66, 0.61, 0.90, 0.91], 0.4: [0.64, 0.65, 0.65]})
    assert last(noisy) == "Verdict: by BLiMP accuracy, no difference beyond noise."
    assert "is behind 0.40 over the seeds that both have" in verdict_of(noisy)
    third = verdict_of([*noisy, *blimp({0.8: [0.30, 0.301, 0.299]})])
    assert "BLiMP accuracy: no value is best beyond noise. Means" in third and "its lead" not in third


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_give_a_tendency_and_no_verdict(seeds):
    """Two seeds that agree have a small p: that is no evidence of three."""
    rows = blimp({0.15: [0.60, 0.6001][:seeds], 0.4: [0.70, 0.7002][:seeds], None: [0.5, 0.5003][:seeds]})
    assert last(rows) == (
        "Verdict: none, a tendency only, as a verdict needs 3 pre-training seeds: by BLiMP accuracy, 0.40 is ahead."
    )
    said = verdict_of(rows)
    assert f"{seeds} seed{'s' if seeds > 1 else ''}, so no error bar" in said.lower() and "beyond noise" not in said
    assert said.lower().count("so no error bar") == 1
    results, found = results_of(rows), summary(rows)
    assert best_beyond_noise(results, results.series["blimp"]) == set()
    for pair in found["pairs"] + found["control_pairs"]:
        assert (pair["p"], pair["low"], pair["beyond_noise"]) == (None, None, False)
    assert (found["rates"]["0.15"]["scores"]["blimp"]["sd"] is None) == (seeds == 1)


@pytest.mark.parametrize("values", [2, 4, 8])
def test_an_interval_excludes_0_where_the_difference_is_beyond_noise_and_there_only(values):
    """The intervals and the p values of a family are adjusted alike."""
    random, found = np.random.default_rng(values), []
    for spread in (0.002, 0.01, 0.02):
        for _ in range(8):
            scores = {
                round(0.1 * i, 1): list(0.6 + 0.01 * i + random.normal(0, spread, 3)) for i in range(1, values + 1)
            }
            rows = blimp({**scores, None: list(0.6 + random.normal(0, spread, 3))})
            one = summary(rows)
            found += one["pairs"] + one["control_pairs"]
    assert {pair["beyond_noise"] for pair in found} == {True, False}
    for pair in found:
        assert (pair["low"] > 0 or pair["high"] < 0) == pair["beyond_noise"] == (pair["adjusted"] < 0.05)


def test_sentences_are_short_enough_to_be_read_once():
    random, rates = np.random.default_rng(0), [round(0.1 * i, 1) for i in range(1, 9)]
    for spread in (0.001, 0.02, 0.1):
        rows = [
            row({"masking.rate": rate, "model": model}, seed, "blimp", "blimp",
                {"accuracy": 0.5 + rate / 10 + random.normal(0, spread)})
            for rate, model, seed in itertools.product(rates, ("tiny", "mini"), range(3))
        ]  # fmt: skip
        for sentence in verdict.sentences(results_of(rows))[:-1]:
            assert len(sentence) <= 160, sentence


@pytest.mark.parametrize("width", [40, 60, 100])
def test_the_terminal_breaks_sentences_between_words(width, tmp_path, capsys, monkeypatch):
    from jaxmlm.studies import study

    rows = whole()
    keys = [[one["cell"], one["stage"], one["task"], one["tuning_seed"], None] for one in rows]
    page = {"title": "t", "note": "", "sentences": {}, "origin": {}, "keys": keys, "logs": {}}
    (tmp_path / "report.json").write_text(json.dumps(page))
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    monkeypatch.setenv("COLUMNS", str(width))
    found = study.report(str(tmp_path))
    lines = capsys.readouterr().err.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("report: ")) + 1
    assert " ".join(" ".join(lines[first:]).split()) == " ".join(found["verdict"].split())
    assert max(map(len, lines[first:])) <= width
