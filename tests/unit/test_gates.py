"""What the gates say of a day, and what they compare it with."""

import datetime as dt
import json
import random
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.support.reading import People
from wholeday.extract.gates import FEW_DELETIONS, judge
from wholeday.schema.census import Census
from wholeday.storage.day_folder import DayFolder, list_days
from wholeday.storage.lines import pack
from wholeday.storage.manifest import RawManifest, Verdict

DAY = dt.date(2026, 11, 21)
NOON = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)


def days(number: int) -> dt.timedelta:
    return dt.timedelta(days=number)


def encode(number: int, deleted: bool) -> bytes:
    return json.dumps({"id": number, "deleted": deleted}).encode()


def count(*ids: int, deleted: Any = (), key: tuple[str, ...] = ("id",)) -> Census:
    census = Census(None, key, "deleted")
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
    """A day in raw, in parts of `size` records; read at its noon, unless it is said when."""
    folder = DayFolder("data", "raw", "people", date)
    folder.clear()
    lines = [encode(number, number in deleted) for number in ids]
    slices = [lines[start : start + size] for start in range(0, len(lines), size)]
    known = {
        "date": date,
        "mode": mode,
        "as_of": as_of or dt.datetime.combine(date, dt.time(12), dt.UTC),
        "records": len(ids),
        "parts": [folder.write(f"part-{number:05d}.jsonl.gz", pack([some])) for number, some in enumerate(slices)],
    }
    folder.publish(RawManifest(**dict.fromkeys(RawManifest.__struct_fields__) | known))
    return folder


class Users:
    """What the warehouse knows: so many users, or those with these keys."""

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
    """Judge DAY; returns the verdicts by gate. `known` are the users of the warehouse: their keys, or how many."""
    users = Users(known) if isinstance(known, int) else Users(keys=known)
    section = People(url="http://localhost/", **keys)
    verdicts = judge("data", DAY, section, census, as_of, users, lambda: cleaned or census)
    return {verdict.gate: verdict for verdict in verdicts}


def test_days_of_a_dataset_are_those_that_have_a_folder():
    """The newest first, unfinished ones too; what else lies there is none, and no folder holds none."""
    assert list(list_days("data", "raw", "people")) == []
    write(DAY)
    DayFolder("data", "raw", "people", DAY + days(1)).clear()
    for name in ("date=2026-13-01", "date=20261122", "notes", "date=2026-11-2"):
        Path("data/raw/people", name).mkdir()
    Path("data/raw/people/.lock").touch()
    assert list(list_days("data", "raw", "people")) == [DAY + days(1), DAY]


def test_a_day_is_compared_at_the_same_cost_after_however_many_others():
    """Calls are counted; of the days before the seven that it is compared with only their names are listed."""
    calls = {}
    ask(count(1))  # imports what it needs
    for number in (20, 200):
        for age in range(1, number + 1):
            write(DAY - days(age), 1)
        seen = Counter[str]()
        sys.setprofile(lambda _frame, event, _of, seen=seen: seen.update([event]))
        try:
            ask(count(1))
        finally:
            sys.setprofile(None)
        calls[number] = seen["call"] + seen["c_call"]
    print(calls)
    assert 0 < calls[200] <= 1.1 * calls[20]


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
def test_a_day_has_so_many_records_or_more(mode, min_records, records, passed):
    """A snapshot of nobody is none, and a day without changes is one, unless the key says otherwise."""
    verdict = ask(count(*range(records)), mode=mode, min_records=min_records)["min_records"]
    assert (verdict.passed, verdict.value, verdict.reference) == (passed, records, None)


def test_a_verdict_that_fails_a_day_is_one_line_with_all_that_is_to_be_known():
    """What came, what it was compared with, and the limit."""
    for number in range(1, 4):
        write(DAY - days(number), *range(1000))
    assert str(ask(count(), mode="snapshot")["min_records"]) == "0 records came; min_records is 1"
    fact = "600 records came, and 1,000 is the median of those before (2026-11-20, 2026-11-19, 2026-11-18)"
    verdict = ask(count(*range(600)))["max_drop_ratio"]
    assert str(verdict) == f"{fact}; max_drop_ratio is 0.3"
    assert (verdict.value, verdict.limit, verdict.reference) == (pytest.approx(0.4), 0.3, 1000)
    assert str(ask(count(*range(600)), max_drop_ratio=0.5)["max_drop_ratio"]) == f"{fact}; max_drop_ratio is 0.5"


@pytest.mark.parametrize(("before", "records", "passed"), [
    ([100] * 3, 70, True),
    ([100] * 3, 69, False),
    ([100] * 3, 1000, True),
    ([9] * 7, 0, True),  # as chance would have it
    ([10] * 7, 0, False),
    ([0] * 7, 0, True),
    ([0, 0, 0, 100, 100, 100, 100], 60, False),
    ([100, 0, 0, 0, 0, 100, 100], 60, True),
    ([100] * 7 + [1] * 90, 60, False),  # the nearest seven
    ([1] * 7 + [100] * 90, 0, True),
])  # fmt: skip
def test_a_day_far_below_the_median_of_the_seven_before_fails(before, records, passed):
    """By more than the share, and by more than chance would take from so few."""
    for number, ids in enumerate(before, 1):
        write(DAY - days(number), *range(ids))
    for number in range(1, 4):
        write(DAY + days(number), *range(1000))  # a later day says nothing of what was usual
    assert ask(count(*range(records)))["max_drop_ratio"].passed == passed


