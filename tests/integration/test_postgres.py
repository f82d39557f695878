"""Behavior specific to a PostgreSQL warehouse. Behavior shared with SQLite is tested elsewhere."""

import datetime as dt
import json
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.users import USERS
from tests.support import ROOT, databases, find_port, read_extra
from tests.support.cluster import PASSWORD, USER, Cluster
from tests.support.model import Record
from tests.support.project import luigi_run, query, run, run_stages
from tests.support.store import (
    MISCHIEF,
    Store,
    at,
    declare,
    describe,
    incremental,
    load_error,
    names,
    snapshot,
    user,
)
from tests.support.store import USER as COLUMNS
from wholeday.commands.forget import forget
from wholeday.errors import ConfigError, InterruptedTransactionError, WarehouseError
from wholeday.load import postgres
from wholeday.load.clean_day import CleanDay
from wholeday.load.database import Database, find_database
from wholeday.load.markers import find_loaded
from wholeday.load.postgres import binary_copy
from wholeday.load.postgres.types import to_type
from wholeday.schema.record import Field, Json
from wholeday.tasks.stages import read_workspace
from wholeday.tasks.targets import LoadMarker

pytestmark = pytest.mark.slow

DAY = dt.date(2026, 11, 21)


@pytest.fixture
def store(cluster: Cluster) -> Store:
    return Store(cluster.make_url())


# -- URLs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown", "params"),
    [
        ("postgresql+psycopg://me@db:5433/w", "postgresql+psycopg://me@db:5433/w", "me - db 5433 w"),
        ("postgresql://me:p%40%2F@db/w", "postgresql://me:***@db/w", "me p@/ db - w"),
        ("postgresql://me:p%3Aq:r@[::1]/w%20x", "postgresql://me:***@[::1]/w%20x", "me p:q:r ::1 - w x"),
        ("postgresql:///w?host=/run/pg&port=1", "postgresql:///w?host=/run/pg&port=1", "- - /run/pg 1 w"),
        ("postgresql:///w?host=a,b&password=hush", "postgresql:///w?host=a,b&password=***", "- hush a,b - w"),
        ("postgresql://db/w?user=me&options=-csearch_path=x", None, "me - db - w"),
    ],
)
def test_url_parses_as_in_sqlalchemy_and_hides_password(url: str, shown: str | None, params: str) -> None:
    """The query may contain any parameter of libpq."""
    database = postgres.Database(url)
    assert str(database) == (shown or url)
    said = [database.params.get(name, "-") for name in ("user", "password", "host", "port", "dbname")]
    assert " ".join(said) == params
    read = sa.make_url(url.replace("postgresql:", "postgresql+psycopg:"))
    options = read.translate_connect_args(username="user", database="dbname") | dict(read.query)
    assert {name: str(value) for name, value in options.items()}.items() <= database.params.items()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hush/x@db/w",
        "postgresql://me:hush#x@db/w",
        "postgresql://me:hush?x@db/w",
        "postgresql://me:hush@db:port/w",
        "postgresql://me:hush@[db/w",
        "postgresql://me:hush@db/w#x",
        "postgresql://me:hush@db/w?x",
        "postgresql://me:hush@db/w?password=hush",
    ],
)
def test_malformed_url_is_one_line_without_its_password(url: str) -> None:
    """A password with a slash would be parsed as a host, and shown."""
    with pytest.raises(ConfigError) as caught:
        find_database(url)
    assert str(caught.value).startswith("[pipeline] database = postgresql://")
    assert "hush" not in str(caught.value)


