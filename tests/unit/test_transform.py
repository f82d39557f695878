"""Test the transform of raw lines to rows and rejects."""

import datetime as dt
import json
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.users import User
from tests.support import ROOT
from wholeday.errors import DatasetError
from wholeday.schema.conversion import Conversion
from wholeday.schema.record import Field, Record
from wholeday.schema.reject import Reject
from wholeday.transform.decode import BLOCK
from wholeday.transform.rows import transform

GOLDEN = ROOT / "tests" / "golden"
GOOD = {
    "id": 1,
    "name": " Ada ",
    "email": " Ada@Example.COM",
    "address": {"city": "Zürich"},
    "updated_at": "2026-11-21T10:00:00Z",
}


def convert(
    lines: Sequence[bytes], record_class: Any = User, clean: Callable[..., Any] | None = None, deleted_when: str = ""
) -> tuple[pd.DataFrame, list[Reject]]:
    """Transform lines; return the frame of rows and the rejects."""
    return transform(lines, Conversion(record_class, clean, deleted_when))[:2]


def rows_of(*records: Any) -> tuple[list[dict[str, Any]], list[Reject]]:
    """Transform users from objects or raw bytes."""
    lines = [r if isinstance(r, bytes) else json.dumps(r, ensure_ascii=False).encode() for r in records]
    frame, rejects = convert(lines)
    return frame.astype(object).where(frame.notna(), None).to_dict("records"), rejects


@pytest.mark.parametrize("scenario", sorted(path.stem for path in GOLDEN.glob("*ed.jsonl")))
def test_golden_records_give_golden_rows_and_rejects(scenario):
    """The golden files are the only test data that a new column in users.py changes."""
    records = (GOLDEN / f"{scenario}.jsonl").read_bytes().splitlines()
    rows, rejects = rows_of(*records)
    for row in rows:
        row["updated_at"] = row["updated_at"] and row["updated_at"].isoformat()
    assert [reject.record.encode() for reject in rejects] == [records[reject.line - 1] for reject in rejects]
    kept = ("line", "reason", "field", "key")
    found = {"rows": rows, "rejects": [{name: getattr(reject, name) for name in kept} for reject in rejects]}
    assert found == json.loads((GOLDEN / f"{scenario}.json").read_text())


