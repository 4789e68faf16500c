"""report.md: what the page says as a Markdown document, for a repository; its figures are PNG files beside it."""

from collections.abc import Sequence
from pathlib import Path

from jaxmlm.json_files import write_text
from jaxmlm.plotting import save
from jaxmlm.runs.preview import Piece
from jaxmlm.studies.content import Block, Bullets, Drawing, FirstTable, Paragraph, PlainTable, Report, sections_of


def write_markdown(directory: Path, report: Report) -> Path:
    """Write directory/report.md and its figures, directory/figures/NAME.png, and return the document's path."""
    pictures = directory / "figures"
    pictures.mkdir(parents=True, exist_ok=True)
    path = directory / "report.md"
    write_text(path, to_markdown(report, pictures))
    return path


def to_markdown(report: Report, pictures: Path) -> str:
    """The complete document; its figures are written into the directory `pictures`, which stands beside it.

    Characters that mean something in Markdown are escaped.
    """
    lines = [f"# {_plain(report.title)}"]
    if report.note:
        lines.append(f"*{_plain(report.note)}*")
    for section in sections_of(report):
        if section.title:
            lines.append(f"## {section.title}")
        lines += [text for block in section.blocks if (text := _block(block, pictures))]
    facts = [f"- {name}: {_plain(value)}" for name, value in report.provenance.items()]
    if facts:
        lines += ["## Where this came from", "\n".join(facts)]
    return "\n\n".join(lines) + "\n"


def _block(block: Block, pictures: Path) -> str:
    match block:
        case Paragraph(text):
            return _plain(text)
        case Bullets(lines):
            return "\n".join(f"- {_plain(line)}" for line in lines)
        case FirstTable(values, scores, rows, has_sentences):
            sentence = ["as the model sees it"] if has_sentences else []
            cells = [
                [
                    *map(_plain, texts),
                    *([_sentence(pieces)] if has_sentences else []),
                    *(f"**{_plain(mean)}** {deviation}" if best else f"{mean} {deviation}".strip()
                      for mean, deviation, best in found),
                ]
                for texts, pieces, found in rows
            ]  # fmt: skip
            return _table([*values, *sentence, *scores], cells)
        case PlainTable(headings, rows):
            return _table(headings, [list(map(_plain, row)) for row in rows])
        case Drawing(figure, name, caption, title):
            path = pictures / f"{name}.png"
            save(figure, path)
            return f"![{_plain(title or caption)}]({pictures.name}/{path.name})"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _sentence(pieces: Sequence[Piece]) -> str:
    """A sentence as its masking leaves it; random pieces are underlined, kept ones in bold, as far as Markdown can.

    >>> _sentence([Piece("▁a", "plain"), Piece("▁b", "mask"), Piece("▁c", "random")])
    'a `[MASK]` *c*'
    """
    marks = {"plain": "{}", "mask": "`[MASK]`", "random": "*{}*", "keep": "**{}**"}
    words = ""
    for text, state in pieces:
        gap = " " if text.startswith("▁") else ""
        words += gap + marks[state].format(_plain(text.replace("▁", " ").strip()))
    return words.strip()


def _plain(text: str) -> str:
    """A text in which no character means anything in Markdown.

    >>> _plain("a_b | <i> *c*")
    'a\\\\_b \\\\| \\\\<i> \\\\*c\\\\*'
    """
    return "".join(f"\\{letter}" if letter in "\\`*_[]<|" else letter for letter in text)
