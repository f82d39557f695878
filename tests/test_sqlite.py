"""A warehouse in a SQLite file: what can be wrong with a file."""

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cluster import MEMORY
from pipeline import schema, sqlite, warehouse
from pipeline.errors import ConfigError, WarehouseError
from store import Store, fails, incremental, names, user


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
def test_a_database_is_a_file_of_sqlite(url: str, file: str) -> None:
    """As SQLAlchemy writes it: three slashes and a path, which may begin with the home folder."""
    assert sqlite.Database(url).path == Path(file).expanduser()
    assert str(sqlite.Database(url)) == url


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///a.db?timeout=5"])
def test_what_is_no_file_is_refused(url: str) -> None:
    """One line that shows how to write it."""
    with pytest.raises(ConfigError, match=r"SQLite is used in a file only: use sqlite:///data/warehouse\.db"):
        sqlite.Database(url)


def test_a_commit_waits_until_it_is_on_the_disk(store: Store) -> None:
    """Else the last commits could be lost in a power cut, which no process that is killed shows."""
    with store.warehouse.database.connect(create=True) as db:
        settings = [db.run(f"pragma {name}").fetchone() for name in ("journal_mode", "synchronous")]
    assert settings == [("wal",), (2,)]


def test_a_database_that_stays_locked_is_given_up_in_one_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait for another writer is bounded, and its end names the file and what to do."""
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.2)
    store.load(incremental(1, user(1, "a", 5)))
    with closing(sqlite3.connect(path(store), isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(WarehouseError, match=r"warehouse.db: database is locked: another program is writing to it"):
            store.load(incremental(2, user(1, "b", 30)))
    assert names(store) == {1: "a"}


def test_a_file_that_is_no_database_is_refused_in_one_line(store: Store) -> None:
    """Neither reading nor loading touches another program's file."""
    path(store).write_bytes(b"this is no database" * 100)
    content = path(store).read_bytes()
    for call in (store.warehouse.loads, lambda: store.load(incremental(1, user(1, "a", 5)))):
        with pytest.raises(
            WarehouseError, match=r"file is not a database: it is no SQLite database: choose another file"
        ):
            call()
    assert path(store).read_bytes() == content


def test_a_full_database_is_one_line_and_loses_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What SQLite says of a full disk names the file and the folder for temporary files."""
    store.load(incremental(1, user(1, "a", 5)))
    prepare = warehouse.prepare

    def limit(db: sqlite.SQLite, declared: schema.Declared) -> None:
        prepare(db, declared)
        db.run("pragma max_page_count = 1")

    monkeypatch.setattr(warehouse, "prepare", limit)
    message = fails(store, incremental(2, *(user(key, "b" * 1000, 30) for key in range(100))))
    assert "database or disk is full" in message
    assert "SQLITE_TMPDIR" in message


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (True, "attempt to write a readonly database: give this user the right"),
        (False, "unable to open database file: it"),
    ],
)
def test_a_database_without_the_right_to_write_is_one_line(store: Store, there: bool, message: str) -> None:
    """A file or a folder that this user may not write says so; as root, who may, the test is another user."""
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
