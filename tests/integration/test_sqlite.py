"""A warehouse in a SQLite file: URLs, the first load, locks and unusable files."""

import datetime as dt
import os
import signal
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import MEMORY
from tests.support.store import Store, incremental, load_error, names, user
from wholeday.errors import ConfigError, WarehouseError
from wholeday.load import sqlite, warehouse
from wholeday.load.markers import find_loaded
from wholeday.schema import tables


@pytest.fixture
def store() -> Iterator[Store]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Store(Path(folder, "warehouse.db"))


def path(store: Store) -> Path:
    database = store.warehouse.database
    assert isinstance(database, sqlite.Database)
    return database.path


@pytest.mark.parametrize(
    ("url", "file"),
    [("sqlite:///data/w.db", "data/w.db"), ("sqlite:////srv/w.db", "/srv/w.db"), ("sqlite:///~/w.db", "~/w.db")],
)
def test_url_names_a_file(url: str, file: str) -> None:
    """The URL has the form of SQLAlchemy: three slashes and a path. The path may start with the home folder."""
    assert sqlite.Database(url).path == Path(file).expanduser()
    assert str(sqlite.Database(url)) == url


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///a.db?timeout=5"])
def test_url_without_a_file_is_refused(url: str) -> None:
    """The error shows a valid URL."""
    with pytest.raises(ConfigError, match=r"SQLite is used in a file only: use sqlite:///data/warehouse\.db"):
        sqlite.Database(url)


def test_commit_is_synced_to_disk(store: Store) -> None:
    """Otherwise a power cut could lose the last commits. Killing a process cannot show that."""
    store.load(incremental(1, user(1, "a", 5)))
    with store.warehouse.database.connect(create=True) as db:
        settings = [db.run(f"pragma {name}").fetchone() for name in ("journal_mode", "synchronous")]
    assert settings == [("wal",), (3,)]


def kept(store: Store) -> dict[str, Any]:
    """Return the settings that are stored in the file."""
    with closing(sqlite3.connect(path(store))) as other:
        return {name: other.execute(f"pragma {name}").fetchone()[0] for name in ("journal_mode", "user_version")}


def write_much(db: sqlite.SQLite) -> None:
    """Write more rows than fit into SQLite's cache."""
    db.run("pragma main.cache_size = 10")
    db.run("create table much (x)")
    db.run("insert into much with n(x) as (select 1 union all select x + 1 from n where x < 9999) select x from n")
    assert db.path.stat().st_size > 50_000


@pytest.mark.slow
def test_first_load_switches_to_wal_mode(store: Store) -> None:
    """Readers wait for the first commit, as there is nothing to read. They never wait afterwards."""
    with store.warehouse.database.connect(create=True) as db:
        db.begin("users")
        write_much(db)
        assert {file.name for file in path(store).parent.iterdir()} == {"warehouse.db", "warehouse.db-journal"}
        with ThreadPoolExecutor(1) as pool:
            reader = pool.submit(store.warehouse.read_markers)
            with pytest.raises(TimeoutError):
                reader.result(0.5)
            db.commit()
            assert reader.result(10) == []
        db.begin("users")
        db.run("insert into much values (0)")
        assert store.warehouse.read_markers() == []
        db.commit()
    assert [file.name for file in path(store).parent.iterdir()] == ["warehouse.db"]
    assert kept(store) == {"journal_mode": "wal", "user_version": 0}


def test_connection_to_the_empty_file_sees_loaded_rows(store: Store) -> None:
    """SQLite deletes a write-ahead log if the database file seems empty, for example in an open shell."""
    path(store).touch()
    with closing(sqlite3.connect(path(store))) as other:
        assert other.execute("select * from sqlite_master").fetchall() == []
        store.load(incremental(1, user(1, "a", 5)))
        with store.warehouse.database.connect() as db:
            db.begin("users")
            db.run("update users set name = 'b'")
            db.commit()
            assert other.execute("select name from users").fetchall() == [("b",)]
            assert names(store) == {1: "b"}


