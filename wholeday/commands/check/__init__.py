"""Test the configured source of a dataset: the command `check`."""

import datetime as dt
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from wholeday.commands.arguments import parse_day
from wholeday.commands.check.questions import FAILED, OK
from wholeday.commands.check.source import check_source
from wholeday.commands.screen import open_console
from wholeday.commands.session import open_datasets


def command(
    context: typer.Context,
    date: Annotated[
        dt.date | None,
        typer.Option(parser=parse_day, metavar="DATE", help="The day to read (default: the last closed one)."),
    ] = None,
) -> bool:
    """Print the result of each test of each source. Returns whether none failed."""
    sound = True
    with open_datasets(context) as loads:
        for load in loads:
            findings = check_source(load.workspace(), date)
            table = Table(box=None, pad_edge=False, show_header=False)
            for what, (verdict, evidence, next_step) in findings.items():
                style = {OK: "green", FAILED: "red"}.get(verdict, "yellow")
                table.add_row(what, Text(verdict, style), "; ".join(filter(None, (evidence, next_step))))
            open_console().print(table)
            sound &= all(finding.verdict != FAILED for finding in findings.values())
    return sound
