"""Inject a fault at every point of a day. The day stays all or nothing, and the next run completes it.

A point is an operation with a lasting effect: a write, an fsync, a rename, an SQL statement or a request to the
source. `tests.support.points` numbers them. At each point the process fails or is killed. By default the sweep tries
a few points of some cases; PIPELINE_FAULTS=all tries all of them.
"""

import contextlib
import datetime as dt
import functools
import os
import random
import re
import shutil
from collections.abc import Callable, Sequence
from email.utils import format_datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from luigi.configuration import get_config

from tests.support import points
from tests.support.cluster import Cluster
from tests.support.people import PEOPLE, ExtractPeople, LoadPeople, TransformPeople
from tests.support.points import Points
from tests.support.project import dump_tree, dump_warehouse, has_table, query
from tests.support.server import Answer, Request, Server
from wholeday import clock
from wholeday.config.days import INCREMENTAL, SNAPSHOT
from wholeday.errors import PipelineError
from wholeday.storage.day_folder import MANIFEST
from wholeday.tasks.stages import read_workspace
from wholeday.transform import executor, parts

ALL = os.environ.get("PIPELINE_FAULTS") == "all"
LONG = 7200 if ALL else 900
DAY = dt.date(2026, 10, 31)
EARLIER = [DAY - dt.timedelta(days=2), DAY - dt.timedelta(days=1)]
TABLES = (
    *("users", "_users_past", "users_history", "_users_days", "_users_events", "_users_changes"),
    *(f"{child.name}{end}" for child in PEOPLE.declared.children for end in ("", "_history")),
)
PAGE = 4

pytestmark = [
    pytest.mark.sweep,
    pytest.mark.usefixtures("memory"),
    pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="points are told apart by /proc"),
]

Dump = dict[str, list[tuple[Any, ...]]]


def make_user(number: int, day: dt.date, **fields: Any) -> dict[str, Any]:
    user = {"id": number, "name": f"User {number} of {day}", "email": f"{number}@example.com"}
    kinds = ["home", "work", str(day)][: number % 4]
    user["addresses"] = [{"kind": kind, "city": str(day), "lines": [{"text": kind}] * 2} for kind in kinds]
    return user | {"updated_at": f"{day}T10:00:00Z"} | fields


def list_users(day: dt.date, mode: str) -> list[dict[str, Any]]:
    """Return the source's answer for a day and mode. On DAY it has one deletion and two rejects."""
    first, second = EARLIER
    old = [make_user(number, first) for number in range(1, 8)]
    if day == first:
        return old
    if day == second:
        return [make_user(1, day), make_user(8, day), *(old[1:] if mode == SNAPSHOT else [])]
    news = [
        make_user(1, day),
        make_user(9, day, name="before"),
        make_user(2, day, email="no address"),
        make_user(8, second),
        make_user(10, day, id="ten"),
        make_user(9, day),
        make_user(11, day),
    ]
    return [*news, *(old[3:] if mode == SNAPSHOT else [make_user(3, day, deleted=True), make_user(12, day)])]


class State(NamedTuple):
    """All tables by name, and all files by path."""

    rows: Dump
    files: dict[str, bytes]

    @classmethod
    def look(cls) -> "State":
        """Read the state from a copy, because opening a database may repair it."""
        shutil.rmtree("seen", ignore_errors=True)
        if Path("data").exists():
            shutil.copytree("data", "seen/data")
        else:
            Path("seen").mkdir()
        with contextlib.chdir("seen"):
            files = dump_tree("data/raw") | dump_tree("data/clean")
            if not has_table("loads"):
                return cls({}, files)
            tables = {name: sorted(query(f"select * from {name}"), key=repr) for name in TABLES}
            return cls(dump_warehouse() | tables, files)

    def list_day(self, stage: str) -> dict[str, bytes]:
        """Return the files of DAY at a stage, or none without a manifest."""
        folder = f"{read_workspace(PEOPLE).folder(stage, DAY)}/"
        files = {path: content for path, content in self.files.items() if path.startswith(folder)}
        return files if folder + MANIFEST in files else {}

    def list_others(self) -> dict[str, bytes]:
        """Return the files of other days."""
        return {path: content for path, content in self.files.items() if "/date=" in path and str(DAY) not in path}


