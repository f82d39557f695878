"""Raw lines to rows and rejects."""

import datetime as dt
import json
from typing import Annotated, Any

import msgspec
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.users import User, clean
from tests.support import ROOT
from wholeday.errors import DatasetError
from wholeday.schema.reject import Reject
from wholeday.transform.rows import BLOCK, transform

GOLDEN = ROOT / "tests" / "golden"
GOOD = {
    "id": 1,
    "name": " Ada ",
    "email": " Ada@Example.COM",
    "address": {"city": "Zürich"},
    "updated_at": "2026-11-21T10:00:00Z",
}


def rows_of(*records: Any) -> tuple[list[dict[str, Any]], list[Reject]]:
    """Records (objects, or bytes as they are) through the transform of users."""
    lines = [r if isinstance(r, bytes) else json.dumps(r, ensure_ascii=False).encode() for r in records]
    frame, rejects = transform(lines, User, clean, ["user_id"])
    return frame.astype(object).where(frame.notna(), None).to_dict("records"), rejects


@pytest.mark.parametrize("scenario", sorted(path.stem for path in GOLDEN.glob("*.jsonl")))
def test_golden_records_become_golden_rows_and_rejects(scenario):
    """What users.py makes of records, whole: the one file that a new column changes here."""
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
def test_what_may_be_missing_becomes_null_and_the_row_stays(change):
    """A null, blank or absent optional field is a null in the row, never a reject."""
    rows, rejects = rows_of(GOOD | change, {"id": 2})
    assert [row["user_id"] for row in rows] == [1, 2]
    column = {"address": "city"}.get(*change, next(iter(change)))
    assert rows[0][column] is None
    assert rejects == []


