"""What the commands of `python -m wholeday` print, and whether all is well: that is their exit code.

Owns words, tables and colours. Refuses to find anything out: a screen asks a module for facts and shows them. Each
takes the Load tasks of the module's datasets and the options of its command.
"""

import argparse
import contextlib
import datetime as dt
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config
from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

from wholeday import clock
from wholeday.config.pipeline import Pipeline
from wholeday.errors import ConfigError
from wholeday.load.day import COUNTS, describe_removed
from wholeday.log import count, encode_json
from wholeday.schema.marker import Marker
from wholeday.storage.workspace import Workspace
from wholeday.tasks import alerts
from wholeday.tasks.day_tasks import Load
from wholeday.tasks.failures import Failure
from wholeday.tasks.registry import spell_command
from wholeday.text import clean_lines

if TYPE_CHECKING:
    from wholeday.commands.reprocess import Outcome
    from wholeday.commands.status import State, Status

REASONS = 10  # for rejects that status names
FAILURES = 5  # that it names
WEEKS = 6  # of its calendar
LETTERS: "dict[State, tuple[str, str]]" = {
    "loaded": (".", "green"),
    "pruned": ("p", "green"),
    "outdated": ("O", "yellow"),
    "failed": ("F", "bold red"),
    "missing": ("M", "red"),
    "open": ("-", "dim"),
}

FUTURE = "docs/operating.md, A wrong clock"
Loads = Sequence[type[Load]]


def show_status(loads: Loads, options: argparse.Namespace) -> bool:
    """How each dataset stands, for people or, with `json`, for machines; whether none is older than `max_age`."""
    from wholeday.commands.status import find_status

    found = [find_status(load.workspace()) for load in loads]
    late = []
    for load, status in zip(loads, found, strict=True):
        if line := _tell_late(status, options.max_age):
            late.append(f"ERROR: {line}\n")
            alerts.send_alert(load.dataset, Failure(status.at, status.last_closed, alerts.LATE, line))
    try:
        if options.json:
            newest = [msgspec.structs.replace(status, loads=status.loads[-options.days :]) for status in found]
            sys.stdout.write(f"{encode_json({'datasets': newest})}\n")
        else:
            for status in found:
                _show_status(status, options.days)
    finally:  # where nothing else can be shown, on a full disk, this is
        sys.stderr.writelines(late)
    return not late


def _show_status(status: "Status", days: int) -> None:
    from wholeday.commands.status import name_newest, tell_command, tell_span, tell_time

    console, name = open_console(), status.dataset
    if status.unforgotten:
        pending = count(status.unforgotten, "key")
        console.print(f"{name}: {pending} not wholly forgotten: {spell_command(name, 'forget')}", soft_wrap=True)
    if status.first and status.newest and status.known_until:
        lacking = f"{count(len(status.missing), 'day')} missing up to the last closed one, {status.last_closed}"
        span = f"{count(status.days, 'day')}, {status.first} to {status.newest}"
        age = tell_span(status.at - status.known_until)
        console.print(
            f"{name} in {status.database}: {span}; {lacking if status.missing else 'none is missing'}", soft_wrap=True
        )
        console.print(f"what changed before {tell_time(status.known_until)} is known, {age} ago", soft_wrap=True)
        if status.source:
            console.print(f"source: {status.source}", soft_wrap=True)
    else:
        console.print(f"{name}: no day is loaded in {status.database}", soft_wrap=True)
    if status.future:
        console.print(f"wrong clock: {_tell_future(status)}", style="red", soft_wrap=True)
    if states := status.find_states():
        console.print("", _make_calendar(states, status.last_closed), _make_legend(), "", sep="\n")
    if status.loads:
        _show_loads(console, status.loads[-days:])
    if status.wanted:
        next_ = tell_command(name, "backfill", status.wanted)
        console.print(f"missing: {name_newest(status.wanted)}: {next_}", style="red", soft_wrap=True)
    if status.past:
        past = f"past: {name_newest(status.past)}: past snapshots cannot be fetched again"
        console.print(past, style="red", soft_wrap=True)
    for failure in status.failures[:FAILURES]:
        over, style = ("", "red") if failure.date in status.failed else (", loaded now", "dim")
        what = f"failed at {tell_time(failure.at)}{over}: {failure.date}, {failure.stage}"
        console.print(f"{what}: {failure.line}", style=style, soft_wrap=True)
    outdated: dict[str, list[dt.date]] = {}
    for date, why in status.outdated.items():
        outdated.setdefault(why, []).append(date)
    for why, dates in outdated.items():
        console.print(f"outdated, {why}: {name_newest(dates)}", style="yellow", soft_wrap=True)
    for rejected in status.rejects[:REASONS]:
        where = f"{count(rejected.records, 'record')} of {count(rejected.days, 'day')}"
        console.print(f"rejected, {where}: {rejected.reason}", soft_wrap=True)