@pytest.mark.parametrize("percent", [10, 20, 29, 30, 50, 57, 58, 70, 90])
def test_exactly_at_the_limit_a_day_passes(percent):
    """And fails with one record fewer, or one deletion more: no ratio hangs on how a float is rounded."""
    for number in range(1, 4):
        write(DAY - days(number), *range(1000))
        write(DAY - days(number + 10), *range(1000), mode="snapshot")
    at, below, limit = range(10 * percent, 1000), range(10 * percent + 1, 1000), percent / 100
    for ids in (at, below):
        assert ask(count(*ids), max_drop_ratio=limit)["max_drop_ratio"].passed == (ids is at)
        snapshot = ask(count(*ids), mode="snapshot", max_drop_ratio=limit, max_delete_ratio=limit)
        assert snapshot["max_drop_ratio"].passed == snapshot["max_delete_ratio"].passed == (ids is at)
        deleted = count(*range(1000), deleted=set(range(1000)).difference(ids))
        assert ask(deleted, 1000, max_delete_ratio=limit)["max_delete_ratio"].passed == (ids is at)


def test_ten_years_of_days_are_not_all_read(monkeypatch):
    """For the median of an incremental day the nearest seven are enough."""
    for number in range(1, 20):
        write(DAY - days(number), 1)
    read, read_manifest = [], DayFolder.read_manifest

    def note(folder, kind):
        read.append(folder.date)
        return read_manifest(folder, kind)

    monkeypatch.setattr(DayFolder, "read_manifest", note)
    ask(count(1))
    assert read == [DAY - days(number) for number in range(1, 8)]


def test_fewer_than_three_days_say_nothing_of_what_is_usual():
    """Days of another mode, unfinished ones, and those whose manifest cannot be read are none."""
    for number in (1, 2):
        write(DAY - days(number), *range(100))
    write(DAY - days(3), *range(100), mode="snapshot")
    DayFolder("data", "raw", "people", DAY - days(4)).clear()
    for number, text in enumerate(["", "{", '{"mode": "incremental"}', "[]", '{"records": "many"}'], 5):
        (write(DAY - days(number), *range(100)).path / "manifest.json").write_text(text)
    assert "max_drop_ratio" not in ask(count())
    write(DAY - days(40), *range(100))
    assert not ask(count())["max_drop_ratio"].passed


def test_snapshots_are_compared_by_when_they_were_read():
    """The median is that of the seven read before this one, whatever their dates, and not of those read since."""
    for number in range(1, 10):
        # The older the date, the later it was read.
        write(DAY + days(7 - number), *range(number), mode="snapshot", as_of=NOON - days(20 - number))
    write(DAY + days(9), *range(1000), mode="snapshot", as_of=NOON + days(1))
    verdicts = ask(count(*range(9)), mode="snapshot")
    assert verdicts["max_drop_ratio"].reference == 5  # of 2 to 9, less 7, which is of this very date
    assert verdicts["max_delete_ratio"].reference == str(DAY - days(2))


def test_a_snapshot_in_which_half_of_all_users_are_missing_fails():
    """However few they are; new ones do not make up for them."""
    write(DAY - days(2), *range(100), mode="snapshot")
    write(DAY - days(1), *range(8), mode="snapshot")
    verdict = ask(count(*range(4), *range(100, 110)), mode="snapshot")["max_delete_ratio"]
    assert (verdict.passed, verdict.value, verdict.reference) == (False, 0.5, "2026-11-20")
    assert str(verdict).startswith(
        "4 of 8 keys of the snapshot read before (2026-11-20) are missing; max_delete_ratio is 0.3"
    )


@pytest.mark.parametrize(("ids", "share"), [(range(10), 0), (range(7), 0.3), (range(6), 0.4), ([], 1.0), ([99], 1.0)])
def test_the_share_of_missing_keys_is_held_against_the_ratio(ids, share):
    """At the limit is within it."""
    write(DAY - days(1), *range(10), mode="snapshot")
    verdict = ask(count(*ids), mode="snapshot")["max_delete_ratio"]
    assert (verdict.value, verdict.passed) == (pytest.approx(share), share <= 0.3)


def test_a_user_whom_a_snapshot_shows_as_deleted_is_missing():
    """In this one; one who was deleted in the one before cannot go missing any more."""
    write(DAY - days(1), *range(10), mode="snapshot", deleted=range(5))
    assert ask(count(*range(10), deleted=range(5)), mode="snapshot")["max_delete_ratio"].value == 0
    assert ask(count(*range(10), deleted=range(6)), mode="snapshot")["max_delete_ratio"].value == pytest.approx(0.2)


