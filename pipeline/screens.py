"""What the commands of `python -m pipeline` print, and whether all is well: that is their exit code.

Owns words, tables and colours. Refuses to find anything out: a screen asks a module for facts and shows them. Each
takes the Load tasks of the module's datasets and the options of its command.
"""

import argparse
import datetime as dt
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config
from luigi.interface import core
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline import config, progress
from pipeline.dataset import Dataset
from pipeline.errors import ConfigError
from pipeline.logs import count
from pipeline.stages import COUNTS, tell_loaded
from pipeline.tasks import Load
from pipeline.tombstones import Tombstones

if TYPE_CHECKING:
    from pipeline.backfill import Backfill
    from pipeline.plan import Step
    from pipeline.prune import Outcome as Given
    from pipeline.reprocess import Outcome
    from pipeline.stop import Stop

REASONS = 10  # for rejects that status names
FAILED_DAYS = 50  # that a backfill names at its end
STOPPING = "stopping: the days that are begun are finished first; once more ends at once, and loses nothing"

Loads = Sequence[type[Load]]


def show_status(loads: Loads, options: argparse.Namespace) -> bool:
    """The newest loaded days of each dataset, how late the newest is, what is missing, stale and rejected."""
    for load in loads:
        _show_status(load.dataset, options.days)
    return True


def _show_status(dataset: Dataset, days: int) -> None:
    from pipeline.reprocess import find_stale
    from pipeline.warehouse import name_days

    markers = dataset.warehouse().loads()
    console = open_console()
    where = config.Pipeline().database
    if pending := Tombstones(config.Pipeline().data_dir, dataset.name).count_pending():
        console.print(f"{dataset.name}: {count(pending, 'key')} not wholly forgotten: run python -m pipeline forget")
    if not markers:
        console.print(f"{dataset.name}: no day is loaded in {where}")
        return
    loaded = [marker["date"] for marker in markers]
    last_closed = dataset.config().last_closed_day(config.utc_now())
    behind = (last_closed - loaded[-1]).days
    late = f"{count(behind, 'day')} behind the last closed day, {last_closed}" if behind > 0 else "up to date"
    console.print(f"{dataset.name} in {where}: {count(len(loaded), 'day')}, {loaded[0]} to {loaded[-1]}; {late}")
    console.print(_make_table(markers[-days:]))
    span = (loaded[-1] - loaded[0]).days
    if gaps := {loaded[0] + dt.timedelta(days=number) for number in range(span)}.difference(loaded):
        console.print(f"missing between them: {name_days(gaps)}")
    stale: dict[str, list[dt.date]] = {}
    for date, why in find_stale(dataset).items():
        stale.setdefault(why, []).append(date)
    for why, dates in stale.items():
        console.print(f"stale, {why}: {name_days(dates)}", style="yellow", soft_wrap=True)
    for reason, records, on in dataset.warehouse().summarise_rejects()[:REASONS]:
        console.print(f"rejected, {count(records, 'record')} of {count(on, 'day')}: {reason}", soft_wrap=True)


def show_reprocessed(loads: Loads, options: argparse.Namespace) -> bool:
    """What becomes of the days that are made again; whether none is missing or failed."""
    from pipeline.reprocess import reprocess

    sound = True
    for load in loads:
        outcomes = reprocess(load.dataset, options.start, options.stop, options.all)
        days = _show_outcomes(load.dataset, outcomes, each="made again from raw")
        sound &= not days["missing"] and not days["failed"]
    return sound


def show_rebuilt(loads: Loads, options: argparse.Namespace) -> bool:
    """Of which days the warehouse is made anew; whether all could be."""
    from pipeline.reprocess import rebuild
    from pipeline.warehouse import name_days

    sound = True
    for load in loads:
        name, days = load.dataset.name, _show_outcomes(load.dataset, rebuild(load.dataset, options.drop_missing))
        open_console().print(f"{name} {name_days(days['done'])}: the warehouse is made anew of these", soft_wrap=True)
        sound &= not days["failed"]
    return sound


def _show_outcomes(dataset: Dataset, outcomes: "Iterable[Outcome]", each: str = "") -> dict[str, list[dt.date]]:
    """Print each outcome as it comes: a line for a day that failed, and with `each` for one that is done."""
    from pipeline.warehouse import name_days

    console = open_console()
    days: dict[str, list[dt.date]] = {"done": [], "current": [], "missing": [], "pruned": [], "failed": []}
    for date, what, why in outcomes:
        days[what].append(date)
        if what == "done" and each:
            console.print(f"{dataset.name} {date}: {why}; {each}", soft_wrap=True)
        elif what == "failed":
            sys.stderr.write(f"ERROR: {why}\n")
    if days["current"]:
        console.print(f"{dataset.name} {name_days(days['current'])}: current, left as it is", soft_wrap=True)
    if days["pruned"]:
        pruned = f"{dataset.name} {name_days(days['pruned'])}"
        console.print(f"{pruned}: given up by prune, left as loaded", style="yellow", soft_wrap=True)
    if days["missing"]:
        missing = f"{dataset.name} {name_days(days['missing'])}"
        sys.stderr.write(f"ERROR: {missing}: no raw files: its Load task reads them from the source\n")
    return days


