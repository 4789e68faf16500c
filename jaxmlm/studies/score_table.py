"""The first table of a report: the varied values, what they cost, and their scores. On the terminal and on the page."""

from typing import NamedTuple

from rich.text import Text

from jaxmlm.runs import tables
from jaxmlm.studies.comparisons import best_beyond_noise
from jaxmlm.studies.labels import format_value, path_in_words
from jaxmlm.studies.likelihood import BOUND, price
from jaxmlm.studies.results import PROBES, TOKENS_PER_WORD, ScoreSeries, StudyResults
from jaxmlm.tasks import babylm

PER_WORD = {
    "bits per word": "bound/bits_per_word",
    "general: bits per word": "general/bits_per_word",
    "tokens per word": TOKENS_PER_WORD,
}
"""Headings and series by which encoders of different tokenizers are compared."""


class ScoreColumn(NamedTuple):
    """A column of scores: its heading, and the series whose scores times `scale` it shows with so many digits."""

    heading: str
    series: ScoreSeries
    scale: float
    digits: int = 1


def score_columns(results: StudyResults) -> list[ScoreColumn]:
    """The columns of scores, those that have a number."""
    series = results.series
    found = []
    if bound := series.get(BOUND):
        found.append(ScoreColumn("bound (nats)", bound, 1.0, digits=3))
    if cost := price(results):
        found.append(ScoreColumn("price (nats)", cost, 1.0, digits=3))
    if results.has_other_words:
        found += [ScoreColumn(heading, series[name], 1.0, 2) for heading, name in PER_WORD.items() if name in series]
    if perplexity := series.get("heldout/perplexity"):
        found.append(ScoreColumn("perplexity (15 % masks)", perplexity, 1.0))
    for task in results.tasks:
        if task in series:
            found.append(ScoreColumn(task + series[task].suffix, series[task], 100.0))
    mean = series.get("finetune")
    if mean and len(results.tasks) > 1:
        found.append(ScoreColumn("tuned mean" + mean.suffix, mean, 100.0))
    if blimp := series.get("blimp"):
        found.append(ScoreColumn("BLiMP" + blimp.suffix, blimp, 100.0))
    found += [ScoreColumn(heading, series[name], 100.0) for name, heading in PROBES.items() if name in series]
    for task in babylm.TASKS:
        if one := series.get(f"babylm/{task}"):
            found.append(ScoreColumn(f"BabyLM {task.replace('_', ' ')}", one, 100.0))
    return found


def mean_and_deviation(column: ScoreColumn, label: str) -> tuple[str, str]:
    """One score of the table: the mean, and behind it its standard deviation and number of seeds.

    Returns:
        As ("71.5", "± 1.3 (3)"); ("–", "") where there is no score.

    """
    found = column.series.spread(label)
    if found is None:
        return "–", ""
    deviation = "" if found.sd is None else f"± {column.scale * found.sd:,.{column.digits}f} "
    return f"{column.scale * found.mean:z,.{column.digits}f}", f"{deviation}({found.n})"  # z: never -0.000


def value_headings(results: StudyResults) -> list[str]:
    """The headings of the varied paths, and of what an example costs where a run shows it more than once."""
    headings = [path_in_words(path) for path in results.paths] or ["run"]
    return [*headings, "rows per example"] if _has_views(results) else headings


def value_cells(results: StudyResults, label: str) -> list[str]:
    """What stands under `value_headings` in the row of a label."""
    if label in results.controls:
        values = results.controls[label]
        what = label.split(", ")[0]
        first, *others = [format_value(values.get(path, "")) for path in results.paths] or [""]
        cells = [f"{what}, {first}" if first else what, *others]
    else:
        cells = [format_value(results.values[label].get(path, "")) for path in results.paths] or [label]
    return [*cells, str(rows_per_example(results, label) or "")] if _has_views(results) else cells


def rows_per_example(results: StudyResults, label: str) -> int | None:
    """How many rows a label's runs make of one example; None where nothing was trained."""
    return next((one.views for one in results.of_label(label) if one.stage == "pretrain" and one.views), None)


def _has_views(results: StudyResults) -> bool:
    return any((rows_per_example(results, label) or 1) > 1 for label in results.labels)


def terminal_table(results: StudyResults) -> tables.Tables:
    """The table for the terminal: mean ± sd (n), scores times 100, bold where best beyond noise."""
    labels = results.all_labels
    rows = [value_cells(results, label) for label in labels]
    names = [
        tables.Column(heading, [row[number] for row in rows]) for number, heading in enumerate(value_headings(results))
    ]
    columns = []
    for column in score_columns(results):
        best = best_beyond_noise(results, column.series)
        cells = []
        for label in labels:
            score = " ".join(mean_and_deviation(column, label)).strip()
            cells.append(Text(score, style="bold" if label in best else ""))
        columns.append(tables.Column(column.heading, cells))
    title = "scores × 100, mean ± sd (n pre-training seeds); bold: best beyond noise"
    return tables.Tables(title, names, columns)
