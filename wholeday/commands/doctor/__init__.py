"""Inspect a URL and suggest the section of luigi.cfg that reads it: the command `doctor`."""

from collections.abc import Iterable
from typing import Annotated

import typer
from luigi.configuration import get_config
from rich.console import Console
from rich.table import Table

from wholeday.commands.doctor.examination import diagnose
from wholeday.commands.screen import open_console
from wholeday.commands.session import list_loads, parse_keys, pick_loads
from wholeday.config.section import use_flags
from wholeday.config.source import make_section
from wholeday.log import count


def command(
    context: typer.Context,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="The first page. Flags such as --auth bearer:ENV may follow.")
    ],
) -> bool:
    """Print what a URL is as a source, and its section. What luigi.cfg says of another URL is left out."""
    loads = list_loads()
    dataset = pick_loads(context.obj)[0].dataset if loads or context.obj.dataset else None
    section = dataset.config if dataset else make_section("records")
    name = section.section
    get_config().remove_section(name)
    with use_flags(name, *context.obj.flags):
        settings = section(url=url, **parse_keys(section, context.obj.keys))
        diagnosis = diagnose(settings, dataset)
    console = open_console()
    show_findings(console, diagnosis.findings, diagnosis.unsure)
    requests = count(len(diagnosis.answers), "request")
    todo = (
        f"replace section [{name}] of luigi.cfg with this one"
        if dataset
        else "wholeday new NAME URL writes this section"
    )
    console.print(f"after {requests}; {todo}:\n")
    console.print(diagnosis.section)
    return True


def show_findings(console: Console, findings: Iterable[tuple[str, str, str]], unsure: Iterable[str]) -> None:
    """Print what was found out, with the evidence, and the doubts."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    for finding in findings:
        table.add_row(*finding)
    console.print(table, soft_wrap=False)
    for doubt in unsure:
        console.print(f"unsure: {doubt}", style="yellow")
