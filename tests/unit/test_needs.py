"""Test which day of its parents a dataset needs, and the order of datasets."""

import datetime as dt
from collections.abc import Callable
from datetime import datetime

import pytest

from tests.support.project import execute, run_stages
from wholeday import Dataset, Extract, Field, Load, Record, Transform, clock
from wholeday.commands.waiting import list_waiting
from wholeday.errors import ConfigError, DayNotClosedError, QualityError
from wholeday.tasks.failures import record_failure
from wholeday.tasks.needs import list_needed, sort_by_needs

Configure = Callable[..., None]

DAY = dt.date(2026, 11, 20)
NOW = dt.datetime(2026, 11, 21, 6, tzinfo=dt.UTC)
URL = "http://127.0.0.1:9/"


class Row(Record):
    id: int = Field(primary_key=True)
    updated_at: datetime | None


CLUBS, SQUADS, PLAYERS = Dataset("clubs", Row), Dataset("squads", Row), Dataset("players", Row)


class LoadClubs(Load, dataset=CLUBS):
    pass


class ExtractSquads(Extract, dataset=SQUADS):
    pass


class LoadSquads(Load, dataset=SQUADS):
    pass


class TransformPlayers(Transform, dataset=PLAYERS):
    pass


class ExtractPlayers(Extract, dataset=PLAYERS):
    pass


