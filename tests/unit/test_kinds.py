"""Test the columns that `clean` returns against the table."""

import datetime as dt
import decimal
import uuid
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from wholeday.errors import DatasetError
from wholeday.schema.kinds import to_arrow

NOON = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
VALUES: dict[str, Any] = {
    "integer": pd.Series([1, None], dtype="Int64"),
    "float": pd.Series([0.5, None]),
    "boolean": pd.Series([True, None], dtype="boolean"),
    "text": pd.Series(["a", None], dtype="str"),
    "date": pd.Series([NOON.date(), None], dtype=pd.ArrowDtype(pa.date32())),
    "timestamp": pd.Series([NOON, None], dtype="datetime64[us, UTC]"),
    "time": pd.Series([dt.time(9, 30), None], dtype=pd.ArrowDtype(pa.time64("us"))),
    "decimal(4,2)": pd.Series([decimal.Decimal("10.50"), None], dtype=pd.ArrowDtype(pa.decimal128(4, 2))),
}


def refuse(column: Any, kind: str) -> str:
    """Return the one-line error for a column `value` of this kind."""
    with pytest.raises(DatasetError) as raised:
        to_arrow(pd.DataFrame({"value": column}), {"value": kind})
    message = str(raised.value)
    assert message.count("\n") == 0
    assert "value" in message
    return message


@pytest.mark.parametrize("declared", VALUES)
@pytest.mark.parametrize("kind", VALUES)
def test_column_must_have_the_declared_kind(kind: str, declared: str) -> None:
    column = VALUES[kind]
    if kind == declared:
        assert to_arrow(pd.DataFrame({"value": column}), {"value": declared}).column("value").null_count == 1
    else:
        shown = to_arrow(pd.DataFrame({"value": column}), {"value": kind}).column("value")[0]
        value = repr(shown.as_py()) if kind == "text" else str(shown.as_py())
        assert f"column value holds {kind} ({value}), it is declared {declared}: " in refuse(column, declared)


@pytest.mark.parametrize("declared", VALUES)
def test_column_of_nulls_fits_every_kind(declared: str) -> None:
    """A column of Python objects without a value has no type."""
    assert to_arrow(pd.DataFrame({"value": pd.Series([None], dtype=object)}), {"value": declared}).num_rows == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([5, "n/a", True], "values of several types: int (5), str ('n/a'), bool (True)"),
        ([True, 1], "values of several types: bool (True), int (1)"),
        ([1, 2.5], "values of several types: int (1), float (2.5)"),
        ([NOON, NOON.date()], "values of several types: datetime (2026-11-20 12:00:00+00:00), date (2026-11-20)"),
        ([NOON, NOON.replace(tzinfo=None)], "values of several types: datetime (2026-11-20 12:00:00+00:00), time with"),
        ([NOON.replace(tzinfo=None)], "holds time without a zone"),
        ([decimal.Decimal("10.5")], "holds decimal(3,1) (10.5), it is declared text"),
        ([decimal.Decimal("1E+400")], "a value cannot be stored: Decimal precision out of range"),
        ([2**70], "a value cannot be stored: Python int too large"),
        ([{"plan": "pro"}], "holds struct<plan: string> ({'plan': 'pro'}), it is declared text"),
        ([["a"]], "holds list<item: string>"),
        ([b"hello"], "holds binary"),
        ([dt.time(9, 30)], "holds time (09:30:00)"),
        ([dt.timedelta(hours=1)], "holds duration[us]"),
        ([uuid.UUID(int=1)], "value"),
        ([object], "a value cannot be stored: "),
        (["x" * 100 + "tail", 1], "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_unstorable_python_objects_are_refused(values: list[Any], message: str) -> None:
    found = refuse(pd.Series(values, dtype=object), "text")
    assert message in found
    assert "tail" not in found


def test_columns_must_match_the_table() -> None:
    frame = pd.DataFrame({"id": [1], "nmae": ["a"], "deleted": [False]})
    with pytest.raises(DatasetError, match="the column name is missing among id, nmae: keep it"):
        to_arrow(frame, {"id": "integer", "name": "text"})
    with pytest.raises(DatasetError, match="the column nmae is not declared; the record class has id: drop the column"):
        to_arrow(frame, {"id": "integer"})
    assert to_arrow(frame, {"id": "integer", "nmae": "text"}).schema.names == ["id", "nmae", "deleted"]