def test_urls_in_the_documentation_are_valid() -> None:
    """Covers the reference, the guide and error messages. libpq accepts every parameter."""
    text = "".join(
        (ROOT / name).read_text()
        for name in (
            "docs/reference/configuration.md",
            "docs/how-to/postgresql.md",
            "wholeday/load/postgres/database.py",
        )
    )
    urls = {url.rstrip("`'…") for url in re.findall(r"postgresql\+psycopg://[^\s`;)\"]+", text)}
    assert len(urls) > 3
    for url in urls:
        params = postgres.Database(url).params
        assert psycopg.conninfo.conninfo_to_dict(**params) == params


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a connection needs psycopg. Creating a target does not. The message names the requirement of the extra."""
    for name in [name for name in sys.modules if name.startswith("wholeday.load.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    marker = LoadMarker("postgresql+psycopg://db/w", "users", DAY)
    with pytest.raises(ConfigError, match=f"PostgreSQL needs .*: pip install '{re.escape(read_extra('postgres'))}'$"):
        marker.exists()


# -- failed connections and statements ----------------------------------------------------------------------------


def refuse(url: str) -> str:
    """Return the error of asking for a day. Loading a day must fail with the same one."""
    with pytest.raises((ConfigError, WarehouseError)) as asked:
        find_loaded(url, "users", [DAY])
    with pytest.raises((ConfigError, WarehouseError)) as loaded:
        Store(url).load(incremental(1))
    assert type(asked.value) is type(loaded.value)
    assert str(asked.value) == str(loaded.value)
    assert not {PASSWORD, "p%40ss"} & set(str(asked.value).split())
    return str(asked.value)


def test_failed_connection_is_one_line_at_once(cluster: Cluster) -> None:
    """Covers a closed port, an unknown host, a wrong password, and an unknown database, role or setting."""
    began = time.monotonic()
    url = cluster.make_url(cluster.port)
    port = find_port()
    lines = {
        cluster.make_url(port): f'server at "127.0.0.1", port {port} failed: Connection refused: check that it runs',
        url.replace("127.0.0.1", "nowhere.invalid"): "failed to resolve host 'nowhere.invalid'",
        url.replace("%40", "%41"): 'password authentication failed for user "loader": check that it runs, and that',
        url.replace("/warehouse", "/nothing"): 'database "nothing" does not exist: check that it runs',
        url.replace("loader:", "nobody:"): 'password authentication failed for user "nobody"',
        url.replace("-csearch_path", "-cno_such"): 'unrecognized configuration parameter "no_such"',
        url.replace("options=", "optoins="): 'invalid connection option "optoins": remove that parameter',
    }
    for bad, words in lines.items():
        line = refuse(bad)
        assert words in line
        assert "loader:***@/" in line or "nobody:***@/" in line
    assert time.monotonic() - began < 20


def test_missing_privilege_is_one_line(cluster: Cluster, store: Store) -> None:
    """Covers creating a schema, writing to it, and a read-only transaction."""
    cluster.execute("create role guest login")
    url = store.url.replace("//loader@", "//guest@")
    line = "permission denied for database warehouse: grant this role the right, and run again"
    with pytest.raises(WarehouseError, match=line):
        Store(url).load(incremental(1))
    store.load(incremental(1))
    with pytest.raises(
        WarehouseError, match=r"permission denied for schema s\d+: grant this role the right, and run again"
    ):
        Store(url).load(incremental(1))
    reading = f"{store.url} -cdefault_transaction_read_only=on"
    with pytest.raises(WarehouseError, match="in a read-only transaction: a standby, or read-only: name"):
        Store(reading).load(incremental(2))


def test_search_path_without_a_schema_is_one_line(cluster: Cluster) -> None:
    """The first entry is the schema named after the role, which does not exist."""
    url = cluster.make_url().replace("search_path=", "search_path=$user,no")
    with pytest.raises(WarehouseError, match=r"no schema of the search path exists: name one with \?options="):
        Store(url).load(incremental(1))


def test_cancelled_statement_is_one_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person or a timeout may cancel a statement."""
    monkeypatch.setitem(postgres.SETTINGS, "statement_timeout", "1ms")
    with pytest.raises(
        WarehouseError, match="canceling statement due to statement timeout: somebody cancelled it there"
    ):
        store.load(incremental(1, *(user(key, "a", 5) for key in range(5000))))


