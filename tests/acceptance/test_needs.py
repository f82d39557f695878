"""Load datasets that are asked for each row of another one, and all datasets at once, as a user does."""

import shutil

import pytest

from tests.support.project import execute, luigi_run, query
from tests.support.server import Server
from tests.support.teams import list_asked, write_datasets

pytestmark = pytest.mark.slow

DAY = "2026-11-20"


def list_loads() -> list[tuple[str, str]]:
    """List the markers: dataset and day."""
    return query("select dataset, date from loads order by 1, 2")


def test_day_loads_what_it_needs_first(server: Server):
    """A day with raw files needs nothing any more."""
    environment = write_datasets(server, "teams", "members", "badges")
    result = luigi_run("LoadBadges", "--date", DAY, **environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert list_asked(server) == [("teams", DAY), ("members", DAY), ("badges", DAY)]
    assert list_loads() == [("badges", DAY), ("members", DAY), ("teams", DAY)]
    execute("delete from loads")
    shutil.rmtree("data/clean")
    again = luigi_run("LoadBadges", "--date", DAY, **environment)
    assert (again.returncode, again.stderr) == (0, "")
    assert len(list_asked(server)) == 3
    assert list_loads() == [("badges", DAY)]
