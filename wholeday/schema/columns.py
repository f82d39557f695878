"""Read a record class: its columns, with their kinds, paths and rules.

Responsibilities: which types can be stored, and one line for each mistake in a class.
Non-goals: decoding records (`structs`), and the tables of the warehouse (`tables`).
"""

import datetime as dt
import decimal
import enum
import functools
import itertools
import math
import re
import types
import typing
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from wholeday.errors import DatasetError
from wholeday.schema.kinds import (
    BOOLEAN,
    DATE,
    DECIMAL,
    FLOAT,
    INTEGER,
    JSON,
    TEXT,
    TIMESTAMP,
    TYPES,
    UUID,
    make_decimal,
)
from wholeday.schema.raw_fields import INTEGERS
from wholeday.schema.record import Epoch, EpochMillis, FieldOptions, Json, Record

PARENT = "@parent"
"""The member of a record under which the transform finds the columns of its parent."""
OF_PARENT = (BOOLEAN, DATE, FLOAT, INTEGER, TEXT, TIMESTAMP, UUID)
"""The kinds of columns that a record can take from its parent."""
MAX_DIGITS = 38  # of Arrow's 128 bits
KEY_TYPES = "int, str, UUID, date or a Literal"
KNOWN_TYPES = (
    "declare it int, float, bool, str, datetime, date, time, Decimal, UUID, Epoch, EpochMillis, Json, a Literal or "
    "Enum of text or of integers, list[…] of a record class or of one of these"
)
NUMBERS = ("ge", "gt", "le", "lt")
TEXTS = ("min_length", "max_length", "pattern", "strip_whitespace", "to_lower", "to_upper")
DIGITS = ("max_digits", "decimal_places")


@dataclass(frozen=True)
class Column:
    """A column of a record class."""

    name: str
    path: tuple[str, ...]
    """Names and positions from the record to the value."""
    type: Any
    """The declared type, without None: `int`, `Epoch`, `list[str]`, …"""
    kind: str
    is_nullable: bool
    options: FieldOptions
    children: "Columns | None" = None
    """The columns of the items of a list of records."""

    @property
    def source(self) -> str:
        """The dotted path in a record."""
        return ".".join(self.path)

    @property
    def is_list(self) -> bool:
        """Whether the column holds a list of scalars."""
        return get_origin(self.type) is list and self.children is None


@dataclass(frozen=True)
class Columns:
    """The columns of a record class, in the order of their declaration."""

    class_name: str
    columns: tuple[Column, ...]

    @property
    def key(self) -> tuple[Column, ...]:
        """The columns of the primary key."""
        return tuple(column for column in self.columns if column.options.primary_key)

    @property
    def row(self) -> tuple[Column, ...]:
        """The other columns."""
        return tuple(column for column in self.columns if not column.options.primary_key)

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each column by its name."""
        return {column.name: column.kind for column in self.columns}

    @property
    def of_parent(self) -> tuple[Column, ...]:
        """The columns whose values come from the parent."""
        return tuple(column for column in self.columns if column.options.parent is not None)

    @property
    def taken(self) -> list[str]:
        """The columns of the parent that they take."""
        return [str(column.options.parent) for column in self.of_parent]

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)


def read_columns(record_class: type[Record]) -> Columns:
    """Read the columns of a dataset's record class. Raises DatasetError, in one line, for a mistake in the class."""
    return _read_dataset(record_class)  # type: ignore[arg-type]  # a class is hashable


@functools.cache
def _read_dataset(record_class: type[Record]) -> Columns:
    columns = _read(record_class, ())
    name = record_class.__name__
    if columns.key and all(column.options.parent for column in columns.key):
        raise DatasetError(
            f"record class {name}: the primary key is the parent's only: mark a column of the record too"
        )
    if not columns.key:
        raise DatasetError(
            f"record class {name} has no primary key: "
            "mark the column that identifies a record, as in id: int = Field(primary_key=True)"
        )
    changed = next((column for column in columns if column.name == "updated_at"), None)
    if changed is None or changed.kind != TIMESTAMP or changed.options.primary_key:
        raise DatasetError(
            f"record class {name} needs the column updated_at: datetime | None (or Epoch | None) outside its key: add "
            "it, with the path of the time of the last change; it stays null where the source has none"
        )
    return columns


def _read(record_class: type[Record], within: tuple[type, ...]) -> Columns:
    name = record_class.__name__
    try:
        annotations = typing.get_type_hints(record_class)
    except (NameError, TypeError, SyntaxError) as error:
        raise DatasetError(f"record class {name} cannot be read: {error}: import the name, or correct it") from error
    columns = tuple(
        _read_column(record_class, column, annotation, (*within, record_class))
        for column, annotation in annotations.items()
        if get_origin(annotation) is not typing.ClassVar
    )
    if unannotated := [
        column
        for column, value in vars(record_class).items()
        if isinstance(value, FieldOptions) and column not in annotations
    ]:
        raise DatasetError(f"record class {name}: column {unannotated[0]} has no type: write {unannotated[0]}: int = …")
    _check_names(name, columns)
    _check_paths(name, columns)
    return Columns(name, columns)