@pytest.fixture(autouse=True)
def sections(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for the squads of each club, and for the players of each squad. It is the morning after DAY."""
    configure("clubs", url=f"{URL}clubs")
    configure("squads", url=f"{URL}clubs/{{clubs.id}}/squads")
    configure("players", url=f"{URL}players", params='{"squad": "{squads.id}"}')
    monkeypatch.setattr(clock, "utc_now", lambda: NOW)


def test_day_needs_the_same_day_of_its_parents():
    """Each level needs the level above only."""
    assert TransformPlayers(date=DAY).requires() == ExtractPlayers(date=DAY)
    assert ExtractPlayers(date=DAY).requires() == [LoadSquads(date=DAY)]
    assert ExtractSquads(date=DAY).requires() == [LoadClubs(date=DAY)]
    assert list_needed(PLAYERS) == [SQUADS, CLUBS]


def test_dataset_without_parents_needs_nothing(configure):
    configure("squads", url=f"{URL}squads")
    assert ExtractSquads(date=DAY).requires() == []


def load_clubs(configure: Configure, **stored: object) -> None:
    """Load a day of the clubs, with these values in its marker, and let them be snapshots from now on."""
    configure(
        "clubs", url="demo://users?updated_since={day_start}&updated_before={day_stop}&per_day=1", mode="incremental"
    )
    run_stages(CLUBS, DAY)
    execute(*(f"update loads set {name} = '{value}'" for name, value in stored.items()))
    configure("clubs", url=f"{URL}clubs", mode="snapshot")


@pytest.mark.parametrize(
    ("as_of", "is_enough"),
    [("2026-11-21T00:00:00Z", True), ("2026-12-21T05:00:00Z", True), ("2026-11-20T23:59:59Z", False)],
)
def test_snapshot_of_parents_must_be_as_of_the_end_of_the_day(configure, as_of, is_enough):
    """Without such a snapshot, the day needs the newest one that can be loaded."""
    configure("clubs", mode="snapshot")
    assert ExtractSquads(date=DAY).requires() == [LoadClubs(date=NOW.date())]
    load_clubs(configure, mode="snapshot", as_of=as_of)
    assert ExtractSquads(date=DAY).requires() == ([] if is_enough else [LoadClubs(date=NOW.date())])


def test_incremental_days_are_no_snapshot_of_the_parents(configure):
    """They were loaded before the mode was changed."""
    load_clubs(configure, as_of="2027-01-01T00:00:00Z")
    assert ExtractSquads(date=DAY).requires() == [LoadClubs(date=NOW.date())]


def test_snapshot_needs_a_snapshot_of_its_date_or_later(configure):
    configure("squads", mode="snapshot")
    load_clubs(configure, mode="snapshot")
    assert ExtractSquads(date=DAY - dt.timedelta(days=1)).requires() == []
    assert ExtractSquads(date=DAY).requires() == []
    assert ExtractSquads(date=NOW.date()).requires() == [LoadClubs(date=NOW.date())]


def test_snapshot_needs_last_closed_day_of_incremental_parents(configure):
    configure("squads", mode="snapshot")
    assert ExtractSquads(date=NOW.date()).requires() == [LoadClubs(date=DAY)]
    assert ExtractSquads(date=dt.date(2026, 11, 3)).requires() == [LoadClubs(date=dt.date(2026, 11, 3))]


def test_circle_is_one_line(configure):
    """The line is the same for each dataset of the circle, and for each dataset that needs one of them."""
    configure("squads", url=f"{URL}{{squads.id}}")
    configure("clubs", url=f"{URL}{{players.id}}")
    configure("squads", url=f"{URL}{{clubs.id}}")
    lines = set()
    for dataset in (CLUBS, SQUADS, PLAYERS):
        with pytest.raises(ConfigError) as caught:
            list_needed(dataset)
        lines.add(str(caught.value))
    assert lines == {
        "[clubs] asks for each row of players, which asks for each row of squads, which asks for each row of clubs: "
        "none of them can be loaded first. Remove one of the placeholders"
    }


def test_datasets_follow_those_that_they_need(configure):
    """A tree is shown from its root; equals stand in the order of their names."""
    aardvarks = Dataset("aardvarks", Row)
    configure("aardvarks", url=f"{URL}{{squads.id}}")
    assert sort_by_needs([aardvarks, PLAYERS, SQUADS, CLUBS]) == [CLUBS, SQUADS, aardvarks, PLAYERS]
    configure("aardvarks", url=f"{URL}aardvarks")
    assert sort_by_needs([PLAYERS, SQUADS, CLUBS, aardvarks]) == [aardvarks, CLUBS, SQUADS, PLAYERS]
    configure("squads", mode="unknown")  # its own run reports the mistake
    assert sort_by_needs([PLAYERS, SQUADS, CLUBS, aardvarks]) == [aardvarks, CLUBS, SQUADS, PLAYERS]


def test_day_fails_if_the_newest_snapshot_is_too_old(configure):
    """It was extracted just after midnight, so it shows the source as of a time before midnight."""
    configure("squads", url=f"{URL}{{clubs.id}}", retries=0)
    load_clubs(configure, mode="snapshot", as_of="2026-11-20T23:50:00Z", date=NOW.date())
    (needed,) = ExtractSquads(date=DAY).requires()
    assert needed.complete()
    line = "squads 2026-11-20: no loaded snapshot of clubs is as of the end of the day or later, so new rows may be"
    with pytest.raises(QualityError, match=line):
        ExtractSquads(date=DAY).run()
    execute("update loads set as_of = '2026-11-21T00:00:00Z'")
    with pytest.raises(ConfigError, match="needs paginator"):  # the next check of an extraction
        ExtractSquads(date=DAY).run()


def test_open_day_waits_for_nothing(configure):
    """The failed snapshot is of today. An incremental dataset waits with its last closed day."""
    configure("clubs", mode="snapshot")
    record_failure(CLUBS, NOW.date(), "extract", "410 Gone")
    for extract in (ExtractSquads, ExtractPlayers):
        assert list_waiting(extract.workspace()) == {DAY: "clubs 2026-11-21 failed, extract: 410 Gone"}


def test_day_that_is_not_over_is_named_as_such(configure):
    """No snapshot can be as of its end, so the age of the newest one is not the reason."""
    configure("squads", url=f"{URL}{{clubs.id}}", retries=0)
    load_clubs(configure, mode="snapshot", date=NOW.date(), as_of="2026-11-20T23:50:00Z")
    with pytest.raises(DayNotClosedError, match=f"squads {NOW.date()}: the day can be extracted from"):
        ExtractSquads(date=NOW.date()).run()
