"""report.html: one file, figures and style inside it, no script, light and dark, readable on a telephone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from jaxmlm.json_files import write_text
from jaxmlm.plotting import svg
from jaxmlm.runs.preview import PIECE_STYLE, Piece, preview_html
from jaxmlm.studies import figures, verdict
from jaxmlm.studies.comparisons import best_beyond_noise
from jaxmlm.studies.likelihood import BOUND, HOW_TO_READ
from jaxmlm.studies.results import CellResult, StudyResults
from jaxmlm.studies.score_table import mean_and_deviation, score_columns, value_cells, value_headings

STYLE = Path(__file__).with_name("page.css")
STAGES = ("pretrain", "heldout", "bound", "blimp", "babylm", "finetune")
"""The stages whose seconds have a column, where there are any."""
BOUNDS = (BOUND, "bound/bits_per_word", "bound/bits_per_byte")
"""What of the likelihood bound has a column for every seed."""
LEGEND = {"mask": "[MASK]", "random": "random piece", "keep": "predicted, but unchanged"}
"""What the colours of pieces mean, by their state."""


@dataclass(frozen=True)
class Report:
    """What a page is drawn from.

    Attributes:
        title: the headline.
        results: the results of the study.
        curves: for each cell the lines of its log: {"step", "loss", "tokens"}.
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


def write_page(directory: Path, report: Report) -> Path:
    """Write directory/report.html, one file that refers to no other, and return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "report.html"
    write_text(path, to_html(report))
    return path


def to_html(report: Report) -> str:
    """The complete page; every text from outside is escaped, so it can hold any character."""
    results = report.results
    *others, last = verdict.sentences(results)
    body = [f"<h1>{escape(report.title)}</h1>"]
    if report.note:
        body.append(f'<p class="note">{escape(report.note)}</p>')
    body.append(f'<p class="lead">{escape(last)}</p>')
    body.append(_list(others))
    body.append(_first_table(report))
    if BOUND in results.series:
        body.append(_section("Likelihood bound", _likelihood(results)))
    body.append(_section("Scores", _scores(results)))
    body.append(_section("Training loss", _losses(report)))
    body.append(_section("Loss matrix", _loss_matrix(results)))
    body.append(_section("BLiMP by field", _blimp_fields(results)))
    body.append(_section("Every seed", _every_seed(results)))
    body.append(_section("Cost", _cost(results)))
    if results.notes:
        body.append(_section("Notes", _list(results.notes)))
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in report.provenance.items())
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(report.title)}</title>",
        f"<style>{PIECE_STYLE}{STYLE.read_text()}</style></head>",
        "<body><main>",
        *body,
        "</main>",
        f"<footer><h2>Where this came from</h2><dl>{facts}</dl></footer></body></html>",
    ]
    return "\n".join(lines) + "\n"


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _list(lines: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _soft(words: str) -> str:
    return f'<p class="soft">{escape(words)}</p>'


def _figure(figure: figures.Figure, name: str, caption: str) -> str:
    return f"<figure>{svg(figure, name, caption)}<figcaption>{escape(caption)}</figcaption></figure>"


def _cell(tag: str, text: str, left: bool) -> str:
    return f"<{tag}{' class=left' if left else ''}>{escape(text)}</{tag}>"


def _row(cells: Sequence[str]) -> str:
    return f"<tr>{''.join(cells)}</tr>"


def _table(style: str, headings: Sequence[str], left: int, rows: Sequence[str]) -> str:
    """A table; the headings of the first `left` columns are aligned left."""
    head = _row([_cell("th", heading, number < left) for number, heading in enumerate(headings)])
    return f'<div class="wide"><table class="{style}"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def _plain_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts, of which the first column is aligned left."""
    lines = [_row([_cell("td", text, number == 0) for number, text in enumerate(row)]) for row in rows]
    return _table("plain", headings, 1, lines)


