"""Erase people from every file and table of a dataset: the command `forget`.

Responsibilities: the order of the steps, which an interruption cannot break. First the tombstones: from then on no
load stores a row with such a key, and no source is asked for it. Then its children in other datasets, in the same
steps. Then the files, day by day, then the tables, then the failures, which may quote a record. The note that all is
erased comes last, so the next run completes an interrupted one.
Non-goals: records of other people that mention an erased person. Records that the source sends later stay in the
files of their days until the next run.
"""

import datetime as dt
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Annotated, NamedTuple

import typer
from rich.console import Console

from wholeday import clock
from wholeday.commands.forget import files, tables
from wholeday.commands.forget.children import find_children, list_dependents
from wholeday.commands.forget.lookup import look_up, parse_key
from wholeday.commands.forget.search import Search
from wholeday.commands.screen import open_console
from wholeday.commands.session import open_workspaces
from wholeday.errors import ConfigError, FolderError
from wholeday.load.catalog import prepare_tables
from wholeday.load.sql import Words
from wholeday.load.warehouse import Warehouse, open_warehouse
from wholeday.log import count
from wholeday.schema.tables import Declared
from wholeday.storage.day_folder import list_all_days
from wholeday.storage.tombstones import Done, Finder, Key, Tombstone, Tombstones, to_key
from wholeday.storage.workspace import Workspace
from wholeday.tasks import failures

KEY = (
    "The key of a user; a JSON array if it has several columns. Behind -- it may begin with a dash. "
    "Without a key, complete an interrupted run."
)
UNKNOWN = "Keep out keys too that no file and no table has."


class Erased(NamedTuple):
    """The result of a run: erased lines by day, erased rows in the warehouse. `problems` are lines for a person.

    `unknown` are the keys on the command line that no file and no table had. `children` are the results of the datasets
    that hold children of the keys, by name; `problems` includes theirs.
    """

    days: dict[dt.date, int]
    rows: int
    unknown: list[str]
    problems: list[str]
    children: dict[str, "Erased"]


def forget(workspace: Workspace, keys: Sequence[str]) -> Erased:
    """Erase these keys, and every key that was erased before, with their children in other datasets.

    A key is text, or a JSON array if the key has several columns. A day with damaged files is left unchanged and is
    a problem. Raises ConfigError for text that cannot be a key, FolderError, WarehouseError.
    """
    asked = {parse_key(workspace.dataset.declared, text): text for text in keys}
    erased, finder = _erase(workspace, asked, Finder((), ()))
    if not finder.keys:
        raise ConfigError(f"{workspace.name}: no key was erased before, so there is nothing to complete: give a key")
    return erased._replace(unknown=[text for key, text in asked.items() if key not in finder.found])


def _erase(workspace: Workspace, asked: Iterable[Key], parents: Finder) -> tuple[Erased, Finder]:
    """Erase the keys `asked`, earlier ones, and what came for erased `parents`. Return also what the search found."""
    warehouse = open_warehouse(workspace)
    declared = workspace.dataset.declared
    tombstones = workspace.tombstones()
    all_keys = _write_tombstones(tombstones, warehouse, declared, asked)
    children, problems = _erase_children(workspace, all_keys)
    search = _search(workspace, all_keys, parents)
    erased, erased_ever, problems_of_days = _erase_days(search)
    rows, pending = tables.erase_rows(workspace, declared, search.finder, erased_ever)
    problems += [*problems_of_days, *([pending] if pending else [])]
    try:
        failures.erase_causes(workspace.pipeline.data_dir, workspace.name, workspace.pipeline.is_private)
    except FolderError as error:
        problems.append(f"{workspace.name}: {error}")
    if all_keys and not problems:
        with warehouse.database.connect() as db:
            db.begin(workspace.name)  # the lock that guards the file
            tombstones.add([Done(clock.utc_now(), len(all_keys), +erased_ever)])
    return Erased(+erased, rows, [], problems, children), search.finder


def _search(workspace: Workspace, keys: Iterable[Key], parents: Finder) -> Search:
    finder = Finder(workspace.conversion.key_readers, keys)
    return Search(workspace, finder, list(workspace.dataset.declared.key), parents)


def _erase_children(workspace: Workspace, keys: Sequence[Key]) -> tuple[dict[str, Erased], list[str]]:
    """Erase the children of erased `keys` in each dataset that has some. Return the results, and the problems."""
    done: dict[str, Erased] = {}
    dependents, problems = list_dependents(workspace) if keys else ([], [])
    for child in dependents:
        erased = Finder((), keys)
        found, unread = find_children(workspace, _search(child, (), erased))
        done[child.name], _ = _erase(child, sorted(found), erased)
        problems += [*unread, *done[child.name].problems]
    return done, problems