def show_findings(loads: Loads, options: argparse.Namespace) -> bool:
    """What differs between the files of each dataset and its tables; whether nothing does."""
    from pipeline.verify import verify

    console, sound = open_console(), True
    for name, dataset in ((load.dataset.name, load.dataset) for load in loads):
        number = 0
        for date, thing, what, remark in verify(dataset, options.start or dt.date.min, options.stop or dt.date.max):
            number += not remark
            day = f" {date}" if date else ""
            style = "yellow" if remark else "red"
            console.print(f"{name}{day} {thing}: {what}", style=style, soft_wrap=True)
        console.print(f"{name}: {count(number, 'difference') if number else 'nothing differs'}")
        sound &= not number
    return sound


def show_forgotten(loads: Loads, options: argparse.Namespace) -> bool:
    """In how many lines of which days users are forgotten; whether all of it could be done."""
    from pipeline.forget import forget

    if len(loads) > 1:
        names = ", ".join(load.dataset.name for load in loads)
        raise ConfigError(f"a key is that of one dataset, and there are {names}: name a module of one with --module")
    dataset = loads[0].dataset
    done, console = forget(dataset, options.keys), open_console()
    days = "".join(f"\n  {date}: {count(lines, 'line')}" for date, lines in done.days.items())
    lines, rows = count(sum(done.days.values()), "line"), count(done.rows, "row")
    console.print(f"{dataset.name}: {lines} of the files and {rows} of the warehouse are erased{days}")
    for key in done.unknown:
        console.print(f"{key}: found in no day; it is kept out from now on")
    for problem in done.problems:
        sys.stderr.write(f"ERROR: {problem}\n")
    return not done.problems


def show_diagnosis(loads: Loads, options: argparse.Namespace) -> bool:
    """What a URL is as a source, and the section to paste; what luigi.cfg says of another url is left out."""
    from pipeline.doctor import diagnose

    load, dataset = loads[0], loads[0].dataset
    get_config().remove_section(dataset.name)
    with CmdlineParser.global_instance([load.task_family, f"--{dataset.name}-url", options.url, *options.flags]):
        diagnosis = diagnose(dataset.config(), dataset.contract)
    console = open_console()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    for finding in diagnosis.findings:
        table.add_row(*finding)
    console.print(table)
    for doubt in diagnosis.unsure:
        console.print(f"unsure: {doubt}", style="yellow", soft_wrap=True)
    console.print(
        f"after {count(diagnosis.requests, 'request')}; to be put in the place of the section in luigi.cfg:\n"
    )
    console.print(diagnosis.section, soft_wrap=True)
    return True


def show_checks(loads: Loads, options: argparse.Namespace) -> bool:
    """How the source of each dataset stands the test; whether all do."""
    from pipeline.check import FAILED, OK, check_source

    sound = True
    for load in loads:
        findings = check_source(load.dataset, options.date)
        table = Table(box=None, pad_edge=False, show_header=False)
        for what, (verdict, evidence, next_step) in findings.items():
            style = {OK: "green", FAILED: "red"}.get(verdict, "yellow")
            table.add_row(what, Text(verdict, style), "; ".join(filter(None, (evidence, next_step))))
        open_console().print(table)
        sound &= all(finding.verdict != FAILED for finding in findings.values())
    return sound


def show_backfill(loads: Loads, options: argparse.Namespace) -> bool:
    """What becomes of each day of a range, as it happens and in a table at the end; whether all are loaded."""
    from pipeline.backfill import Backfill
    from pipeline.stop import watch

    workers, sound = options.workers or core().workers, True
    with watch(lambda: sys.stderr.write(f"{STOPPING}\n")) as stop:
        for load in loads:
            backfill = Backfill(load, options.start, options.stop)
            _run_backfill(backfill, workers, stop)
            console = open_console()
            console.print(_make_outcome_table(backfill))
            missing = len(backfill.failed) + len(backfill.left) + len(backfill.early)
            loaded = len(backfill.skipped) + len(backfill.done)
            console.print(f"{load.dataset.name}: {loaded:,} of {count(loaded + missing, 'day')} are loaded")
            sound &= not missing
    if stop.asked and not sound:
        module = "" if options.module == "pipeline" else f" --module {options.module}"
        more = f" --workers {options.workers}" if options.workers else ""
        more += " and the flags of this run" if options.flags else ""
        again = f"python -m pipeline{module} backfill {options.start} {options.stop}{more}"
        sys.stderr.write(f"stopped by {stop.asked.name}: go on with {again}\n")
        sys.exit(128 + stop.asked)
    return sound


