"""A day can be read as windows side by side (the key `split`): the same records, and files that do not depend on it."""

import datetime as dt
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.users import USERS
from tests.support.project import dump_tree
from tests.support.reading import DAY, make_user
from tests.support.server import Answer, Request, Server
from wholeday.errors import ConfigError, OutageError, SourceError
from wholeday.extract.http.retries import MAX_CROWDED
from wholeday.extract.reader import WrongSourceError
from wholeday.storage.lines import unpack
from wholeday.storage.manifest import RawManifest
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

Configure = Callable[..., None]
SIZE = 3
START = dt.datetime.combine(DAY, dt.time(), dt.UTC)
FILTER = {"from": "{day_start}", "to": "{day_stop}"}


class Changes:
    """Users by their time of change, behind a cursor. `from` and `to` are exclusive and inclusive: the worst case."""

    def __init__(self, server: Server, minutes: list[int]) -> None:
        self.users = [
            make_user(number, f"{START + dt.timedelta(minutes=minute):%Y-%m-%dT%H:%M:%SZ}")
            for number, minute in enumerate(minutes)
        ]
        self.ignores_filter, self.broken_from = False, ""
        self.most, self._now, self._lock = 0, 0, threading.Lock()
        self.url = server.on("/users", self._respond)

    def _respond(self, request: Request) -> Answer:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            low, high = request.query["from"], request.query["to"]
            if low == self.broken_from:
                return Answer(status=503)
            found = [user for user in self.users if self.ignores_filter or low < user["updated_at"] <= high]
            at = int(request.query.get("after", 0))
            more = {"next": str(at + SIZE)} if at + SIZE < len(found) else {}
            time.sleep(0.01)
            return Answer({"data": found[at : at + SIZE], **more})
        finally:
            with self._lock:
                self._now -= 1


@pytest.fixture(autouse=True)
def section(configure: Configure) -> None:
    configure("pipeline", part_records=5)
    cursor = {"paginator": "cursor", "cursor_path": "next", "cursor_param": "after", "data_selector": "data"}
    configure("users", params=json.dumps(FILTER), mode="incremental", retries=0, split=24, **cursor)


def extract() -> tuple[RawManifest, list[int]]:
    """Extract the day. Return its manifest and the keys of its records, in their order."""
    stages.extract(read_workspace(USERS), DAY)
    folder = read_workspace(USERS).folder("raw", DAY)
    manifest = folder.read_manifest(RawManifest)
    return manifest, [json.loads(line)["id"] for part in manifest.parts for line in unpack(folder.read(part))]


MINUTES = [n * 37 % 1440 for n in range(100)]


def test_windows_bring_the_same_records(server: Server, configure: Configure) -> None:
    """A record at a bound belongs to two windows, and comes twice rather than not at all."""
    source = Changes(server, [*MINUTES, 60, 600, 1439])
    configure("users", url=source.url)
    manifest, keys = extract()
    assert set(keys) == set(range(103))
    assert manifest.keys == 103 <= manifest.records == len(keys)
    first = [user["updated_at"] for user in source.users]
    assert sorted(keys, key=lambda key: first[key])[0] == keys[0]
    assert source.most > 1


@pytest.mark.slow
@pytest.mark.parametrize("split", [7, 24])
def test_files_do_not_depend_on_concurrency(server: Server, configure: Configure, split: int) -> None:
    source, files = Changes(server, MINUTES), []
    for concurrency in (1, 4, 16):
        configure("pipeline", data_dir=f"data-{concurrency}")
        configure("users", url=source.url, concurrency=concurrency, split=split)
        extract()
        files.append(
            {path.name: path.read_bytes() for path in read_workspace(USERS).folder("raw", DAY).path.glob("part-*")}
        )
    assert len(files[0]) >= split
    assert files[0] == files[1] == files[2]


@pytest.mark.slow
def test_interrupted_windows_resume(server: Server, configure: Configure) -> None:
    """Only what is missing is requested, and the first and the second run need not have the same concurrency."""
    source = Changes(server, MINUTES)
    configure("users", url=source.url, concurrency=1)
    whole, keys = extract()
    begun = list(dict.fromkeys(request.query["from"] for request in server.requests))
    configure("pipeline", data_dir="again")
    source.broken_from = "2026-10-31T11:59:59Z"
    with pytest.raises(OutageError, match="503"):
        extract()
    source.broken_from, server.requests[:] = "", []
    configure("users", concurrency=8)
    again, same = extract()
    assert (again.parts, same) == (whole.parts, keys)
    assert {request.query["from"] for request in server.requests} == set(begun[12:])


def test_lookback_lowers_the_first_window_only(server: Server, configure: Configure) -> None:
    configure("users", url=Changes(server, MINUTES).url, lookback="2 hours", split=2)
    extract()
    assert {(request.query["from"], request.query["to"]) for request in server.requests} == {
        ("2026-10-30T21:59:59Z", "2026-10-31T12:00:00Z"),
        ("2026-10-31T11:59:59Z", "2026-11-01T00:00:00Z"),
    }


def test_source_that_ignores_the_filter_fails_the_day(server: Server, configure: Configure) -> None:
    """Each window would bring every record."""
    source = Changes(server, MINUTES)
    source.ignores_filter = True
    configure("users", url=source.url)
    with pytest.raises(WrongSourceError, match="begin with the same records: the source ignores"):
        extract()
    assert not list(read_workspace(USERS).folder("raw", DAY).path.iterdir())


def test_error_in_one_window_fails_the_day(server: Server, configure: Configure) -> None:
    """The other windows end, and the day is not published. The failing request is repeated a few times only."""
    source = Changes(server, MINUTES * 4)
    source.broken_from = "2026-10-30T23:59:59Z"
    configure("users", url=source.url, concurrency=4)
    with pytest.raises(SourceError, match="from=2026-10-30T23%3A59%3A59Z"):
        extract()
    assert sum(request.query["from"] == source.broken_from for request in server.requests) <= MAX_CROWDED + 1
    assert not read_workspace(USERS).folder("raw", DAY).exists()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("fetch", "window"))]
    assert "manifest.json" not in " ".join(dump_tree("data/raw"))


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"params": "{}"}, "needs {day_start} and {day_stop}"),
        ({"params": json.dumps(FILTER | {"since": "{watermark}"})}, "cannot be used with {watermark}"),
        ({"paginator": "auto"}, "needs paginator"),
        ({"params": json.dumps({"from": "{day_start:%Y-%m-%d %H}", "to": "{day_stop}"})}, "is not finer than a window"),
    ],
)
def test_unusable_split_is_refused(server: Server, configure: Configure, keys: dict[str, Any], what: str) -> None:
    configure("users", url=Changes(server, MINUTES).url, **keys)
    with pytest.raises(ConfigError, match=what.replace("{", r"\{")):
        extract()
    assert not server.requests
