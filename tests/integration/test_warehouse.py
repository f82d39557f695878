"""The warehouse equals its model (model.py) over random histories, and in single cases."""

import datetime as dt
import multiprocessing
import random
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from time import sleep
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import databases
from tests.support.audited import AuditedStore
from tests.support.histories import EXAMPLES, limit_examples, run_step, steps
from tests.support.model import Record
from tests.support.project import fork
from tests.support.store import (
    DATASETS,
    MIDNIGHT,
    MISCHIEF,
    USER,
    Store,
    at,
    declare,
    describe,
    incremental,
    intervals,
    load_error,
    make_dataset,
    names,
    snapshot,
    user,
)
from wholeday.errors import DatasetError, WarehouseError
from wholeday.load import cast
from wholeday.load import day as load_stage
from wholeday.load.clean_day import CleanDay
from wholeday.load.warehouse import Warehouse
from wholeday.schema.record import Field, Json
from wholeday.schema.reject import Reject
from wholeday.schema.tables import Declared

# -- random histories ---------------------------------------------------------------------------------------------

LOADS = (
    "dataset date mode source window_start window_stop started_at extracted_at as_of pages extracted rejected "
    "forgotten duplicate superseded unchanged inserted updated deleted vanished reverted watermark "
    "raw_sha256 clean_sha256 transform_version accepted loaded_at seconds pruned_at details"
)


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["users", "orders", "carts"])
@pytest.mark.timeout(120 + EXAMPLES)
def test_any_history_of_loads_equals_the_model(name: str, new_database: Callable[[], str]) -> None:
    """G2: users, history and counts equal the model after every load. The tables depend only on the set of days, and
    the audit finds no difference."""

    @given(st.lists(steps, min_size=4, max_size=10), st.randoms(use_true_random=False))
    @limit_examples(new_database)
    def hold(steps: list[Any], shuffle: random.Random) -> None:
        store, days, forgotten = AuditedStore(new_database(), name), {}, set()
        for step in steps:
            run_step(step, store, days, forgotten)
        assert not store.loads or store.audit() == []
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


# -- order of records ---------------------------------------------------------------------------------------------


@pytest.fixture
def store(new_database: Callable[[], str]) -> Store:
    return Store(new_database())


def test_times_of_mixed_precision_are_ordered(store: Store) -> None:
    """A time in seconds precedes a fraction of the same second. Both are stored in the same width."""
    day = incremental(1, user(1, "a"), user(1, "b"))
    times = {"a": MIDNIGHT, "b": MIDNIGHT + dt.timedelta(milliseconds=500)}
    unit = {"a": "s", "b": "ms"}
    rows = [
        pa.record_batch(
            {"user_id": [1], "name": [name], "updated_at": pa.array([times[name]], pa.timestamp(unit[name], "UTC"))}
        )
        for name in ("b", "a")
    ]
    store.warehouse.load(CleanDay(describe(day, extracted=2), rows, []))
    assert store.query("select name, updated_at from users") == [("b", "2026-11-01T00:00:00.500000Z")]
    assert [at for (at,) in store.query("select at from _users_events order by at")] == [
        "2026-11-01T00:00:00.000000Z",
        "2026-11-01T00:00:00.500000Z",
    ]


def test_last_record_of_equal_times_wins(store: Store) -> None:
    """The rule holds within a batch and across batches. A record with `updated_at` wins over one without."""
    timed = [user(1, "a", 5), user(1, "b", 5), user(1, "c", 5), user(1, "d", 5)]
    untimed = [user(2, row) for row in "abcd"]
    mixed = [user(3, "a", 9), user(3, "b"), user(3, "c", 4), user(3, "d")]
    store.load(snapshot(1, 30, *timed, *untimed, *mixed))
    assert names(store) == {1: "d", 2: "d", 3: "a"}
    store.load(incremental(2, *(user(key, row, 31) for key in (1, 2) for row in "yzx")))
    assert names(store) == {1: "x", 2: "x", 3: "a"}
    assert store.warehouse.read_markers()[0].duplicate == 9