def test_without_an_earlier_snapshot_nothing_is_missing():
    """Nor where no key is known, the gate is off, or that snapshot has no keys: 0 of 0 proves nothing."""
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
def test_a_damaged_snapshot_is_passed_over_and_said(damage, caplog):
    """The one before it is compared with, so that the gate stays shut and today's snapshot is not lost."""
    write(DAY - days(2), *range(10), mode="snapshot")
    broken = write(DAY - days(1), *range(7), mode="snapshot", size=3)
    damage(broken.path / "part-00002.jsonl.gz")
    verdict = ask(count(*range(5)), mode="snapshot")["max_delete_ratio"]
    assert (verdict.reference, verdict.value, verdict.passed) == ("2026-11-19", 0.5, False)
    (record,) = caplog.records
    line = record.getMessage()
    assert line.startswith("people: the snapshot of 2026-11-20 is not compared with: ")
    assert "part-00002.jsonl.gz" in line


def test_where_no_snapshot_can_be_read_again_the_gate_is_shut():
    """Nobody knows then who is missing; the flag that lets a day through is there."""
    for number in (1, 2):
        (write(DAY - days(number), *range(5), mode="snapshot").path / "part-00000.jsonl.gz").unlink()
    verdict = ask(count(*range(5)), mode="snapshot")["max_delete_ratio"]
    assert not verdict.passed
    assert str(verdict) == "of the 2 snapshots read before none can be read again; max_delete_ratio is 0.3"


@pytest.mark.parametrize(
    ("deleted", "known", "passed"),
    [(0, 0, None), (50, 0, None), (30, 100, True), (31, 100, False), (200, 100, False),
     (1, 2, True), (FEW_DELETIONS - 1, 4, True), (FEW_DELETIONS, 10, False)],
)  # fmt: skip
def test_records_that_delete_a_great_share_of_the_known_users_fail(deleted, known, passed):
    """A few never do; where nobody is known nobody can be lost, and where none is deleted nobody is asked."""
    verdict = ask(count(*range(300), deleted=range(deleted)), known)
    assert (verdict["max_delete_ratio"].passed if "max_delete_ratio" in verdict else None) is passed
    if passed is not None:
        assert verdict["max_delete_ratio"].value == pytest.approx(deleted / known)
        assert verdict["max_delete_ratio"].reference == known


def test_a_ratio_of_one_switches_a_gate_off():
    """Whatever came."""
    for number in range(1, 9):
        write(DAY - days(number), *range(100))
    verdicts = ask(count(*range(20), deleted=range(20)), 10, max_drop_ratio=1, max_delete_ratio=1)
    assert set(verdicts) == {"min_records"}


def test_snapshot_compares_with_the_users_of_the_warehouse():
    """However they came; earlier snapshots in raw are not looked at then. New users do not make up for missing ones."""
    write(DAY - days(1), *range(1000), mode="snapshot")
    snapshot = count(*range(6), *range(100, 110))
    verdict = ask(snapshot, range(10), mode="snapshot")["max_delete_ratio"]
    assert (verdict.passed, verdict.value, verdict.reference) == (False, 0.4, 10)
    assert str(verdict) == "4 of 10 users in the warehouse are missing; max_delete_ratio is 0.3"
    assert ask(snapshot, range(6), mode="snapshot")["max_delete_ratio"].value == 0
    assert "max_delete_ratio" not in ask(snapshot, range(10), mode="snapshot", max_delete_ratio=1)


@pytest.mark.parametrize("percent", [10, 29, 30, 57])
def test_snapshot_passes_exactly_at_the_limit(percent):
    """And fails with one user fewer."""
    for number, passed in ((1000 - 10 * percent, True), (999 - 10 * percent, False)):
        verdict = ask(count(*range(number)), range(1000), mode="snapshot", max_delete_ratio=percent / 100)
        assert verdict["max_delete_ratio"].passed is passed


def test_keys_that_clean_changes_are_compared_after_it():
    """Only if too many seem to be missing: to clean all records takes as long as the transform."""
    raw, cleaned = count("a ", "b ", "c "), count("a", "b", "c")
    known = ["a", "b", "c", "d"]
    assert ask(raw, known, cleaned=cleaned, mode="snapshot")["max_delete_ratio"].value == 0.25
    assert ask(raw, known, cleaned=count("a"), mode="snapshot")["max_delete_ratio"].value == 0.75
    assert ask(cleaned, known, cleaned=count("a"), mode="snapshot")["max_delete_ratio"].value == 0.25


def test_the_order_of_keys_in_a_snapshot_does_not_matter():
    """Nor over how many parts they are spread, nor how often one comes."""
    ids = random.Random(0).sample(range(10**6), 100)
    write(DAY - days(1), *ids, *ids[:10], mode="snapshot", size=7)
    verdict = ask(count(*reversed(ids[:80])), mode="snapshot")["max_delete_ratio"]
    assert verdict.value == pytest.approx(0.2)
    assert (
        str(verdict) == "20 of 100 keys of the snapshot read before (2026-11-20) are missing; max_delete_ratio is 0.3"
    )
