"""A day's files, stage by stage, in this process."""

import datetime as dt
import gzip
import os

import pyarrow.parquet as pq
import pytest

from pipeline import config, stages
from pipeline.errors import QualityError, SourceError
from pipeline.schema import CLASSES
from pipeline.targets import CleanManifest, DayFolder, RawManifest
from pipeline.users import USERS
from server import Answer, Server

DAY = dt.date(2026, 11, 20)


def serve(server: Server, configure, *pages: bytes, **keys: object) -> None:
    """These bodies as pages 1, 2, …, each with a Link to the next."""

    def respond(request):
        number = int(request.query.get("page", "1"))
        link = {"Link": f'<{server.url}/users?page={number + 1}>; rel="next"'} if number < len(pages) else {}
        return Answer(pages[number - 1], headers=link)

    configure("users", url=server.on("/users", respond), **keys)


def read_lines(folder: DayFolder) -> list[bytes]:
    manifest = folder.read_manifest(RawManifest)
    return [line for part in manifest.parts for line in gzip.decompress(folder.read(part)).splitlines()]


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
    stages.extract_day(USERS, DAY)
    assert read_lines(USERS.folder("raw", DAY)) == [*sent[:3], b'{"id": 4}']


@pytest.mark.parametrize("part_records", [1, 7, 10, 24, 25, 100])
def test_a_part_holds_so_many_records_however_the_source_pages(server, configure, part_records):
    """Every part but the last is full, also where a page is larger than a part or ends within one."""
    configure("pipeline", part_records=part_records)
    serve(server, configure, make_page(1, 13), make_page(13, 14), make_page(14, 26))
    stages.extract_day(USERS, DAY)
    folder = USERS.folder("raw", DAY)
    manifest = folder.read_manifest(RawManifest)
    full, rest = divmod(25, part_records)
    assert [part.records for part in manifest.parts] == [part_records] * full + [rest] * bool(rest)
    assert [part.name for part in manifest.parts] == [f"part-{n:05d}.jsonl.gz" for n in range(len(manifest.parts))]
    assert read_lines(folder) == [b'{"id":%d}' % number for number in range(1, 26)]


def test_the_raw_manifest_says_what_was_read_and_when(server, configure):
    """Window and times of the reading, `as_of` being its start less settle, and the counts of the files."""
    before = config.utc_now()
    serve(server, configure, make_page(1, 3), make_page(3, 4), settle="20 minutes", timezone="Europe/Berlin")
    stages.extract_day(USERS, DAY)
    manifest = USERS.folder("raw", DAY).read_manifest(RawManifest)
    assert (manifest.dataset, manifest.date, manifest.mode) == ("users", DAY, "incremental")
    assert manifest.window_start == dt.datetime(2026, 11, 19, 23, tzinfo=dt.UTC)
    assert manifest.window_stop == dt.datetime(2026, 11, 20, 23, tzinfo=dt.UTC)
    assert before <= manifest.started_at <= manifest.extracted_at <= config.utc_now()
    assert manifest.as_of == manifest.started_at - dt.timedelta(minutes=20)
    assert (manifest.pages, manifest.records, manifest.watermark) == (2, 3, None)
    assert manifest.url == f"{server.url}/users"
    assert manifest.paginator.startswith("link_header")


def test_the_clean_manifest_says_what_became_of_every_record(server, configure):
    """Rows and rejects add up to the raw records; reasons add up to the rejects; the files hold them."""
    configure("pipeline", part_records=2)
    body = b'[{"id":1},{"id":"2"},{"id":3},{"id":4,"email":"x"},{"id":5}]'
    serve(server, configure, body, max_reject_ratio=0.5)
    stages.extract_day(USERS, DAY)
    stages.transform_day(USERS, DAY)
    raw = USERS.folder("raw", DAY).read_manifest(RawManifest)
    folder = USERS.folder("clean", DAY)
    clean = folder.read_manifest(CleanManifest)
    assert (clean.rows, clean.rejected) == (3, 2)
    assert clean.reasons == {"email: has no @": 1, "id: Expected `int`, got `str`": 1}
    assert clean.raw_sha256 == [part.sha256 for part in raw.parts]
    assert [part.records for part in clean.parts] == [1, 1, 1]
    assert [part.records for part in clean.rejects] == [1, 1]
    ids = [pq.read_table(folder.path / part.name)["user_id"].to_pylist() for part in clean.parts]
    assert ids == [[1], [3], [5]]
    assert clean.transform_version == USERS.version


def test_a_day_without_records_is_a_day(server, configure):
    """It exists at every stage, with no parts, and is marked as loaded."""
    serve(server, configure, b"[]")
    stages.extract_day(USERS, DAY)
    stages.transform_day(USERS, DAY)
    stages.load_day(USERS, DAY)
    assert USERS.folder("raw", DAY).read_manifest(RawManifest).parts == []
    assert USERS.marker(DAY).exists()


def test_a_reading_that_breaks_off_leaves_no_day_and_the_next_one_is_not_misled(server, configure):
    """Parts without a manifest are nobody's; a shorter day later has only its own."""
    configure("pipeline", part_records=1)
    serve(server, configure, make_page(1, 4), b"<html>", retries=0)
    with pytest.raises(SourceError):
        stages.extract_day(USERS, DAY)
    folder = USERS.folder("raw", DAY)
    assert not folder.exists()
    serve(server, configure, make_page(1, 2))
    stages.extract_day(USERS, DAY)
    assert sorted(path.name for path in folder.path.iterdir()) == ["manifest.json", "part-00000.jsonl.gz"]


def test_too_many_rejects_fail_the_day_and_leave_them_to_be_looked_at(server, configure):
    """The line names the reason and the files; there is no clean day."""
    serve(server, configure, b'[{"id":"1"},{"id":"2"},{"id":3}]')
    stages.extract_day(USERS, DAY)
    with pytest.raises(
        QualityError, match=r"2 of 3 records are rejected.*\(2\): id: Expected `int`.*rejects-\*"
    ) as caught:
        stages.transform_day(USERS, DAY)
    assert "--users-max-reject-ratio 1" in str(caught.value)
    folder = USERS.folder("clean", DAY)
    assert not folder.exists()
    assert (folder.path / "rejects-00000.jsonl.gz").is_file()


def test_parts_reach_the_disk_before_the_manifest_and_the_manifest_before_the_day(server, configure, monkeypatch, home):
    """Each is synced in this order, so a power cut leaves a whole day or none."""
    synced: list[int] = []
    fsync = os.fsync

    def note(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    configure("pipeline", part_records=2)
    serve(server, configure, make_page(1, 4))
    stages.extract_day(USERS, DAY)
    names = {path.stat().st_ino: path.name for path in [home, *home.rglob("*")]}
    assert [names[inode] for inode in synced] == [
        *(home.name, "data", "raw", "users"),  # each holds the name of the next
        "part-00000.jsonl.gz",
        "part-00001.jsonl.gz",
        "manifest.json",
        f"date={DAY}",
    ]


def test_every_count_of_a_marker_is_told():
    """The line of a load and the table of `status` leave out none of the classes of a record."""
    assert sorted(stages.COUNTS) == sorted(CLASSES)
