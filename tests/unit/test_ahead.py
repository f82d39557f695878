"""Test that the next item is produced while the current one is in use."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from tests.support.store import DATASETS, describe, snapshot
from wholeday.load.ahead import read_ahead
from wholeday.load.clean_day import CleanDay
from wholeday.load.postgres.binary_copy import HEADER
from wholeday.load.sqlite import SQLite
from wholeday.load.warehouse import Warehouse

PATIENCE = 20  # seconds to wait for a certain event


def make_row(key: int) -> pa.RecordBatch:
    return pa.record_batch({"user_id": [key], "name": ["a"], "updated_at": pa.nulls(1, pa.timestamp("us", "UTC"))})


def test_next_item_is_produced_during_use_of_current() -> None:
    """Items keep their order. From the second on, one is produced ahead."""
    asked = [threading.Event() for _ in range(5)]

    def make() -> Iterator[int]:
        for number, event in enumerate(asked):
            event.set()
            yield number

    for number in read_ahead(make()):
        assert number in (0, 4) or asked[number + 1].wait(PATIENCE)
        assert not any(event.is_set() for event in asked[number + 2 :])
    assert number == 4


def test_error_is_raised_after_the_items_before() -> None:
    def make() -> Iterator[int]:
        yield 1
        raise ValueError("2")

    items = read_ahead(make())
    assert next(items) == 1
    with pytest.raises(ValueError, match="2"):
        next(items)


def test_early_close_leaves_no_thread() -> None:
    threads = threading.active_count()
    with closing(read_ahead(iter(range(9)))) as items:
        assert [next(items), next(items)] == [0, 1]
        assert threading.active_count() == threads + 1
    assert threading.active_count() == threads


def test_single_item_needs_no_thread() -> None:
    threads = threading.active_count()
    items = read_ahead([0])
    assert next(items) == 0
    assert threading.active_count() == threads
    assert list(items) == []


@pytest.mark.parametrize("first", [True, False])
def test_rows_are_read_during_writes(
    monkeypatch: pytest.MonkeyPatch, new_database: Callable[[], str], first: bool
) -> None:
    """The first day goes directly into the table; a later day is staged."""
    asked, written = threading.Event(), list[bool]()

    def wait(writer: type, method: str) -> None:
        write = getattr(writer, method)

        def write_late(*args: Any) -> Any:
            if HEADER not in args:  # the header precedes the first row
                written.append(len(written) == 0 or asked.wait(PATIENCE))
            return write(*args)

        monkeypatch.setattr(writer, method, write_late)

    def read() -> Iterator[pa.RecordBatch]:
        yield make_row(1)
        yield make_row(2)
        asked.set()
        yield make_row(4)

    warehouse = Warehouse(new_database(), DATASETS["users"])
    if not first:
        warehouse.load(CleanDay(describe(snapshot(1, 30), extracted=1), [make_row(3)], []))
    wait(SQLite, "_insert")
    wait(psycopg.Copy, "write")
    assert warehouse.load(CleanDay(describe(snapshot(2, 60), extracted=3), read(), [])).inserted == 3
    assert set(written) == {True}
