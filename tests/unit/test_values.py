"""Test which values the columns of each type store: bounds, spellings, paths and lists."""

import datetime as dt
import enum
import json
import uuid
from decimal import Decimal
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.histories import EXAMPLES
from tests.support.things import make_record_class
from tests.support.values import PLACES, REJECT, TYPES, store, usual, values
from wholeday import Epoch, EpochMillis, Field, Json, Record
from wholeday.schema.conversion import Conversion
from wholeday.schema.reject import Reject
from wholeday.transform.rows import transform


class State(enum.Enum):
    OPEN = "open"


class Level(enum.IntEnum):
    LOW = 1


class Item(Record):
    sku: str


def read_record(
    types: dict[str, Any], record: str | bytes, fields: dict[str, Any] | None = None
) -> tuple[dict[str, Any] | None, Reject | None]:
    """Return the row of a record, or its reject."""
    columns = {"id": int, "updated_at": dt.datetime | None} | types
    record_class = make_record_class(columns, **{"id": Field(primary_key=True)} | (fields or {}))
    rows, rejects, _ = transform([record.encode() if isinstance(record, str) else record], Conversion(record_class))
    found = rows.astype(object).where(rows.notna(), None).to_dict("records")
    return (found[0] if found else None), (rejects[0] if rejects else None)


def read(type_: Any, text: str, **options: Any) -> Any:
    """Return the value of a column; of a reject, the reason."""
    row, reject = read_record({"value": type_}, f'{{"id":1,"value":{text}}}', {"value": Field(**options)})
    if row is None:
        assert reject
        assert reject.field == "value"
        return reject.reason
    value = row["value"]
    return value.isoformat() if isinstance(value, dt.datetime) else value


@settings(max_examples=max(60, EXAMPLES), deadline=None)
@given(st.data())
def test_any_value_is_stored_exactly_or_rejected(data: st.DataObject) -> None:
    """Any JSON value in a column of any type. The databases are compared in the integration tests."""
    name = data.draw(st.sampled_from(sorted(TYPES)))
    text = data.draw(usual[name] | values)
    digits = {"max_digits": 7, "decimal_places": PLACES} if name == "money" else {}
    row, _ = read_record({"value": TYPES[name] | None}, f'{{"id":1,"value":{text}}}', {"value": Field(**digits)})
    assert (row is None) == (store(name, text, {}) is REJECT)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("10.5", Decimal("10.50")),
        ("10.50", Decimal("10.50")),
        ('"10.5"', Decimal("10.50")),
        ("1050e-2", Decimal("10.50")),
        ("1.05E+1", Decimal("10.50")),
        ("10.500000", Decimal("10.50")),
        ("-0", Decimal("0.00")),
        ("0e99999999999999999999", Decimal("0.00")),
        ("99999.99", Decimal("99999.99")),
        ("-99999.99", Decimal("-99999.99")),
        ("100000", "has more than 5 digits before the point: 100000"),
        ("1e5", "has more than 5 digits before the point: 1e5"),
        ("99999.999", "has more than 2 digits after the point: 99999.999"),
        ("0.001", "has more than 2 digits after the point: 0.001"),
        ("1e-99", "has more than 2 digits after the point: 1e-99"),
        ("1e99999999999999999999", "has a number with an exponent beyond 308"),
        ('"NaN"', 'is not a number: "NaN"'),
        ('"Infinity"', 'is not a number: "Infinity"'),
        ('"1_000"', 'is not a number: "1_000"'),
        ('" 1 "', 'is not a number: " 1 "'),
        ('"+1"', 'is not a number: "+1"'),
        ('".5"', 'is not a number: ".5"'),
        ('"01"', 'is not a number: "01"'),
        ('""', 'is not a number: ""'),
        ('"\\u0031"', 'is not a number: "\\u0031"'),
        ("true", "is not a number: true"),
        ("[1]", "is not a number: [1]"),
        ("null", "is null"),
    ],
)
def test_decimal_is_exact_or_rejected(text: str, stored: Any) -> None:
    assert read(Decimal, text, max_digits=7, decimal_places=2) == stored


