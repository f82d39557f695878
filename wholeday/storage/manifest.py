"""Describe the files of a day: the manifest of the raw folder and the manifest of the clean folder."""

import datetime as dt
import hashlib
from collections.abc import Iterable

import msgspec

from wholeday.storage.names import strip_run

MEDIAN_OF = 7  # earlier days that a quality gate compares a day with
MEDIAN_FROM = 3  # days; fewer do not show what is usual


class Part(msgspec.Struct, frozen=True):
    """A file of a day: its name, the records or rows in it, its size in bytes and its sha256."""

    name: str
    records: int
    bytes: int
    sha256: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate (`gate` is its key) said of a day when it was read: `value` is what is held against the `limit`.

    `reference` is what the day was compared with: the date of a snapshot, a median, a number of users.
    """

    gate: str
    value: float
    limit: float
    reference: str | float | None
    passed: bool
    description: str

    def __str__(self) -> str:
        return self.description


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """That forgotten lines were taken out of a day: how many, its digest before, and the parts that were replaced."""

    lines: int
    sha256: str
    parts: list[Part]


class RawManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What was read of a source for a day. Times are UTC; up to `as_of` the source's answer is complete."""

    dataset: str
    date: dt.date
    mode: str
    window_start: dt.datetime
    window_stop: dt.datetime
    watermark: dt.datetime | None
    url: str
    source: str | None = None
    """The name of the source, as `auth.name_source` gives it; None in manifests of older versions."""
    paginator: str
    started_at: dt.datetime
    extracted_at: dt.datetime
    as_of: dt.datetime
    pages: int
    records: int
    keys: int
    """Distinct ones; a record whose key cannot be read counts as one of its own."""
    declared: int | None
    """How many records there are, by the source's own word."""
    unknown_fields: list[str]
    gates: list[Verdict]
    parts: list[Part]
    forgotten: int = 0
    """How many of the records are no longer in the parts."""
    erasures: list[Erasure] = []

    @property
    def sha256(self) -> str:
        """That of all its files, as a marker has it."""
        return digest(self.parts)


class Presence(msgspec.Struct, frozen=True):
    """Of so many `records` that could have a field, `present` have it, and not null."""

    records: int
    present: int


class CleanManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a raw day: the parts it came from, the code that read them, rows, and rejects by reason."""

    dataset: str
    date: dt.date
    raw_sha256: list[str]
    transform_version: str
    rows: int
    rejected: int
    reasons: dict[str, int]
    accepted: list[str]
    """The gates that did not pass, and were let through."""
    parts: list[Part]
    rejects: list[Part]
    erasures: list[Erasure] = []
    """Of rows and rejects, since the day was cleaned."""
    fields: dict[str, Presence] = {}
    """How often each field of the record class, and of `deleted_when`, came. Empty if an older version wrote it."""
    absent: dict[str, int] = {}
    """Fields that no record has though they usually come, and how many records could have them."""

    @property
    def sha256(self) -> str:
        """That of all its files, as a marker has it."""
        return digest([*self.parts, *self.rejects])


def digest(parts: Iterable[Part]) -> str:
    """One sha256 for the parts of a day, in their order: that of `sha256sum part-*`'s output in a folder."""
    lines = "".join(f"{part.sha256}  {strip_run(part.name)}\n" for part in parts)
    return hashlib.sha256(lines.encode()).hexdigest()
