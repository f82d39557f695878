"""Folders of parts, and markers."""

import datetime as dt
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from tests.support import ROOT
from tests.support.project import luigi_run, need, run_here
from wholeday.errors import ConfigError, FolderError, WarehouseError
from wholeday.load.markers import find_loaded
from wholeday.storage import files
from wholeday.storage.day_folder import REMEDIES, DayFolder
from wholeday.storage.manifest import CleanManifest, digest
from wholeday.tasks.targets import LoadMarker

DAY = dt.date(2026, 11, 21)
MANIFEST = CleanManifest(
    dataset="users",
    date=DAY,
    raw_sha256=[],
    transform_version="1",
    rows=0,
    rejected=0,
    reasons={},
    accepted=[],
    parts=[],
    rejects=[],
)


@pytest.fixture
def folder() -> DayFolder:
    folder = DayFolder("data", "clean", "users", DAY)
    folder.clear()
    return folder


def test_a_day_lies_where_hive_would_put_it(folder):
    """So that DuckDB, Spark and pandas read the tree as it is."""
    assert str(folder) == "data/clean/users/date=2026-11-21"


def test_a_day_exists_when_its_manifest_does(folder):
    """Parts alone are unfinished work."""
    folder.write("part-00000.parquet", [(1, b"x")])
    assert not folder.exists()
    folder.publish(MANIFEST)
    assert folder.exists()
    assert folder.read_manifest(CleanManifest) == MANIFEST


def test_names_of_parts_are_synced_before_the_manifest(folder, monkeypatch):
    """After a power cut no manifest names a part that is missing."""
    done = []
    for name in ("sync_folder", "write"):
        real = getattr(files, name)
        monkeypatch.setattr(
            files, name, lambda path, *rest, name=name, real=real: (done.append((name, path.name)), real(path, *rest))
        )
    folder.write("part-00000.parquet", [(1, b"x")])
    folder.publish(MANIFEST)
    acts = [(name, path.split(".json")[0]) for name, path in done]
    assert acts[:3] == [("write", "part-00000.parquet"), ("sync_folder", f"date={DAY}"), ("write", "manifest")]


def test_a_part_says_what_it_holds(folder):
    """Name, records, bytes and sha256, as the tools of the shell would count them."""
    part = folder.write("part-00000.parquet", [(2, b"ab"), (1, b"c")])
    assert part.records == 3
    assert (part.name, part.bytes, part.sha256) == ("part-00000.parquet", 3, hashlib.sha256(b"abc").hexdigest())
    assert folder.read(part) == b"abc"
    listing = subprocess.run(
        [need("sha256sum"), "part-00000.parquet"], cwd=folder.path, capture_output=True, check=True
    ).stdout
    assert digest([part]) == hashlib.sha256(listing).hexdigest()


def test_a_changed_byte_is_noticed_when_the_part_is_read(folder):
    """What is loaded is what the manifest says."""
    part = folder.write("part-00000.parquet", [(1, b"abc")])
    (folder.path / part.name).write_bytes(b"abd")
    with pytest.raises(FolderError, match=r"part-00000\.parquet: the file does not match its manifest"):
        folder.read(part)


@pytest.mark.parametrize("stage", ["raw", "clean"])
def test_a_part_that_is_gone_is_one_line_with_a_way_out(stage):
    """As one whose bytes are others: it comes from a copy, or the day is made again."""
    folder = DayFolder("data", stage, "users", DAY)
    folder.clear()
    part = folder.write("part-00000.x", [(1, b"abc")])
    (folder.path / part.name).unlink()
    with pytest.raises(FolderError) as caught:
        folder.read(part)
    assert str(caught.value) == (
        f"{folder}/part-00000.x: the file is missing. Restore it from a copy, or {REMEDIES[stage]}"
    )


def test_a_part_that_cannot_be_read_keeps_the_reason(folder):
    """It is there, so there is nothing to bring back."""
    part = folder.write("part-00000.parquet", [(1, b"abc")])
    path = folder.path / part.name
    path.unlink()
    path.mkdir()
    with pytest.raises(FolderError, match=r"part-00000\.parquet: Is a directory: check disk space"):
        folder.read(part)


def test_the_files_of_a_killed_run_are_swept_and_a_person_s_own_are_not(folder):
    """Parts, rejects and half a manifest go; a note that somebody left stays."""
    for name in ("part-00000.parquet", "part-00007.parquet", "rejects-00000.jsonl.gz", "manifest.json.new", "note.txt"):
        (folder.path / name).write_bytes(b"x")
    folder.publish(MANIFEST)
    folder.clear()
    assert [path.name for path in folder.path.iterdir()] == ["note.txt"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"dataset": 1}', b"\xff", b'{"dataset": "\xff"}'])
