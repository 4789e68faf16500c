"""What a study's report says, by sections: the page and the Markdown document render the same blocks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jaxmlm.runs.preview import Piece
from jaxmlm.studies import figures, verdict
from jaxmlm.studies.comparisons import best_beyond_noise
from jaxmlm.studies.heat_maps import loss_matrix, of_map, score_map
from jaxmlm.studies.likelihood import BOUND, HOW_TO_READ
from jaxmlm.studies.results import PROBES, CellResult, StudyResults
from jaxmlm.studies.score_table import PER_WORD, mean_and_deviation, score_columns, value_cells, value_headings
from jaxmlm.studies.training_figures import held_out_losses, training_losses

STAGES = ("pretrain", "heldout", "bound", "general", "blimp", "babylm", "probe", "finetune")
"""The stages whose seconds have a column, where there are any."""
BOUNDS = (BOUND, *PER_WORD.values(), "bound/bits_per_byte", "general/bits_per_byte")
"""What of the likelihood bound has a column for every seed."""


@dataclass(frozen=True)
class Report:
    """What a report is made from.

    Attributes:
        title: the headline.
        results: the results of the study.
        curves: for each cell the lines of its log, as `training_figures.Curves`.
        sentences: for each label the pieces of one sentence as its masking leaves them.
        provenance: where the results are from, for the foot of the page.
        note: one line under the title.

    """

    title: str
    results: StudyResults
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    sentences: dict[str, list[Piece]] = field(default_factory=dict)
    provenance: dict[str, str] = field(default_factory=dict)
    note: str = ""


class Paragraph(NamedTuple):
    """A sentence or several; `soft` explains what stands beside it."""

    text: str
    soft: bool = False


class Bullets(NamedTuple):
    """A list."""

    lines: Sequence[str]


class Score(NamedTuple):
    """A cell of the first table: a mean, its deviation, and whether it is better than all others beyond noise."""

    mean: str
    deviation: str
    best: bool


class FirstTable(NamedTuple):
    """Value | sentence | scores, the paper's first table; `sentences` is empty where there are none."""

    values: list[str]
    scores: list[str]
    rows: list[tuple[list[str], list[Piece], list[Score]]]
    has_sentences: bool


