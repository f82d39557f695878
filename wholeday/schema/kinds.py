"""The kinds of values that a column can hold, and the check that the columns of `clean` have their kinds.

Responsibilities: the names of the kinds, the type of each in Arrow, and one line for each difference.
Non-goals: converting a value. A value of another kind than its column declares is refused, never cast.
"""

import datetime as dt
import decimal
import functools
import re
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wholeday.errors import DatasetError
from wholeday.schema.record import Epoch, EpochMillis, Json

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TEXT, INTEGER, FLOAT, BOOLEAN = "text", "integer", "float", "boolean"
TIMESTAMP, DATE, TIME = "timestamp", "date", "time"  # time: of a day
DECIMAL, UUID, JSON = "decimal", "uuid", "json"  # a decimal names its digits: decimal(12,2)
TYPES: dict[type, str] = {
    int: INTEGER,
    float: FLOAT,
    bool: BOOLEAN,
    str: TEXT,
    dt.datetime: TIMESTAMP,
    dt.date: DATE,
    dt.time: TIME,
    decimal.Decimal: DECIMAL,
    uuid.UUID: UUID,
    Epoch: TIMESTAMP,
    EpochMillis: TIMESTAMP,
    Json: JSON,
}
NAIVE = "time without a zone"
LONGEST_VALUE = 40  # characters of a value that a message shows
FIXES = {
    (NAIVE, TIMESTAMP): "give it a zone in clean with .dt.tz_localize('UTC')",
    (NAIVE, DATE): "make dates of it in clean with .dt.date, or declare the column datetime",
    (TIMESTAMP, DATE): "make dates of it in clean with .dt.date, or declare the column datetime",
}
OTHER_FIX = "declare the column with the type of these values, or convert them in clean"


def make_decimal(digits: int, places: int) -> str:
    """Return the kind of decimals with so many digits, and so many of them after the point."""
    return f"{DECIMAL}({digits},{places})"


@functools.cache
def parse_decimal(kind: str) -> tuple[int, int] | None:
    """Return the digits of a kind of decimals, in all and after the point; None for any other kind."""
    match = re.fullmatch(rf"{DECIMAL}\((\d+),(\d+)\)", kind)
    return (int(match[1]), int(match[2])) if match else None


def to_arrow_type(kind: str) -> "pa.DataType":
    """Return the Arrow type of a kind. JSON and UUIDs are text there."""
    import pyarrow as pa

    if digits := parse_decimal(kind):
        return pa.decimal128(*digits)
    return {
        INTEGER: pa.int64(),
        FLOAT: pa.float64(),
        BOOLEAN: pa.bool_(),
        TEXT: pa.string(),
        JSON: pa.string(),
        UUID: pa.string(),
        TIMESTAMP: pa.timestamp("us", tz="UTC"),
        DATE: pa.date32(),
        TIME: pa.time64("us"),
    }[kind]


def find_kind(type_: "pa.DataType") -> str | None:
    """Return the kind of values that an Arrow type holds, None for nulls. A type of no kind is named itself."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(type_):
        return find_kind(type_.value_type)
    if types.is_null(type_):
        return None
    if types.is_timestamp(type_):
        return TIMESTAMP if type_.tz else NAIVE
    if types.is_decimal(type_):
        return make_decimal(type_.precision, type_.scale)
    kinds = {
        INTEGER: (types.is_integer,),
        TEXT: (types.is_string, types.is_large_string, types.is_string_view),
        BOOLEAN: (types.is_boolean,),
        FLOAT: (types.is_floating,),
        DATE: (types.is_date,),
        TIME: (types.is_time,),
    }
    return next((kind for kind, tests in kinds.items() if any(test(type_) for test in tests)), str(type_))


def describe_difference(name: str, column: Any, kind: str) -> str | None:
    """Describe a column of Arrow whose values are not of this kind: column, kinds, a value, and a fix."""
    found = find_kind(column.type)
    if found in (kind, None) or (found == TEXT and kind in (JSON, UUID)):
        return None
    if parse_decimal(kind) and found and parse_decimal(found) and column.type.scale <= to_arrow_type(kind).scale:
        return None  # pandas has the digits of the values, not those of the column
    value = next((value for value in column.to_pylist() if value is not None), None)
    shown = "" if value is None else f" ({_shorten(value)})"
    return f"column {name} holds {found}{shown}, it is declared {kind}: {FIXES.get((found, kind), OTHER_FIX)}"


def to_arrow(rows: "pd.DataFrame", kinds: Mapping[str, str], invented: bool = False) -> "pa.Table":
    """Convert the rows that `clean` returns to Arrow, without their index.

    Raises DatasetError unless the columns are those in `kinds`, each with values of its kind. A column without a value
    gets the type of its kind. A last column `deleted` is passed on. Errors do not show values that are `invented`.
    """
    import pyarrow as pa

    names = [str(name) for name in rows if name != "deleted"]
    if missing := [name for name in kinds if name not in names]:
        raise DatasetError(f"clean: the column {', '.join(missing)} is missing among {', '.join(names)}: keep it")
    if unknown := [name for name in names if name not in kinds]:
        raise DatasetError(
            f"clean: the column {', '.join(unknown)} is not declared; the record class has {', '.join(kinds)}: "
            "drop the column in clean, or declare it"
        )
    for name in names:
        _check_objects(name, rows[name])
    try:
        table = pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata(None)
    except (pa.ArrowException, OverflowError) as error:
        raise DatasetError(
            f"clean: a value cannot be stored: {'; '.join(map(str, error.args))}: {OTHER_FIX}"
        ) from error
    for name, kind in kinds.items():
        table = table.set_column(
            table.column_names.index(name), name, _to_kind(name, table.column(name), kind, invented)
        )
    return table


def _to_kind(name: str, column: "pa.ChunkedArray[Any]", kind: str, invented: bool) -> "pa.ChunkedArray[Any]":
    import pyarrow as pa

    type_ = to_arrow_type(kind)
    if column.null_count == len(column):
        # Without a value pandas has to guess the type, as of a list that is empty.
        return pa.chunked_array([pa.nulls(len(column), type_)])
    if difference := describe_difference(name, column.slice(0, 0) if invented else column, kind):
        raise DatasetError(f"clean: {difference}")
    try:
        return column.cast(type_) if parse_decimal(kind) else column
    except pa.ArrowInvalid as error:
        raise DatasetError(f"clean: column {name} holds a value that {kind} does not: {error}: {OTHER_FIX}") from error


def _check_objects(name: str, column: "pd.Series[Any]") -> None:
    """Raise DatasetError where a column holds Python objects of several types, or of one that no column has."""
    if column.dtype != object:
        return
    examples = {_name_type(value): value for value in column.dropna()}
    if len(examples) > 1:
        shown = ", ".join(f"{type_} ({_shorten(value)})" for type_, value in examples.items())
        raise DatasetError(f"clean: column {name} holds values of several types: {shown}: make them one type in clean")


def _name_type(value: object) -> str:
    name = type(value).__name__
    return NAIVE if isinstance(value, dt.datetime) and value.tzinfo is None else name


def _shorten(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
