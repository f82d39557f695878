"""Create days with a user to erase, and find remains of the user."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq

from pipeline.users import USERS
from tests.support.project import dump_tree, query
from tests.support.reading import make_user
from tests.support.server import Answer, Server
from wholeday.commands.verify import verify
from wholeday.config.pipeline import Pipeline
from wholeday.schema.dataset import Dataset
from wholeday.storage.lines import unpack
from wholeday.storage.manifest import CleanManifest, RawManifest, digest
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace
from wholeday.transform import day as transform_stage

DAYS = [dt.date(2026, 11, number) for number in range(1, 6)]
MARK = "Kowalczyk"  # in every record of user 42, and in no other
Records = dict[dt.date, list[dict[str, Any]]]


def make_person(day: dt.date, **fields: Any) -> dict[str, Any]:
    """Return a record of user 42."""
    person = {"name": f"{MARK} {day}", "email": f"{MARK}.{day}@example.com", "unknown": f"secret of {MARK}"}
    return make_user(42, f"{day}T12:00:00Z") | person | fields


def make_records() -> Records:
    """Return days on which user 42 changes, occurs twice, is rejected (by a rule or the record class), or is absent."""
    days: Records = {day: [make_user(n, f"{day}T0{n}:00:00Z", city=str(day)) for n in range(1, 8)] for day in DAYS}
    days[DAYS[0]][3:3] = [make_person(DAYS[0])]
    days[DAYS[1]][2:2] = [make_person(DAYS[1]), make_person(DAYS[1]), make_user(8, email="no address")]
    days[DAYS[2]][6:6] = [make_person(DAYS[2], email=MARK), make_user(9, email="no address")]
    days[DAYS[3]] = [make_person(DAYS[3], id="42"), *days[DAYS[3]], make_user(9, email="none"), {"name": "nobody"}]
    return days


def serve_days(
    server: Server, configure: Callable[..., None], days: Records, dataset: Dataset = USERS, **keys: Any
) -> None:
    """Serve these records per day as the dataset's source, in parts of three."""
    url = server.on("/days", lambda request: Answer(days[dt.date.fromisoformat(request.query["on"])]))
    gates = {"max_reject_ratio": 1, "max_delete_ratio": 1, "max_drop_ratio": 1}
    configure(dataset.name, url=url + "?on={date}", paginator="single", **gates, **keys)
    configure("pipeline", part_records=3)


def load_days(server: Server, configure: Callable[..., None], mode: str, copy_or_make: Callable[..., None]) -> Records:
    """Load the days of users out of order."""
    days = make_records()
    serve_days(server, configure, days, mode=mode)

    def make() -> None:
        for day in DAYS:
            stages.extract(read_workspace(USERS), day)
            stages.transform(read_workspace(USERS), day)

    def load() -> None:
        for day in [*DAYS[2:], *DAYS[:2]]:
            stages.load(read_workspace(USERS), day)

    name = f"forgetting-{mode}-{server.url.rpartition(':')[2]}"
    if Pipeline().database.startswith("sqlite"):
        copy_or_make(f"{name}-loaded", lambda: (make(), load()))
    else:
        copy_or_make(name, make)
        load()
    return days


def find_mark(folder: str = "data") -> list[str]:
    """Return the files that contain the mark, compressed or not."""
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
    folder = read_workspace(dataset).folder("raw", day)
    return [line for part in folder.read_manifest(RawManifest).parts for line in unpack(folder.read(part))]


def read_clean(dataset: Dataset, day: dt.date) -> tuple[list[bytes], list[bytes]]:
    """Return the bytes of the parts and of the rejects."""
    folder = read_workspace(dataset).folder("clean", day)
    made = folder.read_manifest(CleanManifest)
    assert {part.name for part in (*made.parts, *made.rejects)} | {"manifest.json"} == {
        path.name for path in folder.path.iterdir()
    }
    return [folder.read(part) for part in made.parts], [folder.read(part) for part in made.rejects]


def dump_days() -> dict[str, bytes]:
    """Return the files of the days."""
    return {path: content for path, content in dump_tree("data").items() if "date=" in path}


OWN_COUNTS = "date, extracted, rejected, forgotten, duplicate, raw_sha256, clean_sha256, accepted"


def dump_tables() -> dict[str, list[tuple[Any, ...]]]:
    """Return the content of the tables that does not depend on the order of loading."""
    tables = (
        "users",
        "_users_past",
        "_users_days",
        "_users_events",
        "_users_changes",
        "_users_forgotten",
        "users_history",
        "rejects",
    )
    return {name: sorted(query(f"select * from {name}"), key=repr) for name in tables} | {
        "loads": query(f"select {OWN_COUNTS} from loads order by 1")
    }


def check_markers(dataset: Dataset = USERS) -> None:
    """Check the markers with verify: guarantee G4, the hashes of the folders, and all else."""
    assert [finding for finding in verify(read_workspace(dataset)) if not finding.remark] == []
    assert (
        query(
            "select date from loads where extracted <> rejected + forgotten + duplicate + superseded + unchanged "
            "+ inserted + updated + deleted "
            "or rejected < 0 or forgotten < 0 or duplicate < 0 or superseded < 0 or unchanged < 0 or inserted < 0 "
            "or updated < 0 or deleted < 0"
        )
        == []
    )
    for date, raw_sha256, clean_sha256, rejected in query(
        "select date, raw_sha256, clean_sha256, rejected from loads where dataset = ?", dataset.name
    ):
        day = dt.date.fromisoformat(date)
        read = read_workspace(dataset).folder("raw", day).read_manifest(RawManifest)
        made = read_workspace(dataset).folder("clean", day).read_manifest(CleanManifest)
        assert (raw_sha256, clean_sha256) == (read.sha256, digest([*made.parts, *made.rejects]))
        assert transform_stage.is_current(read_workspace(dataset), day)
        assert query("select count(*) from rejects where dataset = ? and load_date = ?", dataset.name, date) == [
            (rejected,)
        ]
