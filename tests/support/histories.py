"""Generate random histories of a warehouse and compare them with the model.

A history extracts, replaces and reloads days, and erases users.
"""

import dataclasses
import datetime as dt
import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.support import model
from tests.support.model import ReadDay, Record
from tests.support.store import Store, at, time

EXAMPLES = int(os.environ.get("PIPELINE_EXAMPLES", "8"))
COST = {"sqlite": 1, "postgresql": 20}  # relative time of an example
KEY_VALUES = {"users": [1, 2, 3], "orders": [("a", 1), ("a", 2), ("b", 1)], "carts": [1, 2, 3]}
CARTS = [
    ("a", None, None),
    ("a", "[]", '[{"text":"x"}]'),
    (None, '[{"parts":null,"quantity":1,"sku":"p"}]', '[{"text":"x"},{"text":"y"}]'),
    ("a", '[{"parts":[{"name":"u"}],"quantity":2,"sku":"p"},{"parts":[],"quantity":null,"sku":"q"}]', "[]"),
    ("a", '[{"parts":[{"name":"u"},{"name":null}],"quantity":1,"sku":"q"}]', '[{"text":"y"},{"text":"x"}]'),
    (None, None, '[{"text":"y"}]'),
]
ROWS: dict[str, list[Any]] = {"users": ["a", "b", None], "orders": ["a", "b", None], "carts": CARTS}

instants = st.integers(0, 14)
steps = st.tuples(
    st.sampled_from(["read", "read", "read", "read", "again", "reprocess", "reprocess", "read later", "forget"]),
    st.integers(1, 6),  # the day
    st.sampled_from(["snapshot", "incremental"]),
    instants,  # as_of
    st.sampled_from([1, 1, 5]),  # duration of the extraction, grace period included
    instants,  # end of the window
    st.lists(
        st.tuples(
            st.sampled_from([0, 0, 1, 2]),
            st.one_of(instants, st.sampled_from([None, 100])),
            st.integers(0, len(CARTS) - 1),
            st.sampled_from([False] * 5 + [True]),
            st.sampled_from([False] * 4 + [True]),
        ),
        max_size=6,
    ),
    st.integers(0, 6),  # a day whose records are repeated
    st.booleans(),  # whether to add a reject without a key
)


def limit_examples(new_database: Callable[[], str]) -> settings:
    """Limit the number of histories by the speed of the database."""
    examples = max(1, EXAMPLES // COST[Store(new_database()).kind])
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)


def run_step(step: Any, store: Store, days: dict[dt.date, ReadDay], forgotten: set[Any]) -> None:
    """Run one step of a history in the warehouse and in the model, and compare both."""
    kind, date, mode, as_of, took, stop, drawn, copied, unreadable = step
    date = dt.date(2026, 11, date)
    keys, rows = KEY_VALUES[store.name], ROWS[store.name]
    records = tuple(
        Record(keys[k], at(t), rows[n % len(rows)], deleted, rejected) for k, t, n, deleted, rejected in drawn
    )
    if copy := days.get(dt.date(2026, 11, copied or 1)):
        records += tuple(r for r in copy.records[:2])
    if unreadable:
        records += (Record(None, None, "?", rejected=True),)
    if kind == "forget":
        if days and drawn and (key := records[0].key) not in forgotten:
            store.forget(key)
            forgotten.add(key)
        return check(store, days, forgotten)
    known = days.get(date)
    if known and kind == "again":
        day = known
    elif known and kind == "reprocess":
        day = dataclasses.replace(known, window_stop=at(stop), records=records)
    elif known and kind == "read later":
        day = dataclasses.replace(known, extracted_at=known.as_of + dt.timedelta(hours=took))
    else:
        taken = {day.as_of for day in days.values() if day.date != date}
        while at(as_of) in taken:
            as_of += 1
        day = ReadDay(date, mode, at(as_of), at(as_of + took), at(stop), records)
    before = model.present(days.values(), forgotten)
    days[date] = day
    after = model.present(days.values(), forgotten)
    expected = model.count(day, forgotten, before, after)
    if known == day:
        store.unmark(day)
    marker = store.load(day)
    assert {name: getattr(marker, name) for name in expected} == expected
    if known == day:
        assert not any(getattr(marker, x) for x in ("inserted", "updated", "deleted", "vanished", "reverted"))
    return check(store, days, forgotten)


def check(store: Store, days: dict[dt.date, ReadDay], forgotten: set[Any]) -> None:
    if days:
        assert store.present() == model.present(days.values(), forgotten)
        assert store.history() == model.history(days.values(), forgotten)
        if store.list_children():
            check_children(store, days, forgotten)
        stamps = {(str(day.date), day.extracted_at) for day in days.values()}
        assert {
            (date, time(read)) for date, read in store.query(f"select load_date, ingested_at from {store.name}")
        } <= stamps


def check_children(store: Store, days: dict[dt.date, ReadDay], forgotten: set[Any]) -> None:
    present = model.present(days.values(), forgotten)
    assert store.children() == model.children((key, row) for key, (row, *_) in present.items())
    history = ((key, row, *times) for key, row, _, *times in model.history(days.values(), forgotten))
    assert store.child_history() == model.children(history)