def _first_table(report: Report) -> str:
    """Value | sentence | perplexity | scores: the paper's first table."""
    results = report.results
    if not results.results:
        return _soft("No cell has finished yet.")
    columns = score_columns(results)
    best = [best_beyond_noise(results, column.series) for column in columns]
    values = value_headings(results)
    sentence = ["as the model sees it"] if report.sentences else []
    rows = []
    for label in results.all_labels:
        cells = [
            f'<td class="left value" data-head="{escape(heading)}">{escape(value)}</td>'
            for heading, value in zip(values, value_cells(results, label), strict=True)
        ]
        if sentence:
            cells.append(f'<td class="sentence">{preview_html(report.sentences.get(label, []))}</td>')
        for column, leading in zip(columns, best, strict=True):
            mean, deviation = mean_and_deviation(column, label)
            mark = ' class="best"' if label in leading else ""
            score = f'<span>{escape(mean)} <span class="spread">{escape(deviation)}</span></span>'
            cells.append(f'<td{mark} data-head="{escape(column.heading)}">{score}</td>')
        rows.append(_row(cells))
    headings = [*values, *sentence, *(column.heading for column in columns)]
    table = _table("first", headings, len(values) + len(sentence), rows)
    return f'{table}<p class="soft">{escape(_explanation(results))}{_legend(report)}</p>'


def _explanation(results: StudyResults) -> str:
    """What the numbers of the first table are."""
    metrics = [
        f"{task}{series.suffix} {series.metric}" for task in results.tasks if (series := results.series.get(task))
    ]
    text = "Mean ± standard deviation (number of pre-training seeds; tuning seeds averaged first); scores times 100"
    text += f": {', '.join(metrics)}." if metrics else "."
    rival = "value" if len(results.paths) < 2 else f"{value_headings(results)[0]}, all else equal,"
    text += f" Bold: better than every other {rival} beyond noise (paired t, Bonferroni, 5 %; three seeds or more)."
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


def _legend(report: Report) -> str:
    states = {piece.state for pieces in report.sentences.values() for piece in pieces}
    return "".join(f' <span class="{state}">{said}</span>' for state, said in LEGEND.items() if state in states)


def _likelihood(results: StudyResults) -> str:
    """The curves and their envelope, and how to read them."""
    words = "".join(f"<p>{escape(sentence)}</p>" for sentence in HOW_TO_READ)
    figure = figures.likelihood_curves(results)
    if figure is None:
        return words
    caption = "Held-out loss over the masking rate, mean over seeds; thin: each seed; grey: under the lower envelope."
    return words + _figure(figure, "likelihood", caption)


def _scores(results: StudyResults) -> str:
    drawn = []
    for name in figures.score_names(results):
        figure = figures.scores(results, [name])
        if figure is not None:
            title = figures.title(results.series[name])
            drawn.append(f"<figure>{svg(figure, f'score-{len(drawn)}', title)}</figure>")
    if not drawn:
        return _soft("No BLiMP or fine-tuning scores yet: nothing to draw.")
    text = "Mean and standard deviation over pre-training seeds; small dots: every seed."
    if results.controls:
        text += " Dashed: the encoder before the pre-training, ± sd."
    return f'{_soft(text)}<div class="figures">{"".join(drawn)}</div>'


def _losses(report: Report) -> str:
    figure = figures.losses(report.results, report.curves)
    if figure is None:
        return _soft("No training log here: no curves.")
    caption = (
        "Loss on the training batches, a line per cell. Each is measured at its own masking, so curves of different "
        "maskings show how training went, not which is better."
    )
    return _figure(figure, "losses", caption)


def _loss_matrix(results: StudyResults) -> str:
    figure = figures.loss_matrix(results)
    if figure is None:
        return _soft("No held-out losses yet.")
    caption = (
        "Held-out loss in nats, mean over seeds; framed: the lowest of the column. A loss at 15 % favours the "
        "cell trained at 15 %, so no single one is the verdict."
    )
    return _figure(figure, "matrix", caption)


def _blimp_fields(results: StudyResults) -> str:
    figure = figures.blimp_fields(results)
    if figure is None:
        return _soft("No BLiMP scores by field in these results.")
    suffix = next(iter(results.blimp_fields().values())).suffix
    caption = f"Accuracy by linguistic field{suffix}: every pre-training seed a dot, the bar their mean."
    return _figure(figure, "fields", caption)


def _every_seed(results: StudyResults) -> str:
    """Every number behind the page: a line per cell, tuning seeds averaged."""
    shown = {
        name: series
        for name, series in results.series.items()
        if name in results.tasks or name in BOUNDS or not name.startswith(("blimp/", "bound/"))
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
        headings.append(titles.get(name, name.removeprefix("heldout/")) + series.suffix)
    return _plain_table(headings, rows)


def _score(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.1f}" if value >= 100 else f"{value:.4f}"


def _cost(results: StudyResults) -> str:
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
    return _plain_table(["cell", "tokens", "tokens/s", *(f"{stage} s" for stage in stages), "all s"], rows)


def _count(value: int | float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"
