"""The warehouse against its definition (model.py) over random histories, and case by case."""

import dataclasses
import datetime as dt
import multiprocessing
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import sleep
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from tests.support import databases
from tests.support.histories import EXAMPLES, limit_examples, steps, take
from tests.support.model import Record
from tests.support.store import (
    MIDNIGHT,
    MISCHIEF,
    Store,
    at,
    declare,
    declared,
    describe,
    fails,
    incremental,
    intervals,
    names,
    snapshot,
    user,
)
from wholeday.errors import ConfigError, WarehouseError
from wholeday.load import cast
from wholeday.load import day as load_stage
from wholeday.load.clean_day import CleanDay
from wholeday.load.warehouse import Warehouse
from wholeday.schema.reject import Reject
from wholeday.schema.tables import Declared

# -- random histories ---------------------------------------------------------------------------------------------

LOADS = (
    "dataset date mode source window_start window_stop started_at extracted_at as_of pages extracted rejected "
    "forgotten duplicate superseded unchanged inserted updated deleted vanished reverted watermark "
    "raw_sha256 clean_sha256 transform_version accepted loaded_at seconds pruned_at details"
)


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["users", "orders"])
@pytest.mark.timeout(120 + EXAMPLES)
def test_any_history_of_loads_says_what_the_definition_says(name: str, new_database: Callable[[], str]) -> None:
    """G2: users, history and counts are the model's after every load; the tables depend only on the set of days."""

    @given(st.lists(steps, min_size=4, max_size=10), st.randoms(use_true_random=False))
    @limit_examples(new_database)
    def hold(steps: list[Any], shuffle: random.Random) -> None:
        store, days, forgotten = Store(new_database(), name), {}, set()
        for step in steps:
            take(step, store, days, forgotten)
        fresh = Store(new_database(), name)
        order = list(days.values())
        shuffle.shuffle(order)
        for n, day in enumerate(order):
            fresh.load(day)
            for key in forgotten if n == 0 else ():
                fresh.forget(key)
        if days:
            assert fresh.dump() == store.dump()

    hold()


# -- case by case -------------------------------------------------------------------------------------------------


@pytest.fixture
def store(new_database: Callable[[], str]) -> Store:
    return Store(new_database())


def test_times_of_mixed_precision_are_compared_as_times(store: Store) -> None:
    """A time in seconds comes before one with a fraction of the same second, and is stored in the same width."""
    day = incremental(1, user(1, "a"), user(1, "b"))
    times = {"a": MIDNIGHT, "b": MIDNIGHT + dt.timedelta(milliseconds=500)}
    unit = {"a": "s", "b": "ms"}
    rows = [
        pa.record_batch(
            {"user_id": [1], "name": [name], "updated_at": pa.array([times[name]], pa.timestamp(unit[name], "UTC"))}
        )
        for name in ("b", "a")
    ]
    store.warehouse.load(describe(day, extracted=2), rows, [])
    assert store.query("select name, updated_at from users") == [("b", "2026-11-01T00:00:00.500000Z")]
    assert [at for (at,) in store.query("select at from _users_events order by at")] == [
        "2026-11-01T00:00:00.000000Z",
        "2026-11-01T00:00:00.500000Z",
    ]


def test_of_records_of_one_time_the_later_in_the_file_stays(store: Store) -> None:
    """In one batch or in two, whether they have an `updated_at` or not; one with it goes before one without."""
    timed = [user(1, "a", 5), user(1, "b", 5), user(1, "c", 5), user(1, "d", 5)]
    untimed = [user(2, row) for row in "abcd"]
    mixed = [user(3, "a", 9), user(3, "b"), user(3, "c", 4), user(3, "d")]
    store.load(snapshot(1, 30, *timed, *untimed, *mixed))
    assert names(store) == {1: "d", 2: "d", 3: "a"}
    store.load(incremental(2, *(user(key, row, 31) for key in (1, 2) for row in "yzx")))
    assert names(store) == {1: "x", 2: "x", 3: "a"}
    assert store.warehouse.read_markers()[0].duplicate == 9


# -- one transaction ----------------------------------------------------------------------------------------------


