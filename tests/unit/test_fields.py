"""Places in a JSON object, and what counts as true there."""

from typing import Any

import pytest

from wholeday.schema.paths import find, has, is_true, load, put

FALSE = [False, 0, "", " ", "0", "false", "False", "no", "N", "off", "null", "0000-00-00 00:00:00", [], {}]
NEVER = [
    *("0001-01-01T00:00:00Z", "0001-01-01T00:00:00", "0001-01-01 00:00:00.0000000", "0001-01-01t00:00:00.000+01:00"),
    *("0001-01-01 00:00:00 +0000 UTC", "0001-01-01", "0000-00-00T00:00:00+00:00"),
    *("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z", "1970-01-01 00:00:00+0000", "1970-01-01 00:00:00"),
]
REAL = [
    *("1970-01-01T00:00:01Z", "1970-01-01T00:00:00.001Z", "1970-01-02T00:00:00Z", "0001-01-01T00:00:00Z and on"),
    *("1971-01-01T00:00:00Z", "0001-01-01T10:00:00Z", "2026-01-01T00:00:00Z"),
]


@pytest.mark.parametrize("value", FALSE + NEVER, ids=repr)
def test_what_says_no_is_false(value: Any) -> None:
    """In a type of JSON or in a word for it, the zero of a clock included; turned around it is true."""
    assert is_true({"a": {"b": value}}, "a.b") is False
    assert is_true({"a": {"b": value}}, "!a.b") is True


@pytest.mark.parametrize(
    "value", [True, 1, -1, 0.5, "true", "yes", "2026-11-20T00:00:00Z", "x", [0], {"a": 0}, *REAL], ids=repr
)
def test_anything_else_is_true(value: Any) -> None:
    """A time, a reason, an object that holds something."""
    assert is_true({"a": value}, "a") is True


@pytest.mark.parametrize("fields", [{}, {"a": None}, {"a": 1}, [1], None, {"a": {"c": True}}], ids=repr)
def test_what_is_not_there_is_neither(fields: Any) -> None:
    """Nothing is said where nothing stands."""
    assert is_true(fields, "a.b") is None


def test_null_stands_somewhere() -> None:
    """In the place of a field, or of what would hold it; what stands in something else does not."""
    for fields in ({"a.b": None}, {"a": {"b": None}}, {"a": None}, {"a": {"b": 0}}):
        assert has(fields, "a.b")
    for fields in ({}, {"a": {}}, {"a": [{"b": 1}]}, {"a": 1}, {"b": None}):
        assert not has(fields, "a.b")


def test_a_name_with_dots_is_found_before_it_is_cut() -> None:
    """The whole first, then at each dot, the last one first."""
    assert find({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert find({"@odata.x": {"y.z": 3}}, "@odata.x.y.z") == 3


def test_putting_makes_what_is_missing_and_changes_nothing_else() -> None:
    """The objects that are there stay as they were, for others use them."""
    before = {"a": {"b": 1}, "c": 2}
    assert put(before, "a.d.e", 3) == {"a": {"b": 1, "d": {"e": 3}}, "c": 2}
    assert put(before, "c.x", 3) == {"a": {"b": 1}, "c": {"x": 3}}
    assert before == {"a": {"b": 1}, "c": 2}


@pytest.mark.parametrize("record", [b"{", b"9" * 5000, b"[" * 100_000, b"\xff"], ids=["cut", "huge", "deep", "bytes"])
def test_what_python_cannot_read_is_none(record: bytes) -> None:
    """It is somebody else's to reject it, with its reason."""
    assert load(record) is None
