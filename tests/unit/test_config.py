"""Sections of luigi.cfg, and the days that they define."""

import datetime as dt
import itertools

import luigi
import pytest
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config

from pipeline.users import USERS
from tests.support.project import run
from wholeday.config.pipeline import Pipeline
from wholeday.errors import ConfigError, DayNotClosedError

UTC = dt.UTC


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def test_unknown_key_suggests_nearest(configure):
    """Luigi would only warn, and use the default."""
    configure("users", paginater="page")
    with pytest.raises(ConfigError, match=r"\[users\] has no key 'paginater': did you mean 'paginator'\?"):
        USERS.config()


@pytest.mark.parametrize("name", ["user", "USERS"])
def test_misspelt_section_is_refused(configure, name):
    """Names are case-sensitive."""
    get_config().remove_section("users")
    configure(name, url="http://127.0.0.1/")
    with pytest.raises(ConfigError, match=rf"unknown section \[{name}\]: did you mean \[users\]\?"):
        USERS.config()


def test_similar_section_is_allowed(configure):
    """Another dataset may be called users_b."""
    configure("users_b", url="http://127.0.0.1/")
    assert USERS.config().mode == "incremental"


def test_value_that_may_be_secret_is_not_shown(configure):
    """The error names url, params or headers, and the problem."""
    configure("users", headers='{"Authorization": "hunter2"')
    with pytest.raises(ConfigError, match=r"^\[users\] headers cannot be used: .*delimiter") as caught:
        USERS.config()
    assert "hunter2" not in str(caught.value)


UNUSABLE = ["page_size=many", "page_size=-1", "retries=-1", "timeout=0", "mode=full", "settle=a while"]
UNUSABLE += ["max_reject_ratio=1.01", "max_reject_ratio=nan", "keep_params=perhaps"]


@pytest.mark.parametrize("text", UNUSABLE)
def test_unusable_value_names_section_key_and_value(configure, text):
    key, value = text.split("=")
    configure("users", **{key: value})
    with pytest.raises(ConfigError) as caught:
        USERS.config()
    assert f"[users] {key} = {value!r} cannot be used" in str(caught.value)


def test_unknown_time_zone_is_refused():
    """The line has the key, the value and an example."""
    with pytest.raises(ConfigError, match=r"\[users\] timezone = 'Mars/Olympus' is not a time zone"):
        USERS.config(timezone="Mars/Olympus").window(dt.date(2026, 11, 21))


@pytest.mark.parametrize(
    ("zone", "date", "start", "hours"),
    [
        ("UTC", "2026-11-21", "2026-11-21T00:00:00Z", 24),
        ("America/New_York", "2026-11-21", "2026-11-21T05:00:00Z", 24),
        ("Europe/Berlin", "2026-03-29", "2026-03-28T23:00:00Z", 23),
        ("Europe/Berlin", "2026-10-25", "2026-10-24T22:00:00Z", 25),
    ],
)
def test_day_lasts_from_midnight_to_midnight(zone, date, start, hours):
    """When clocks change, a day has 23 or 25 hours."""
    window = USERS.config(timezone=zone).window(dt.date.fromisoformat(date))
    assert window.start == at(start)
    assert window.stop - window.start == dt.timedelta(hours=hours)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Pacific/Apia", "America/Sao_Paulo"])
def test_windows_have_no_gaps_or_overlaps(zone):
    users, first = USERS.config(timezone=zone), dt.date(2011, 12, 1)
    days = [users.window(first + dt.timedelta(days=n)) for n in range(800)]
    assert all(a.stop == b.start for a, b in itertools.pairwise(days))