# -- one transaction ----------------------------------------------------------------------------------------------


def test_load_is_atomic(store: Store) -> None:
    """G1: an error in the middle of the rows leaves the tables unchanged, without a marker."""
    store.load(incremental(1, user(1, "a", 5)))
    before = store.dump_all()
    day = incremental(2, user(1, "b", 30), user(2, "b", 30))

    def break_off() -> Iterator[pa.RecordBatch]:
        yield from store.batches(day)
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        store.warehouse.load(CleanDay(describe(day, extracted=2), break_off(), []))
    assert store.dump_all() == before


REFUSE_MARKERS = {
    "sqlite": ["create trigger no_marker before insert on loads begin select raise(abort, 'no marker'); end"],
    "postgresql": [
        "create function refuse() returns trigger language plpgsql as 'begin raise ''no marker''; end'",
        "create trigger no_marker before insert on loads for each row execute function refuse()",
    ],
}


def test_failed_marker_rolls_back_all_rows(store: Store) -> None:
    """G1: the marker is written last."""
    store.load(incremental(1, user(1, "a", 5)))
    store.execute(*REFUSE_MARKERS[store.kind])
    before = store.dump_all()
    with pytest.raises(WarehouseError, match="a constraint or trigger in the database stands in the way"):
        store.load(incremental(2, user(1, "b", 30), user(2, "?", rejected=True)))
    assert store.dump_all() == before


@pytest.mark.slow
def test_load_after_deleted_marker_changes_nothing(store: Store) -> None:
    """A deleted marker causes another load of the day. Existing rows are not counted as new."""
    days = [snapshot(1, 30, user(1, "a", 5), user(2, "a", 5)), incremental(2, user(1, "b", 40)), snapshot(3, 80)]
    for day in days:
        store.load(day)
    before = store.dump()
    for day in days:
        store.unmark(day)
        marker = store.load(day)
        assert not any(getattr(marker, x) for x in ("inserted", "updated", "deleted", "vanished", "reverted"))
        assert store.dump() == before


def test_late_day_does_not_overwrite_newer_rows(store: Store) -> None:
    """G3: a late day is added to the history only."""
    store.load(incremental(3, user(1, "new", 60)))
    assert store.load(incremental(1, user(1, "old", 10))).superseded == 1
    assert names(store) == {1: "new"}
    assert intervals(store) == [("old", 10, 60), ("new", 60, None)]


def test_load_with_equal_hashes_reads_no_rows(store: Store) -> None:
    day = incremental(1, user(1, "a", 5))
    marker = store.load(day)
    assert store.warehouse.load(CleanDay(describe(day, extracted=1), None, None)) == marker  # type: ignore[arg-type]
    assert store.warehouse.read_markers() == [marker]


def load_slowly(url: str, started: Any, results: Any) -> None:
    """Load a day whose rows arrive after a delay. Runs in a process of its own."""
    store, day = Store(url), incremental(1, user(1, "a", 5))

    def wait() -> Iterator[pa.RecordBatch]:
        started.set()
        sleep(0.3)
        yield from store.batches(day)

    results.put(store.warehouse.load(CleanDay(describe(day, extracted=1), wait(), [])))


@pytest.mark.slow
def test_second_loader_waits_for_the_marker(store: Store) -> None:
    """Two processes load the same first day. One reads the rows, and both return its marker."""
    context = multiprocessing.get_context("fork")
    started, results = context.Event(), context.Queue()
    first = fork(load_slowly, store.url, started, results)
    assert started.wait(30)
    marker = store.warehouse.load(CleanDay(describe(incremental(1, user(1, "a", 5)), extracted=1), None, None))  # type: ignore[arg-type]
    assert marker == results.get(timeout=30)
    first.join()