def test_a_manifest_that_cannot_be_read_is_one_line(folder, content):
    """It names the file and what to do."""
    (folder.path / "manifest.json").write_bytes(content)
    with pytest.raises(FolderError, match=r"manifest\.json is not a manifest"):
        folder.read_manifest(CleanManifest)


def test_what_the_file_system_refuses_is_one_line():
    """A file where a folder should be: the thing and the reason."""
    Path("data").mkdir()
    Path("data/raw").write_text("")
    with pytest.raises(FolderError, match="data/raw: "):
        DayFolder("data", "raw", "users", DAY).clear()


@pytest.mark.parametrize("place", ["file", "file/data"])
@pytest.mark.parametrize("command", ["status", "plan 2026-11-01 2026-11-03", "prune --older-than 3", "verify"])
def test_a_file_in_the_place_of_data_dir_is_not_taken_for_an_empty_one(capsys, command, place):
    """Nor one above it: one line, and exit code 1."""
    Path("file").touch()
    said = run_here(capsys, *command.split(), "--pipeline-data-dir", place)
    assert said == ("", f"ERROR: [pipeline] data_dir = {place}: file is a file: name a folder", 1)


def test_a_file_in_the_place_of_data_dir_is_told_once_by_a_load():
    """And not also by what would write down that it failed."""
    Path("data").touch()
    result = luigi_run("LoadUsers", "--date", str(DAY))
    assert result.returncode == 35
    (line,) = result.stderr.splitlines()
    assert line.endswith(f"(date={DAY}): [pipeline] data_dir = data: data is a file: name a folder")


def test_an_error_of_the_work_is_not_taken_for_one_of_the_lock():
    """What goes wrong while a day is held keeps its own words."""
    with pytest.raises(FileNotFoundError, match="lookup"), DayFolder("data", "raw", "users", DAY).lock():
        Path("lookup.csv").read_text()


HOLD = """
import datetime as dt, sys, time
from wholeday.storage.day_folder import DayFolder
with DayFolder("data", "raw", "users", dt.date.fromisoformat(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def hold(date: dt.date) -> "subprocess.Popen[str]":
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(date)], env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process


def test_one_process_at_a_time_holds_a_day_and_a_killed_one_lets_go():
    """A second one waits for as long as the first lives; another day is free."""
    first, second, other = hold(DAY), None, None
    try:
        assert first.stdout.readline() == "held\n"
        second, other = hold(DAY), hold(DAY + dt.timedelta(days=1))
        assert other.stdout.readline() == "held\n"
        os.set_blocking(second.stdout.fileno(), False)
        time.sleep(1)
        assert second.stdout.readline() == ""
        first.kill()
        os.set_blocking(second.stdout.fileno(), True)
        assert second.stdout.readline() == "held\n"
    finally:
        for process in (first, second, other):
            if process is not None:
                process.kill()
                process.communicate()


def test_a_warehouse_that_is_not_there_holds_nothing_and_is_not_made():
    """Asking leaves no empty file."""
    assert not LoadMarker("sqlite:///data/warehouse.db", "users", DAY).exists()
    assert not Path("data").exists()


def test_a_database_without_our_table_holds_nothing():
    """The table is made by the first load."""
    Path("other.db").write_bytes(b"")
    assert find_loaded("sqlite:///other.db", "users", [DAY]) == set()


def test_a_file_that_is_no_database_is_one_line():
    """The path and the reason."""
    Path("other.db").write_bytes(b"x" * 5000)
    with pytest.raises(WarehouseError, match=r"other\.db: cannot ask which days are loaded: file is not a database"):
        find_loaded("sqlite:///other.db", "users", [DAY])


@pytest.mark.parametrize(
    ("url", "shown"),
    [("oracle://scott:tiger@host/db", "oracle://…"), ("postgresql+psycopg2://u:tiger@h/d", "2://…"), ("a.db", "a.db")],
)
def test_another_database_is_refused_without_its_password(url, shown):
    """The line says what a URL must look like, and does not repeat what may be a secret."""
    with pytest.raises(
        ConfigError, match=r"sqlite:///data/warehouse\.db.*postgresql\+psycopg://user@host/name"
    ) as caught:
        find_loaded(url, "users", [DAY])
    assert shown in str(caught.value)
    assert "tiger" not in str(caught.value)


def test_a_manifest_is_written_to_be_read_by_a_person(folder):
    """Indented JSON with UTC times."""
    folder.publish(MANIFEST)
    text = (folder.path / "manifest.json").read_text()
    assert text.startswith('{\n  "dataset": "users",\n  "date": "2026-11-21"')
    assert msgspec.json.decode(text)["rows"] == 0
