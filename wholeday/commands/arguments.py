"""The arguments and options that several commands share."""

import datetime as dt
from typing import Annotated

import typer

from wholeday.config.parameters import Duration
from wholeday.errors import ConfigError
from wholeday.tasks.day_tasks import DayParameter


def parse_day(text: str) -> dt.date:
    """Parse a day, as 2026-11-21."""
    try:
        return DayParameter().parse(text)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error


def parse_duration(text: str) -> dt.timedelta:
    """Parse a length of time, as `36 hours`."""
    try:
        return Duration().parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


START = typer.Argument(parser=parse_day, metavar="START", help="The first day.")
STOP = typer.Argument(parser=parse_day, metavar="STOP", help="The day after the last one.")
Start = Annotated[dt.date, START]
Stop = Annotated[dt.date, STOP]