def sort(database: Database) -> None:
    """Sort more rows than fit into the allowed memory."""
    with database.connect(create=True) as db:
        db.run("set work_mem = '64kB'")
        db.run("select count(*) from (select n from generate_series(1, 100000) n order by n desc) numbers")


def test_temporary_file_limit_is_one_line(cluster: Cluster) -> None:
    """Any statement that sorts may reach the limit, for example in forget."""
    cluster.execute(f"alter role {USER} set temp_file_limit = 0")
    try:
        with pytest.raises(WarehouseError, match=r"temp_file_limit .*: raise that limit of the server for this role"):
            sort(find_database(cluster.make_url()))
    finally:
        cluster.execute(f"alter role {USER} reset temp_file_limit")


def test_key_too_long_for_index_is_one_line(cluster: Cluster) -> None:
    """The day before it stays loaded."""
    store = Store(cluster.make_url(), "orders")
    store.load(incremental(1, Record(("a", 1), at(5), "a")))
    with pytest.raises(WarehouseError, match=r"index row .* maximum .*: a key is too long for an index: reject"):
        store.load(incremental(2, Record(("".join(map(chr, range(1000, 9000))), 1), at(30), "b")))
    assert names(store) == {("a", 1): "a"}


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["alter table users alter name set not null"], 'column "name" of relation "users" violates not-null'),
        (["alter table users add constraint short check (length(name) < 3)"], 'violates check constraint "short"'),
        (
            ["create table orders (buyer bigint references users)", "insert into orders values (2)"],
            'foreign key constraint "orders_buyer_fkey" on table "orders"',
        ),
    ],
    ids=["null", "check", "reference"],
)
def test_violated_constraint_of_others_is_one_line(store: Store, statements: list[str], message: str) -> None:
    """The line omits the row that PostgreSQL shows, as it may hold personal data."""
    store.load(snapshot(1, 1, user(1, "a", 0), user(2, "b", 0)))
    store.execute(*statements)
    line = load_error(store, snapshot(2, 30, user(1, None if "null" in message else "Kowalczyk", 29)))
    assert message in line
    assert ": a constraint or trigger in the database stands in the way: drop it" in line
    assert "Kowalczyk" not in line
    assert "row contains" not in line


def test_unsupported_character_is_one_line(cluster: Cluster) -> None:
    """The database has an encoding that is not UTF-8."""
    cluster.execute(f"create database latin owner {USER} encoding 'LATIN1' template template0")
    store = Store(cluster.make_url().replace("/warehouse?", "/latin?"))
    store.load(incremental(1, user(1, "Zoë", 5)))
    with pytest.raises(WarehouseError, match="cannot hold every character: choose one that was created with encoding"):
        store.load(incremental(2, user(1, "Київ", 30)))
    assert names(store) == {1: "Zoë"}


# -- schemas ------------------------------------------------------------------------------------------------------


def test_only_the_first_schema_is_used(store: Store) -> None:
    """It is created if missing. Warehouse tables in later schemas are neither read nor written."""
    store.load(incremental(1, user(1, "a", 5)))
    before = store.dump_all()
    first = f'"My ""Own"" {id(store)}"'
    other = Store(store.url.replace("search_path=", f"search_path={first.replace(' ', chr(92) + ' ')},"))
    assert find_loaded(other.url, "users", [dt.date(2026, 11, 1)]) == set()
    assert other.warehouse.read_markers() == []
    other.load(incremental(1, user(2, "b", 5)))
    assert names(other) == {2: "b"}
    assert store.dump_all() == before
    assert find_loaded(other.url, "users", [dt.date(2026, 11, 1)]) == {dt.date(2026, 11, 1)}


