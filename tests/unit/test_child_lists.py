"""Lists of records as the canonical JSON that a row holds."""

import json
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from wholeday import Field, Json, Record
from wholeday.schema.conversion import Conversion
from wholeday.transform.rows import transform

ID = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"


class Item(Record):
    key: int = Field(primary_key=True)
    text: str | None
    count: int | None
    ratio: float | None
    is_new: bool | None
    price: Decimal | None = Field(max_digits=12, decimal_places=2)
    tiny: Decimal | None = Field(max_digits=12, decimal_places=9)
    at: datetime | None
    on: date | None
    opens: time | None
    uid: UUID | None
    extra: Json | None


class Order(Record):
    id: int = Field(primary_key=True)
    items: list[Item] | None
    updated_at: datetime | None


def write_lists(*lists: Any) -> list[str | None]:
    """Return the list that the row of each record holds, null for a record that is rejected."""
    lines = [json.dumps({"id": number, "items": items}).encode() for number, items in enumerate(lists, 1)]
    rows = transform(lines, Conversion(Order)).rows["items"]
    return [None if rows.isna().get(line, True) else rows[line] for line in range(1, len(lines) + 1)]


def fill(key: int, **values: Any) -> dict[str, Any]:
    """Return a stored item with these values; the others are null."""
    return dict.fromkeys(sorted(Item.__annotations__)) | {"key": key} | values


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ({"text": "plain"}, {"text": "plain"}),
        ({"text": 'a "quote", \\ \n\t\u0001 and é'}, {"text": 'a "quote", \\ \n\t\u0001 and é'}),
        ({"text": ""}, {"text": ""}),
        ({"count": -7, "is_new": False}, {"count": -7, "is_new": False}),
        ({"ratio": 2.0}, {"ratio": 2}),
        ({"price": "10.5", "tiny": 1e-9}, {"price": "10.50", "tiny": "0.000000001"}),
        ({"price": 0, "tiny": 0}, {"price": "0.00", "tiny": "0.000000000"}),
        ({"at": "2026-11-20T23:30:00.1234567-05:00"}, {"at": "2026-11-21T04:30:00.123456Z"}),
        ({"at": "0001-01-01T00:00:00Z", "on": "0001-01-01"}, {"at": "0001-01-01T00:00:00.000000Z", "on": "0001-01-01"}),
        ({"opens": "09:30:00.5", "uid": ID.upper()}, {"opens": "09:30:00.500000", "uid": ID}),
        ({"extra": {"b": 1.0, "a": ["é"]}}, {"extra": {"a": ["é"], "b": 1}}),
    ],
)
def test_item_is_stored_as_canonical_json(sent: dict[str, Any], stored: dict[str, Any]) -> None:
    """Beside an item without values, so that each column has a null."""
    (text,) = write_lists([{"key": 1}, {"key": 2, **sent}])
    assert text == json.dumps([fill(1), fill(2, **stored)], separators=(",", ":"), ensure_ascii=False)


def test_items_are_sorted_by_key_within_their_list() -> None:
    found = write_lists([{"key": 10}, {"key": 9}], None, [], [{"key": 3}], [{"key": -1}, {"key": -2}, {"key": 5}])
    keys = [None if text is None else [item["key"] for item in json.loads(text)] for text in found]
    assert keys == [[9, 10], None, [], [3], [-2, -1, 5]]


def test_two_items_with_one_key_reject_the_record() -> None:
    """The same key in another record is no matter, nor is it beside a rejected record."""
    found = write_lists([{"key": 1}], [{"key": 1}], [{"key": 2}, {"key": 1}, {"key": 2}], [{"key": 2}], [{"key": "x"}])
    assert [text is not None for text in found] == [True, True, False, True, False]


def test_blocks_of_records_keep_their_lists() -> None:
    """Records are decoded in blocks; one of them has an item that does not fit."""
    lists: list[Any] = [[{"key": number + place, "count": number} for place in range(3)] for number in range(1000)]
    lists[300] = [{"key": "x"}]
    found = write_lists(*lists)
    assert found[300] is None
    for number, text in enumerate(found):
        assert number == 300 or [item["count"] for item in json.loads(str(text))] == [number] * 3


def test_repaired_item_may_be_null() -> None:
    """`lenient` makes null of an empty text, in a block that was sent without a null."""
    line = b'{"id": 1, "items": [{"key": "1", "price": "", "count": "2"}]}'
    (text,) = transform([line], Conversion(Order, lenient=True)).rows["items"]
    assert json.loads(text) == [fill(1, count=2)]
