"""Create, check and clear the tables of a dataset.

Responsibilities: what is created when, and which differences between a stored and a declared table are errors.
Non-goals: changing the type of a column, and changing a table that another program made.
"""

import datetime as dt
import re
from collections.abc import Iterable

from wholeday.errors import WarehouseError
from wholeday.load.children import find_unfit, list_views
from wholeday.load.database import Connection, Row, decode
from wholeday.load.markers import has_markers
from wholeday.load.old_tables import refuse_old_tables
from wholeday.load.sql import HISTORY, INDEXES, Words
from wholeday.schema.tables import LOADS, REJECTS, Declared, Table, find_dataset


def prepare_tables(db: Connection, declared: Declared) -> None:
    """Create the missing tables, indexes and the view, and add columns that the declaration gained.

    Raises WarehouseError for any other difference.
    """
    refuse_old_tables(db, declared.name)
    _refuse_shared_names(db, declared)
    if left := list_left(db, declared):
        raise WarehouseError(
            f"{db}: the record class of {declared.name} has no child table {', '.join(left)} any more: "
            "run wholeday rebuild, which loads all days into new tables and drops it"
        )
    _create_shared(db)
    tables = declared.stored
    missing = [table.name for table in tables if not db.describe(table.name).columns]
    view = f"{declared.name}_history"
    if missing and (len(missing) < len(tables) or db.describe(view).columns or has_markers(db, declared.name)):
        raise WarehouseError(
            f"{db}: there is no table {', '.join(missing)}, but others of {declared.name}, or markers in loads: "
            "if they are another program's, choose another database; else restore it, or drop them and load again"
        )
    for table in tables:
        if missing:
            db.create(table)
        else:
            check_table(db, table, optional=declared.row)
    stored = [child for child in declared.children if check_table(db, child.table, optional=child.row)]
    for view_name in (view, *(f"{child.name}_history" for child in declared.children)):
        check_view(db, view_name)
    if not missing:
        _change_columns(db, [*tables, *(child.table for child in stored)], declared)
    for child in declared.children:
        if child not in stored:
            if not missing and (reason := find_unfit(db, declared, child)):
                raise WarehouseError(
                    f"{db}: the lists in the table {declared.name} do not fit the child table {child.name}: {reason}: "
                    "run wholeday rebuild, which makes them again from the raw files"
                )
            db.create(child.table, mark=child.mark)
    words = Words(declared)
    for index, sql in INDEXES.items():
        if not db.has_index(f"_{declared.name}_{index}"):
            db.run(sql.format_map(words))
    db.create_view(view, HISTORY.format_map(words))
    for name, select in list_views(db, declared):
        db.create_view(name, select)


def _refuse_shared_names(db: Connection, declared: Declared) -> None:
    """Raise WarehouseError if a dataset has the name of a child table of another one."""
    clashes = [(child.name, declared.name) for child in declared.children if db.describe(f"_{child.name}_days").columns]
    above = find_dataset(db.read_marks().get(declared.name, ""))
    clashes += [(declared.name, above)] if above else []
    for name, dataset in clashes:
        raise WarehouseError(
            f"{db}: {name} is the name of a dataset, and of a child table of {dataset}: give the dataset another name"
        )


def list_left(db: Connection, declared: Declared) -> list[str]:
    """Return the child tables that an earlier record class had and the declared one does not have."""
    known = {child.name for child in declared.children}
    marks = db.read_marks()
    return [name for name in sorted(marks) if find_dataset(marks[name]) == declared.name and name not in known]


def _create_shared(db: Connection) -> None:
    """Create the tables that all datasets share."""
    missing = [table for table in (LOADS, REJECTS) if not check_table(db, table)]
    if missing == [REJECTS]:  # both are created together, so it was dropped, with the rejects of the loaded days
        raise WarehouseError(
            f"{db}: there is no table rejects, but one of loads: restore it, or drop that too and load again"
        )
    for table in missing:
        db.create(table)


def _change_columns(db: Connection, tables: Iterable[Table], declared: Declared) -> None:
    """Add the declared columns that stored tables lack, null in their rows, and widen columns of decimals.

    The views are dropped before, as they depend on the columns.
    """
    stored = [(table, db.describe(table.name).columns) for table in tables]
    added = [(table, column) for table, found in stored for column in table.columns if column not in found]
    narrow = [
        (table, column)
        for table, found in stored
        for column, kind in table.columns.items()
        if found.get(column, db.to_type(kind)) != db.to_type(kind)
    ]
    if added or narrow:
        drop_views(db, declared)
    for table, column in added:
        db.add_column(table, column)
    for table, column in narrow:
        db.widen_column(table, column)


def drop_views(db: Connection, declared: Declared) -> None:
    """Drop the views of the history, those of child tables first."""
    children = [*(child.name for child in declared.children), *list_left(db, declared)]
    for name in [*reversed(children), declared.name]:
        db.run(f'drop view if exists "{name}_history"')


