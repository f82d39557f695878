"""Write a dataset for a URL, and load its first day: the command `new`."""

import datetime as dt
from typing import Annotated

import typer

from wholeday.commands.doctor import show_findings
from wholeday.commands.new.create import USUAL_SAMPLE, Created, Wanted, create
from wholeday.commands.new.files import check_free
from wholeday.commands.new.update import Update, propose
from wholeday.commands.reprocess import list_raw
from wholeday.commands.screen import open_console
from wholeday.commands.session import Given, import_workflow, open_workspaces
from wholeday.config.section import use_flags
from wholeday.config.source import make_section
from wholeday.errors import ConfigError
from wholeday.log import count
from wholeday.storage.workspace import Workspace
from wholeday.tasks.workflow import spell_command


def command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The dataset, as in line_items.")],
    url: Annotated[
        str, typer.Argument(metavar="URL", help="The first page. Flags such as --auth bearer:ENV may follow.")
    ] = "",
    everything: Annotated[
        bool, typer.Option("--all", help=f"Read all records before the class is written, not {USUAL_SAMPLE:,}.")
    ] = False,
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
    if not url:
        raise ConfigError(f"a URL is missing: wholeday new {name} URL")
    check_free(name)
    make_section(name)
    with use_flags(name, *given.flags):
        show(create(Wanted(name, url, given.keys, most_records=None if everything else USUAL_SAMPLE)))
    return True


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


def show(created: Created) -> None:
    """Print what was decided, the doubts, what was written and loaded, and the next command."""
    console, proposal, marker = open_console(), created.proposal, created.marker
    name = created.dataset.name
    columns = len(proposal.model.fields)
    tables = [child.name for child in created.dataset.declared.children]
    key = ("key", ", ".join(column.name for column in proposal.model.key), proposal.key_evidence)
    findings = [key if finding[0] == "key" else finding for finding in created.findings]
    findings.append(("columns", f"{columns}", f"child tables: {', '.join(tables)}" if tables else ""))
    if proposal.empty:
        findings.append(("left out", f"{len(proposal.empty)}", f"without a value: {', '.join(proposal.empty)}"))
    if proposal.personal:
        findings.append(("personal data", f"{len(proposal.personal)}", ", ".join(proposal.personal)))
    show_findings(console, findings, created.unsure)
    console.print(f"\nwrote {', '.join(created.files)} and section [{name}] of luigi.cfg")
    console.print(
        f"loaded {marker.date}: {count(marker.extracted, 'record')}, {count(marker.rejected, 'reject')}, table {name}"
    )
    if created.first_day:
        tomorrow = marker.date + dt.timedelta(days=1)
        console.print(f"all records: {spell_command(name, 'backfill', created.first_day, tomorrow)}")
    console.print(f"tomorrow: {spell_command(name, 'load', marker.date + dt.timedelta(days=1))}")
