"""Read raw records: keys, deletions and unknown fields."""

import json
import subprocess
import sys
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.users import User
from tests.support import ROOT
from tests.support.histories import EXAMPLES
from wholeday.schema.census import FEW, MANY, MAX_UNKNOWN, SAMPLE, Census
from wholeday.schema.conversion import Conversion
from wholeday.schema.paths import find
from wholeday.schema.raw_fields import BLOCK, INTEGERS, Deletion, FieldReader
from wholeday.schema.record import Field, Json, Record

# Lines of a page or a part that are not a record with a key.
BROKEN = [b"", b"7", b"[1]", b'"x"', b"null", b"{", b'{"other":1}', b'{"id":null}']
# Records with key 5 and another fault.
ODD = [b'{"id":5,"x":NaN}', b'{"id":5,"x":"\\ud800"}', b'{"id":5,"x":"\xff"}', b'{"id":1,"id":5}']


def encode(*records: Any) -> list[bytes]:
    return [json.dumps(record).encode() for record in records]


def count(*records: Any, key: tuple[str, ...] = ("id",), deleted_when: str = "") -> Census:
    """Count records, one page each. A record is an object, or bytes."""
    census = Census(list(map(FieldReader, key)), deleted_when)
    for record in records:
        census.add([record] if isinstance(record, bytes) else encode(record))
    return census


keys = (
    st.integers(0, 9)
    | st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**40])
    | st.sampled_from(["", "1", "a", "é", '"', "\ud800", 0.5, 1.0, 1e300, True, False, [1], [[]], {"a": 1, "b": 2}])
    | st.none()
)
flags = st.sampled_from([None, True, False])


@pytest.mark.slow
@settings(max_examples=max(50, EXAMPLES), deadline=None)
@given(st.lists(st.lists(st.tuples(keys, keys, flags) | st.sampled_from(BROKEN), max_size=20)), st.booleans())
def test_census_counts_like_a_set(pages, composite):
    """Keys of any type, single or composite, missing, repeated, deleted or restored, among broken records."""
    census = Census(list(map(FieldReader, ("id", "part.line") if composite else ("id",))), "gone")
    latest: dict[Any, bool] = {}
    for page in pages:
        lines = []
        for record in page:
            if isinstance(record, bytes):
                lines.append(record)
                latest[object()] = False
                continue
            first, second, gone = record
            lines += encode({"id": first, "part": {"line": second}, "gone": gone})
            parts = [first, second] if composite else [first]
            latest[object() if None in parts else json.dumps(parts, sort_keys=True)] = bool(gone)
        census.add(lines)
        assert census.has_at_least(len(latest))
        assert not census.has_at_least(len(latest) + 1)
    assert census.records == sum(map(len, pages))
    assert census.distinct == len(latest)
    assert census.deleted == sum(latest.values())
    present = [key for key, gone in latest.items() if isinstance(key, str) and not gone]
    found = census.present_keys().tolist()
    assert len(found) == len(present)
    assert found == sorted(found)


def test_integer_is_its_own_key():
    """Other values are hashed to eight bytes, so the keys of two snapshots can be compared."""
    assert count({"id": 7}, {"id": -3}, {"id": 2**63 - 1}).present_keys().tolist() == [-3, 7, 2**63 - 1]
    for value in ("7", 7.0, True, [7], 2**63, "x" * 1000):
        (key,) = count({"id": value}).present_keys().tolist()
        assert key in INTEGERS
        assert key != 7


@pytest.mark.slow
def test_key_is_the_same_in_every_process():
    """Python's hash() of a string is not."""
    code = (
        "from wholeday.schema.census import Census; from wholeday.schema.raw_fields import FieldReader as R;"
        "c = Census([R('id'), R('n')]);"
        """c.add([b'{"id":"a","n":{"y":1,"x":2}}']); print(c.present_keys()[0])"""
    )
    found = {subprocess.check_output([sys.executable, "-c", code], cwd=ROOT) for _ in range(2)}
    assert found == {b"%d\n" % count({"n": {"x": 2, "y": 1}, "id": "a"}, key=("id", "n")).present_keys()[0]}


@pytest.mark.parametrize("record", ODD)
def test_other_faults_do_not_hide_a_key(record):
    """The census reads the key as the transform reads the key of a reject. The other keys are not affected."""
    census = Census([FieldReader("id")])
    census.add([b'{"id":1}', record, b'{"id":9}'])
    assert census.present_keys().tolist() == [1, 5, 9]


@pytest.mark.parametrize("record", BROKEN)
def test_record_without_key_counts_alone(record):
    """Two such records count as two. The other records of the block count by their keys."""
    census = Census([FieldReader("id")])
    census.add([b'{"id":1}', record, b'{"id":1}', record, *encode(*({"id": n} for n in range(BLOCK)))])
    assert (census.records, census.distinct) == (BLOCK + 4, BLOCK + 2)
    assert len(census.present_keys()) == BLOCK


def test_every_record_counts_without_a_key():
    """So does every deletion."""
    census = count({"id": 1}, {"id": 1, "gone": True}, key=(), deleted_when="gone")
    assert (census.records, census.distinct, census.deleted) == (2, 2, 1)
    assert census.present_keys().tolist() == []


def test_last_record_of_a_key_decides_deletion():
    """The order of records counts across pages."""
    gone, back = {"id": 1, "gone": True}, {"id": 1}
    assert count(back, gone, deleted_when="gone").deleted == 1
    assert count(gone, back, deleted_when="gone").deleted == 0
    assert count(gone, back, {"id": 2, "gone": 1}, deleted_when="gone").present_keys().tolist() == [1]


