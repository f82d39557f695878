"""A rejected record, in the files and in the table `rejects`."""

import datetime as dt

import msgspec


class Reject(msgspec.Struct, frozen=True, kw_only=True):
    """A record that became no row, and its reason. As JSON, a line of `rejects-*.jsonl.gz`.

    `transform` knows one part and leaves `date` and `part` to its caller.
    """

    date: dt.date | None = None
    part: int = 0
    line: int
    """The line in the raw part, from 1."""
    reason: str
    field: str | None
    """A dotted path in the record, or a column."""
    key: str | None
    """The primary key as a JSON array, if it is readable."""
    record: str
    """The record as the source sent it."""

    def describe(self) -> str:
        """Return field and reason as one text. Rejects are counted by it."""
        return f"{self.field}: {self.reason}" if self.field else self.reason