def _is_wider(wanted: str, stored: str) -> bool:
    """Return whether a type of decimals has room for the values of another one: before and after the point."""
    found = [re.fullmatch(r"(\w+)\((\d+),(\d+)\)", type_) for type_ in (wanted, stored)]
    if not (found[0] and found[1] and found[0][1] == found[1][1]):
        return False
    (digits, places), (before, places_before) = ((int(match[2]), int(match[3])) for match in found if match)
    return places >= places_before and digits - places >= before - places_before


def check_view(db: Connection, view: str) -> bool:
    """Whether the view exists. Raises WarehouseError if a table has its name."""
    found = db.describe(view)
    if found.columns and found.kind != "view":
        raise WarehouseError(f"{db}: {view} is a table, not a view: drop it, or choose another database")
    return bool(found.columns)


def check_table(db: Connection, table: Table, optional: Iterable[str] = ()) -> bool:
    """Whether the table exists. Raises WarehouseError if it differs from `table`, but for `optional` columns.

    Columns of decimals may have fewer digits than declared.
    """
    found = db.describe(table.name)
    if not found.columns:
        return False
    if found.kind != "table":
        raise WarehouseError(f"{db}: {table.name} is a view, not a table: drop it, or choose another database")
    wanted, optional = {column: db.to_type(kind) for column, kind in table.columns.items()}, {*optional}
    differences = [f"no column {c}" for c in wanted if c not in found.columns and c not in optional]
    differences += [f"a column {c} too many" for c in found.columns if c not in wanted]
    differences += [
        f"{column} as {type_}, not {wanted[column]}"
        for column, type_ in found.columns.items()
        if wanted.get(column, type_) != type_ and not _is_wider(wanted[column], type_)
    ]
    if found.key != table.key:
        differences.append(f"the primary key ({', '.join(found.key)}), not ({', '.join(table.key)})")
    if differences:
        raise WarehouseError(
            f"{db}: the table {table.name} has {', '.join(differences)}: "
            "declare it as it is, run wholeday rebuild to load all days into new tables, or choose another database"
        )
    return True


def read_days(db: Connection, dataset: str) -> set[dt.date]:
    """Return the days in the tables: with a marker, or with a deleted marker.

    Raises WarehouseError if one is not a date.
    """
    days = []
    if check_table(db, LOADS):
        days += db.run("select date from loads where dataset = :dataset", dataset=dataset).fetchall()
    if "load_date" in db.describe(f"_{dataset}_days").columns:
        days += db.run(f'select load_date from "_{dataset}_days"').fetchall()  # noqa: S608
    return {decode(db, f"{dataset}: a day in loads or _{dataset}_days", date, "date") for (date,) in days}


def clear_tables(db: Connection, declared: Declared) -> list[Row]:
    """Delete all rows of a dataset and return its tombstones. Tables that differ from the declaration are dropped.

    Tables of the same names without any day are another program's: they stay, and `prepare_tables` refuses them.
    """
    name, stored_tables = declared.name, declared.stored
    days = stored_tables.days
    if not read_days(db, name) and db.describe(days.name).columns.keys() != days.columns.keys():
        return []
    tables = [*stored_tables, *(child.table for child in declared.children)]
    tombstones = _read_tombstones(db, declared)
    wanted = [table._replace(columns={c: db.to_type(kind) for c, kind in table.columns.items()}) for table in tables]
    stored = [db.describe(table.name) for table in tables]
    for view in (table.name for table in stored if table.kind == "view"):
        raise WarehouseError(f"{db}: {view} is a view, not a table: drop it, or choose another database")
    left = list_left(db, declared)
    if stored == wanted and not left:  # readers need not wait
        for table in tables:
            db.run(f'delete from "{table.name}"')  # noqa: S608
    else:
        drop_views(db, declared)
        for table_name in [*(table.name for table in tables), *left]:
            db.run(f'drop table if exists "{table_name}"')
    for table in (LOADS, REJECTS):
        if check_table(db, table):
            db.run(f"delete from {table.name} where dataset = :name", name=name)  # noqa: S608
    return tombstones


def _read_tombstones(db: Connection, declared: Declared) -> list[Row]:
    """Return the stored tombstones. Raises WarehouseError if their key is not the declared one."""
    stored = db.describe(declared.stored.forgotten.name)
    tombstones = db.run(f'select * from "{stored.name}"').fetchall() if stored.columns else []  # noqa: S608
    if tombstones and list(stored.columns) != list(declared.key):
        raise WarehouseError(
            f"{db}: the keys in {stored.name} are ({', '.join(stored.columns)}), those declared "
            f"({', '.join(declared.key)}): convert that table to the new key, or erased users would come back"
        )
    return tombstones
