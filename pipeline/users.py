"""Define the dataset `users`: its source, record class, cleaning, table and tasks.

This file holds everything that is specific to users. Edit it, or copy it for another dataset.
Importing it loads luigi and msgspec only; pandas and SQLAlchemy are imported when a task runs.
"""

import datetime as dt
from typing import TYPE_CHECKING, Annotated

import luigi
import msgspec
from luigi.util import requires

from wholeday.config.source import Source
from wholeday.schema.dataset import Dataset
from wholeday.tasks.day_tasks import Extract, Load, Transform
from wholeday.tasks.range_daily import RangeDaily

if TYPE_CHECKING:
    import pandas as pd
    import sqlalchemy as sa

MAX_INTEGER = 2**63 - 1


class Users(Source):
    """Section `[users]` of luigi.cfg."""

    section = "users"


class Address(msgspec.Struct):
    """The fields of a record's `address` that the table uses."""

    city: str | None = None


class User(msgspec.Struct):
    """A record of the API. Other fields are ignored; a record that does not match is rejected."""

    id: Annotated[int, msgspec.Meta(ge=1, le=MAX_INTEGER)]
    name: str | None = None
    email: str | None = None
    address: Address | None = None
    updated_at: dt.datetime | None = None


def clean(users: "pd.DataFrame") -> "tuple[pd.DataFrame, dict[tuple[str, str], pd.Series[bool]]]":
    """Return the rows of the table, with the index of `users`, and the rules that reject rows.

    `users` has a column per field (nested: `address.city`). A rule maps (column, reason) to True for each bad row.
    """
    rows = users[["id", "updated_at"]].rename(columns={"id": "user_id"})
    rows["name"] = users["name"].str.strip().replace("", None)
    rows["email"] = users["email"].str.strip().str.lower().replace("", None)
    rows["city"] = users["address.city"].str.strip().replace("", None)
    return rows, {
        ("email", "has no @"): rows["email"].notna() & ~rows["email"].str.contains("@", regex=False, na=False)
    }


def table(metadata: "sa.MetaData") -> "sa.Table":
    """Define the table `users` with its natural key. The warehouse adds `ingested_at` and `load_date`."""
    import sqlalchemy as sa

    return sa.Table(
        "users",
        metadata,
        sa.Column("user_id", sa.BigInteger, primary_key=True),
        sa.Column("name", sa.Text),
        sa.Column("email", sa.Text),
        sa.Column("city", sa.Text),
        sa.Column("updated_at", sa.DateTime(timezone=True)),
    )


USERS = Dataset(Users, User, clean, table, key=("id",))


class ExtractUsers(Extract):
    """Write the raw files of a day."""

    dataset = USERS


@requires(ExtractUsers)
class TransformUsers(Transform):
    """Write the clean files of a day."""

    dataset = USERS


@requires(TransformUsers)
class LoadUsers(Load):
    """Load the rows of a day and write its marker."""

    dataset = USERS


class BackfillUsers(RangeDaily):
    """Run LoadUsers for every day from `start` to `stop` (exclusive)."""

    of = luigi.TaskParameter(default=LoadUsers, description="the task of each day")
