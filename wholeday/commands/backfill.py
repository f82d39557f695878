"""Load every missing day of a range, and print what became of each."""

import datetime as dt
import sys
from typing import Annotated

import typer
from luigi.interface import core

from wholeday.commands.arguments import Start
from wholeday.commands.arguments import Stop as StopDay
from wholeday.commands.screen import Outcome, add_days, group_days, make_days_table, open_console
from wholeday.commands.session import Given, open_loads
from wholeday.days import check_span, name_days
from wholeday.errors import PipelineError
from wholeday.load.day import describe_load
from wholeday.load.warehouse import open_warehouse
from wholeday.log import count
from wholeday.tasks import progress
from wholeday.tasks.backfill import BackfillRun
from wholeday.tasks.console import describe_error
from wholeday.tasks.day_tasks import Load
from wholeday.tasks.stop import Stop, watch_signals
from wholeday.tasks.workflow import broken

FAILED_DAYS = 50  # that the table names at the end
STOPPING = "stopping: finishing the running days; press Ctrl-C again to abort, which loses nothing"


def command(
    context: typer.Context,
    start: Start,
    stop: StopDay,
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many processes to use, with one task each (default: 1).")
    ] = None,
) -> bool:
    """Load the days, and print what became of each. Returns whether all are loaded."""
    check_span(start, stop)
    undone: list[Load] = []
    errors = set[str | None]()
    quiet = ("--log-level", "WARNING") if sys.stderr.isatty() else ()  # a bar shows the progress
    with (
        open_loads(context, *quiet, despite_mistakes=True) as loads,
        watch_signals(lambda: sys.stderr.write(f"{STOPPING}\n")) as asked,
    ):
        for load in loads:
            asked.outage = None  # another dataset may have another source
            try:
                backfill = BackfillRun(load, start, stop, undone)
                try:
                    _run_backfill(backfill, workers or core().workers, asked)
                finally:
                    show_outcome(backfill, asked)
                    undone += backfill.list_undone()
            except PipelineError as error:
                line = describe_error(error)  # datasets that need another one have its errors
                sys.stderr.write(f"ERROR: {f'{load.dataset.name}: not run, see above' if line in errors else line}\n")
                errors.add(line)
    sound = not (undone or errors or (broken and not context.obj.dataset))
    if asked.asked and not sound:
        again = _spell_again(context.obj, start, stop, workers)
        sys.stderr.write(f"stopped by {asked.asked.name}: resume with {again}\n")
        sys.exit(128 + asked.asked)
    return sound


def _run_backfill(backfill: BackfillRun, workers: int, stop: Stop) -> None:
    """Run the backfill. On a terminal a bar shows the progress, elsewhere the log has a line per day."""
    loaded, failed = set[dt.date](), set[dt.date]()
    with progress.track_days(backfill.load.dataset.name, len(backfill.todo), forks=workers > 1) as show:

        def tell(day: dt.date, cause: str | None) -> None:
            here, there = (loaded, failed) if cause is None else (failed, loaded)
            here.add(day)
            there.discard(day)
            show(len(loaded), len(failed))

        backfill.run(workers, stop, tell)


def show_outcome(backfill: BackfillRun, stop: Stop) -> None:
    """Print the outcome of each day, and its reason."""
    table, failed, workspace = make_days_table("what"), list(backfill.failed), backfill.load.workspace()
    if done := set(backfill.done):
        markers = [marker for marker in open_warehouse(workspace).read_markers() if marker.date in done]
        add_days(table, "done", backfill.done, describe_load(*markers), "green")
    add_days(table, "skipped", backfill.skipped, "loaded before")
    for day in failed[:FAILED_DAYS]:
        add_days(table, "failed", [day], backfill.failed[day], "red")
    add_days(table, "failed", failed[FAILED_DAYS:], "each is named above", "red")
    granted = "the scheduler did not grant them, or another worker has them: run the command again"
    usual = "stopped before" if stop.asked else stop.outage or granted
    waiting = group_days(Outcome(day, "not run", why or usual) for day, why in backfill.not_run.items())
    for (what, why), days in list(waiting.items())[:FAILED_DAYS]:
        add_days(table, what, days, why, "yellow")
    rest = [day for days in list(waiting.values())[FAILED_DAYS:] for day in days]
    add_days(table, "not run", rest, "each is named above", "yellow")
    add_days(table, "past", backfill.past, backfill.why_past, "red")
    newest = f"the newest day that can be loaded is {backfill.last_closed}"
    add_days(table, "not closed", backfill.not_closed, newest, "yellow")
    if backfill.not_closed:  # no task was asked for these days, so nothing on standard error names them
        sys.stderr.write(f"ERROR: {workspace.name}: not closed: {name_days(backfill.not_closed)}: {newest}\n")
    if backfill.past:
        sys.stderr.write(f"ERROR: {workspace.name}: past: {name_days(backfill.past)}: {backfill.why_past}\n")
    console, loaded = open_console(), len(backfill.skipped) + len(backfill.done)
    asked = loaded + len(failed) + len(backfill.not_run) + len(backfill.not_closed) + len(backfill.past)
    console.print(table, soft_wrap=False)
    verb = "is" if asked == 1 else "are"
    console.print(f"{workspace.name}: {loaded:,} of {count(asked, 'day')} {verb} loaded")


def _spell_again(given: Given, start: dt.date, stop: dt.date, workers: int | None) -> str:
    """Return the command that continues the run, without the values of flags: they may be secret."""
    words = ["wholeday", "backfill", str(start), str(stop)]
    words += ["--workers", str(workers)] if workers else []
    words += ["--dataset", given.dataset] if given.dataset else []
    return " ".join([*words, *(["and the flags of this run"] if given.flags else [])])