@pytest.mark.parametrize(
    ("options", "good", "bad"),
    [
        ({"ge": 1}, "1", "0.99"),
        ({"gt": 1}, "1.01", "1.00"),
        ({"le": Decimal("1.50")}, "1.5", "1.51"),
        ({"lt": 1.5}, "1.49", "1.5"),
    ],
)
def test_decimal_has_bounds(options: dict[str, Any], good: str, bad: str) -> None:
    ((name, bound),) = options.items()
    sign = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}[name]
    assert read(Decimal, good, max_digits=7, decimal_places=2, **options) == Decimal(good)
    assert read(Decimal, bad, max_digits=7, decimal_places=2, **options) == f"Expected `Decimal` {sign} {bound}"


@pytest.mark.parametrize(
    ("type_", "text", "stored"),
    [
        (Epoch, "0", "1970-01-01T00:00:00+00:00"),
        (Epoch, "1764000000", "2025-11-24T16:00:00+00:00"),
        (Epoch, "1.764e9", "2025-11-24T16:00:00+00:00"),
        (Epoch, "86399.9999999", "1970-01-01T23:59:59.999999+00:00"),
        (Epoch, "1763632800.9999999999999999999999999999", "2025-11-20T10:00:00.999999+00:00"),
        (Epoch, "-1", "1969-12-31T23:59:59+00:00"),
        (Epoch, "-0.0000001", "1969-12-31T23:59:59.999999+00:00"),
        (Epoch, "99999999999", "5138-11-16T09:46:39+00:00"),
        (Epoch, "100000000000", "is 100000000000 or more: declare the column EpochMillis"),
        (Epoch, "1764000000000", "is 100000000000 or more: declare the column EpochMillis"),
        (Epoch, "-99999999999", "is a time outside the years 1 to 9999"),
        (Epoch, "-1e300", "is a time outside the years 1 to 9999"),
        (Epoch, "1e99999999999", "has a number with an exponent beyond 308"),
        (Epoch, '"1764000000"', 'is not a number: "1764000000"'),
        (Epoch, '"2025-11-24T16:00:00Z"', 'is not a number: "2025-11-24T16:00:00Z"'),
        (Epoch, "true", "is not a number: true"),
        (Epoch, "null", "is null"),
        (EpochMillis, "1764000000123", "2025-11-24T16:00:00.123000+00:00"),
        (EpochMillis, "1764000000123.4569", "2025-11-24T16:00:00.123456+00:00"),
        (EpochMillis, "-1", "1969-12-31T23:59:59.999000+00:00"),
        (EpochMillis, "253402300799999.9999", "9999-12-31T23:59:59.999999+00:00"),
        (EpochMillis, "253402300800000", "is a time outside the years 1 to 9999"),
    ],
)
def test_epoch_is_exact_or_rejected(type_: Any, text: str, stored: str) -> None:
    """Digits beyond microseconds are cut, so that no moment moves to the next day."""
    assert read(type_, text) == stored


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ('"09:30:00"', dt.time(9, 30)),
        ('"23:59:59.9999999"', dt.time(23, 59, 59, 999999)),
        ('"00:00:00.5"', dt.time(0, 0, 0, 500000)),
        *(
            (f'"{text}"', f'is not a time of day such as 09:30:00: "{text}"')
            for text in ("24:00:00", "23:59:60", "9:30:00", "09:30", "09:30:00Z", "09:30:00+01:00", "09:30:00.", "")
        ),
        ("34200", "is not a time of day such as 09:30:00: 34200"),
        ("null", "is null"),
    ],
)
def test_time_of_day_is_exact_or_rejected(text: str, stored: Any) -> None:
    assert read(dt.time, text) == stored


def test_uuid_has_one_spelling() -> None:
    for text in ("6F9619FF-8B86-D011-B42D-00CF4FC964FF", "6f9619ff8b86d011b42d00cf4fc964ff"):
        assert read(uuid.UUID, json.dumps(text)) == "6f9619ff-8b86-d011-b42d-00cf4fc964ff"
    for text in ("{6f9619ff-8b86-d011-b42d-00cf4fc964ff}", "6f9619ff", ""):
        assert read(uuid.UUID, json.dumps(text)) == "Invalid UUID"
    assert read(uuid.UUID, "5") == "Expected `uuid`, got `int`"