@pytest.mark.parametrize(
    "change",
    [
        {"name": None},
        {"name": "  "},
        {"email": None},
        {"email": ""},
        {"address": None},
        {"address": {}},
        {"updated_at": None},
    ],
    ids=str,
)
def test_missing_optional_field_is_null_in_row(change):
    """A null, blank or absent field never rejects the record."""
    rows, rejects = rows_of(GOOD | change, {"id": 2})
    assert [row["user_id"] for row in rows] == [1, 2]
    column = {"address": "city"}.get(*change, next(iter(change)))
    assert rows[0][column] is None
    assert rejects == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("record", "reason", "field", "key"),
    [
        (GOOD | {"id": "1"}, "Expected `int`, got `str`", "id", None),
        (GOOD | {"id": 0}, "Expected `int` >= 1", "id", None),
        (GOOD | {"id": 2**70}, "is an integer of more than 64 bits", "id", None),
        ({"name": "x"}, "Object missing required field `id`", "id", None),
        (GOOD | {"address": {"city": 3}}, "Expected `str | null`, got `int`", "address.city", "[1]"),
        (GOOD | {"address": []}, "Expected `object | null`, got `array`", "address", "[1]"),
        (GOOD | {"updated_at": "soon"}, "Invalid RFC3339 encoded datetime", "updated_at", "[1]"),
        (GOOD | {"email": "nobody"}, "does not match the pattern @", "email", "[1]"),
        ([1], "Expected `object`, got `array`", None, None),
        (b"7", "Expected `object`, got `int`", None, None),
        (b"", "JSON that cannot be kept exactly", None, None),
        (b'{"id":1,"name":NaN}', "JSON that cannot be kept exactly", None, "[1]"),
        (b'{"id":1,"name":"\\ud800"}', "JSON that cannot be kept exactly", None, "[1]"),
        (b'{"id":1,"name":"\xff"}', "JSON that cannot be kept exactly", None, None),
        (b'{"id":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "is nested more than 200 levels deep", None, "[1]"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_invalid_record_is_rejected_alone_with_its_reason(record, reason, field, key):
    """The other records become rows. The reject has the line, reason, field, record, and the key if readable."""
    rows, rejects = rows_of({"id": 10}, record, {"id": 11})
    assert [row["user_id"] for row in rows] == [10, 11]
    (reject,) = rejects
    assert (reject.line, reject.field, reject.key) == (2, field, key)
    assert reject.reason.startswith(reason)
    raw = record if isinstance(record, bytes) else json.dumps(record, ensure_ascii=False).encode()
    assert reject.record == raw.decode(errors="replace")


def test_field_of_ten_megabytes_is_kept():
    rows, rejects = rows_of(GOOD | {"name": "x" * 10_000_000})
    assert len(rows[0]["name"]) == 10_000_000
    assert rejects == []


def test_times_in_any_form_are_stored_in_utc():
    """The forms differ in precision and offset. A time without an offset is UTC."""
    texts = [
        "2026-11-21T10:00:00Z",
        "2026-11-21T10:00:00.000+00:00",
        "2026-11-21T12:00:00+02:00",
        "2026-11-21 10:00:00",
    ]
    rows, _ = rows_of(*({"id": n, "updated_at": text} for n, text in enumerate(texts, 1)))
    assert {row["updated_at"] for row in rows} == {pd.Timestamp("2026-11-21T10:00:00", tz="UTC")}


bad = st.sampled_from([b'{"id":"x"}', b'{"id":5,"email":"zz"}', b"[]", b'{"id":NaN}'])
good = st.integers(1, 10**9).map(lambda n: b'{"id":%d}' % n)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(good | bad, max_size=3 * BLOCK))
def test_every_line_is_a_row_or_a_reject(lines):
    """No line is lost or repeated, and rows keep the order of the lines."""
    frame, rejects = convert(lines)
    assert sorted([*frame.index, *(reject.line for reject in rejects)]) == list(range(1, len(lines) + 1))
    assert list(frame["user_id"]) == [json.loads(lines[n - 1])["id"] for n in frame.index]
    assert list(frame.index) == sorted(frame.index)


def test_empty_part_has_the_usual_columns_and_types():
    """Types come from the record class, not from the values of a part."""
    empty, _ = convert([])
    full, _ = convert([json.dumps(GOOD).encode()])
    assert dict(empty.dtypes) == dict(full.dtypes)


class Tall(Record):
    id: str = Field(primary_key=True, min_length=1)
    size: int | None
    ratio: float | None
    ok: bool | None
    day: dt.date | None
    updated_at: dt.datetime | None


def test_integers_stay_exact_next_to_nulls():
    """A null in a column of integers does not turn the others into floats."""

    class Numbers(Record):
        id: int = Field(primary_key=True)
        big: int | None
        updated_at: dt.datetime | None

    lines = [b'{"id":1,"big":9007199254740993}', b'{"id":2}']
    frame, _ = convert(lines, Numbers)
    assert frame["big"].iloc[0] == 9007199254740993
    assert frame["big"].isna().tolist() == [False, True]


def test_each_type_of_record_class_keeps_its_type():
    line = b'{"id":"a","size":3,"ratio":0.5,"ok":true,"day":"2026-11-21"}'
    frame, _ = convert([line, b'{"id":"b"}'], Tall)
    assert frame.iloc[0].tolist()[:5] == ["a", 3, 0.5, True, dt.date(2026, 11, 21)]
    assert frame.iloc[1].isna().tolist() == [False, True, True, True, True, True]


def test_integer_above_64_bits_is_rejected():
    """This holds without bounds in the record class too. In a deletion the value becomes null."""
    lines = [b'{"id":"a","size":%d%s}' % (2**63, gone) for gone in (b"", b',"gone":true')]
    frame, rejects = convert([*lines, b'{"id":"b","size":-9223372036854775808}'], Tall, deleted_when="gone")
    assert frame["size"].isna().tolist() == [True, False]
    assert frame["size"].iloc[1] == -(2**63)
    assert [(reject.line, reject.field, reject.reason, reject.key) for reject in rejects] == [
        (1, "size", "is an integer of more than 64 bits", '["a"]')
    ]


def test_clean_that_drops_rows_is_an_error():
    """Only a named rule may reject rows."""
    with pytest.raises(DatasetError, match="took 2 records and returned 1 row, or"):
        convert([b'{"id":"a"}', b'{"id":"b"}'], Tall, lambda frame: (frame.iloc[1:], {}))


def test_clean_that_changes_the_index_is_an_error():
    """`clean` may modify its frame in place, but a row must not take the place of another line."""

    def number_anew(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[tuple[str, str], Any]]:
        frame.index -= 1
        return frame, {}

    with pytest.raises(
        DatasetError, match="took 2 records and returned 2 rows, or changed their order or index: keep the index"
    ):
        convert([b'{"id":"a"}'] * 2, Tall, number_anew)


@pytest.mark.parametrize("dtype", ["boolean", "bool[pyarrow]", object])
def test_null_result_of_rule_does_not_reject(dtype):
    """A comparison with null gives null. Other rules may still reject the record."""

    class Person(Record):
        id: str = Field(primary_key=True)
        age: int | None
        updated_at: dt.datetime | None

    def judge(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[tuple[str, str], Any]]:
        return frame, {("age", "is above 150"): (frame["age"] > 150).astype(dtype), ("id", "is d"): frame["id"] == "d"}

    lines = [b'{"id":"a","age":200}', b'{"id":"b","age":20}', b'{"id":"c"}', b'{"id":"d"}']
    frame, rejects = convert(lines, Person, judge)
    assert list(frame["id"]) == ["b", "c"]
    assert [(reject.line, reject.describe()) for reject in rejects] == [(1, "age: is above 150"), (4, "id: is d")]


def drop_key(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns="id")


def change_key(frame: pd.DataFrame) -> pd.DataFrame:
    frame["id"] = frame["id"].str.upper()
    return frame


@pytest.mark.parametrize("clean", [drop_key, change_key])
def test_clean_that_changes_the_key_is_an_error(clean):
    """The gates and `forget` read the key from raw records."""
    with pytest.raises(DatasetError, match="changed the column id: keep it"):
        convert([b'{"id":"a"}'], Tall, clean)


def delete_rows(*records: Any) -> tuple[pd.DataFrame, list[Reject]]:
    """Transform users with `deleted` as the rule for deletions."""
    lines = [json.dumps(record).encode() for record in records]
    return convert(lines, deleted_when="deleted")


def test_deletion_is_a_row_with_a_flag():
    """The last column marks deletions; the other columns do not change."""
    rows, rejects = delete_rows(GOOD, GOOD | {"id": 2, "deleted": True}, GOOD | {"id": 3, "deleted": False})
    assert list(rows.columns)[-1] == "deleted"
    assert rows["deleted"].dtype == bool
    assert list(zip(rows["user_id"], rows["deleted"], strict=True)) == [(1, False), (2, True), (3, False)]
    plain, _ = convert([json.dumps(GOOD).encode()])
    pd.testing.assert_frame_equal(rows.drop(columns="deleted").iloc[:1], plain)
    assert rejects == []


def test_column_deleted_needs_a_rule_for_deletions():
    """An empty part has the column exactly if a full part has it."""
    assert "deleted" not in convert([b'{"id":1,"deleted":true}'])[0].columns
    empty, full = (delete_rows(*records)[0] for records in ([], [GOOD]))
    assert dict(empty.dtypes) == dict(full.dtypes)


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ({"email": "anonymised"}, None),  # a rule of `clean`
        ({"address": "gone"}, "city"),  # the record class
        ({"updated_at": "never"}, "updated_at"),
        ({"name": float("nan")}, "name"),
        ({"name": "\ud800"}, "name"),
    ],
    ids=str,
)
def test_deletion_needs_only_its_key(change, lost):
    """Invalid fields become null, and a readable time is kept. Without the deletion the record would be a reject."""
    dead = GOOD | {"id": 2} | change
    rows, rejects = delete_rows(GOOD, dead | {"deleted": {}}, GOOD | {"id": 3})
    assert rejects == []
    assert list(rows["user_id"]) == [1, 2, 3]
    assert list(rows["deleted"]) == [False, True, False]
    assert rows["updated_at"].notna().tolist() == [True, lost != "updated_at", True]
    assert lost is None or rows[lost].isna().tolist() == [False, True, False]
    assert [reject.line for reject in delete_rows(GOOD, dead)[1]] == [2]


