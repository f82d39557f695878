"""Read and write the folders of days, and look up markers."""

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


def test_path_of_a_day_follows_hive(folder):
    """DuckDB, Spark and pandas read the folders as partitions."""
    assert str(folder) == "data/clean/users/date=2026-11-21"


def test_day_exists_once_its_manifest_exists(folder):
    """A folder with parts only is unfinished."""
    folder.write("part-00000.parquet", [(1, b"x")])
    assert not folder.exists()
    folder.publish(MANIFEST)
    assert folder.exists()
    assert folder.read_manifest(CleanManifest) == MANIFEST


def test_names_of_parts_are_synced_before_the_manifest(folder, monkeypatch):
    """After a power cut, no manifest names a missing part."""
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


def test_part_describes_its_file(folder):
    """Name, records, bytes and sha256, as shell tools count them."""
    part = folder.write("part-00000.parquet", [(2, b"ab"), (1, b"c")])
    assert part.records == 3
    assert (part.name, part.bytes, part.sha256) == ("part-00000.parquet", 3, hashlib.sha256(b"abc").hexdigest())
    assert folder.read(part) == b"abc"
    listing = subprocess.run(
        [need("sha256sum"), "part-00000.parquet"], cwd=folder.path, capture_output=True, check=True
    ).stdout
    assert digest([part]) == hashlib.sha256(listing).hexdigest()


def test_changed_part_is_refused(folder):
    """A load takes only the bytes that the manifest names."""
    part = folder.write("part-00000.parquet", [(1, b"abc")])
    (folder.path / part.name).write_bytes(b"abd")
    with pytest.raises(FolderError, match=r"part-00000\.parquet: the file does not match its manifest"):
        folder.read(part)


@pytest.mark.parametrize("stage", ["raw", "clean"])
def test_missing_part_names_the_remedy(stage):
    """The error says how to restore the file or replace the day."""
    folder = DayFolder("data", stage, "users", DAY)
    folder.clear()
    part = folder.write("part-00000.x", [(1, b"abc")])
    (folder.path / part.name).unlink()
    with pytest.raises(FolderError) as caught:
        folder.read(part)
    assert str(caught.value) == (
        f"{folder}/part-00000.x: the file is missing. Restore it from a copy, or {REMEDIES[stage]}"
    )


def test_unreadable_part_shows_the_reason(folder):
    """The file exists, so the error does not call it missing."""
    part = folder.write("part-00000.parquet", [(1, b"abc")])
    path = folder.path / part.name
    path.unlink()
    path.mkdir()
    with pytest.raises(FolderError, match=r"part-00000\.parquet: Is a directory: check disk space"):
        folder.read(part)


def test_clear_keeps_the_files_of_other_people(folder):
    """Parts, rejects and a temporary manifest of a killed run are removed; a note stays."""
    for name in ("part-00000.parquet", "part-00007.parquet", "rejects-00000.jsonl.gz", "manifest.json.new", "note.txt"):
        (folder.path / name).write_bytes(b"x")
    folder.publish(MANIFEST)
    folder.clear()
    assert [path.name for path in folder.path.iterdir()] == ["note.txt"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"dataset": 1}', b"\xff", b'{"dataset": "\xff"}'])
def test_unreadable_manifest_is_one_line(folder, content):
    """The error names the file and what to do."""
    (folder.path / "manifest.json").write_bytes(content)
    with pytest.raises(FolderError, match=r"manifest\.json is not a manifest"):
        folder.read_manifest(CleanManifest)


def test_file_system_error_is_one_line():
    """A file in the place of a folder: the error names the path and the reason."""
    Path("data").mkdir()
    Path("data/raw").write_text("")
    with pytest.raises(FolderError, match="data/raw: "):
        DayFolder("data", "raw", "users", DAY).clear()


@pytest.mark.parametrize("place", ["file", "file/data"])
@pytest.mark.parametrize("command", ["status", "plan 2026-11-01 2026-11-03", "prune --older-than 3", "verify"])
def test_file_in_place_of_data_dir_fails_commands(capsys, command, place):
    """So does a file in the place of a parent folder: one line, and exit code 1."""
    Path("file").touch()
    said = run_here(capsys, *command.split(), "--pipeline-data-dir", place)
    assert said == ("", f"ERROR: [pipeline] data_dir = {place}: file is a file: name a folder", 1)


@pytest.mark.slow
def test_file_in_place_of_data_dir_fails_load():
    """The load reports one error: recording the failure does not report it again."""
    Path("data").touch()
    result = luigi_run("LoadUsers", "--date", str(DAY))
    assert result.returncode == 35
    (line,) = result.stderr.splitlines()
    assert line.endswith(f"(date={DAY}): [pipeline] data_dir = data: data is a file: name a folder")


def test_error_under_a_lock_keeps_its_message():
    """The lock reports only its own errors."""
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


@pytest.mark.slow
def test_killed_process_releases_its_day():
    """A second process waits while the first one lives. Another day is not locked."""
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


def test_missing_warehouse_is_not_created():
    """A missing warehouse has no markers, and looking them up leaves no empty file."""
    assert not LoadMarker("sqlite:///data/warehouse.db", "users", DAY).exists()
    assert not Path("data").exists()


def test_database_without_loads_has_no_markers():
    """The first load creates the table."""
    Path("other.db").write_bytes(b"")
    assert find_loaded("sqlite:///other.db", "users", [DAY]) == set()


def test_file_other_than_a_database_is_one_line():
    """The error names the path and the reason."""
    Path("other.db").write_bytes(b"x" * 5000)
    with pytest.raises(WarehouseError, match=r"other\.db: file is not a database: not a SQLite database"):
        find_loaded("sqlite:///other.db", "users", [DAY])


@pytest.mark.parametrize(
    ("url", "shown"),
    [("oracle://scott:tiger@host/db", "oracle://…"), ("postgresql+psycopg2://u:tiger@h/d", "2://…"), ("a.db", "a.db")],
)
def test_unknown_database_url_hides_the_password(url, shown):
    """The error shows the supported URLs, and no part of the given one that may be secret."""
    with pytest.raises(
        ConfigError, match=r"sqlite:///data/warehouse\.db.*postgresql\+psycopg://user@host/name"
    ) as caught:
        find_loaded(url, "users", [DAY])
    assert shown in str(caught.value)
    assert "tiger" not in str(caught.value)


def test_manifest_is_indented_json(folder):
    """People read manifests."""
    folder.publish(MANIFEST)
    text = (folder.path / "manifest.json").read_text()
    assert text.startswith('{\n  "dataset": "users",\n  "date": "2026-11-21"')
    assert msgspec.json.decode(text)["rows"] == 0