def test_rows_and_marker_come_together_or_not_at_all(store: Store) -> None:
    """G1: an error in the middle of the rows leaves the same content, and no marker."""
    store.load(incremental(1, user(1, "a", 5)))
    before = store.dump_all()
    day = incremental(2, user(1, "b", 30), user(2, "b", 30))

    def break_off() -> Iterator[pa.RecordBatch]:
        yield from store.batches(day)
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        store.warehouse.load(describe(day, extracted=2), break_off(), [])
    assert store.dump_all() == before


REFUSE_MARKERS = {
    "sqlite": ["create trigger no_marker before insert on loads begin select raise(abort, 'no marker'); end"],
    "postgresql": [
        "create function refuse() returns trigger language plpgsql as 'begin raise ''no marker''; end'",
        "create trigger no_marker before insert on loads for each row execute function refuse()",
    ],
}


def test_without_its_marker_no_row_is_kept(store: Store) -> None:
    """G1: where the marker, which is written last, cannot be written, nothing else is."""
    store.load(incremental(1, user(1, "a", 5)))
    store.execute(*REFUSE_MARKERS[store.kind])
    before = store.dump_all()
    with pytest.raises(WarehouseError, match="a constraint or trigger in the database stands in the way"):
        store.load(incremental(2, user(1, "b", 30), user(2, "?", rejected=True)))
    assert store.dump_all() == before


def test_a_day_whose_marker_was_deleted_changes_nothing_when_loaded_again(store: Store) -> None:
    """Deleting a marker asks for the day again; the rows that are there already are not counted as new."""
    days = [snapshot(1, 30, user(1, "a", 5), user(2, "a", 5)), incremental(2, user(1, "b", 40)), snapshot(3, 80)]
    for day in days:
        store.load(day)
    before = store.dump()
    for day in days:
        store.unmark(day)
        marker = store.load(day)
        assert not any(getattr(marker, x) for x in ("inserted", "updated", "deleted", "vanished", "reverted"))
        assert store.dump() == before


def test_an_older_day_never_overwrites_a_newer_one(store: Store) -> None:
    """G3: a day that is loaded late finds its place in the history, and leaves the present alone."""
    store.load(incremental(3, user(1, "new", 60)))
    assert store.load(incremental(1, user(1, "old", 10))).superseded == 1
    assert names(store) == {1: "new"}
    assert intervals(store) == [("old", 10, 60), ("new", 60, None)]


def test_a_marker_with_the_same_hashes_is_returned_without_reading_a_row(store: Store) -> None:
    """What is loaded is loaded: the rows are not even asked for."""
    day = incremental(1, user(1, "a", 5))
    marker = store.load(day)
    assert store.warehouse.load(describe(day, extracted=1), None, None) == marker  # type: ignore[arg-type]
    assert store.warehouse.read_markers() == [marker]


def load_slowly(url: str, started: Any, results: Any) -> None:
    """In a process of its own: load a day whose rows take a while to come."""
    store, day = Store(url), incremental(1, user(1, "a", 5))

    def wait() -> Iterator[pa.RecordBatch]:
        started.set()
        sleep(0.3)
        yield from store.batches(day)

    results.put(store.warehouse.load(describe(day, extracted=1), wait(), []))


@pytest.mark.slow
def test_a_second_loader_waits_and_finds_the_marker(store: Store) -> None:
    """Of two processes that load the same first day at the same time one reads the rows; both return its marker."""
    context = multiprocessing.get_context("spawn")
    started, results = context.Event(), context.Queue()
    first = context.Process(target=load_slowly, args=(store.url, started, results))
    first.start()
    assert started.wait(30)
    marker = store.warehouse.load(describe(incremental(1, user(1, "a", 5)), extracted=1), None, None)  # type: ignore[arg-type]
    assert marker == results.get(timeout=30)
    first.join()


def test_many_first_loads_at_once_do_not_meet_a_lock(store: Store) -> None:
    """Making the file, or the schema, and its tables is waited for like any other write."""
    stores = [Store(store.url) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: stores[n].load(incremental(n + 1, user(n, "a", 24 * n))), range(8)))
    assert len(stores[0].warehouse.read_markers()) == len(names(stores[0])) == 8


# -- what does not fit --------------------------------------------------------------------------------------------


