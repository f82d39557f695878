"""`python -m wholeday`: what a person asks beside running days.

Owns the commands and their arguments. What a command prints is in screens.py and ranges.py, every fact comes from
elsewhere.
"""

import argparse
import datetime as dt
import importlib
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from luigi.cmdline import luigi_run
from luigi.cmdline_parser import CmdlineParser
from luigi.task_register import Register

from wholeday.commands import ranges, screens
from wholeday.commands.parser import Parser, list_flags
from wholeday.config.parameters import Duration
from wholeday.errors import ConfigError
from wholeday.tasks import console
from wholeday.tasks.day_tasks import DayParameter, Load
from wholeday.tasks.registry import DEFAULT_MODULE

Show = Callable[[Sequence[type[Load]], argparse.Namespace], bool]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exits with 0, or with 1 and one line on stderr."""
    words = sys.argv[1:] if arguments is None else arguments
    module: str = make_module_parser().parse_known_args(words)[0].module
    try:
        import_module(module)
        loads = find_loads(module)
        options = parse(words)
        if options.command in ("load", "doctor"):  # each enters Luigi's command line on its own
            well = options.show(loads, options)
        else:
            with CmdlineParser.global_instance([loads[0].task_family, *options.defaults, *options.flags]):
                for load in loads:
                    load.dataset.config()  # a section that cannot be used fails before a command makes anything
                well = options.show(loads, options)
        sys.stdout.flush()
    except console.EXPECTED as error:
        sys.exit(f"ERROR: {console.describe_error(error)}")
    except OSError as error:
        if error.filename:
            raise
        console.drop_stream("stdout", error)
        sys.exit(1)
    if not well:
        sys.exit(1)


def import_module(name: str) -> None:
    """Import the module of a dataset. Raises ConfigError if it is not there or its code fails."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"there is no module {name}: name one that Python finds from here, or leave it out"
            ) from error
        raise ConfigError(console.describe_import_failure(error)) from error
    except Exception as error:
        raise ConfigError(console.describe_import_failure(error)) from error


def make_module_parser() -> argparse.ArgumentParser:
    """Finds the one flag that stands before or behind a command: which flags there are else, the module decides."""
    parser = argparse.ArgumentParser(prog="python -m wholeday", add_help=False, allow_abbrev=False)
    parser.add_argument("--module", default=DEFAULT_MODULE, help="where the dataset's tasks are (default: %(default)s)")
    return parser


def parse(words: Sequence[str]) -> argparse.Namespace:
    """A command and its arguments; `flags` are those for keys of luigi.cfg."""
    parser = make_parser()
    options = parser.parse_args(words)
    options.flags = parser.given
    if options.command == "forget":
        known = parser.commands["forget"].list_own_flags() | {flag for flag, _ in list_flags()}
        if taken := [key for key in options.keys if key.partition("=")[0] in known]:
            parser.error(f"an argument behind -- is a KEY: give the flag {taken[0]} before --")
    return options


