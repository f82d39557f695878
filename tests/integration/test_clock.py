"""Test days extracted under a wrong clock: which are refused, how they are reported, and how to remove them."""

import datetime as dt
import re
import shutil
from collections.abc import Callable

import pytest

from pipeline.users import USERS
from tests.support.project import execute, query, run_here, run_stages
from tests.support.server import Answer, Request, Server
from wholeday import clock
from wholeday.commands.rebuild import rebuild
from wholeday.commands.reprocess import reprocess
from wholeday.commands.status import read_status
from wholeday.commands.verify import verify
from wholeday.errors import QualityError
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

pytestmark = pytest.mark.usefixtures("database")

NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
YESTERDAY, TODAY = NOW.date() - dt.timedelta(days=1), NOW.date()
YEAR, DAY = dt.timedelta(days=365), dt.timedelta(days=1)

NO_DATE = {"Date": "unknown"}  # without a valid date from the source, the client cannot detect the wrong clock

Take = Callable[[dt.date, dt.timedelta], None]


@pytest.fixture
def take(database: str, server: Server, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Take:  # noqa: ARG001
    """Return a function that loads a snapshot under a clock that is ahead. Its users are named after the day."""

    def answer(request: Request) -> Answer:
        return Answer([{"id": n, "name": request.query["on"]} for n in (1, 2, 3)], headers=NO_DATE)

    url = server.on("/users", answer)
    configure("users", url=url + "?on={date}", mode="snapshot", paginator="single")
    monkeypatch.setattr(clock, "utc_now", lambda: NOW)

    def load(day: dt.date, ahead: dt.timedelta = dt.timedelta(0)) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(clock, "utc_now", lambda: NOW + ahead)
            run_stages(USERS, day)

    return load


def names() -> set[str]:
    """Read the names of all users."""
    return {name for (name,) in query("select name from users")}


def test_day_extracted_in_the_future_is_not_loaded(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load, reprocess and rebuild all refuse it."""
    take(YESTERDAY, -DAY)
    with monkeypatch.context() as patch:
        patch.setattr(clock, "utc_now", lambda: NOW + dt.timedelta(minutes=6))
        stages.extract(read_workspace(USERS), TODAY)
        stages.transform(read_workspace(USERS), TODAY)
    before = query("select date, as_of from loads")
    line = r"^users 2026-11-20: it was extracted at 2026-11-20T12:06:00Z, which lies in the future. Correct the clock"
    with pytest.raises(QualityError, match=line):
        stages.load(read_workspace(USERS), TODAY)
    for outcome in (*reprocess(read_workspace(USERS), TODAY, TODAY + DAY), rebuild(read_workspace(USERS))[-1]):
        assert (outcome.date, outcome.what) == (TODAY, "failed")
        assert re.match(line, outcome.why)
    assert query("select date, as_of from loads") == before


@pytest.mark.usefixtures("take")
def test_clocks_may_differ_by_five_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One machine may extract a day, and another may load it."""
    with monkeypatch.context() as patch:
        patch.setattr(clock, "utc_now", lambda: NOW + dt.timedelta(minutes=5))
        stages.extract(read_workspace(USERS), TODAY)
        stages.transform(read_workspace(USERS), TODAY)
    stages.load(read_workspace(USERS), TODAY)
    assert names() == {str(TODAY)}


def test_clock_set_back_during_extraction_fails_the_day(
    server: Server, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the extraction would appear to start in the future. No parts are kept."""
    times = [NOW + YEAR]
    monkeypatch.setattr(clock, "utc_now", lambda: times[0])

    def answer(_: object) -> Answer:
        times[0] = NOW
        return Answer([{"id": 1}], headers=NO_DATE)

    configure("users", url=server.on("/users", answer) + "?on={date}", paginator="single")
    with pytest.raises(QualityError, match="the clock of this machine was set back during the extraction"):
        stages.extract(read_workspace(USERS), YESTERDAY)
    assert read_workspace(USERS).folder("raw", YESTERDAY).list_parts() == set()


@pytest.fixture
def frozen(take: Take, caplog: pytest.LogCaptureFixture) -> None:
    """Load a snapshot under a clock one year ahead, and correct ones before and after it. The last has no effect."""
    take(YESTERDAY, -DAY)
    take(TODAY, YEAR)
    caplog.clear()
    take(YESTERDAY - DAY)
    assert names() == {str(TODAY)}
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"][-1:]
    assert line == (
        f"users {YESTERDAY - DAY}: superseded by the snapshot of {TODAY}, which was read under a wrong clock "
        f"(2027-11-20T11:45:00Z): read that day again"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("frozen")
def test_status_and_verify_report_days_of_the_future(capsys: pytest.CaptureFixture[str]) -> None:
    """`status --max-age` fails too, although the day appears to be new."""
    status = read_status(read_workspace(USERS))
    assert status.future == [TODAY]
    assert status.known_until == NOW - dt.timedelta(minutes=15)
    out, _, code = run_here(capsys, "status")
    assert code == 0
    assert f"wrong clock: {TODAY}: extracted while the clock was ahead" in out
    _, error, code = run_here(capsys, "status", "--max-age", "900 days")
    assert code == 1
    assert error.startswith(f"ERROR: users: {TODAY}: extracted while the clock was ahead")
    found = [
        finding.what for finding in verify(read_workspace(USERS)) if (finding.date, finding.remark) == (TODAY, False)
    ]
    assert [what.split(":")[0] for what in found] == [
        f"{name} is 2027-11-20T{hour}" for name, hour in (("started_at", 12), ("extracted_at", 12), ("as_of", 11))
    ]


def check_thawed() -> None:
    """Check that nothing is left of the snapshot of the future."""
    assert list(verify(read_workspace(USERS))) == []
    assert read_status(read_workspace(USERS)).future == []
    assert query("select count(*) from users_history where valid_from > ?", "2027-01-01T00:00:00Z") == [(0,)]


@pytest.mark.slow
@pytest.mark.usefixtures("frozen")
def test_new_extraction_replaces_a_day_of_the_future(take: Take) -> None:
    """Deleting the marker is not enough. Only a new extraction and load replace the facts of the day."""
    execute(f"delete from loads where date = '{TODAY}'")
    assert names() == {str(TODAY)}
    assert query("select count(*) from users_history where valid_from > ?", "2027-01-01T00:00:00Z") == [(3,)]
    shutil.rmtree(read_workspace(USERS).folder("raw", TODAY).path)
    take(TODAY, dt.timedelta(minutes=1))
    assert query("select as_of from loads where date = ?", str(TODAY)) == [("2026-11-20T11:46:00.000000Z",)]
    check_thawed()


@pytest.mark.slow
@pytest.mark.usefixtures("frozen")
def test_rebuild_without_files_removes_days_of_the_future() -> None:
    """This helps when the day cannot be extracted again."""
    for stage in ("raw", "clean"):
        shutil.rmtree(read_workspace(USERS).folder(stage, TODAY).path)
    rebuild(read_workspace(USERS), drop_missing=True)
    assert names() == {str(YESTERDAY - DAY)}
    check_thawed()