def test_records_that_are_not_accounted_for_fail_the_load(store: Store) -> None:
    """G4: manifests that promise other records, or other rejects, than the files hold are refused, with the numbers."""
    day = incremental(1, user(1, "a", 5))
    assert "the manifests say 2 records, 0 of them rejected, the files hold 1 rows and 0 rejects" in fails(
        store, day, extracted=2
    )
    assert "the manifests say 1 records, 1 of them rejected" in fails(store, day, rejected=1)


def test_a_table_that_was_changed_by_hand_is_found_out(store: Store) -> None:
    """G4: a first load must change the number of users by what it counts."""
    store.load(incremental(1, user(1, "a", 5), user(2, "a", 5)))
    store.execute("delete from users where user_id = 1", *MISCHIEF[store.kind])
    assert "the table has grown by 0 rows" in fails(store, incremental(2, user(3, "a", 30)))


@pytest.mark.parametrize(
    "name",
    ["loads", "Rejects", "_stage", "_users_days", "_growth", "pg_class", "sqlite_users", 'a"b'],
)
def test_a_name_that_the_warehouse_needs_itself_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="give both one name, not _…, pg_…, sqlite_…, loads, rejects"):
        Declared.read(name, lambda metadata: sa.Table(name, metadata, *declared()))


@pytest.mark.parametrize("name", ["stage", "moved", "was", "users_days", "n" * 52])
def test_dataset_may_have_any_other_name(store: Store, name: str) -> None:
    """Names of temporary tables, of aliases in the SQL and of another dataset's tables, and the longest one."""
    store.load(incremental(1, user(1, "a", 5)))
    other = Warehouse(store.url, name, lambda metadata: sa.Table(name, metadata, *declared()))
    for day in (incremental(1, user(1, "a", 5)), snapshot(2, 50, user(1, "b", 45), user(2, "c", 45))):
        other.load(describe(day, extracted=len(day.records)), store.batches(day), [])
    assert store.query(f'select user_id, name from "{name}" order by 1') == [(1, "b"), (2, "c")]
    assert names(store) == {1: "a"}


def test_longer_dataset_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="a column may have 63 bytes, a table 52"):
        Declared.read("n" * 53, lambda metadata: sa.Table("n" * 53, metadata, *declared()))


@pytest.mark.parametrize(
    "name", ["xmin", "xmax", "cmin", "cmax", "ctid", "tableoid", "rowid", "ROWID", "oid", "_rowid_", "_state"]
)
def test_a_column_that_a_database_has_by_itself_is_refused(name: str) -> None:
    """PostgreSQL makes no such table, and in SQLite it would hide the order in which rows came."""
    with pytest.raises(ConfigError, match=f"table users: the warehouse needs the name {name}: rename the column"):
        Declared.read("users", lambda metadata: sa.Table("users", metadata, *declared(name=name)))


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("create table loads (id integer primary key, weight real)", "the table loads has no column dataset"),
        ("create table users (user_id integer primary key, name text)", "there is no table _users_days"),
    ],
)
def test_another_programs_table_is_not_touched(store: Store, sql: str, message: str) -> None:
    """A table of the same name that was not made here is refused, and nothing is changed or added."""
    store.make_room()
    store.execute(sql)
    assert message in fails(store, incremental(1, user(1, "a", 5)))


REFUSAL = {
    "sqlite": ["create trigger no before update on users begin select raise(abort, 'not Kowalczyk'); end"],
    "postgresql": [
        "create function refuse() returns trigger language plpgsql as 'begin raise exception ''not %'', new.name; end'",
        "create trigger no before update on users for each row execute function refuse()",
    ],
}


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("create unique index one_name on users (name)", {"sqlite": "users.name", "postgresql": '"one_name"'}),
        (REFUSAL, {"sqlite": "a trigger raises an error", "postgresql": "function refuse() line 1 at RAISE"}),
    ],
    ids=["index", "trigger"],
)
def test_a_constraint_or_trigger_that_somebody_added_is_one_line_without_what_is_stored(
    store: Store, sql: Any, message: dict[str, str]
) -> None:
    """The rows that it refuses are of users: neither they nor the words of others are told."""
    store.load(incremental(1, user(1, "a", 5), user(2, "Kowalczyk", 5)))
    store.execute(*(sql[store.kind] if sql is REFUSAL else [sql]))
    line = fails(store, incremental(2, user(1, "Kowalczyk", 30)))
    assert f"{message[store.kind]}: a constraint or trigger in the database stands in the way: drop it" in line
    assert "Kowalczyk" not in line


