"""A user who is forgotten is in no file and no table, and stays out; nobody else is touched."""

import contextlib
import datetime as dt
import itertools
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import orders
import pyarrow.parquet as pq
import pytest
from luigi.configuration import get_config

import databases
from conftest import ROOT, dump_tree, execute, is_held, query, remove_warehouse, run, start
from pipeline import config, forget, postgres, sqlite, stages
from pipeline.config import Pipeline
from pipeline.dataset import Dataset
from pipeline.errors import ConfigError, FolderError
from pipeline.extraction import extract_day
from pipeline.lines import pack, unpack
from pipeline.reprocess import find_stale
from pipeline.targets import CleanManifest, DayFolder, RawManifest, digest
from pipeline.tombstones import Done, Finder, Tombstones
from pipeline.users import USERS
from pipeline.verify import verify
from reading import make_user
from server import Answer, Server

DAYS = [dt.date(2026, 11, number) for number in range(1, 6)]
MARK = "Kowalczyk"  # in every record of user 42, and in no other
Records = dict[dt.date, list[dict[str, Any]]]


def make_person(day: dt.date, **fields: Any) -> dict[str, Any]:
    """A record of user 42."""
    person = {"name": f"{MARK} {day}", "email": f"{MARK}.{day}@example.com", "unknown": f"secret of {MARK}"}
    return make_user(42, f"{day}T12:00:00Z") | person | fields


def make_records() -> Records:
    """Days on which user 42 changes, comes twice, is rejected by a rule and by the contract, and does not come."""
    days: Records = {day: [make_user(n, f"{day}T0{n}:00:00Z", city=str(day)) for n in range(1, 8)] for day in DAYS}
    days[DAYS[0]][3:3] = [make_person(DAYS[0])]
    days[DAYS[1]][2:2] = [make_person(DAYS[1]), make_person(DAYS[1]), make_user(8, email="no address")]
    days[DAYS[2]][6:6] = [make_person(DAYS[2], email=MARK), make_user(9, email="no address")]
    days[DAYS[3]] = [make_person(DAYS[3], id="42"), *days[DAYS[3]], make_user(9, email="none"), {"name": "nobody"}]
    return days


def answer(
    server: Server, configure: Callable[..., None], days: Records, dataset: Dataset = USERS, **keys: Any
) -> None:
    """Have the dataset's source send these records, day by day, in parts of three."""
    url = server.on("/days", lambda request: Answer(days[dt.date.fromisoformat(request.query["on"])]))
    gates = {"max_reject_ratio": 1, "max_delete_ratio": 1, "max_drop_ratio": 1}
    configure(dataset.name, url=url + "?on={date}", paginator="single", **gates, **keys)
    configure("pipeline", part_records=3)


def make(dataset: Dataset, days: list[dt.date]) -> None:
    for day in days:
        extract_day(dataset, day)
        stages.transform_day(dataset, day)
        stages.load_day(dataset, day)


@pytest.fixture(params=["incremental", "snapshot"])
def loaded(request: pytest.FixtureRequest, server: Server, configure: Callable[..., None]) -> Records:
    """Five days of users, loaded out of order."""
    days = make_records()
    answer(server, configure, days, mode=request.param)
    for day in DAYS:
        extract_day(USERS, day)
        stages.transform_day(USERS, day)
    for day in [*DAYS[2:], *DAYS[:2]]:
        stages.load_day(USERS, day)
    return days


def find_mark(folder: str = "data") -> list[str]:
    """The files that hold the mark, in their bytes or unpacked."""
    found = []
    for path, content in dump_tree(folder).items():
        if path.endswith(".gz"):
            content += b"\n".join(unpack(content))
        elif path.endswith(".parquet"):
            content += str(pq.read_table(path).to_pylist()).encode()
        if MARK.lower() in content.decode(errors="replace").lower():
            found.append(path)
    return found


def read_raw(dataset: Dataset, day: dt.date) -> list[bytes]:
    folder = dataset.folder("raw", day)
    return [line for part in folder.read_manifest(RawManifest).parts for line in unpack(folder.read(part))]


def read_clean(dataset: Dataset, day: dt.date) -> tuple[list[bytes], list[bytes]]:
    """The bytes of the parts, and of the rejects."""
    folder = dataset.folder("clean", day)
    made = folder.read_manifest(CleanManifest)
    assert {part.name for part in (*made.parts, *made.rejects)} | {"manifest.json"} == {
        path.name for path in folder.path.iterdir()
    }
    return [folder.read(part) for part in made.parts], [folder.read(part) for part in made.rejects]