def test_default_schema_is_the_role_s_or_public(cluster: Cluster) -> None:
    """PostgreSQL has the same default."""
    cluster.execute("create role plain login")
    cluster.execute("create database plain owner plain")
    url = cluster.make_url().replace("loader@/warehouse", "plain@/plain").partition("&options")[0]
    Store(url).load(incremental(1, user(1, "a", 5)))
    assert databases.query(url, "select schemaname from pg_tables where tablename = 'users'") == [("public",)]
    databases.execute(url, "create schema plain")
    assert find_loaded(url, "users", [dt.date(2026, 11, 1)]) == set()


def test_loads_table_of_another_program_is_one_line(store: Store) -> None:
    """The table of another program has no column `date`."""
    store.make_room()
    store.execute("create table loads (truck text)")
    with pytest.raises(
        WarehouseError,
        match=r'cannot ask which days are loaded: column "dataset" does not exist: if the table loads is another',
    ):
        find_loaded(store.url, "users", [DAY])


# -- stored values ------------------------------------------------------------------------------------------------


def test_columns_have_native_types(store: Store) -> None:
    """Covers times with a zone, dates and booleans. Every integer has 64 bits."""
    types = {"yes": bool, "real": float, "day": dt.date, "time": dt.time, "id": uuid.UUID, "data": Json}
    total = Field(max_digits=38, decimal_places=9)
    declare(store, COLUMNS | types | {"total": Decimal}, "user_id", total=total)
    store.warehouse.load(CleanDay(describe(incremental(1)), [], []))
    types = "select column_name, data_type from information_schema.columns where table_name = '{}' and table_schema = "
    assert dict(store.query(types.format("users") + "current_schema()")) == {
        "user_id": "bigint",
        "name": "text",
        "updated_at": "timestamp with time zone",
        "yes": "boolean",
        "real": "double precision",
        "day": "date",
        "time": "time without time zone",
        "id": "uuid",
        "data": "jsonb",
        "total": "numeric",
        "valid_from": "timestamp with time zone",
        "ingested_at": "timestamp with time zone",
        "load_date": "date",
    }


def test_text_keys_are_compared_bytewise(cluster: Cluster) -> None:
    """Columns of different collations cannot be compared, so temporary tables need the same one."""
    store = Store(cluster.make_url(), "orders")
    for number, key in enumerate(("a", "A", "ä", "Z"), 1):
        store.load(snapshot(number, 24 * number, Record((key, 1), at(number), "a"), Record((key, 2), None, "b")))
    columns = "select distinct column_name, collation_name from information_schema.columns where table_schema = "
    where = "current_schema() and data_type = 'text' and table_name like '%orders%'"
    found = store.query(f"{columns} {where} order by 1")
    assert [tuple(row) for row in found] == [("mode", None), ("name", None), ("shop", "C")]


def test_commit_is_synchronous_despite_role_settings(store: Store) -> None:
    """A loaded day must survive a power cut."""
    with find_database(f"{store.url} -csynchronous_commit=off").connect(create=True) as db:
        assert db.run("show synchronous_commit").fetchone() == ("on",)


@pytest.mark.parametrize("counts", ["on", "off"])
def test_row_counts_work_without_server_statistics(cluster: Cluster, counts: str) -> None:
    """The server counts the changes of a transaction. If it does not, the load counts the rows."""
    store = Store(cluster.make_url())
    cluster.execute(f"alter role {USER} set track_counts = {counts}")
    try:
        store.load(snapshot(1, 30, user(1, "a", 5), user(2, "a", 5)))
        assert store.query("select current_setting('track_counts')") == [(counts,)]
        store.load(snapshot(2, 60, user(2, "b", 50), user(3, "a", 50), user(4, "a", 50)))
        store.execute(*MISCHIEF["postgresql"])
        assert "the table has grown by 0 rows" in load_error(store, incremental(3, user(5, "a", 70)))
    finally:
        cluster.execute(f"alter role {USER} reset track_counts")


