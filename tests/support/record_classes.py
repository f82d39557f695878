"""Generate record classes and records, with the rows that a correct pipeline stores of them."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from tests.support.things import make_record_class
from tests.support.values import (
    DIGITS,
    PLACES,
    REJECT,
    TYPES,
    load,
    numbers,
    soften,
    store,
    trees,
    usual,
    values,
    words,
    write_json,
)
from wholeday import Field, Json, Record

Path = tuple[str | int, ...]
Row = dict[str, Any]
LIST, REST = "list", "rest"
KEYS = ("whole", "guid", "day", "level")
NAMES = ("name", "Größe", "order", "select", "a1", "x_y", "key", "value")
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "whole": [{}, {"ge": 0}, {"ge": -5, "le": 5}],
    "real": [{}, {"ge": 0.5}],
    "money": [{}, {"ge": 0}],
    "words": [
        {},
        {"strip_whitespace": True},
        {"to_lower": True, "max_length": 4},
        {"strip_whitespace": True, "to_upper": True, "pattern": "[A-Z]"},
        {"min_length": 1},
    ],
}


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    """A name in TYPES, LIST or REST."""
    path: Path
    is_nullable: bool
    is_key: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    items: "Shape | None" = None


@dataclass(frozen=True)
class Shape:
    """The columns of a record class."""

    columns: tuple[Column, ...]

    @property
    def key(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.is_key)

    @property
    def types(self) -> dict[str, str]:
        return {column.name: column.type for column in self.columns}

    def make_class(self, name: str = "Thing") -> type[Record]:
        """Return the record class."""
        return make_record_class(
            {column.name: declare(column) for column in self.columns},
            name,
            **{column.name: describe(column) for column in self.columns},
        )


def declare(column: Column) -> Any:
    if column.items:
        type_: Any = list[column.items.make_class(column.name.title())]  # type: ignore[misc]
    else:
        type_ = Json if column.type == REST else TYPES[column.type]
    return type_ | None if column.is_nullable else type_


def describe(column: Column) -> Any:
    digits = {"max_digits": DIGITS, "decimal_places": PLACES} if column.type == "money" else {}
    if column.type == REST:
        return Field(rest=True)
    source = ".".join(str(name).replace(".", r"\.") for name in column.path)
    source_or_none = (source,) if column.path != (column.name,) else ()
    return Field(*source_or_none, primary_key=column.is_key, **column.options, **digits)


@st.composite
def shapes(draw: st.DrawFn, level: int = 0) -> Shape:
    """Draw a record class; of a dataset at level 0, else of the items of a list."""
    columns = [Column("id", "whole", ("id",), False, is_key=True)] if not level else []
    names = list(draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=5 - level)))
    if draw(st.integers(0, 1)):
        keys = names[: draw(st.integers(1, 2))]
        columns += [Column(name, draw(st.sampled_from(KEYS)), (name,), False, is_key=True) for name in keys]
        names = names[len(keys) :]
    columns += [draw_column(draw, name) for name in names]
    if level < 2:
        for name in draw(st.lists(st.sampled_from(["items", "parts"]), unique=True, max_size=2 - level)):
            path = draw(st.sampled_from([(name,), (f"{name}_box", "data")]))
            columns.append(Column(name, LIST, path, draw(st.booleans()), items=draw(shapes(level + 1))))
    if not level:
        columns.append(Column("updated_at", "moment", ("updated_at",), True))
        if draw(st.integers(0, 2)) == 2:
            columns.append(Column("others", REST, (), True))
    return Shape(tuple(columns))


def draw_column(draw: st.DrawFn, name: str) -> Column:
    type_ = draw(st.sampled_from(sorted(TYPES)))
    path = draw(st.sampled_from([(name,), (name,), ("in", name), (f"a.{name}",), (f"list {name}", 0, "it")]))
    options = draw(st.sampled_from(OPTIONS.get(type_, [{}])))
    return Column(name, type_, path, draw(st.integers(0, 3)) > 0, options=options)


@dataclass
class Sent:
    """A record, and its expected row: REJECT, or a value for each column."""

    text: str
    row: Any
    """By column; of a list the rows of its items, or None."""


@st.composite
def records(draw: st.DrawFn, shape: Shape, lenient: bool, number: int | None = None) -> Sent:
    """Draw a record of a class. The key of a dataset's record is valid."""
    entries: list[tuple[Path, str]] = []
    row: Row = {}
    inner = draw(st.sampled_from(["object"] * 8 + ["null", "missing", "3"]))
    for column in shape.columns:
        if column.type == REST:
            continue
        is_known = column.is_key and number is not None
        if column.path[0] == "in" and inner != "object":
            row[column.name] = None if column.is_nullable and inner != "3" else REJECT
        elif not is_known and draw(st.integers(0, 19)) == 19:
            row[column.name] = None if column.is_nullable else REJECT
        elif column.items:
            text, marks, row[column.name] = draw_list(draw, column, lenient)
            entries.append((column.path, text))
            entries += [((*column.path[:-1], name), mark) for name, mark in marks]
        else:
            text = str(number) if column.name == "id" and number is not None else draw_value(draw, column, is_known)
            options = column.options | {"nullable": column.is_nullable}
            row[column.name] = store(column.type, text, options, lenient)
            entries.append((column.path, text))
    if inner in ("null", "3"):
        entries.append((("in",), inner))
    unknown = {("unknown",): trees, ("in", "unknown"): trees} if inner == "object" else {("unknown",): trees}
    entries += [(path, draw(text)) for path, text in unknown.items() if draw(st.integers(0, 3)) == 3]
    known = {column.path for column in shape.columns}
    is_read = any(column.path[:1] == ("in",) for column in shape.columns)
    if any(column.type == REST for column in shape.columns):
        others = [(path, text) for path, text in entries if path not in known and (path != ("in",) or not is_read)]
        row["others"] = store("json", render(others), {"nullable": True})
    if len({path for path, _ in entries}) < len(entries):
        raise AssertionError("two values at one path")
    return Sent(render(entries), REJECT if any(value is REJECT for value in row.values()) else row)