def dump_days() -> dict[str, bytes]:
    """The files of the days."""
    return {path: content for path, content in dump_tree("data").items() if "date=" in path}


OWN_COUNTS = "date, extracted, rejected, forgotten, duplicate, raw_sha256, clean_sha256, accepted"


def dump_tables() -> dict[str, list[tuple[Any, ...]]]:
    """All that a set of days and tombstones decides, whatever the order of loading."""
    tables = ("users", "users_days", "users_events", "users_changes", "users_forgotten", "users_history", "rejects")
    return {name: sorted(query(f"select * from {name}"), key=repr) for name in tables} | {
        "loads": query(f"select {OWN_COUNTS} from loads order by 1")
    }


def check_markers(dataset: Dataset = USERS) -> None:
    """G4, the hashes of the folders, and whatever else verify looks at."""
    assert [finding for finding in verify(dataset) if not finding.remark] == []
    assert (
        query(
            "select date from loads where extracted <> rejected + forgotten + duplicate + stale + unchanged + inserted "
            "+ updated + deleted "
            "or rejected < 0 or forgotten < 0 or duplicate < 0 or stale < 0 or unchanged < 0 or inserted < 0 "
            "or updated < 0 or deleted < 0"
        )
        == []
    )
    for date, raw_sha256, clean_sha256, rejected in query(
        "select date, raw_sha256, clean_sha256, rejected from loads where dataset = ?", dataset.name
    ):
        day = dt.date.fromisoformat(date)
        read = dataset.folder("raw", day).read_manifest(RawManifest)
        made = dataset.folder("clean", day).read_manifest(CleanManifest)
        assert (raw_sha256, clean_sha256) == (digest(read.parts), digest([*made.parts, *made.rejects]))
        assert stages.is_current(dataset, day)
        assert query("select count(*) from rejects where dataset = ? and load_date = ?", dataset.name, date) == [
            (rejected,)
        ]


@pytest.mark.usefixtures("loaded")
def test_no_byte_of_a_forgotten_user_is_left():
    """Neither in raw or clean files, unpacked, nor in the database, where what was deleted left it."""
    with contextlib.closing(sqlite3.connect("data/warehouse.db")) as db:
        db.execute("pragma secure_delete = off")  # as most SQLites are made
        db.execute("create table copy as select * from users_events union all select null, * from users_changes")
        db.execute("drop table copy")
    assert len([path for path in find_mark() if "date=" in path]) == 10
    assert "data/warehouse.db" in find_mark()
    held = [query(f"select * from {table} where user_id = 42") for table in ("users", "users_events", "users_changes")]
    held.append(query("select * from rejects where record like ?", f"%{MARK}%"))
    result = forget.forget(USERS, ["42"])
    assert find_mark() == []
    assert (result.problems, result.unknown) == ([], [])
    assert result.days == {DAYS[0]: 1, DAYS[1]: 2, DAYS[2]: 1, DAYS[3]: 1}
    assert result.rows == sum(map(len, held)) > 0
    assert query("select * from users where user_id = 42") == query("select * from users_history where user_id = 42")


@pytest.mark.usefixtures("database")
def test_nobody_else_is_touched(loaded):
    """Their lines are the same bytes in the same order, their rows and history what they were."""
    before = dump_tables()
    forget.forget(USERS, ["42"])
    for day in DAYS:
        others = [record for record in loaded[day] if str(record.get("id")) != "42"]
        assert read_raw(USERS, day) == [json.dumps(record).encode() for record in others]
    after = dump_tables()
    for table in ("users", "users_events", "users_changes", "users_history"):
        assert after[table] == [row for row in before[table] if 42 not in row]
    assert len(after["users_history"]) == len(before["users_history"]) - 2
    assert [row[4:] for row in after["rejects"]] == [row[4:] for row in before["rejects"] if MARK not in row[7]]


@pytest.mark.usefixtures("database", "loaded")
def test_what_is_left_is_what_the_lines_that_are_left_make():
    """G2, G4: files cleaned and days loaded anew from raw, in another order, say the same to the byte."""
    forget.forget(USERS, ["42"])
    check_markers()
    tables, clean = dump_tables(), {day: read_clean(USERS, day) for day in DAYS}
    remove_warehouse()
    for day in DAYS:
        stages.load_day(USERS, day)
    assert dump_tables() == tables
    for day in DAYS:
        stages.transform_day(USERS, day)
        assert read_clean(USERS, day) == clean[day]