def _make_calendar(states: "Mapping[dt.date, State]", last_closed: dt.date) -> Table:
    """The last weeks up to that of the last closed day, but none before the first known day: a row each."""
    newest = max(last_closed, *states)
    start = max(min(states), newest - dt.timedelta(weeks=WEEKS - 1))
    monday = start - dt.timedelta(days=start.weekday())
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("week of")
    for name in ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"):
        table.add_column(name, justify="right")
    while monday <= newest:
        week = [monday + dt.timedelta(days=number) for number in range(7)]
        found = [(day, states.get(day, "open" if day > last_closed else None)) for day in week]
        table.add_row(str(monday), *(_make_cell(day, state) for day, state in found))
        monday += dt.timedelta(weeks=1)
    return table


def _make_cell(day: dt.date, state: "State | None") -> Text:
    """A day of the month with the letter of its state; nothing where it has none."""
    if not state:
        return Text()
    letter, style = LETTERS[state]
    return Text(f"{day.day} {letter}", style)


def _make_legend() -> Columns:
    """What the letters mean: in a line, or in as many as the terminal needs."""
    from wholeday.commands.status import STATES

    legend = (Text(f"{letter} {STATES[state]}", style) for state, (letter, style) in LETTERS.items())
    return Columns(legend, padding=(0, 3))


def _tell_late(status: "Status", max_age: dt.timedelta | None) -> str | None:
    """That what is known ends longer ago than `max_age`, and why; None where it does not."""
    from wholeday.commands.status import tell_span, tell_time

    if max_age is not None and status.future:
        return f"{status.dataset}: {_tell_future(status)}"
    if max_age is None or (status.known_until and status.at - status.known_until <= max_age):
        return None
    known = "no day is loaded"
    if status.known_until:
        age = tell_span(status.at - status.known_until)
        known = f"what is known ends with {tell_time(status.known_until)}, {age} ago"
    return f"{status.dataset}: {known}, and --max-age allows {tell_span(max_age)}: {_tell_next(status)}"


def _tell_future(status: "Status") -> str:
    """Name the days that were read under a wrong clock, and what to do."""
    from wholeday.commands.status import name_newest

    days = name_newest(status.future)
    return f"{days}: read under a clock that was ahead; what is loaded later may change nothing: {FUTURE}"


def _tell_next(status: "Status") -> str:
    """What keeps a dataset back: the failure of the oldest day that it lacks, or what to run."""
    from wholeday.commands.status import tell_command

    failed = {failure.date: failure for failure in status.open_failures}
    lacking = status.wanted or list(failed)
    if not lacking:
        return f"{spell_command(status.dataset, 'status')} tells more"
    missing = f"{count(len(lacking), 'day')} missing"
    if failure := failed.get(lacking[0]):
        before = f"{missing}, " if len(lacking) > 1 else ""
        return f"{before}{failure.date} failed, {failure.stage}: {failure.line}"
    return f"{missing}: {tell_command(status.dataset, 'backfill', lacking)}"


def show_report(loads: Loads, options: argparse.Namespace) -> bool:
    """Where the page is that was written; it says whether all is well."""
    from wholeday.commands.report import write_report

    place = write_report([load.workspace() for load in loads], options.file, options.days, options.module)
    open_console().print(f"{place}: open it in a browser", soft_wrap=True)
    return True


def show_reprocessed(loads: Loads, options: argparse.Namespace) -> bool:
    """What becomes of the days that are made again; whether none is missing or failed."""
    from wholeday.commands.reprocess import reprocess

    sound = True
    for load in loads:
        outcomes = reprocess(load.workspace(), options.start, options.stop, options.all)
        days = _show_outcomes(load.workspace(), outcomes, each="made again from raw")
        sound &= not days["missing"] and not days["failed"] and not days["skipped"]
    return sound


