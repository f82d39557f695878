"""Find the usual fields that no record of a day has: the quality gate `fields`.

Responsibilities: compare the fields of a day with the days before.
Non-goals: failing the day (`transform_day`), and counting fields (`rows`).
"""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

import msgspec

from wholeday.errors import FolderError
from wholeday.log import count, logger
from wholeday.storage.day_folder import DayFolder, list_days
from wholeday.storage.manifest import MEDIAN_FROM, MEDIAN_OF, Presence
from wholeday.storage.workspace import Workspace

FIELDS_FROM = 30  # records that the gate needs: fewer do not show how often a field is missing
CHANCE = 0.001  # the probability below which chance does not explain an absent field


class Absent(NamedTuple):
    """A field that no record of a day has, and that `had` of the `records` of the `days` before had."""

    field: str
    had: int
    records: int
    days: int
    is_proven: bool
    """Whether the evidence is enough to fail the day."""

    def __str__(self) -> str:
        before = "the day" if self.days == 1 else f"the {self.days} days"
        return f"{self.field} (in {self.had:,} of {count(self.records, 'record')} of {before} before)"


class Fields(msgspec.Struct):
    """The part of a clean manifest that the gate needs of an earlier day."""

    fields: dict[str, Presence] = {}


def find_absent(workspace: Workspace, date: dt.date, fields: Mapping[str, Presence]) -> list[Absent]:
    """Find the fields that records usually had in the seven transformed days before `date`, and now none has.

    `fields` counts the records of `date`. A field is absent if chance does not explain it, judged by the share of
    earlier records without the field. To fail the day, the gate needs three earlier days, or a field that every earlier
    record had.
    """
    lacking = {name: found.records for name, found in fields.items() if found.records and not found.present}
    if not lacking:
        return []
    before = list(islice(_read_earlier(workspace, date), MEDIAN_OF))
    found = []
    for name, number in lacking.items():
        days = [day.fields[name] for day in before if name in day.fields and day.fields[name].records]
        records, had = sum(day.records for day in days), sum(day.present for day in days)
        # The rule of succession: even if all of 30 records had the field, the next record may lack it.
        lack = (records - had + 1) / (records + 2)
        usual = 2 * sum(day.present > 0 for day in days) > len(days)
        if usual and records >= FIELDS_FROM and lack**number < CHANCE:
            found.append(Absent(name, had, records, len(days), len(days) >= MEDIAN_FROM or had == records))
    return found


def _read_earlier(workspace: Workspace, date: dt.date) -> Iterator[Fields]:
    """Read the manifests of the clean days before `date`, nearest first."""
    data_dir = workspace.history_dir
    for day in list_days(data_dir, "clean", workspace.name):
        folder = DayFolder(data_dir, "clean", workspace.name, day)
        if day < date and folder.exists():
            try:
                yield folder.read_manifest(Fields)
            except FolderError as error:
                logger.warning("%s: cannot compare with the day %s: %s", workspace.name, day, error)


def list_new_fields(workspace: Workspace, date: dt.date, unknown: Iterable[str]) -> list[str]:
    """List the `unknown` fields of a day that none of the seven raw days before had."""
    data_dir, known = workspace.history_dir, set[str]()
    before = (day for day in list_days(data_dir, "raw", workspace.name) if day < date)
    for day in islice(before, MEDIAN_OF):
        folder = DayFolder(data_dir, "raw", workspace.name, day)
        with suppress(FolderError):  # an unreadable day only makes the hint longer
            known.update(folder.read_manifest(Unknown).unknown_fields)
    return [name for name in unknown if name not in known]


class Unknown(msgspec.Struct):
    """The part of a raw manifest that names the fields without a column."""

    unknown_fields: list[str]
