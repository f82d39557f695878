"""Derive the child tables from the lists that the rows of a dataset hold.

Responsibilities: the rows of child tables, for the dataset's rows that a load changed; the views of their history.
Non-goals: rules about facts. A list is part of its row, so its items have none of their own.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from wholeday.load.database import Connection
from wholeday.schema.tables import ChildTable, Declared, join_names, quote


@dataclass
class ChildChanges:
    """How many rows a load added to each child table, and removed from it."""

    added: dict[str, int] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)


def fill_children(db: Connection, declared: Declared) -> ChildChanges:
    """Fill the empty child tables from all rows of the dataset."""
    changes = ChildChanges()
    for child in declared.children:
        table = child.table
        select = select_items(db, child, quote(declared.name))
        rows = db.run(f"insert into {quote(table.name)} ({join_names(table.columns)}) {select}").rowcount
        changes.added |= {child.name: rows} if rows else {}
    return changes


def update_children(db: Connection, declared: Declared, keys: str) -> ChildChanges:
    """Update the child rows of the dataset's rows whose keys `keys` selects.

    Rows that stay as they are are not written.
    """
    changes = ChildChanges()
    for child in declared.children:
        table, name = child.table, quote(child.name)
        new = table._replace(name="_children")
        db.create(new, temporary=True)
        key = ", ".join(f"p.{quote(column)}" for column in declared.key)
        select = select_items(db, child, quote(declared.name), f"({key}) in ({keys})")
        added = db.run(f"insert into _children ({join_names(table.columns)}) {select}").rowcount
        touched = f"({join_names(child.root_columns)}) in ({keys})"
        (before,) = db.run(f"select count(*) from {name} where {touched}").fetchone()  # noqa: S608
        same = " and ".join(f"n.{quote(column)} = {name}.{quote(column)}" for column in table.key)
        removed = db.run(
            f"delete from {name} where {touched} and not exists (select 1 from _children n where {same})"  # noqa: S608
        ).rowcount
        added -= before - removed
        rest = [column for column in table.columns if column not in table.key]
        update = ", ".join(f"{quote(column)} = excluded.{quote(column)}" for column in rest)
        differs = f"({_prefix('excluded', rest)}) is distinct from ({_prefix(name, rest)})" if rest else ""
        action = f"do update set {update} where {differs}" if rest else "do nothing"
        db.run(
            f"insert into {name} ({join_names(table.columns)}) select {join_names(table.columns)} from _children "  # noqa: S608
            f"where true on conflict ({join_names(table.key)}) {action}"
        )
        db.run("drop table _children")
        changes.added |= {child.name: added} if added else {}
        changes.removed |= {child.name: removed} if removed else {}
    return changes


def select_items(db: Connection, child: ChildTable, source: str, where: str = "true", *more: str) -> str:
    """Return SQL that selects the rows of a child table from the rows of `source`, and `more` columns of these."""
    columns = [f"p.{quote(column)}" for column in child.dataset_key]
    items, holder = "", f"p.{quote(child.levels[0].list_name)}"
    for number, level in enumerate(child.levels):
        item = f"i{number}"
        if number:
            holder = db.read_member(f"i{number - 1}", level.list_name, "json")
        items += f" cross join {db.list_items(holder, item)}"
        columns += (
            [db.read_position(item)]
            if level.is_positional
            else [db.read_member(item, name, kind) for name, kind in level.key.items()]
        )
    columns += [db.read_member(item, name, kind) for name, kind in child.row.items()]
    columns += [f"p.{quote(name)}" for name in more]
    named = zip(columns, [*child.table.columns, *more], strict=True)
    selected = ", ".join(f"{expression} as {quote(name)}" for expression, name in named)
    return f"select {selected} from {source} p{items} where {where}"  # noqa: S608


def list_views(db: Connection, declared: Declared) -> Iterable[tuple[str, str]]:
    """Yield the views of the history of the child tables, with their SQL. They select from the dataset's own view."""
    for child in declared.children:
        history = quote(f"{declared.name}_history")
        yield f"{child.name}_history", select_items(db, child, history, "true", "valid_from", "valid_to")


def _prefix(table: str, columns: Iterable[str]) -> str:
    return ", ".join(f"{table}.{quote(column)}" for column in columns)