@pytest.mark.usefixtures("database_on_request")
def test_the_manifests_say_what_was_taken_out(loaded):
    """How many lines, the hash of the day before, and of each part that was replaced; what came stays said."""
    before = {day: USERS.folder("raw", day).read_manifest(RawManifest) for day in DAYS}
    forget.forget(USERS, ["42"])
    for day in DAYS:
        after = USERS.folder("raw", day).read_manifest(RawManifest)
        taken = sum(str(record.get("id")) == "42" for record in loaded[day])
        assert (after.records, after.keys) == (before[day].records, before[day].keys)
        assert after.forgotten == taken == after.records - sum(part.records for part in after.parts)
        if not taken:
            assert after == before[day]
            continue
        (erasure,) = after.erasures
        assert (erasure.lines, erasure.sha256) == (taken, digest(before[day].parts))
        assert {part.name for part in before[day].parts} - {part.name for part in after.parts} == {
            part.name for part in erasure.parts
        }
        assert all(part in before[day].parts for part in erasure.parts)
    second = USERS.folder("raw", DAYS[1]).read_manifest(RawManifest)
    assert [part.name for part in second.parts][:2] == ["part-00000-r1.jsonl.gz", "part-00001-r1.jsonl.gz"]


@pytest.mark.usefixtures("database_on_request", "loaded")
def test_a_forgotten_user_is_not_brought_back():
    """Not by cleaning or loading again, nor by the source, which sends the user as before; running it again does it."""
    forget.forget(USERS, ["42"])
    for day in DAYS:
        stages.transform_day(USERS, day)
        stages.load_day(USERS, day)
    assert find_mark() == []
    USERS.folder("raw", DAYS[0]).sweep()
    make(USERS, DAYS[:1])
    assert not [path for path in find_mark() if "warehouse" in path]
    assert query("select forgotten from loads where date = ?", str(DAYS[0])) == [(1,)]
    check_markers()
    assert forget.forget(USERS, []).days == {DAYS[0]: 1}
    assert find_mark() == []
    assert query("select forgotten from loads where date = ?", str(DAYS[0])) == [(1,)]
    check_markers()


@pytest.mark.usefixtures("database_on_request", "loaded")
def test_tombstones_in_the_files_keep_a_new_warehouse_clean():
    """The warehouse can be thrown away: they come from data_dir with the first load."""
    Tombstones("data", "users").add([forget.Tombstone((42,), config.utc_now())])
    remove_warehouse()
    for day in DAYS:
        stages.load_day(USERS, day)
    assert query("select count(*) from users where user_id = 42") == [(0,)]
    assert query("select user_id from users_forgotten") == [(42,)]


@pytest.mark.usefixtures("database_on_request", "loaded")
def test_tombstones_in_the_warehouse_are_kept_in_the_files_too():
    """Where data_dir is another one, the next run writes them there."""
    forget.forget(USERS, ["42"])
    Path("data/forgotten/users.jsonl").unlink()
    forget.forget(USERS, ["4711"])
    assert Tombstones("data", "users").keys() == [(42,), (4711,)]


@pytest.mark.usefixtures("database_on_request")
def test_a_second_user_is_forgotten_after_the_first(loaded):
    """Parts are replaced again, and the markers follow."""
    forget.forget(USERS, ["42"])
    result = forget.forget(USERS, ["1", "9", "2"])
    assert result.days == {day: sum(r.get("id") in (1, 2, 9) for r in loaded[day]) for day in DAYS}
    check_markers()
    assert query("select distinct user_id from users_history order by 1") == [(n,) for n in range(3, 8)]
    names = [part.name for part in USERS.folder("raw", DAYS[1]).read_manifest(RawManifest).parts]
    assert names[0] == "part-00000-r2.jsonl.gz"