@pytest.mark.parametrize(
    ("type_", "text", "stored"),
    [
        (State, '"open"', "open"),
        (State, '"OPEN"', "Invalid enum value 'OPEN'"),
        (State, "1", "Expected `str`, got `int`"),
        (Level, "1", 1),
        (Level, "2", "Invalid enum value 2"),
        (Level, "1.0", "Expected `int`, got `float`"),
        (Level, "true", "Expected `int`, got `bool`"),
        (Literal["a", "b"], '"b"', "b"),
        (Literal["a", "b"], '"c"', "Invalid enum value 'c'"),
        (Literal["a", None], "null", None),
        (Literal[1, 2], '"1"', "Expected `int`, got `str`"),
    ],
)
def test_enumerated_value_is_one_of_the_declared(type_: Any, text: str, stored: Any) -> None:
    assert read(type_, text) == stored


@pytest.mark.parametrize(
    ("type_", "text", "stored"),
    [
        (list[str], '["b", "a"]', '["b","a"]'),
        (list[str], "[]", "[]"),
        (list[str], "null", "is null"),
        (list[str], '["a", 1]', "Expected `str`, got `int` at [1]"),
        (list[str], '["\\u0000"]', "has a NUL character"),
        (list[str | None], '["a", null]', '["a",null]'),
        (list[Json], '[{"b":1,"a":2.0}, null]', '[{"a":2,"b":1},null]'),
        (list[Decimal], '[1.50, "2"]', '[1.5,"2"]'),
        (list[Decimal], '["NaN"]', 'is not a number: "NaN" at [0]'),
        (list[Epoch], "[1, 1764000000000]", "is 100000000000 or more: declare the column EpochMillis at [1]"),
        (list[EpochMillis], "[1764000000000]", "[1764000000000]"),
        (list[dt.time], '["25:00:00"]', 'is not a time of day such as 09:30:00: "25:00:00" at [0]'),
        (list[int], "5", "Expected `array`, got `int`"),
    ],
)
def test_list_of_scalars_is_json(type_: Any, text: str, stored: str) -> None:
    assert read(type_, text) == stored


@pytest.mark.parametrize(
    ("path", "record", "stored"),
    [
        (r"a\.b", '{"id":1,"a.b":5,"a":{"b":6}}', 5),
        ("a.b", '{"id":1,"a.b":5,"a":{"b":6}}', 6),
        (r"x.a\.b", '{"id":1,"x":{"a.b":5}}', 5),
        ("lines.0.n", '{"id":1,"lines":[{"n":5},{"n":6}]}', 5),
        ("lines.1.n", '{"id":1,"lines":[{"n":5},{"n":6}]}', 6),
        ("lines.2.n", '{"id":1,"lines":[{"n":5},{"n":6}]}', None),
        ("lines.0.n", '{"id":1,"lines":[]}', None),
        ("lines.0.n", '{"id":1,"lines":null}', None),
        ("lines.0.n", '{"id":1,"lines":[null]}', None),
        ("lines.0.n", '{"id":1}', None),
        ("lines.0.1", '{"id":1,"lines":[[5,6]]}', 6),
        ("x.y.0", '{"id":1,"x":{"y":[7]}}', 7),
        ("lines.0.n", '{"id":1,"lines":[{"n":"x"}]}', "Expected `int | null`, got `str`"),
        ("lines.0.n", '{"id":1,"lines":{"n":5}}', "Expected `array | null`, got `object`"),
        ("lines.0.n", '{"id":1,"lines":[5]}', "Expected `object | null`, got `int`"),
        ("a.b", '{"id":1,"a":[5]}', "Expected `object | null`, got `array`"),
    ],
)
def test_path_leads_to_one_value(path: str, record: str, stored: Any) -> None:
    row, reject = read_record({"value": int | None}, record, {"value": Field(path)})
    if reject:
        assert reject.reason == stored
        assert reject.field in (path, path.partition(".")[0])
    else:
        assert row
        assert row["value"] == stored


@pytest.mark.parametrize("record", ['{"id":1}', '{"id":1,"lines":[]}', '{"id":1,"lines":[{"n":null}]}'])
def test_missing_value_below_a_list_is_a_reject_if_it_is_needed(record: str) -> None:
    _, reject = read_record({"value": int}, record, {"value": Field("lines.0.n")})
    assert reject
    assert (reject.reason, reject.field) == ("is null or missing", "lines.0.n")


