"""Invent a record for a record class, to try its `clean`."""

import datetime as dt
import decimal
import uuid
from typing import Any

import msgspec

from wholeday.schema.columns import Column, Columns
from wholeday.schema.record import Epoch, EpochMillis, Json

VALUES: dict[Any, Any] = {
    int: 1,
    float: 1.5,
    bool: True,
    str: "a",
    dt.datetime: "2026-11-20T10:00:00Z",
    dt.date: "2026-11-20",
    dt.time: "10:00:00",
    decimal.Decimal: 1,
    uuid.UUID: "6f9619ff-8b86-d011-b42d-00cf4fc964ff",
    Epoch: 1763632800,
    EpochMillis: 1763632800000,
    Json: {"a": 1},
}


def make_example(columns: Columns) -> bytes:
    """Make a record with a value in each field, as JSON. A record class with bounds or enums may refuse it."""
    return msgspec.json.encode(_make(columns))


def _make(columns: Columns) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for column in columns:
        if column.options.rest or any(name.isdecimal() for name in column.path[1:]):
            continue
        node = record
        for name in column.path[:-1]:
            node = node.setdefault(name, {})
        node[column.path[-1]] = _invent(column)
    return record


def _invent(column: Column) -> Any:
    if column.children is not None:
        return [_make(column.children)]
    return [] if column.is_list else VALUES.get(column.type)