def make_parser() -> Parser:
    """Build the parser of every command. `show` runs a command, prints its result and returns whether all is well."""
    given: list[str] = []
    epilog = (
        "Every key of luigi.cfg is a flag too, as in --pipeline-database sqlite:///other.db. README.md lists the keys."
    )
    parser = Parser(given, prog="python -m wholeday", epilog=epilog, parents=[make_module_parser()])
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    parser.commands = commands.choices

    def add(name: str, show: Show, help_: str) -> Parser:
        command = commands.add_parser(name, given=given, help=help_, description=help_, epilog=epilog)
        command.add_argument("--module", default=argparse.SUPPRESS, help="where the dataset's tasks are")
        command.set_defaults(show=show, defaults=[])
        return command

    load = add("load", show_load, "load one day, as Luigi's command does: extract, transform, load")
    load.add_argument("date", metavar="DATE", type=parse_day, help="the day, as 2026-11-21")
    status = add("status", screens.show_status, "how each day stands, how old the newest is, and what came with them")
    status.add_argument(
        "--days", type=parse_positive, default=14, help="how many of the newest days to list (default: 14)"
    )
    status.add_argument(
        "--json", action="store_true", help="one JSON document for machines: docs/operating.md has its keys"
    )
    status.add_argument(
        "--max-age",
        type=parse_duration,
        metavar="DURATION",
        help="exit with 1 where what is known ends longer ago, as in '36 hours' or '2 days'",
    )
    report = add("report", screens.show_report, "the same as a page with charts, in one file")
    report.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="where to write it (default: in data_dir, report.html, or report-MODULE.html with --module)",
    )
    report.add_argument(
        "--days", type=parse_positive, default=90, help="how many of the newest days the charts show (default: 90)"
    )
    backfill = add("backfill", ranges.show_backfill, "load every day of a range that is missing, however many")
    add_days(backfill)
    backfill.add_argument("--workers", type=parse_positive, help="processes, one task each (default: 1)")
    if sys.stderr.isatty():  # a bar says how far it is
        backfill.set_defaults(defaults=["--log-level", "WARNING"])
    plan = add("plan", ranges.show_plan, "what a backfill would do, why, and at what cost; runs and asks nothing")
    add_days(plan)
    reprocess = add(
        "reprocess", screens.show_reprocessed, "make outdated days again from their raw files, without the source"
    )
    add_days(reprocess)
    reprocess.add_argument("--all", action="store_true", help="the days that are current too")
    verify = add("verify", screens.show_findings, "name what differs in files and warehouse; changes nothing")
    add_days(verify, nargs="?")
    rebuild = add("rebuild", screens.show_rebuilt, "make the warehouse anew of all raw files; readers see old or new")
    rebuild.add_argument("--drop-missing", action="store_true", help="give up loaded days that have no raw files")
    forget = add("forget", screens.show_forgotten, "erase users for good, from every file and table")
    forget.add_argument(
        "keys",
        nargs="*",
        metavar="KEY",
        help="of a user, a JSON array where it has several columns; behind -- a key may begin with a dash",
    )
    forget.add_argument("--yes", action="store_true", help="erase without asking; required where nobody can answer")
    forget.add_argument("--unknown", action="store_true", help="also keep out keys that no file and no table has")
    prune = add("prune", ranges.show_pruned, "give up the raw and clean files of old days; rows and markers stay")
    prune.add_argument(
        "--older-than",
        type=parse_number,
        required=True,
        metavar="DAYS",
        help="days that lie so many or more before the last closed one",
    )
    prune.add_argument(
        "--keep",
        type=parse_number,
        default=7,
        metavar="N",
        help="but none of the N newest that have files (default: 7, with which the gates compare a new one)",
    )
    prune.add_argument("--yes", action="store_true", help="do it: else it is only said what would be done")
    doctor = add("doctor", screens.show_diagnosis, "what a URL is as a source, and the section that reads it")
    doctor.add_argument("url", metavar="URL", help="the first page; flags such as --users-auth bearer:ENV follow it")
    add("alert", screens.show_trial, "send a trial message to the webhook")
    check = add("check", screens.show_checks, "whether the configured source keeps what is relied upon; reads it twice")
    check.add_argument("--date", type=parse_day, help="the day to read (default: the last closed one)")
    return parser


class _Version(argparse.Action):
    """Prints the version of the package. Looks it up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help="print the version")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        sys.stdout.write(f"{metadata.version('wholeday')}\n")
        parser.exit()


def show_load(loads: Sequence[type[Load]], options: argparse.Namespace) -> bool:
    """Run Luigi's own command for the day of each dataset. Exits with the highest of Luigi's exit codes."""
    codes = [run_luigi([load.get_task_family(), "--date", str(options.date), *options.flags]) for load in loads]
    sys.exit(max(codes))


def run_luigi(arguments: list[str]) -> int:
    """Run Luigi's own command in this process; returns its exit code."""
    try:
        luigi_run(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def add_days(command: argparse.ArgumentParser, **how: Any) -> None:
    """Give a command a range of days."""
    command.add_argument("start", metavar="START", type=parse_day, help="the first day", **how)
    command.add_argument("stop", metavar="STOP", type=parse_day, help="the day after the last", **how)


def parse_day(text: str) -> dt.date:
    try:
        return DayParameter().parse(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parse_number(text: str, least: int = 0) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if number < least:
        raise argparse.ArgumentTypeError(f"{text} is not {least} or more")
    return number


def parse_positive(text: str) -> int:
    return parse_number(text, least=1)


def parse_duration(text: str) -> dt.timedelta:
    try:
        return Duration().parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def find_loads(module: str) -> list[type[Load]]:
    """The Load task of each dataset in a module or its modules. Raises ConfigError where there is none."""
    classes = [Register.get_task_cls(name) for name in Register.task_names()]
    loads = [cls for cls in classes if issubclass(cls, Load) and f"{cls.__module__}.".startswith(f"{module}.")]
    if not loads:
        raise ConfigError(f"the module {module} has no Load task: name the one that has, as in --module pipeline")
    return loads
