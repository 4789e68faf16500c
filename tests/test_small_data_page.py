"""The numbers of docs/results/small_data.md and of the README are those of the lines of results."""

import re
from statistics import fmean

from jaxmlm.runs.statistics import compare_seeds
from jaxmlm.studies.comparisons import compare_pairs
from jaxmlm.studies.heat_maps import score_map
from jaxmlm.user_code import find_object
from tests.small_data_pages import (
    LAWS,
    PAIR,
    RESULTS,
    SERIES,
    at_masks,
    at_two_rates,
    check_pair,
    label_of,
    label_of_pair,
    leads,
    lines,
    lines_of_masks,
    majorities,
    pairs_in,
    probed_at,
    probes_of,
    replaced,
    score,
    scores,
    seeds_of,
    share,
    tables,
)


def test_rates():
    results = lines("rates")
    means, pairs = tables("Rates")
    assert len(means) == 5 and len(pairs) == 10
    for rate, *others in means:
        assert others == scores(results, share(rate))
    for pair, *others in pairs:
        a, b = map(share, pair.split(" to "))
        check_pair(results, (a, b), others, family=10)


def test_the_intervals_are_those_of_the_report():
    results = lines("rates")
    page = (RESULTS / "small_data.md").read_text()
    rows = re.findall(r"(?m)^\| (\d+ % to \d+ %) \| (.*) \|$", page)
    assert len(rows) == 10
    for pair, row in rows:
        labels = set(map(share, pair.split(" to ")))
        for name, cell in zip(SERIES, row.split(" | "), strict=True):
            [found] = [one for one in compare_pairs(results, results.series[name]) if {one.a, one.b} == labels]
            assert cell.startswith("**") == found.sure, pair
            scale, digits = (100, 1) if name == "blimp" else (1, 3)
            edges = sorted(f"{abs(scale * edge):.{digits}f}" for edge in (found.low, found.high))
            _, low, high, _ = PAIR.fullmatch(cell.strip("*")).groups()  # type: ignore[union-attr]
            assert edges == sorted(edge.strip("+-") for edge in (low, high)), pair


def test_what_is_said_of_rates():
    page = (RESULTS / "small_data.md").read_text()
    of_both = lines("heldout").series
    at_15 = compare_seeds("0.15", "0.40", of_both["heldout/loss@0.15"].by_label, 10)
    assert f"by {at_15.difference:.3f} nats at 15 % masks ({at_15.low:.3f} to {at_15.high:.3f}," in page
    others = [compare_seeds("0.15", "0.40", of_both[f"heldout/loss@{mask}"].by_label, 10) for mask in ("0.40", "0.80")]
    assert "by {:.3f} at 40 % and {:.3f} at 80 %".format(*(one.difference for one in others)) in page
    swept = lines("learning_rates").series["bound/bound"].by_label
    low, high = (swept[f"rate=0.15,learning_rate={peak}"][0] for peak in ("0.002", "0.008"))
    tuned = lines("rates").series["bound/bound"].by_label["0.15"][0]
    assert f"the bound is {low:.3f}, {tuned:.3f} and {high:.3f} (one seed)" in page


def test_steps():
    longer = lines("steps")
    means, pairs, along = tables("Steps")
    assert len(means) == 2 and len(pairs) == 1
    for rate, *others in means:
        assert others == scores(longer, share(rate)) + probes_of(longer, share(rate))[:2]
    [[_, *differences]] = pairs
    check_pair(longer, ("0.40", "0.15"), differences, family=1)
    assert along and all(row in leads() for row in along)
    page = (RESULTS / "small_data.md").read_text()
    after_10 = score(lines("rates"), "bound/bound", "0.40")
    assert (
        f"{score(longer, 'bound/bound', '0.15'):.3f} after 30 M tokens where 40 % has {after_10:.3f} after 10 M" in page
    )


def test_fine_tuning():
    results = lines("finetune")
    [[*rows, larger]] = tables("Fine-tuning")
    assert len(rows) == 3
    rte, mrpc, sst2 = 146 / 277, 2 * 279 / (279 + 408), 444 / 872  # by the labels of the official dev sets
    assert larger == ["larger class", "", "0", f"{100 * rte:.1f}", f"{100 * mrpc:.1f}", "", f"{100 * sst2:.1f}", ""]
    for trained, seeds, *scores_of in rows:
        label = trained if trained == "not pre-trained" else label_of(f"tokens, {trained}")
        for task, found in zip(("cola", "rte", "mrpc", "stsb", "sst2", "squad"), scores_of, strict=True):
            assert found == f"{100 * score(results, task, label):.1f}", (trained, task)
            assert seeds == str(len(results.series[task].by_label[label]))