def test_partitioned_table_is_loaded(store: Store) -> None:
    """The user created the partitions. The server counts changes per partition."""
    store.load(incremental(1, user(1, "a", 5), user(2, "a", 5)))
    store.execute(
        "drop view users_history",
        "alter table users rename to whole",
        "alter table whole rename constraint users_pkey to whole_pkey",
        "create table users (like whole including all) partition by hash (user_id)",
        "create table users_even partition of users for values with (modulus 2, remainder 0)",
        "create table users_odd partition of users for values with (modulus 2, remainder 1)",
        "insert into users select * from whole",
        "drop table whole",
    )
    assert store.load(incremental(2, user(3, "a", 30), user(1, "b", 30))).inserted == 1


def test_sqlalchemy_and_pandas_accept_the_same_url(store: Store) -> None:
    """The schema of the URL applies there as well."""
    store.load(snapshot(1, 10, user(1, "a", 5)))
    engine = sa.create_engine(store.url, poolclass=sa.NullPool)
    frame = pd.read_sql("select * from users", engine)
    assert frame[["user_id", "name"]].to_dict("records") == [{"user_id": 1, "name": "a"}]
    assert frame["updated_at"][0] == at(5)


def test_first_load_restores_all_indexes(store: Store, cluster: Cluster) -> None:
    """A load into empty tables drops the indexes first. It restores indexes of other programs as well."""
    store.load(snapshot(1, 10, user(1, "a", 5)))
    found = "from pg_indexes where schemaname = current_schema() order by 1"
    other = Store(cluster.make_url())
    other.load(incremental(1))
    other.execute("create index mine on users (lower(name))")
    other.execute("delete from _users_days", "delete from loads")
    other.load(snapshot(1, 10, user(1, "a", 5)))
    first, second = (
        each.query(f"select indexname, replace(indexdef, current_schema(), '') {found}") for each in (store, other)
    )
    assert [index for index in second if index[0] != "mine"] == first
    assert len(second) == len(first) + 1
    keys = "select conname from pg_constraint where connamespace = current_schema()::regnamespace order by 1"
    assert store.query(keys) == other.query(keys)
    assert len(store.query(keys)) == 8


def test_views_and_grants_of_others_survive_rebuild(store: Store) -> None:
    """A rebuild keeps tables whose definition is unchanged. A load by newer code keeps them as well."""
    day = snapshot(1, 10, user(1, "a", 5))
    store.load(day)
    store.execute(
        "create view mine as select h.name from users u join users_history h using (user_id)",
        "grant select on users, users_history to public",
        "comment on view users_history is 'made by code of yesterday'",
    )
    store.load(snapshot(2, 40, user(1, "b", 35)))
    days = (day, snapshot(2, 40, user(1, "c")))
    store.warehouse.rebuild([CleanDay(describe(each, extracted=1), list(store.batches(each)), []) for each in days])
    assert store.query("select name from mine order by 1") == [("a",), ("c",)]
    grants = "select table_name from information_schema.role_table_grants where grantee = 'PUBLIC' and table_schema = "
    assert store.query(f"{grants} current_schema() order by 1") == [("users",), ("users_history",)]


def test_changed_history_view_is_replaced(store: Store) -> None:
    """The comment on the view is still the original one."""
    store.load(snapshot(1, 10, user(1, "a", 5)))
    columns = "user_id, name, updated_at, updated_at as valid_from, updated_at as valid_to"
    store.execute(f"create or replace view users_history as select {columns} from users")
    assert store.history() != {(1, "a", at(5), at(5), None)}
    store.load(snapshot(2, 40, user(1, "a", 5)))
    assert store.history() == {(1, "a", at(5), at(5), None)}