@pytest.mark.usefixtures("loaded")
def test_the_markers_follow_where_the_run_before_was_cut_off(monkeypatch):
    """The files of some days were changed twice since those were written."""
    with monkeypatch.context() as patch:
        patch.setattr(forget, "_erase_rows", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            forget.forget(USERS, ["42"])
    assert forget.forget(USERS, ["1"]).problems == []
    check_markers()


@pytest.mark.usefixtures("database_on_request", "loaded")
def test_an_unknown_user_is_forgotten_ahead():
    """Nothing is found and no file changes; who comes tomorrow is kept out."""
    before, folders = dump_tables(), dump_days()
    result = forget.forget(USERS, ["4711"])
    assert (result.days, result.rows, result.unknown, result.problems) == ({}, 0, ["4711"], [])
    assert dump_days() == folders
    assert dump_tables() == before | {"users_forgotten": [(4711,)]}


@pytest.mark.usefixtures("database_on_request", "loaded")
def test_each_time_it_was_done_is_noted_without_the_user():
    """When, for how many keys, and how many lines of which day are gone; there is nothing pending then."""
    for keys in (["42", "4711"], ["1"], []):
        forget.forget(USERS, keys)
    tombstones = Tombstones("data", "users")
    first, second, third = (line for line in tombstones.read() if isinstance(line, Done))
    assert (first.tombstones, second.tombstones, tombstones.count_pending()) == (2, 3, 0)
    assert first.days == {DAYS[0]: 1, DAYS[1]: 2, DAYS[2]: 1, DAYS[3]: 1}
    assert second.days == {DAYS[0]: 2, DAYS[1]: 3, DAYS[2]: 2, DAYS[3]: 2, DAYS[4]: 1}
    assert (third.tombstones, third.days) == (second.tombstones, second.days)
    assert tombstones.keys() == [(42,), (4711,), (1,)]
    tombstones.add([forget.Tombstone((7,), config.utc_now())])
    assert tombstones.count_pending() == 1


@pytest.mark.usefixtures("database_on_request", "loaded")
@pytest.mark.parametrize(
    ("name", "what"),
    [("part-00000.jsonl.gz", ": the bytes are not those of its manifest"), ("manifest.json", " is not a manifest")],
    ids=["a part", "the manifest"],
)
def test_a_damaged_day_is_one_line_and_the_others_are_done(name, what):
    """It stays as it is, and what is done is not noted; once it is mended, the same command completes it."""
    raw = USERS.folder("raw", DAYS[1])
    path = raw.path / name
    content = path.read_bytes()
    path.write_bytes(content[:-2])
    result = forget.forget(USERS, ["42"])
    (problem,) = result.problems
    assert problem.startswith(f"users {DAYS[1]}: {path}{what}")
    assert result.days == {DAYS[0]: 1, DAYS[2]: 1, DAYS[3]: 1}
    assert Tombstones("data", "users").count_pending() == 1
    path.write_bytes(content)
    assert {str(Path(path).parent) for path in find_mark()} == {str(raw), str(USERS.folder("clean", DAYS[1]))}
    assert forget.forget(USERS, []).days == {DAYS[1]: 2}
    assert find_mark() == []
    check_markers()


@pytest.mark.usefixtures("database_on_request", "loaded")
def test_unfinished_days_are_swept():
    """A part without a manifest may hold anybody; the day is read and cleaned again by the next run."""
    raw, clean = USERS.folder("raw", DAYS[0]), USERS.folder("clean", DAYS[1])
    (raw.path / "manifest.json").unlink()
    (clean.path / "manifest.json").unlink()
    new = USERS.folder("raw", dt.date(2026, 11, 9))
    new.sweep()
    new.write("part-00000.jsonl.gz", pack([[MARK.encode()]]))
    new.add_to_journal([MARK.encode()])
    for stage in ("raw", "clean"):  # left by a run that was killed, in a day without a line of the user
        USERS.folder(stage, DAYS[4]).write("part-00007.jsonl.gz", pack([[MARK.encode()]]))
    assert forget.forget(USERS, ["42"]).problems == []
    assert find_mark() == []
    assert list(new.path.iterdir()) == []
    assert not clean.exists()
    assert USERS.folder("raw", DAYS[1]).exists()


@pytest.mark.usefixtures("loaded")
def test_the_tombstones_are_written_and_the_day_is_held_before_lines_are_taken_out_of_it(monkeypatch):
    """In the file and the table, and at both stages: nobody reads, cleans or loads it meanwhile."""
    write_parts, held, written = forget._write_parts, [], []

    def watch(raw: DayFolder, clean: DayFolder, *rest: Any) -> Any:
        held.append((is_held(raw), is_held(clean)))
        written.append(Tombstones("data", "users").keys() + query("select user_id from users_forgotten"))
        return write_parts(raw, clean, *rest)

    monkeypatch.setattr(forget, "_write_parts", watch)
    forget.forget(USERS, ["42"])
    assert held == [(True, True)] * len(DAYS)
    assert written == [[(42,), (42,)]] * len(DAYS)


@pytest.mark.usefixtures("database_on_request", "loaded")
def test_a_clean_day_of_another_raw_day_is_swept():
    """It would be made again anyway, and its lines cannot be told."""
    USERS.folder("raw", DAYS[0]).sweep()
    extract_day(USERS, DAYS[0])
    path = USERS.folder("clean", DAYS[0]).path
    manifest = path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"raw_sha256": [', '"raw_sha256": ["other",'))
    forget.forget(USERS, ["42"])
    assert list(path.iterdir()) == []
    assert find_mark() == []


@pytest.mark.usefixtures("loaded")
def test_a_clean_day_whose_rejects_are_lost_is_left_to_a_person():
    """Which line made which row cannot be told then: the line of somebody else would go."""
    clean, before = USERS.folder("clean", DAYS[2]), read_raw(USERS, DAYS[2])
    clean.replace(msgspec.structs.replace(clean.read_manifest(CleanManifest), rejected=0, rejects=[]))
    (problem,) = forget.forget(USERS, ["42"]).problems
    assert f"it has 1 rows of 3 records, 0 of them rejected: delete the folder {clean}, so that" in problem
    assert read_raw(USERS, DAYS[2]) == before


@pytest.mark.usefixtures("database_on_request")
def test_a_day_that_was_read_anew_is_still_to_be_loaded(loaded):
    """Its marker goes on telling of the files that it was loaded from."""
    loaded[DAYS[0]].append(make_user(10, f"{DAYS[0]}T10:00:00Z"))
    USERS.folder("raw", DAYS[0]).sweep()
    extract_day(USERS, DAYS[0])
    stages.transform_day(USERS, DAYS[0])
    hashes = "select raw_sha256, clean_sha256 from loads where date = ?"
    before = query(hashes, str(DAYS[0]))
    forget.forget(USERS, ["42"])
    assert query(hashes, str(DAYS[0])) == before
    assert find_stale(USERS) == {DAYS[0]: "loaded from other files"}
    stages.load_day(USERS, DAYS[0])
    check_markers()


@pytest.mark.usefixtures("loaded")
def test_a_day_that_is_read_anew_before_the_tables_are_done_keeps_its_marker(monkeypatch):
    """The clean files are those of the lines that were left; the raw ones have all that the source sends again."""
    hashes = "select raw_sha256, clean_sha256 from loads where date = ?"
    before, erase_rows = query(hashes, str(DAYS[0])), forget._erase_rows

    def come_between(*arguments: Any) -> int:
        USERS.folder("raw", DAYS[0]).sweep()
        extract_day(USERS, DAYS[0])
        return erase_rows(*arguments)

    monkeypatch.setattr(forget, "_erase_rows", come_between)
    forget.forget(USERS, ["42"])
    assert query(hashes, str(DAYS[0])) == before
    assert USERS.folder("raw", DAYS[0]).read_manifest(RawManifest).sha256 == before[0][0]


@pytest.mark.usefixtures("database", "loaded")
def test_a_clean_day_without_its_raw_one_is_left_to_a_person():
    """It is the last that there is of that day, so it is not swept; the line says what to do. The warehouse is done."""
    raw = USERS.folder("raw", DAYS[2])
    raw.sweep()
    raw.path.rmdir()
    (problem,) = forget.forget(USERS, ["42"]).problems
    assert f"{USERS.folder('clean', DAYS[2])} is all there is of the day: delete it, or bring {raw} back" in problem
    assert query("select count(*) from users_history where user_id = 42") == [(0,)]
    assert query("select count(*) from rejects where record like ?", f"%{MARK}%") == [(0,)]
    assert query("select rejected, forgotten from loads where date = ?", str(DAYS[2])) == [(1, 1)]
    assert find_mark() == [path for path in find_mark() if path.startswith(f"data/clean/users/date={DAYS[2]}/")]


@pytest.mark.usefixtures("database_on_request", "loaded")
def test_rows_made_by_other_code_stay_as_they_are(monkeypatch):
    """No day is cleaned anew: version, other rows and other rejects are those that are loaded."""
    tables = dump_tables()
    before = {day: USERS.folder("clean", day).read_manifest(CleanManifest) for day in DAYS}
    monkeypatch.setattr(Dataset, "version", "of tomorrow")
    forget.forget(USERS, ["42"])
    after = {day: USERS.folder("clean", day).read_manifest(CleanManifest) for day in DAYS}
    assert {made.transform_version for made in after.values()} == {before[DAYS[0]].transform_version}
    assert after[DAYS[4]] == before[DAYS[4]]
    assert after[DAYS[2]].reasons == {"email: has no @": 1}
    assert dump_tables()["users"] == [row for row in tables["users"] if 42 not in row]


@pytest.mark.usefixtures("database")
def test_a_key_of_two_columns_is_an_array(server, configure):
    """One line of an order goes, the other stays; a reject of that key goes too."""
    days: Records = {
        day: [
            {"number": "A-1", "line": 1, "amount": 1.5, "changed": f"{day}T08:00:00Z"},
            {"number": "A-1", "line": 2, "amount": 2.5, "changed": f"{day}T08:00:00Z"},
            {"number": "A-1", "line": 2, "amount": -1, "changed": f"{day}T09:00:00Z"},
        ]
        for day in DAYS[:2]
    }
    answer(server, configure, days, orders.ORDERS, mode="incremental")
    make(orders.ORDERS, DAYS[:2])
    result = forget.forget(orders.ORDERS, ['["A-1", 2]'])
    assert result.days == {DAYS[0]: 2, DAYS[1]: 2}
    assert query("select number, line from orders") == [("A-1", 1)]
    assert query("select count(*) from rejects") == [(0,)]
    assert query("select distinct number, line from orders_events") == [("A-1", 1)]
    assert [len(read_raw(orders.ORDERS, day)) for day in DAYS[:2]] == [1, 1]
    check_markers(orders.ORDERS)


@pytest.mark.usefixtures("database_on_request")
def test_another_dataset_in_the_warehouse_is_not_touched(server, configure):
    """Not even where it rejected a record at the same place, and its records have a field of that name."""
    answer(server, configure, make_records(), mode="incremental")
    make(USERS, [DAYS[3]])
    days: Records = {DAYS[3]: [{"number": "A-1", "line": line, "amount": -1, "id": 42} for line in range(1, 6)]}
    answer(server, configure, days, orders.ORDERS, mode="incremental")
    make(orders.ORDERS, [DAYS[3]])
    tables = [f"select * from {name} where dataset = 'orders' order by 1, 2, 3, 4" for name in ("loads", "rejects")]
    before = [query(sql) for sql in tables]
    assert [len(rows) for rows in before] == [1, 5]
    assert forget.forget(USERS, ["42"]).rows == 1
    assert [query(sql) for sql in tables] == before
    check_markers()


@pytest.mark.usefixtures("database_on_request")
def test_a_key_that_cleaning_changes_is_found_by_its_row(server, configure):
    """Where the table says a-1, raw says ` A-1`: the line that made the row goes."""

    def clean(rows: Any) -> Any:
        cleaned, broken = orders.clean(rows)
        cleaned["number"] = cleaned["number"].str.strip().str.lower()
        return cleaned, broken

    dataset = Dataset(orders.Orders, orders.Order, clean, orders.table, orders.ORDERS.key)
    days: Records = {DAYS[0]: [{"number": f" A-{n}", "line": 1, "changed": "2026-11-01T08:00:00Z"} for n in range(5)]}
    days[DAYS[0]].insert(0, {"number": "A-3", "line": 1, "amount": -1})
    answer(server, configure, days, dataset, mode="incremental")
    make(dataset, DAYS[:1])
    assert forget.forget(dataset, ['["a-3", 1]']).days == {DAYS[0]: 2}
    assert [json.loads(line)["number"] for line in read_raw(dataset, DAYS[0])] == [" A-0", " A-1", " A-2", " A-4"]
    check_markers(dataset)


def test_a_key_is_found_however_it_is_written():
    """As a number, with a point or without, or as text; what Python does not read is nobody's."""
    finder = Finder(["id"], [(42,)])
    assert finder.find_lines([b'{"id": 42}', b'{"id": 42.0}', b'{"id": "42"}', b'{"id": 420}', b"{}"]) == {1, 2, 3}
    assert finder.find_rejects(["[42]", None, f"[{'9' * 5000}]"]) == {0}


@pytest.mark.parametrize("text", ["", "x", "4.5", "[42, 1]", '"42"', "042", str(2**63), "true", "null"])
def test_what_can_be_no_key_is_refused(text):
    """One line that says what a key is; nothing is written."""
    with pytest.raises(ConfigError, match=r"is no key of users: give user_id \(integer\) as it stands there"):
        forget.forget(USERS, ["42", text])
    assert not Path("data").exists()


@pytest.mark.parametrize("text", ["A-1", '["A-1"]', '["A-1", "2"]', '[1, "A-1"]', r'["\ud800", 1]', r'["\u0000", 1]'])
def test_an_array_that_can_be_no_key_is_refused(text):
    """Its values are of the columns' kinds, in their order."""
    with pytest.raises(ConfigError, match=r"give number \(text\), line \(integer\) as a JSON array"):
        forget.forget(orders.ORDERS, [text])


@pytest.mark.usefixtures("database_on_request")
def test_nobody_to_forget_is_said():
    """Without a key it completes what was begun; there must be something."""
    with pytest.raises(ConfigError, match="nobody was forgotten so far"):
        forget.forget(USERS, [])


@pytest.mark.usefixtures("database_on_request")
def test_a_record_without_a_key_is_nobodys(server, configure):
    """Not even that of a user with the key `null`."""
    days: Records = {DAYS[0]: [{"number": None, "line": 1}, {"line": 1}, {"number": "null", "line": 1}]}
    answer(server, configure, days, orders.ORDERS, mode="incremental")
    make(orders.ORDERS, DAYS[:1])
    assert forget.forget(orders.ORDERS, ['["null", 1]']).days == {DAYS[0]: 1}
    assert query("select count(*) from rejects") == [(2,)]


@pytest.mark.usefixtures("database", "loaded")
def test_a_reader_of_the_warehouse_is_named(monkeypatch):
    """As long as it reads, bytes stay in the files of the database: that is a problem, and the next run ends it."""
    for module in (sqlite, postgres):
        monkeypatch.setattr(module, "BUSY_SECONDS", 0.1)
    with databases.connect(Pipeline().database) as reader:
        reader.execute("begin")
        reader.execute("select count(*) from users").fetchall()
        (problem,) = forget.forget(USERS, ["42"]).problems
        assert "another program is reading the warehouse" in problem
        assert Tombstones("data", "users").count_pending() == 1
    assert forget.forget(USERS, []).problems == []
    assert find_mark() == []


@pytest.mark.usefixtures("database_on_request", "loaded")
def test_the_command_says_what_is_done_and_nothing_of_the_user():
    """Lines by day, keys of which there was nothing, problems with exit code 1; status knows what is not completed."""
    command = ("python", "-m", "pipeline", "forget")
    raw = USERS.folder("raw", DAYS[2])
    path = raw.path / raw.read_manifest(RawManifest).parts[0].name
    content = path.read_bytes()
    path.write_bytes(b"")
    result = run(*command, "42", "4711", "--pipeline-data-dir", "data")
    assert result.returncode == 1
    assert "users: 4 lines of the files and " in result.stdout
    assert f"\n  {DAYS[1]}: 2 lines\n" in result.stdout
    assert "4711: found in no day" in result.stdout
    assert result.stderr.startswith(f"ERROR: users {DAYS[2]}: {path}: the bytes are not those")
    assert "2 keys not wholly forgotten" in run("python", "-m", "pipeline", "status").stdout
    path.write_bytes(content)
    again = run(*command)
    assert (again.returncode, again.stderr) == (0, "")
    assert "users: 1 line of the files and 0 rows of the warehouse" in again.stdout
    assert "not wholly" not in run("python", "-m", "pipeline", "status").stdout
    assert MARK not in result.stdout + result.stderr + again.stdout


@pytest.mark.usefixtures("loaded")
def test_the_value_of_a_flag_is_nobodys_key():
    """Keys come first, or nobody is forgotten."""
    for flags in (("--pipeline-part-records", "1", "2"), ("--pipeline-part-records", "1"), ("3", "-x", "1", "2")):
        assert run("python", "-m", "pipeline", "forget", *flags).returncode != 0
    assert query("select count(distinct user_id) from users_history") == [(8,)]


@pytest.mark.usefixtures("database_on_request", "loaded")
def test_a_file_of_tombstones_that_cannot_be_read_stops_a_load():
    """Or it would bring back who was forgotten."""
    Path("data/forgotten").mkdir()
    Path("data/forgotten/users.jsonl").write_text("{")
    with pytest.raises(FolderError, match=r"users\.jsonl: the keys that are forgotten cannot be read"):
        stages.load_day(USERS, DAYS[0])


def test_a_run_that_is_killed_at_any_step_is_completed_by_the_next(server, configure):
    """Whatever was synced, renamed, deleted or committed last: no day is lost, no load brings the user back, and the
    same command leaves the files and tables that it would have left at once."""
    days = make_records()
    answer(server, configure, days, mode="incremental")
    make(USERS, [DAYS[1], DAYS[3]])
    code = "import test_forget; test_forget.kill_at_every_step()"
    result = run("python", "-c", code, PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}")
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 40


def kill_at_every_step() -> None:
    """Forget user 42 in a copy of `data`, killed at the first step, the second, …; prints how many there were."""
    config.utc_now = lambda: dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
    get_config().set("users", "max_reject_ratio", "1")
    Path("data").rename("before")
    shutil.copytree("before", "data")
    forget.forget(USERS, ["42"])
    wanted = dump_files(), dump_database()
    for step in itertools.count():
        shutil.rmtree("data")
        shutil.copytree("before", "data")
        child = os.fork()
        if not child:
            kill_at(step)
            forget.forget(USERS, ["42"])
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            break
        check_state(step)
        forget.forget(USERS, ["42"])
        assert (dump_files(), dump_database()) == wanted, step
    print(step)


def kill_at(step: int) -> None:
    """Have this process killed before the n-th of its calls that leave something on the disk."""
    steps = itertools.count()

    def watch(call: Callable[..., Any], name: str = "") -> Callable[..., Any]:
        def watched(*arguments: Any, **keys: Any) -> Any:
            if arguments[-1:] != (name,) and name:
                return call(*arguments, **keys)
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **keys)

        return watched

    for name in ("fsync", "rename", "unlink"):
        setattr(os, name, watch(getattr(os, name)))
    for sql in ("commit", "vacuum", "pragma wal_checkpoint(truncate)"):
        sqlite.SQLite.run = watch(sqlite.SQLite.run, sql)


def check_state(step: int) -> None:
    """Every day is there and whole, and loads into a new warehouse without the user once the tombstone is written."""
    for day in (DAYS[1], DAYS[3]):
        raw = USERS.folder("raw", day)
        assert [raw.read(part) for part in raw.read_manifest(RawManifest).parts], step
        for clean in [USERS.folder("clean", day)] * stages.is_current(USERS, day):
            made = clean.read_manifest(CleanManifest)
            assert [clean.read(part) for part in (*made.parts, *made.rejects)], step
    shutil.copytree("data", "killed")
    for path in Path("data").glob("warehouse.db*"):
        path.unlink()
    for day in [DAYS[1], DAYS[3]] * bool(Tombstones("data", "users").keys()):
        if not stages.is_current(USERS, day):
            stages.transform_day(USERS, day)
        stages.load_day(USERS, day)
        assert query("select count(*) from users_history where user_id = 42") == [(0,)], step
        assert query("select count(*) from loads where forgotten = 0") == [(0,)], step
    shutil.rmtree("data")
    Path("killed").rename("data")


def dump_files() -> dict[str, Any]:
    """The days, and the different lines of the tombstones: what was done may have been noted as the run was killed."""
    return dump_days() | {"tombstones": sorted(set(Path("data/forgotten/users.jsonl").read_bytes().splitlines()))}


def dump_database() -> list[str]:
    with contextlib.closing(sqlite3.connect("data/warehouse.db")) as db:
        return list(db.iterdump())


@pytest.mark.usefixtures("database")
def test_loads_that_run_meanwhile_neither_bring_the_user_back_nor_lose_a_hash(server, configure):
    """Days are cleaned and loaded again and again, as users are forgotten: in the end every marker fits its files."""
    answer(server, configure, make_records(), mode="incremental")
    make(USERS, DAYS)
    code = "import test_forget; test_forget.load_again_and_again()"
    process = start("python", "-c", code, PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "first round\n"
        for key in ("42", "1", "2", "3"):
            result = forget.forget(USERS, [key])
            assert (result.problems, result.unknown) == ([], [])
    finally:
        Path("stop").touch()
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert find_mark() == []
    assert query("select distinct user_id from users_history order by 1") == [(n,) for n in range(4, 8)]
    check_markers()


def load_again_and_again() -> None:
    """As Luigi does it, each stage under its lock, until there is a file `stop`."""
    get_config().set("users", "max_reject_ratio", "1")
    for number in itertools.count():
        for day in DAYS:
            execute(f"delete from loads where date = '{day}'")
            if number % 3 == 0:
                with USERS.folder("clean", day).lock():
                    stages.transform_day(USERS, day)
            stages.load_day(USERS, day)
        if number == 0:
            print("first round", flush=True)
        if Path("stop").exists():
            return
