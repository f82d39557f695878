"""Test what `lenient = true` accepts: the documented table, and nothing else."""

import datetime as dt
import re
import uuid
from decimal import Decimal
from enum import Enum
from typing import Any, Literal

import pytest

from tests.support.things import make_record_class
from wholeday import Epoch, EpochMillis, Field, Json, Record
from wholeday.schema import lenient
from wholeday.schema.conversion import Conversion
from wholeday.schema.keys import make_key_readers
from wholeday.transform.rows import transform


class Number(Enum):
    ONE = 1


class Item(Record):
    count: int | None


REJECT = object()
NULLABLE = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "datetime": dt.datetime,
    "date": dt.date,
    "time": dt.time,
    "Decimal": Decimal,
    "UUID": uuid.UUID,
    "Epoch": Epoch,
    "EpochMillis": EpochMillis,
    "Json": Json,
    "Literal": Literal[12, 1],
    "Enum": Number,
    "list": list[str],
    "records": list[Item],
}
EPOCH = dt.datetime.fromisoformat("1970-01-01T00:00:00Z")
WHOLE = {b'"12"': 12, b"12.0": 12, b'"12.0"': 12, b"12.000": 12, b'"1"': 1, b"1.0": 1}
TEXTS = {
    b'"12"': 12.0,
    b'"12.0"': 12.0,
    b'"12.5"': 12.5,
    b'"1"': 1.0,
    b'"1.5"': 1.5,
    b'"1e1"': 10.0,
    b'"-3"': -3.0,
    b'"-0"': 0.0,
    b'"1764000000"': 1764000000.0,
}
ACCEPTED: dict[str, dict[bytes, Any]] = {
    "int": WHOLE | {b'"-3"': -3, b'"-0"': 0, b'"1764000000"': 1764000000, b'"1764000000000"': 1764000000000},
    "Literal": WHOLE,
    "Enum": {raw: value for raw, value in WHOLE.items() if value == 1},
    "float": TEXTS | {b'"1764000000000"': 1764000000000.0, b'"9223372036854775808"': 2.0**63},
    "bool": {b'"true"': True, b'"false"': False},
    "Epoch": {raw: EPOCH + dt.timedelta(seconds=value) for raw, value in TEXTS.items()},
    "EpochMillis": {
        raw: EPOCH + dt.timedelta(milliseconds=value)
        for raw, value in (TEXTS | {b'"1764000000000"': 1764000000000}).items()
    },
}
SENT = sorted(
    {raw for accepted in ACCEPTED.values() for raw in accepted}
    | {b'" 12 "', b'"012"', b'"1_2"', b'"+1"', b'"0x1"', b"12.5", b"1e1", b'"NaN"', b'"inf"', b'".5"', b'"1 "', b'"1."'}
    | {b"1", b"0", b"true", b'"True"', b'"yes"', b'"null"', b'"None"', b'" "', b"[]", b"{}", b'[""]', b'"2026-11-20"'}
    | {b'"\xd9\xa1"', b'"1.0.0"', b"1795168815", b'"1\\u0030"', b'["12"]', b'[{"count":true}]', b'"1764000000Z"'}
)


def read(type_: Any, raw: bytes, is_lenient: bool, path: str | None = None, **options: Any) -> Any:
    """Return the value of a column, or REJECT."""
    return read_all(type_, [raw], is_lenient, path, **options)[0]


def read_all(type_: Any, sent: list[bytes], is_lenient: bool, path: str | None = None, **options: Any) -> list[Any]:
    """Return the value of a column, or REJECT, of a record for each sent value."""
    digits = {"max_digits": 12, "decimal_places": 2} if type_ in (Decimal, Decimal | None) else {}
    columns = {"id": int, "value": type_, "updated_at": dt.datetime | None}
    fields = {"id": Field(primary_key=True), "value": Field(path, **digits, **options)}
    form = b'{"id":%d,"value":%b}' if path is None else b'{"id":%d,"lines":[{"value":%b}]}'
    records = [form % (number, raw) for number, raw in enumerate(sent)]
    rows = transform(records, Conversion(make_record_class(columns, **fields), lenient=is_lenient)).rows
    values = dict(zip(rows["id"], rows["value"].astype(object).where(rows["value"].notna(), None), strict=True))
    return [values.get(number, REJECT) for number in range(len(sent))]


@pytest.mark.parametrize("path", [None, "lines.0.value"])
@pytest.mark.parametrize("name", NULLABLE)
def test_lenient_accepts_the_table_and_nothing_else(name: str, path: str | None) -> None:
    """All other values are what they are without `lenient`."""
    accepted = ACCEPTED.get(name, {})
    both = (read_all(NULLABLE[name] | None, SENT, mode, path) for mode in (False, True))
    for raw, strict, found in zip(SENT, *both, strict=True):
        assert found == accepted.get(raw, strict), (raw, found)
        assert raw not in accepted or strict is REJECT, (raw, strict)


@pytest.mark.parametrize("path", [None, "lines.0.value"])
@pytest.mark.parametrize("name", NULLABLE)
def test_empty_text_is_null_if_the_column_may_be_null(name: str, path: str | None) -> None:
    type_ = NULLABLE[name]
    kept = {"str": "", "Json": '""'}.get(name, REJECT)
    assert read(type_ | None, b'""', True, path) == (None if kept is REJECT else kept)
    assert read(type_ | None, b'""', False, path) == kept
    assert read(type_, b'""', True, path) == kept


def test_options_hold_for_converted_values() -> None:
    assert read(int, b'"5"', True, ge=5) == 5
    assert read(int, b'"4"', True, ge=5) is REJECT


def test_items_of_lists_are_converted() -> None:
    assert read(list[Item], b'[{"count":"12"},{"count":""}]', True) == '[{"count":12},{"count":null}]'
    assert read(list[int], b'["12"]', True) is REJECT


def test_keys_are_read_as_the_transform_reads_them() -> None:
    """The gates, which count keys of raw records, must agree with the rows."""
    columns = {"id": int, "updated_at": dt.datetime | None}
    conversion = Conversion(make_record_class(columns, id=Field(primary_key=True)), lenient=True)
    (reader,) = make_key_readers(conversion.columns.key, lenient=True)
    for raw in SENT:
        line = b'{"id":%b}' % raw
        rows = transform([line], conversion).rows
        (key,) = reader.read([line])
        if len(rows):
            assert key == rows["id"].iloc[0], raw


def test_table_of_the_docstring_names_every_accepted_type() -> None:
    assert lenient.__doc__
    table = "".join(line for line in lenient.__doc__.splitlines() if line.startswith("|"))
    for name in ACCEPTED:
        assert re.search(rf"\b{name}\b", table), name