@pytest.mark.slow
def test_concurrent_first_loads_succeed(store: Store) -> None:
    """Creating the file or schema and its tables takes the same lock as any other write."""
    stores = [Store(store.url) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: stores[n].load(incremental(n + 1, user(n, "a", 24 * n))), range(8)))
    assert len(stores[0].warehouse.read_markers()) == len(names(stores[0])) == 8


# -- invalid input ------------------------------------------------------------------------------------------------


def test_counts_unlike_the_manifests_fail_the_load(store: Store) -> None:
    """G4: the error states the counts of the manifests and of the files."""
    day = incremental(1, user(1, "a", 5))
    assert "the manifests say 2 records, 0 of them rejected, the files hold 1 rows and 0 rejects" in load_error(
        store, day, extracted=2
    )
    assert "the manifests say 1 records, 1 of them rejected" in load_error(store, day, rejected=1)


def test_unexpected_row_count_fails_the_load(store: Store) -> None:
    """G4: a load must change the number of users by what it counts."""
    store.load(incremental(1, user(1, "a", 5), user(2, "a", 5)))
    store.execute("delete from users where user_id = 1", *MISCHIEF[store.kind])
    assert "the table has grown by 0 rows" in load_error(store, incremental(2, user(3, "a", 30)))


RESERVED = ["loads", "Rejects", "_stage", "_users_days", "_growth", "pg_class", "sqlite_users", 'a"b']


@pytest.mark.parametrize("name", [*RESERVED, "n" * 53])
def test_reserved_or_long_table_name_is_refused(name: str) -> None:
    words = "choose another, not _…, pg_…, sqlite_…, loads, rejects"
    with pytest.raises(DatasetError, match=words if name in RESERVED else "a column may have 63 bytes, a table 52"):
        Declared.read(name, DATASETS["users"].columns)


@pytest.mark.slow
def test_other_dataset_names_are_accepted(store: Store) -> None:
    """Covers names of temporary tables, of SQL aliases and of tables of other datasets, and the longest name."""
    store.load(incremental(1, user(1, "a", 5)))
    for name in ("stage", "moved", "was", "users_days", "n" * 52):
        other = Warehouse(store.url, make_dataset(name, USER, "user_id"))
        for day in (incremental(1, user(1, "a", 5)), snapshot(2, 50, user(1, "b", 45), user(2, "c", 45))):
            other.load(CleanDay(describe(day, dataset=name, extracted=len(day.records)), store.batches(day), []))
        assert store.query(f'select user_id, name from "{name}" order by 1') == [(1, "b"), (2, "c")], name
        assert names(store) == {1: "a"}, name


@pytest.mark.parametrize(
    "name", ["xmin", "xmax", "cmin", "cmax", "ctid", "tableoid", "rowid", "ROWID", "oid", "_rowid_", "_state"]
)
def test_reserved_column_name_is_refused(name: str) -> None:
    """PostgreSQL refuses such a table. In SQLite the column would hide the row order."""
    with pytest.raises(DatasetError, match=f"table users: the warehouse needs the name {name}: rename the column"):
        _ = make_dataset("users", USER | {name: str | None}, "user_id").declared


def test_table_of_another_program_is_not_changed(store: Store) -> None:
    """The load fails, and changes or adds nothing."""
    store.make_room()
    for kind, definition, message in (
        ("table loads", "(id integer primary key, weight real)", "the table loads has no column dataset"),
        ("table users", "(user_id integer primary key, name text)", "there is no table _users_past"),
        ("view users_history", "as select 42 as mine", "choose another database"),
    ):
        store.execute(f"create {kind} {definition}")
        assert message in load_error(store, incremental(1, user(1, "a", 5)))
        store.execute(f"drop {kind}")


REFUSAL = {
    "sqlite": ["create trigger no before update on users begin select raise(abort, 'not Kowalczyk'); end"],
    "postgresql": [
        "create function refuse() returns trigger language plpgsql as 'begin raise exception ''not %'', new.name; end'",
        "create trigger no before update on users for each row execute function refuse()",
    ],
}


