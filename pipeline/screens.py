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
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline import config
from pipeline.dataset import Dataset
from pipeline.errors import ConfigError
from pipeline.logs import count
from pipeline.stages import COUNTS
from pipeline.tasks import Load
from pipeline.tombstones import Tombstones

if TYPE_CHECKING:
    from pipeline.reprocess import Outcome

REASONS = 10  # for rejects that status names

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
    where = dataset.warehouse().database
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
    days: dict[str, list[dt.date]] = {"done": [], "current": [], "missing": [], "failed": []}
    for date, what, why in outcomes:
        days[what].append(date)
        if what == "done" and each:
            console.print(f"{dataset.name} {date}: {why}; {each}", soft_wrap=True)
        elif what == "failed":
            sys.stderr.write(f"ERROR: {why}\n")
    if days["current"]:
        console.print(f"{dataset.name} {name_days(days['current'])}: current, left as it is", soft_wrap=True)
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
