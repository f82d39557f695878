"""Test that the audit finds no difference between tables and loaded days after correct loads.

The golden cases of test_cases.py and the random histories of test_warehouse.py are audited, too.
"""

import itertools

import pytest

from tests.integration.test_cases import ORDERS
from tests.support.audited import AuditedStore
from tests.support.store import Store, incremental, snapshot, user

pytestmark = pytest.mark.slow

HARD = {
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
        store = AuditedStore(new_database())
        for day in order:
            store.load(day)
            assert store.audit() == []
