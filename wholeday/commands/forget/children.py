"""Find the children of erased rows: the records that a source sent when it was asked for each of these rows.

Responsibilities: which datasets have children, and the keys of the children of erased rows. They are found by the lists
of parents of the raw days. Where the files of a day are pruned, they are found by the columns that a record takes from
its parent.
Non-goals: erasing anything.
"""

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from wholeday.commands.forget.lookup import parse_values
from wholeday.commands.forget.search import DayFiles, Search
from wholeday.commands.forget.tables import match_key
from wholeday.errors import ConfigError, FolderError
from wholeday.load.database import Connection, connect_existing
from wholeday.load.sql import Words
from wholeday.load.warehouse import open_warehouse
from wholeday.schema.dataset import list_datasets
from wholeday.schema.tables import Declared, join_names, quote
from wholeday.storage.day_folder import list_all_days, list_days
from wholeday.storage.tombstones import Finder, Key, to_key
from wholeday.storage.workspace import Workspace


def list_dependents(workspace: Workspace) -> tuple[list[Workspace], list[str]]:
    """Return the datasets with files or rows whose sources are asked for each row of a dataset.

    Also return a line for each dataset with files whose section cannot be used, as it may have children too.
    """
    found, problems = [], []
    for dataset in list_datasets():
        has_files = bool(list_all_days(workspace.pipeline.data_dir, dataset.name))
        try:
            settings = dataset.config()
            parent = dataset.find_parent(settings)
        except ConfigError as error:
            if has_files:
                problems.append(f"{dataset.name}: its section does not name its parents: {error}")
            continue
        child = Workspace(dataset, settings, workspace.pipeline)
        if parent is not None and parent.name == workspace.name and (has_files or _has_tables(child)):
            found.append(child)
    return found, problems


def find_children(parent: Workspace, search: Search) -> tuple[set[Key], list[str]]:
    """Return the keys of the children of erased rows of `parent`, and a line for each day that cannot be read.

    `search` knows the erased rows and the dataset of the children.
    """
    child, declared = search.workspace, search.workspace.dataset.declared
    keys, problems = set[Key](), list[str]()
    for date in list_days(child.pipeline.data_dir, "raw", child.name):
        try:
            keys.update(_fit(declared, _read_day(search, date)))
        except FolderError as error:
            problems.append(f"{child.name} {date}: {error}")
    with connect_existing(open_warehouse(child).database) as db:
        if db:
            keys.update(_search_tables(db, child, parent, search.erased))
    return keys, problems


def _has_tables(workspace: Workspace) -> bool:
    with connect_existing(open_warehouse(workspace).database) as db:
        return db is not None and bool(db.describe(workspace.dataset.declared.stored.days.name).columns)


def _read_day(search: Search, date: dt.date) -> list[Sequence[Any]]:
    """Return the keys of the children of erased rows in the files of a day; none of an unfinished day."""
    raw = search.workspace.folder("raw", date)
    with raw.lock():
        return list(search.list_children(DayFiles.read(search.workspace, date))) if raw.exists() else []


def _fit(declared: Declared, keys: Iterable[Sequence[Any]]) -> Iterator[Key]:
    """Yield those keys that the tables can hold: a reject may have another one, or none."""
    for values in keys:
        with suppress(ValueError):
            yield parse_values(declared, to_key(values))


def _search_tables(db: Connection, child: Workspace, parent: Workspace, erased: Finder) -> Iterator[Key]:
    """Yield the keys of rows with the values of an erased parent, past or present, that no other parent has."""
    declared, columns = child.dataset.declared, child.dataset.columns.of_parent
    history = f"{parent.name}_history"
    if not columns or not all(db.describe(name).columns for name in (history, declared.stored.events.name)):
        return
    theirs = [str(column.options.parent) for column in columns]
    own = [column.name for column in columns]
    key = join_names(parent.dataset.declared.key)
    for erased_key in erased.keys:
        same_key, key_values = match_key(parent.dataset.declared, erased_key)
        select = f"select distinct {join_names(theirs)} from {quote(history)} where {same_key}"  # noqa: S608
        for values in db.run(select, **key_values).fetchall():
            same, params = _match(theirs, values)
            with_them = f"select distinct {key} from {quote(history)} where {same}"  # noqa: S608
            others = [to_key(row) for row in db.run(with_them, **params).fetchall()]
            if len(erased.find(others)) < len(others):
                continue
            same, params = _match(own, values)
            for table in ("events", "changes"):
                facts = f"select distinct {{key}} from {{{table}}} where {same}"  # noqa: S608
                yield from map(to_key, db.run(facts.format_map(Words(declared)), **params).fetchall())


def _match(columns: Sequence[str], values: Sequence[Any]) -> tuple[str, dict[str, Any]]:
    """Return the SQL condition for these values, and its parameters."""
    pairs = list(zip(columns, values, strict=True))
    conditions = [
        f"{quote(column)} is null" if value is None else f"{quote(column)} = :value_{number}"
        for number, (column, value) in enumerate(pairs)
    ]
    return " and ".join(conditions), {f"value_{at}": value for at, (_, value) in enumerate(pairs) if value is not None}
