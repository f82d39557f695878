"""Load one day with Luigi's own command."""

import datetime as dt
import sys
from typing import Annotated

import typer
from luigi.cmdline import luigi_run

from wholeday.commands.arguments import parse_day
from wholeday.commands.session import pick_loads


def command(
    context: typer.Context,
    date: Annotated[dt.date, typer.Argument(parser=parse_day, metavar="DATE", help="The day, as 2026-11-21.")],
) -> bool:
    """Load the day of each dataset. Exits with the highest of Luigi's exit codes."""
    loads = pick_loads(context.obj)
    sys.exit(max(run_luigi([load.get_task_family(), "--date", str(date), *context.obj.flags]) for load in loads))


def run_luigi(arguments: list[str]) -> int:
    """Run Luigi's own command in this process; returns its exit code."""
    try:
        luigi_run(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0