def _erase_days(search: Search) -> tuple[Counter[dt.date], Counter[dt.date], list[str]]:
    """Erase the lines of each day. Return their numbers by day: now, and ever; and the problems."""
    erased, erased_ever = Counter[dt.date](), Counter[dt.date]()
    problems: list[str] = []
    done: set[dt.date] = set()
    # A day that another process starts meanwhile may hold records from before the tombstones.
    while dates := sorted({*list_all_days(search.workspace.pipeline.data_dir, search.workspace.name)} - done):
        for date in dates:
            try:
                erased[date], erased_ever[date] = files.erase_day(search, date)
            except FolderError as error:
                problems.append(f"{search.workspace.name} {date}: {error}")
        done.update(dates)
    return erased, erased_ever, problems


def _write_tombstones(
    tombstones: Tombstones, warehouse: Warehouse, declared: Declared, asked: Iterable[Key]
) -> list[Key]:
    """Write tombstones for new keys into the file and the warehouse. Return the keys of all tombstones."""
    words = Words(declared)
    with warehouse.database.connect(create=True) as db:
        db.begin(declared.name)
        prepare_tables(db, declared)
        stored = db.run("select {key} from {forgotten}".format_map(words)).fetchall()
        now, known = clock.utc_now(), set(tombstones.keys())
        new = dict.fromkeys([*map(to_key, stored), *asked])
        tombstones.add(Tombstone(key, now) for key in new if key not in known)
        keys = tombstones.keys()
        db.insert(f"_{declared.name}_forgotten", declared.key, keys, skip_known=True)
        db.commit()
    return keys


def command(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="The dataset of the users.")],
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY", help=KEY)] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Erase without asking. Required without a terminal.")] = False,
    unknown: Annotated[bool, typer.Option("--unknown", help=UNKNOWN)] = False,
) -> bool:
    """Erase users, and print the number of erased lines by day. Return whether nothing is left to do.

    Raises ConfigError unless a person confirms the new keys.
    """
    context.obj.dataset = dataset
    console = open_console()
    with open_workspaces(context) as (workspace,):
        _confirm_keys(workspace, keys or [], yes, unknown, console)
        done = forget(workspace, keys or [])
    _show_erased(dataset, done, console)
    for key in done.unknown:
        console.print(f"{key}: not found on any day. It is kept out from now on")
    for problem in done.problems:
        sys.stderr.write(f"ERROR: {problem}\n")
    return not done.problems


def _show_erased(dataset: str, done: Erased, console: Console) -> None:
    days = "".join(f"\n  {date}: {count(lines, 'line')}" for date, lines in done.days.items())
    lines, rows = count(sum(done.days.values()), "line"), count(done.rows, "row")
    console.print(f"{dataset}: erased {lines} of the files and {rows} of the warehouse{days}")
    for name, erased in done.children.items():
        _show_erased(name, erased, console)


def _confirm_keys(workspace: Workspace, keys: Sequence[str], yes: bool, unknown: bool, console: Console) -> None:
    """Show the traces of the keys, and let a person confirm them. Raises ConfigError otherwise."""
    traces = look_up(workspace, keys)  # without the keys of an interrupted run, which are confirmed already
    if (strangers := [trace.text for trace in traces if not trace.is_known]) and not unknown:
        raise ConfigError(
            f"{workspace.name}: no file and no table has the key {', '.join(strangers)}: check the spelling, or keep "
            "it out for good with --unknown. Nothing is erased"
        )
    for trace in traces:
        known = f"{count(trace.rows, 'row')} of the warehouse, {count(len(trace.days), 'day')}"
        console.print(f"{trace.text}: {known}")
    if not traces or yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("forget cannot be undone. To confirm it without a terminal, run it again with --yes")
    what = count(len(traces), "key")
    names = "".join(f", with all children in {name}" for name in _list_names(workspace))
    sys.stderr.write(f"Erase {what} from every file and table of {workspace.name}{names}, for good? [y/N] ")
    sys.stderr.flush()
    with suppress(KeyboardInterrupt):
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
    raise ConfigError("nothing is erased")


def _list_names(workspace: Workspace) -> list[str]:
    """List the names of the datasets that hold children, or children of children."""
    dependents, _ = list_dependents(workspace)
    return [name for child in dependents for name in (child.name, *_list_names(child))]
