"""Judge days by the quality gates of extract."""

import datetime as dt
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.support.days import make_raw_manifest
from tests.support.reading import People
from wholeday.extract.gates import FEW_DELETIONS, judge
from wholeday.schema.census import Census
from wholeday.schema.raw_fields import FieldReader
from wholeday.storage.day_folder import DayFolder, list_days
from wholeday.storage.lines import pack
from wholeday.storage.manifest import Verdict

DAY = dt.date(2026, 11, 21)
NOON = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)


def days(number: int) -> dt.timedelta:
    return dt.timedelta(days=number)


def encode(number: int, deleted: bool) -> bytes:
    return json.dumps({"id": number, "deleted": deleted}).encode()


def count(*ids: int, deleted: Any = (), key: tuple[str, ...] = ("id",)) -> Census:
    census = Census(list(map(FieldReader, key)), "deleted")
    census.add([encode(number, number in deleted) for number in ids])
    return census


def write(
    date: dt.date,
    *ids: int,
    mode: str = "incremental",
    as_of: dt.datetime | None = None,
    deleted: Any = (),
    size: int = 10**6,
) -> DayFolder:
    """Write a raw day, in parts of `size` records. Without `as_of` it was extracted at noon of the day."""
    folder = DayFolder("data", "raw", "people", date)
    folder.clear()
    lines = [encode(number, number in deleted) for number in ids]
    slices = [lines[start : start + size] for start in range(0, len(lines), size)]
    parts = [folder.write(f"part-{number:05d}.jsonl.gz", pack([some])) for number, some in enumerate(slices)]
    values = {"as_of": as_of} if as_of else {}
    folder.publish(make_raw_manifest(date, dataset="people", mode=mode, records=len(ids), parts=parts, **values))
    return folder


class Users:
    """Stand in for the warehouse: a number of users, or users with these keys."""

    def __init__(self, number: int = 0, keys: Iterable[Any] = ()) -> None:
        self.number, self.keys = number, keys

    def count(self) -> int:
        return self.number

    def read_keys(self) -> list[tuple[Any, ...]]:
        return [(key,) for key in self.keys]


def ask(
    census: Census,
    known: int | Iterable[Any] = 0,
    as_of: dt.datetime = NOON,
    cleaned: Census | None = None,
    **keys: Any,
) -> dict[str, Verdict]:
    """Judge DAY and return the verdicts by gate. `known` are the keys of the warehouse's users, or their number."""
    users = Users(known) if isinstance(known, int) else Users(keys=known)
    section = People(url="http://localhost/", **keys)
    verdicts = judge("data", DAY, section, census, as_of, users, lambda: cleaned or census)
    return {verdict.gate: verdict for verdict in verdicts}


def test_list_days_reads_the_names_of_folders():
    """The newest first, unfinished days too. Other names are ignored, and a missing folder holds no days."""
    assert list(list_days("data", "raw", "people")) == []
    write(DAY)
    DayFolder("data", "raw", "people", DAY + days(1)).clear()
    for name in ("date=2026-13-01", "date=20261122", "notes", "date=2026-11-2"):
        Path("data/raw/people", name).mkdir()
    Path("data/raw/people/.lock").touch()
    assert list(list_days("data", "raw", "people")) == [DAY + days(1), DAY]


@pytest.mark.parametrize(
    ("mode", "min_records", "records", "passed"),
    [
        ("snapshot", None, 0, False),
        ("snapshot", None, 1, True),
        ("snapshot", 0, 0, True),
        ("incremental", None, 0, True),
        ("incremental", 2, 1, False),
        ("incremental", 2, 2, True),
    ],
)
def test_min_records_fails_smaller_days(mode, min_records, records, passed):
    """By default an empty snapshot fails, and an empty incremental day passes."""
    verdict = ask(count(*range(records)), mode=mode, min_records=min_records)["min_records"]
    assert (verdict.passed, verdict.value, verdict.reference) == (passed, records, None)


def test_verdict_names_value_reference_and_limit():
    for number in range(1, 4):
        write(DAY - days(number), *range(1000))
    assert str(ask(count(), mode="snapshot")["min_records"]) == "0 records came; min_records is 1"
    fact = "600 records came, and the median of the days before is 1,000 (2026-11-20, 2026-11-19, 2026-11-18)"
    verdict = ask(count(*range(600)))["max_drop_ratio"]
    assert str(verdict) == f"{fact}; max_drop_ratio is 0.3"
    assert (verdict.value, verdict.limit, verdict.reference) == (pytest.approx(0.4), 0.3, 1000)
    assert str(ask(count(*range(600)), max_drop_ratio=0.5)["max_drop_ratio"]) == f"{fact}; max_drop_ratio is 0.5"


