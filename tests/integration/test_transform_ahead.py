"""The parts of a large day are transformed while the source is still read, and the result is the same."""

import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.users import USERS
from tests.support.project import dump_tree, luigi_run, start
from tests.support.reading import DAY, make_user
from tests.support.server import Answer, Request, Server
from wholeday.commands.forget import forget
from wholeday.errors import OutageError, QualityError
from wholeday.storage.day_folder import NOTE
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace
from wholeday.transform import executor

pytestmark = pytest.mark.slow  # engine processes start

Configure = Callable[..., None]
PAGES, SIZE = 12, 4
AHEAD = 9  # parts that are transformed before the last page comes


class Users:
    """Pages of users. One page may be refused."""

    def __init__(self, server: Server) -> None:
        self.waits, self.broken, self.people = True, 0, [make_user(number) for number in range(1, PAGES * SIZE + 1)]
        self.people[17]["email"] = "no address"  # a reject
        self.server, self.url = server, server.on("/users", self.respond)

    def respond(self, request: Request) -> Answer:
        page = int(request.query["page"])
        while page == PAGES and self.waits and len(list(clean_path().glob("part-*"))) < AHEAD:
            time.sleep(0.01)
        if page == self.broken:
            return Answer(status=503)
        return Answer(self.people[(page - 1) * SIZE : page * SIZE], headers={"X-Total-Count": str(len(self.people))})


@pytest.fixture
def source(server: Server, configure: Configure) -> Users:
    """Return a source whose days are large: twelve parts, and two workers."""
    users = Users(server)
    configure("pipeline", part_records=SIZE, engine_workers=2)
    configure("users", url=users.url, paginator="page", retries=0, mode="snapshot", max_reject_ratio=0.1)
    return users


