"""The numbers in the tables of docs/results/small_data.md are those of its lines of results, where it has lines."""

import re
from pathlib import Path

from jaxmlm.runs.statistics import Series, compare_seeds
from jaxmlm.studies.comparisons import compare_pairs
from jaxmlm.studies.heat_maps import score_map
from jaxmlm.studies.results import StudyResults, collect, read_cell_results
from jaxmlm.user_code import find_object

RESULTS = Path(__file__).parent.parent / "docs" / "results"
SERIES = ("bound/bound", "heldout/loss@0.15", "heldout/loss@0.40", "heldout/loss@0.80", "blimp")
PARTS = ("bound/part@0-0.3", "bound/part@0.3-0.7", "bound/part@0.7-1")
PROBES = (
    "part of speech",
    "relation",
    "head distance",
    "tree depth",
    "tense",
    "number",
    "sentence length",
    "bigram shift",
)
LAWS = {
    "uniform from 0 to 100 %": "uniform",
    "uniform, weighted by the bound": "uniform, bound",
    "cosine": "cosine",
    "30 % falling to 15 %": "line 0.30 to 0.15",
}
PAIR = re.compile(r"([+-][\d.]+) \(([+-][\d.]+) to ([+-][\d.]+), p ([\d.]+)\)")


def lines(*questions: str) -> StudyResults:
    """The results of these questions together."""
    return collect(one for q in questions for one in read_cell_results(RESULTS / "small_data" / f"{q}.jsonl"))


def tables(heading: str) -> list[list[list[str]]]:
    """The tables under a heading of the page, each a list of rows of cells, without bold and without the heading."""
    page = (RESULTS / "small_data.md").read_text().replace("**", "")
    section = re.search(rf"(?ms)^## {heading}.*?\n(.*?)(?=^## |\Z)", page)
    assert section, heading
    found = re.findall(r"(?m)(?:^\|.*\n)+", section[1])
    return [[[cell.strip() for cell in row[1:-1].split("|")] for row in one.splitlines()[2:]] for one in found]


def scores(results: StudyResults, label: str, seed: int) -> list[str]:
    """Bound, losses at 15, 40 and 80 % masks, and BLiMP, as the page has them."""
    values = [results.series[name].by_label[label][seed] for name in SERIES]
    return [*(f"{value:.3f}" for value in values[:-1]), f"{100 * values[-1]:.1f}"]


def share(text: str) -> str:
    """The label of a rate.

    >>> share("15 %")
    '0.15'
    """
    return f"{int(text.split()[0]) / 100:.2f}"


def label_of(masking: str) -> str:
    """The label of a strategy.

    >>> label_of("words, 15 %")
    'rate=0.15,units=words'
    """
    units, rate = masking.split(", ")
    return f"rate={share(rate)},units={units}"


def label_of_pair(masked: str, predicted: str) -> str:
    """The label of two rates, which of equal ones is that of the rate."""
    if masked == predicted:
        return share(masked)
    return f"{masked} masked {predicted} predicted".replace(" %", "%")


def pairs_in(text: str) -> list[tuple[str, str]]:
    """The two cells that a row compares.

    >>> pairs_in("40 % masked, 15 % predicted, to 15 % of both: more corruption")
    [('40 %', '15 %'), ('15 %', '15 %')]
    """
    found = []
    for side in re.split(r",? to ", text.split(":")[0]):
        masked, *predicted = re.findall(r"\d+ %", side)
        found.append((masked, *predicted) if predicted else (masked, masked))
    return found


def check_pair(results: StudyResults, labels: tuple[str, str], cells: list[str], family: int) -> None:
    """Differences, intervals and p of a row, one of `family`, which has as many cells as there are series."""
    for name, cell in zip(SERIES, cells, strict=True):
        found = compare_seeds(*labels, results.series[name].by_label, family)
        difference, low, high, p = PAIR.fullmatch(cell).groups()  # type: ignore[union-attr]
        digits, scale = (1, 100) if name == "blimp" else (3, 1)
        said = [f"{scale * one:+.{digits}f}" for one in (found.difference, found.low, found.high)]
        assert [difference, low, high] == said, (labels, name)
        decimals = len(p.partition(".")[2])
        assert abs(float(p) - found.adjusted) <= 0.51 * 10.0**-decimals, (labels, name, found.adjusted)


