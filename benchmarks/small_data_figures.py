"""The figures of docs/results/small_data.md that are of several questions: python benchmarks/small_data_figures.py

They are drawn from the lines of results beside the page, as `jaxmlm report` draws those of one question, with the cells
of the rates beside the others: sizes and strategies against the rate, and corruption by prediction as a heat map.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxmlm.plotting import save
from jaxmlm.studies.figures import likelihood_curves, scores
from jaxmlm.studies.heat_maps import score_map
from jaxmlm.studies.labels import label_of
from jaxmlm.studies.results import PROBES, CellResult, StudyResults, collect, read_cell_results

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "small_data"
RATE = "masking.rate"
PREDICT = "masking.predict"
PAIR = re.compile(r"(\d+)% masked (\d+)% predicted")


def trained(question: str) -> list[CellResult]:
    """The lines of a question, without those of untrained encoders."""
    return [one for one in read_cell_results(RESULTS / f"{question}.jsonl") if not one.control]


def moved(one: CellResult, values: dict[str, Any]) -> CellResult:
    """A line as one of a cell with these values."""
    return replace(one, values=values, cell=f"{label_of(values)},seed={one.seed}")


def fixed(name: str, value: Any, rates: tuple[float, ...]) -> list[CellResult]:
    """The cells of these rates as those of a question that varies something else, which has this value in them."""
    of = [one for one in trained("rates") if one.values[RATE] in rates]
    return [moved(one, one.values | {name: one.values[RATE] if value is None else value}) for one in of]


def sizes() -> StudyResults:
    """Three sizes at two rates, the smallest first."""
    lines = trained("sizes") + fixed("model", "2 x 128", (0.15, 0.40))
    order = ("1 x 64", "2 x 128", "4 x 256")
    return collect(sorted(lines, key=lambda one: order.index(one.values["model"])))


def strategies() -> StudyResults:
    """Tokens, words, phrases and spans at two rates: BLiMP, the likelihood and the probes."""
    probes = [one for one in trained("probes") if set(one.values) == {RATE, "masking.units"}]
    return collect(fixed("masking.units", "tokens", (0.15, 0.40)) + trained("strategies") + probes)


def pairs() -> StudyResults:
    """Corruption by prediction, both as numbers."""
    lines = fixed(PREDICT, None, (0.15, 0.40, 0.80))
    for one in trained("prediction"):
        found = PAIR.fullmatch(one.values["masking"])
        assert found, one.cell
        corrupted, predicted = (int(share) / 100 for share in found.groups())
        lines.append(moved(one, {RATE: corrupted, PREDICT: predicted}))
    return collect(lines)


def main() -> None:
    """Draw them all into the page's directory."""
    of_sizes, of_strategies = sizes(), strategies()
    drawn = {
        "sizes": likelihood_curves(of_sizes),
        "sizes_blimp": scores(of_sizes, ["blimp"]),
        "strategies": scores(of_strategies, [*PROBES, "blimp"]),
        "prediction": score_map(pairs()),
    }
    for name, figure in drawn.items():
        assert figure is not None, name
        save(figure, RESULTS / f"{name}.png")
        print(RESULTS / f"{name}.png")


if __name__ == "__main__":
    main()
