"""`python -m pipeline`: what a person asks beside running days. Owns the printing; every fact comes from elsewhere."""

import argparse
import datetime as dt
import importlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config
from luigi.task_register import Register
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline import config, logs
from pipeline.dataset import Dataset
from pipeline.errors import ConfigError
from pipeline.logs import count
from pipeline.stages import COUNTS
from pipeline.tasks import Load
from pipeline.tombstones import Tombstones

REASONS = 10  # for rejects that status names


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exits with 0, or with 1 and one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline",
        description="Keys of luigi.cfg are flags here too, as in --pipeline-database sqlite:///other.db",
        allow_abbrev=False,
    )
    parser.add_argument("--module", default="pipeline", help="where the dataset's tasks are (default: pipeline)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    status = commands.add_parser("status", help="which days the warehouse holds, and what came with them")
    status.add_argument("--days", type=int, default=14, help="how many of the newest days to list (default: 14)")
    doctor = commands.add_parser("doctor", help="what a URL is as a source, and the section that reads it")
    check = commands.add_parser("check", help="whether the configured source keeps what is relied upon; reads it twice")
    check.add_argument("--date", type=dt.date.fromisoformat, help="the day to read (default: the last closed one)")
    doctor.add_argument("url", metavar="URL", help="the first page; flags such as --users-auth bearer:ENV follow it")
    reprocess = commands.add_parser("reprocess", help="make stale days again from their raw files, without the source")
    verify = commands.add_parser("verify", help="name what differs in files and warehouse; changes nothing")
    for days, needed in ((reprocess, None), (verify, "?")):
        days.add_argument("start", metavar="START", type=dt.date.fromisoformat, nargs=needed, help="the first day")
        days.add_argument(
            "stop", metavar="STOP", type=dt.date.fromisoformat, nargs=needed, help="the day after the last"
        )
    reprocess.add_argument("--all", action="store_true", help="the days that are current too")
    rebuild = commands.add_parser("rebuild", help="make the warehouse anew of all raw files; readers see old or new")
    rebuild.add_argument("--drop-missing", action="store_true", help="give up loaded days that have no raw files")
    forget = commands.add_parser("forget", help="erase users for good, from every file and table")
    forget.add_argument(
        "keys", nargs="*", metavar="KEY", help="of a user, a JSON array where it has several columns; flags follow it"
    )
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options, flags = parser.parse_known_args(arguments)
    if options.command == "status" and options.days < 1:
        parser.error("--days must be 1 or more")
    if options.command == "forget":
        behind = arguments[arguments.index("forget") + 1 :]
        if options.keys != behind[: len(options.keys)]:  # the value of a flag must not be taken for somebody's key
            parser.error("give each KEY right behind forget, and flags after them")
    try:
        importlib.import_module(options.module)
        loads = _find_loads(options.module)
        if options.command == "doctor":
            show_diagnosis(loads[0], options.url, flags)
            return
        with CmdlineParser.global_instance([loads[0].task_family, *flags]):
            datasets = [load.dataset for load in loads]
            if options.command == "check":
                passed = [show_check(dataset, options.date) for dataset in datasets]
                sys.exit(not all(passed))
            if options.command == "verify":
                sound = [show_findings(dataset, options.start, options.stop) for dataset in datasets]
                sys.exit(not all(sound))
            if options.command in ("reprocess", "rebuild"):
                made = [show_outcomes(dataset, options) for dataset in datasets]
                sys.exit(not all(made))
            if options.command == "forget":
                sys.exit(not show_forgotten(datasets, options.keys))
            for dataset in datasets:
                show_status(dataset, options.days)
    except ModuleNotFoundError as error:
        if error.name != options.module:
            raise
        sys.exit(f"ERROR: there is no module {options.module}: name one that Python finds from here, or leave it out")
    except logs.EXPECTED as error:
        sys.exit(f"ERROR: {logs.tell(error)}")


def show_status(dataset: Dataset, days: int) -> None:
    """Print the newest loaded days of a dataset, how late the newest is, what is missing, stale and rejected."""
    from pipeline.reprocess import find_stale
    from pipeline.warehouse import name_days

    loads = dataset.warehouse().loads()
    console = _open_console()
    where = config.Pipeline().database
    if pending := Tombstones(config.Pipeline().data_dir, dataset.name).count_pending():
        console.print(f"{dataset.name}: {count(pending, 'key')} not wholly forgotten: run python -m pipeline forget")
    if not loads:
        console.print(f"{dataset.name}: no day is loaded in {where}")
        return
    loaded = [load["date"] for load in loads]
    last_closed = dataset.config().last_closed_day(config.utc_now())
    behind = (last_closed - loaded[-1]).days
    late = f"{count(behind, 'day')} behind the last closed day, {last_closed}" if behind > 0 else "up to date"
    console.print(f"{dataset.name} in {where}: {count(len(loaded), 'day')}, {loaded[0]} to {loaded[-1]}; {late}")
    console.print(_make_table(loads[-days:]))
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


def show_forgotten(datasets: Sequence[Dataset], keys: Sequence[str]) -> bool:
    """Forget, and print in how many lines of which days; whether all of it could be done."""
    from pipeline.forget import forget

    if len(datasets) > 1:
        names = ", ".join(dataset.name for dataset in datasets)
        raise ConfigError(f"a key is that of one dataset, and there are {names}: name a module of one with --module")
    done, console = forget(datasets[0], keys), _open_console()
    days = "".join(f"\n  {date}: {count(lines, 'line')}" for date, lines in done.days.items())
    lines, rows = count(sum(done.days.values()), "line"), count(done.rows, "row")
    console.print(f"{datasets[0].name}: {lines} of the files and {rows} of the warehouse are erased{days}")
    for key in done.unknown:
        console.print(f"{key}: found in no day; it is kept out from now on")
    for problem in done.problems:
        sys.stderr.write(f"ERROR: {problem}\n")
    return not done.problems


def show_diagnosis(load: type[Load], url: str, flags: Sequence[str]) -> None:
    """Print what `url` is as a source, and the section to paste; what luigi.cfg says of another url is left out."""
    from pipeline.doctor import diagnose

    dataset = load.dataset
    get_config().remove_section(dataset.name)
    with CmdlineParser.global_instance([load.task_family, f"--{dataset.name}-url", url, *flags]):
        diagnosis = diagnose(dataset.config(), dataset.contract)
    console = _open_console()
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


def show_check(dataset: Dataset, date: dt.date | None) -> bool:
    """Print how the source of a dataset stands the test; whether it does."""
    from pipeline.check import FAILED, OK, check_source

    findings = check_source(dataset, date)
    table = Table(box=None, pad_edge=False, show_header=False)
    for what, (verdict, evidence, next_step) in findings.items():
        style = {OK: "green", FAILED: "red"}.get(verdict, "yellow")
        table.add_row(what, Text(verdict, style), "; ".join(filter(None, (evidence, next_step))))
    _open_console().print(table)
    return all(finding.verdict != FAILED for finding in findings.values())


def show_findings(dataset: Dataset, start: dt.date | None, stop: dt.date | None) -> bool:
    """Print what differs between the files of a dataset and its tables; whether nothing does."""
    from pipeline.verify import verify

    console, number = _open_console(), 0
    for date, thing, what, remark in verify(dataset, start or dt.date.min, stop or dt.date.max):
        number += not remark
        day = f" {date}" if date else ""
        style = "yellow" if remark else "red"
        console.print(f"{dataset.name}{day} {thing}: {what}", style=style, soft_wrap=True)
    console.print(f"{dataset.name}: {count(number, 'difference') if number else 'nothing differs'}")
    return not number


def show_outcomes(dataset: Dataset, options: argparse.Namespace) -> bool:
    """Reprocess or rebuild a dataset, and print what becomes of its days; whether none is missing or failed."""
    from pipeline.reprocess import Outcome, rebuild, reprocess
    from pipeline.warehouse import name_days

    console = _open_console()
    days: dict[str, list[dt.date]] = {"done": [], "current": [], "missing": [], "failed": []}
    outcomes: Iterable[Outcome] = (
        rebuild(dataset, options.drop_missing)
        if options.command == "rebuild"
        else reprocess(dataset, options.start, options.stop, options.all)
    )
    for date, what, why in outcomes:
        days[what].append(date)
        if what == "done" and options.command == "reprocess":
            console.print(f"{dataset.name} {date}: {why}; made again from raw", soft_wrap=True)
        elif what == "failed":
            sys.stderr.write(f"ERROR: {why}\n")
    if options.command == "rebuild":
        console.print(f"{dataset.name} {name_days(days['done'])}: the warehouse is made anew of these", soft_wrap=True)
    if days["current"]:
        console.print(f"{dataset.name} {name_days(days['current'])}: current, left as it is", soft_wrap=True)
    if days["missing"]:
        missing = f"{dataset.name} {name_days(days['missing'])}"
        sys.stderr.write(f"ERROR: {missing}: no raw files: its Load task reads them from the source\n")
    return not days["missing"] and not days["failed"]


def _open_console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)


def _find_loads(module: str) -> list[type[Load]]:
    """The Load task of each dataset in a module or its modules. Raises ConfigError where there is none."""
    classes = [Register.get_task_cls(name) for name in Register.task_names()]
    loads = [cls for cls in classes if issubclass(cls, Load) and f"{cls.__module__}.".startswith(f"{module}.")]
    if not loads:
        raise ConfigError(f"the module {module} has no Load task: name the one that has, as in --module pipeline")
    return loads


def _make_table(loads: Iterable[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("date")
    for name in ("extracted", *COUNTS):
        table.add_column(name, justify="right")
    table.add_column("seconds", justify="right")
    for load in loads:
        counts = (f"{load[name]:,}" for name in ("extracted", *COUNTS))
        table.add_row(str(load["date"]), *counts, f"{load['seconds']:.2f}")
    return table