def _read_column(record_class: type[Record], name: str, annotation: Any, within: tuple[type, ...]) -> Column:
    where = f"column {name} of record class {record_class.__name__}"
    options = getattr(record_class, name, FieldOptions())
    if not isinstance(options, FieldOptions):
        raise DatasetError(
            f"{where} has the default {options!r}, which would hide that a record lacks it: remove the default; "
            "a column declared | None is null then"
        )
    type_, is_nullable = split_none(where, annotation)
    children = None
    if get_origin(type_) is list:
        if len(get_args(type_)) != 1:
            raise _refuse(where, type_)
        (item,) = get_args(type_)
        if isinstance(item, type) and issubclass(item, Record):
            if item in within:
                raise DatasetError(f"{where} holds {item.__name__}, which holds itself: leave the column out")
            children, kind = _read(item, within), JSON
            _check_children(where, children)
        else:
            item, _ = split_none(where, item)
            if _find_kind(item) is None:
                raise _refuse(where, item)
            kind = JSON
    elif isinstance(type_, type) and issubclass(type_, Record):
        raise DatasetError(
            f"{where} is declared {type_.__name__}, a record class, without a list: declare list[{type_.__name__}], "
            f'or a column for each field that you need, as in city: str | None = Field("address.city")'
        )
    else:
        found = _find_kind(type_, options)
        if found is None:
            raise _refuse(where, type_)
        kind = found
    _check_values(where, options)
    path = _split_source(name if options.source is None else options.source)
    if options.parent is not None:
        _check_parent(where, name, type_, kind, options)
        path = PARENT, options.parent
    if not all(path):
        raise DatasetError(f"{where}: the path {options.source!r} has an empty name: write names with dots between")
    column = Column(name, path, type_, kind, is_nullable, options, children)
    _check_options(where, column)
    return column


def split_none(where: str, annotation: Any) -> tuple[Any, bool]:
    """Return a type without None, and whether None was among its members. Raises DatasetError for two other members."""
    if get_origin(annotation) in (typing.Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not types.NoneType]
        if len(members) > 1:
            shown = " | ".join(map(_name_type, members))
            raise DatasetError(
                f"{where} is declared {shown}: declare one type, so that records with another one are rejected, or Json"
            )
        return members[0], len(members) < len(get_args(annotation))
    if get_origin(annotation) is Literal and None in get_args(annotation):
        return Literal[tuple(value for value in get_args(annotation) if value is not None)], True
    return annotation, False


def _find_kind(type_: Any, options: FieldOptions | None = None) -> str | None:
    """Return the kind of a type; None if it cannot be stored."""
    if type_ is decimal.Decimal:
        digits = options and options.max_digits
        return make_decimal(digits, options.decimal_places or 0) if options and digits else DECIMAL
    if get_origin(type_) is Literal or (isinstance(type_, type) and issubclass(type_, enum.Enum)):
        values = get_args(type_) if get_origin(type_) is Literal else [member.value for member in type_]
        found = {type(value) for value in values}
        return {frozenset({str}): TEXT, frozenset({int}): INTEGER}.get(frozenset(found))
    return TYPES.get(type_) if isinstance(type_, type) else None


def _check_values(where: str, options: FieldOptions) -> None:
    """Raise DatasetError for an argument of Field whose value is of no use, whatever the type of the column."""
    for name, wanted, test in (
        *((name, "a number", _is_number) for name in NUMBERS),
        *((name, "a whole number from 0", _is_count) for name in ("min_length", "max_length", *DIGITS)),
        *((name, "a text", lambda value: isinstance(value, str)) for name in ("source", "pattern")),
    ):
        value = getattr(options, name)
        if value is not None and not test(value):
            shown = "the path" if name == "source" else name
            raise DatasetError(f"{where}: {shown} = {value!r} is not {wanted}: correct it")
    try:
        re.compile(options.pattern or "")
    except re.error as error:
        raise DatasetError(
            f"{where}: pattern = {options.pattern!r} is not a regular expression: {error}: correct it"
        ) from error
    for strict, other in (("gt", "ge"), ("lt", "le")):
        if None not in (getattr(options, strict), getattr(options, other)):
            raise DatasetError(f"{where} has both {strict} and {other}: remove one")
    for least, most in itertools.product(("ge", "gt"), ("le", "lt")):
        _check_order(where, options, least, most)
    _check_order(where, options, "min_length", "max_length")


def _check_parent(where: str, name: str, type_: Any, kind: str, options: FieldOptions) -> None:
    """Raise DatasetError for a column of the parent that is declared as a column of the record."""
    if not isinstance(options.parent, str) or not options.parent.isidentifier():
        raise DatasetError(f"{where}: parent = {options.parent!r} is not the name of a column: correct it")
    others = [option for option, value in vars(options).items() if value != getattr(FieldOptions(), option)]
    if extra := [option for option in others if option not in ("parent", "primary_key", "fields_gate")]:
        shown = "a path" if extra[0] == "source" else extra[0]
        raise DatasetError(f"{where} takes its value unchanged from the parent, and has {shown}: remove one of them")
    if type_ in (Epoch, EpochMillis) or kind not in OF_PARENT:
        raise DatasetError(
            f"{where} is declared {_name_type(type_)} and takes its value from the parent: declare it int, float, "
            "bool, str, datetime, date or UUID, as there"
        )
    if name == "updated_at":
        raise DatasetError(f"{where} is the time of the parent's change: give it the path of the record's own")


