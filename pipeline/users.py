"""Define the dataset `users`: its record class and its tasks."""

from datetime import datetime

from wholeday import Backfill, Dataset, Extract, Field, Load, Record, Transform


class User(Record):
    """A user of the API."""

    user_id: int = Field("id", primary_key=True, ge=1)
    name: str | None = Field(strip_whitespace=True)
    email: str | None = Field(strip_whitespace=True, to_lower=True, pattern="@")
    city: str | None = Field("address.city", strip_whitespace=True)
    updated_at: datetime | None


USERS = Dataset("users", User)


class ExtractUsers(Extract, dataset=USERS):
    """The raw files of a day."""


class TransformUsers(Transform, dataset=USERS):
    """The clean files of a day."""


class LoadUsers(Load, dataset=USERS):
    """The rows and the marker of a day."""


class BackfillUsers(Backfill, dataset=USERS):
    """LoadUsers for a range of days."""