def test_deletion_without_required_fields_is_a_row():
    """Microsoft Graph sends only the id and `@removed` of a deleted user."""

    class Strict(Record):
        id: str = Field(primary_key=True)
        size: int
        name: str
        updated_at: dt.datetime | None

    lines = [b'{"id":"a","size":1,"name":"x"}', b'{"id":"b","@removed":{"reason":"deleted"}}', b'{"id":"c"}']
    rows, rejects = convert(lines, Strict, deleted_when="@removed")
    assert list(rows["id"]) == ["a", "b"]
    assert rows.iloc[1].isna().tolist() == [False, True, True, True, False]
    assert [(reject.line, reject.field) for reject in rejects] == [(3, "size")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"id": "7", "deleted": True}, "Expected `int`, got `str`"),
        ({"deleted": True}, "Object missing required field `id`"),
    ],
)
def test_deletion_without_valid_key_is_rejected(record, reason):
    """The record class gives the reason."""
    rows, (reject,) = delete_rows(GOOD, record)
    assert list(rows["user_id"]) == [1]
    assert (reject.line, reject.reason, reject.field, reject.key) == (2, reason, "id", None)


deletions = st.tuples(st.integers(1, 99), st.sampled_from(['"email":"zz"', '"name":3', '"name":"x"'])).map(
    lambda parts: f'{{"id":{parts[0]},{parts[1]},"deleted":true}}'.encode()
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(good | bad | deletions, max_size=2 * BLOCK))
def test_deletions_keep_the_order_of_lines(lines):
    """No line is lost or repeated, and each deletion with a key is a row."""
    frame, rejects = convert(lines, deleted_when="deleted")
    assert sorted([*frame.index, *(reject.line for reject in rejects)]) == list(range(1, len(lines) + 1))
    assert list(frame.index) == sorted(frame.index)
    assert list(frame["user_id"]) == [json.loads(lines[n - 1])["id"] for n in frame.index]
    assert list(frame.index[frame["deleted"]]) == [n for n, line in enumerate(lines, 1) if b"deleted" in line]


