"""Show the life of one record: the command `explain`.

Responsibilities: the timeline on a terminal, and the same as JSON. Non-goals: finding the facts; see life.py.
"""

import sys
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from wholeday.commands.explain.life import Fact, Life, Version, read_life
from wholeday.commands.screen import open_console
from wholeday.commands.session import open_workspaces
from wholeday.commands.status import format_time
from wholeday.log import count, encode_json
from wholeday.text import clean_lines

KEY = "The key of the record; a JSON array if it has several columns. Behind -- it may begin with a dash."
JSON = "Print one JSON document: versions, facts and raw records."
STYLES = {"version": "green", "deletion": "red", "vanished": "red", "rejected": "red", "superseded": "yellow"}


def command(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="The dataset of the record.")],
    key: Annotated[str, typer.Argument(metavar="KEY", help=KEY)],
    json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
) -> bool:
    """Print each version of a record with its changes, then each fact about it with its day, file and line."""
    context.obj.dataset = dataset
    with open_workspaces(context) as (workspace,):
        life = read_life(workspace, key)
    if json:
        sys.stdout.write(f"{encode_json(life)}\n")
        return True
    console = open_console()
    console.print(f"{dataset} {key}: {_describe_now(life)}")
    for number, version in enumerate(life.versions):
        console.print("", _describe_version(version, is_first=number == 0), sep="\n")
        if version.row is not None:
            console.print(_make_values(version))
    if life.facts:
        console.print("", _make_facts(life.facts), sep="\n")
    for fact in life.facts:
        if fact.record:
            place = f"{fact.file}, line {fact.line}{_describe_parent(fact)}:"
            console.print("", Text(clean_lines(place), "dim"), Text(clean_lines(fact.record)), sep="\n")
    return True


def _describe_now(life: Life) -> str:
    """Describe the present state of the record in a line."""
    versions = count(sum(version.row is not None for version in life.versions), "version")
    if life.erased_since:
        return f"erased since {format_time(life.erased_since)}: no load stores it again"
    if not life.versions:
        return "no version is loaded"
    last = life.versions[-1]
    return f"{versions}, " + ("present" if last.row is not None else f"absent since {format_time(last.valid_from)}")


def _describe_version(version: Version, is_first: bool) -> Text:
    until = format_time(version.valid_to) if version.valid_to else "now"
    what = "first seen" if is_first else "changed" if version.changed else "seen again"
    what, style = (what, "bold green") if version.row is not None else ("absent", "bold red")
    return Text(f"{format_time(version.valid_from)} to {until}: {what}, by the day {version.date}", style)


def _make_values(version: Version) -> Table:
    """Make a table of the values that changed, before and after, or of all values of a new row."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2))
    if version.changed:
        for name, (before, after) in version.changed.items():
            table.add_row(f"  {name}", Text(_show(before), "red"), "->", Text(_show(after), "green"))
    else:
        for name, value in (version.row or {}).items():
            table.add_row(f"  {name}", _show(value))
    return table


def _make_facts(facts: list[Fact]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for name in ("day", "result", "at", "line", "reason"):
        table.add_column(name, overflow="fold")
    for fact in facts:
        place = f"{fact.file.rpartition('/')[2]}:{fact.line}" if fact.file else ""
        at = format_time(fact.at) if fact.at else ""
        table.add_row(str(fact.date), Text(fact.result, STYLES.get(fact.result, "")), at, place, fact.reason or "")
    return table


def _describe_parent(fact: Fact) -> str:
    values = ", ".join(f"{name} {_show(value)}" for name, value in (fact.parent or {}).items())
    return f", of the parent with {values}" if values else ""


def _show(value: Any) -> str:
    """Write a value in a line: text without control characters, all else as JSON."""
    return clean_lines(value) if isinstance(value, str) else encode_json(value).strip('"')
