"""Derive the child tables from the lists that the rows of a dataset hold.

Responsibilities: the rows of child tables, for the dataset's rows that a load changed; the views of their history.
Non-goals: rules about facts. A list is part of its row, so its items have none of their own.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from wholeday.load.database import Connection
from wholeday.schema.kinds import (
    BOOLEAN,
    DATE,
    FLOAT,
    INTEGER,
    JSON,
    LONGEST_VALUE,
    TEXT,
    TIME,
    TIMESTAMP,
    UUID,
    parse_decimal,
)
from wholeday.schema.tables import ChildTable, Declared, join_names, quote

# The canonical forms of values in a stored list; a decimal may have fewer places.
TEXTS = {
    DATE: r"\d{4}-\d\d-\d\d",
    TIME: r"\d\d:\d\d:\d\d\.\d{6}",
    TIMESTAMP: r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z",
    UUID: "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
}
ITEM_TYPES: dict[str, Any] = {
    INTEGER: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)],
    FLOAT: float,
    BOOLEAN: bool,
    TEXT: str,
    JSON: msgspec.Raw,
    **{kind: Annotated[str, msgspec.Meta(pattern=f"^{pattern}$")] for kind, pattern in TEXTS.items()},
}


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


def find_unfit(db: Connection, declared: Declared, child: ChildTable) -> str | None:
    """Return why a stored list, of an earlier record class, does not fit a child table; None if all fit.

    Databases would refuse its values, or store others in their place.
    """
    item: Any = msgspec.defstruct("Item", _list_fields(child.levels[-1].key, child.row, child.levels[-1].is_positional))
    for above, level in reversed(list(zip(child.levels, child.levels[1:], strict=False))):
        inner = (level.list_name, list[item] | None, None)
        item = msgspec.defstruct("Item", [*_list_fields(above.key, {}, above.is_positional), inner])
    decode = msgspec.json.Decoder(list[item], dec_hook=_read_decimal).decode
    column, stored = quote(child.levels[0].list_name), declared.stored
    for table in (stored.present, stored.events, stored.changes):
        sql = f"select cast({column} as text) from {quote(table.name)} where {column} is not null"  # noqa: S608
        for (text,) in db.stream(sql):
            try:
                decode(text)
            except msgspec.MsgspecError as error:
                return f"{child.levels[0].list_name} is {text[:LONGEST_VALUE]}: {error}"
    return None


def _list_fields(key: Mapping[str, str], row: Mapping[str, str], is_positional: bool) -> list[Any]:
    """Return the fields of a struct that reads an item: its key, unless that is its position, and its row."""
    fields: list[Any] = [] if is_positional else [(name, _find_type(kind)) for name, kind in key.items()]
    return fields + [(name, _find_type(kind) | None, None) for name, kind in row.items()]


def _find_type(kind: str) -> Any:
    """Return the type that reads a value of a kind in its canonical form."""
    if not (digits := parse_decimal(kind)):
        return ITEM_TYPES[kind]
    before = f"[0-9]{{1,{digits[0] - digits[1]}}}" if digits[0] > digits[1] else "0"
    return type(kind, (), {"pattern": rf"-?{before}(\.[0-9]{{1,{max(1, digits[1])}}})?"})


def _read_decimal(type_: Any, value: Any) -> Any:
    """Check a decimal, which an earlier class may have stored as a number. msgspec wants an object of its type."""
    text = value if isinstance(value, str) else repr(value)
    if not re.fullmatch(type_.pattern, text):
        raise ValueError(f"{text[:LONGEST_VALUE]} is not a {type_.__name__}")
    return type_()


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