@pytest.mark.parametrize(
    ("record", "reason", "field", "key"),
    [
        (GOOD | {"id": "1"}, "Expected `int`, got `str`", "id", None),
        (GOOD | {"id": 0}, "Expected `int` >= 1", "id", None),
        (GOOD | {"id": 2**70}, "Expected `int` <= 9223372036854775807", "id", None),
        ({"name": "x"}, "Object missing required field `id`", "id", None),
        (GOOD | {"address": {"city": 3}}, "Expected `str | null`, got `int`", "address.city", "[1]"),
        (GOOD | {"address": []}, "Expected `object | null`, got `array`", "address", "[1]"),
        (GOOD | {"updated_at": "soon"}, "Invalid RFC3339 encoded datetime", "updated_at", "[1]"),
        (GOOD | {"email": "nobody"}, "has no @", "email", "[1]"),
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
def test_a_record_that_does_not_fit_is_rejected_alone_with_its_reason(record, reason, field, key):
    """The neighbours become rows; the reject names its line, reason, field, the key if it can be read, and itself."""
    rows, rejects = rows_of({"id": 10}, record, {"id": 11})
    assert [row["user_id"] for row in rows] == [10, 11]
    (reject,) = rejects
    assert (reject.line, reject.field, reject.key) == (2, field, key)
    assert reject.reason.startswith(reason)
    raw = record if isinstance(record, bytes) else json.dumps(record, ensure_ascii=False).encode()
    assert reject.record == raw.decode(errors="replace")


def test_ten_megabytes_in_one_field_are_kept():
    """A large value is a value."""
    rows, rejects = rows_of(GOOD | {"name": "x" * 10_000_000})
    assert len(rows[0]["name"]) == 10_000_000
    assert rejects == []


def test_times_of_any_precision_and_zone_are_the_same_instant_in_utc():
    """Seconds, milliseconds, nanoseconds, an offset, no offset (read as UTC): one scale."""
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


@settings(max_examples=60, deadline=None)
@given(st.lists(good | bad, max_size=3 * BLOCK))
def test_every_line_is_a_row_or_a_reject(lines):
    """Nothing is dropped and nothing comes twice, in the order of the lines, wherever the bad ones stand."""
    frame, rejects = transform(lines, User, clean, ["user_id"])
    assert sorted([*frame.index, *(reject.line for reject in rejects)]) == list(range(1, len(lines) + 1))
    assert list(frame["user_id"]) == [json.loads(lines[n - 1])["id"] for n in frame.index]
    assert list(frame.index) == sorted(frame.index)


def test_an_empty_part_has_the_columns_and_types_of_a_full_one():
    """Types come from the record class, not from what happens to be in a part."""
    empty, _ = transform([], User, clean, ["user_id"])
    full, _ = transform([json.dumps(GOOD).encode()], User, clean, ["user_id"])
    assert dict(empty.dtypes) == dict(full.dtypes)


class Tall(msgspec.Struct):
    id: Annotated[str, msgspec.Meta(min_length=1)]
    size: int = 0
    ratio: float | None = None
    ok: bool | None = None
    day: dt.date | None = None


def test_integers_stay_exact_beside_nulls():
    """A null in a column of integers does not turn its neighbours into floats."""

    class Numbers(msgspec.Struct):
        id: int
        big: int | None = None

    lines = [b'{"id":1,"big":9007199254740993}', b'{"id":2}']
    frame, _ = transform(lines, Numbers, lambda frame: (frame, {}), ["id"])
    assert frame["big"].iloc[0] == 9007199254740993
    assert frame["big"].isna().tolist() == [False, True]


def test_every_type_of_the_contract_has_its_column():
    """Text, integer, float, bool and date arrive with a type of their own."""
    line = b'{"id":"a","size":3,"ratio":0.5,"ok":true,"day":"2026-11-21"}'
    frame, _ = transform([line, b'{"id":"b"}'], Tall, lambda frame: (frame, {}), ["id"])
    assert frame.iloc[0].tolist() == ["a", 3, 0.5, True, dt.date(2026, 11, 21)]
    assert frame.iloc[1].isna().tolist() == [False, False, True, True, True]


def test_an_integer_of_more_than_64_bits_is_rejected():
    """Also where the record class sets no bounds; a deletion with one is a row without it."""
    lines = [b'{"id":"a","size":%d%s}' % (2**63, gone) for gone in (b"", b',"gone":true')]
    frame, rejects = transform(
        [*lines, b'{"id":"b","size":-9223372036854775808}'], Tall, lambda frame: (frame, {}), ["id"], "gone"
    )
    assert frame["size"].isna().tolist() == [True, False]
    assert frame["size"].iloc[1] == -(2**63)
    assert [(reject.line, reject.field, reject.reason, reject.key) for reject in rejects] == [
        (1, "size", "is an integer of more than 64 bits", '["a"]')
    ]


def test_a_clean_that_loses_rows_is_an_error():
    """Rows may leave only by a rule with a name."""
    with pytest.raises(DatasetError, match="took 2 records and returned 1 row, or"):
        transform([b'{"id":"a"}', b'{"id":"b"}'], Tall, lambda frame: (frame.iloc[1:], {}), ["id"])


@pytest.mark.parametrize("line", [b'{"id":"a"}', b'{"id":"a","size":"?"}'])
def test_a_clean_that_changes_the_index_of_its_own_frame_is_an_error(line):
    """The frame is `clean`'s to change, but what came in is known: no row passes for another line's."""

    def number_anew(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[tuple[str, str], Any]]:
        frame.index -= 1
        return frame, {}

    with pytest.raises(
        DatasetError, match="took 2 records and returned 2 rows, or changed their order or index: keep the index"
    ):
        transform([line, line], Tall, number_anew, ["id"])


@pytest.mark.parametrize("dtype", ["boolean", "bool[pyarrow]", object])
def test_a_rule_that_says_nothing_of_a_null_does_not_reject_it(dtype):
    """A comparison with a null is null: the record is a row, unless another rule rejects it."""

    class Person(msgspec.Struct):
        id: str
        age: int | None = None

    def judge(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[tuple[str, str], Any]]:
        return frame, {("age", "is above 150"): (frame["age"] > 150).astype(dtype), ("id", "is d"): frame["id"] == "d"}

    lines = [b'{"id":"a","age":200}', b'{"id":"b","age":20}', b'{"id":"c"}', b'{"id":"d"}']
    frame, rejects = transform(lines, Person, judge, ["id"])
    assert list(frame["id"]) == ["b", "c"]
    assert [(reject.line, reject.describe()) for reject in rejects] == [(1, "age: is above 150"), (4, "id: is d")]


def test_a_clean_without_the_key_is_an_error():
    """The natural key must be among the columns."""
    with pytest.raises(DatasetError, match="the key column user_id is not among id"):
        transform([b'{"id":"a"}'], Tall, lambda frame: (frame, {}), ["user_id"])


def test_a_key_that_cleaning_makes_null_rejects_the_row():
    """A row without its key cannot be stored; it is rejected, not lost."""
    frame, rejects = transform(
        [b'{"id":" "}', b'{"id":"b"}'],
        Tall,
        lambda frame: (frame.assign(id=frame["id"].str.strip().replace("", None)), {}),
        ["id"],
    )
    assert list(frame["id"]) == ["b"]
    assert [(reject.line, reject.field, reject.reason) for reject in rejects] == [
        (1, "id", "is null, and it is the key")
    ]


def delete_rows(*records: Any) -> tuple[pd.DataFrame, list[Reject]]:
    """Records through the transform of users, where some are deletions."""
    lines = [json.dumps(record).encode() for record in records]
    return transform(lines, User, clean, ["user_id"], "deleted")


def test_a_deletion_is_a_row_that_says_so():
    """The last column tells which rows are deletions; the others are as without it."""
    rows, rejects = delete_rows(GOOD, GOOD | {"id": 2, "deleted": True}, GOOD | {"id": 3, "deleted": False})
    assert list(rows.columns)[-1] == "deleted"
    assert rows["deleted"].dtype == bool
    assert list(zip(rows["user_id"], rows["deleted"], strict=True)) == [(1, False), (2, True), (3, False)]
    plain, _ = transform([json.dumps(GOOD).encode()], User, clean, ["user_id"])
    pd.testing.assert_frame_equal(rows.drop(columns="deleted").iloc[:1], plain)
    assert rejects == []


def test_without_a_rule_for_deletions_there_is_no_column_for_them():
    """An empty part of a dataset has the same columns as a full one, with the rule and without."""
    assert "deleted" not in transform([b'{"id":1,"deleted":true}'], User, clean, ["user_id"])[0].columns
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
def test_a_deletion_needs_no_more_than_its_key(change, lost):
    """What does not fit is null in its row, and the time stays where it can be read; alive it would be a reject."""
    dead = GOOD | {"id": 2} | change
    rows, rejects = delete_rows(GOOD, dead | {"deleted": {}}, GOOD | {"id": 3})
    assert rejects == []
    assert list(rows["user_id"]) == [1, 2, 3]
    assert list(rows["deleted"]) == [False, True, False]
    assert rows["updated_at"].notna().tolist() == [True, lost != "updated_at", True]
    assert lost is None or rows[lost].isna().tolist() == [False, True, False]
    assert [reject.line for reject in delete_rows(GOOD, dead)[1]] == [2]


def test_a_deletion_without_what_the_contract_requires_is_a_row():
    """Microsoft Graph sends no more of a deleted user than the id and `@removed`."""

    class Strict(msgspec.Struct):
        id: str
        size: int
        name: str

    lines = [b'{"id":"a","size":1,"name":"x"}', b'{"id":"b","@removed":{"reason":"deleted"}}', b'{"id":"c"}']
    rows, rejects = transform(lines, Strict, lambda frame: (frame, {}), ["id"], "@removed")
    assert list(rows["id"]) == ["a", "b"]
    assert rows.iloc[1].isna().tolist() == [False, True, True, False]
    assert [(reject.line, reject.field) for reject in rejects] == [(3, "size")]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"id": "7", "deleted": True}, "Expected `int`, got `str`"),
        ({"deleted": True}, "Object missing required field `id`"),
    ],
)
def test_a_deletion_of_nobody_is_rejected_for_what_the_contract_says(record, reason):
    """Without its key there is nothing to delete."""
    rows, (reject,) = delete_rows(GOOD, record)
    assert list(rows["user_id"]) == [1]
    assert (reject.line, reject.reason, reject.field, reject.key) == (2, reason, "id", None)