def test_sizes():
    results = lines("sizes")
    rates = lines("rates")
    [rows] = tables("Sizes")
    assert len(rows) == 3
    for size, bounds, *differences, blimps in rows:
        of = rates if size == "2 x 128" else results
        labels = [rate if of is rates else f"rate={rate},model={size}" for rate in ("0.15", "0.40")]
        two = [[score(of, name, label) for label in labels] for name in SERIES]
        assert bounds.split(", ") == [f"{one:.3f}" for one in two[0]]
        assert differences == [f"{high - low:.3f}" for low, high in two[:-1]]
        assert blimps.split(", ") == [f"{100 * one:.1f}" for one in two[-1]]


def test_strategies():
    pairs, masks, probes = tables("Strategies")
    strategies = lines("strategies")
    rates = lines("rates")
    assert len(pairs) == 4 and len(masks) == 8 and len(probes) == 10
    for unit, *others in pairs:
        two = ("0.40", "0.15") if unit == "tokens" else at_two_rates(unit)
        check_pair(rates if unit == "tokens" else strategies, two, others, family=4)
    lines_of = lines_of_masks()
    for masking, *others, whole, parts in masks:
        by_seed = lines_of[label_of(masking)].values()
        mean = {key: fmean(line[key] for line in by_seed) for key in next(iter(by_seed))}
        for unit, cell in zip(("tokens", "words", "phrases", "spans"), others, strict=True):
            assert cell == f"{mean[unit + ' 15%']:.3f}, {mean[unit + ' 40%']:.3f}", masking
        assert [whole, parts] == [f"{mean[one]:.3f}" for one in ("words of one token", "parts of longer words")]
    page = (RESULTS / "small_data.md").read_text()
    at_own = {"words": "{} nats ({}) ahead of", "phrases": "of phrases {} ({})", "tokens": "of tokens {} ({})"}
    for unit, words in at_own.items():
        own = compare_seeds(*at_two_rates(unit), at_masks(f"{unit} 15%"), 4)
        assert words.format(f"{-own.difference:.3f}", f"{-own.high:.3f} to {-own.low:.3f}") in page
    results = lines("probes")
    for masking, *others in probes:
        if masking == "most frequent class":
            assert others == majorities(results)[:2]
        else:
            label = "not pre-trained" if masking == "untrained" else label_of(masking)
            assert others == probes_of(results, label)[:2], masking


def test_probes_of_the_rates():
    results = lines("probes")
    [rows] = tables("Probes of the rates")
    assert len(rows) == 4
    for encoder, *others in rows:
        two = [probes_of(results, label)[:2] for label in probed_at(encoder)]
        assert others == [", ".join(both) for both in zip(*two, strict=True)]


def test_corruption_and_prediction():
    results = lines("prediction", "rates")
    means, pairs = tables("Corruption")
    bound = results.series["bound/bound"]
    seen = 0
    for masked, *cells in means:
        for predicted, cell in zip(("15 %", "40 %", "80 %"), cells, strict=True):
            if cell:
                seen += 1
                found = bound.spread(label_of_pair(masked.removesuffix(" masked"), predicted))
                assert found is not None
                seeds = {1: " (one seed)", 2: " (two seeds)", 3: ""}[found.n]
                assert cell == f"{found.mean:.3f}{seeds}"
    assert seen == 6
    for pair, *others in pairs:
        a, b = (label_of_pair(*of) for of in pairs_in(pair))
        check_pair(results, (a, b), others, family=3)


def test_laws():
    rates = lines("rates")
    laws = lines("laws")
    rows, pairs = tables("Laws")
    assert len(rows) == 7
    for masking, seeds, *others in rows:
        of, label = (rates, share(masking)) if masking.endswith("fixed") else (laws, LAWS[masking])
        assert others == scores(of, label), masking
        assert seeds == seeds_of(of, label), masking
    of_both = lines("rates", "laws")
    names = LAWS | {"15 %": "0.15", "40 %": "0.40", "uniform": "uniform"}
    for pair, *others in pairs:
        first, second = pair.replace("bound, to", "bound to").split(" to ")
        check_pair(of_both, (names[first], names[second]), others, family=6)


