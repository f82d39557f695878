"""Promise G10: what a day removes or nulls fails the day, or is shown. From the source to the warehouse."""

import dataclasses
import datetime as dt
import json
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pandas as pd
import pytest

from conftest import luigi_run, query
from pipeline import stages
from pipeline.errors import QualityError
from pipeline.extraction import extract_day
from pipeline.forget import forget
from pipeline.users import USERS
from reading import make_user, serve
from server import Server

DAY = dt.date(2026, 11, 10)


class Source:
    """The API of `users`; a test says what it answers, and runs a day."""

    def __init__(self, server: Server, configure: Callable[..., None]) -> None:
        self.server, self.configure, self.dataset = server, configure, USERS

    def run(self, number: int, records: Iterable[dict[str, Any]], **keys: Any) -> None:
        """Extract, transform and load the day `number` days after DAY."""
        serve(self.server, self.configure, json.dumps(list(records)).encode(), **keys)
        date = DAY + dt.timedelta(days=number)
        extract_day(self.dataset, date)
        stages.transform_day(self.dataset, date)
        stages.load_day(self.dataset, date)


@pytest.fixture
def source(server: Server, configure: Callable[..., None]) -> Source:
    configure("users", paginator="single", max_drop_ratio=1, max_reject_ratio=1)
    return Source(server, configure)


@pytest.mark.usefixtures("database")
def test_first_snapshot_is_compared_with_incremental_users(source):
    """It fails if too many are missing, and `--users-accept` says how many went."""
    source.run(0, map(make_user, range(1, 6)))
    with pytest.raises(QualityError, match=r"4 of 5 users in the warehouse are missing; .* --users-accept$"):
        source.run(1, [make_user(1)], mode="snapshot")
    assert query("select count(*) from users") == [(5,)]
    result = luigi_run(
        *("LoadUsers", "--date", str(DAY + dt.timedelta(days=1)), "--users-url", f"{source.server.url}/users"),
        *("--users-paginator", "single"),
        *("--users-mode", "snapshot", "--users-accept"),
    )
    assert result.returncode == 0, result.stderr
    assert "loaded, 4 vanished, 1 unchanged" in result.stdout
    assert query("select vanished, accepted from loads where vanished > 0") == [(4, "max_delete_ratio")]


def test_rejected_and_forgotten_users_are_not_missing(source):
    """A snapshot does not understand the first, who stay; the warehouse does not know the second."""
    source.run(0, map(make_user, range(1, 11)))
    forget(USERS, ["9", "10"])
    rejected = [make_user(number, email="none") for number in range(1, 6)]
    source.run(1, [*rejected, make_user(6)], mode="snapshot")  # 7 and 8 are missing: 2 of 8
    assert query("select vanished, rejected from loads where mode = 'snapshot'") == [(2, 5)]
    assert query("select user_id from users order by 1") == [(number,) for number in range(1, 7)]
    with pytest.raises(QualityError, match="3 of 6 users in the warehouse are missing"):
        source.run(2, rejected[:3], mode="snapshot")


class TextUser(msgspec.Struct):
    """A user whose key is text until it is cleaned."""

    id: str
    updated_at: dt.datetime | None = None


def clean_text(users: pd.DataFrame) -> Any:
    rows = pd.DataFrame({"user_id": users["id"].str.strip().astype("Int64"), "updated_at": users["updated_at"]})
    return rows.assign(name=None, email=None, city=None).astype(dict.fromkeys(("name", "email", "city"), "str")), {}


def test_keys_that_clean_changes_are_not_missing(source):
    """The gate cleans the records itself if it finds too few of the users."""
    source.dataset = dataclasses.replace(USERS, contract=TextUser, clean=clean_text)
    source.run(0, ({"id": f" {number}"} for number in range(1, 11)))
    source.run(1, ({"id": f"{number} "} for number in range(1, 8)), mode="snapshot")
    assert query("select vanished, unchanged from loads where mode = 'snapshot'") == [(3, 7)]
    with pytest.raises(QualityError, match="3 of 7 users in the warehouse are missing"):
        source.run(2, ({"id": f" {number}"} for number in range(4, 8)))
