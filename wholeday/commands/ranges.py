"""What is printed of many days at once: loaded by backfill, looked at by plan, given up by prune.

Owns words and tables; refuses to find anything out, as screens.py does.
"""

import argparse
import datetime as dt
import sys
from collections.abc import Iterable, Sequence

from luigi.interface import core
from rich.filesize import decimal
from rich.table import Table

from wholeday.commands.plan import Step, find_cost, plan
from wholeday.commands.prune import Outcome, prune
from wholeday.commands.screens import Loads, open_console
from wholeday.days import name_days
from wholeday.load.day import describe_load
from wholeday.log import count
from wholeday.tasks import progress
from wholeday.tasks.backfill import Backfill
from wholeday.tasks.registry import DEFAULT_MODULE
from wholeday.tasks.stop import Stop, watch_signals

FAILED_DAYS = 50  # that a backfill names at its end
STOPPING = "stopping: the days that are begun are finished first; once more ends at once, and loses nothing"


def show_backfill(loads: Loads, options: argparse.Namespace) -> bool:
    """What becomes of each day of a range, as it happens and in a table at the end; whether all are loaded."""
    workers, sound = options.workers or core().workers, True
    with watch_signals(lambda: sys.stderr.write(f"{STOPPING}\n")) as stop:
        for load in loads:
            backfill = Backfill(load, options.start, options.stop)
            try:
                _run_backfill(backfill, workers, stop)
            finally:
                show_outcome(backfill, stop)
            sound &= not (backfill.failed or backfill.not_run or backfill.not_closed or backfill.past)
    if stop.asked and not sound:
        sys.stderr.write(f"stopped by {stop.asked.name}: go on with {_tell_again(options)}\n")
        sys.exit(128 + stop.asked)
    return sound


def _run_backfill(backfill: Backfill, workers: int, stop: Stop) -> None:
    """Run it, with a bar on a terminal; else the log tells of each day."""
    loaded, failed = set[dt.date](), set[dt.date]()
    with progress.track_days(backfill.load.dataset.name, len(backfill.todo), forks=workers > 1) as show:

        def tell(day: dt.date, cause: str | None) -> None:
            here, there = (loaded, failed) if cause is None else (failed, loaded)
            here.add(day)
            there.discard(day)
            show(len(loaded), len(failed))

        backfill.run(workers, stop, tell)


def show_outcome(backfill: Backfill, stop: Stop) -> None:
    """What was done, skipped and failed, and why."""
    from wholeday.load.warehouse import open_warehouse

    table, failed, workspace = _make_table("what"), list(backfill.failed), backfill.load.workspace()
    if done := set(backfill.done):
        markers = [marker for marker in open_warehouse(workspace).read_markers() if marker.date in done]
        _add_days(table, "done", backfill.done, describe_load(*markers), "green")
    _add_days(table, "skipped", backfill.skipped, "loaded before")
    for day in failed[:FAILED_DAYS]:
        _add_days(table, "failed", [day], backfill.failed[day], "red")
    _add_days(table, "failed", failed[FAILED_DAYS:], "each is named above", "red")
    granted = "the scheduler did not grant them, or another worker has them: run this again"
    _add_days(table, "not run", backfill.not_run, "stopped before" if stop.asked else stop.outage or granted, "yellow")
    _add_days(table, "past", backfill.past, backfill.why_past, "red")
    newest = f"the newest day that can be loaded is {backfill.last_closed}"
    _add_days(table, "not closed", backfill.not_closed, newest, "yellow")
    console, loaded = open_console(), len(backfill.skipped) + len(backfill.done)
    days = loaded + len(failed) + len(backfill.not_run) + len(backfill.not_closed) + len(backfill.past)
    console.print(table)
    verb = "is" if days == 1 else "are"
    console.print(f"{workspace.name}: {loaded:,} of {count(days, 'day')} {verb} loaded")


def _tell_again(options: argparse.Namespace) -> str:
    """The command with which to go on; the values of flags are left out, as who knows what they hold."""
    module = "" if options.module == DEFAULT_MODULE else f" --module {options.module}"
    workers = f" --workers {options.workers}" if options.workers else ""
    flags = " and the flags of this run" if options.flags else ""
    return f"python -m wholeday{module} backfill {options.start} {options.stop}{workers}{flags}"


def show_plan(loads: Loads, options: argparse.Namespace) -> bool:
    """What a backfill of a range would do, and what that would cost. Nothing is run, so all is well."""
    console = open_console()
    for workspace in (load.workspace() for load in loads):
        steps, table = plan(workspace, options.start, options.stop), _make_table("to do")
        for (what, why), days in _group(steps).items():
            _add_days(table, what, days, why)
        console.print(table)
        to_read = sum(step.what == "read" for step in steps)
        if to_read and (cost := find_cost(workspace)):
            requests, time = round(to_read * cost.pages), dt.timedelta(seconds=round(to_read * cost.seconds))
            what = f"about {count(requests, 'request')} and {time} with one worker to read {count(to_read, 'day')}"
            console.print(f"{workspace.name}: {what}, by the median of {count(cost.of, 'loaded day')}", soft_wrap=True)
        elif to_read:
            console.print(
                f"{workspace.name}: no day is loaded from which to learn what {count(to_read, 'day')} may cost"
            )
    return True


def show_pruned(loads: Loads, options: argparse.Namespace) -> bool:
    """The days whose files are given up, or would be without `yes`, and those that are kept; whether none failed."""
    console, sound = open_console(), True
    for workspace in (load.workspace() for load in loads):
        outcomes = list(prune(workspace, options.older_than, options.keep, only_look=not options.yes))
        groups = _group(outcomes)
        pruned = groups.pop(("pruned", ""), [])
        for (what, why), days in groups.items():
            line = f"{workspace.name} {name_days(days)}: {what}, {why}"
            if what == "failed":
                sys.stderr.write(f"ERROR: {line}\n")
            else:
                console.print(line, style="yellow", soft_wrap=True)
        sound &= all(outcome.what != "failed" for outcome in outcomes)
        if not pruned:
            console.print(f"{workspace.name}: no day is to be pruned")
            continue
        size = decimal(sum(outcome.bytes for outcome in outcomes))
        done = "pruned" if options.yes else "would be pruned; nothing is touched without --yes"
        days_and_size = f"{count(len(pruned), 'day')}, {size}"
        console.print(f"{workspace.name} {name_days(pruned)}: {days_and_size}, {done}", soft_wrap=True)
    return sound


def _group(found: Iterable[Step | Outcome]) -> dict[tuple[str, str], list[dt.date]]:
    """The days of which the same is said, and for the same reason."""
    groups: dict[tuple[str, str], list[dt.date]] = {}
    for day in found:
        groups.setdefault((day.what, day.why), []).append(day.date)
    return groups


def _make_table(first: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (first, "days", "which", "why"):
        table.add_column(name, overflow="fold", justify="right" if name == "days" else "left")
    return table


def _add_days(table: Table, what: str, days: Sequence[dt.date], why: str, style: str = "") -> None:
    """A row for days that have something in common, where there are any."""
    if days:
        table.add_row(what, f"{len(days):,}", name_days(days), why, style=style)
