"""Test dotted paths in a JSON object, and which values count as true."""

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
def test_false_values_in_any_spelling(value: Any) -> None:
    """JSON types, words and the zero time of a clock count as false; `!` negates the path."""
    assert is_true({"a": {"b": value}}, "a.b") is False
    assert is_true({"a": {"b": value}}, "!a.b") is True


@pytest.mark.parametrize(
    "value", [True, 1, -1, 0.5, "true", "yes", "2026-11-20T00:00:00Z", "x", [0], {"a": 0}, *REAL], ids=repr
)
def test_other_values_are_true(value: Any) -> None:
    """Examples are a time, a reason and a non-empty object."""
    assert is_true({"a": value}, "a") is True


@pytest.mark.parametrize("fields", [{}, {"a": None}, {"a": 1}, [1], None, {"a": {"c": True}}], ids=repr)
def test_missing_value_is_neither_true_nor_false(fields: Any) -> None:
    assert is_true(fields, "a.b") is None


def test_null_counts_as_present() -> None:
    """A null counts as the field, or as the object around the field."""
    for fields in ({"a.b": None}, {"a": {"b": None}}, {"a": None}, {"a": {"b": 0}}):
        assert has(fields, "a.b")
    for fields in ({}, {"a": {}}, {"a": [{"b": 1}]}, {"a": 1}, {"b": None}):
        assert not has(fields, "a.b")


def test_dotted_name_takes_precedence_over_path() -> None:
    """The lookup tries the whole name, then splits it at each dot, the last one first."""
    assert find({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert find({"@odata.x": {"y.z": 3}}, "@odata.x.y.z") == 3


def test_put_creates_missing_objects_in_a_copy() -> None:
    """Existing objects stay unchanged because other code shares them."""
    before = {"a": {"b": 1}, "c": 2}
    assert put(before, "a.d.e", 3) == {"a": {"b": 1, "d": {"e": 3}}, "c": 2}
    assert put(before, "c.x", 3) == {"a": {"b": 1}, "c": {"x": 3}}
    assert before == {"a": {"b": 1}, "c": 2}


@pytest.mark.parametrize("record", [b"{", b"9" * 5000, b"[" * 100_000, b"\xff"], ids=["cut", "huge", "deep", "bytes"])
def test_unreadable_record_loads_as_none(record: bytes) -> None:
    """The transform rejects such a record, with its reason."""
    assert load(record) is None
