"""Read a record class: its fields, their paths in the JSON, and their kinds.

Responsibilities: the types that a field may have, and one line for each type that cannot be stored exactly.
Non-goals: decoding records, and the columns of the table.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from wholeday.errors import DatasetError

KINDS: dict[type[inspect.Type], str] = {
    inspect.IntType: "integer",
    inspect.FloatType: "float",
    inspect.BoolType: "boolean",
    inspect.StrType: "text",
    inspect.DateTimeType: "time",
    inspect.DateType: "date",
}
EXAMPLES: dict[str, Any] = {
    "integer": 1,
    "float": 1.5,
    "boolean": True,
    "text": "a",
    "time": "2026-11-20T10:00:00Z",
    "date": "2026-11-20",
}
NO_OBJECT = "declare a msgspec.Struct with the fields that you need, or leave the field out; raw files keep it"
REFUSED: dict[type[inspect.Type], tuple[str, str]] = {
    inspect.DecimalType: ("Decimal", "declare it str if the source sends text, else float"),
    inspect.UUIDType: ("UUID", "declare it str"),
    inspect.TimeType: ("time", "declare it str"),
    inspect.TimeDeltaType: ("timedelta", "declare it str"),
    inspect.AnyType: ("Any", "declare one type"),
    inspect.RawType: ("Raw", NO_OBJECT),
    inspect.DictType: ("dict", NO_OBJECT),
    inspect.ListType: ("list", "leave the field out; raw files keep it"),
}
OTHER = (
    "declare it int, float, bool, str, datetime, date, a Literal or Enum of text or of integers, or a msgspec.Struct"
)


class Leaf(NamedTuple):
    """A field of a record that becomes a column."""

    path: tuple[str, ...]
    """The path of attributes."""
    names: tuple[str, ...]
    """The path of names in the JSON."""
    kind: str
    is_enum: bool
    has_default: bool
    """Whether the field has another default than None."""


def list_leaves(record_class: type[msgspec.Struct]) -> list[Leaf]:
    """List the fields of a record class, nested ones included. Raises DatasetError for an unknown type."""
    try:
        return list(_walk(record_class.__name__, inspect.type_info(record_class), (), ()))
    except (TypeError, NameError) as error:
        raise DatasetError(f"record class {record_class.__name__} cannot be read: {error}") from error


def make_example(record_class: type[msgspec.Struct]) -> bytes:
    """Make a record with a value in each field, as JSON. A record class with bounds or enums may refuse it."""
    record: dict[str, Any] = {}
    for leaf in list_leaves(record_class):
        node = record
        for name in leaf.names[:-1]:
            node = node.setdefault(name, {})
        node[leaf.names[-1]] = None if leaf.is_enum else EXAMPLES[leaf.kind]
    return msgspec.json.encode(record)


def check_key(record_class: type[msgspec.Struct], key: Sequence[str]) -> None:
    """Raise DatasetError unless each name of the natural key is a field of the record class."""
    names = [".".join(leaf.names) for leaf in list_leaves(record_class)]
    if wrong := next((name for name in key if name not in names), None if key else "nothing"):
        raise DatasetError(
            f"record class {record_class.__name__}: the key names {wrong}, which is not among its fields: "
            f"{', '.join(names)}: "
            "name the fields that identify a record"
        )


def _walk(
    record_class: str,
    node: inspect.Type,
    attributes: tuple[str, ...],
    names: tuple[str, ...],
    within: tuple[type, ...] = (),
    has_default: bool = False,
) -> Iterator[Leaf]:
    if isinstance(node, inspect.UnionType):
        others = [kind for kind in node.types if not isinstance(kind, inspect.NoneType)]
        if len(others) > 1:
            shown = " | ".join(_name_type(kind) for kind in others)
            raise _refuse(record_class, names, shown, "declare one type; records with another one are then rejected")
        node = others[0]
    if isinstance(node, inspect.StructType):
        if node.array_like:
            raise _refuse(
                record_class, names, f"{node.cls.__name__}, an array", "leave array_like out: fields need names"
            )
        if node.cls in within:
            raise _refuse(record_class, names, f"{node.cls.__name__}, which holds itself", "leave the field out")
        for field in node.fields:
            path = (*attributes, field.name), (*names, field.encode_name)
            default = has_default or bool({field.default, field.default_factory} - {None, msgspec.NODEFAULT})
            yield from _walk(record_class, field.type, *path, (*within, node.cls), default)
        return
    kind = _find_kind(node)
    if kind is None:
        raise _refuse(record_class, names, _name_type(node), REFUSED.get(type(node), ("", OTHER))[1])
    yield Leaf(attributes, names, kind, isinstance(node, inspect.EnumType), has_default)


def _find_kind(node: inspect.Type) -> str | None:
    if isinstance(node, inspect.LiteralType | inspect.EnumType):
        values = node.values if isinstance(node, inspect.LiteralType) else [member.value for member in node.cls]
        types = {type(value) for value in values if value is not None}
        return {frozenset({str}): "text", frozenset({int}): "integer"}.get(frozenset(types))
    return KINDS.get(type(node))


def _name_type(node: inspect.Type) -> str:
    """Return a type as a class declares it."""
    if isinstance(node, inspect.StructType | inspect.EnumType):
        return node.cls.__name__
    known = REFUSED.get(type(node))
    return known[0] if known else type(node).__name__.removesuffix("Type").lower()


def _refuse(record_class: str, names: Sequence[str], shown: str, fix: str) -> DatasetError:
    field = f"field {'.'.join(names)} of record class {record_class}" if names else f"record class {record_class}"
    return DatasetError(f"{field} is declared {shown}, which cannot be stored: {fix}")
