"""The tables of the pages of small data, and their lines of results."""

import re
from pathlib import Path
from statistics import fmean

from jaxmlm.runs.statistics import Series, compare_seeds
from jaxmlm.studies.results import StudyResults, collect, read_cell_results

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
CELLS = "small_data_cells"
"""The page that has every cell."""
PAIR = re.compile(r"([+-][\d.]+) \(([+-][\d.]+) to ([+-][\d.]+), p ([\d.]+)\)")


def lines(*questions: str) -> StudyResults:
    """The results of these questions together."""
    return collect(one for q in questions for one in read_cell_results(RESULTS / "small_data" / f"{q}.jsonl"))


def tables(heading: str, page: str = "small_data") -> list[list[list[str]]]:
    """The tables under a heading of a page, each a list of rows of cells, without bold and without the heading."""
    page = (RESULTS / f"{page}.md").read_text().replace("**", "")
    section = re.search(rf"(?ms)^## {heading}.*?\n(.*?)(?=^## |\Z)", page)
    assert section, heading
    found = re.findall(r"(?m)(?:^\|.*\n)+", section[1])
    return [[[cell.strip() for cell in row[1:-1].split("|")] for row in one.splitlines()[2:]] for one in found]


def cells_of(heading: str) -> list[list[str]]:
    """The first table under a heading of the page of cells."""
    return tables(heading, CELLS)[0]


def score(results: StudyResults, series: str, label: str, seed: int | None = None) -> float:
    """The score of one seed, or the mean of all."""
    by_seed = results.series[series].by_label[label]
    return fmean(by_seed.values()) if seed is None else by_seed[seed]


def scores(results: StudyResults, label: str, seed: int | None = None) -> list[str]:
    """Bound, losses at 15, 40 and 80 % masks, and BLiMP, as the pages have them; of one seed, or their means."""
    values = [score(results, name, label, seed) for name in SERIES]
    return [*(f"{value:.3f}" for value in values[:-1]), f"{100 * values[-1]:.1f}"]


def probes_of(results: StudyResults, label: str, seed: int | None = None) -> list[str]:
    """What the probes read, of one seed or their means."""
    return [f"{100 * score(results, f'probe/{name}', label, seed):.1f}" for name in PROBES]


def seeds_of(results: StudyResults, label: str) -> str:
    """How many seeds there are."""
    return str(len(results.series["bound/bound"].by_label[label]))


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


def majorities(results: StudyResults) -> list[str]:
    """The share of the most frequent class of each probe."""
    label = label_of("tokens, 15 %")
    return [f"{100 * score(results, f'probe/{name}/majority', label, 0):.1f}" for name in PROBES]


def probed_at(encoder: str) -> list[str]:
    """The labels of the probes of an encoder at 15 and at 40 %.

    >>> probed_at("4 x 256")
    ['rate=0.15,model=4 x 256', 'rate=0.40,model=4 x 256']
    """
    labels = {"2 x 128": "rate={},units=tokens", "2 x 128, 80-10-10": "replace=80-10-10,rate={}"}
    return [labels.get(encoder, f"rate={{}},model={encoder}").format(rate) for rate in ("0.15", "0.40")]


def lines_of_masks() -> dict[str, dict[int, dict[str, float]]]:
    """The losses at others' masks, by label and seed."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for one in read_cell_results(RESULTS / "small_data" / "masks.jsonl"):
        found.setdefault(one.label, {})[one.seed] = one.scores
    return found


def leads() -> list[list[str]]:
    """What 40 % leads 15 % by along 30 M tokens: tokens, and means of the seeds at 15, 40 and 80 % masks, in nats."""
    found: dict[float, dict[str, dict[int, dict[str, float]]]] = {}
    for one in read_cell_results(RESULTS / "small_data" / "along.jsonl"):
        found.setdefault(round((one.tokens or 0) / 1e6, 1), {}).setdefault(one.label, {})[one.seed] = one.scores
    rows = []
    for tokens, by_label in sorted(found.items()):
        low, high = by_label["0.15"], by_label["0.40"]
        assert low.keys() == high.keys() == {0, 1, 2}
        gains = [fmean(low[seed][name] - high[seed][name] for seed in low) for name in sorted(low[0])]
        rows.append([f"{tokens:g} M", *(f"{gain:.3f}" for gain in gains)])
    return rows


def at_two_rates(unit: str) -> tuple[str, str]:
    """The labels of a strategy at 40 and at 15 %."""
    return label_of(f"{unit}, 40 %"), label_of(f"{unit}, 15 %")


def at_masks(of: str) -> Series:
    """The losses at these masks, by label and seed."""
    return {label: {seed: line[of] for seed, line in found.items()} for label, found in lines_of_masks().items()}


def replaced(rates: StudyResults, replacement: StudyResults) -> Series:
    """The bound of the rates and of the replacements together."""
    return rates.series["bound/bound"].by_label | replacement.series["bound/bound"].by_label
