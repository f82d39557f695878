"""Golden cases that naive definitions get wrong: days, and the history and the present that must come of them.

The expected rows are written by hand. Times are hours after the beginning of 1 November 2026, so a day's window ends at
24 times its number. Each case is loaded in several orders of its days, with PIPELINE_EXAMPLES=48 in every order, and on
PostgreSQL, which is slower, in one. Then each day is loaded again. The model, which is the definition elsewhere, must
give the same rows. `CASES` has the cases by name for other tests.
"""

import random
from collections.abc import Callable
from datetime import date
from itertools import permutations
from typing import NamedTuple

from tests.support import model
from tests.support.histories import EXAMPLES
from tests.support.model import ReadDay
from tests.support.store import Store, at, incremental, snapshot, user


class Case(NamedTuple):
    """Days; users_history as (user_id, name, updated_at, valid_from, valid_to); users as (…, updated_at, load_date)."""

    days: list[ReadDay]
    history: list[tuple[int, str | None, float | None, float, float | None]]
    users: list[tuple[int, str | None, float | None, int]]


CASES: dict[str, Case] = {}
ORDERS = {"sqlite": min(24, max(1, EXAMPLES // 2)), "postgresql": max(1, EXAMPLES // 100)}


def golden(tell: Callable[[], Case]) -> Callable[[Callable[[], str]], None]:
    """Make a test of a function that tells a case, and keep the case under its name."""
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


@golden
def test_attributes_changed_without_a_new_updated_at() -> Case:
    """A snapshot is believed whole: what it shows is so from its as_of on, even where `updated_at` is the old one."""
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


@golden
def test_updated_at_in_the_future_and_then_corrected_in_snapshots() -> Case:
    """A snapshot's row is so no later than its as_of, so an `updated_at` beyond it does not outlive the next one."""
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


@golden
def test_updated_at_in_the_future_and_then_corrected_in_records() -> Case:
    """A record is so no later than its day was read to the end, so an `updated_at` beyond that yields to the next."""
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
def test_a_change_that_the_page_of_the_snapshot_before_did_not_show_yet() -> Case:
    """What an incremental day brings from after a snapshot's as_of is newer than the snapshot; till then, older."""
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


@golden
def test_a_change_while_the_snapshot_was_being_read() -> Case:
    """Shown by the snapshot from its as_of on and brought again as a record, it is one version and not two."""
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


@golden
def test_windows_without_updated_at_that_were_fetched_in_the_wrong_order() -> Case:
    """Without an `updated_at` a record is so at the end of its day's window, whenever that was read."""
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


@golden
def test_a_record_rejected_in_the_second_snapshot() -> Case:
    """A rejected record says nothing: its user is neither gone nor changed, and those not listed at all are gone."""
    return Case(
        days=[
            snapshot(1, 10, user(1, "a", 5), user(2, "a", 5), user(3, "a", 5), user(4, "a", 5)),
            snapshot(2, 34, *(user(key, "?", 30, rejected=True) for key in (1, 2, 3))),
            snapshot(3, 58, user(1, "a", 5), user(2, "b", 30)),
        ],
        history=[
            (1, "a", 5, 5, None),
            (2, "a", 5, 5, 58),  # 30 lies before the snapshot of day 2, which did not show it
            (2, "b", 30, 58, None),
            (3, "a", 5, 5, 58),
            (4, "a", 5, 5, 34),
        ],
        users=[(1, "a", 5, 3), (2, "b", 30, 3)],  # 1 is not shown by two snapshots in a row
    )


@golden
def test_a_roll_back_between_two_equal_snapshots() -> Case:
    """A snapshot that repeats the one before it still ends what a record said between them."""
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
        users=[(1, "a", 5, 1)],  # of snapshots in a row that show it the first
    )


@golden
def test_a_user_absent_from_a_snapshot_but_in_a_later_older_incremental_day() -> Case:
    """A day that is loaded late finds its place: who was gone by the snapshot stays gone, and has a past."""
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


@golden
def test_a_user_created_and_deleted_between_two_snapshots() -> Case:
    """Whom no snapshot ever showed has the history of the records, and ends with the deletion or the next snapshot."""
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


@golden
def test_times_of_mixed_precision() -> Case:
    """Times are compared as times: a whole second, a fraction of it, and a microsecond more follow each other."""
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


@golden
def test_several_days_that_bring_a_user_with_the_same_time() -> Case:
    """Of other attributes at one `updated_at` those read last correct the version; of the same the first day counts."""
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
def test_a_deletion_of_a_user_of_whom_nothing_else_was_known() -> Case:
    """A row without a name or a time is a row: its end is its absence, and not that everything is null."""
    return Case(
        days=[
            snapshot(1, 10, user(1, None)),
            snapshot(2, 34, user(1, None, deleted=True)),
        ],
        history=[(1, None, None, 10, 34)],
        users=[],
    )


@golden
def test_a_snapshot_that_comes_late_between_an_equal_one_and_one_that_does_not_understand() -> Case:
    """A snapshot between others has its say, though the one before it shows the same and the one after it nothing."""
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