def _check_order(where: str, options: FieldOptions, least: str, most: str) -> None:
    low, high = getattr(options, least), getattr(options, most)
    if low is not None and high is not None and low > high:
        raise DatasetError(f"{where}: no value has {least} = {low} and {most} = {high}: correct one of them")


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float | decimal.Decimal) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_options(where: str, column: Column) -> None:
    """Raise DatasetError for an argument of Field that the type of the column does not have."""
    options = column.options
    is_number = column.type in (int, float, decimal.Decimal)
    groups = [
        (NUMBERS, is_number, "numbers"),
        (TEXTS, column.type is str, "str"),
        (DIGITS, column.type is decimal.Decimal, "Decimal"),
    ]
    for names, is_allowed, wanted in groups:
        given = [name for name in names if getattr(options, name) not in (None, False)]
        if given and not is_allowed:
            raise DatasetError(
                f"{where}: {given[0]} is for {wanted}, the column is {_name_type(column.type)}: remove it"
            )
    for name in NUMBERS:
        bound = getattr(options, name)
        if column.type is int and bound is not None and not (isinstance(bound, int) and bound in INTEGERS):
            raise DatasetError(f"{where}: {name} = {bound} is for an int: give a whole number of at most 64 bits")
    if options.to_lower and options.to_upper:
        raise DatasetError(f"{where}: to_lower and to_upper exclude each other: remove one")
    if column.type is decimal.Decimal:
        digits, places = options.max_digits, options.decimal_places
        if digits is None or places is None or not 0 <= places <= digits or not 1 <= digits <= MAX_DIGITS:
            raise DatasetError(
                f"{where} is a Decimal with max_digits = {digits} and decimal_places = {places}: give both, as in "
                f"Field(max_digits=12, decimal_places=2), with at most {MAX_DIGITS} digits"
            )
    if options.primary_key:
        is_key = column.type in (int, str, uuid.UUID, dt.date) or get_origin(column.type) is Literal
        if not is_key or column.is_nullable:
            shown = _name_type(column.type) + (" | None" if column.is_nullable else "")
            raise DatasetError(f"{where} is part of the primary key and declared {shown}: declare it {KEY_TYPES}")
        if any(name.isdecimal() for name in column.path[1:]):
            raise DatasetError(
                f"{where} is part of the primary key and lies in a list: choose another column as the key"
            )
    if options.rest and (column.type is not Json or options.source or not column.is_nullable):
        raise DatasetError(
            f"{where} holds the other fields: declare it as {column.name}: Json | None = Field(rest=True)"
        )


def _check_children(where: str, children: Columns) -> None:
    """Raise DatasetError for what a list of records cannot have."""
    if children.of_parent:
        raise DatasetError(f"{where}: {children.class_name} has a column with parent: only a dataset's class has one")
    if any(column.options.rest for column in children):
        raise DatasetError(
            f"{where}: {children.class_name} has a column with rest=True: only a dataset's class has one"
        )
    for column in children:
        if column.children and any(below.children for below in column.children):
            raise DatasetError(
                f"{where}: {column.name} holds lists of records that hold lists of records: declare the innermost Json"
            )


def _check_names(class_name: str, columns: Sequence[Column]) -> None:
    seen: dict[str, str] = {}
    for column in columns:
        if other := seen.get(column.name.lower()):
            raise DatasetError(
                f"record class {class_name}: the columns {other} and {column.name} have one name: rename one"
            )
        seen[column.name.lower()] = column.name
    if [column.name for column in columns if column.options.rest][1:]:
        raise DatasetError(f"record class {class_name}: two columns have rest=True: remove one")


def _check_paths(class_name: str, columns: Sequence[Column]) -> None:
    """Raise DatasetError if the path of one column holds a scalar, and the path of another one leads through it."""
    for column in columns:
        is_open = column.kind == JSON  # other columns may read parts of an object or of a list
        inner = [x for x in columns if len(x.path) > len(column.path) and x.path[: len(column.path)] == column.path]
        if inner and not is_open and not column.options.rest:
            raise DatasetError(
                f"record class {class_name}: column {column.name} reads a value at {column.source}, and column "
                f"{inner[0].name} an object there ({inner[0].source}): correct one of the paths"
            )


def _split_source(source: str) -> tuple[str, ...]:
    r"""Split a path at its dots, but not at `\.`."""
    return tuple(name.replace(r"\.", ".") for name in re.split(r"(?<!\\)\.", source))


def _name_type(type_: Any) -> str:
    """Return a type as a class declares it."""
    if get_origin(type_) is None and isinstance(type_, type):
        return type_.__name__
    return str(type_).replace("typing.", "")


def _refuse(where: str, type_: Any) -> DatasetError:
    return DatasetError(f"{where} is declared {_name_type(type_)}, which cannot be stored: {KNOWN_TYPES}")
