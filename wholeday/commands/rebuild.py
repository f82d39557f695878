"""Load all raw days into new tables, and swap them in at once."""

from typing import Annotated

import typer

from wholeday.commands.reprocess import rebuild, show_outcomes
from wholeday.commands.screen import open_console
from wholeday.commands.session import open_datasets
from wholeday.days import name_days


def command(
    context: typer.Context,
    drop_missing: Annotated[bool, typer.Option("--drop-missing", help="Drop loaded days that have no raw files.")] = (
        False
    ),
) -> bool:
    """Rebuild the warehouse, and print of which days. Returns whether no day failed."""
    sound = True
    with open_datasets(context) as loads:
        for load in loads:
            workspace = load.workspace()
            days = show_outcomes(workspace, rebuild(workspace, drop_missing))
            line = f"{workspace.name} {name_days(days['done'])}: the warehouse is made anew of these"
            open_console().print(line, soft_wrap=True)
            sound &= not days["failed"]
    return sound
