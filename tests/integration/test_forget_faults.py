"""Test `forget` with damaged days, killed runs and concurrent processes."""

import contextlib
import datetime as dt
import itertools
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest

from pipeline.users import USERS
from tests.support import databases, forgetting, points
from tests.support.forgetting import DAYS, MARK, Records, check_markers, dump_days, find_mark, load_days
from tests.support.project import execute, fork, is_held, query, run_stages
from tests.support.reading import make_user
from tests.support.server import Server
from wholeday import clock
from wholeday.commands.forget import files, forget, tables
from wholeday.commands.forget.search import DayFiles, Search
from wholeday.commands.status import read_status
from wholeday.config.pipeline import Pipeline
from wholeday.errors import FolderError
from wholeday.load import postgres, sqlite
from wholeday.storage.lines import pack
from wholeday.storage.manifest import CleanManifest, RawManifest
from wholeday.storage.tombstones import Tombstones
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace
from wholeday.transform import day as transform_stage

pytestmark = pytest.mark.slow

ALL = os.environ.get("PIPELINE_FAULTS") == "all"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One source for all tests, so that most of them copy its days."""
    with Server() as running:
        yield running


@pytest.fixture(params=["incremental", "snapshot"])
def loaded(request, server, configure, copy_or_make) -> Records:
    """Load five days of users."""
    return load_days(server, configure, request.param, copy_or_make)


@pytest.fixture
def incremental(server, configure, copy_or_make) -> Records:
    """Load five days of users in the one mode, for what does not depend on it."""
    return load_days(server, configure, "incremental", copy_or_make)


@pytest.mark.usefixtures("loaded")
def test_markers_are_correct_after_an_interrupted_run(monkeypatch):
    """Some files change twice before their markers do."""
    with monkeypatch.context() as patch:
        patch.setattr(tables, "erase_rows", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            forget(read_workspace(USERS), ["42"])
    assert forget(read_workspace(USERS), ["1"]).problems == []
    check_markers()


@pytest.mark.usefixtures("database_on_request", "incremental")
@pytest.mark.parametrize(
    ("name", "what"),
    [("part-00000.jsonl.gz", ": the file does not match its manifest"), ("manifest.json", " is not a manifest")],
    ids=["a part", "the manifest"],
)
def test_damaged_day_does_not_stop_other_days(name, what):
    """The damaged day does not change, and the erasure stays pending. After a repair the same command completes it."""
    raw = read_workspace(USERS).folder("raw", DAYS[1])
    path = raw.path / name
    content = path.read_bytes()
    path.write_bytes(content[:-2])
    result = forget(read_workspace(USERS), ["42"])
    (problem,) = result.problems
    assert problem.startswith(f"users {DAYS[1]}: {path}{what}")
    assert result.days == {DAYS[0]: 1, DAYS[2]: 1, DAYS[3]: 1}
    assert Tombstones("data", "users").count_pending() == 1
    path.write_bytes(content)
    assert {str(Path(path).parent) for path in find_mark()} == {
        str(raw),
        str(read_workspace(USERS).folder("clean", DAYS[1])),
    }
    assert forget(read_workspace(USERS), []).days == {DAYS[1]: 2}
    assert find_mark() == []
    check_markers()


@pytest.mark.usefixtures("database_on_request", "incremental")
def test_files_of_incomplete_days_are_deleted():
    """A part without a manifest may hold any user. The next run extracts or transforms the day again."""
    raw, clean = read_workspace(USERS).folder("raw", DAYS[0]), read_workspace(USERS).folder("clean", DAYS[1])
    (raw.path / "manifest.json").unlink()
    execute(f"delete from loads where date = '{DAYS[0]}'")
    (clean.path / "manifest.json").unlink()
    new = read_workspace(USERS).folder("raw", dt.date(2026, 11, 9))
    new.clear()
    new.write("part-00000.jsonl.gz", pack([[MARK.encode()]]))
    new.add_checkpoints([MARK.encode()])
    for stage in ("raw", "clean"):  # left by a killed run, in a day without records of the user
        read_workspace(USERS).folder(stage, DAYS[4]).write("part-00007.jsonl.gz", pack([[MARK.encode()]]))
    assert forget(read_workspace(USERS), ["42"]).problems == []
    assert find_mark() == []
    assert list(new.path.iterdir()) == []
    assert not clean.exists()
    assert read_workspace(USERS).folder("raw", DAYS[1]).exists()


@pytest.mark.usefixtures("database_on_request", "incremental")
def test_loaded_day_without_raw_manifest_is_kept():
    """No later run would extract the day again. After a restore of the manifest the same command completes it."""
    raw, clean = read_workspace(USERS).folder("raw", DAYS[1]), read_workspace(USERS).folder("clean", DAYS[1])
    manifest = raw.path / "manifest.json"
    content = manifest.read_bytes()
    manifest.unlink()
    before = {path: content for path, content in dump_days().items() if str(DAYS[1]) in path}
    (problem,) = forget(read_workspace(USERS), ["42"]).problems
    assert problem == (
        f"users {DAYS[1]}: {manifest} is missing, and the day is loaded. Restore it from a copy, or delete the folder "
        f"and the day's row of loads, then run the day again"
    )
    assert {path: content for path, content in dump_days().items() if str(DAYS[1]) in path} == before
    assert Tombstones("data", "users").count_pending() == 1
    manifest.write_bytes(content)
    assert forget(read_workspace(USERS), []).days == {DAYS[1]: 2}
    assert find_mark() == []
    assert clean.exists()
    check_markers()


@pytest.mark.usefixtures("database_on_request", "incremental")
def test_leftovers_of_a_pruned_day_are_deleted():
    """An interrupted `prune` may leave such files."""
    raw = read_workspace(USERS).folder("raw", DAYS[1])
    (raw.path / "manifest.json").unlink()
    execute(f"update loads set pruned_at = loaded_at where date = '{DAYS[1]}'")
    assert forget(read_workspace(USERS), ["42"]).problems == []
    assert list(raw.path.iterdir()) == []
    assert find_mark() == []


@pytest.mark.usefixtures("incremental")
def test_tombstones_and_locks_precede_the_erasure(monkeypatch):
    """Tombstones are in the file and the table, and raw and clean files are locked, so no other run uses the day."""
    write_parts, held, written = files.write_parts, [], []

    def watch(search: Search, day: DayFiles) -> Any:
        held.append((is_held(day.raw), is_held(day.clean)))
        written.append(Tombstones("data", "users").keys() + query("select user_id from _users_forgotten"))
        return write_parts(search, day)

    monkeypatch.setattr(files, "write_parts", watch)
    forget(read_workspace(USERS), ["42"])
    assert held == [(True, True)] * len(DAYS)
    assert written == [[(42,), (42,)]] * len(DAYS)


@pytest.mark.usefixtures("database_on_request", "incremental")
def test_clean_files_from_other_raw_files_are_deleted():
    """The clean day is outdated, and its rows cannot be matched to raw records."""
    read_workspace(USERS).folder("raw", DAYS[0]).clear()
    stages.extract(read_workspace(USERS), DAYS[0])
    path = read_workspace(USERS).folder("clean", DAYS[0]).path
    manifest = path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"raw_sha256": [', '"raw_sha256": ["other",'))
    forget(read_workspace(USERS), ["42"])
    assert list(path.iterdir()) == []
    assert find_mark() == []


@pytest.mark.usefixtures("incremental")
def test_clean_day_without_its_rejects_is_kept():
    """Without the rejects, rows cannot be matched to raw records, and another user could be erased."""
    clean, before = read_workspace(USERS).folder("clean", DAYS[2]), forgetting.read_raw(USERS, DAYS[2])
    clean.replace_manifest(msgspec.structs.replace(clean.read_manifest(CleanManifest), rejected=0, rejects=[]))
    (problem,) = forget(read_workspace(USERS), ["42"]).problems
    assert f"1 rows and 0 rejects do not add up to 3 records. Delete the folder {clean}, then reprocess" in problem
    assert forgetting.read_raw(USERS, DAYS[2]) == before


@pytest.mark.usefixtures("database_on_request")
def test_day_extracted_again_still_needs_a_load(incremental):
    """The marker keeps the hashes of the files that were loaded."""
    incremental[DAYS[0]].append(make_user(10, f"{DAYS[0]}T10:00:00Z"))
    read_workspace(USERS).folder("raw", DAYS[0]).clear()
    stages.extract(read_workspace(USERS), DAYS[0])
    stages.transform(read_workspace(USERS), DAYS[0])
    hashes = "select raw_sha256, clean_sha256 from loads where date = ?"
    before = query(hashes, str(DAYS[0]))
    forget(read_workspace(USERS), ["42"])
    assert query(hashes, str(DAYS[0])) == before
    assert read_status(read_workspace(USERS)).outdated == {DAYS[0]: "loaded from other files"}
    stages.load(read_workspace(USERS), DAYS[0])
    check_markers()


@pytest.mark.usefixtures("incremental")
def test_day_extracted_during_forget_keeps_its_marker(monkeypatch):
    """The clean files are from the erased version, but the new raw files have every record again."""
    hashes = "select raw_sha256, clean_sha256 from loads where date = ?"
    before, erase_rows = query(hashes, str(DAYS[0])), tables.erase_rows

    def come_between(*arguments: Any) -> int:
        read_workspace(USERS).folder("raw", DAYS[0]).clear()
        stages.extract(read_workspace(USERS), DAYS[0])
        return erase_rows(*arguments)

    monkeypatch.setattr(tables, "erase_rows", come_between)
    forget(read_workspace(USERS), ["42"])
    assert query(hashes, str(DAYS[0])) == before
    assert read_workspace(USERS).folder("raw", DAYS[0]).read_manifest(RawManifest).sha256 == before[0][0]


@pytest.mark.usefixtures("database", "incremental")
def test_clean_day_without_raw_files_is_kept():
    """The clean files are the only copy of the day. The error says what to do, and the warehouse is erased anyway."""
    raw = read_workspace(USERS).folder("raw", DAYS[2])
    raw.clear()
    raw.path.rmdir()
    (problem,) = forget(read_workspace(USERS), ["42"]).problems
    assert (
        f"{read_workspace(USERS).folder('clean', DAYS[2])} has no raw files. Delete it, or restore {raw} from a copy"
        in problem
    )
    assert query("select count(*) from users_history where user_id = 42") == [(0,)]
    assert query("select count(*) from rejects where record like ?", f"%{MARK}%") == [(0,)]
    assert query("select rejected, forgotten from loads where date = ?", str(DAYS[2])) == [(1, 1)]
    assert find_mark() == [path for path in find_mark() if path.startswith(f"data/clean/users/date={DAYS[2]}/")]


@pytest.mark.usefixtures("database", "incremental")
def test_reader_of_the_warehouse_delays_completion(monkeypatch):
    """While another program reads, erased bytes stay in the database files. The next run removes them."""
    for module in (sqlite.connection, postgres.connection):
        monkeypatch.setattr(module, "BUSY_SECONDS", 0.1)
    with databases.connect(Pipeline().database) as reader:
        reader.execute("begin")
        reader.execute("select count(*) from users").fetchall()
        (problem,) = forget(read_workspace(USERS), ["42"]).problems
        assert "another program is reading the warehouse" in problem
        assert Tombstones("data", "users").count_pending() == 1
    assert forget(read_workspace(USERS), []).problems == []
    assert find_mark() == []


@pytest.mark.usefixtures("database_on_request", "incremental")
@pytest.mark.parametrize("content", [b"{", b'{"what": "forget", "key": ["\xff"]}'])
def test_unreadable_tombstones_stop_a_load(content):
    """The load could restore erased users."""
    Path("data/forgotten").mkdir()
    Path("data/forgotten/users.jsonl").write_bytes(content)
    with pytest.raises(FolderError, match=r"users\.jsonl: the keys that are forgotten cannot be read"):
        stages.load(read_workspace(USERS), DAYS[0])


def test_next_run_completes_a_run_killed_anywhere(server, configure, monkeypatch):
    """The kill comes before each point that changes the disk; by default, before one of each kind. No day is lost, no
    load restores the user, and the same command gives the files and tables of a run without a kill."""
    forgetting.serve_days(server, configure, forgetting.make_records(), mode="incremental")
    run_stages(USERS, DAYS[1], DAYS[3])
    now = clock.utc_now()
    monkeypatch.setattr(clock, "utc_now", lambda: now)
    kept = shutil.copytree("data", "before")

    def erase() -> None:
        forget(read_workspace(USERS), ["42"])

    code, names = points.run(erase, points.Points())
    assert code == 0
    wanted = dump_files(), dump_database()
    changes = [(at, name) for at, name in enumerate(names, 1) if not name.startswith(("select", "pragma ", "close"))]
    kinds = {(name.split()[0], Path(name).suffix): (at, name) for at, name in changes}
    assert len(kinds) > 10
    for at, name in changes if ALL else kinds.values():
        shutil.rmtree("data")
        shutil.copytree(kept, "data")
        assert points.run(erase, points.Points(at, "kill"))[0] < 0, name
        check_state(name)
        erase()
        assert (dump_files(), dump_database()) == wanted, name


def check_state(step: str) -> None:
    """Check that every day is complete, and loads into a new warehouse without the user once there is a tombstone."""
    for day in (DAYS[1], DAYS[3]):
        raw = read_workspace(USERS).folder("raw", day)
        assert [raw.read(part) for part in raw.read_manifest(RawManifest).parts], step
        for clean in [read_workspace(USERS).folder("clean", day)] * transform_stage.is_current(
            read_workspace(USERS), day
        ):
            made = clean.read_manifest(CleanManifest)
            assert [clean.read(part) for part in (*made.parts, *made.rejects)], step
    shutil.copytree("data", "killed")
    for path in Path("data").glob("warehouse.db*"):
        path.unlink()
    for day in [DAYS[1], DAYS[3]] * bool(Tombstones("data", "users").keys()):
        if not transform_stage.is_current(read_workspace(USERS), day):
            stages.transform(read_workspace(USERS), day)
        stages.load(read_workspace(USERS), day)
        assert query("select count(*) from users_history where user_id = 42") == [(0,)], step
        assert query("select count(*) from loads where forgotten = 0") == [(0,)], step
    shutil.rmtree("data")
    Path("killed").rename("data")


def dump_files() -> dict[str, Any]:
    """Read the days and the distinct lines of the tombstones. A killed run may have recorded its completion."""
    return dump_days() | {"tombstones": sorted(set(Path("data/forgotten/users.jsonl").read_bytes().splitlines()))}


def dump_database() -> list[str]:
    with contextlib.closing(sqlite3.connect("data/warehouse.db")) as db:
        return list(db.iterdump())


@pytest.mark.usefixtures("database")
def test_concurrent_loads_do_not_restore_the_user(server, configure):
    """Another process transforms and loads days during `forget`. In the end every marker matches its files."""
    forgetting.serve_days(server, configure, forgetting.make_records(), mode="incremental")
    run_stages(USERS, *DAYS[:3])
    process = fork(load_again_and_again)
    try:
        while not Path("loaded").exists():
            assert process.is_alive()
            time.sleep(0.01)
        for key in ("42", "1"):
            result = forget(read_workspace(USERS), [key])
            assert (result.problems, result.unknown) == ([], [])
    finally:
        Path("stop").touch()
        process.join()
    assert process.exitcode == 0
    assert find_mark() == []
    assert query("select distinct user_id from users_history order by 1") == [(n,) for n in range(2, 8)]
    check_markers()


def load_again_and_again() -> None:
    """Transform and load every day, with locks as in Luigi, until there is a file `stop`."""
    for number in itertools.count():
        for day in DAYS[:3]:
            execute(f"delete from loads where date = '{day}'")
            if number % 3 == 0:
                with read_workspace(USERS).folder("clean", day).lock():
                    stages.transform(read_workspace(USERS), day)
            stages.load(read_workspace(USERS), day)
        Path("loaded").touch()
        if Path("stop").exists():
            return
