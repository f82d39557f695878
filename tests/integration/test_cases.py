"""Golden cases of the merge: days, and the rows of history and present that they must give.

The expected rows are written by hand. Times are hours after the start of 1 November 2026, so the window of a day ends
at 24 times its number. The test loads the days of each case in several orders, then loads each day a second time.
PIPELINE_EXAMPLES=96 tests every order. PostgreSQL is slower, so it tests one. The model of other tests must give the
same rows.
"""

import random
from collections.abc import Callable
from datetime import date
from itertools import permutations
from typing import NamedTuple

import pytest

from tests.support import model
from tests.support.audited import AuditedStore
from tests.support.histories import EXAMPLES
from tests.support.model import ReadDay
from tests.support.store import Store, at, incremental, snapshot, user

ORDERS = {"sqlite": min(24, max(1, EXAMPLES // 4)), "postgresql": max(1, EXAMPLES // 100)}


class Case(NamedTuple):
    """Hold days, users_history as (user_id, name, updated_at, valid_from, valid_to), and users with load_date."""

    days: list[ReadDay]
    history: list[tuple[int, str | None, float | None, float, float | None]]
    users: list[tuple[int, str | None, float | None, int]]


SECOND = 1 / 3600
HALF, MORE = 15 + 0.5 * SECOND, 15 + 0.500001 * SECOND
CASES = {
    # The attributes in a snapshot are valid from its as_of, even if `updated_at` did not change.
    "snapshot changes attributes without a new updated_at": Case(
        days=[snapshot(1, 10, user(1, "a", 5)), snapshot(2, 34, user(1, "b", 5)), snapshot(3, 58, user(1, "b", 5))],
        history=[(1, "a", 5, 5, 34), (1, "b", 5, 34, None)],
        users=[(1, "b", 5, 2)],
    ),
    # A row of a snapshot is valid from its as_of at the latest. The next snapshot overrides a later `updated_at`.
    "snapshot corrects updated_at in the future": Case(
        days=[snapshot(1, 10, user(1, "a", 999)), snapshot(2, 34, user(1, "b", 30))],
        history=[(1, "a", 999, 10, 30), (1, "b", 30, 30, None)],
        users=[(1, "b", 30, 2)],
    ),
    # A record is valid from the end of its extraction at the latest. The next record overrides a later time.
    "record corrects updated_at in the future": Case(
        days=[
            incremental(1, user(1, "a", 999)),  # read from 25 to 26
            incremental(2, user(1, "b", 40)),
        ],
        history=[(1, "a", 999, 26, 40), (1, "b", 40, 40, None)],
        users=[(1, "b", 40, 2)],
    ),
    # A day between two that say the same ends the version of the first one. The row in `users` does not change.
    "record between two equal ones without updated_at": Case(
        days=[incremental(1, user(1, "a")), incremental(3, user(1, "a")), incremental(2, user(1, "b"))],
        history=[(1, "a", None, 24, 48), (1, "b", None, 48, 72), (1, "a", None, 72, None)],
        users=[(1, "a", None, 3)],
    ),
    # A record is newer than a snapshot only if its `updated_at` is after the as_of of the snapshot.
    "records around the as_of of a snapshot": Case(
        days=[
            snapshot(1, 20, user(1, "a", 5), user(2, "a", 5), user(3, "a", 5)),  # read until 21
            incremental(2, user(1, "b", 20.5), user(2, "b", 19), user(3, "b", 20)),
        ],
        history=[
            (1, "a", 5, 5, 20.5),
            (1, "b", 20.5, 20.5, None),
            (2, "a", 5, 5, 19),
            (2, "b", 19, 19, 20),
            (2, "a", 5, 20, None),
            (3, "a", 5, 5, None),
        ],
        users=[(1, "b", 20.5, 2), (2, "a", 5, 1), (3, "a", 5, 1)],
    ),
    # The snapshot and a later record have the same change, which is one version and not two.
    "change during the extraction of a snapshot": Case(
        days=[
            snapshot(1, 10, user(1, "a", 5)),
            snapshot(2, 34, user(1, "b", 34.5), took=2),
            incremental(3, user(1, "b", 34.5)),
        ],
        history=[(1, "a", 5, 5, 34), (1, "b", 34.5, 34, None)],
        users=[(1, "b", 34.5, 3)],
    ),
    # Without `updated_at`, a record is valid from the end of its window, whenever it was extracted.
    "windows without updated_at extracted out of order": Case(
        days=[
            incremental(1, user(1, "a"), read=99),
            incremental(2, user(1, "b"), read=80),
            incremental(3, user(1, "a")),
        ],
        history=[(1, "a", None, 24, 48), (1, "b", None, 48, 72), (1, "a", None, 72, None)],
        users=[(1, "a", None, 3)],
    ),
    # A reject neither changes nor removes its user. Users missing from the snapshot have vanished.
    "reject in the second snapshot": Case(
        days=[
            snapshot(1, 10, user(1, "a", 5), user(2, "a", 5), user(3, "a", 5), user(4, "a", 5)),
            snapshot(2, 34, *(user(key, "?", 30, rejected=True) for key in (1, 2, 3))),
            snapshot(3, 58, user(1, "a", 5), user(2, "b", 30)),
        ],
        history=[
            (1, "a", 5, 5, None),
            (2, "a", 5, 5, 58),  # 30 is before the snapshot of day 2, which did not show it
            (2, "b", 30, 58, None),
            (3, "a", 5, 5, 58),
            (4, "a", 5, 5, 34),
        ],
        users=[(1, "a", 5, 3), (2, "b", 30, 3)],  # two snapshots in a row must show user 1 to keep the first date
    ),
    # The second snapshot overrides the record between them, although it equals the first.
    "rollback between two equal snapshots": Case(
        days=[snapshot(1, 10, user(1, "a", 5)), incremental(2, user(1, "b", 30)), snapshot(3, 58, user(1, "a", 5))],
        history=[(1, "a", 5, 5, 30), (1, "b", 30, 30, 58), (1, "a", 5, 58, None)],
        users=[(1, "a", 5, 1)],  # the first of equal snapshots
    ),
    # A day that is loaded late adds a past version. The user stays vanished as of the snapshot.
    "late incremental day with a vanished user": Case(
        days=[snapshot(2, 40, user(2, "a", 5)), incremental(1, user(1, "a", 15))],
        history=[(1, "a", 15, 15, 40), (2, "a", 5, 5, None)],
        users=[(2, "a", 5, 2)],
    ),
    # The history comes from records alone, and ends with the deletion or the next snapshot.
    "user created and deleted between two snapshots": Case(
        days=[
            snapshot(1, 10),
            incremental(2, user(1, "a", 30), user(1, "a", 35, deleted=True), user(2, "a", 30)),
            snapshot(3, 60),
        ],
        history=[(1, "a", 30, 30, 35), (2, "a", 30, 30, 60)],
        users=[],
    ),
    # A whole second, a fraction of it and one more microsecond sort as times, not as text.
    "times of mixed precision": Case(
        days=[
            incremental(1, user(1, "b", HALF), user(1, "a", 15), user(2, "a", 15)),
            incremental(2, user(1, "c", MORE), user(2, "b", HALF)),
            snapshot(3, 15 + SECOND, user(1, "c", MORE), user(2, "b", HALF)),
        ],
        history=[
            (1, "a", 15, 15, HALF),
            (1, "b", HALF, HALF, MORE),
            (1, "c", MORE, MORE, None),
            (2, "a", 15, 15, HALF),
            (2, "b", HALF, HALF, None),
        ],
        users=[(1, "c", MORE, 3), (2, "b", HALF, 3)],
    ),
    # With different attributes the last extraction wins. With equal attributes the first day counts.
    "several days with the same updated_at": Case(
        days=[
            incremental(1, user(1, "b", 20), user(2, "a", 20), read=99),
            incremental(2, user(1, "a", 20), user(2, "b", 20)),
            incremental(3, user(2, "a", 20), user(3, "a", 20)),
            incremental(4, user(3, "a", 20)),  # read at 97
        ],
        history=[(1, "b", 20, 20, None), (2, "a", 20, 20, None), (3, "a", 20, 20, None)],
        users=[(1, "b", 20, 1), (2, "a", 20, 1), (3, "a", 20, 3)],
    ),
    # A row of nulls is still a version, and the deletion ends it.
    "deletion of a user without attributes": Case(
        days=[snapshot(1, 10, user(1, None)), snapshot(2, 34, user(1, None, deleted=True))],
        history=[(1, None, None, 10, 34)],
        users=[],
    ),
    # The late snapshot overrides the record before it, between an equal snapshot and one that has only a reject.
    "late snapshot before rejected snapshot": Case(
        days=[
            snapshot(1, 10, user(1, "a", 5)),
            incremental(2, user(1, "b", 15)),
            snapshot(3, 70, user(1, "?", rejected=True)),
            snapshot(4, 60, user(1, "a", 5)),
        ],
        history=[(1, "a", 5, 5, 15), (1, "b", 15, 15, 60), (1, "a", 5, 60, None)],
        users=[(1, "a", 5, 1)],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_any_order_of_days_gives_the_golden_rows(new_database: Callable[[], str], name: str) -> None:
    """The audit finds no difference. Another load of a day changes nothing."""
    case, dumps = CASES[name], []
    orders = list(permutations(case.days))
    most = ORDERS[Store(new_database()).kind]
    for days in random.Random(name).sample(orders, min(most, len(orders))):
        store = AuditedStore(new_database())
        for day in days:
            store.load(day)
        assert store.audit() == []
        check(case, store.history(), store.present())
        dumps.append(store.dump())
        for day in days:
            store.unmark(day)
            marker = store.load(day)
            assert not any(getattr(marker, x) for x in ("inserted", "updated", "deleted", "vanished", "reverted"))
        dumps.append(store.dump())
    assert all(dump == dumps[0] for dump in dumps)
    check(case, model.history(case.days), model.present(case.days))


def check(case: Case, history: set[tuple[object, ...]], users: dict[int, tuple[object, ...]]) -> None:
    assert history == {(key, name, *map(at, times)) for key, name, *times in case.history}
    assert users == {key: (name, at(updated), date(2026, 11, day)) for key, name, updated, day in case.users}
