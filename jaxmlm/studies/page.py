"""report.html: one file, figures and style inside it, no script, light and dark, readable on a telephone."""

from collections.abc import Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from jaxmlm.json_files import write_text
from jaxmlm.plotting import svg
from jaxmlm.runs.preview import PIECE_STYLE, preview_html
from jaxmlm.studies.content import (
    Block,
    Bullets,
    Drawing,
    FirstTable,
    Paragraph,
    PlainTable,
    Report,
    Section,
    sections_of,
)

STYLE = Path(__file__).with_name("page.css")
LEGEND = {"random": "random piece", "keep": "predicted, but unchanged"}
"""What the colours of pieces mean, by their state; a [MASK] says it itself."""


def write_page(directory: Path, report: Report) -> Path:
    """Write directory/report.html, one file that refers to no other, and return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "report.html"
    write_text(path, to_html(report))
    return path


def to_html(report: Report) -> str:
    """The complete page; every text from outside is escaped, so it can hold any character."""
    body = [f"<h1>{escape(report.title)}</h1>"]
    if report.note:
        body.append(f'<p class="note">{escape(report.note)}</p>')
    first, *others = sections_of(report)
    lead, *rest = first.blocks
    body.append(f'<p class="lead">{escape(lead.text if isinstance(lead, Paragraph) else "")}</p>')
    body.append(_blocks(rest))
    if report.results.results:
        body.append(_legend(report))
    body += [_section(section) for section in others]
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


def _section(section: Section) -> str:
    return f"<section><h2>{escape(section.title)}</h2>{_blocks(section.blocks)}</section>"


def _blocks(blocks: Sequence[Block]) -> str:
    """The blocks one after the other; figures without captions that follow each other side by side."""
    parts = []
    for small, group in groupby(blocks, lambda block: isinstance(block, Drawing) and not block.caption):
        drawn = "".join(map(_block, group))
        parts.append(f'<div class="figures">{drawn}</div>' if small else drawn)
    return "".join(parts)


def _block(block: Block) -> str:
    match block:
        case Paragraph(text, soft):
            return f"<p{' class=soft' if soft else ''}>{escape(text)}</p>"
        case Bullets(lines):
            items = "".join(f"<li>{escape(line)}</li>" for line in lines)
            return f"<ul>{items}</ul>" if items else ""
        case FirstTable():
            return _first_table(block)
        case PlainTable(headings, rows):
            lines = [_row([_cell("td", text, number == 0) for number, text in enumerate(row)]) for row in rows]
            return _table("plain", headings, 1, lines)
        case Drawing(figure, name, caption, title):
            below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
            return f"<figure>{svg(figure, name, title or caption)}{below}</figure>"


def _cell(tag: str, text: str, left: bool) -> str:
    return f"<{tag}{' class=left' if left else ''}>{escape(text)}</{tag}>"


def _row(cells: Sequence[str]) -> str:
    return f"<tr>{''.join(cells)}</tr>"


def _table(style: str, headings: Sequence[str], left: int, rows: Sequence[str]) -> str:
    """A table; the headings of the first `left` columns are aligned left."""
    head = _row([_cell("th", heading, number < left) for number, heading in enumerate(headings)])
    return f'<div class="wide"><table class="{style}"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def _first_table(table: FirstTable) -> str:
    sentence = ["as the model sees it"] if table.has_sentences else []
    rows = []
    for values, pieces, scores in table.rows:
        cells = [
            f'<td class="left value" data-head="{escape(heading)}">{escape(value)}</td>'
            for heading, value in zip(table.values, values, strict=True)
        ]
        if sentence:
            cells.append(f'<td class="sentence">{preview_html(pieces)}</td>')
        for heading, (mean, deviation, best) in zip(table.scores, scores, strict=True):
            mark = ' class="best"' if best else ""
            score = f'<span>{escape(mean)} <span class="spread">{escape(deviation)}</span></span>'
            cells.append(f'<td{mark} data-head="{escape(heading)}">{score}</td>')
        rows.append(_row(cells))
    return _table("first", [*table.values, *sentence, *table.scores], len(table.values) + len(sentence), rows)


def _legend(report: Report) -> str:
    states = {piece.state for pieces in report.sentences.values() for piece in pieces}
    items = [f'<span class="{state}">{said}</span>' for state, said in LEGEND.items() if state in states]
    return f'<p class="soft">{" ".join(items)}</p>' if items else ""