@pytest.mark.parametrize(
    ("now", "mode", "zone", "last"),
    [
        ("2026-11-22T00:14:59Z", "incremental", "UTC", "2026-11-20"),
        ("2026-11-22T00:15:00Z", "incremental", "UTC", "2026-11-21"),
        ("2026-11-22T05:14:59Z", "incremental", "America/New_York", "2026-11-20"),
        ("2026-11-22T05:15:00Z", "incremental", "America/New_York", "2026-11-21"),
        ("2026-11-22T00:00:00Z", "snapshot", "UTC", "2026-11-22"),
        ("2026-11-21T23:30:00Z", "snapshot", "Europe/Berlin", "2026-11-22"),
    ],
)
def test_day_is_closed_after_grace_period(now, mode, zone, last):
    """In snapshot mode, today is closed already."""
    users, last = USERS.config(mode=mode, timezone=zone), dt.date.fromisoformat(last)
    assert users.last_closed_day(at(now)) == last
    users.check_closed(last, at(now))
    with pytest.raises(DayNotClosedError, match=f"the newest day available is {last}"):
        users.check_closed(last + dt.timedelta(days=1), at(now))


def test_open_day_names_its_closing_time():
    """In UTC: midnight of its zone plus settle."""
    users = USERS.config(timezone="America/New_York", settle=dt.timedelta(hours=1))
    with pytest.raises(DayNotClosedError, match="can be extracted from 2026-11-23T06:00:00Z on"):
        users.check_closed(dt.date(2026, 11, 22), at("2026-11-22T12:00:00Z"))


def test_shipped_configuration_is_the_demo_source():
    users = USERS.config()
    assert (users.url, users.mode) == (
        "demo://users?updated_since={day_start}&updated_before={day_stop}",
        "incremental",
    )
    assert (Pipeline().data_dir, Pipeline().database) == ("data", "sqlite:///data/warehouse.db")


@pytest.mark.slow
def test_percent_sign_needs_no_escape(home):
    """As in a time format or an encoded URL. %% still works, and so does %(name)s."""
    (home / "luigi.cfg").write_text(
        "[DEFAULT]\nbase = http://127.0.0.1/v1\n[users]\nurl = %(base)s/a%2Fb?x=100%%\n"
        'params = {"jql": "updated >= \\"{day_start:%Y/%m/%d %H:%M}\\"", "to": "{day_stop:%%Y-%%m-%%d}"}\n'
    )
    code = "from pipeline.users import USERS; s = USERS.config(); print(s.url, *s.params.values())"
    done = run("python", "-c", code)
    assert done.stdout == (
        'http://127.0.0.1/v1/a%2Fb?x=100% updated >= "{day_start:%Y/%m/%d %H:%M}" {day_stop:%Y-%m-%d}\n'
    )


def test_values_are_cached_until_they_change(configure, monkeypatch):
    """Changes of flags, luigi.cfg and the environment are seen at once."""
    looked_up = []
    look_up = luigi.Parameter.has_task_value
    monkeypatch.setattr(luigi.Parameter, "has_task_value", lambda *given: looked_up.append(given) or look_up(*given))
    monkeypatch.setenv("PLACE", "here")
    configure("pipeline", data_dir="${PLACE}")
    assert (Pipeline().data_dir, USERS.config().mode, len(looked_up) > 0) == ("here", "incremental", True)
    looked_up.clear()
    assert (Pipeline().data_dir, USERS.config().mode, looked_up) == ("here", "incremental", [])
    monkeypatch.setenv("PLACE", "there")
    assert Pipeline().data_dir == "there"
    configure("users", mode="snapshot")
    assert USERS.config().mode == "snapshot"
    with CmdlineParser.global_instance(["LoadUsers", "--users-mode", "incremental"]):
        assert USERS.config().mode == "incremental"
    assert USERS.config().mode == "snapshot"
    get_config().remove_section("users")
    with pytest.raises(ConfigError, match="url is missing"):
        USERS.config()
    configure("user", url="http://127.0.0.1/")
    with pytest.raises(ConfigError, match="unknown section"):
        USERS.config()
    configure("pipeline", data_dir="${NO_SUCH_PLACE}")
    with pytest.raises(ConfigError, match="NO_SUCH_PLACE"):
        Pipeline()
