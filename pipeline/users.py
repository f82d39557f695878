"""The dataset `users`: what its API sends, how that is cleaned, the table it becomes, its three tasks.

Everything that is particular to users is here and nowhere else: this is the file to edit, or to copy
for another dataset. Importing it costs luigi and msgspec only; pandas and SQLAlchemy come with the work.
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
    """The part of a record's `address` that is read."""

    city: str | None = None


class User(msgspec.Struct):
    """A record as the API sends it. What is not named here is skipped; a record that does not fit is rejected."""

    id: Annotated[int, msgspec.Meta(ge=1, le=MAX_INTEGER)]
    name: str | None = None
    email: str | None = None
    address: Address | None = None
    updated_at: dt.datetime | None = None


def clean(users: "pd.DataFrame") -> "tuple[pd.DataFrame, dict[tuple[str, str], pd.Series[bool]]]":
    """Records, a column a field (`address.city` for a nested one), to the table's rows, and the rules that rows break.

    The index is kept. A rule is named (column, what is wrong with it) and is True where it rejects the row.
    """
    rows = users[["id", "updated_at"]].rename(columns={"id": "user_id"})
    rows["name"] = users["name"].str.strip().replace("", None)
    rows["email"] = users["email"].str.strip().str.lower().replace("", None)
    rows["city"] = users["address.city"].str.strip().replace("", None)
    return rows, {
        ("email", "has no @"): rows["email"].notna() & ~rows["email"].str.contains("@", regex=False, na=False)
    }


def table(metadata: "sa.MetaData") -> "sa.Table":
    """The table `users`. Its primary key is the natural key; the warehouse adds `ingested_at` and `load_date`."""
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
    """The raw files of a day."""

    dataset = USERS


@requires(ExtractUsers)
class TransformUsers(Transform):
    """The clean files of a day."""

    dataset = USERS


@requires(TransformUsers)
class LoadUsers(Load):
    """The rows of a day in the warehouse, and the marker that says so."""

    dataset = USERS


class BackfillUsers(RangeDaily):
    """LoadUsers for every day from `start` to `stop`, which is exclusive."""

    of = luigi.TaskParameter(default=LoadUsers, description="the task of each day")