def test_failed_first_load_leaves_an_empty_file(store: Store) -> None:
    """The next load fills the file."""
    with store.warehouse.database.connect(create=True) as db:
        db.begin("users")
        write_much(db)
    assert {file.name: file.stat().st_size for file in path(store).parent.iterdir()} == {"warehouse.db": 0}
    store.load(incremental(1, user(1, "a", 5)))
    assert names(store) == {1: "a"}


def die_in_a_first_day(store: Store) -> None:
    """Kill a process during a first load, so that the file is partly written."""
    if not os.fork():
        with store.warehouse.database.connect(create=True) as db:
            db.begin("users")
            write_much(db)
            os.kill(os.getpid(), signal.SIGKILL)
    os.wait()
    assert path(store).stat().st_size > 50_000


def test_killed_first_load_is_rolled_back(store: Store) -> None:
    """Readers roll it back as well: the loaded days are read before the first write."""
    die_in_a_first_day(store)
    assert find_loaded(store.url, "users", [dt.date(2026, 11, 1)]) == set()
    assert path(store).stat().st_size == 0
    die_in_a_first_day(store)
    assert store.warehouse.read_markers() == []
    die_in_a_first_day(store)
    store.load(incremental(1, user(1, "a", 5)))
    assert names(store) == {1: "a"}
    assert kept(store) == {"journal_mode": "wal", "user_version": 0}


Do = Callable[[], object]


@pytest.fixture
def just_before(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Do], None]:
    """Return a function that registers a call to make before a given statement."""
    run = sqlite.SQLite.run

    def patch(statement: str, do: Do) -> None:
        monkeypatch.setattr(
            sqlite.SQLite, "run", lambda db, sql, **params: (sql == statement and do(), run(db, sql, **params))[1]
        )

    return patch


def die_after_the_commit_of_a_first_day(store: Store, just_before: Callable[[str, Do], None], statement: str) -> None:
    if not os.fork():
        just_before(statement, lambda: os.kill(os.getpid(), signal.SIGKILL))
        store.load(incremental(1, user(1, "a", 5)))
    os.wait()


@pytest.mark.parametrize("statement", ["pragma journal_mode = wal", "pragma user_version = 0"])
def test_next_load_completes_an_interrupted_switch_to_wal(
    store: Store, just_before: Callable[[str, Do], None], statement: str
) -> None:
    """The first load is killed after its commit. Without WAL mode readers would wait for every load."""
    die_after_the_commit_of_a_first_day(store, just_before, statement)
    assert names(store) == {1: "a"}
    assert kept(store)["user_version"] == sqlite.BEING_MADE
    store.load(incremental(2, user(2, "b", 30)))
    assert names(store) == {1: "a", 2: "b"}
    assert kept(store) == {"journal_mode": "wal", "user_version": 0}


@pytest.mark.parametrize("again", [False, True], ids=["the first", "after one that was killed"])
def test_no_reader_gets_in_before_wal_mode(store: Store, just_before: Callable[[str, Do], None], again: bool) -> None:
    """SQLite refuses the change of mode while another connection reads, and does not wait."""
    change, met = "pragma journal_mode = wal", []
    if again:
        die_after_the_commit_of_a_first_day(store, just_before, change)

    def read() -> None:
        with closing(sqlite3.connect(path(store), timeout=0)) as other, pytest.raises(sqlite3.Error) as raised:
            other.execute("select * from loads")
        met.append(str(raised.value))

    just_before(change, read)
    store.load(incremental(2, user(2, "b", 30)))
    assert met == ["database is locked"]


@pytest.mark.parametrize(("made", "version"), [("create table theirs (x)", 0), ("pragma user_version = 7", 7)])
def test_settings_of_another_program_are_kept(store: Store, made: str, version: int) -> None:
    with closing(sqlite3.connect(path(store))) as other:
        other.execute(made)
    store.load(incremental(1, user(1, "a", 5)))
    store.load(incremental(2, user(2, "b", 30)))
    assert kept(store) == {"journal_mode": "delete", "user_version": version}


@pytest.mark.slow
def test_concurrent_first_loads_use_one_file(store: Store) -> None:
    """Neither overwrites the rows of the other."""
    with store.warehouse.database.connect(create=True) as db, ThreadPoolExecutor(1) as pool:
        db.begin("users")
        second = pool.submit(store.load, incremental(2, user(2, "b", 30)))
        with pytest.raises(TimeoutError):
            second.result(0.5)
        db.run("create table first (x)")
        db.commit()
        assert second.result(10).inserted == 1
    with closing(sqlite3.connect(path(store))) as other:
        assert other.execute("select * from first").fetchall() == []
    assert names(store) == {2: "b"}


