"""Golden cases of the merge: days, and the rows of history and present that they must give.

The expected rows are written by hand. Times are hours after the start of 1 November 2026, so the window of a day ends
at 24 times its number. The test loads the days of each case in several orders, then loads each day a second time.
PIPELINE_EXAMPLES=48 tests every order. PostgreSQL is slower, so it tests one. The model of other tests must give the
same rows. `CASES` has the cases by name.
"""

import random
from collections.abc import Callable
from datetime import date
from itertools import permutations
from typing import NamedTuple

import pytest

from tests.support import model
from tests.support.histories import EXAMPLES
from tests.support.model import ReadDay
from tests.support.store import Store, at, incremental, snapshot, user


class Case(NamedTuple):
    """Hold days, users_history as (user_id, name, updated_at, valid_from, valid_to), and users with load_date."""

    days: list[ReadDay]
    history: list[tuple[int, str | None, float | None, float, float | None]]
    users: list[tuple[int, str | None, float | None, int]]


CASES: dict[str, Case] = {}
ORDERS = {"sqlite": min(24, max(1, EXAMPLES // 2)), "postgresql": max(1, EXAMPLES // 100)}


def golden(tell: Callable[[], Case]) -> Callable[[Callable[[], str]], None]:
    """Turn a function that returns a case into a test, and add the case to `CASES`."""
    case = CASES[tell.__name__.removeprefix("test_").replace("_", " ")] = tell()

    def test(new_database: Callable[[], str]) -> None:
        dumps = []
        orders = list(permutations(case.days))
        most = ORDERS[Store(new_database()).kind]
        for days in random.Random(tell.__name__).sample(orders, min(most, len(orders))):
            store = Store(new_database())
            for day in days:
                store.load(day)
            hold(case, store.history(), store.present())
            dumps.append(store.dump())
            for day in days:
                load_again(store, day)
                dumps.append(store.dump())
        assert all(dump == dumps[0] for dump in dumps)
        hold(case, model.history(case.days), model.present(case.days))

    test.__name__, test.__doc__ = tell.__name__, tell.__doc__
    return test


def hold(case: Case, history: set[tuple[object, ...]], users: dict[int, tuple[object, ...]]) -> None:
    assert history == {(key, name, *map(at, times)) for key, name, *times in case.history}
    assert users == {key: (name, at(updated), date(2026, 11, day)) for key, name, updated, day in case.users}


def load_again(store: Store, day: ReadDay) -> None:
    store.unmark(day)
    marker = store.load(day)
    assert not any(getattr(marker, x) for x in ("inserted", "updated", "deleted", "vanished", "reverted"))


@pytest.mark.slow
@golden
def test_snapshot_changes_attributes_without_a_new_updated_at() -> Case:
    """The attributes in a snapshot are valid from its as_of, even if `updated_at` did not change."""
    return Case(
        days=[
            snapshot(1, 10, user(1, "a", 5)),
            snapshot(2, 34, user(1, "b", 5)),
            snapshot(3, 58, user(1, "b", 5)),
        ],
        history=[
            (1, "a", 5, 5, 34),
            (1, "b", 5, 34, None),
        ],
        users=[(1, "b", 5, 2)],
    )


@pytest.mark.slow
@golden
def test_snapshot_corrects_updated_at_in_the_future() -> Case:
    """A row of a snapshot is valid from its as_of at the latest. The next snapshot overrides a later `updated_at`."""
    return Case(
        days=[
            snapshot(1, 10, user(1, "a", 999)),
            snapshot(2, 34, user(1, "b", 30)),
        ],
        history=[
            (1, "a", 999, 10, 30),
            (1, "b", 30, 30, None),
        ],
        users=[(1, "b", 30, 2)],
    )


@pytest.mark.slow
@golden
def test_record_corrects_updated_at_in_the_future() -> Case:
    """A record is valid from the end of its extraction at the latest. The next record overrides a later time."""
    return Case(
        days=[
            incremental(1, user(1, "a", 999)),  # read from 25 to 26
            incremental(2, user(1, "b", 40)),
        ],
        history=[
            (1, "a", 999, 26, 40),
            (1, "b", 40, 40, None),
        ],
        users=[(1, "b", 40, 2)],
    )


@golden
def test_records_around_the_as_of_of_a_snapshot() -> Case:
    """A record is newer than a snapshot only if its `updated_at` is after the as_of of the snapshot."""
    return Case(
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
    )


@pytest.mark.slow
@golden
def test_change_during_the_extraction_of_a_snapshot() -> Case:
    """The snapshot and a later record have the same change, which is one version and not two."""
    return Case(
        days=[
            snapshot(1, 10, user(1, "a", 5)),
            snapshot(2, 34, user(1, "b", 34.5), took=2),
            incremental(3, user(1, "b", 34.5)),
        ],
        history=[
            (1, "a", 5, 5, 34),
            (1, "b", 34.5, 34, None),
        ],
        users=[(1, "b", 34.5, 3)],
    )


@pytest.mark.slow
@golden
def test_windows_without_updated_at_extracted_out_of_order() -> Case:
    """Without `updated_at`, a record is valid from the end of its window, whenever it was extracted."""
    return Case(
        days=[
            incremental(1, user(1, "a"), read=99),
            incremental(2, user(1, "b"), read=80),
            incremental(3, user(1, "a")),
        ],
        history=[
            (1, "a", None, 24, 48),
            (1, "b", None, 48, 72),
            (1, "a", None, 72, None),
        ],
        users=[(1, "a", None, 3)],
    )


@pytest.mark.slow
@golden
def test_reject_in_the_second_snapshot() -> Case:
    """A reject neither changes nor removes its user. Users missing from the snapshot have vanished."""
    return Case(
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
    )


@pytest.mark.slow
@golden
def test_rollback_between_two_equal_snapshots() -> Case:
    """The second snapshot overrides the record between them, although it equals the first."""
    return Case(
        days=[
            snapshot(1, 10, user(1, "a", 5)),
            incremental(2, user(1, "b", 30)),
            snapshot(3, 58, user(1, "a", 5)),
        ],
        history=[
            (1, "a", 5, 5, 30),
            (1, "b", 30, 30, 58),
            (1, "a", 5, 58, None),
        ],
        users=[(1, "a", 5, 1)],  # the first of equal snapshots
    )


@pytest.mark.slow
@golden
def test_late_incremental_day_with_a_vanished_user() -> Case:
    """A day that is loaded late adds a past version. The user stays vanished as of the snapshot."""
    return Case(
        days=[
            snapshot(2, 40, user(2, "a", 5)),
            incremental(1, user(1, "a", 15)),
        ],
        history=[
            (1, "a", 15, 15, 40),
            (2, "a", 5, 5, None),
        ],
        users=[(2, "a", 5, 2)],
    )


@pytest.mark.slow
@golden
def test_user_created_and_deleted_between_two_snapshots() -> Case:
    """The history comes from records alone, and ends with the deletion or the next snapshot."""
    return Case(
        days=[
            snapshot(1, 10),
            incremental(2, user(1, "a", 30), user(1, "a", 35, deleted=True), user(2, "a", 30)),
            snapshot(3, 60),
        ],
        history=[
            (1, "a", 30, 30, 35),
            (2, "a", 30, 30, 60),
        ],
        users=[],
    )


@pytest.mark.slow
@golden
def test_times_of_mixed_precision() -> Case:
    """A whole second, a fraction of it and one more microsecond sort as times, not as text."""
    second = 1 / 3600
    half, more = 15 + 0.5 * second, 15 + 0.500001 * second
    return Case(
        days=[
            incremental(1, user(1, "b", half), user(1, "a", 15), user(2, "a", 15)),
            incremental(2, user(1, "c", more), user(2, "b", half)),
            snapshot(3, 15 + second, user(1, "c", more), user(2, "b", half)),
        ],
        history=[
            (1, "a", 15, 15, half),
            (1, "b", half, half, more),
            (1, "c", more, more, None),
            (2, "a", 15, 15, half),
            (2, "b", half, half, None),
        ],
        users=[(1, "c", more, 3), (2, "b", half, 3)],
    )


@pytest.mark.slow
@golden
def test_several_days_with_the_same_updated_at() -> Case:
    """With different attributes the last extraction wins. With equal attributes the first day counts."""
    return Case(
        days=[
            incremental(1, user(1, "b", 20), user(2, "a", 20), read=99),
            incremental(2, user(1, "a", 20), user(2, "b", 20)),
            incremental(3, user(2, "a", 20), user(3, "a", 20)),
            incremental(4, user(3, "a", 20)),  # read at 97
        ],
        history=[
            (1, "b", 20, 20, None),
            (2, "a", 20, 20, None),
            (3, "a", 20, 20, None),
        ],
        users=[(1, "b", 20, 1), (2, "a", 20, 1), (3, "a", 20, 3)],
    )


@golden
def test_deletion_of_a_user_without_attributes() -> Case:
    """A row of nulls is still a version, and the deletion ends it."""
    return Case(
        days=[
            snapshot(1, 10, user(1, None)),
            snapshot(2, 34, user(1, None, deleted=True)),
        ],
        history=[(1, None, None, 10, 34)],
        users=[],
    )


@pytest.mark.slow
@golden
def test_late_snapshot_before_rejected_snapshot() -> Case:
    """The late snapshot overrides the record before it, between an equal snapshot and one that has only a reject."""
    return Case(
        days=[
            snapshot(1, 10, user(1, "a", 5)),
            incremental(2, user(1, "b", 15)),
            snapshot(3, 70, user(1, "?", rejected=True)),
            snapshot(4, 60, user(1, "a", 5)),
        ],
        history=[
            (1, "a", 5, 5, 15),
            (1, "b", 15, 15, 60),
            (1, "a", 5, 60, None),
        ],
        users=[(1, "a", 5, 1)],
    )