@pytest.mark.slow
@pytest.mark.parametrize(("before", "records", "passed"), [
    ([100] * 3, 70, True),
    ([100] * 3, 69, False),
    ([100] * 3, 1000, True),
    ([9] * 7, 0, True),  # chance explains it
    ([10] * 7, 0, False),
    ([0] * 7, 0, True),
    ([0, 0, 0, 100, 100, 100, 100], 60, False),
    ([100, 0, 0, 0, 0, 100, 100], 60, True),
    ([100] * 7 + [1] * 90, 60, False),  # the nearest seven count
    ([1] * 7 + [100] * 90, 0, True),
])  # fmt: skip
def test_day_far_below_the_median_fails(before, records, passed):
    """The drop must exceed both the limit and what chance explains for small numbers."""
    for number, ids in enumerate(before, 1):
        write(DAY - days(number), *range(ids))
    for number in range(1, 4):
        write(DAY + days(number), *range(1000))  # later days do not count
    assert ask(count(*range(records)))["max_drop_ratio"].passed == passed


@pytest.mark.slow
@pytest.mark.parametrize("percent", [10, 20, 29, 30, 50, 57, 58, 70, 90])
def test_day_at_the_limit_passes(percent):
    """One record fewer, or one deletion more, fails it. Rounding of floats decides no verdict."""
    for number in range(1, 4):
        write(DAY - days(number), *range(1000))
        write(DAY - days(number + 10), *range(1000), mode="snapshot")
    at, below, limit = range(10 * percent, 1000), range(10 * percent + 1, 1000), percent / 100
    for ids in (at, below):
        assert ask(count(*ids), max_drop_ratio=limit)["max_drop_ratio"].passed == (ids is at)
        snapshot = ask(count(*ids), mode="snapshot", max_drop_ratio=limit, max_delete_ratio=limit)
        assert snapshot["max_drop_ratio"].passed == snapshot["max_delete_ratio"].passed == (ids is at)
        against_users = ask(count(*ids), range(1000), mode="snapshot", max_delete_ratio=limit)
        assert against_users["max_delete_ratio"].passed == (ids is at)
        deleted = count(*range(1000), deleted=set(range(1000)).difference(ids))
        assert ask(deleted, 1000, max_delete_ratio=limit)["max_delete_ratio"].passed == (ids is at)


def test_gates_read_the_nearest_seven_days(monkeypatch):
    """The median of an incremental day needs no others."""
    for number in range(1, 20):
        write(DAY - days(number), 1)
    read, read_manifest = [], DayFolder.read_manifest

    def record_read(folder, kind):
        read.append(folder.date)
        return read_manifest(folder, kind)

    monkeypatch.setattr(DayFolder, "read_manifest", record_read)
    ask(count(1))
    assert read == [DAY - days(number) for number in range(1, 8)]


def test_median_needs_three_days():
    """Days of another mode, unfinished days and days with an unreadable manifest do not count."""
    for number in (1, 2):
        write(DAY - days(number), *range(100))
    write(DAY - days(3), *range(100), mode="snapshot")
    DayFolder("data", "raw", "people", DAY - days(4)).clear()
    for number, text in enumerate(["", "{", '{"mode": "incremental"}', "[]", '{"records": "many"}'], 5):
        (write(DAY - days(number), *range(100)).path / "manifest.json").write_text(text)
    assert "max_drop_ratio" not in ask(count())
    write(DAY - days(40), *range(100))
    assert not ask(count())["max_drop_ratio"].passed


def test_snapshots_are_ordered_by_extraction_time():
    """The median covers the seven snapshots extracted before this one. Their dates do not matter."""
    for number in range(1, 10):
        # The older the date, the later the extraction.
        write(DAY + days(7 - number), *range(number), mode="snapshot", as_of=NOON - days(20 - number))
    write(DAY + days(9), *range(1000), mode="snapshot", as_of=NOON + days(1))
    verdicts = ask(count(*range(9)), mode="snapshot")
    assert verdicts["max_drop_ratio"].reference == 5  # of 2 to 9 without 7, which has this date
    assert verdicts["max_delete_ratio"].reference == str(DAY - days(2))


@pytest.mark.parametrize(
    ("ids", "share"),
    [(range(10), 0), (range(7), 0.3), (range(6), 0.4), ([*range(6), *range(50, 60)], 0.4), ([], 1.0), ([99], 1.0)],
)
def test_share_of_missing_keys_is_limited(ids, share):
    """A share at the limit passes. New users do not make up for missing ones."""
    write(DAY - days(1), *range(10), mode="snapshot")
    verdict = ask(count(*ids), mode="snapshot")["max_delete_ratio"]
    assert (verdict.value, verdict.passed) == (pytest.approx(share), share <= 0.3)


def test_deleted_user_of_a_snapshot_is_missing():
    """A user that the earlier snapshot shows as deleted does not count."""
    write(DAY - days(1), *range(10), mode="snapshot", deleted=range(5))
    assert ask(count(*range(10), deleted=range(5)), mode="snapshot")["max_delete_ratio"].value == 0
    assert ask(count(*range(10), deleted=range(6)), mode="snapshot")["max_delete_ratio"].value == pytest.approx(0.2)


