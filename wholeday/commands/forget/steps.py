"""Erase keys in an order that an interruption cannot break: tombstones, files, tables, causes of failures, note.

*Responsibilities*: the order of the steps. First the tombstones: from then on no load stores a row with such a key.
Then the files, day by day, then the tables, then the failures, which may quote a record. The note that all is erased
comes last, so the next run completes an interrupted one.
*Non-goals*: records of other people that mention an erased person. Records that the source sends later stay in the
files of their days until the next run.
"""

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from wholeday import clock
from wholeday.commands.forget import files, tables
from wholeday.commands.forget.search import Search
from wholeday.errors import ConfigError, FolderError
from wholeday.load.catalog import prepare_tables
from wholeday.load.sql import Words
from wholeday.load.warehouse import Warehouse, open_warehouse
from wholeday.schema.raw_fields import INTEGERS
from wholeday.schema.tables import Declared
from wholeday.storage.day_folder import list_all_days
from wholeday.storage.tombstones import Done, Finder, Key, Tombstone, Tombstones
from wholeday.storage.workspace import Workspace
from wholeday.tasks import failures

TYPES = {"integer": int, "text": str}


class Erased(NamedTuple):
    """The result of a run: erased lines by day, erased rows in the warehouse. `problems` are lines for a person.

    `unknown` are the keys on the command line that no file and no table had.
    """

    days: dict[dt.date, int]
    rows: int
    unknown: list[str]
    problems: list[str]


def forget(workspace: Workspace, keys: Sequence[str]) -> Erased:
    """Erase these keys, and every key that was erased before.

    A key is text, or a JSON array if the key has several columns. A day with damaged files is left unchanged and is
    a problem. Raises ConfigError for text that cannot be a key, FolderError, WarehouseError.
    """
    warehouse = open_warehouse(workspace)
    declared = Declared.read(workspace.name, workspace.dataset.table)
    asked = {parse_key(declared, text): text for text in keys}
    tombstones = workspace.tombstones()
    all_keys = _write_tombstones(tombstones, warehouse, declared, asked)
    search = Search(workspace, Finder(workspace.dataset.key, all_keys), list(declared.key))
    erased, erased_ever, problems = _erase_days(search)
    rows, pending = tables.erase_rows(workspace, declared, search.finder, erased_ever)
    problems += [pending] if pending else []
    try:
        failures.erase_causes(workspace.pipeline.data_dir, workspace.name, workspace.pipeline.is_private)
    except FolderError as error:
        problems.append(f"{workspace.name}: {error}")
    if not problems:
        with warehouse.database.connect() as db:
            db.begin(workspace.name)  # the lock that guards the file
            tombstones.add([Done(clock.utc_now(), len(all_keys), _drop_zeros(erased_ever))])
    unknown = [text for key, text in asked.items() if key not in search.finder.found]
    return Erased(_drop_zeros(erased), rows, unknown, problems)


def _erase_days(search: Search) -> tuple[dict[dt.date, int], dict[dt.date, int], list[str]]:
    """Erase the lines of each day. Return their numbers by day: now, and ever; and the problems."""
    erased: dict[dt.date, int] = {}
    erased_ever: dict[dt.date, int] = {}
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


def parse_key(declared: Declared, text: str) -> Key:
    """Parse a key into values of the types of its columns. Raises ConfigError if the table cannot hold such a key."""
    kinds = [TYPES[kind] for kind in declared.key.values()]
    with suppress(ValueError):
        values = [text] if kinds == [str] else json.loads(text)
        values = values if isinstance(values, list) else [values]
        letters = "".join(map(str, values)).encode()  # raises ValueError for a lone surrogate
        fitting = list(map(type, values)) == kinds and b"\0" not in letters
        if fitting and all(value in INTEGERS for value in values if type(value) is int):
            return tuple(values)
    columns = ", ".join(f"{column} ({kind})" for column, kind in declared.key.items())
    form = "as a JSON array" if len(kinds) > 1 else "as the table shows it"
    raise ConfigError(f"{text!r} is not a key of {declared.name}: give {columns} {form}")


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
        tombstones.add(Tombstone(key, now) for key in dict.fromkeys([*stored, *asked]) if key not in known)
        keys = tombstones.keys()
        db.insert(f"_{declared.name}_forgotten", declared.key, keys, skip_known=True)
        db.commit()
    if not keys:
        raise ConfigError(f"{declared.name}: no key was erased before, so there is nothing to complete: give a key")
    return keys


def _drop_zeros(days: dict[dt.date, int]) -> dict[dt.date, int]:
    return {date: lines for date, lines in days.items() if lines}