@pytest.mark.slow
def test_violated_constraint_is_one_line_without_data(store: Store) -> None:
    """The refused rows hold personal data, and so may the message of a trigger."""
    store.load(incremental(1, user(1, "a", 5), user(2, "Kowalczyk", 5)))
    index = ["create unique index one_name on users (name)"]
    for sql, message in (
        (index, {"sqlite": "users.name", "postgresql": '"one_name"'}),
        (
            ["drop index one_name", *REFUSAL[store.kind]],
            {"sqlite": "a trigger raises an error", "postgresql": "function refuse() line 1 at RAISE"},
        ),
    ):
        store.execute(*sql)
        line = load_error(store, incremental(2, user(1, "Kowalczyk", 30)))
        assert f"{message[store.kind]}: a constraint or trigger in the database stands in the way: drop it" in line
        assert "Kowalczyk" not in line


def test_markers_without_their_tables_fail_the_load(store: Store) -> None:
    """Otherwise the rows of the days in `loads` would be missing without an error."""
    store.load(incremental(1, user(1, "a", 5)))
    tables = ("users", "_users_past", "_users_days", "_users_events", "_users_changes", "_users_forgotten")
    store.execute("drop view users_history", *(f"drop table {name}" for name in tables))
    assert "or markers in loads" in load_error(store, incremental(2, user(1, "a", 5)))


def test_new_declared_column_is_added_to_the_tables(store: Store) -> None:
    """The column is null for the days that are already loaded."""
    store.load(incremental(1, user(1, "a", 5)))
    declare(store, USER | {"age": int | None}, "user_id")
    day = incremental(2, user(2, "b", 30))
    rows = [batch.append_column("age", pa.array([7] * batch.num_rows, pa.int32())) for batch in store.batches(day)]
    store.warehouse.load(CleanDay(describe(day, extracted=1), rows, []))
    assert store.query("select user_id, name, age from users order by 1") == [(1, "a", None), (2, "b", 7)]
    assert store.query("select user_id, name, age from users_history order by 1") == [(1, "a", None), (2, "b", 7)]


KEY_AND_TIME = {"user_id": int, "updated_at": dt.datetime | None}


OTHER_DECLARATIONS: list[tuple[dict[str, Any], list[str], dict[str, str]]] = [
    (
        USER | {"user_id": str},
        ["user_id"],
        {"sqlite": "user_id as INTEGER, not TEXT", "postgresql": "user_id as bigint, not text"},
    ),
    (
        KEY_AND_TIME | {"nickname": str | None},
        ["user_id"],
        dict.fromkeys(databases.DATABASES, "a column name too many"),
    ),
    (
        USER | {"name": dt.date},
        ["user_id"],
        {"sqlite": "name as TEXT, not DATE", "postgresql": "name as text, not date"},
    ),
    (
        USER | {"shop": str},
        ["user_id", "shop"],
        dict.fromkeys(databases.DATABASES, "the primary key (user_id), not (user_id, shop)"),
    ),
]


def test_other_declaration_changes_are_refused(store: Store) -> None:
    """Covers removed columns, changed types and changed keys. The error comes before any row is read."""
    store.load(incremental(1, user(1, "a", 5)))
    for columns, key, message in OTHER_DECLARATIONS:
        declare(store, columns, *key)
        found = load_error(store, incremental(2, user(1, "b", 30)), rows=None)
        assert "the table users has " in found
        assert message[store.kind] in found