def test_delete_ratio_needs_an_earlier_snapshot():
    """It also needs a key, a limit below 1, and keys in the earlier snapshot: 0 of 0 proves nothing."""
    write(DAY - days(1), *range(10))
    write(DAY, *range(10), mode="snapshot")
    assert "max_delete_ratio" not in ask(count(1), mode="snapshot")
    write(DAY - days(2), *range(10), mode="snapshot")
    assert "max_delete_ratio" not in ask(count(1, key=()), mode="snapshot")
    assert "max_delete_ratio" not in ask(count(1), mode="snapshot", max_delete_ratio=1)
    assert not ask(count(1), mode="snapshot")["max_delete_ratio"].passed
    write(DAY - days(1), mode="snapshot")
    assert "max_delete_ratio" not in ask(count(1), mode="snapshot")


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"x")], ids=["missing", "changed"])
def test_damaged_snapshot_is_skipped_with_a_warning(damage, caplog):
    """The gate compares with the snapshot before it, so the gate still works and today's snapshot is not lost."""
    write(DAY - days(2), *range(10), mode="snapshot")
    broken = write(DAY - days(1), *range(7), mode="snapshot", size=3)
    damage(broken.path / "part-00002.jsonl.gz")
    verdict = ask(count(*range(5)), mode="snapshot")["max_delete_ratio"]
    assert (verdict.reference, verdict.value, verdict.passed) == ("2026-11-19", 0.5, False)
    (record,) = caplog.records
    line = record.getMessage()
    assert line.startswith("people: cannot compare with the snapshot of 2026-11-20: ")
    assert "part-00002.jsonl.gz" in line


def test_unreadable_snapshots_fail_the_day():
    """Nothing shows which users are missing. A person can let the day through with the flag."""
    for number in (1, 2):
        (write(DAY - days(number), *range(5), mode="snapshot").path / "part-00000.jsonl.gz").unlink()
    verdict = ask(count(*range(5)), mode="snapshot")["max_delete_ratio"]
    assert not verdict.passed
    assert str(verdict) == "2 earlier snapshots found, none readable; max_delete_ratio is 0.3"


@pytest.mark.parametrize(
    ("deleted", "known", "passed"),
    [(0, 0, None), (50, 0, None), (30, 100, True), (31, 100, False), (200, 100, False),
     (1, 2, True), (FEW_DELETIONS - 1, 4, True), (FEW_DELETIONS, 10, False)],
)  # fmt: skip
def test_large_share_of_deletions_fails_the_day(deleted, known, passed):
    """A few deletions never do. Without known users or without deletions, the gate gives no verdict."""
    verdict = ask(count(*range(300), deleted=range(deleted)), known)
    assert (verdict["max_delete_ratio"].passed if "max_delete_ratio" in verdict else None) is passed
    if passed is not None:
        assert verdict["max_delete_ratio"].value == pytest.approx(deleted / known)
        assert verdict["max_delete_ratio"].reference == known


def test_ratio_of_one_switches_a_gate_off():
    for number in range(1, 9):
        write(DAY - days(number), *range(100))
    verdicts = ask(count(*range(20), deleted=range(20)), 10, max_drop_ratio=1, max_delete_ratio=1)
    assert set(verdicts) == {"min_records"}


def test_snapshot_compares_with_the_users_of_the_warehouse():
    """Earlier raw snapshots do not count then. New users do not make up for missing ones."""
    write(DAY - days(1), *range(1000), mode="snapshot")
    snapshot = count(*range(6), *range(100, 110))
    verdict = ask(snapshot, range(10), mode="snapshot")["max_delete_ratio"]
    assert (verdict.passed, verdict.value, verdict.reference) == (False, 0.4, 10)
    assert str(verdict) == "4 of 10 users in the warehouse are missing; max_delete_ratio is 0.3"
    assert ask(snapshot, range(6), mode="snapshot")["max_delete_ratio"].value == 0
    assert "max_delete_ratio" not in ask(snapshot, range(10), mode="snapshot", max_delete_ratio=1)


def test_cleaned_keys_are_compared_for_many_missing_keys():
    """Cleaning all records takes as long as the transform, so the gate avoids it."""
    raw, cleaned = count("a ", "b ", "c "), count("a", "b", "c")
    known = ["a", "b", "c", "d"]
    assert ask(raw, known, cleaned=cleaned, mode="snapshot")["max_delete_ratio"].value == 0.25
    assert ask(raw, known, cleaned=count("a"), mode="snapshot")["max_delete_ratio"].value == 0.75
    assert ask(cleaned, known, cleaned=count("a"), mode="snapshot")["max_delete_ratio"].value == 0.25


def test_order_of_keys_does_not_matter():
    """Nor do the number of parts and repeated keys."""
    ids = random.Random(0).sample(range(10**6), 100)
    write(DAY - days(1), *ids, *ids[:10], mode="snapshot", size=7)
    verdict = ask(count(*reversed(ids[:80])), mode="snapshot")["max_delete_ratio"]
    assert verdict.value == pytest.approx(0.2)
    assert str(verdict) == "20 of 100 keys of the earlier snapshot (2026-11-20) are missing; max_delete_ratio is 0.3"