def work(day: dt.date = DAY) -> None:
    """Run every incomplete task of a day, as Luigi does."""
    for task in (ExtractPeople(date=day), TransformPeople(date=day), LoadPeople(date=day)):
        if not task.complete():
            task.run()


class Sweep:
    """A day that faults disturb, with the state before it and the expected state after it."""

    def __init__(self, keep: "Keep") -> None:
        self.before, self._keep = State.look(), keep
        if Path("data").exists():
            shutil.copytree("data", "before/data")
        keep.save()
        work()
        self.after = State.look()
        self.problems: list[str] = []
        self.runs = 0

    def reset(self) -> None:
        """Restore the state before the day."""
        shutil.rmtree("data")
        if Path("before/data").exists():
            shutil.copytree("before/data", "data")
        self._keep.restore()

    def disturb(self, what: str, job: Callable[[], None], fault: Points) -> None:
        """Run a job with a fault, then a plain run, and record each violated rule."""
        self.runs += 1
        code, said = points.run(job, fault)
        seen = State.look()
        marked = seen.rows == self.after.rows
        # An existing folder needs no mkdir, and a lost connection is retried.
        harmless = code == 0 and marked and (", mkdir " in what or points.STATEMENT in what)
        checks = {
            "the fault is told in one line, or does no harm": (code, len(said)) == (1, 1) or code == -9 or harmless,
            "the warehouse is as before or as after": marked or seen.rows == self.before.rows,
            "a day with a marker has its files": not marked or seen.files == self.after.files,
            "no other day is touched": seen.list_others() == self.before.list_others(),
        } | {
            f"a {stage} manifest is that of a whole day": seen.list_day(stage) in ({}, self.after.list_day(stage))
            for stage in ("raw", "clean")
        }
        with contextlib.suppress(PipelineError):
            work()
        healed = State.look()
        checks |= {
            "the next run gives the same rows": healed.rows == self.after.rows,
            "the next run gives the same files": healed.files == self.after.files,
        }
        self.problems += [f"{what}: not so: {rule} ({code}: {said})" for rule, holds in checks.items() if not holds]

    def finish(self) -> None:
        print(f"{self.runs} runs")
        assert not self.problems, "\n".join(self.problems)


class Keep:
    """Save and restore a database that lives in a cluster instead of a file."""

    def __init__(self, cluster: Cluster | None) -> None:
        self._cluster = cluster

    def save(self) -> None:
        self._copy("sweep", "kept")

    def restore(self) -> None:
        self._copy("kept", "sweep")

    def _copy(self, source: str, target: str) -> None:
        if self._cluster:
            self._cluster.execute(f"drop database if exists {target} with (force)")
            self._cluster.execute(f"create database {target} template {source} owner loader")


@pytest.fixture
def keep(database: str, request: pytest.FixtureRequest, configure: Callable[..., None]) -> Keep:
    if database == "sqlite":
        return Keep(None)
    cluster: Cluster = request.getfixturevalue("cluster")
    cluster.execute("drop database if exists sweep with (force)")
    cluster.execute("create database sweep owner loader")
    configure("pipeline", database=cluster.make_url().replace("/warehouse?", "/sweep?"))
    return Keep(cluster)


@pytest.fixture
def begin(
    server: Server, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch, keep: Keep
) -> Callable[[str, list[dt.date]], Sweep]:
    """Return a function that prepares a sweep of DAY. The clock stands still at noon of the next day."""

    def start(mode: str, earlier: list[dt.date]) -> Sweep:
        now = [dt.datetime(2026, 1, 1, tzinfo=dt.UTC)]
        monkeypatch.setattr(clock, "utc_now", lambda: now[0])

        def respond(request: Request) -> Answer:
            page = int(request.query.get("page", "1"))
            users = list_users(dt.date.fromisoformat(request.query["on"]), mode)
            more = f'<{server.url}/users?on={request.query["on"]}&page={page + 1}>; rel="next"'
            headers = {"Date": format_datetime(now[0], usegmt=True)} | (
                {"Link": more} if page * PAGE < len(users) else {}
            )
            return Answer(users[(page - 1) * PAGE : page * PAGE], headers=headers)

        url = server.on("/users", respond) + "?on={date}"
        configure("pipeline", part_records=2, engine_workers=1)
        configure("users", url=url, mode=mode, deleted_when="deleted", retries=0, max_reject_ratio=0.5)
        configure("users", max_delete_ratio=0.9, max_drop_ratio=0.9)
        for day in [*earlier, DAY]:
            now[0] = dt.datetime.combine(day, dt.time(12), dt.UTC) + dt.timedelta(days=1)
            if day != DAY:
                work(day)
        return Sweep(keep)

    return start