def test_a_deletion_whose_key_cleaning_makes_null_is_rejected():
    """The rule of the key is the one that holds for deletions too."""
    rows, rejects = transform(
        [b'{"id":" ","gone":1}', b'{"id":"b","gone":1}'],
        Tall,
        lambda frame: (frame.assign(id=frame["id"].str.strip().replace("", None)), {}),
        ["id"],
        "gone",
    )
    assert list(rows["id"]) == ["b"]
    assert [(reject.line, reject.reason) for reject in rejects] == [(1, "is null, and it is the key")]


deletions = st.tuples(st.integers(1, 99), st.sampled_from(['"email":"zz"', '"name":3', '"name":"x"'])).map(
    lambda parts: f'{{"id":{parts[0]},{parts[1]},"deleted":true}}'.encode()
)


@settings(max_examples=60, deadline=None)
@given(st.lists(good | bad | deletions, max_size=2 * BLOCK))
def test_deletions_are_rows_in_the_order_of_the_lines(lines):
    """Nothing is dropped and nothing comes twice; each deletion with a key is a row, wherever the bad ones stand."""
    frame, rejects = transform(lines, User, clean, ["user_id"], "deleted")
    assert sorted([*frame.index, *(reject.line for reject in rejects)]) == list(range(1, len(lines) + 1))
    assert list(frame.index) == sorted(frame.index)
    assert list(frame["user_id"]) == [json.loads(lines[n - 1])["id"] for n in frame.index]
    assert list(frame.index[frame["deleted"]]) == [n for n, line in enumerate(lines, 1) if b"deleted" in line]


