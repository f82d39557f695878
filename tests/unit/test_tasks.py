"""Test the answers of the tasks to Luigi, in this process."""

import datetime as dt
import functools
import pickle
import shutil
import sqlite3

import luigi
import pytest
from luigi.cmdline_parser import CmdlineParser
from luigi.parameter import ParameterException

from pipeline.users import USERS, BackfillUsers, ExtractUsers, LoadUsers, TransformUsers
from tests.support.project import run_stages
from wholeday.errors import ConfigError, DayNotClosedError
from wholeday.tasks.day_tasks import DayParameter
from wholeday.tasks.range_daily import RangeDaily
from wholeday.tasks.stages import read_workspace

DAYS = [dt.date(2026, 10, 1) + dt.timedelta(days=n) for n in range(5)]


@pytest.fixture
def loaded() -> list[dt.date]:
    """Load three of the five days."""
    run_stages(USERS, *DAYS[::2])
    return DAYS[::2]


def test_bulk_complete_uses_one_select(loaded, monkeypatch):
    """Luigi passes a partial in place of the class, and a one-shot iterator."""
    statements: list[str] = []
    connect = sqlite3.connect

    def listen(*arguments, **options):
        db = connect(*arguments, **options)
        db.set_trace_callback(statements.append)
        return db

    monkeypatch.setattr(sqlite3, "connect", listen)
    partial = functools.partial(LoadUsers)
    assert LoadUsers.bulk_complete.__func__(partial, iter(DAYS)) == loaded
    assert len([statement for statement in statements if "from loads" in statement]) == 1


def test_bulk_complete_checks_files_of_days(loaded):
    """A range works for extract and transform tasks too."""
    shutil.rmtree(read_workspace(USERS).folder("clean", DAYS[0]).path)
    assert ExtractUsers.bulk_complete(DAYS) == loaded
    assert TransformUsers.bulk_complete(DAYS) == loaded[1:]


def test_task_requires_previous_stage_of_day():
    load = LoadUsers(date=DAYS[0])
    assert load.requires() == TransformUsers(date=DAYS[0])
    assert load.requires().requires() == ExtractUsers(date=DAYS[0])


def test_older_day_has_higher_priority():
    """Luigi runs the highest priority first."""
    priorities = [LoadUsers(date=day).priority for day in (dt.date.min, *DAYS, dt.date.max)]
    assert priorities == sorted(priorities, reverse=True)
    assert min(priorities) >= 0


def test_task_name_contains_only_the_date():
    """Flags do not change a task's identity, and the scheduler shows none of them."""
    assert [name for name, _ in LoadUsers.get_params()] == ["date"]
    assert repr(LoadUsers(date=DAYS[0])) == "LoadUsers(date=2026-10-01)"


def test_pickled_task_keeps_command_line_flags():
    """A task unpickled in a spawned child reads the flags of its parent."""
    with CmdlineParser.global_instance(["LoadUsers", "--users-url", "http://127.0.0.1/mine"]):
        pickled = pickle.dumps(LoadUsers(date=DAYS[0]))
    assert USERS.config().url.startswith("demo://")
    task = pickle.loads(pickled)
    try:
        assert task.dataset.config().url == "http://127.0.0.1/mine"
    finally:
        CmdlineParser._instance = None


@pytest.mark.usefixtures("loaded")
def test_range_requires_its_missing_days():
    """The range runs from start to the day before stop."""
    missing = BackfillUsers(start=DAYS[0], stop=DAYS[4]).requires()
    assert missing == [LoadUsers(date=DAYS[1]), LoadUsers(date=DAYS[3])]


@pytest.mark.parametrize(
    ("now", "zone", "last"),
    [
        ("2026-10-04T00:14:00Z", "UTC", "2026-10-02"),
        ("2026-10-04T00:16:00Z", "UTC", "2026-10-03"),
        ("2026-10-04T00:16:00Z", "America/New_York", "2026-10-02"),
    ],
)
def test_range_without_stop_ends_at_last_closed_day(configure, now, zone, last):
    """Midnight in the dataset's timezone plus the grace period closes a day."""
    configure("users", timezone=zone)
    seconds = int(dt.datetime.fromisoformat(now).timestamp())
    days = [task.date for task in RangeDaily(of=LoadUsers, start=DAYS[0], now=seconds).requires()]
    assert days == [DAYS[0] + dt.timedelta(days=n) for n in range(len(days))]
    assert str(days[-1]) == last


def test_stop_past_last_closed_day_is_an_error():
    """The error names the latest valid stop."""
    now = int(dt.datetime(2026, 10, 4, 12, tzinfo=dt.UTC).timestamp())
    assert len(RangeDaily(of=LoadUsers, start=DAYS[0], stop=dt.date(2026, 10, 4), now=now).requires()) == 3
    with pytest.raises(
        DayNotClosedError, match=r"--stop 2026-10-05 is past the last closed day, 2026-10-03: give --stop"
    ):
        RangeDaily(of=LoadUsers, start=DAYS[0], stop=dt.date(2026, 10, 5), now=now).requires()


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"stop": DAYS[0]}, "give --start, the first day"),
        ({"start": dt.date(2999, 1, 1)}, "--start 2999-01-01 is past the last closed day"),
        ({"start": DAYS[0], "task_limit": 2}, "--task-limit would leave days undone"),
        ({"start": DAYS[0], "reverse": True}, "--reverse would leave days undone"),
    ],
)
def test_range_that_would_leave_days_undone_is_refused(keys, line):
    with pytest.raises((ParameterException, DayNotClosedError), match=f"^{line}"):
        BackfillUsers(**keys).requires()


def test_range_of_foreign_task_uses_luigi_rules():
    """Such a range ends at the current time."""

    class Other(luigi.Task):
        date = luigi.DateParameter()

        def complete(self) -> bool:
            return False

        @classmethod
        def bulk_complete(cls, parameter_tuples):
            return list(parameter_tuples)[:0]

    now = int(dt.datetime(2026, 10, 4, 12, tzinfo=dt.UTC).timestamp())
    assert [task.date.day for task in RangeDaily(of=Other, start=DAYS[0], now=now).requires()] == [1, 2, 3, 4]


@pytest.mark.parametrize("text", ["2026-13-01", "21.11.2026", "yesterday", "2026-11-21T00", ""])
def test_invalid_date_is_an_error_with_example(text):
    with pytest.raises(ConfigError, match="is not a day: write it as 2026-11-21"):
        DayParameter().parse(text)


@pytest.mark.parametrize("text", ["1066-10-14", "9999-12-31"])
def test_date_out_of_range_is_refused(text):
    with pytest.raises(ConfigError, match=f"^{text} is out of range: give a day from 1970 on"):
        DayParameter().parse(text)