def test_rates():
    results = lines("rates")
    cells, pairs, *_ = tables("Rates")
    assert len(cells) == 15 and len(pairs) == 10
    for rate, seed, bound, parts, *others in cells:
        label = share(rate)
        assert [bound, *others] == scores(results, label, int(seed))
        assert parts == ", ".join(f"{results.series[name].by_label[label][int(seed)]:.3f}" for name in PARTS)
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


def test_held_out_rows_of_both_texts():
    results = lines("heldout")
    _, _, rows, _ = tables("Rates")
    assert len(rows) == 6
    for rate, seed, *losses in rows:
        label = share(rate)
        found = [results.series[name].by_label[label][int(seed)] for name in SERIES if name.startswith("heldout")]
        assert losses == [f"{loss:.3f}" for loss in found]


def test_learning_rates():
    at_others = lines("learning_rates")
    rates = lines("rates")
    *_, rows = tables("Rates")
    assert len(rows) == 4
    for trained, learning_rate, seed, *others in rows:
        label = share(trained)
        if learning_rate == "4e-3":
            assert others == scores(rates, label, int(seed))[:-1]
        else:
            of = f"rate={label},learning_rate={float(learning_rate):g}"
            found = [at_others.series[name].by_label[of][int(seed)] for name in SERIES[:-1]]
            assert others == [f"{one:.3f}" for one in found]


def test_fine_tuning():
    results = lines("finetune")
    [rows] = tables("Fine-tuning")
    assert len(rows) >= 7
    for trained, seed, *scores_of in rows:
        label = "not pre-trained" if trained == "not pre-trained" else label_of(f"tokens, {trained}")
        for task, score in zip(("cola", "rte", "mrpc", "stsb", "sst2", "squad"), scores_of, strict=True):
            assert score == f"{100 * results.series[task].by_label[label][int(seed)]:.1f}", (trained, seed, task)


def test_sizes():
    results = lines("sizes")
    rates = lines("rates")
    [rows] = tables("Sizes")
    assert len(rows) >= 6
    for size, seed, bounds, *differences, blimps in rows:
        of = rates if size == "2 x 128" else results
        labels = [rate if of is rates else f"rate={rate},model={size}" for rate in ("0.15", "0.40")]
        two = [[of.series[name].by_label[label][int(seed)] for label in labels] for name in SERIES]
        assert bounds.split(", ") == [f"{one:.3f}" for one in two[0]]
        assert differences == [f"{high - low:.3f}" for low, high in two[:-1]]
        assert blimps.split(", ") == [f"{100 * one:.1f}" for one in two[-1]]


def test_strategies():
    single, pairs, masks, probes = tables("Strategies")
    strategies = lines("strategies")
    rates = lines("rates")
    assert len(single) == 24 and len(pairs) == 4
    for masking, seed, *others in single:
        unit, rate = masking.split(", ")
        of, label = (rates, share(rate)) if unit == "tokens" else (strategies, label_of(masking))
        bound, at_15, at_40, _, blimp = scores(of, label, int(seed))
        assert others == [bound, at_15, at_40, blimp], masking
    for unit, *others in pairs:
        two = ("0.40", "0.15") if unit == "tokens" else at_two_rates(unit)
        check_pair(rates if unit == "tokens" else strategies, two, others, family=4)
    of_masks = {(one.label, one.seed): one.scores for one in read_cell_results(RESULTS / "small_data" / "masks.jsonl")}
    assert len(masks) == len(of_masks)
    for masking, seed, *others, whole, parts in masks:
        line = of_masks[label_of(masking), int(seed)]
        for unit, cell in zip(("tokens", "words", "phrases", "spans"), others, strict=True):
            assert cell == f"{line[unit + ' 15%']:.3f}, {line[unit + ' 40%']:.3f}", (masking, seed)
        assert [whole, parts] == [f"{line[one]:.3f}" for one in ("words of one token", "parts of longer words")]
    page = (RESULTS / "small_data.md").read_text()
    at_own = {"words": "{} nats ({}) ahead of", "phrases": "of phrases {} ({})", "tokens": "of tokens {} ({})"}
    for unit, words in at_own.items():
        own = compare_seeds(*at_two_rates(unit), at_masks(f"{unit} 15%"), 4)
        assert words.format(f"{-own.difference:.3f}", f"{-own.high:.3f} to {-own.low:.3f}") in page
    results = lines("probes")
    assert len(probes) == 24
    for masking, seed, *others in probes:
        if masking == "most frequent class":
            found = [results.series[f"probe/{name}/majority"].by_label[label_of("tokens, 15 %")][0] for name in PROBES]
        else:
            label = "not pre-trained" if masking == "untrained" else label_of(masking)
            found = [results.series[f"probe/{name}"].by_label[label][int(seed)] for name in PROBES]
        assert others == [f"{100 * one:.1f}" for one in found], masking


