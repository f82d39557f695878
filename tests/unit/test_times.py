"""Test times of records: cut to microseconds, and read in the section's timezone if they have no offset."""

import datetime as dt
import json
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.histories import EXAMPLES
from tests.support.project import query
from tests.support.things import TODAY, load, make_dataset
from wholeday.commands.check import check_source
from wholeday.commands.check.questions import OK
from wholeday.schema.columns import read_columns
from wholeday.schema.conversion import Conversion
from wholeday.schema.record import Field, Record
from wholeday.schema.reject import Reject
from wholeday.tasks.stages import read_workspace
from wholeday.transform.day import is_current
from wholeday.transform.rows import transform
from wholeday.transform.times import cut_fractions

BERLIN = "Europe/Berlin"
FIRST, LAST = map(dt.datetime.fromisoformat, ("1900-01-02", "9999-12-30"))


class Event(Record):
    id: int = Field(primary_key=True)
    at: dt.datetime | None
    note: str | None
    visit_at: dt.datetime | None = Field(r"a\.visit.at")
    updated_at: dt.datetime | None


def read_event(record: Any, timezone: str = "UTC", deleted_when: str = "") -> tuple[dict[str, Any], list[Reject]]:
    """Transform a record; return its row, with times as text, and its rejects."""
    line = record if isinstance(record, bytes) else json.dumps(record).encode()
    frame, rejects, _ = transform([line], Conversion(Event, None, deleted_when, timezone))
    frame = frame.drop(columns="updated_at")
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return {name: str(value) if "at" in name else value for row in rows for name, value in row.items()}, rejects


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("2026-11-20T10:00:00.1234567Z", "2026-11-20 10:00:00.123456+00:00"),
        ("2026-11-20T23:59:59.9999999Z", "2026-11-20 23:59:59.999999+00:00"),
        ("9999-12-31T23:59:59.9999999Z", "9999-12-31 23:59:59.999999+00:00"),
        ("9999-12-31 23:59:59.999999999+00:00", "9999-12-31 23:59:59.999999+00:00"),
        ("2026-11-20T10:00:00.0000009999999999+01:00", "2026-11-20 09:00:00+00:00"),
        ("1969-12-31T23:59:59.9999999Z", "1969-12-31 23:59:59.999999+00:00"),
        ("2026-11-20T10:00:00.123456Z", "2026-11-20 10:00:00.123456+00:00"),
    ],
)
def test_fractions_are_cut_and_never_rounded(sent: str, stored: str) -> None:
    row, rejects = read_event({"id": 1, "at": sent, "note": sent, "a.visit": {"at": sent, "note": sent}})
    assert rejects == []
    assert row == {"id": 1, "at": stored, "note": sent, "visit_at": stored}


def test_only_declared_times_are_cut() -> None:
    """Texts, names and records that are not objects keep each byte."""
    fine = '"2026-11-20T10:00:00.1234567Z"'
    columns = read_columns(Event)
    for text in (f'{{"id":1.0000000,"note":{fine},{fine}:1e400}}', f"[{fine}]", f'{{"at": {{"at": {fine}}}', fine):
        assert list(cut_fractions([text.encode()], columns)) == [text.encode()]
    row, rejects = read_event(f'{{"id": 1, "at": {fine}, "at": {fine.replace("1234567", "7654321")}}}'.encode())
    assert (row["at"], rejects) == ("2026-11-20 10:00:00.765432+00:00", [])


def test_reject_keeps_the_original_record() -> None:
    record = {"id": 1, "at": "2026-11-20T10:00:00.1234567Z", "note": 5}
    row, (reject,) = read_event(record)
    assert (row, json.loads(reject.record), reject.field) == ({}, record, "note")


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("2026-11-21T04:30:00", "2026-11-21 03:30:00+00:00"),
        ("2026-07-21 04:30:00.1234567", "2026-07-21 02:30:00.123456+00:00"),
        ("2026-11-21T04:30:00Z", "2026-11-21 04:30:00+00:00"),
        ("2026-11-21T04:30:00-05:00", "2026-11-21 09:30:00+00:00"),
        ("2026-10-25T02:30:00", "2026-10-25 00:30:00+00:00"),
        ("2026-03-29T01:59:59.999999", "2026-03-29 00:59:59.999999+00:00"),
        ("2026-03-29T03:00:00", "2026-03-29 01:00:00+00:00"),
        ("9999-12-31T23:59:59.9999999", "9999-12-31 22:59:59.999999+00:00"),
    ],
)
def test_time_without_offset_uses_timezone(sent: str, stored: str) -> None:
    """A local time that occurs twice means its first occurrence."""
    row, rejects = read_event({"id": 1, "at": sent}, BERLIN)
    assert (row["at"], rejects) == (stored, [])


def test_skipped_local_time_is_rejected() -> None:
    skipped = {"id": 1, "a.visit": {"at": "2026-03-29T02:30:00"}}
    row, (reject,) = read_event(skipped, BERLIN)
    assert row == {}
    assert (reject.field, reject.reason, reject.key) == (
        "a.visit.at",
        "is a time that the clocks of Europe/Berlin skip",
        "[1]",
    )
    row, rejects = read_event(skipped | {"deleted": True}, BERLIN, "deleted")
    assert (row["deleted"], row["visit_at"], rejects) == (True, "None", [])
    assert read_event(skipped)[0]["visit_at"] == "2026-03-29 02:30:00+00:00"


def test_time_outside_years_of_utc_is_rejected() -> None:
    _, (reject,) = read_event({"id": 1, "at": "0001-01-01T00:30:00"}, BERLIN)
    assert reject.reason == "is a time outside the years 1 to 9999"


@pytest.mark.slow
@settings(max_examples=max(60, EXAMPLES), deadline=None)
@given(st.datetimes(FIRST, LAST), st.sampled_from([BERLIN, "America/New_York"]))
def test_local_time_survives_conversion_to_utc(local: dt.datetime, name: str) -> None:
    row, rejects = read_event({"id": 1, "at": local.isoformat()}, name)
    if rejects:
        assert "skip" in rejects[0].reason
    else:
        instant = dt.datetime.fromisoformat(row["at"])
        assert instant.astimezone(ZoneInfo(name)).replace(tzinfo=None) == local


@pytest.mark.usefixtures("database")
def test_naive_times_are_stored_in_timezone_of_section(server, configure) -> None:
    """Watermark and `check` agree. A change of the timezone makes the day outdated."""
    dataset = make_dataset(dt.datetime | None)
    times = ["2026-11-20T10:00:00", "2026-11-20T10:00:00+10:00", "2026-11-20 10:00:00"]
    body = [{"id": number, "value": time, "updated_at": time} for number, time in enumerate(times)]
    rows = load(dataset, server, configure, body, timezone="Asia/Tokyo")  # where the day of UTC has always begun
    assert rows == ["2026-11-20T01:00:00.000000Z", "2026-11-20T00:00:00.000000Z", "2026-11-20T01:00:00.000000Z"]
    assert query("select watermark from loads") == [("2026-11-20T01:00:00.000000Z",)]
    assert check_source(read_workspace(dataset))["record class"].verdict == OK
    assert is_current(read_workspace(dataset), TODAY)
    configure("things", timezone="UTC")
    assert not is_current(read_workspace(dataset), TODAY)