@pytest.fixture
def transformed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the numbers of the parts that the stage transform itself works on."""
    numbers: list[int] = []
    original = executor.map_parts

    def watch(function, jobs, *rest):  # type: ignore[no-untyped-def]
        numbers.extend(job.number for job in jobs)
        return original(function, jobs, *rest)

    monkeypatch.setattr(executor, "map_parts", watch)
    return numbers


def read_clean() -> dict[str, bytes]:
    return {Path(path).name: content for path, content in dump_tree(str(clean_path())).items()}


def clean_path() -> Path:
    return Path(read_workspace(USERS).folder("clean", DAY).path)


def test_transform_takes_over_what_is_there(source: Users, configure: Configure, transformed: list[int]) -> None:
    """A run that transforms nothing ahead writes the same clean files, byte for byte."""
    stages.extract(read_workspace(USERS), DAY)
    assert set(read_clean()) >= {NOTE, "rejects-00004.jsonl.gz", *(f"part-{n:05d}.parquet" for n in range(AHEAD))}
    assert not read_workspace(USERS).folder("clean", DAY).exists()
    stages.transform(read_workspace(USERS), DAY)
    assert set(transformed) <= set(range(AHEAD, PAGES))
    transformed.clear()
    ahead = read_clean()
    assert NOTE not in ahead
    source.waits = False
    configure("pipeline", data_dir="alone", engine_workers=1)
    stages.extract(read_workspace(USERS), DAY)
    assert not clean_path().exists()
    stages.transform(read_workspace(USERS), DAY)
    assert transformed == list(range(PAGES))
    assert read_clean() == ahead


def test_day_that_fails_leaves_no_clean_part(source: Users, configure: Configure) -> None:
    """Neither an interrupted extraction nor a failed gate leaves a part that a later run could take for its own."""
    source.broken = PAGES - 1
    with pytest.raises(OutageError, match="503"):
        stages.extract(read_workspace(USERS), DAY)
    assert read_clean() == {}
    source.broken = 0
    configure("users", min_records=1000)
    with pytest.raises(QualityError, match="min_records"):
        stages.extract(read_workspace(USERS), DAY)
    assert read_clean() == {}


def test_resumed_day_is_transformed_whole(source: Users, transformed: list[int]) -> None:
    """Parts of the interrupted run count too."""
    source.broken = PAGES - 1
    with pytest.raises(OutageError, match="503"):
        stages.extract(read_workspace(USERS), DAY)
    source.broken = 0
    stages.extract(read_workspace(USERS), DAY)
    stages.transform(read_workspace(USERS), DAY)
    assert set(transformed) <= set(range(AHEAD, PAGES))
    stages.load(read_workspace(USERS), DAY)


@pytest.mark.parametrize("change", ["a clean part is missing", "the note is cut off", "another version of the class"])
@pytest.mark.usefixtures("source")
def test_what_does_not_match_is_transformed_again(configure: Configure, transformed: list[int], change: str) -> None:
    stages.extract(read_workspace(USERS), DAY)
    if change == "a clean part is missing":
        (clean_path() / "part-00003.parquet").unlink()
    elif change == "the note is cut off":
        (clean_path() / NOTE).write_bytes((clean_path() / NOTE).read_bytes()[:-9])
    else:
        configure("users", lenient="true")
    stages.transform(read_workspace(USERS), DAY)
    late = set(range(AHEAD, PAGES))
    assert set(transformed) - late == ({3} if "missing" in change else set(range(AHEAD)))
    stages.load(read_workspace(USERS), DAY)


def test_published_day_stays_until_the_new_one_is_published(source: Users) -> None:
    """The raw files are deleted by hand, and the source has other users now."""
    for stage in (stages.extract, stages.transform, stages.load):
        stage(read_workspace(USERS), DAY)
    before = read_clean()
    for path in Path(read_workspace(USERS).folder("raw", DAY).path).iterdir():
        path.unlink()
    source.people[0]["name"] = "Somebody else"
    stages.extract(read_workspace(USERS), DAY)
    assert before.items() <= read_clean().items()
    stages.transform(read_workspace(USERS), DAY)
    changed = [name for name, content in read_clean().items() if before.get(name) != content]
    assert len(read_clean()) == len(before)
    assert sorted(name for name in changed if name.startswith("part-00000"))


@pytest.mark.usefixtures("source")
def test_erased_person_does_not_come_back() -> None:
    """`forget` runs between the stages: the note and its parts do not survive it."""
    stages.extract(read_workspace(USERS), DAY)
    assert forget(read_workspace(USERS), ["7"]).problems == []
    stages.transform(read_workspace(USERS), DAY)
    stages.load(read_workspace(USERS), DAY)
    assert b"u7@example.com" not in b"".join(dump_tree("data").values()).lower()
    raw = read_workspace(USERS).folder("raw", DAY)
    assert json.loads(Path(raw.path, "manifest.json").read_bytes())["forgotten"] == 1


@pytest.mark.parametrize("again", ["LoadUsers", "ExtractUsers"])
def test_killed_run_leaves_no_part_to_take_over(source: Users, configure: Configure, again: str) -> None:
    """Killed while parts are transformed. The next run clears them, and gives the day of an undisturbed run."""
    arrived, go = threading.Event(), threading.Event()

    def hold(request: Request) -> Answer:
        if request.query["page"] == str(PAGES) and not go.is_set():
            while len(list(clean_path().glob("part-*"))) < AHEAD:
                time.sleep(0.01)
            arrived.set()
            go.wait(60)
        source.waits = False
        return source.respond(request)

    source.server.on("/users", hold)
    flags = ("--users-url", source.url, "--users-paginator", "page", "--users-mode", "snapshot", "--users-accept")
    flags += ("--pipeline-part-records", str(SIZE), "--pipeline-engine-workers", "2", "--date", str(DAY))
    command = start("luigi", "--module", "pipeline", "LoadUsers", *flags)
    assert arrived.wait(60)
    command.send_signal(signal.SIGKILL)
    command.communicate()
    go.set()
    assert NOTE not in read_clean()
    for task in (again, "LoadUsers"):
        done = luigi_run(task, *flags)
        assert done.returncode == 0, done.stderr
    disturbed = read_clean()
    configure("pipeline", data_dir="alone", engine_workers=1)
    stages.extract(read_workspace(USERS), DAY)
    stages.transform(read_workspace(USERS), DAY)
    drop = {"manifest.json"}
    assert {name: disturbed[name] for name in disturbed.keys() - drop} == {
        name: content for name, content in read_clean().items() if name not in drop
    }