def test_time_below_a_list_is_cut() -> None:
    record = '{"id":1,"lines":[{"at":"2026-11-20T23:59:59.9999999Z"}]}'
    row, _ = read_record({"value": dt.datetime}, record, {"value": Field("lines.0.at")})
    assert row
    assert row["value"].isoformat() == "2026-11-20T23:59:59.999999+00:00"


def test_rest_holds_the_fields_that_no_column_reads() -> None:
    types = {"city": str | None, "whole": Json | None, "part": int | None, "others": Json | None}
    fields = {"city": Field("address.city"), "part": Field("whole.n"), "others": Field(rest=True)}
    record = '{"z":1.0,"id":1,"address":{"zip":"1","city":"x"},"whole":{"n":1,"m":2},"updated_at":null,"a":[]}'
    row, _ = read_record(types, record, fields)
    assert row
    assert row["others"] == '{"a":[],"address":{"zip":"1"},"z":1}'
    row, _ = read_record(types, '{"id":1,"address":null}', fields)
    assert row
    assert row["others"] == "{}"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b'{"id":1,"x":1,"x":2}', "has the name 'x' twice"),
        (b'{"id":1,"x\\u0022:":1,"b":1,"b":2}', "has the name 'b' twice"),
        (b'{"id":1,"x":{"y":1,"y":2}}', "has the name 'y' twice"),
        (b'{"id":1,"x":"\\u0000"}', "has a NUL character"),
        (b'{"id":1,"x":"\xff"}', "has bytes that are not UTF-8"),
        (b'{"id":1,"x":1e999}', "has a number with an exponent beyond 308"),
    ],
)
def test_rest_without_canonical_form_is_a_reject(record: bytes, reason: str) -> None:
    _, reject = read_record({"others": Json | None}, record, {"others": Field(rest=True)})
    assert reject
    assert (reject.reason, reject.field) == (reason, "others")


CUT = [
    ('"has_more":true', "has_more"),
    ('"hasMore":true', "hasMore"),
    ('"hasNextPage":true', "hasNextPage"),
    ('"pageInfo":{"hasNextPage":true}', "pageInfo"),
    ('"next":"https://example.com/2"', "next"),
    ('"next":5', "next"),
    ('"total":2', "total"),
    ('"total_count":2', "total_count"),
    ('"totalCount":2', "totalCount"),
]
WHOLE = [
    '"has_more":false',
    '"has_more":null',
    '"pageInfo":{"hasNextPage":false}',
    '"next":null',
    '"next":""',
    '"total":1',
]
DECLARED: list[dict[str, Any]] = [{}, {"total": int | None}, {"more": bool | None}]


@pytest.mark.parametrize("declared", DECLARED, ids=str)
@pytest.mark.parametrize(("mark", "name"), CUT)
def test_list_that_is_cut_is_a_reject(mark: str, name: str, declared: dict[str, Any]) -> None:
    """Also where a column reads the field that says so."""
    fields = {"items": Field("box.data"), "total": Field("box.total"), "more": Field("box.pageInfo.hasNextPage")}
    types = {"items": list[Item] | None} | declared
    given = {column: fields[column] for column in types}
    _, reject = read_record(types, f'{{"id":1,"box":{{"data":[{{"sku":"a"}}],{mark}}}}}', given)
    assert reject
    assert (reject.reason, reject.field) == (f"is not complete, by the field {name} beside it", "box.data")


@pytest.mark.parametrize("mark", WHOLE)
def test_list_that_is_whole_is_stored(mark: str) -> None:
    record = f'{{"id":1,"box":{{"data":[{{"sku":"a"}}],{mark}}}}}'
    row, _ = read_record({"items": list[Item] | None}, record, {"items": Field("box.data")})
    assert row
    assert row["items"] == '[{"sku":"a"}]'
    row, _ = read_record(
        {"items": list[Item] | None}, f'{{"id":1,"box":{{"data":null,{mark}}}}}', {"items": Field("box.data")}
    )
    assert row
    assert row["items"] is None


def test_fields_of_the_record_do_not_say_that_a_list_is_cut() -> None:
    """A record may have a total or a next of its own."""
    row, _ = read_record({"items": list[Item]}, '{"id":1,"items":[{"sku":"a"}],"total":99,"next":"b","has_more":true}')
    assert row
    assert row["items"] == '[{"sku":"a"}]'