def test_new_column_requires_dropping_dependent_views(store: Store) -> None:
    """A new column is inserted in the middle of the history view, so the view must be dropped and created."""
    store.load(incremental(1, user(1, "a", 5)))
    store.execute("create view mine as select * from users_history")
    declare(store, COLUMNS | {"age": int | None}, "user_id")
    assert "other objects depend on it: drop what depends on it, and create that again afterwards" in load_error(
        store, incremental(2), rows=[]
    )
    store.execute("drop view mine")
    store.warehouse.load(CleanDay(describe(incremental(2)), [], []))
    assert databases.list_columns(store.url, "users_history")[2:4] == ["updated_at", "age"]


def simplify(value: Any) -> Any:
    """Return a value as the rows of a day hold it."""
    if isinstance(value, list):
        return json.dumps(value)
    return str(value) if isinstance(value, uuid.UUID) else value


def make_fraction(number: int) -> Decimal:
    """Return a decimal of 38 digits after the point."""
    return Decimal((number < 0, tuple(map(int, str(abs(number)))), -38))


VALUES = {
    "integer": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "text": (pa.string(), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))),
    "float": (pa.float64(), st.floats(allow_nan=False)),
    "boolean": (pa.bool_(), st.booleans()),
    "date": (pa.date32(), st.dates()),
    "timestamp": (pa.timestamp("us", "UTC"), st.datetimes(timezones=st.just(dt.UTC))),
    "time": (pa.time64("us"), st.times()),
    "decimal(9,4)": (pa.decimal128(9, 4), st.decimals(-(10**5) + 1, 10**5 - 1, places=4)),
    "decimal(38,38)": (pa.decimal128(38, 38), st.integers(-(10**38) + 1, 10**38 - 1).map(make_fraction)),
    "decimal(20,0)": (pa.decimal128(20, 0), st.integers(-(10**20) + 1, 10**20 - 1).map(Decimal)),
    "uuid": (pa.string(), st.uuids().map(str)),
    "json": (pa.string(), st.lists(st.booleans() | st.integers()).map(json.dumps)),
}


def test_staged_rows_equal_the_input(cluster: Cluster) -> None:
    """Values of every type, in batches of any length, are stored unchanged and in order."""
    types = ", ".join(f'"{kind}" {to_type(kind)}' for kind in VALUES)
    rows = st.tuples(*(st.none() | values for _, values in VALUES.values()))

    @given(st.lists(st.lists(rows, max_size=4), max_size=3))
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    def hold(batches: list[list[tuple[Any, ...]]]) -> None:
        columns = [list(zip(*batch, strict=True)) or [()] * len(VALUES) for batch in batches]
        given_ = [
            pa.record_batch([pa.array(c, t) for c, (t, _) in zip(some, VALUES.values(), strict=True)], list(VALUES))
            for some in columns
        ]
        kinds = {kind: kind for kind in VALUES} | {"number": "integer"}
        connection.execute("truncate t")
        with connection.cursor().copy("copy t from stdin (format binary)") as copy:
            for data in binary_copy.encode_rows(given_, kinds, "number"):
                copy.write(data)
        found = connection.execute("select * from t order by number").fetchall()
        rows = [(*row, n) for n, row in enumerate(row for batch in batches for row in batch)]
        assert [tuple(map(simplify, row)) for row in found] == rows

    with databases.connect(cluster.make_url()) as connection:
        connection.execute(f"create temporary table t ({types}, number bigint)")
        hold()


# -- locks --------------------------------------------------------------------------------------------------------


def hold_back(store: Store, day: Any) -> tuple[threading.Thread, threading.Event]:
    """Start a load that waits for the event before it sends its rows."""
    came, go = threading.Event(), threading.Event()

    def wait() -> Iterator[pa.RecordBatch]:
        came.set()
        assert go.wait(30)
        yield from store.batches(day)

    thread = threading.Thread(
        target=lambda: store.warehouse.load(CleanDay(describe(day, extracted=len(day.records)), wait(), []))
    )
    thread.start()
    assert came.wait(30)
    return thread, go