def show_rebuilt(loads: Loads, options: argparse.Namespace) -> bool:
    """Of which days the warehouse is made anew; whether all could be."""
    from wholeday.commands.reprocess import rebuild
    from wholeday.days import name_days

    sound = True
    for load in loads:
        name, days = (
            load.dataset.name,
            _show_outcomes(load.workspace(), rebuild(load.workspace(), options.drop_missing)),
        )
        open_console().print(f"{name} {name_days(days['done'])}: the warehouse is made anew of these", soft_wrap=True)
        sound &= not days["failed"]
    return sound


def _show_outcomes(workspace: Workspace, outcomes: "Iterable[Outcome]", each: str = "") -> dict[str, list[dt.date]]:
    """Print each outcome as it comes: a line for a day that failed, and with `each` for one that is done."""
    from wholeday.days import name_days

    console = open_console()
    days: dict[str, list[dt.date]] = {
        name: [] for name in ("done", "current", "missing", "pruned", "skipped", "failed")
    }
    missing: dict[str, list[dt.date]] = {}
    for date, what, why in outcomes:
        days[what].append(date)
        if what == "done" and each:
            console.print(f"{workspace.name} {date}: {why}; {each}", soft_wrap=True)
        elif what == "failed":
            sys.stderr.write(f"ERROR: {why}\n")
        elif what == "skipped":
            sys.stderr.write(f"WARNING: {workspace.name} {date}: skipped: {why}\n")
        elif what == "missing":
            missing.setdefault(why, []).append(date)
    if days["current"]:
        console.print(f"{workspace.name} {name_days(days['current'])}: current, left as it is", soft_wrap=True)
    if days["pruned"]:
        pruned = f"{workspace.name} {name_days(days['pruned'])}"
        console.print(f"{pruned}: given up by prune, left as loaded", style="yellow", soft_wrap=True)
    for why, dates in missing.items():
        sys.stderr.write(f"ERROR: {workspace.name} {name_days(dates)}: {why}\n")
    return days


def show_findings(loads: Loads, options: argparse.Namespace) -> bool:
    """What differs between the files of each dataset and its tables; whether nothing does."""
    from wholeday.commands.verify import verify

    console, sound = open_console(), True
    for name, workspace in ((load.dataset.name, load.workspace()) for load in loads):
        number = 0
        for date, thing, what, remark in verify(workspace, options.start or dt.date.min, options.stop or dt.date.max):
            number += not remark
            day = f" {date}" if date else ""
            style = "yellow" if remark else "red"
            console.print(f"{name}{day} {thing}: {what}", style=style, soft_wrap=True)
        console.print(f"{name}: {count(number, 'difference') if number else 'nothing differs'}")
        sound &= not number
    return sound


def show_forgotten(loads: Loads, options: argparse.Namespace) -> bool:
    """In how many lines of which days users are forgotten; whether all of it could be done.

    Raises ConfigError unless a person confirms the keys that are not forgotten yet.
    """
    from wholeday.commands.forget import forget

    if len(loads) > 1:
        names = ", ".join(load.dataset.name for load in loads)
        raise ConfigError(f"a key is that of one dataset, and there are {names}: name a module of one with --module")
    workspace = loads[0].workspace()
    console = open_console()
    _confirm_keys(workspace, options, console)
    done = forget(workspace, options.keys)
    days = "".join(f"\n  {date}: {count(lines, 'line')}" for date, lines in done.days.items())
    lines, rows = count(sum(done.days.values()), "line"), count(done.rows, "row")
    console.print(f"{workspace.name}: {lines} of the files and {rows} of the warehouse are erased{days}")
    for key in done.unknown:
        console.print(f"{key}: found in no day; it is kept out from now on")
    for problem in done.problems:
        sys.stderr.write(f"ERROR: {problem}\n")
    return not done.problems