def test_probes_of_the_rates():
    results = lines("probes")
    [rows] = tables("Probes of the rates")
    assert len(rows) >= 6
    labels = {"2 x 128": "rate={:.2f},units=tokens", "2 x 128, 80-10-10": "replace=80-10-10,rate={:.2f}"}
    for encoder, seed, *others in rows:
        label = labels.get(encoder, f"rate={{:.2f}},model={encoder}")
        for name, cell in zip(PROBES, others, strict=True):
            of = results.series[f"probe/{name}"].by_label
            assert cell == ", ".join(f"{100 * of[label.format(rate)][int(seed)]:.1f}" for rate in (0.15, 0.40))


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
    assert len(rows) >= 19
    for masking, seed, *others in rows:
        of, label = (rates, share(masking)) if masking.endswith("fixed") else (laws, LAWS[masking])
        assert others == scores(of, label, int(seed)), masking
    of_both = lines("rates", "laws")
    names = LAWS | {"15 %": "0.15", "40 %": "0.40", "uniform": "uniform"}
    for pair, *others in pairs:
        first, second = pair.replace("bound, to", "bound to").split(" to ")
        check_pair(of_both, (names[first], names[second]), others, family=6)


def test_replacement():
    results = lines("replacement")
    rates = lines("rates")
    [rows] = tables("Replacement")
    assert len(rows) >= 5
    for rate, seed, mask, bert, random in rows:
        assert mask == ", ".join(scores(rates, share(rate), int(seed)))
        assert bert == ", ".join(scores(results, f"replace=80-10-10,rate={share(rate)}", int(seed)))
        if random:
            assert random == ", ".join(scores(results, f"replace=5 random,rate={share(rate)}", int(seed)))
    assert sum(bool(random) for *_, random in rows) == 4


def test_the_numbers_of_the_readme():
    rates, heldout, replacement = (lines(one) for one in ("rates", "heldout", "replacement"))
    readme = (RESULTS.parents[1] / "README.md").read_text().split("## Beside others")[0]
    index = (RESULTS.parent / "index.md").read_text()
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
    bert = compare_seeds("0.40", "replace=80-10-10,rate=0.40", replaced(rates, replacement))
    assert f"{bert.difference:.3f} nats ahead of [MASK] alone ({bert.low:.3f} to {bert.high:.3f})" in readme


def at_two_rates(unit: str) -> tuple[str, str]:
    """The labels of a strategy at 40 and at 15 %."""
    return label_of(f"{unit}, 40 %"), label_of(f"{unit}, 15 %")


def at_masks(of: str) -> Series:
    """The losses at these masks, by label and seed."""
    found: Series = {}
    for one in read_cell_results(RESULTS / "small_data" / "masks.jsonl"):
        found.setdefault(one.label, {})[one.seed] = one.scores[of]
    return found


def replaced(rates: StudyResults, replacement: StudyResults) -> Series:
    """The bound of the rates and of the replacements together."""
    return rates.series["bound/bound"].by_label | replacement.series["bound/bound"].by_label


def test_the_figures_of_several_questions_are_of_these_lines():
    benchmarks = RESULTS.parents[1] / "benchmarks"
    pairs = find_object(f"{benchmarks / 'small_data_figures.py'}:pairs", "the pairs of rates")
    heat_map = score_map(pairs())
    assert heat_map is not None
    means, _ = tables("Corruption")
    in_page = [cell.split(" ")[0] for _, *cells in means for cell in cells if cell]
    assert [text.get_text() for text in heat_map.axes[0].texts] == in_page