def _run_backfill(backfill: "Backfill", workers: int, stop: "Stop") -> None:
    """Run it, with a bar on a terminal, else with a line for each day that is loaded."""
    dataset, loaded, failed = backfill.load.dataset, set[dt.date](), set[dt.date]()
    with progress.follow_days(dataset.name, len(backfill.todo), forks=workers > 1) as show:

        def tell(day: dt.date, cause: str | None) -> None:
            here, there = (loaded, failed) if cause is None else (failed, loaded)
            here.add(day)
            there.discard(day)
            if show:
                show(len(loaded), len(failed))
            elif marker := dataset.warehouse().find_marker(day) if cause is None else None:
                sys.stdout.write(f"{dataset.name} {day}: {tell_loaded(marker)}\n")
                sys.stdout.flush()

        backfill.run(workers, stop, tell)


def _make_outcome_table(backfill: "Backfill") -> Table:
    """What was done, skipped and failed, and why."""
    table, failed = _make_days_table("what"), list(backfill.failed)
    if done := set(backfill.done):
        markers = [marker for marker in backfill.load.dataset.warehouse().loads() if marker["date"] in done]
        totals = {name: sum(marker[name] for marker in markers) for name in COUNTS}
        _add_days(table, "done", backfill.done, tell_loaded(totals), "green")
    _add_days(table, "skipped", backfill.skipped, "loaded before")
    for day in failed[:FAILED_DAYS]:
        _add_days(table, "failed", [day], backfill.failed[day], "red")
    _add_days(table, "failed", failed[FAILED_DAYS:], "each is named above", "red")
    _add_days(table, "not begun", backfill.left, "stopped before", "yellow")
    newest = f"the newest day that can be loaded is {backfill.last_closed}"
    _add_days(table, "not closed", backfill.early, newest, "yellow")
    return table


def _group_days(found: "Iterable[Step | Given]") -> dict[tuple[str, str], list[dt.date]]:
    """The days of which the same is said, and for the same reason."""
    groups: dict[tuple[str, str], list[dt.date]] = {}
    for day in found:
        groups.setdefault((day.what, day.why), []).append(day.date)
    return groups


def _make_days_table(first: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (first, "days", "which", "why"):
        table.add_column(name, overflow="fold", justify="right" if name == "days" else "left")
    return table


def _add_days(table: Table, what: str, days: Sequence[dt.date], why: str, style: str = "") -> None:
    """A row of such a table for days that have something in common, where there are any."""
    from pipeline.warehouse import name_days

    if days:
        table.add_row(what, f"{len(days):,}", name_days(days), why, style=style)


def show_plan(loads: Loads, options: argparse.Namespace) -> bool:
    """What a backfill of a range would do, and what that would cost. Nothing is run, so all is well."""
    from pipeline.plan import find_cost, plan

    console = open_console()
    for dataset in (load.dataset for load in loads):
        steps = plan(dataset, options.start, options.stop)
        table = _make_days_table("to do")
        for (what, why), days in _group_days(steps).items():
            _add_days(table, what, days, why)
        console.print(table)
        to_read = sum(step.what == "read" for step in steps)
        if to_read and (cost := find_cost(dataset)):
            requests, time = round(to_read * cost.pages), dt.timedelta(seconds=round(to_read * cost.seconds))
            what = f"about {count(requests, 'request')} and {time} with one worker to read {count(to_read, 'day')}"
            console.print(f"{dataset.name}: {what}, by the median of {count(cost.of, 'loaded day')}", soft_wrap=True)
        elif to_read:
            console.print(f"{dataset.name}: no day is loaded from which to learn what {count(to_read, 'day')} may cost")
    return True


def show_pruned(loads: Loads, options: argparse.Namespace) -> bool:
    """The days whose files are given up, or would be without `yes`, and those that are kept; whether none failed."""
    from rich.filesize import decimal

    from pipeline.prune import prune
    from pipeline.warehouse import name_days

    console, sound = open_console(), True
    for dataset in (load.dataset for load in loads):
        outcomes = list(prune(dataset, options.older_than, options.keep, only_look=not options.yes))
        groups = _group_days(outcomes)
        pruned = groups.pop(("pruned", ""), [])
        for (what, why), days in groups.items():
            line = f"{dataset.name} {name_days(days)}: {what}, {why}"
            if what == "failed":
                sys.stderr.write(f"ERROR: {line}\n")
            else:
                console.print(line, style="yellow", soft_wrap=True)
        size = decimal(sum(outcome.bytes for outcome in outcomes))
        which = f"{dataset.name} {name_days(pruned)}: {count(len(pruned), 'day')}, {size}" if pruned else ""
        done = "pruned" if options.yes else "would be pruned; nothing is touched without --yes"
        console.print(f"{which}, {done}" if which else f"{dataset.name}: no day is to be pruned", soft_wrap=True)
        sound &= all(outcome.what != "failed" for outcome in outcomes)
    return sound


def open_console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for whoever reads it from a file."""
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)


def _make_table(markers: Iterable[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("date")
    for name in ("extracted", *COUNTS):
        table.add_column(name, justify="right")
    table.add_column("seconds", justify="right")
    for marker in markers:
        counts = (f"{marker[name]:,}" for name in ("extracted", *COUNTS))
        table.add_row(str(marker["date"]), *counts, f"{marker['seconds']:.2f}")
    return table