def test_a_nul_character_rejects_a_record_as_not_every_database_could_keep_it():
    """JSON may write one; what is loaded must not depend on the database. The record is kept as it was sent."""
    rows, rejects = rows_of(GOOD, GOOD | {"name": "A\0da"}, GOOD | {"address": {"city": "\0"}}, GOOD)
    assert len(rows) == 2
    assert [(reject.line, reject.field, reject.reason, reject.key) for reject in rejects] == [
        (2, "name", "has a NUL character", "[1]"),
        (3, "city", "has a NUL character", "[1]"),
    ]
    assert all("\0" not in reject.record and r"\u0000" in reject.record for reject in rejects)


def test_a_nul_character_in_a_deletion_is_no_more_than_its_text():
    """A deletion needs only its key: the text goes. In the key itself it is a reason to reject."""
    lines = [
        json.dumps({"number": number, "name": "A\0", "gone": gone}).encode()
        for number, gone in [("a", True), ("b", False), ("c\0", True)]
    ]

    class Item(msgspec.Struct):
        number: str
        name: str

    frame, rejects = transform(lines, Item, lambda items: (items, {}), ["number"], "gone")
    assert frame.astype(object).where(frame.notna(), None).to_dict("records") == [
        {"number": "a", "name": None, "deleted": True}
    ]
    assert [(reject.line, reject.field, reject.reason, reject.key) for reject in rejects] == [
        (2, "name", "has a NUL character", '["b"]'),
        (3, "number", "has a NUL character, and it is the key", r'["c\u0000"]'),
    ]


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-05:00"])
def test_a_time_that_is_in_no_year_of_utc_rejects_its_record_alone(time):
    """It is valid as it is written, and no database could keep it; the last ones that can be kept are rows."""
    kept = ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"]
    rows, rejects = rows_of(GOOD, GOOD | {"id": 2, "updated_at": time}, *(GOOD | {"updated_at": text} for text in kept))
    assert [row["updated_at"].year for row in rows] == [2026, 1, 9999]
    assert [(reject.line, reject.field, reject.reason, reject.key) for reject in rejects] == [
        (2, "updated_at", "is a time outside the years 1 to 9999", "[2]")
    ]


def test_a_deletion_whose_time_is_in_no_year_of_utc_is_a_row_without_it():
    """A deletion needs only its key."""
    dead = GOOD | {"id": 2, "updated_at": "0001-01-01T00:00:00+01:00", "deleted": True}
    rows, rejects = delete_rows(GOOD, dead)
    assert rejects == []
    assert rows["deleted"].tolist() == [False, True]
    assert rows["updated_at"].notna().tolist() == [True, False]
