"""The program `wholeday`, also `python -m wholeday`: its commands, and how a run of it ends.

Responsibilities: the name, group, description and example of each command; exit codes; one line per expected error.
Non-goals: what a command does and prints. That is in the module with the name of the command, which is imported when
the command runs: help and version need neither Luigi nor the workflow.
"""

import functools
import importlib
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NamedTuple, cast

import typer
from typer.core import TyperCommand

from wholeday.commands.parser import Command, Group, LazyCommand
from wholeday.config.files import ConfigFileError, check_files
from wholeday.guides import KEYS

EPILOG = (
    f"Every key of luigi.cfg is a flag too: `--users-url` is the key `url` of the section `[users]`. The keys: {KEYS}"
)
LOOKS: dict[str, Any] = {"context_settings": {"help_option_names": ["-h", "--help"]}, "rich_markup_mode": "markdown"}
OF_ONE_DATASET = ("explain", "forget", "init", "luigid", "new")  # commands that do not take --dataset


class Entry(NamedTuple):
    """A command as help shows it."""

    group: str
    name: str
    summary: str
    arguments: str = ""
    """Of the example."""

    @property
    def example(self) -> str:
        return f"{self.name} {self.arguments}".strip()


COMMANDS = [
    Entry("Run", "load", "Load one day: extract, transform, load.", "2026-11-21"),
    Entry("Run", "backfill", "Load every missing day of a range.", "2026-11-01 2026-11-22 --workers 4"),
    Entry("Run", "plan", "Show what a backfill would do, why, and at what cost.", "2026-11-01 2026-11-22"),
    Entry(
        "Run",
        "reprocess",
        "Transform and load outdated days again from their raw files, without the source.",
        "2026-11-01 2026-11-22",
    ),
    Entry("Run", "rebuild", "Load all raw days into new tables, and swap them in at once."),
    Entry(
        "Look",
        "status",
        "Show the state of each day, the age of the newest, and what came with them.",
        "--max-age '36 hours'",
    ),
    Entry("Look", "report", "Write the status as one page with charts.", "status.html --days 30"),
    Entry("Look", "explain", "Show the life of one record: versions, days, raw records.", "users 79425"),
    Entry(
        "Look",
        "verify",
        "Compare files and warehouse, and name each difference. Changes nothing.",
        "2026-11-01 2026-11-22",
    ),
    Entry(
        "Keep", "prune", "Delete the raw and clean files of old days. Rows and markers stay.", "--older-than 400 --yes"
    ),
    Entry("Keep", "forget", "Erase users from every file and table, for good.", "users 79425"),
    Entry("Set up", "init", "Make a folder a project: pipeline/, luigi.cfg, a test, a crontab line.", "warehouse"),
    Entry(
        "Set up",
        "new",
        "Write a dataset for a URL: record class, section of luigi.cfg and test. Loads a day.",
        "orders https://api.example.com/v1/orders --auth bearer:ORDERS_API_TOKEN",
    ),
    Entry(
        "Set up",
        "doctor",
        "Inspect a URL and suggest its section of luigi.cfg.",
        "https://api.example.com/v1/users --auth bearer:USERS_API_TOKEN",
    ),
    Entry("Set up", "check", "Test the configured source. Reads it twice, and writes nothing.", "--date 2026-11-21"),
    Entry("Set up", "alert", "Send a trial message to the webhook."),
    Entry("Set up", "luigid", "Start Luigi's scheduler and its pages.", "--port 8082"),
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Exits with its code: 1 if not all is well, 2 if the command line is wrong.

    Without `arguments` this is the program: the words come from the command line, and `pipeline/` from the current
    folder.
    """
    if arguments is None:
        sys.path.insert(0, str(Path.cwd()))
        arguments = sys.argv[1:]
    code = 1
    try:
        code = make_program().main(list(arguments) or ["--help"], "wholeday", standalone_mode=False)
        sys.stdout.flush()
    except (typer.TyperException, ConfigFileError) as error:  # the next handler imports Luigi, which would warn or fail
        sys.stderr.write(f"ERROR: {error}\n")
        code = getattr(error, "exit_code", 2)
    except Exception as error:
        from wholeday.tasks import console

        if isinstance(error, OSError) and not error.filename:
            console.drop_stream("stdout", error)
        elif isinstance(error, console.EXPECTED):
            sys.exit(f"ERROR: {console.describe_error(error)}")
        else:
            raise
    if code:
        sys.exit(code)


def make_program() -> Group:
    """Build the program, with a stand-in for each command."""
    app = typer.Typer(cls=Group, **LOOKS)
    app.callback(epilog=EPILOG)(_program)
    program = cast("Group", typer.main.get_command(app))
    (dataset,) = (each for each in program.params if each.name == "dataset")
    for entry in COMMANDS:
        load = functools.partial(_load_command, entry, [] if entry.name in OF_ONE_DATASET else [dataset])
        program.add_command(LazyCommand(entry.name, load, help=entry.summary, rich_help_panel=entry.group))
    return program


def _load_command(entry: Entry, shared: Sequence[Any]) -> TyperCommand:
    """Import the module of a command, and build the command with its own options and the shared ones."""
    check_files()
    module = importlib.import_module(f"wholeday.commands.{entry.name}")
    app = typer.Typer(add_completion=False, **LOOKS)
    app.command(entry.name, cls=Command, help=f"{entry.summary}\n\nExample: `wholeday {entry.example}`", epilog=EPILOG)(
        module.command
    )
    command = cast("TyperCommand", typer.main.get_command(app))
    command.params.extend(shared)
    return command


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"{metadata.version('wholeday')}\n")
        raise typer.Exit


def _keep_dataset(context: typer.Context, name: str | None) -> None:
    if name is not None:
        context.obj.dataset = name


def _program(
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Work on this dataset only. Without it, on every dataset in pipeline/.",
            callback=_keep_dataset,
            expose_value=False,
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True, expose_value=False),
    ] = False,
) -> None:
    """Load the records of JSON HTTP APIs into a SQL warehouse, one day at a time."""