def test_markers_without_their_tables_are_not_believed(store: Store) -> None:
    """Whoever drops the tables and keeps `loads` is told so: those days would be missing in silence."""
    store.load(incremental(1, user(1, "a", 5)))
    tables = ("users", "_users_days", "_users_events", "_users_changes", "_users_forgotten")
    store.execute("drop view users_history", *(f"drop table {name}" for name in tables))
    assert "or markers in loads" in fails(store, incremental(2, user(1, "a", 5)))


def test_a_column_that_is_added_to_the_declaration_is_added_to_the_warehouse(store: Store) -> None:
    """The tables and the view get the column, with nothing in it for the days that are loaded."""
    store.load(incremental(1, user(1, "a", 5)))
    declare(store, *declared(), sa.Column("age", sa.Integer))
    day = incremental(2, user(2, "b", 30))
    rows = [batch.append_column("age", pa.array([7] * batch.num_rows, pa.int32())) for batch in store.batches(day)]
    store.warehouse.load(describe(day, extracted=1), rows, [])
    assert store.query("select user_id, name, age from users order by 1") == [(1, "a", None), (2, "b", 7)]
    assert store.query("select user_id, name, age from users_history order by 1") == [(1, "a", None), (2, "b", 7)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            declared(key=sa.Text),
            {"sqlite": "user_id as INTEGER, not TEXT", "postgresql": "user_id as bigint, not text"},
        ),
        (declared(name="nickname"), "a column name too many"),
        (
            [*declared()[::2], sa.Column("name", sa.Date)],
            {"sqlite": "name as TEXT, not DATE", "postgresql": "name as text, not date"},
        ),
        ([*declared(), sa.Column("shop", sa.Text, primary_key=True)], "the primary key (user_id), not (user_id, shop)"),
    ],
)
def test_any_other_difference_from_the_declaration_is_refused(store: Store, columns: Any, message: str) -> None:
    """A column gone, of another type, or in the key, is an error that names it, before a row is read."""
    store.load(incremental(1, user(1, "a", 5)))
    declare(store, *columns)
    found = fails(store, incremental(2, user(1, "b", 30)), rows=None)
    assert "the table users has " in found
    assert (message if isinstance(message, str) else message[store.kind]) in found


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (declared()[:2], "it needs a column updated_at"),
        ([*declared(), sa.Column("_state", sa.Boolean)], "the warehouse needs the name _state"),
        ([*declared(), sa.Column("date", sa.Date)], "the warehouse needs the name date"),
        ([*declared(), sa.Column("deleted", sa.Boolean), sa.Column("at", sa.Text)], "needs the name deleted, at"),
        ([*declared(), sa.Column("n" * 64, sa.Text)], "is longer than 63 bytes: choose a shorter name"),
        (
            [*declared(), sa.Column("v", sa.Numeric(12, 2))],
            "column v cannot be stored as Numeric(precision=12, scale=2)",
        ),
        ([*declared(), sa.Column("v", sa.JSON)], "column v cannot be stored as JSON(): use a column for each field"),
        ([*declared(), sa.Column("v", sa.DateTime)], "as DateTime(): use DateTime(timezone=True); times without"),
        ([*declared(), sa.Column("v", sa.Uuid)], "column v cannot be stored as Uuid(): use Text"),
        ([*declared(), sa.Column("v", sa.Time)], "column v cannot be stored as Time(): use Text"),
        ([*declared(), sa.Column("v", sa.Interval)], "column v cannot be stored as Interval(): use Text"),
        ([*declared(), sa.Column("v", sa.LargeBinary)], "column v cannot be stored as LargeBinary(): use Text"),
        ([*declared(), sa.Column("v", sa.Enum("a", "b"))], "column v cannot be stored as Enum('a', 'b'): use Text"),
        (declared(key=sa.Uuid), "column user_id cannot be stored as Uuid(): use Text"),
        (declared(key=sa.Float), "its primary key must be the natural key"),
    ],
)
def test_a_table_that_cannot_be_stored_is_a_config_error(store: Store, columns: Any, message: str) -> None:
    """A declaration is judged before the database is made."""
    declare(store, *columns)
    assert message in fails(store, incremental(1, user(1, "a", 5)))
    assert databases.is_empty(store.url)


