"""Test the extraction of a day, from the source to its raw folder."""

import datetime as dt
import os
import re

import pytest

from pipeline.users import USERS
from tests.support.project import luigi_run, query
from tests.support.reading import serve
from wholeday import clock
from wholeday.errors import ConfigError, QualityError, SourceError
from wholeday.storage.day_folder import DayFolder
from wholeday.storage.lines import unpack
from wholeday.storage.manifest import RawManifest
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

DAY = dt.date(2026, 11, 20)


def read_lines(folder: DayFolder) -> list[bytes]:
    manifest = folder.read_manifest(RawManifest)
    return [line for part in manifest.parts for line in unpack(folder.read(part))]


def make_page(first: int, last: int) -> bytes:
    return b"[" + b",".join(b'{"id":%d}' % number for number in range(first, last)) + b"]"


def test_raw_lines_keep_the_bytes_of_the_source(server, configure):
    """Spacing, escapes, order and precision stay. A line break inside a record becomes a space."""
    sent = [
        b'{"id": 1, "name":"\\u00e9","x":1.10}',
        b'{"z":[1, 2],"id":2}',
        '{"id":3,"name":"é"}'.encode(),
        b'{"id":\n4}',
    ]
    serve(server, configure, b"[ " + b" ,\n".join(sent) + b" ]")
    stages.extract(read_workspace(USERS), DAY)
    assert read_lines(read_workspace(USERS).folder("raw", DAY)) == [*sent[:3], b'{"id": 4}']


@pytest.mark.slow
@pytest.mark.parametrize("part_records", [1, 7, 10, 24, 25, 100])
def test_parts_are_full_for_any_page_size(server, configure, part_records):
    """Every part except the last is full, even if a page is larger than a part or ends inside one."""
    configure("pipeline", part_records=part_records)
    serve(server, configure, make_page(1, 13), make_page(13, 14), make_page(14, 26))
    stages.extract(read_workspace(USERS), DAY)
    folder = read_workspace(USERS).folder("raw", DAY)
    manifest = folder.read_manifest(RawManifest)
    full, rest = divmod(25, part_records)
    assert [part.records for part in manifest.parts] == [part_records] * full + [rest] * bool(rest)
    assert [part.name for part in manifest.parts] == [f"part-{n:05d}.jsonl.gz" for n in range(len(manifest.parts))]
    assert read_lines(folder) == [b'{"id":%d}' % number for number in range(1, 26)]


def test_raw_manifest_records_window_times_and_counts(server, configure):
    """`as_of` is the start of the extraction minus `settle`."""
    before = clock.utc_now()
    serve(server, configure, make_page(1, 3), make_page(3, 4), settle="20 minutes", timezone="Europe/Berlin")
    stages.extract(read_workspace(USERS), DAY)
    manifest = read_workspace(USERS).folder("raw", DAY).read_manifest(RawManifest)
    assert (manifest.dataset, manifest.date, manifest.mode) == ("users", DAY, "incremental")
    assert manifest.window_start == dt.datetime(2026, 11, 19, 23, tzinfo=dt.UTC)
    assert manifest.window_stop == dt.datetime(2026, 11, 20, 23, tzinfo=dt.UTC)
    assert before <= manifest.started_at <= manifest.extracted_at <= clock.utc_now()
    assert manifest.as_of == manifest.started_at - dt.timedelta(minutes=20)
    assert (manifest.pages, manifest.records, manifest.watermark) == (2, 3, None)
    assert manifest.url == f"{server.url}/users"
    assert manifest.paginator.startswith("link_header")


def test_interrupted_extraction_leaves_no_day(server, configure):
    """A later, shorter extraction holds only its own parts."""
    configure("pipeline", part_records=1)
    serve(server, configure, make_page(1, 4), b"<html>", retries=0)
    with pytest.raises(SourceError):
        stages.extract(read_workspace(USERS), DAY)
    folder = read_workspace(USERS).folder("raw", DAY)
    assert not folder.exists()
    serve(server, configure, make_page(1, 2))
    stages.extract(read_workspace(USERS), DAY)
    assert sorted(path.name for path in folder.path.iterdir()) == ["manifest.json", "part-00000.jsonl.gz"]