def test_existing_empty_file_keeps_its_permissions_and_link(store: Store) -> None:
    """The user may have created the file for a group, or on another disk."""
    real = path(store).with_name("elsewhere.db")
    real.touch()
    real.chmod(0o640)
    path(store).symlink_to(real)
    if os.geteuid() == 0:
        os.chown(real, 65534, 65534)
    before = real.stat()
    store.load(incremental(1, user(1, "a", 5)))
    after = real.stat()
    assert path(store).is_symlink()
    assert after.st_size > 0
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert names(store) == {1: "a"}


@pytest.mark.slow
def test_wait_for_a_locked_database_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file and the remedy."""
    monkeypatch.setattr(sqlite.connection, "BUSY_SECONDS", 0.2)
    store.load(incremental(1, user(1, "a", 5)))
    with closing(sqlite3.connect(path(store), isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(WarehouseError, match=r"warehouse.db: database is locked: another program is writing to it"):
            store.load(incremental(2, user(1, "b", 30)))
    assert names(store) == {1: "a"}


def test_file_of_another_program_is_not_changed(store: Store) -> None:
    """Both reading and loading fail with one line."""
    path(store).write_bytes(b"this is no database" * 100)
    content = path(store).read_bytes()
    for call in (store.warehouse.read_markers, lambda: store.load(incremental(1, user(1, "a", 5)))):
        with pytest.raises(WarehouseError, match=r"file is not a database: not a SQLite database: choose another file"):
            call()
    assert path(store).read_bytes() == content


@pytest.mark.parametrize("how", [{}, {"create": True}, {"readonly": True}], ids=str)
def test_folder_instead_of_a_file_is_one_line(store: Store, how: dict[str, bool]) -> None:
    """SQLite can open a folder for reading, and would report a disk error later."""
    path(store).mkdir()
    line = r"unable to open database file: it must be a file that this user may read and write"
    with pytest.raises(WarehouseError, match=line), store.warehouse.database.connect(**how):
        pass


def test_full_database_is_one_line_and_loses_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file and the folder for temporary files."""
    store.load(incremental(1, user(1, "a", 5)))
    prepare = warehouse.prepare_tables

    def limit(db: sqlite.SQLite, declared: tables.Declared) -> None:
        prepare(db, declared)
        db.run("pragma max_page_count = 1")

    monkeypatch.setattr(warehouse, "prepare_tables", limit)
    message = load_error(store, incremental(2, *(user(key, "b" * 1000, 30) for key in range(100))))
    assert "database or disk is full" in message
    assert "SQLITE_TMPDIR" in message


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (True, "attempt to write a readonly database: give this user the right"),
        (False, "unable to open database file: it"),
    ],
)
def test_missing_write_permission_is_one_line(store: Store, there: bool, message: str) -> None:
    """Covers the file and its folder. Root may write anywhere, so the test changes the user."""
    if there:
        store.load(incremental(1, user(1, "a", 5)))
        path(store).chmod(0o444)
    path(store).parent.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(WarehouseError, match=message):
            store.load(incremental(2, user(1, "b", 30)))
    finally:
        if root:
            os.seteuid(0)
        path(store).parent.chmod(0o777)


def test_rows_deleted_by_conflict_replace_are_detected(store: Store) -> None:
    """SQLite calls no trigger for such a deletion."""
    store.load(incremental(1, user(1, "a", 5), user(2, "b", 5)))
    columns = "user_id INTEGER not null primary key, name TEXT unique on conflict replace"
    times = "updated_at DATETIME, valid_from DATETIME, ingested_at DATETIME, load_date DATE"
    store.execute(
        "drop view users_history",
        f"create table made ({columns}, {times})",
        "insert into made select * from users",
        "drop table users",
        "alter table made rename to users",
    )
    assert "the table has grown by 0 rows" in load_error(store, incremental(2, user(3, "a", 30)))
    assert names(store) == {1: "a", 2: "b"}