def draw_value(draw: st.DrawFn, column: Column, is_valid: bool) -> str:
    if is_valid:
        of = {"options": column.options, "name": column.type}
        return draw(usual[column.type].filter(lambda text: store(of["name"], text, {"nullable": False}) is not REJECT))
    if column.type == "words" and column.options:  # databases and languages differ in rare letters
        return draw(words.map(json.dumps) | numbers)
    return draw(usual[column.type])


def draw_list(draw: st.DrawFn, column: Column, lenient: bool) -> tuple[str, list[tuple[str, str]], Any]:
    """Draw a list of records: its text, the fields beside it, and the rows of its items."""
    shape = column.items
    assert shape
    marks = draw_marks(draw) if len(column.path) > 1 else []
    if draw(st.integers(0, 9)) == 9:
        text = draw(values)
        value = load(soften(LIST, text, {"nullable": column.is_nullable}) if lenient else text)
        if value == []:
            return text, marks, REJECT if is_cut(marks, 0) else []
        return text, marks, None if value is None and column.is_nullable else REJECT
    items = draw(st.lists(records(shape, lenient), max_size=3))
    text = f"[{','.join(item.text for item in items)}]"
    rows = [item.row for item in items]
    if any(row is REJECT for row in rows) or is_cut(marks, len(rows)):
        return text, marks, REJECT
    if shape.key:
        keys = [tuple(row[child.name] for child in shape.key) for row in rows]
        if len(set(keys)) < len(keys):
            return text, marks, REJECT
        rows = [row for _, row in sorted(zip(keys, rows, strict=True), key=lambda pair: pair[0])]
    return text, marks, rows


def draw_marks(draw: st.DrawFn) -> list[tuple[str, str]]:
    marks = {
        "has_more": ["false", "null", "true"],
        "next": ["null", '""', '"/2"'],
        "total": ["0", "3", "null"],
        "pageInfo": ['{"hasNextPage":false}', '{"hasNextPage":true}'],
    }
    chosen = draw(st.lists(st.sampled_from(sorted(marks)), unique=True, max_size=1))
    return [(name, draw(st.sampled_from(marks[name]))) for name in chosen]


def is_cut(marks: Iterable[tuple[str, str]], length: int) -> bool:
    said = dict(marks)
    is_more = said.get("has_more") == "true" or said.get("next") == '"/2"' or "true" in said.get("pageInfo", "")
    return is_more or (said.get("total") == "3" and length < 3)


def render(entries: Sequence[tuple[Path, str]]) -> str:
    """Write an object with JSON values at paths. A number on a path is a position in a list."""
    members: dict[Any, list[tuple[Path, str]]] = {}
    for path, text in entries:
        members.setdefault(path[0], []).append((path[1:], text))
    texts = {name: below[0][1] if below[0][0] == () else render(below) for name, below in members.items()}
    if 0 in texts:
        return f"[{texts[0]}]"
    return "{" + ",".join(f"{json.dumps(name)}: {text}" for name, text in texts.items()) + "}"


def flatten(row: Row, shape: Shape) -> Row:
    """Return a row with its lists as the canonical JSON that the dataset's table has."""
    return {
        column.name: None
        if (value := row[column.name]) is None
        else write_json([to_json(item, column.items) for item in value])
        if column.items
        else value
        for column in shape.columns
    }


def to_json(row: Row, shape: Shape) -> Row:
    """Return an item in the form of its parent's list."""
    found = {}
    for column in shape.columns:
        value = row[column.name]
        if value is None:
            pass
        elif column.items:
            value = [to_json(item, column.items) for item in value]
        elif column.type == "money":
            value = f"{value:.{PLACES}f}"
        elif column.type == "real":
            value = Decimal(repr(value))
        elif isinstance(value, str) and column.type not in ("words", "guid", "state", "moment", "seconds", "millis"):
            value = value if column.type in ("day", "clock") else load(value)
        found[column.name] = value
    return found


def list_children(
    shape: Shape, rows: Sequence[Row], table: str = "things"
) -> Iterator[tuple[str, dict[str, str], list[Row]]]:
    """Yield each child table: its name, the types of its columns, and its rows."""
    above = {f"{table}_{column.name}": column.type for column in shape.key}
    holders = [({f"{table}_{column.name}": row[column.name] for column in shape.key}, row) for row in rows]
    yield from _list_children(shape, above, holders, table)


def _list_children(
    shape: Shape, above: dict[str, str], holders: Sequence[tuple[Row, Row]], table: str
) -> Iterator[tuple[str, dict[str, str], list[Row]]]:
    for column in shape.columns:
        if column.items is None:
            continue
        child, inner = f"{table}_{column.name}", column.items
        own = {key.name: key.type for key in inner.key} or {"position": "whole"}
        found, below = [], []
        for keys, row in holders:
            for position, item in enumerate(row[column.name] or []):
                full = {"position": position} | item
                found.append(keys | flatten(item, inner) | ({} if inner.key else {"position": position}))
                below.append((keys | {f"{child}_{name}": full[name] for name in own}, item))
        yield child, above | own | inner.types, found
        yield from _list_children(
            inner, above | {f"{child}_{name}": type_ for name, type_ in own.items()}, below, child
        )
