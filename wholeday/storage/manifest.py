"""Define the manifests of a day: one for the raw folder, one for the clean folder.

Responsibilities: the content of a manifest, and the digest of the parts that it names.
Non-goals: where a manifest lies and when it is written (`day_folder`).
"""

import datetime as dt
import hashlib
from collections.abc import Iterable

import msgspec

from wholeday.storage.names import strip_run

MEDIAN_OF = 7  # earlier days that a quality gate compares a day with
MEDIAN_FROM = 3  # earlier days that a gate needs: fewer do not show the usual number


class Part(msgspec.Struct, frozen=True):
    """A file of a day: its name, the records or rows in it, its size in bytes and its sha256."""

    name: str
    records: int
    bytes: int
    sha256: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a quality gate for an extracted day. `gate` is its key in luigi.cfg.

    The gate compares `value` with `limit`. `reference` is what the value was compared with: the date of a snapshot, a
    median, or a number of users.
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
    """The removal of lines by `forget`: their number, the day's digest before it, and the replaced parts."""

    lines: int
    sha256: str
    parts: list[Part]


class RawManifest(msgspec.Struct, frozen=True, kw_only=True):
    """A record of the extraction of a day. Times are UTC. The source's answer is complete up to `as_of`."""

    dataset: str
    date: dt.date
    mode: str
    window_start: dt.datetime
    window_stop: dt.datetime
    watermark: dt.datetime | None
    url: str
    source: str | None = None
    """The name of the source (see `auth.name_source`). None in manifests of older versions."""
    paginator: str
    started_at: dt.datetime
    extracted_at: dt.datetime
    as_of: dt.datetime
    pages: int
    records: int
    keys: int
    """The number of distinct keys. Each record without a readable key counts as one."""
    declared: int | None
    """The total that the source declares."""
    unknown_fields: list[str]
    gates: list[Verdict]
    parts: list[Part]
    parents: Part | None = None
    """The list of the parents that were asked (see `parents`); None if the dataset has no parents."""
    forgotten: int = 0
    """The number of records that `forget` removed from the parts."""
    erasures: list[Erasure] = []

    @property
    def sha256(self) -> str:
        """Return the digest of all files, as the marker stores it."""
        return digest(self.files)

    @property
    def hashes(self) -> list[str]:
        """The sha256 of each file."""
        return [part.sha256 for part in self.files]

    @property
    def files(self) -> list[Part]:
        """List the files of the day: the parts, and the list of parents."""
        return [*self.parts, *([self.parents] if self.parents else [])]


class Presence(msgspec.Struct, frozen=True):
    """How often a field is present: in `present` of the `records` that could have it, with a value other than null."""

    records: int
    present: int


class CleanManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a raw day was transformed to: its rows, and its rejects by reason. `raw_sha256` names the raw files."""

    dataset: str
    date: dt.date
    raw_sha256: list[str]
    transform_version: str
    rows: int
    rejected: int
    reasons: dict[str, int]
    accepted: list[str]
    """The failed quality gates that were let through."""
    parts: list[Part]
    rejects: list[Part]
    erasures: list[Erasure] = []
    """The removals of rows and rejects since the day was transformed."""
    fields: dict[str, Presence] = {}
    """The presence of each field of the record class and of `deleted_when`. Empty in manifests of older versions."""
    absent: dict[str, int] = {}
    """The usual fields that no record has, each with the number of records that could have it."""

    @property
    def sha256(self) -> str:
        """Return the digest of all parts, as the marker stores it."""
        return digest([*self.parts, *self.rejects])


def digest(parts: Iterable[Part]) -> str:
    """Digest the parts of a day, in their order: the sha256 of the output of `sha256sum part-*`."""
    lines = "".join(f"{part.sha256}  {strip_run(part.name)}\n" for part in parts)
    return hashlib.sha256(lines.encode()).hexdigest()