def choose(numbers: Sequence[Any], few: int, seed: str) -> Sequence[Any]:
    """Choose all points, or about `few` of them, the same in every run."""
    step = 1 if ALL else -(-len(numbers) // few)
    return numbers[random.Random(seed).randrange(step) :: step]


HOWS = {"sqlite": ["raise", "kill", "kill half"], "postgresql": ["raise", "kill"]}
EVERY = [(case, name, how) for case in ("incremental", "snapshot", "first") for name in HOWS for how in HOWS[name]]
SOME = [  # each case, database and way, and each way on each database
    ("incremental", "sqlite", "raise"),
    ("snapshot", "sqlite", "kill"),
    ("first", "sqlite", "kill half"),
    ("incremental", "postgresql", "kill"),
    ("first", "postgresql", "raise"),
]


@pytest.mark.timeout(LONG)
@pytest.mark.parametrize(("case", "database", "how"), EVERY if ALL else SOME, indirect=["database"])
def test_fault_in_a_day_leaves_all_or_nothing(
    begin: Callable[..., Sweep], database: str, case: str, how: points.How
) -> None:
    """The case `first` has no folder and no database yet. The next run completes the day."""
    mode = SNAPSHOT if case == "snapshot" else INCREMENTAL
    sweep = begin(mode, [] if case == "first" else EARLIER)
    sweep.reset()
    _, names = points.run(work, Points())
    wanted = ("write", "insert") if how == "kill half" else points.STATEMENT if database == "postgresql" else ""
    numbered = [(at, name) for at, name in enumerate(names, 1) if name.startswith(wanted)]
    for at, name in choose(numbered, 5 if database == "sqlite" else 1, case + how):
        sweep.reset()
        sweep.disturb(f"{how} at {at}, {name}", work, Points(at, how))
    sweep.finish()


def transform_in_pool(part: Callable[[parts.PartJob], parts.PartResult]) -> None:
    """Transform DAY in two engine processes."""
    parts.transform_part = part
    executor.MIN_PARTS = 2
    get_config().set("pipeline", "engine_workers", "2")
    TransformPeople(date=DAY).run()


@pytest.mark.timeout(LONG)
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("how", ["raise", "kill", "kill half", "kill parent"])
def test_fault_in_engine_process_leaves_all_or_nothing(begin: Callable[..., Sweep], how: points.How) -> None:
    """A part fails, or its process or the waiting parent is killed. The next run completes the day."""
    sweep = begin(INCREMENTAL, EARLIER)

    def extract() -> None:
        sweep.reset()
        ExtractPeople(date=DAY).run()

    extract()
    _, names = points.run(TransformPeople(date=DAY).run, Points())
    divisible = "write" if how == "kill half" else ""
    jobs: dict[int, list[str]] = {}  # the points of a part belong to one process, in this order
    for name in names:
        if part := re.search(r"-(\d{5})\.", name):
            jobs.setdefault(int(part[1]), []).append(name)
    numbered = [(job, at, name) for job in jobs for at, name in enumerate(jobs[job], 1) if name.startswith(divisible)]
    for job, at, name in choose(numbered, 1, how):
        extract()
        part = functools.partial(points.transform_part, job, at, how)
        sweep.disturb(f"{how} at {at} of part {job}, {name}", functools.partial(transform_in_pool, part), Points())
    sweep.finish()


@pytest.mark.timeout(LONG)
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("how", ["raise", "kill"])
def test_fault_around_engine_processes_leaves_all_or_nothing(begin: Callable[..., Sweep], how: points.How) -> None:
    """Before the processes start, and after all parts are complete."""
    sweep = begin(INCREMENTAL, EARLIER)
    job = functools.partial(transform_in_pool, parts.transform_part)
    sweep.reset()
    ExtractPeople(date=DAY).run()
    _, names = points.run(job, Points())
    for at, name in choose(list(enumerate(names, 1)), 1, how):
        sweep.reset()
        ExtractPeople(date=DAY).run()
        sweep.disturb(f"{how} at {at}, {name}", job, Points(at, how))
    sweep.finish()