class PlainTable(NamedTuple):
    """A table of texts, of which the first column is aligned left."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


class Drawing(NamedTuple):
    """A figure, its name (a file's, or the beginning of its ids) and caption; `title` where that says less.

    Several without a caption stand side by side.
    """

    figure: figures.Figure
    name: str
    caption: str = ""
    title: str = ""


Block = Paragraph | Bullets | FirstTable | PlainTable | Drawing


class Section(NamedTuple):
    """A heading and what stands under it; the first section of a report has none."""

    title: str
    blocks: list[Block]


def sections_of(report: Report) -> list[Section]:
    """The sections of a report, in order."""
    results = report.results
    *others, last = verdict.sentences(results)
    first: list[Block] = [Paragraph(last), *_first_table(report), Bullets(others)]
    sections = [Section("", first)]
    if BOUND in results.series:
        sections.append(Section("Likelihood bound", _likelihood(results)))
    sections += [
        Section("Scores", _scores(results)),
        Section("Training loss", _losses(report)),
        *_along_the_way(report),
        Section("Loss matrix", _loss_matrix(results)),
        Section("BLiMP by field", _blimp_fields(results)),
        *_probes(results),
        Section("Every seed", [_every_seed(results)]),
        Section("Cost", [_cost(results)]),
    ]
    if results.notes:
        sections.append(Section("Notes", [Bullets(results.notes)]))
    return sections


def _first_table(report: Report) -> list[Block]:
    results = report.results
    if not results.results:
        return [Paragraph("No cell has finished yet.", soft=True)]
    columns = score_columns(results)
    best = [best_beyond_noise(results, column.series) for column in columns]
    rows = []
    for label in results.all_labels:
        scores = [
            Score(*mean_and_deviation(column, label), label in leading)
            for column, leading in zip(columns, best, strict=True)
        ]
        rows.append((value_cells(results, label), report.sentences.get(label, []), scores))
    headings = [column.heading for column in columns]
    table = FirstTable(value_headings(results), headings, rows, bool(report.sentences))
    return [table, Paragraph(_explanation(results), soft=True)]


def _explanation(results: StudyResults) -> str:
    """What the numbers of the first table are."""
    metrics = [
        f"{task}{series.suffix} {series.metric}" for task in results.tasks if (series := results.series.get(task))
    ]
    text = "Mean ± standard deviation (number of pre-training seeds; tuning seeds averaged first); scores times 100"
    text += f": {', '.join(metrics)}." if metrics else "."
    rival = "value" if len(results.paths) < 2 else f"{value_headings(results)[0]}, all else equal,"
    text += f" Bold: better than every other {rival} beyond noise (paired t, Bonferroni, 5 %; three seeds or more)."
    text += " That is the noise of the seeds: all are evaluated on the same examples; others may order them otherwise."
    if "heldout/perplexity" in results.series:
        text += " Perplexity at 15 % masks favours training at 15 %: see the loss matrix."
    there = {
        "fine-tuning": bool(results.tasks),
        "BLiMP": "blimp" in results.series,
        "held-out": bool(results.heldout_losses()),
    }
    lacking = [name for name, is_there in there.items() if not is_there]
    if lacking:
        text += f" Not in these results: {', '.join(lacking)} scores."
    return text


def _likelihood(results: StudyResults) -> list[Block]:
    """How to read the bound; the curves and their envelope."""
    words: list[Block] = [Paragraph(sentence) for sentence in HOW_TO_READ]
    figure = figures.likelihood_curves(results)
    caption = (
        "Held-out loss over the masking rate, mean over seeds; thin: each seed; grey: under the lower envelope. Below: "
        "what each model loses against the envelope at each rate."
    )
    return [*words, Drawing(figure, "likelihood", caption)] if figure else words


def _scores(results: StudyResults) -> list[Block]:
    drawn: list[Block] = []
    for name in figures.score_names(results):
        figure = figures.scores(results, [name])
        if figure is not None:
            drawn.append(Drawing(figure, f"score-{len(drawn)}", title=figures.title(results.series[name])))
    overall = _over_two_numbers(results)
    if not drawn:
        return overall or [Paragraph("No BLiMP or fine-tuning scores yet: nothing to draw.", soft=True)]
    text = "Mean and standard deviation over pre-training seeds; small dots: every seed."
    if results.controls:
        text += " Dashed: the encoder before the pre-training, ± sd."
    return [*overall, Paragraph(text, soft=True), *drawn]


def _over_two_numbers(results: StudyResults) -> list[Block]:
    """The heat map of a study that varies two numbers."""
    figure = score_map(results)
    series = of_map(results)
    if figure is None or series is None:
        return []
    name = "Likelihood bound, nats a token" if series.name == BOUND else figures.title(series)
    best = "highest" if series.higher_is_better else "lowest"
    return [Drawing(figure, "map", f"{name}, over both varied numbers, mean over seeds; framed: the {best}.")]


def _losses(report: Report) -> list[Block]:
    figure = training_losses(report.results, report.curves)
    if figure is None:
        return [Paragraph("No training log here: no curves.", soft=True)]
    caption = (
        "Loss on the training batches, a line per cell. Each is measured at its own masking, so curves of different "
        "maskings show how training went, not which is better."
    )
    return [Drawing(figure, "losses", caption)]


def _along_the_way(report: Report) -> list[Section]:
    """The held-out loss of cells that were evaluated more than once; else there is no such section."""
    figure = held_out_losses(report.results, report.curves)
    if figure is None:
        return []
    caption = "Held-out loss against the tokens seen, at the same masks for all; mean over seeds; thin: each seed."
    return [Section("Along the way", [Drawing(figure, "along", caption)])]


def _loss_matrix(results: StudyResults) -> list[Block]:
    figure = loss_matrix(results)
    if figure is None:
        return [Paragraph("No held-out losses yet.", soft=True)]
    caption = (
        "Held-out loss in nats, mean over seeds; framed: the lowest of the column. A loss at 15 % favours the "
        "cell trained at 15 %, so no single one is the verdict."
    )
    return [Drawing(figure, "matrix", caption)]


def _blimp_fields(results: StudyResults) -> list[Block]:
    figure = figures.blimp_fields(results)
    if figure is None:
        return [Paragraph("No BLiMP scores by field in these results.", soft=True)]
    suffix = next(iter(results.blimp_fields().values())).suffix
    caption = f"Accuracy by linguistic field{suffix}: every pre-training seed a dot, the bar their mean."
    return [Drawing(figure, "fields", caption)]


def _probes(results: StudyResults) -> list[Section]:
    """The probes over the layers, where there are any; else there is no such section."""
    figure = figures.probe_curves(results)
    if figure is None:
        return []
    caption = (
        "Accuracy of linear probes on a treebank's dev part over the layers (0: embeddings), mean over pre-training "
        "seeds; dotted: always the most frequent class. The last layer's counts."
    )
    return [Section("Probes", [Drawing(figure, "probes", caption)])]


def _every_seed(results: StudyResults) -> PlainTable:
    """Every number behind the report: a line per cell, tuning seeds averaged."""
    shown = {
        name: series
        for name, series in results.series.items()
        if name in (*results.tasks, *BOUNDS, *PROBES) or not name.startswith(("blimp/", "bound/", "general/", "probe/"))
    }
    cells = {(one.label, one.seed): one.cell for one in results.results}
    labels = results.all_labels
    rows = []
    for label, seed in sorted(cells, key=lambda of: (labels.index(of[0]), of[1])):
        scores = [series.by_label.get(label, {}).get(seed) for series in shown.values()]
        rows.append([cells[label, seed], *map(_score, scores)])
    titles = {"blimp": "BLiMP", "finetune": "tuned mean"}
    headings = ["cell"]
    for name, series in shown.items():
        headings.append(titles.get(name, name.removeprefix("heldout/").removeprefix("probe/")) + series.suffix)
    return PlainTable(headings, rows)


def _score(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.1f}" if value >= 100 else f"{value:.4f}"


def _cost(results: StudyResults) -> PlainTable:
    """Tokens, speed and seconds of every cell."""
    of_cells: dict[str, list[CellResult]] = {}
    for one in results.results:
        of_cells.setdefault(one.cell, []).append(one)
    stages = [stage for stage in STAGES if any(one.stage == stage for one in results.results)]
    rows = []
    for cell, of_cell in of_cells.items():
        seconds: dict[str, float] = {}
        for one in of_cell:
            seconds[one.stage] = seconds.get(one.stage, 0.0) + (one.seconds or 0.0)
        trained = next((one for one in of_cell if one.stage == "pretrain"), None)
        numbers = [
            trained and trained.tokens,
            trained and trained.tokens_per_second,
            *(seconds.get(stage) for stage in stages),
        ]
        rows.append([cell, *map(_count, numbers), f"{sum(seconds.values()):,.0f}"])
    return PlainTable(["cell", "tokens", "tokens/s", *(f"{stage} s" for stage in stages), "all s"], rows)


def _count(value: int | float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"
