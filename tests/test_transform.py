"""Raw lines to rows and rejects."""

import datetime as dt
import json
from typing import Annotated, Any

import msgspec
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import ROOT
from pipeline.errors import DatasetError
from pipeline.transform import BLOCK, Reject, transform
from pipeline.users import User, clean

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
        (b'{"id":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "JSON that cannot be kept exactly", None, None),
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
    """Types come from the contract, not from what happens to be in a part."""
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


def test_a_number_beyond_64_bits_where_the_contract_sets_no_bound_is_one_clear_line():
    """It cannot be kept, and the contract did not say to reject it."""
    with pytest.raises(DatasetError, match="`size` came with a number beyond 64 bits: give it bounds"):
        transform([b'{"id":"a","size":%d}' % 2**70], Tall, lambda frame: (frame, {}), ["id"])


def test_a_clean_that_loses_rows_is_an_error():
    """Rows may leave only by a rule with a name."""
    with pytest.raises(DatasetError, match="2 records came in and 1 rows out"):
        transform([b'{"id":"a"}', b'{"id":"b"}'], Tall, lambda frame: (frame.iloc[1:], {}), ["id"])


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