def test_unsupported_declaration_is_refused(store: Store) -> None:
    """The declaration is checked before the database is created."""
    for columns, message in (
        ({"user_id": int, "name": str | None}, "needs the column updated_at: datetime | None"),
        (USER | {"date": dt.date}, "the warehouse needs the name date"),
        (USER | {"deleted": bool, "at": str}, "needs the name deleted"),
        (USER | {"ü" * 32: str}, f"the name {'ü' * 32} is longer than 63 bytes: choose a shorter"),
        (USER | {"Name": str | None}, "the columns name and Name have one name"),
    ):
        declare(store, columns, "user_id")
        assert message in load_error(store, incremental(1, user(1, "a", 5)))
        assert databases.is_empty(store.url)


def test_decimals_beyond_a_real_are_refused_by_sqlite(store: Store) -> None:
    """The class decides, not the data. PostgreSQL stores them."""
    declare(store, USER | {"total": Decimal | None}, "user_id", total=Field(max_digits=16, decimal_places=2))
    day = incremental(1)
    if store.kind == "sqlite":
        assert "max_digits is 16: declare fewer digits, or use PostgreSQL" in load_error(store, day)
        assert store.list_tables() == []
    else:
        assert store.warehouse.load(CleanDay(describe(day), [], [])).extracted == 0


def one_row(**columns: Any) -> list[pa.RecordBatch]:
    batch = {"user_id": pa.array([1]), "name": pa.array(["a"]), "updated_at": pa.array([MIDNIGHT])} | columns
    return [pa.record_batch({name: column for name, column in batch.items() if column is not None})]


UNFIT = [
    (one_row(name=None), "the rows have the columns user_id, updated_at, the table has user_id, name, updated_at"),
    (one_row(age=pa.array([1])), "the rows have the columns user_id, name, updated_at, age, the table has"),
    (one_row(user_id=pa.array([None], pa.int64())), "a row has no user_id, which is its key"),
    (one_row(user_id=pa.array(["1"])), "column user_id holds text ('1'), it is declared integer"),
    (one_row(user_id=pa.array([1.0])), "column user_id holds float (1.0), it is declared integer"),
    (one_row(user_id=pa.array([2**63], pa.uint64())), "user_id holds uint64, and a value does not fit int64"),
    (one_row(name=pa.array([1])), "column name holds integer (1), it is declared text"),
    (one_row(updated_at=pa.array([1795168815])), "updated_at holds integer (1795168815), it is declared timestamp"),
    (one_row(updated_at=pa.array([MIDNIGHT.replace(tzinfo=None)])), "give it a zone in clean with .dt.tz_localize"),
    (one_row(updated_at=pa.array([2**62 + 1], pa.timestamp("ns", "UTC"))), "a value does not fit timestamp[us"),
    (one_row(name=pa.array(["a\0"])), "the column name holds a NUL character"),
    (
        one_row(updated_at=pa.array([2**62], pa.timestamp("us", "UTC"))),
        "holds a timestamp outside the years 1 to 9999",
    ),
]


@pytest.mark.slow
def test_rows_that_do_not_fit_fail_the_load(store: Store) -> None:
    """The error names the column. Earlier rows of the load are rolled back."""
    store.load(incremental(1, user(1, "a", 5)))
    for rows, message in UNFIT:
        assert message in load_error(store, incremental(2), rows=[*one_row(), *rows], extracted=2)


TEXTS = [pa.array(["1"], width) for width in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), "str"))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "fitting", "others"),
    [
        (int, [pa.array([1], width) for width in (pa.int8(), pa.uint64())], [pa.array([True])]),
        (str, TEXTS, [pa.array([1]), pa.array([b"1"]), pa.array([MIDNIGHT.date()])]),
    ],
    ids=["integer", "text"],
)
def test_key_of_another_type_fails_the_load(store: Store, key: Any, fitting: list[Any], others: list[Any]) -> None:
    """A cast key would not match the keys of rejects and tombstones. Any width of the right type is accepted."""
    declare(store, USER | {"user_id": key}, "user_id")
    for date, column in enumerate(fitting, 1):
        store.warehouse.load(CleanDay(describe(snapshot(date, 24 * date), extracted=1), one_row(user_id=column), []))
    assert len(names(store)) == 1
    for column in others:
        message = load_error(store, incremental(9), rows=one_row(user_id=column), extracted=1)
        assert "column user_id holds " in message


