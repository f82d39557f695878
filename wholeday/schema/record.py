"""Declare a record class: its columns, their types, their paths in a record, and the rules for their values.

Responsibilities: the words of a declaration. Non-goals: reading a declaration (`columns`) and records (`structs`).
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from wholeday.errors import DatasetError


class Record:
    """The base class of record classes. Each annotated name is a column; `Field` adds its path and its rules.

    A record class is a declaration. It has no instances, and it is read when a command or a task first needs it.
    """


class Json:
    """A column of any JSON value, stored in one canonical form."""


class Epoch:
    """A column of times that the source sends as seconds since 1970-01-01 UTC, with or without a fraction."""


class EpochMillis:
    """A column of times that the source sends as milliseconds since 1970-01-01 UTC."""


@dataclass(frozen=True, kw_only=True)
class FieldOptions:
    """The arguments of `Field`."""

    source: str | None = None
    primary_key: bool = False
    ge: float | Decimal | None = None
    gt: float | Decimal | None = None
    le: float | Decimal | None = None
    lt: float | Decimal | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    strip_whitespace: bool = False
    to_lower: bool = False
    to_upper: bool = False
    max_digits: int | None = None
    decimal_places: int | None = None
    fields_gate: bool = True
    rest: bool = False
    parent: str | None = None


def Field(source: str | None = None, /, **options: Any) -> Any:  # noqa: N802 - as in pydantic and SQLModel
    r"""Describe a column of a record class.

    `source` is the path of the value in a record; by default it is the name of the column. Dots separate names, a
    number is a position in a list (`lines.0.sku`), and `\.` is a dot within a name.

    - `primary_key`: the column is the key, or part of it.
    - `ge`, `gt`, `le`, `lt`: bounds of a number.
    - `min_length`, `max_length`: characters of a text.
    - `pattern`: a regular expression that a text contains.
    - `strip_whitespace`, `to_lower`, `to_upper`: what is done to a text before these rules are checked. With
      `strip_whitespace`, a text of nothing but white space is null, if the column may be null.
    - `max_digits`, `decimal_places`: digits of a Decimal, in all and after the point. Both are needed.
    - `fields_gate`: False, if a day may lack the field although earlier days had it.
    - `rest`: the column, of type Json, holds the fields that no other column reads.
    - `parent`: the column of the parent that the value comes from, where a dataset asks for each row of another one.

    Raises DatasetError for an unknown argument. Their values are checked when the class is read.
    """
    known = [name for name in FieldOptions.__dataclass_fields__ if name != "source"]
    if unknown := [name for name in options if name not in known]:
        raise DatasetError(
            f"Field has no argument {unknown[0]}: remove it; the arguments are the path, and {', '.join(known)}"
        )
    return FieldOptions(source=source, **options)
