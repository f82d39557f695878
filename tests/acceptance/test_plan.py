"""Show the step for each day with `plan`, without running tasks or sending requests."""

import datetime as dt
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.users import USERS
from tests.support.days import edit_warehouse, make_days, make_marker
from tests.support.project import dump_tree, run_here
from wholeday import clock
from wholeday.commands import plan as plan_module
from wholeday.commands.plan import Cost, estimate_cost, plan
from wholeday.schema.marker import Marker
from wholeday.storage.day_folder import DayFolder
from wholeday.tasks import stages
from wholeday.tasks.failures import Failure
from wholeday.tasks.stages import read_workspace

DAYS = [dt.date(2026, 10, 1) + dt.timedelta(days=n) for n in range(8)]
URL = "demo://users?updated_since={day_start}&updated_before={day_stop}&per_day=25&per_page=10"


def make(day: dt.date, upto: str = "load") -> None:
    stages.extract(read_workspace(USERS), day)
    if upto != "extract":
        stages.transform(read_workspace(USERS), day)
    if upto == "load":
        stages.load(read_workspace(USERS), day)


@pytest.fixture
def made(configure, monkeypatch) -> None:
    """Make a day in each state. The sixth day is the last closed one."""
    configure("users", url=URL)
    for day in DAYS[:2]:
        make(day)
    make(DAYS[2], "transform")
    make(DAYS[3], "extract")
    make(DAYS[4], "transform")
    Path(f"data/raw/users/date={DAYS[4]}/manifest.json").write_text("{")
    shutil.rmtree(f"data/clean/users/date={DAYS[1]}")
    configure("users", url="http://127.0.0.1:9/nobody-listens")
    monkeypatch.setattr(clock, "utc_now", lambda: dt.datetime(2026, 10, 7, 1, tzinfo=dt.UTC))
    Path("data/failures").mkdir()
    failures = [Failure(clock.utc_now(), day, "extract", "404 Not Found") for day in (DAYS[0], DAYS[5])]
    Path("data/failures/users.jsonl").write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in failures))


@pytest.mark.usefixtures("made")
def test_each_day_has_step_and_reason():
    """Days are loaded after a failure, outdated, transformed, extracted, damaged, failed or open."""
    outdated = "outdated: its clean files are missing or outdated"
    steps = plan(read_workspace(USERS), DAYS[0], DAYS[-1])
    assert "is not a manifest" in steps[4].why
    assert [(step.date, step.what, step.why) for step in (*steps[:4], *steps[5:])] == [
        (DAYS[0], "nothing", "loaded"),
        (DAYS[1], "reprocess", outdated),
        (DAYS[2], "load", "extracted and transformed"),
        (DAYS[3], "transform", "extracted"),
        (DAYS[5], "extract", "failed at 2026-10-07T01:00:00Z, extract: 404 Not Found"),
        (DAYS[6], "wait", "not closed; the newest closed day is 2026-10-06"),
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("made")
def test_plan_reads_only_the_requested_days(monkeypatch):
    """The cost does not depend on the number of stored days."""
    looked, read = set(), DayFolder.read_manifest

    def read_manifest(folder: DayFolder, kind: type[Any]) -> Any:
        looked.add(folder.date)
        return read(folder, kind)

    monkeypatch.setattr(DayFolder, "read_manifest", read_manifest)
    plan(read_workspace(USERS), DAYS[1], DAYS[3])
    assert looked == {DAYS[1], DAYS[2]}


@pytest.mark.slow
@pytest.mark.usefixtures("made")
def test_plan_changes_nothing_and_sends_no_request(capsys):
    """The source is unreachable, and files stay the same."""
    before = dump_tree("data")
    out, err, code = run_here(capsys, "plan", "2026-10-01", "2026-10-06", "--users-url", "http://127.0.0.1:9/")
    assert (code, err) == (0, "")
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert rows[0] == "to do days which why"
    assert "load 1 2026-10-03 extracted and transformed" in rows
    assert dump_tree("data") == before


@pytest.mark.slow
def test_cost_is_estimated_from_loaded_days(capsys, configure):
    """It uses the medians of pages, and of seconds from the first request to the marker."""
    configure("users", url=URL)
    assert estimate_cost(read_workspace(USERS)) is None
    for day in DAYS[:3]:
        make(day)
    cost = estimate_cost(read_workspace(USERS))
    assert cost is not None
    assert (cost.days, cost.pages) == (3, 3)
    assert 0 < cost.seconds < 30
    said = run_here(capsys, "plan", "2026-09-01", "2026-10-04")[0].splitlines()[-1]
    assert said.startswith("users: about 90 requests and 0:0")
    assert said.endswith(" with one worker to extract 30 days, by the median of 3 loaded days")


def test_cost_uses_newest_days_of_current_mode():
    """Older days and days of another mode may have had other costs."""
    make_days(dt.date(2026, 9, 1), 56)
    edit_warehouse("update loads set pages = 90 where date < '2026-09-21'")
    edit_warehouse("update loads set pages = 7 where date >= '2026-09-21'")
    edit_warehouse("update loads set pages = 500, mode = 'snapshot' where date > '2026-10-10'")
    cost = estimate_cost(read_workspace(USERS))
    assert cost is not None
    assert (cost.days, cost.pages) == (30, 7)


def test_cost_ignores_pause_between_extract_and_load(monkeypatch):
    """Otherwise reprocessed days would seem to take as long as the pause."""
    start = dt.datetime(2026, 10, 2, tzinfo=dt.UTC)

    def mark(minutes: float) -> Marker:
        read = start + dt.timedelta(seconds=20)
        loaded = read + dt.timedelta(minutes=minutes)
        return make_marker(
            mode="incremental", pages=7, started_at=start, extracted_at=read, loaded_at=loaded, seconds=3.0
        )

    class Loaded:
        def __init__(self, *minutes: float) -> None:
            self.minutes = minutes

        def read_markers(self) -> list[Marker]:
            return [mark(minutes) for minutes in self.minutes]

    monkeypatch.setattr(plan_module, "open_warehouse", lambda _: Loaded(1))
    assert estimate_cost(read_workspace(USERS)) == Cost(1, 7, 80)
    monkeypatch.setattr(plan_module, "open_warehouse", lambda _: Loaded(9000))
    assert estimate_cost(read_workspace(USERS)) == Cost(1, 7, 23)


def test_cost_is_unknown_without_a_warehouse(capsys):
    """plan does not create a warehouse."""
    out, err, code = run_here(capsys, "plan", "2026-10-01", "2026-10-06")
    assert (code, err) == (0, "")
    assert " ".join(out.splitlines()[1].split()) == "extract 5 2026-10-01..2026-10-05 missing"
    assert out.splitlines()[-1] == "users: cannot estimate the cost of 5 days, as no day is loaded"
    assert not Path("data").exists()
