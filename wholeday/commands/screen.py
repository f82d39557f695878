"""Standard output of the commands: a console that cleans texts, and tables of days."""

import datetime as dt
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from wholeday.days import name_days
from wholeday.text import clean_lines


class Outcome(NamedTuple):
    """What a command does with a day, or did, and why; and the size of its files, if the command measures it."""

    date: dt.date
    what: str
    why: str = ""
    bytes: int = 0


def open_console() -> Console:
    """Open standard output: as wide as the terminal, or 160 columns where it is a file or a pipe. It wraps no line."""
    width = None if sys.stdout.isatty() else 160
    return _Console(width=width, soft_wrap=True, highlight=False, markup=False, emoji=False)


class _Console(Console):
    """A console that removes control characters: rich passes on the ones that move the cursor or change colours."""

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(clean_lines(text), **how)


def group_days(outcomes: Iterable[Outcome]) -> dict[tuple[str, str], list[dt.date]]:
    """Group days by outcome and reason."""
    groups: dict[tuple[str, str], list[dt.date]] = {}
    for day in outcomes:
        groups.setdefault((day.what, day.why), []).append(day.date)
    return groups


def make_days_table(first: str) -> Table:
    """Make a table for groups of days; `first` is the name of its first column."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (first, "days", "which", "why"):
        table.add_column(name, overflow="fold", justify="right" if name == "days" else "left")
    return table


def add_days(table: Table, what: str, days: Sequence[dt.date], why: str, style: str = "") -> None:
    """Add a row for a group of days, unless it is empty."""
    if days:
        table.add_row(what, f"{len(days):,}", name_days(days), why, style=style)
