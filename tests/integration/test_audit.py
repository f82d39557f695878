"""Test that the audit finds no difference between tables and loaded days after correct loads."""

import datetime as dt
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.integration.test_cases import CASES, ORDERS
from tests.support.histories import EXAMPLES, limit_examples, run_step, steps
from tests.support.store import Store, incremental, snapshot, user
from wholeday.load.audit import Audit, Finding
from wholeday.load.clean_day import CleanDay
from wholeday.schema.marker import Marker

pytestmark = pytest.mark.slow


class Watched(Store):
    """A store that keeps the rows and rejects of each load."""

    def __init__(self, url: str, name: str = "users") -> None:
        super().__init__(url, name)
        self.loads: dict[dt.date, CleanDay] = {}
        load = self.warehouse.load

        def keep(day: CleanDay) -> Marker:
            clean = self.loads[day.draft.date] = CleanDay(day.draft, list(day.rows), list(day.rejects))
            return load(clean)

        self.warehouse.load = keep  # type: ignore[method-assign]

    def audit(self) -> list[Finding]:
        with self.warehouse.database.connect(readonly=True) as db:
            audit = Audit.open(db, self.warehouse.dataset.declared)
            assert audit
            findings = [*audit.check_tables(), *audit.check_days(), *audit.check_changes(), *audit.check_present()]
            findings += [*audit.check_children(), *audit.check_history()]
            for date, marker in audit.markers.items():
                findings += [*audit.check_marker(marker), *audit.check_rows(marker, self.loads[date])]
            return findings


HARD = {name: case.days for name, case in CASES.items()} | {
    "the same record on two days": [incremental(2, user(1, "a", 5)), incremental(1, user(1, "a", 5))],
    "two records of one time, the one of the earlier day read later": [
        incremental(1, user(1, "a", 5), read=99),
        incremental(2, user(1, "b", 5)),
    ],
    "two days read at one instant, on which a user has one time": [
        incremental(1, user(1, "a", 5), read=50),
        incremental(2, user(1, "b", 5), read=50),
    ],
    "a record between a snapshot that does not understand and one that does": [
        snapshot(1, 10, user(1, "?", rejected=True)),
        snapshot(2, 30, user(1, "a", 5)),
        incremental(3, user(1, "b", 20)),
    ],
    "a record between a snapshot and one that does not understand": [
        snapshot(1, 10, user(1, "a", 5)),
        snapshot(2, 30, user(1, "?", rejected=True)),
        incremental(3, user(1, "b", 20)),
    ],
}


@pytest.mark.parametrize("case", HARD)
def test_audit_finds_nothing_in_difficult_histories(new_database, case):
    """For any order of days, the tables match the loaded rows, and the present follows from the history."""
    most = ORDERS[Store(new_database()).kind]
    for order in itertools.islice(itertools.permutations(HARD[case]), most):
        store = Watched(new_database())
        for day in order:
            store.load(day)
            assert store.audit() == []


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["users", "orders", "carts"])
@pytest.mark.timeout(120 + EXAMPLES)
def test_audit_finds_nothing_in_random_histories(name: str, new_database: Callable[[], str]) -> None:
    """Days are reloaded, replaced and extracted twice, and users are erased."""

    @given(st.lists(steps, min_size=4, max_size=10))
    @limit_examples(new_database)
    def hold(steps: list[Any]) -> None:
        store, days, forgotten = Watched(new_database(), name), {}, set()
        for step in steps:
            run_step(step, store, days, forgotten)
            assert not store.loads or store.audit() == []

    hold()