def _confirm_keys(workspace: Workspace, options: argparse.Namespace, console: Console) -> None:
    """Show what is known of the keys, and have a person confirm them. Raises ConfigError otherwise."""
    from wholeday.commands.lookup import look_up

    traces = look_up(workspace, options.keys)  # of an interrupted run, which goes on, nothing is asked again
    if (unknown := [trace.text for trace in traces if not trace.is_known]) and not options.unknown:
        raise ConfigError(
            f"{workspace.name}: no file and no table has the key {', '.join(unknown)}: check the spelling, or keep it "
            "out for good with --unknown. Nothing is erased"
        )
    for trace in traces:
        known = f"{count(trace.rows, 'row')} of the warehouse, {count(len(trace.days), 'day')}"
        console.print(f"{trace.text}: {known}", soft_wrap=True)
    if not traces or options.yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("forget cannot be undone, and nobody can be asked here: run it again with --yes")
    what = count(len(traces), "key")
    sys.stderr.write(f"Erase {what} from every file and table of {workspace.name}, for good? [y/N] ")
    sys.stderr.flush()
    with contextlib.suppress(KeyboardInterrupt):
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
    raise ConfigError("nothing is erased")


def show_diagnosis(loads: Loads, options: argparse.Namespace) -> bool:
    """What a URL is as a source, and the section to paste; what luigi.cfg says of another url is left out."""
    from wholeday.commands.doctor import diagnose

    load, dataset = loads[0], loads[0].dataset
    get_config().remove_section(dataset.name)
    with CmdlineParser.global_instance([load.task_family, f"--{dataset.name}-url", options.url, *options.flags]):
        diagnosis = diagnose(dataset.config(), dataset.record_class)
    console = open_console()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    for finding in diagnosis.findings:
        table.add_row(*finding)
    console.print(table)
    for doubt in diagnosis.unsure:
        console.print(f"unsure: {doubt}", style="yellow", soft_wrap=True)
    console.print(
        f"after {count(diagnosis.requests, 'request')}; replace section [{dataset.name}] of luigi.cfg with this one:\n"
    )
    console.print(diagnosis.section, soft_wrap=True)
    return True


def show_checks(loads: Loads, options: argparse.Namespace) -> bool:
    """How the source of each dataset stands the test; whether all do."""
    from wholeday.commands.check import FAILED, OK, check_source

    sound = True
    for load in loads:
        findings = check_source(load.workspace(), options.date)
        table = Table(box=None, pad_edge=False, show_header=False)
        for what, (verdict, evidence, next_step) in findings.items():
            style = {OK: "green", FAILED: "red"}.get(verdict, "yellow")
            table.add_row(what, Text(verdict, style), "; ".join(filter(None, (evidence, next_step))))
        open_console().print(table)
        sound &= all(finding.verdict != FAILED for finding in findings.values())
    return sound


def show_trial(loads: Loads, _: argparse.Namespace) -> bool:
    """Whether the webhook takes a message. Raises ConfigError where there is none."""
    now, webhook = clock.utc_now(), Pipeline().webhook
    if not webhook:
        raise ConfigError("[pipeline] webhook is not set: name the environment variable that holds its URL")
    trial = alerts.build_message(
        loads[0].dataset.name, Failure(now, now.date(), "trial", "nothing failed: this is a trial")
    )
    if problem := alerts.post(webhook, trial):
        sys.stderr.write(f"ERROR: {problem}\n")
        return False
    open_console().print(f"the webhook of {webhook} took a trial message")
    return True


def open_console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for whoever reads it from a file."""
    return _Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False, emoji=False)


class _Console(Console):
    """A console that cleans each text: rich lets through what moves the cursor or changes colours."""

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(clean_lines(text), **how)


def _show_loads(console: Console, markers: Sequence[Marker]) -> None:
    """A row a day with its counts. Where they are too wide those that are 0 on all these days are told in a line."""
    names, zero = ["extracted", *COUNTS], []
    if len("  ".join(["2026-11-21", *names, "seconds"])) > console.width:
        zero = [name for name in names if not any(marker.counts[name] for marker in markers)]
    shown = [name for name in names if name not in zero]
    rows = [[*(f"{marker.counts[name]:,}" for name in shown), f"{marker.seconds:.2f}"] for marker in markers]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("date", no_wrap=True)
    for name, values in zip((*shown, "seconds"), zip(*rows, strict=True), strict=True):  # a name is broken, no number
        table.add_column(name, justify="right", overflow="fold", min_width=max(map(len, values)))
    for marker, row in zip(markers, rows, strict=True):
        table.add_row(str(marker.date), *row)
    console.print(table)
    if zero:
        console.print(f"0 on all these days: {', '.join(zero)}", style="dim", soft_wrap=True)
    for marker in markers:
        if removed := describe_removed(marker):
            console.print(f"{marker.date} {removed}", style="yellow", soft_wrap=True)
