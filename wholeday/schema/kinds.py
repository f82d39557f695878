"""Compares the columns that cleaning returns with the table: their names, and the kind of their values.

Responsibilities: which kind a column of Arrow or of pandas has, and one line for each difference.
Non-goals: converting a value. A value of another kind than its column declares is refused, never cast.
"""

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wholeday.errors import DatasetError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

NAIVE = "time without a zone"
LONGEST_VALUE = 40  # characters of a value that a message shows
FIXES = {
    ("integer", "time"): "for an epoch, convert it in clean with pd.to_datetime(…, unit='s', utc=True)",
    ("integer", "float"): "declare the field float, or the column BigInteger",
    ("float", "integer"): "declare the field int, or the column Float",
    (NAIVE, "time"): "give it a zone in clean with .dt.tz_localize('UTC')",
    (NAIVE, "date"): "make dates of it in clean with .dt.date, or declare the column DateTime(timezone=True)",
    ("time", "date"): "make dates of it in clean with .dt.date, or declare the column DateTime(timezone=True)",
}
OTHER_FIX = "declare the same type for the field and for the column, or convert the column in clean"


def list_arrow_types() -> dict[str, "pa.DataType"]:
    """List the Arrow type of each kind."""
    import pyarrow as pa

    return {
        "integer": pa.int64(),
        "float": pa.float64(),
        "boolean": pa.bool_(),
        "text": pa.string(),
        "time": pa.timestamp("us", tz="UTC"),
        "date": pa.date32(),
    }


def find_kind(type_: "pa.DataType") -> str | None:
    """The kind of values that an Arrow type holds, None for a column of nulls; a type of no kind is named itself."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(type_):
        return find_kind(type_.value_type)
    if types.is_null(type_):
        return None
    if types.is_timestamp(type_):
        return "time" if type_.tz else NAIVE
    kinds = {
        "integer": (types.is_integer,),
        "text": (types.is_string, types.is_large_string, types.is_string_view),
        "boolean": (types.is_boolean,),
        "float": (types.is_floating,),
        "date": (types.is_date,),
    }
    return next((kind for kind, tests in kinds.items() if any(test(type_) for test in tests)), str(type_))


def describe_difference(name: str, column: Any, kind: str) -> str | None:
    """What to say of a column of Arrow whose values are not of this kind: column, kinds, a value, and a fix."""
    found = find_kind(column.type)
    if found in (kind, None):
        return None
    value = next((value for value in column.to_pylist() if value is not None), None)
    shown = "" if value is None else f" ({_shorten(value)})"
    return f"column {name} holds {found}{shown}, the table declares {kind}: {FIXES.get((found, kind), OTHER_FIX)}"


def to_arrow(rows: "pd.DataFrame", kinds: Mapping[str, str], invented: bool = False) -> "pa.Table":
    """The rows that cleaning returns as Arrow, without its index.

    Raises DatasetError unless the columns are those in `kinds`, each with values of its kind. A column without a value
    gets the type of its kind. A last column `deleted` is passed on. Errors do not show values that are `invented`.
    """
    import pyarrow as pa

    names = [str(name) for name in rows if name != "deleted"]
    if missing := [name for name in kinds if name not in names]:
        raise DatasetError(f"clean: the table declares {', '.join(missing)}, which is not among {', '.join(names)}")
    if unknown := [name for name in names if name not in kinds]:
        raise DatasetError(
            f"clean: the table does not declare {', '.join(unknown)}, it has {', '.join(kinds)}: "
            "drop the column in clean, or declare it in the table"
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
        column = table.column(name)
        if difference := describe_difference(name, column.slice(0, 0) if invented else column, kind):
            if column.null_count < len(column):
                raise DatasetError(f"clean: {difference}")
            # Without a value pandas has to guess the type, as of a list that is empty.
            nulls = pa.nulls(len(column), list_arrow_types()[kind])
            table = table.set_column(table.column_names.index(name), name, nulls)
    return table


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