def test_second_snapshot_with_equal_as_of_fails(store: Store) -> None:
    """Neither of the two would be the later one."""
    store.load(snapshot(1, 10, user(1, "a", 5)))
    assert "the same as_of as 2026-11-01" in load_error(store, snapshot(2, 10, user(1, "b", 5)))


# -- stored values ------------------------------------------------------------------------------------------------


def test_reading_a_missing_warehouse_creates_nothing(store: Store) -> None:
    """The same holds for a file or schema without the warehouse tables."""

    def check() -> None:
        warehouse = store.warehouse
        assert (warehouse.read_markers(), warehouse.watermark_before(dt.date.max)) == ([], None)
        assert (warehouse.count(), warehouse.count_rejects()) == (0, [])

    check()
    assert databases.is_empty(store.url)
    store.load(incremental(1, user(1, "a", 5)))
    store.execute("drop view users_history", *(f"drop table {name}" for name in store.list_tables()))
    check()
    assert store.list_tables() == []


def test_watermark_is_the_maximum_of_earlier_days(store: Store) -> None:
    """A load stores min(highest updated_at, as_of), or null. Other datasets have watermarks of their own."""
    other = Store(store.url, "orders")
    other.load(incremental(1, Record(("a", 1), at(9), "a")))
    store.load(incremental(1, user(1, "a", 5), user(2, "a", 7)))
    store.load(incremental(2, user(1, "a", 999)))
    store.load(incremental(3, user(1, "a")))
    assert [marker.watermark for marker in store.warehouse.read_markers()] == [at(7), at(49), None]
    before = [store.warehouse.watermark_before(dt.date(2026, 11, day)) for day in (1, 2, 3, 4)]
    assert before == [None, at(7), at(49), at(49)]


def test_growth_is_computed_per_day(store: Store) -> None:
    """Days are in UTC. Deleted users offset new ones. Other datasets are not counted."""
    store.load(incremental(1, user(1, "a", 5), user(2, "a", 20)))
    store.load(incremental(2, user(1, "b", 30), user(2, "a", 40, deleted=True), user(3, "a", 47.9999)))
    Store(store.url, "orders").load(incremental(1, Record(("a", 1), at(9), "a")))
    assert store.warehouse.compute_growth() == {dt.date(2026, 11, 1): 2, dt.date(2026, 11, 2): 0}


def test_pruned_day_is_recorded_once(store: Store) -> None:
    """The time is not set if the marker has changed meanwhile."""
    marker = store.load(incremental(1, user(1, "a", 5)))
    assert store.warehouse.mark_pruned(marker)
    noted = store.warehouse.read_marker(marker.date)
    assert noted
    assert noted.pruned_at > marker.loaded_at
    assert store.warehouse.mark_pruned(marker)
    assert store.warehouse.read_marker(marker.date) == noted
    assert not store.warehouse.mark_pruned(marker.replace(raw_sha256="another"))
    assert store.warehouse.read_marker(dt.date(2026, 11, 9)) is None


def test_tables_match_the_documentation(store: Store) -> None:
    """Covers the columns of every table, their order, and the format of values."""
    store.load(snapshot(1, 10, user(1, "a", 5), user(2, "?", rejected=True)))
    tables = ("users", "users_history", "loads", "rejects")
    columns = {name: databases.list_columns(store.url, name) for name in tables}
    assert columns == {
        "users": ["user_id", "name", "updated_at", "valid_from", "ingested_at", "load_date"],
        "users_history": ["user_id", "name", "updated_at", "valid_from", "valid_to"],
        "loads": LOADS.split(),
        "rejects": ["dataset", "load_date", "part", "line", "reason", "field", "key", "record"],
    }
    assert store.query("select * from users") == [
        (1, "a", *["2026-11-01T05:00:00.000000Z"] * 2, "2026-11-01T11:00:00.000000Z", "2026-11-01")
    ]
    assert store.query("select * from rejects") == [("users", "2026-11-01", 0, 2, "is wrong", "name", "[2]", '"?"')]