def one_row(**columns: Any) -> list[pa.RecordBatch]:
    batch = {"user_id": pa.array([1]), "name": pa.array(["a"]), "updated_at": pa.array([MIDNIGHT])} | columns
    return [pa.record_batch({name: column for name, column in batch.items() if column is not None})]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (one_row(name=None), "the rows have the columns user_id, updated_at, the table has user_id, name, updated_at"),
        (one_row(age=pa.array([1])), "the rows have the columns user_id, name, updated_at, age, the table has"),
        (one_row(user_id=pa.array([None], pa.int64())), "a row has no user_id, which is its key"),
        (one_row(user_id=pa.array(["1"])), "column user_id holds text ('1'), the table declares integer"),
        (one_row(user_id=pa.array([1.0])), "column user_id holds float (1.0), the table declares integer"),
        (
            one_row(user_id=pa.array([2**63], pa.uint64())),
            "column user_id holds uint64, and a value does not fit int64",
        ),
        (one_row(name=pa.array([1])), "column name holds integer (1), the table declares text"),
        (one_row(updated_at=pa.array([1795168815])), "for an epoch, convert it in clean with pd.to_datetime("),
        (one_row(updated_at=pa.array([MIDNIGHT.replace(tzinfo=None)])), "give it a zone in clean with .dt.tz_localize"),
        (one_row(updated_at=pa.array([2**62 + 1], pa.timestamp("ns", "UTC"))), "a value does not fit timestamp[us"),
        (one_row(name=pa.array(["a\0"])), "the column name holds a NUL character"),
        (one_row(updated_at=pa.array([2**62], pa.timestamp("us", "UTC"))), "holds a time outside the years 1 to 9999"),
    ],
)
def test_rows_that_do_not_fit_the_table_are_refused(store: Store, rows: Any, message: str) -> None:
    """One line names the column, and nothing is written, not even by the rows before."""
    store.load(incremental(1, user(1, "a", 5)))
    day = incremental(2)
    assert message in fails(store, day, rows=[*one_row(), *rows], extracted=2)


@pytest.mark.parametrize(
    ("key", "fitting", "others"),
    [
        (sa.BigInteger, [pa.array([1], width) for width in (pa.int8(), pa.uint64())], [pa.array([True])]),
        (
            sa.Text,
            [
                pa.array(["1"], width)
                for width in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), "str"))
            ],
            [pa.array([1]), pa.array([b"1"]), pa.array([MIDNIGHT.date()])],
        ),
    ],
    ids=["integer", "text"],
)
def test_a_key_of_another_kind_than_the_table_s_is_refused_and_not_cast(
    store: Store, key: Any, fitting: list[Any], others: list[Any]
) -> None:
    """The keys of rejects, and of those who are forgotten, would be those of others. Of its kind any width will do."""
    declare(store, *declared(key=key))
    for date, column in enumerate(fitting, 1):
        store.warehouse.load(describe(snapshot(date, 24 * date), extracted=1), one_row(user_id=column), [])
    assert len(names(store)) == 1
    for column in others:
        message = fails(store, incremental(9), rows=one_row(user_id=column), extracted=1)
        assert "column user_id holds " in message


def test_two_snapshots_of_one_instant_are_refused(store: Store) -> None:
    """Of two snapshots with the same `as_of` none could be the later."""
    store.load(snapshot(1, 10, user(1, "a", 5)))
    assert "the same as_of as 2026-11-01" in fails(store, snapshot(2, 10, user(1, "b", 5)))


# -- what is stored -----------------------------------------------------------------------------------------------


def test_reading_what_is_not_there_gives_nothing_and_makes_nothing(store: Store) -> None:
    """Neither a missing file or schema, nor one without our tables, is changed by a question."""

    def ask() -> tuple[object, ...]:
        questions = store.warehouse
        return (
            questions.read_markers(),
            questions.watermark_before(dt.date.max),
            questions.count(),
            questions.count_rejects(),
        )

    assert ask() == ([], None, 0, [])
    assert databases.is_empty(store.url)
    store.load(incremental(1, user(1, "a", 5)))
    store.execute("drop view users_history", *(f"drop table {name}" for name in store.list_tables()))
    assert ask() == ([], None, 0, [])
    assert store.list_tables() == []


