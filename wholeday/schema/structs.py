"""Build the msgspec decoders of a record class.

Responsibilities: the struct for the objects that columns lie in, and where a decoded record has the value of a column.
Non-goals: values. A value that msgspec does not check exactly is decoded as raw JSON.
"""

import datetime as dt
import decimal
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from wholeday.schema.columns import Column, Columns
from wholeday.schema.record import Epoch, EpochMillis, Json

RAW = (Json, Epoch, EpochMillis, decimal.Decimal, dt.time)
"""Types whose values are decoded as raw JSON."""
CUT_MARKS = ("has_more", "hasMore", "hasNextPage", "pageInfo", "next", "total", "total_count", "totalCount")
"""Fields beside a list of records within an object that say whether the list is complete."""


@dataclass(frozen=True)
class Place:
    """Where a decoded record has the value of a column."""

    column: Column
    attribute: str
    """The dotted attribute of the value. An object on the way may be null."""
    rest: tuple[str, ...]
    """The path within the value, which is raw then and begins with a list."""
    marks: Mapping[str, str]
    """The fields that say whether a list is complete, with their dotted attributes."""


@dataclass(frozen=True)
class Decoder:
    """Decode records, or items of a list, into structs that have the values of some columns."""

    json: "msgspec.json.Decoder[Any]"
    places: tuple[Place, ...]


@functools.cache
def make_decoders(columns: Columns) -> tuple[Decoder, ...]:
    """Build decoders that together read all columns but the one for the rest; usually one.

    A second one is needed where two columns read the same value as different types, or one of them a part of it, and
    for a column that reads what says whether a list is complete.
    """
    decoders, left = [], [column for column in columns if not column.options.rest]
    while left:
        tree: dict[str, Any] = {}
        later = [column for column in left if not _insert(tree, column)]
        struct, places = _make_struct(tree, columns.class_name)
        decoders.append(Decoder(msgspec.json.Decoder(struct), tuple(places)))
        left = later
    return tuple(decoders)


def describe_type(column: Column) -> Any:
    """Return the type that msgspec checks a value of a column with, without None."""
    if column.children is not None:
        return list[msgspec.Raw]
    if column.type in RAW or column.is_list:
        return msgspec.Raw
    if column.type in (int, float):
        options = column.options
        given = {name: getattr(options, name) for name in ("ge", "gt", "le", "lt")}
        bounds = {name: column.type(bound) for name, bound in given.items() if bound is not None}
        return Annotated[column.type, msgspec.Meta(**bounds)]
    return column.type


def _split_path(column: Column) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split the path of a column before its first position in a list."""
    at = next((number for number, name in enumerate(column.path) if number and name.isdecimal()), len(column.path))
    return column.path[:at], column.path[at:]


def _insert(tree: dict[str, Any], column: Column) -> bool:
    """Put a column into a tree of objects. Return False if the place is taken."""
    path, rest = _split_path(column)
    node = tree
    for name in path[:-1]:
        if node is not tree and _is_mark(node, name):
            return False
        below = node.setdefault(name, {})
        if not isinstance(below, dict):
            return False
        node = below
    if node is not tree and (_is_mark(node, path[-1]) or (column.children and not node.keys().isdisjoint(CUT_MARKS))):
        return False
    leaves = node.setdefault(path[-1], [])
    if isinstance(leaves, dict) or (leaves and (rest or _split_path(leaves[0])[1] or not _is_alike(leaves[0], column))):
        return False
    leaves.append(column)
    return True


def _is_mark(node: Mapping[str, Any], name: str) -> bool:
    """Return whether a name within an object says whether a list beside it is complete."""
    return name in CUT_MARKS and any(isinstance(below, list) and below[0].children for below in node.values())


def _is_alike(one: Column, other: Column) -> bool:
    """Return whether one value can be decoded for both columns."""
    return describe_type(one) == describe_type(other) and one.is_nullable == other.is_nullable


def _make_struct(
    tree: Mapping[str, Any], class_name: str, prefix: str = ""
) -> tuple[type[msgspec.Struct], list[Place]]:
    """Build the struct for an object, whose attributes have a prefix. An object is required if a column in it is."""
    type_: Any
    fields: list[Any] = []
    places: list[Place] = []
    has_list = bool(prefix) and any(isinstance(below, list) and below[0].children for below in tree.values())
    marks = {name: f"m{number}" for number, name in enumerate(CUT_MARKS) if has_list and name not in tree}
    for number, below in enumerate(tree.values()):
        attribute = f"_{number}"
        if isinstance(below, dict):
            type_, inner = _make_struct(below, class_name, f"{prefix}{attribute}.")
            places += inner
            is_required = any(not place.column.is_nullable for place in inner)
        else:
            rests = [_split_path(column)[1] for column in below]
            type_ = msgspec.Raw if rests[0] else describe_type(below[0])
            is_required = not rests[0] and not below[0].is_nullable
            shown = {name: f"{prefix}{mark}" for name, mark in marks.items()} if below[0].children else {}
            places += [
                Place(column, prefix + attribute, rest, shown) for column, rest in zip(below, rests, strict=True)
            ]
        # Raw values include null, and raw JSON has no union.
        optional = type_ if type_ is msgspec.Raw else type_ | None
        fields.append((attribute, type_) if is_required else (attribute, optional, None))
    fields += [(mark, Any, None) for mark in marks.values()]
    names = {f"_{number}": name for number, name in enumerate(tree)} | {mark: name for name, mark in marks.items()}
    # A required field cannot follow one with a default.
    return msgspec.defstruct(class_name, sorted(fields, key=len), rename=names, gc=False), places


def make_tree(columns: Iterable[Column]) -> dict[str, Any]:
    """Return the names that columns read in a record, nested; empty below a value that a column reads whole."""
    tree: dict[str, Any] = {}
    paths = {_split_path(column)[0] for column in columns if not column.options.rest}
    for path in paths:
        node = tree
        shortest = next(path[:length] for length in range(1, len(path) + 1) if path[:length] in paths)
        for name in shortest:
            node = node.setdefault(name, {})
    return tree
