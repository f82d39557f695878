"""Define a dataset `users` whose users have lists: with a key, and one within it."""

from datetime import datetime

from wholeday import Dataset, Extract, Field, Load, Record, Transform


class Line(Record):
    text: str


class Address(Record):
    kind: str = Field(primary_key=True)
    city: str | None
    lines: list[Line] | None


class Person(Record):
    user_id: int = Field("id", primary_key=True, ge=1)
    name: str | None
    email: str | None = Field(pattern="@")
    city: str | None = Field("address.city")
    addresses: list[Address] | None
    updated_at: datetime | None


PEOPLE = Dataset("users", Person)


class ExtractPeople(Extract, dataset=PEOPLE):
    pass


class TransformPeople(Transform, dataset=PEOPLE):
    pass


class LoadPeople(Load, dataset=PEOPLE):
    pass
