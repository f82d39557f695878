"""Load one day with Luigi's own command."""

import datetime as dt
from typing import Annotated

import typer
from luigi.cmdline import luigi_run

from wholeday.commands.arguments import parse_day
from wholeday.commands.session import pick_loads
from wholeday.tasks.load_all import LoadAll
from wholeday.tasks.workflow import broken


def command(
    context: typer.Context,
    date: Annotated[dt.date, typer.Argument(parser=parse_day, metavar="DATE", help="The day, as 2026-11-21.")],
) -> bool:
    """Load the day of each dataset. Exits with Luigi's exit code."""
    loads = pick_loads(context.obj, despite_mistakes=True)
    is_alone = context.obj.dataset is not None or len(loads) + len(broken) == 1
    luigi_run([(loads[0] if is_alone else LoadAll).get_task_family(), "--date", str(date), *context.obj.flags])
    return True