def test_has_at_least_rarely_sorts_keys(monkeypatch):
    """The check runs after every page: ten thousand pages sort the keys a few times."""
    census, sorts = Census([FieldReader("id")]), 0
    select_latest = census._select_latest

    def count_sort():
        nonlocal sorts
        sorts += 1
        return select_latest()

    monkeypatch.setattr(census, "_select_latest", count_sort)
    for page in range(10_000):
        census.add([b'{"id":%d}' % max(0, page - 100)])
        assert census.has_at_least(9_000) == (page >= 9_099)
    assert sorts <= 3


field_names = st.sampled_from(["a", "b", "a.b", "@odata.id", "@odata", "id"])
trees = st.recursive(
    st.integers(0, 3) | st.sampled_from(["", "x"]), lambda inner: st.dictionaries(field_names, inner), max_leaves=8
)


@pytest.mark.slow
@settings(max_examples=max(60, EXAMPLES), deadline=None)
@given(
    st.lists(st.dictionaries(field_names, trees), max_size=5),
    st.sampled_from(["a", "a.b", "a.b.id", "@odata.id", "a.@odata.id", ".a", "a.", "a..b"]),
)
def test_field_reads_the_same_values_as_find(records, path):
    """For nested names, and for names that contain dots."""
    assert FieldReader(path).read(encode(*records)) == [find(record, path) for record in records]


@pytest.mark.parametrize(
    ("deleted_when", "gone", "alive"),
    [
        ("", [], [{"deleted": True}]),
        (
            "deleted",
            [{"deleted": value} for value in (True, 1, "2026-11-21", "true", "x", {}, {"reason": "changed"}, [0])],
            [{}, *({"deleted": value} for value in (None, False, 0, "", "false", "0", " "))],
        ),
        ("@removed", [{"@removed": {}}], [{"removed": {}}]),
        ("meta.deleted_at", [{"meta": {"deleted_at": "x"}}], [{"meta": None}, {"meta": "deleted_at"}, {"meta": {}}]),
        ("status=deleted", [{"status": "deleted"}], [{"status": s} for s in ("Deleted", "deleted ", "", None, True)]),
        ("active=false", [{"active": False}, {"active": "false"}], [{"active": v} for v in (True, 0, None, "")] + [{}]),
        ("state=3", [{"state": 3}, {"state": "3"}], [{"state": v} for v in (30, 3.0, [3], True)]),
        ("state=1", [{"state": 1}], [{"state": True}]),
        ("state=", [{"state": ""}], [{"state": v} for v in (None, False, 0)] + [{}]),
        ("state=a=b", [{"state": "a=b"}], [{"state": "a"}]),
        ("state=null", [{"state": "null"}], [{"state": None}, {}]),
        ("!active", [{"active": False}, {"active": 0}], [{"active": True}, {"active": None}, {}]),
    ],
)
def test_deleted_when_finds_deletions(deleted_when, gone, alive):
    """`field` tests for truth, and an object is true. `field=value` compares the text of a JSON scalar."""
    lines = encode(*gone, *alive)
    assert Deletion(deleted_when).find(lines) == [True] * len(gone) + [False] * len(alive)
    assert Deletion(deleted_when).find([*BROKEN, *lines])[len(BROKEN) :] == [True] * len(gone) + [False] * len(alive)
    assert not any(Deletion(deleted_when).find(BROKEN))


class Place(Record):
    city: str


class Person(Record):
    user_id: int = Field("userId", primary_key=True)
    city: str | None = Field("home.city")
    post_code: str | None = Field("home.postCode")
    tags: list[Place] | None
    extra: Json | None
    updated_at: datetime | None


def test_unknown_fields_are_collected():
    """By their names in JSON, dotted below a nested struct. Fields of other nested values do not count."""
    census = Conversion(Person).make_census()
    census.add(encode({"userId": 1, "home": {"city": "a", "postCode": "b", "geo": {"lat": 1}}, "a.b": 0}))
    census.add(
        encode({"userId": 2, "home": None}, 7, {"user_id": 3, "home": [], "tags": [{"x": 1}], "extra": {"y": 1}})
    )
    assert census.unknown == ["a.b", "home.geo", "user_id"]


def test_complete_record_class_has_no_unknown_fields():
    """Without a record class no field is unknown."""
    record = {"id": 1, "name": "x", "address": {"city": "y"}}
    assert count(record).unknown == []
    census = Conversion(User).make_census()
    census.add(encode(record))
    assert census.unknown == []


@pytest.mark.slow
def test_search_for_unknown_fields_is_bounded():
    """Only the first records of a page are searched, and names that are data do not fill a manifest."""
    census = Conversion(User).make_census()
    census.add(encode(*({"id": 1} for _ in range(SAMPLE)), {"late": 1}))
    assert census.unknown == []
    census.add(encode({"id": 1, "early": 1}))
    assert census.unknown == ["early"]
    census.add(encode(*({"id": 1} for _ in range(MANY))))
    census.add(encode(*({"id": 1} for _ in range(FEW)), {"later": 1}))
    assert census.unknown == ["early"]
    census.add(encode(*({"id": 1} for _ in range(FEW - 1)), {"in time": 1}))
    assert census.unknown == ["early", "in time"]
    for number in range(MAX_UNKNOWN):
        census.add(encode({f"f{number}": 1, f"g{number}": 1}))
    assert len(census.unknown) == MAX_UNKNOWN


def test_key_costs_nine_bytes():
    """Eight for the key, and one for whether it is deleted."""
    census = Census([FieldReader("id")])
    for start in range(0, 20_000, 1000):
        census.add([b'{"id":"%d"}' % number for number in range(start, start + 1000)])
    held = sys.getsizeof(census._keys) + sys.getsizeof(census._deleted)
    assert held < 1.2 * 9 * 20_000
    assert census.distinct == 20_000