def test_nul_character_rejects_a_record():
    """Some databases cannot store NUL, and results must not depend on the database. The reject keeps the record."""
    rows, rejects = rows_of(GOOD, GOOD | {"name": "A\0da"}, GOOD | {"address": {"city": "\0"}}, GOOD)
    assert len(rows) == 2
    assert [(reject.line, reject.field, reject.reason, reject.key) for reject in rejects] == [
        (2, "name", "has a NUL character", "[1]"),
        (3, "address.city", "has a NUL character", "[1]"),
    ]
    assert all("\0" not in reject.record and r"\u0000" in reject.record for reject in rejects)


def test_nul_character_in_deletion_becomes_null():
    """A deletion needs only its key. NUL in the key rejects the deletion."""
    lines = [
        json.dumps({"number": number, "name": "A\0", "gone": gone}).encode()
        for number, gone in [("a", True), ("b", False), ("c\0", True)]
    ]

    class Item(Record):
        number: str = Field(primary_key=True)
        name: str
        updated_at: dt.datetime | None

    frame, rejects = convert(lines, Item, deleted_when="gone")
    assert frame.astype(object).where(frame.notna(), None).to_dict("records") == [
        {"number": "a", "name": None, "updated_at": None, "deleted": True}
    ]
    assert [(reject.line, reject.field, reject.reason, reject.key) for reject in rejects] == [
        (2, "name", "has a NUL character", '["b"]'),
        (3, "number", "has a NUL character", None),
    ]


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-05:00"])
def test_time_outside_years_of_utc_rejects_its_record(time):
    """Such a time is valid text, but no database can store it. The first and last storable times become rows."""
    kept = ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"]
    rows, rejects = rows_of(GOOD, GOOD | {"id": 2, "updated_at": time}, *(GOOD | {"updated_at": text} for text in kept))
    assert [row["updated_at"].year for row in rows] == [2026, 1, 9999]
    assert [(reject.line, reject.field, reject.reason, reject.key) for reject in rejects] == [
        (2, "updated_at", "is a time outside the years 1 to 9999", "[2]")
    ]


def test_deletion_outside_years_of_utc_has_null_time():
    dead = GOOD | {"id": 2, "updated_at": "0001-01-01T00:00:00+01:00", "deleted": True}
    rows, rejects = delete_rows(GOOD, dead)
    assert rejects == []
    assert rows["deleted"].tolist() == [False, True]
    assert rows["updated_at"].notna().tolist() == [True, False]