def test_the_watermark_is_the_highest_of_the_days_before_and_never_later_than_as_of(store: Store) -> None:
    """A load records min(highest updated_at, as_of), null without any; another dataset's are not mixed in."""
    other = Store(store.url, "orders")
    other.load(incremental(1, Record(("a", 1), at(9), "a")))
    for day in (
        incremental(1, user(1, "a", 5), user(2, "a", 7)),
        incremental(2, user(1, "a", 999)),
        incremental(3, user(1, "a")),
    ):
        store.load(day)
    assert [marker.watermark for marker in store.warehouse.read_markers()] == [at(7), at(49), None]
    before = [store.warehouse.watermark_before(dt.date(2026, 11, day)) for day in (1, 2, 3, 4)]
    assert before == [None, at(7), at(49), at(49)]


def test_the_growth_of_a_table_is_told_by_day(store: Store) -> None:
    """In UTC; who goes counts against who comes, and whom another dataset has does not count."""
    store.load(incremental(1, user(1, "a", 5), user(2, "a", 20)))
    store.load(incremental(2, user(1, "b", 30), user(2, "a", 40, deleted=True), user(3, "a", 47.9999)))
    Store(store.url, "orders").load(incremental(1, Record(("a", 1), at(9), "a")))
    assert store.warehouse.compute_growth() == {dt.date(2026, 11, 1): 2, dt.date(2026, 11, 2): 0}


def test_it_is_on_record_that_the_files_of_a_day_are_given_up(store: Store) -> None:
    """Once and for all, unless the marker is another by then."""
    marker = store.load(incremental(1, user(1, "a", 5)))
    assert store.warehouse.mark_pruned(marker)
    noted = store.warehouse.read_marker(marker.date)
    assert noted
    assert noted.pruned_at > marker.loaded_at
    assert store.warehouse.mark_pruned(marker)
    assert store.warehouse.read_marker(marker.date) == noted
    assert not store.warehouse.mark_pruned(marker.replace(raw_sha256="another"))
    assert store.warehouse.read_marker(dt.date(2026, 11, 9)) is None


def test_the_tables_look_as_they_are_documented(store: Store) -> None:
    """The columns of every table, in order, and the form of what is in them."""
    store.load(snapshot(1, 10, user(1, "a", 5), user(2, "?", rejected=True)))
    tables = ("users", "users_history", "loads", "rejects")
    columns = {name: databases.list_columns(store.url, name) for name in tables}
    assert columns == {
        "users": ["user_id", "name", "updated_at", "ingested_at", "load_date"],
        "users_history": ["user_id", "name", "updated_at", "valid_from", "valid_to"],
        "loads": LOADS.split(),
        "rejects": ["dataset", "load_date", "part", "line", "reason", "field", "key", "record"],
    }
    assert store.query("select * from users") == [
        (1, "a", "2026-11-01T05:00:00.000000Z", "2026-11-01T11:00:00.000000Z", "2026-11-01")
    ]
    assert store.query("select * from rejects") == [("users", "2026-11-01", 0, 2, "is wrong", "name", "[2]", '"?"')]


def test_details_count_the_values_that_a_load_nulls(store: Store) -> None:
    """Of users who stay, whether the day is new or replaces itself; users who leave are in the counts."""
    assert store.load(snapshot(1, 10, *(user(n, "a", 5) for n in range(1, 6)))).details == {}
    nulls = snapshot(2, 40, user(1, None, 30), user(2, None), user(3, "a", 5), user(4, "a", 5))
    marker = store.load(nulls)
    assert (marker.vanished, marker.details) == (1, {"nulled": {"name": 2, "updated_at": 1}})
    assert (
        load_stage.describe_load(marker) == "loaded, 2 updated, 1 vanished, 2 unchanged; nulled: name 2, updated_at 1"
    )
    again = snapshot(2, 41, user(1, "a", 5), user(2, "a", 5), user(3, None, 5), user(4, "b", None))
    marker = store.load(again)
    assert marker.details == {"nulled": {"name": 1, "updated_at": 1}}
    assert store.query("select details from loads order by date") == [
        ("{}",), ('{"nulled": {"name": 1, "updated_at": 1}}',),
    ]  # fmt: skip


