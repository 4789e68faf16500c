"""`jaxmlm show`: sentences of the store under each strategy and rate, in colour, and as an HTML page."""

import dataclasses
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from jaxmlm.checks import COUNT, NATURAL, POSITIVE_SHARE, check_numbers
from jaxmlm.data import Batches, Store, open_rows
from jaxmlm.data.opening import open_store
from jaxmlm.errors import InputError
from jaxmlm.json_files import write_text
from jaxmlm.masking import Constant, PhraseUnits, SpanUnits, TokenUnits, Units, WordUnits
from jaxmlm.os_errors import check_writable
from jaxmlm.runs.preview import PIECE_STYLE, Piece, preview, preview_html
from jaxmlm.runs.run import Run

COLOURS = {"mask": "black on cyan", "random": "black on yellow", "keep": "black on green", "plain": ""}
BRACKETS = {"mask": "[]", "random": "{}", "keep": "()"}  # where there are no colours
_STYLE = """
body {
  font: 16px/1.7 system-ui, sans-serif;
  max-width: 60rem;
  margin: 1rem auto;
  padding: 0 1rem;
  color-scheme: light dark;
}
h2 { font-size: 1.05rem; margin: 1.4rem 0 .2rem; }
p { margin: .3rem 0; }
"""


@dataclasses.dataclass(frozen=True)
class Show:
    """What `jaxmlm show` takes beside the options of the configuration."""

    rates: tuple[float, ...] = (0.15, 0.40, 0.80)
    """Masking rates to show."""
    sentence: str | None = None
    """Sentence to show; None: some of the store."""
    sentences: int = 3
    """Number of sentences of the store to show."""
    draw: int = 0
    """Seed of the masks; another number gives other masks."""

    def __post_init__(self) -> None:
        check_numbers(self, "--", rates=POSITIVE_SHARE, sentences=COUNT, draw=NATURAL)
        if not self.rates:
            raise InputError("--rates is empty: give some, as 0.15 0.4")


def show(run: Run, options: Show) -> dict[str, Any]:
    """Print sentences as each strategy leaves them; also WORKDIR/show.html.

    Strategies: tokens, words, spans, and phrases where the store has a phrase list (or the run wants one).
    """
    check_writable(Path(run.workdir), directory=True)
    store = open_store(run.text, Path(run.workdir), phrases=run.needs_phrases)
    texts = [options.sentence] if options.sentence else some(store, run.data.length, options.sentences)
    units: dict[str, Units] = {"tokens": TokenUnits(), "words": WordUnits(), "spans": SpanUnits()}
    if store.units("train") is not None:
        units["phrases"] = PhraseUnits()
    console = Console()
    colours = console.color_system is not None and not console.no_color
    parts = []
    for name, unit in units.items():
        for rate in options.rates:
            masking = dataclasses.replace(
                run.masking, rate=rate, predict=None, units=unit, weights="tokens", schedule=Constant()
            )
            head = f"{name}, {rate:.0%}"
            console.print(head, style="bold", highlight=False, markup=False)
            parts.append(f"<h2>{escape(head)}</h2>")
            for text in texts:
                pieces = preview(masking, store, text, options.draw)
                console.print(_line(pieces, colours), soft_wrap=True)
                parts.append(f"<p>{preview_html(pieces, reveal=True)}</p>")
    path = Path(run.workdir) / "show.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    title = "What the model sees"
    lines = [
        "<!doctype html>",
        "<html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width">',
        f"<title>{title}</title>",
        f"<style>{_STYLE}{PIECE_STYLE}</style>",
        f"<h1>{title}</h1>",
        *parts,
        "</html>",
    ]
    write_text(path, "\n".join(lines) + "\n")
    return {"page": str(path), "strategies": list(units), "rates": list(options.rates)}


def some(store: Store, length: int, many: int) -> list[str]:
    """The beginnings of a few rows of the held-out split."""
    batches = Batches(open_rows(store, "valid", length), 1)
    at = np.linspace(0, batches.rows - 1, min(many, batches.rows)).astype(int)
    return [store.tokenizer.decode(row[1:25].tolist()) for row in batches.take(at)["ids"]]


def _line(pieces: list[Piece], colours: bool) -> Text:
    line = Text()
    for text, state in pieces:
        word = text.removeprefix("\u2581")
        if word != text:
            line.append(" ")
        if colours or state == "plain":
            line.append(word, style=COLOURS[state])
        else:
            line.append(word.join(BRACKETS[state]))
    return line
