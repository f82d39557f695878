"""Write a dataset for a URL, and load its first day: the command `new`."""

import datetime as dt
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from wholeday.commands.doctor import show_findings
from wholeday.commands.new.create import USUAL_SAMPLE, Created, Wanted, create
from wholeday.commands.new.files import check_free
from wholeday.commands.new.names import name_dataset
from wholeday.commands.new.update import Update, propose
from wholeday.commands.reprocess import list_raw
from wholeday.commands.screen import open_console
from wholeday.commands.session import Given, import_workflow, open_workspaces
from wholeday.config.section import use_flags
from wholeday.config.source import make_section
from wholeday.errors import ConfigError, PipelineError
from wholeday.log import count
from wholeday.storage.workspace import Workspace
from wholeday.tasks.console import describe_error
from wholeday.tasks.workflow import spell_command


def command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The dataset, as in line_items.")] = "",
    url: Annotated[
        str, typer.Argument(metavar="URL", help="The first page. Flags such as --auth bearer:ENV may follow.")
    ] = "",
    everything: Annotated[
        bool, typer.Option("--all", help=f"Read all records before the class is written, not {USUAL_SAMPLE:,}.")
    ] = False,
    openapi: Annotated[
        str,
        typer.Option(metavar="FILE", help="File or URL of an OpenAPI document in JSON, for types and required fields."),
    ] = "",
    from_list: Annotated[
        str, typer.Option(metavar="FILE", help="Write a dataset for each line of a file: NAME URL, or URL.")
    ] = "",
    update: Annotated[
        bool, typer.Option("--update", help="Propose lines for fields that the class lacks, from the raw files.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Write the lines that --update proposes.")] = False,
) -> bool:
    """Write pipeline/NAME.py, tests/test_NAME.py and a section of luigi.cfg, and load a day."""
    given: Given = context.obj
    import_workflow()
    if update:
        if url or given.keys or everything:
            raise ConfigError("--update reads raw files: leave out the URL, the keys of a section and --all")
        given.dataset = name
        with open_workspaces(context) as (workspace,):
            show_update(workspace, propose(workspace), yes)
        return True
    most = None if everything else USUAL_SAMPLE
    if from_list:
        if name:
            raise ConfigError("--from-list names the datasets: leave out NAME and URL")
        done = [try_one(given, each, address, openapi, most) for each, address in read_list(Path(from_list))]
        return all(done)
    if not name or not url:
        raise ConfigError("a name and a URL are missing: write wholeday new NAME URL")
    show(create_one(given, Wanted(name, url, given.keys, openapi, most)))
    return True


def create_one(given: Given, wanted: Wanted) -> Created:
    """Create a dataset with the flags of the command line."""
    check_free(wanted.name)
    make_section(wanted.name)
    with use_flags(wanted.name, *given.flags):
        return create(wanted)


def try_one(given: Given, name: str, url: str, openapi: str, most: int | None) -> bool:
    """Create a dataset of a list, and print what came of it. A failure is one line, and does not end the list."""
    try:
        show(create_one(given, Wanted(name, url, given.keys, openapi, most)), is_short=True)
    except PipelineError as error:
        sys.stdout.flush()
        sys.stderr.write(f"ERROR: {name}: {describe_error(error)}\n")
        return False
    return True


def read_list(path: Path) -> list[tuple[str, str]]:
    """Read names and URLs, one pair a line; without a name the last word of the URL's path. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the list {path}: {error}") from error
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        url, name = words[-1], words[0] if len(words) == 2 else name_dataset(urlsplit(words[-1]).path)
        if len(words) > 2 or "://" not in url or not name:
            raise ConfigError(f"{path}, line {number}: write NAME URL, or a URL whose path ends with a name")
        pairs.append((name, url))
    return pairs


def show_update(workspace: Workspace, update: Update, is_confirmed: bool) -> None:
    """Print the proposed lines as a diff, write them if that is confirmed, and print the next command."""
    console, name = open_console(), workspace.name
    if update.held:
        console.print(f"held by the column with rest=True: {', '.join(update.held)}")
    if update.after == update.before:
        console.print(f"{name}: the class lacks no field of {count(update.records, 'record')}")
        return
    console.print(update.diff.rstrip())
    if not is_confirmed:
        console.print(f"\nnothing is written: add {count(len(update.columns), 'column')} with --yes")
        return
    update.path.write_text(update.after, encoding="utf-8")
    days = list_raw(workspace)
    stop = days[-1] + dt.timedelta(days=1)
    console.print(f"\nwrote {update.path}; for the days of before: {spell_command(name, 'reprocess', days[0], stop)}")


def show(created: Created, is_short: bool = False) -> None:
    """Print what was decided, the doubts, what was written and loaded, and the next command."""
    console, proposal, marker = open_console(), created.proposal, created.marker
    name = created.dataset.name
    columns = len(proposal.model.fields)
    tables = [child.name for child in created.dataset.declared.children]
    key = ("key", ", ".join(column.name for column in proposal.model.key), proposal.key_evidence)
    findings = [key if finding[0] == "key" else finding for finding in created.findings]
    findings.append(("columns", f"{columns}", f"child tables: {', '.join(tables)}" if tables else ""))
    if proposal.rest:
        findings.append(("others", f"{len(proposal.rest)}", f"in one column, for space: {', '.join(proposal.rest)}"))
    if proposal.empty:
        findings.append(("left out", f"{len(proposal.empty)}", f"without a value: {', '.join(proposal.empty)}"))
    if proposal.personal:
        findings.append(("personal data", f"{len(proposal.personal)}", ", ".join(proposal.personal)))
    if is_short:
        console.print(f"{name}: {count(columns, 'column')}, key {key[1]}", style="bold")
    show_findings(console, [] if is_short else findings, created.unsure)
    console.print(f"{'' if is_short else chr(10)}wrote {', '.join(created.files)} and section [{name}] of luigi.cfg")
    console.print(
        f"loaded {marker.date}: {count(marker.extracted, 'record')}, {count(marker.rejected, 'reject')}, table {name}"
    )
    if created.first_day:
        tomorrow = marker.date + dt.timedelta(days=1)
        console.print(f"all records: {spell_command(name, 'backfill', created.first_day, tomorrow)}")
    console.print(f"tomorrow: {spell_command(name, 'load', marker.date + dt.timedelta(days=1))}")
