"""Build the tables of a dataset again from the raw files of all days, and replace the old tables in one transaction.

Responsibilities: which days are rebuilt, and which are left out. Readers see the old tables or the new ones.
Non-goals: losing a loaded day. It stops the rebuild, unless it has no raw files and the caller drops it.
"""

import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from wholeday.commands.reprocess import find_other_sources, list_raw, show_outcomes, transform_if_outdated
from wholeday.commands.screen import Outcome, open_console
from wholeday.commands.session import open_workspaces
from wholeday.days import name_days
from wholeday.errors import FolderError, PipelineError
from wholeday.load import day as load_stage
from wholeday.load.warehouse import open_warehouse
from wholeday.storage.known_source import SOURCE_GATE, join_accepted
from wholeday.storage.workspace import Workspace

if TYPE_CHECKING:
    from wholeday.load.clean_day import CleanDay


def rebuild(workspace: Workspace, drop_missing: bool = False) -> list[Outcome]:
    """Rebuild the tables of a dataset. Return the outcomes, oldest day first.

    Raises PipelineError, and keeps the old tables, if a loaded day fails or has no raw files (unless `drop_missing`). A
    day that was never loaded is left out if it fails or comes from another source.
    """
    warehouse = open_warehouse(workspace)
    loads: dict[dt.date, CleanDay] = {}
    failed: dict[dt.date, PipelineError] = {}
    _list_days(workspace)
    with workspace.folder("clean", dt.date.min).lock_all():  # a load takes this lock: no day is loaded meanwhile
        warehouse.upgrade_old_tables()
        kept = warehouse.read_days()
        accepted = warehouse.read_days_let_through()
        while True:
            days = _list_days(workspace)
            missing = kept.difference(days)
            if missing and not drop_missing:
                warehouse.refuse_to_lose(missing)
            others = find_other_sources(workspace, days)
            skipped = {} if workspace.settings.accept else others
            for date in days:
                if date not in loads and date not in failed and date not in skipped:
                    try:
                        transform_if_outdated(workspace, date)
                        load = load_stage.read_to_load(workspace, date)
                        loads[date] = _accept_source(load) if date in others or date in accepted else load
                    except PipelineError as error:
                        failed[date] = error
            for date in sorted(kept & failed.keys()):
                raise failed[date]
            lost = warehouse.rebuild(sorted(loads.values(), key=lambda load: load.draft.as_of), missing)
            if not lost:
                break
            kept |= lost  # loaded meanwhile, with files in a bucket, which has no locks
    done = [Outcome(date, "done", "rebuilt") for date in loads]
    left = [Outcome(date, "skipped", why) for date, why in skipped.items()]
    return sorted([*done, *left, *(Outcome(date, "failed", str(error)) for date, error in failed.items())])


def _accept_source(clean: "CleanDay") -> "CleanDay":
    """Mark in a clean day that its source was accepted."""
    accepted = join_accepted(clean.draft.accepted, SOURCE_GATE)
    return replace(clean, draft=clean.draft.replace(accepted=accepted))


def _list_days(workspace: Workspace) -> list[dt.date]:
    """List the extracted days. Raises FolderError if there are none."""
    if days := list_raw(workspace):
        return days
    folder, _, _ = str(workspace.folder("raw", dt.date.min)).rpartition("/")
    raise FolderError(f"{folder}: no day has raw files to rebuild from")


def command(
    context: typer.Context,
    drop_missing: Annotated[bool, typer.Option("--drop-missing", help="Drop loaded days that have no raw files.")] = (
        False
    ),
) -> bool:
    """Rebuild the tables, and print the rebuilt days. Return whether no day failed."""
    sound = True
    with open_workspaces(context) as workspaces:
        for workspace in workspaces:
            days = show_outcomes(workspace, rebuild(workspace, drop_missing))
            line = f"{workspace.name} {name_days(days['done'])}: tables rebuilt from these days"
            open_console().print(line)
            sound &= not days["failed"]
    return sound