def test_the_rejects_of_a_day_replace_its_earlier_ones(store: Store) -> None:
    """A day that is transformed anew has its own rejects only; other days keep theirs."""
    store.load(incremental(1, user(1, "?", rejected=True), user(2, "?", rejected=True)))
    store.load(incremental(2, user(3, "?", rejected=True)))
    store.load(incremental(1, user(1, "a", 5), user(2, "?", rejected=True)))
    assert store.query("select load_date, key from rejects order by 1") == [
        ("2026-11-01", "[2]"),
        ("2026-11-02", "[3]"),
    ]


def test_a_reject_whose_key_is_no_key_of_the_table_is_kept_and_names_nobody(new_database: Callable[[], str]) -> None:
    """Such a record says as little about a row as one without a key: the row it might mean is absent."""
    store = Store(new_database(), "orders")
    store.load(snapshot(1, 10, Record(("1", 1), at(5), "a")))
    keys = [
        '["1"]',
        '["1", 1, 1]',
        "[1, 1]",
        '["1", true]',
        '["1", 1.0]',
        f'["1", {2**70}]',
        r'["\ud800", 1]',
        r'["\u0000", 1]',
        "1",
        None,
    ]
    rejects = [
        Reject(line=line, reason="is wrong", field=None, key=key, record="{}") for line, key in enumerate(keys, 1)
    ]
    store.warehouse.load(describe(snapshot(2, 40), extracted=len(keys), rejected=len(keys)), [], rejects)
    assert store.query("select key from rejects order by line") == [(key,) for key in keys]
    assert names(store) == {}


def test_every_kind_of_value_comes_back_as_it_was(store: Store) -> None:
    """Text with anything in it, the ends of the integers, of dates and of times, booleans; NaN is null."""
    types = {"text": sa.String(5), "whole": sa.BigInteger, "yes": sa.Boolean, "real": sa.Float, "day": sa.Date}
    columns = [sa.Column(name, type_) for name, type_ in types.items()]
    declare(store, *declared()[::2], *columns)
    text = "Zoë \x01'\"\\\n\\.\n\t🙂"
    rows = pa.record_batch(
        {
            "user_id": pa.array([1, 2, 3]),
            "updated_at": pa.array([*cast.LIMITS["time"], None], pa.timestamp("us", "UTC")),
            "text": pa.array([text, "", None]),
            "whole": pa.array([2**63 - 1, -(2**63), None]),
            "yes": pa.array([True, False, None]),
            "real": pa.array([float("nan"), -0.5, 1e300]),
            "day": pa.array([dt.date.min, dt.date.max, None]),
        }
    )
    for date in (1, 2):
        store.warehouse.load(describe(snapshot(date, 30 * date), extracted=3), [rows], [])
    assert [row[1:7] for row in store.query("select * from users order by 1")] == [
        ("0001-01-01T00:00:00.000000Z", text, 2**63 - 1, 1, None, "0001-01-01"),
        ("9999-12-31T23:59:59.999999Z", "", -(2**63), 0, -0.5, "9999-12-31"),
        (None, None, None, None, 1e300, None),
    ]
    assert store.warehouse.read_markers()[1].unchanged == 3
    assert len(store.query("select * from _users_changes")) == 3


def test_a_forgotten_key_is_never_stored_again(store: Store) -> None:
    """Its rows and rejects are counted as forgotten, and are in no table."""
    store.load(snapshot(1, 10, user(1, "a", 5), user(2, "a", 5)))
    store.forget(1)
    marker = store.load(snapshot(2, 40, user(1, "b", 35), user(1, "?", rejected=True), user(2, "b", 35)))
    assert (marker.forgotten, marker.rejected, marker.updated) == (2, 0, 1)
    assert names(store) == {2: "b"}
    assert store.query("select * from rejects") == []


def test_unchanged_snapshots_add_nothing_but_their_day(store: Store) -> None:
    """G7: what is stored grows with what changed, not with how often it was read."""
    for date in range(1, 6):
        store.load(snapshot(date, 24 * date, user(1, "a", 5), user(2, "b")))
    assert store.query("select count(*) from _users_changes") == [(2,)]
    assert store.query("select user_id, load_date from users") == [(1, "2026-11-01"), (2, "2026-11-01")]