def test_details_count_values_replaced_by_null(store: Store) -> None:
    """Only users who stay are counted. A day that replaces itself is compared with its earlier load."""
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


def test_rejects_of_a_day_replace_earlier_ones(store: Store) -> None:
    """The rejects of other days stay."""
    store.load(incremental(1, user(1, "?", rejected=True), user(2, "?", rejected=True)))
    store.load(incremental(2, user(3, "?", rejected=True)))
    store.load(incremental(1, user(1, "a", 5), user(2, "?", rejected=True)))
    assert store.query("select load_date, key from rejects order by 1") == [
        ("2026-11-01", "[2]"),
        ("2026-11-02", "[3]"),
    ]


def test_reject_with_invalid_key_is_kept(new_database: Callable[[], str]) -> None:
    """It counts as a reject without a key: the row it may refer to is absent from the snapshot."""
    store = Store(new_database(), "orders")
    store.load(snapshot(1, 10, Record(("1", 1), at(5), "a")))
    keys = ['["1"]', '["1", 1, 1]', "[1, 1]", '["1", true]', '["1", 1.0]', f'["1", {2**70}]', "1", None]
    keys += [r'["\ud800", 1]', r'["\u0000", 1]', f'["1", {"9" * 5000}]']  # Python refuses to parse so many digits
    rejects = [
        Reject(line=line, reason="is wrong", field=None, key=key, record="{}") for line, key in enumerate(keys, 1)
    ]
    store.warehouse.load(CleanDay(describe(snapshot(2, 40), extracted=len(keys), rejected=len(keys)), [], rejects))
    assert store.query("select key from rejects order by line") == [(key,) for key in keys]
    assert names(store) == {}


def test_values_of_every_type_are_preserved(store: Store) -> None:
    """Covers special characters, booleans, and the limits of numbers, dates and times. NaN becomes null."""
    types = {"text": str, "whole": int, "yes": bool, "real": float, "day": dt.date, "time": dt.time}
    types |= {"id": uuid.UUID, "data": Json, "total": Decimal}
    columns = KEY_AND_TIME | {name: type_ | None for name, type_ in types.items()}
    declare(store, columns, "user_id", total=Field(max_digits=15, decimal_places=2))
    text, data = "Zoë \x01'\"\\\n\\.\n\t🙂", '{"a":1,"b":[100000000000000000000,0.5]}'
    ids = [str(uuid.UUID(int=number)) for number in (0, 2**128 - 1)]
    rows = pa.record_batch(
        {
            "user_id": pa.array([1, 2, 3]),
            "updated_at": pa.array([*cast.LIMITS["timestamp"], None], pa.timestamp("us", "UTC")),
            "text": pa.array([text, "", None]),
            "whole": pa.array([2**63 - 1, -(2**63), None]),
            "yes": pa.array([True, False, None]),
            "real": pa.array([float("nan"), -0.5, 1e300]),
            "day": pa.array([dt.date.min, dt.date.max, None]),
            "time": pa.array([dt.time.min, dt.time.max, None], pa.time64("us")),
            "id": pa.array([*ids, None]),
            "data": pa.array([data, "[]", None]),
            "total": pa.array([Decimal("9999999999999.99"), Decimal("-0.35"), None], pa.decimal128(15, 2)),
        }
    )
    for date in (1, 2):
        store.warehouse.load(CleanDay(describe(snapshot(date, 30 * date), extracted=3), [rows], []))
    assert [row[1:8] for row in store.query("select * from users order by 1")] == [
        ("0001-01-01T00:00:00.000000Z", text, 2**63 - 1, 1, None, "0001-01-01", "00:00:00.000000"),
        ("9999-12-31T23:59:59.999999Z", "", -(2**63), 0, -0.5, "9999-12-31", "23:59:59.999999"),
        (None, None, None, None, 1e300, None, None),
    ]
    assert store.query("select id, data, total from users order by user_id") == [
        (ids[0], data, 9999999999999.99),
        (ids[1], "[]", -0.35),
        (None, None, None),
    ]
    assert store.warehouse.read_markers()[1].unchanged == 3
    assert len(store.query("select * from _users_changes")) == 3