def test_wait_for_another_load_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loads of other datasets do not wait."""
    store.load(incremental(1, user(1, "a", 5)))
    thread, go = hold_back(store, incremental(2, user(1, "b", 30)))
    Store(store.url, "orders").load(incremental(1, Record(("a", 1), at(5), "a")))
    monkeypatch.setattr(postgres.connection, "BUSY_SECONDS", 0.2)
    with pytest.raises(
        WarehouseError, match="due to lock timeout: another program is writing to it: wait until it ends"
    ):
        store.load(incremental(3, user(1, "c", 50)))
    go.set()
    thread.join()
    assert names(store) == {1: "b"}


def test_concurrent_first_loads_create_shared_tables_once(store: Store) -> None:
    """The second load waits until the tables exist."""
    thread, go = hold_back(store, incremental(1, user(1, "a", 5)))
    orders = Store(store.url, "orders")
    other = threading.Thread(target=orders.load, args=(incremental(1, Record(("a", 1), at(5), "a")),))
    other.start()
    waiting = "select 1 from pg_locks where not granted and locktype = 'advisory'"
    while not store.query(waiting):
        time.sleep(0.01)
    go.set()
    for each in (thread, other):
        each.join()
    assert len(store.warehouse.read_markers()) == len(orders.warehouse.read_markers()) == 1


def test_reader_does_not_wait_for_a_rebuild(store: Store) -> None:
    """Queries run while the tables are emptied and filled."""
    day = snapshot(1, 10, user(1, "a", 5))
    store.load(day)
    seen = []

    def look() -> Iterator[pa.RecordBatch]:
        with databases.connect(store.url) as reader:
            reader.execute("set statement_timeout = '5s'")
            for table in ("users", "users_history", "_users_days", "loads", "rejects"):
                seen.append(reader.execute(f"select count(*) from {table}").fetchone())
        yield from store.batches(day)

    after = snapshot(2, 40, user(1, "b", 5))
    store.warehouse.rebuild(
        [
            CleanDay(describe(each, extracted=1), rows, [])
            for each, rows in ((day, look()), (after, store.batches(after)))
        ]
    )
    assert seen == [(1,), (1,), (1,), (1,), (0,)]
    assert names(store) == {1: "b"}


def test_deadlock_is_an_error_to_retry(cluster: Cluster, store: Store) -> None:
    """The server cancels the session whose `deadlock_timeout` ends first: the load waits before the other does."""
    store.load(incremental(1, user(1, "a", 5)))
    cluster.execute(f"alter role {USER} set deadlock_timeout = '5s'")  # the other has this time to close the circle
    try:
        with databases.connect(store.url) as other:
            other.execute("begin; lock table loads in exclusive mode")
            errors: list[BaseException] = []

            def load() -> None:
                try:
                    store.load(incremental(2, user(1, "b", 30)))
                except WarehouseError as error:
                    errors.append(error)

            thread = threading.Thread(target=load)
            thread.start()
            blocked = "select 1 from pg_locks where not granted and relation = 'loads'::regclass"
            while not other.execute(blocked).fetchone():
                time.sleep(0.01)
            other.execute("update users set name = name")  # which the load has changed
            thread.join()
    finally:
        cluster.execute(f"alter role {USER} reset deadlock_timeout")
    assert [type(error) for error in errors] == [InterruptedTransactionError]
    assert "deadlock detected" in str(errors[0])
    store.load(incremental(2, user(1, "b", 30)))
    assert names(store) == {1: "b"}


# -- secrets and erased users -------------------------------------------------------------------------------------


def test_password_is_never_printed_or_stored(cluster: Cluster, home: Path) -> None:
    """G8: covers commands that succeed and that fail. Only luigi.cfg holds the password."""
    url = cluster.make_url(cluster.port)
    text = (home / "luigi.cfg").read_text()
    (home / "luigi.cfg").write_text(text.replace("sqlite:///data/warehouse.db", url.replace("%", "%%")))
    load = ("LoadUsers", "--date", "2026-11-20", "--log-level", "DEBUG")
    results = [luigi_run(*load), luigi_run(*load)]
    results += [run("python", "-m", "wholeday", command) for command in ("status", "verify", "rebuild")]
    results += [run("python", "-m", "wholeday", "forget", "users", "1", "--yes", "--unknown")]
    assert [result.returncode for result in results] == [0] * 6
    assert f"users in {url.replace('p%40ss%2Fw%3Ard', '***')}: 1 day" in results[2].stdout
    (home / "luigi.cfg").write_text((home / "luigi.cfg").read_text().replace(f"port={cluster.port}", "port=1"))
    results += [luigi_run(*load), run("python", "-m", "wholeday", "status")]
    assert [result.returncode for result in results[6:]] == [30, 1] or results[6].returncode in (25, 35)
    (home / "luigi.cfg").unlink()
    secrets = (PASSWORD, "p%40ss", "p%%40ss", "w:rd", "w%3Ard")
    printed = [result.stdout + result.stderr for result in results]
    kept = [path.read_bytes().decode(errors="replace") for path in home.rglob("*") if path.is_file()]
    for text in (*printed, *kept, *databases.dump(url)):
        assert not [secret for secret in secrets if secret in text]


def test_erased_user_leaves_no_bytes_in_tables(cluster: Cluster, configure: Callable[..., None]) -> None:
    """Tables and statistics are rewritten, so that no copies of old rows remain."""
    mark = "Kowalczyk"
    cluster.execute("create database erased owner loader")
    url = cluster.make_url().replace("/warehouse?", "/erased?")
    configure("pipeline", database=url)
    configure("users", url="demo://users?per_day=50&updated_since={day_start}&updated_before={day_stop}")
    run_stages(USERS, DAY)
    ((key,),) = query("select max(user_id) from users")
    for name in (f"{mark} once", f"{mark} twice"):
        changes = [f"update {table} set name = '{name}' where user_id = {key}" for table in ("users", "_users_events")]
        databases.execute(url, *changes)
    with databases.connect(url) as connection:
        connection.execute("analyze")
    assert {"users", "_users_events"} <= set(find_in_files(cluster, "erased", mark))
    assert forget(read_workspace(USERS), [str(key)]).problems == []
    # Only a superuser can rewrite the statistics of columns. See docs/how-to/postgresql.md.
    assert set(find_in_files(cluster, "erased", mark)) <= {"pg_statistic"}


def test_open_transaction_that_blocks_erasure_is_reported(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL keeps old rows for every open snapshot, even if its transaction never reads the tables."""
    monkeypatch.setattr(postgres.connection, "BUSY_SECONDS", 0.1)
    run_stages(USERS, DAY)
    ((key,),) = query("select max(user_id) from users")
    with databases.connect(postgresql) as reader:
        reader.execute("begin isolation level repeatable read")
        ((pid,),) = reader.execute("select pg_backend_pid()").fetchall()
        (problem,) = forget(read_workspace(USERS), [str(key)]).problems
    assert f"another program is reading the warehouse (process {pid}, loader, since 2" in problem
    assert forget(read_workspace(USERS), []).problems == []


def find_in_files(cluster: Cluster, database: str, text: str) -> list[str]:
    """Return the tables and indexes of a database whose files contain a text."""
    cluster.execute("checkpoint")
    with psycopg.connect(host=str(cluster.folder), port=cluster.port, user="postgres", dbname=database) as connection:
        ((oid,),) = connection.execute("select oid from pg_database where datname = current_database()").fetchall()
        paths = (cluster.data / "base" / str(oid)).iterdir()
        found = [int(path.name.partition(".")[0]) for path in paths if text.encode() in path.read_bytes()]
        names = "select relname from pg_class where pg_relation_filenode(oid) = any(%s) order by 1"
        return [name for (name,) in connection.execute(names, [found]).fetchall()]