def test_a_view_of_another_program_is_left_alone(store: Store) -> None:
    """Its name is taken; nothing is replaced that was not made here."""
    store.make_room()
    store.execute("create view users_history as select 42 as mine")
    assert "choose another database" in fails(store, incremental(1, user(1, "a", 5)))


def test_a_day_made_anew_by_other_code_to_the_same_bytes_says_so(store: Store) -> None:
    """The marker takes the version and is otherwise as it was; no row is read."""
    day = incremental(1, user(1, "a", 5))
    marker = store.load(day) and store.warehouse.read_markers()[0]
    newer = dataclasses.replace(describe(day, extracted=1), transform_version="2")
    assert store.warehouse.load(newer, None, None) == marker.replace(transform_version="2")  # type: ignore[arg-type]
    assert store.warehouse.read_markers() == [marker.replace(transform_version="2")]


def test_a_day_that_was_read_again_is_loaded_though_its_files_have_the_same_hashes(store: Store) -> None:
    """The same users at another time are another fact: a snapshot read later ends what a record said in between."""
    first, second = snapshot(1, 10, user(1, "a")), snapshot(1, 40, user(1, "a"))
    store.warehouse.load(describe(first, extracted=1, raw_sha256="same"), store.batches(first), [])
    store.load(incremental(2, user(1, "b", 30)))
    assert names(store) == {1: "b"}
    store.warehouse.load(describe(second, extracted=1, raw_sha256="same"), store.batches(second), [])
    assert names(store) == {1: "a"}


def test_a_user_who_goes_although_the_snapshot_lists_them_was_reverted_and_has_not_vanished(store: Store) -> None:
    """A snapshot that is read again, now before one without the user, no longer has the last word."""
    store.load(snapshot(1, 40, user(2, "a")))
    store.load(snapshot(2, 60, user(1, "a"), user(2, "a")))
    marker = store.load(snapshot(2, 30, user(1, "a"), user(2, "a")))
    assert names(store) == {2: "a"}
    assert (marker.vanished, marker.reverted, marker.superseded) == (0, 1, 1)


def test_a_rebuild_that_lacks_a_loaded_day_changes_nothing(store: Store) -> None:
    """It returns the day. Only a day that is given up by its date goes: another may have been loaded since."""
    kept, lost = incremental(1, user(1, "a", 5)), incremental(2, user(2, "b", 30))
    for day in (kept, lost):
        store.load(day)
    before = store.dump_all()
    for give_up in ((), [dt.date(2026, 11, 3)]):
        loads = [CleanDay(describe(kept, extracted=1), store.batches(kept), [])]
        assert store.warehouse.rebuild(loads, give_up) == {dt.date(2026, 11, 2)}
        assert store.dump_all() == before
    loads = [CleanDay(describe(kept, extracted=1), store.batches(kept), [])]
    assert store.warehouse.rebuild(loads, [dt.date(2026, 11, 2)]) == set()
    assert names(store) == {1: "a"}


def test_rows_of_days_that_nobody_knows_do_not_keep_the_first_day_from_being_loaded(store: Store) -> None:
    """Whoever empties the table of days by hand gets the next day right; `verify` names the rows that are left."""
    store.load(incremental(1, user(1, "a", 5)))
    store.execute("delete from _users_days", "delete from loads")
    assert store.load(incremental(2, user(1, "b", 30), user(2, "b", 30))).inserted == 1
    assert names(store) == {1: "b", 2: "b"}


def test_columns_that_differ_in_case_only_are_refused(store: Store) -> None:
    """No database could tell them apart."""
    declare(store, *declared(), sa.Column("Name", sa.Text))
    assert "two columns differ in upper and lower case only" in fails(store, incremental(1, user(1, "a", 5)))


def test_a_reject_key_that_python_cannot_read_names_nobody(store: Store) -> None:
    """A number of thousands of digits is a reject like any other."""
    day = snapshot(1, 1)
    reject = Reject(line=1, reason="too large", field="id", key=f"[{'9' * 5000}]", record="{}")
    store.warehouse.load(describe(day, extracted=1, rejected=1), [], [reject])
    assert store.query("select count(*) from rejects") == [(1,)]