def test_erased_user_is_never_stored_again(store: Store) -> None:
    """Rows and rejects of the user are counted as forgotten."""
    store.load(snapshot(1, 10, user(1, "a", 5), user(2, "a", 5)))
    store.forget(1)
    marker = store.load(snapshot(2, 40, user(1, "b", 35), user(1, "?", rejected=True), user(2, "b", 35)))
    assert (marker.forgotten, marker.rejected, marker.updated) == (2, 0, 1)
    assert names(store) == {2: "b"}
    assert store.query("select * from rejects") == []


def test_unchanged_snapshot_adds_only_its_day(store: Store) -> None:
    """G7: storage grows with the number of changes, not with the number of snapshots."""
    for date in range(1, 6):
        store.load(snapshot(date, 24 * date, user(1, "a", 5), user(2, "b")))
    assert store.query("select count(*) from _users_changes") == [(2,)]
    assert store.query("select user_id, load_date from users") == [(1, "2026-11-01"), (2, "2026-11-01")]


def test_equal_bytes_of_newer_code_update_the_version(store: Store) -> None:
    """Nothing else in the marker changes, and no row is read."""
    day = incremental(1, user(1, "a", 5))
    marker = store.load(day) and store.warehouse.read_markers()[0]
    newer = describe(day, extracted=1, transform_version="2")
    assert store.warehouse.load(CleanDay(newer, None, None)) == marker.replace(transform_version="2")  # type: ignore[arg-type]
    assert store.warehouse.read_markers() == [marker.replace(transform_version="2")]


def test_new_extraction_with_equal_hashes_is_loaded(store: Store) -> None:
    """A later snapshot of the same users overrides the records between the two extractions."""
    first, second = snapshot(1, 10, user(1, "a")), snapshot(1, 40, user(1, "a"))
    store.warehouse.load(CleanDay(describe(first, extracted=1, raw_sha256="same"), store.batches(first), []))
    store.load(incremental(2, user(1, "b", 30)))
    assert names(store) == {1: "b"}
    store.warehouse.load(CleanDay(describe(second, extracted=1, raw_sha256="same"), store.batches(second), []))
    assert names(store) == {1: "a"}


def test_replaced_snapshot_counts_removed_user_as_reverted(store: Store) -> None:
    """The new extraction precedes a snapshot without the user, so it no longer decides."""
    store.load(snapshot(1, 40, user(2, "a")))
    store.load(snapshot(2, 60, user(1, "a"), user(2, "a")))
    marker = store.load(snapshot(2, 30, user(1, "a"), user(2, "a")))
    assert names(store) == {2: "a"}
    assert (marker.vanished, marker.reverted, marker.superseded) == (0, 1, 1)


def test_rebuild_without_a_loaded_day_changes_nothing(store: Store) -> None:
    """It returns the missing days.

    Only days that are named explicitly are dropped, as others may be loaded meanwhile.
    """
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


def test_rows_of_unknown_days_do_not_block_loads(store: Store) -> None:
    """After someone empties the table of days, the next load succeeds. Verify reports the remaining rows."""
    store.load(incremental(1, user(1, "a", 5)))
    store.execute("delete from _users_days", "delete from loads")
    assert store.load(incremental(2, user(1, "b", 30), user(2, "b", 30))).inserted == 1
    assert names(store) == {1: "b", 2: "b"}
