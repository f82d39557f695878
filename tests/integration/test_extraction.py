"""From the source into the raw folder of a day."""

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


def test_raw_lines_are_the_bytes_that_the_source_sent(server, configure):
    """Spacing, escapes, order and precision as they came; a line break of pretty printing is a space."""
    sent = [
        b'{"id": 1, "name":"\\u00e9","x":1.10}',
        b'{"z":[1, 2],"id":2}',
        '{"id":3,"name":"é"}'.encode(),
        b'{"id":\n4}',
    ]
    serve(server, configure, b"[ " + b" ,\n".join(sent) + b" ]")
    stages.extract(read_workspace(USERS), DAY)
    assert read_lines(read_workspace(USERS).folder("raw", DAY)) == [*sent[:3], b'{"id": 4}']


@pytest.mark.parametrize("part_records", [1, 7, 10, 24, 25, 100])
def test_a_part_holds_so_many_records_however_the_source_pages(server, configure, part_records):
    """Every part but the last is full, also where a page is larger than a part or ends within one."""
    configure("pipeline", part_records=part_records)
    serve(server, configure, make_page(1, 13), make_page(13, 14), make_page(14, 26))
    stages.extract(read_workspace(USERS), DAY)
    folder = read_workspace(USERS).folder("raw", DAY)
    manifest = folder.read_manifest(RawManifest)
    full, rest = divmod(25, part_records)
    assert [part.records for part in manifest.parts] == [part_records] * full + [rest] * bool(rest)
    assert [part.name for part in manifest.parts] == [f"part-{n:05d}.jsonl.gz" for n in range(len(manifest.parts))]
    assert read_lines(folder) == [b'{"id":%d}' % number for number in range(1, 26)]


def test_the_raw_manifest_says_what_was_read_and_when(server, configure):
    """Window and times of the reading, `as_of` being its start less settle, and the counts of the files."""
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


def test_a_reading_that_breaks_off_leaves_no_day_and_the_next_one_is_not_misled(server, configure):
    """Parts without a manifest are nobody's; a shorter day later has only its own."""
    configure("pipeline", part_records=1)
    serve(server, configure, make_page(1, 4), b"<html>", retries=0)
    with pytest.raises(SourceError):
        stages.extract(read_workspace(USERS), DAY)
    folder = read_workspace(USERS).folder("raw", DAY)
    assert not folder.exists()
    serve(server, configure, make_page(1, 2))
    stages.extract(read_workspace(USERS), DAY)
    assert sorted(path.name for path in folder.path.iterdir()) == ["manifest.json", "part-00000.jsonl.gz"]


def test_parts_reach_the_disk_before_the_manifest_and_the_manifest_before_the_day(server, configure, monkeypatch, home):
    """Each is synced in this order, so a power cut leaves a whole day or none."""
    synced: list[str] = []
    fsync = os.fsync

    def note(handle: int) -> None:
        inode = os.fstat(handle).st_ino
        synced.extend(path.name for path in [home, *home.rglob("*")] if path.stat().st_ino == inode)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    configure("pipeline", part_records=2)
    serve(server, configure, make_page(1, 4))
    stages.extract(read_workspace(USERS), DAY)
    assert [re.sub(r"\.[0-9a-f]{12}\.", ".*.", name) for name in synced] == [
        *(home.name, "data", "raw", "users"),  # each holds the name of the next
        "part-00000.jsonl.gz",
        "progress.jsonl",
        "part-00001.jsonl.gz",
        f"date={DAY}",  # which has no progress.jsonl any more
        f"date={DAY}",  # which holds the names of the parts
        "manifest.json.*.new",
        f"date={DAY}",
    ]


def test_the_raw_manifest_says_what_the_records_are(server, configure):
    """Keys counted once, the total that the source declares, fields that nobody reads, and what the gates said."""
    body = b'{"total": 2, "users": [{"id":1,"vip":true},{"id":2,"address":{"geo":1}},{"id":2}]}'
    serve(server, configure, body, total_path="total", mode="snapshot")
    stages.extract(read_workspace(USERS), DAY)
    manifest = read_workspace(USERS).folder("raw", DAY).read_manifest(RawManifest)
    assert (manifest.records, manifest.keys, manifest.declared) == (3, 2, 2)
    assert manifest.unknown_fields == ["address.geo", "vip"]
    assert [(verdict.gate, verdict.passed) for verdict in manifest.gates] == [("min_records", True)]


@pytest.mark.parametrize(
    ("mode", "query", "days", "told"),
    [
        ("snapshot", "", 0, ""),
        ("snapshot", "", 1, "a snapshot shows all records as of now, not as of that day"),
        ("incremental", "?on={date}", 1, ""),
        ("incremental", "", 1, "ask for no day, so all records are extracted"),
    ],
)
def test_a_day_that_is_not_what_it_seems_is_told(server, configure, caplog, mode, query, days, told):
    """A snapshot of the past, and changes of a day for which nobody asks: read all the same, with a warning."""
    serve(server, configure, make_page(1, 3), mode=mode)
    configure("users", url=f"{server.url}/users{query}")
    date = USERS.config().last_closed_day(clock.utc_now()) - dt.timedelta(days=days)
    stages.extract(read_workspace(USERS), date)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [told in line and line.startswith(f"users {date}: ") for line in warnings] == [True] * bool(told)


def test_a_gate_fails_the_day_and_accept_lets_it_through_once(server, configure):
    """The line names both numbers and the flag; the day that is let through says so as far as its marker."""
    serve(server, configure, make_page(1, 9), mode="snapshot")
    stages.extract(read_workspace(USERS), DAY)
    serve(server, configure, make_page(1, 5))
    later = DAY + dt.timedelta(days=1)
    with pytest.raises(QualityError, match=r"4 of 8 keys of the snapshot read before .* --users-accept") as caught:
        stages.extract(read_workspace(USERS), later)
    assert str(caught.value).startswith(f"users {later}: ")
    assert not list(read_workspace(USERS).folder("raw", later).path.iterdir())
    result = luigi_run("LoadUsers", "--date", str(later), "--users-url", f"{server.url}/users",
                       "--users-mode", "snapshot", "--users-accept")  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "let through by --users-accept: 4 of 8 keys" in result.stderr
    assert query("select accepted from loads where date = ?", str(later)) == [("max_delete_ratio",)]


def test_too_many_rejects_are_let_through_by_the_same_flag(server, configure):
    """Transform's gate is opened with it, and the marker names it."""
    serve(server, configure, b'[{"id":"1"},{"id":"2"},{"id":3}]')
    flags = ("--users-url", f"{server.url}/users", "--date", str(DAY))
    assert luigi_run("LoadUsers", *flags).returncode == 30
    assert luigi_run("LoadUsers", *flags, "--users-accept").returncode == 0
    assert query("select accepted, rejected from loads") == [("max_reject_ratio", 2)]


def test_accept_is_no_key_of_a_file(server, configure):
    """What stands in luigi.cfg would let every day through."""
    serve(server, configure, b"[]", accept="true")
    with pytest.raises(ConfigError, match="accept would open the quality gates for good: give it as a flag"):
        stages.extract(read_workspace(USERS), DAY)
