"""How results look on a terminal: lines and tables that fit its width, numbers as a reader wants them."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

from jaxmlm.tasks.downstream import display_name

WIDTH = 80
"""Columns that lines of scores keep to."""
NAME = 30
"""Columns within which the name of a row may be broken into lines."""

Cell = str | Text


def number(value: float | None) -> str:
    """A score as it is printed; a count, and what is large, as a whole number.

    >>> number(0.61234), number(4.0), number(127206.4), number(float("inf")), number(None)
    ('0.6123', '4', '127,206', 'not finite', 'not finite')
    """
    if value is None or not math.isfinite(value):
        return "not finite"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"


def lines(row: dict[str, Any], sets: bool = False) -> list[str]:
    """A line of results as it is printed: its scores.

    Those of single BLiMP sets, and of halves of a text, only where `sets` asks for them.

    >>> lines({"stage": "masked", "task": "a.txt", "tuning_seed": None, "scores": {"loss": 4.5, "set/x": 1.0}})
    ['masked a.txt: loss 4.5']
    """
    seed = "" if row["tuning_seed"] is None else f" seed {row['tuning_seed']}"
    shown = {name: value for name, value in row["scores"].items() if sets or not name.startswith(("set/", "half/"))}
    found = [f"{row['stage']} {display_name(row)}{seed}:"]
    gap = " "
    for name, value in shown.items():
        score = f"{gap}{name} {number(value)}"
        if len(found[-1]) + len(score) <= WIDTH:
            found[-1] += score
        else:
            found.append(f"    {score.strip()}")
        gap = "  "
    return found


class Column(NamedTuple):
    """A column of a table: its heading, and a cell for each row."""

    heading: str
    cells: Sequence[Cell]


class Tables:
    """A table that is cut, where it is wider than the terminal, into several under each other.

    `names` are the columns that say what a row is, and stand in each of them.
    """

    def __init__(self, title: str, names: Sequence[Column], columns: Sequence[Column]) -> None:
        self.title, self.names, self.columns = title, names, columns

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """The tables, each as wide as fits."""
        begin = 0
        while True:
            end = max(begin + 1, len(self.columns))
            while end > begin + 1 and self._least(self.columns[begin:end]) > options.max_width:
                end -= 1
            yield self._table(self.columns[begin:end], self.title if begin == 0 else None)
            if end >= len(self.columns):
                return
            begin = end

    def _least(self, columns: Sequence[Column]) -> int:
        """The width at which no word of a heading and no cell of a number is broken."""
        names = (min(_width(column), NAME) for column in self.names)
        return 1 + sum(3 + width for width in (*names, *map(_width, columns)))

    def _table(self, columns: Sequence[Column], title: str | None) -> Table:
        made = Table(title=title)
        for column in self.names:
            made.add_column(_as_it_is(column.heading), style="cyan", overflow="fold")
        for column in columns:
            made.add_column(_as_it_is(column.heading), justify="right", min_width=_width(column), overflow="fold")
        for cells in zip(*(column.cells for column in (*self.names, *columns)), strict=True):
            made.add_row(*map(_as_it_is, cells))
        return made


def _as_it_is(cell: Cell) -> Text:
    """A cell in which nothing is read as markup: names of values may have brackets."""
    return cell if isinstance(cell, Text) else Text(cell)


def _width(column: Column) -> int:
    """Columns that are needed: for the longest word of the heading, for a cell whole."""
    cells = [len(cell.plain if isinstance(cell, Text) else cell) for cell in column.cells]
    return max([*(len(word) for word in column.heading.split()), *cells], default=1)