def test_replacement():
    results = lines("replacement")
    rates = lines("rates")
    [rows] = tables("Replacement")
    assert len(rows) == 6
    names = {"80-10-10": "80-10-10", "95 % [MASK], 5 % random": "5 random"}
    for rate, how, seeds, *others in rows:
        of, label = rates, share(rate)
        if how != "[MASK] only":
            of, label = results, f"replace={names[how]},rate={label}"
        assert others == scores(of, label), (rate, how)
        assert seeds == seeds_of(of, label), (rate, how)


def test_the_numbers_of_the_readme():
    rates, heldout, replacement = (lines(one) for one in ("rates", "heldout", "replacement"))
    readme = (RESULTS.parents[1] / "README.md").read_text().split("## Beside others")[0]
    index = (RESULTS.parent / "index.md").read_text()
    longer = lines("steps")
    lasting = compare_seeds("0.15", "0.40", longer.series["bound/bound"].by_label)
    assert f"by {lasting.difference:.3f} nats of the bound ({lasting.low:.3f} to {lasting.high:.3f})" in readme
    lasting = compare_seeds("0.15", "0.40", longer.series["heldout/loss@0.15"].by_label)
    assert f"by {lasting.difference:.3f} at 15 % masks ({lasting.low:.3f} to {lasting.high:.3f})" in readme
    assert f"its lead was {dict((row[0], row[1]) for row in leads())['10 M']} at 10 M" in readme
    at_15 = compare_seeds("0.15", "0.40", heldout.series["heldout/loss@0.15"].by_label, 10)
    interval = f"{at_15.low:.3f} to {at_15.high:.3f}"
    assert readme.count(interval) == 2 and readme.count(f"by {at_15.difference:.3f} nats (") == 2
    assert interval in index and f"by {at_15.difference:.3f} nats" in index
    bound = {frozenset((one.a, one.b)): one for one in compare_pairs(rates, rates.series["bound/bound"])}
    gain = bound[frozenset(("0.15", "0.40"))]
    assert f"40 % by {-gain.difference:.3f} nats a token ({-gain.high:.3f} to {-gain.low:.3f})" in readme
    flat = bound[frozenset(("0.40", "0.60"))]
    assert f"{flat.difference:+.3f}, {flat.low:+.3f} to {flat.high:+.3f})" in readme
    both = lines("rates", "prediction").series["bound/bound"].by_label
    predicted = compare_seeds("40% masked 15% predicted", "0.40", both, 3)
    assert f"gains {predicted.difference:.3f} nats ({predicted.low:.3f} to {predicted.high:.3f})" in readme
    corrupted = compare_seeds("40% masked 15% predicted", "0.15", both, 3)
    assert f"costs, {corrupted.difference:.3f}, is" in readme
    assert f"({corrupted.low:+.3f} to {corrupted.high:+.3f})" in readme
    drawn = lines("rates", "laws").series["bound/bound"].by_label
    for law, words in (("uniform", "of the bound behind a fixed 40 % "), ("uniform, bound", "")):
        behind = compare_seeds(law, "0.40", drawn, 6)
        unit = " nats" if words else ""
        assert f"{behind.difference:.3f}{unit} {words}({behind.low:.3f} to {behind.high:.3f})" in readme
    units = ("words", "phrases", "spans")
    of_units = lines("strategies").series["bound/bound"].by_label
    gains = [compare_seeds(*at_two_rates(unit), of_units, 4) for unit in units]
    assert all(one.high < 0 for one in gains)
    first, second, third = (f"{-one.difference:.3f}" for one in gains)
    assert f"by the bound (by {first}, {second} and {third} nats)" in readme
    own = [compare_seeds(*at_two_rates(unit), at_masks(f"{unit} 15%"), 4) for unit in units[:2]]
    assert all(one.high < 0 for one in own)
    first, second = (f"{-one.difference:.3f}" for one in own)
    assert f"at their own 15 % masks\n  (by {first} and {second})" in readme
    bert = compare_seeds("0.40", "replace=80-10-10,rate=0.40", replaced(rates, replacement), 4)
    assert f"{bert.difference:.3f} nats ahead of [MASK] alone ({bert.low:.3f} to {bert.high:.3f})" in readme


def test_the_figures_of_several_questions_are_of_these_lines():
    benchmarks = RESULTS.parents[1] / "benchmarks"
    pairs = find_object(f"{benchmarks / 'small_data_figures.py'}:pairs", "the pairs of rates")
    heat_map = score_map(pairs())
    assert heat_map is not None
    means, _ = tables("Corruption")
    in_page = [cell.split(" ")[0] for _, *cells in means for cell in cells if cell]
    assert [text.get_text() for text in heat_map.axes[0].texts] == in_page