def test_parts_are_synced_before_the_manifest(server, configure, monkeypatch, home):
    """A power cut leaves a complete day or none."""
    synced: list[str] = []
    fsync = os.fsync

    def record_sync(handle: int) -> None:
        inode = os.fstat(handle).st_ino
        synced.extend(path.name for path in [home, *home.rglob("*")] if path.stat().st_ino == inode)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", record_sync)
    configure("pipeline", part_records=2)
    serve(server, configure, make_page(1, 4))
    stages.extract(read_workspace(USERS), DAY)
    assert [re.sub(r"\.[0-9a-f]{12}\.", ".*.", name) for name in synced] == [
        *(home.name, "data", "raw", "users"),  # each folder holds the name of the next
        "part-00000.jsonl.gz",
        "progress.jsonl",
        "part-00001.jsonl.gz",
        f"date={DAY}",  # without progress.jsonl
        f"date={DAY}",  # with the names of the parts
        "manifest.json.*.new",
        f"date={DAY}",
    ]


def test_raw_manifest_describes_the_records(server, configure):
    """It has the number of distinct keys, the declared total, unknown fields and the results of quality gates."""
    body = b'{"total": 2, "users": [{"id":1,"vip":true},{"id":2,"address":{"geo":1}},{"id":2}]}'
    serve(server, configure, body, total_path="total", mode="snapshot")
    stages.extract(read_workspace(USERS), DAY)
    manifest = read_workspace(USERS).folder("raw", DAY).read_manifest(RawManifest)
    assert (manifest.records, manifest.keys, manifest.declared) == (3, 2, 2)
    assert manifest.unknown_fields == ["address.geo", "vip"]
    assert [(verdict.gate, verdict.passed) for verdict in manifest.gates] == [("min_records", True)]


@pytest.mark.parametrize(
    ("mode", "query", "days", "warning"),
    [
        ("snapshot", "", 0, ""),
        ("snapshot", "", 1, "a snapshot shows all records as of now, not as of that day"),
        ("incremental", "?on={date}", 1, ""),
        ("incremental", "", 1, "ask for no day, so all records are extracted"),
    ],
)
def test_misleading_section_logs_a_warning(server, configure, caplog, mode, query, days, warning):
    """A snapshot of a past day or an incremental section without a filter is extracted with a warning."""
    serve(server, configure, make_page(1, 3), mode=mode)
    configure("users", url=f"{server.url}/users{query}")
    date = USERS.config().last_closed_day(clock.utc_now()) - dt.timedelta(days=days)
    stages.extract(read_workspace(USERS), date)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [warning in line and line.startswith(f"users {date}: ") for line in warnings] == [True] * bool(warning)


@pytest.mark.slow
def test_accept_admits_a_failed_day_once(server, configure):
    """The error names both numbers and the flag. The marker of the accepted day names the gate."""
    serve(server, configure, make_page(1, 9), mode="snapshot")
    stages.extract(read_workspace(USERS), DAY)
    serve(server, configure, make_page(1, 5))
    later = DAY + dt.timedelta(days=1)
    with pytest.raises(QualityError, match=r"4 of 8 keys of the earlier snapshot .* --users-accept") as caught:
        stages.extract(read_workspace(USERS), later)
    assert str(caught.value).startswith(f"users {later}: ")
    assert not list(read_workspace(USERS).folder("raw", later).path.iterdir())
    result = luigi_run("LoadUsers", "--date", str(later), "--users-url", f"{server.url}/users",
                       "--users-mode", "snapshot", "--users-accept")  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "let through by --users-accept: 4 of 8 keys" in result.stderr
    assert query("select accepted from loads where date = ?", str(later)) == [("max_delete_ratio",)]


@pytest.mark.slow
def test_accept_admits_a_day_with_many_rejects(server, configure):
    """The flag also applies to the quality gate of the transform, and the marker names the gate."""
    serve(server, configure, b'[{"id":"1"},{"id":"2"},{"id":3}]')
    flags = ("--users-url", f"{server.url}/users", "--date", str(DAY))
    assert luigi_run("LoadUsers", *flags).returncode == 30
    assert luigi_run("LoadUsers", *flags, "--users-accept").returncode == 0
    assert query("select accepted, rejected from loads") == [("max_reject_ratio", 2)]


def test_accept_in_luigi_cfg_is_refused(server, configure):
    """A key in luigi.cfg would admit every day."""
    serve(server, configure, b"[]", accept="true")
    with pytest.raises(ConfigError, match="accept would open the quality gates for good: give it as a flag"):
        stages.extract(read_workspace(USERS), DAY)
