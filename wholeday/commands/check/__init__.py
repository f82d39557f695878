"""Test a dataset's section against its real source, and leave nothing behind: the command `check`.

Responsibilities: the order of the questions (questions.py) to two extractions of a day (trial.py). The second one is
transformed and loaded, into a SQLite database in a temporary folder.
Non-goals: changes to the configured folder and database.
"""

import contextlib
import datetime as dt
import io
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from wholeday.commands.arguments import parse_day
from wholeday.commands.check.questions import FAILED, FAILED_FIRST, OF_A_WINDOW, OF_ANY_TRIAL, OK, QUESTIONS, Finding
from wholeday.commands.check.trial import Trial
from wholeday.commands.screen import open_console
from wholeday.commands.session import open_workspaces
from wholeday.config.days import SNAPSHOT
from wholeday.errors import ConfigError, DatasetError
from wholeday.load.warehouse import open_warehouse
from wholeday.storage.workspace import Workspace

DATE = "The day to read (default: the last closed one)."


def check_source(workspace: Workspace, date: dt.date | None = None) -> dict[str, Finding]:
    """Return the findings by question. The day is `date`, or the last closed day.

    Raises DayNotClosedError, DatasetError, FolderError, WarehouseError.
    """
    with tempfile.TemporaryDirectory() as folder, _capture_log() as log:
        try:
            open_warehouse(workspace)
            trial = Trial(workspace, date, Path(folder), log)
        except (ConfigError, DatasetError) as error:
            return {"configuration": Finding(FAILED, str(error))}
        trial.run()
        findings = {"configuration": Finding(OK, f"[{workspace.name}] is valid{trial.describe_auth()}")}
        for name, ask in QUESTIONS.items():
            if trial.settings.mode != SNAPSHOT or ask not in OF_A_WINDOW:
                findings[name] = FAILED_FIRST if trial.error and ask not in OF_ANY_TRIAL else ask(trial)
        return findings


@contextlib.contextmanager
def _capture_log() -> Iterator[io.StringIO]:
    """Capture all log lines, from DEBUG on."""
    log = io.StringIO()
    handler, level = logging.StreamHandler(log), logging.root.level
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.DEBUG)
    try:
        yield log
    finally:
        logging.root.removeHandler(handler)
        logging.root.setLevel(level)


def command(
    context: typer.Context,
    date: Annotated[dt.date | None, typer.Option(parser=parse_day, metavar="DATE", help=DATE)] = None,
) -> bool:
    """Print the result of each test of each source. Returns whether none failed."""
    sound = True
    with open_workspaces(context) as workspaces:
        for workspace in workspaces:
            findings = check_source(workspace, date)
            table = Table(box=None, pad_edge=False, show_header=False)
            for what, (verdict, evidence, next_step) in findings.items():
                style = {OK: "green", FAILED: "red"}.get(verdict, "yellow")
                table.add_row(what, Text(verdict, style), "; ".join(filter(None, (evidence, next_step))))
            open_console().print(table, soft_wrap=False)
            sound &= all(finding.verdict != FAILED for finding in findings.values())
    return sound
