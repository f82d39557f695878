"""Run the stages of a day in this process, and read the files of each."""

import datetime as dt
import json

import pyarrow.parquet as pq
import pytest

from pipeline.users import USERS
from tests.support.project import run_stages
from tests.support.reading import serve
from wholeday.config.pipeline import Pipeline
from wholeday.errors import QualityError
from wholeday.load import day as load_stage
from wholeday.schema.marker import CLASSES
from wholeday.storage.manifest import CleanManifest, RawManifest
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace
from wholeday.tasks.targets import LoadMarker

DAY = dt.date(2026, 11, 20)


def test_clean_manifest_accounts_for_every_record(server, configure):
    """Rows and rejects add up to the raw records, and reasons to the rejects. The parts hold both."""
    configure("pipeline", part_records=2)
    body = b'[{"id":1},{"id":"2"},{"id":3},{"id":4,"email":"x"},{"id":5}]'
    serve(server, configure, body, max_reject_ratio=0.5)
    stages.extract(read_workspace(USERS), DAY)
    stages.transform(read_workspace(USERS), DAY)
    raw = read_workspace(USERS).folder("raw", DAY).read_manifest(RawManifest)
    folder = read_workspace(USERS).folder("clean", DAY)
    clean = folder.read_manifest(CleanManifest)
    assert (clean.rows, clean.rejected) == (3, 2)
    assert clean.reasons == {"email: does not match the pattern @": 1, "id: Expected `int`, got `str`": 1}
    assert clean.raw_sha256 == [part.sha256 for part in raw.parts]
    assert [part.records for part in clean.parts] == [1, 1, 1]
    assert [part.records for part in clean.rejects] == [1, 1]
    ids = [pq.read_table(folder.path / part.name)["user_id"].to_pylist() for part in clean.parts]
    assert ids == [[1], [3], [5]]
    assert clean.transform_version == read_workspace(USERS).version


def test_day_without_records_is_loaded(server, configure):
    """The day exists at every stage, without parts, and has a marker."""
    serve(server, configure, b"[]")
    run_stages(USERS, DAY)
    assert read_workspace(USERS).folder("raw", DAY).read_manifest(RawManifest).parts == []
    assert LoadMarker(Pipeline().database, USERS.name, DAY).exists()


def test_too_many_rejects_fail_the_day(server, configure):
    """The error names the reason and the files of rejects, which stay. The day has no clean manifest."""
    serve(server, configure, b'[{"id":"1"},{"id":"2"},{"id":3}]')
    stages.extract(read_workspace(USERS), DAY)
    with pytest.raises(
        QualityError, match=r"2 of 3 records are rejected.*\(2\): id: Expected `int`.*rejects-\*"
    ) as caught:
        stages.transform(read_workspace(USERS), DAY)
    assert "--users-accept" in str(caught.value)
    folder = read_workspace(USERS).folder("clean", DAY)
    assert not folder.exists()
    assert (folder.path / "rejects-00000.jsonl.gz").is_file()


@pytest.mark.parametrize(("bad", "limit"), [(29, 0.29), (57, 0.57), (58, 0.58), (5, 0.05), (0, 0)])
def test_rejects_at_the_limit_pass(server, configure, bad, limit):
    """One more reject fails the day."""
    ids = [*map(str, range(bad + 1)), *range(bad + 1, 101)]
    for date, some in ((DAY, ids[1:]), (DAY + dt.timedelta(days=1), ids[:-1])):
        body = json.dumps([{"id": number} for number in some]).encode()
        serve(server, configure, body, paginator="single", max_reject_ratio=limit)
        stages.extract(read_workspace(USERS), date)
    stages.transform(read_workspace(USERS), DAY)
    assert read_workspace(USERS).folder("clean", DAY).read_manifest(CleanManifest).rejected == bad
    with pytest.raises(QualityError, match=f"{bad + 1} of 100 records are rejected, more than"):
        stages.transform(read_workspace(USERS), date)


def test_load_line_shows_every_count():
    """The log line of a load and the table of `status` show every class of record."""
    assert sorted(load_stage.COUNTS) == sorted([*CLASSES, "vanished", "reverted"])
