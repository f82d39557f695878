"""Judge the fields of a day: the quality gate `fields`."""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from wholeday.errors import FolderError
from wholeday.log import count, logger
from wholeday.storage.day_folder import DayFolder, list_days
from wholeday.storage.manifest import MEDIAN_FROM, MEDIAN_OF, Presence

if TYPE_CHECKING:
    pass
from wholeday.storage.workspace import Workspace

FIELDS_FROM = 30  # records; fewer say nothing of how often a field is missing


CHANCE = 0.001


class Absent(NamedTuple):
    """A field that no record of a day has, and that `had` of the `records` of so many `days` before had."""

    field: str
    had: int
    records: int
    days: int
    is_proven: bool
    """Whether it fails the day."""

    def __str__(self) -> str:
        before = "the day" if self.days == 1 else f"the {self.days} days"
        return f"{self.field} (in {self.had:,} of {count(self.records, 'record')} of {before} before)"


class Cleaned(msgspec.Struct):
    """What is asked of the manifest of a day that was cleaned before."""

    fields: dict[str, Presence] = {}


def find_absent(workspace: Workspace, date: dt.date, fields: Mapping[str, Presence]) -> list[Absent]:
    """Find the fields that records of the seven cleaned days before `date` usually had, and that none of it has.

    `fields` counts the records of the day. Chance must not explain it, by the share of the records before that lack
    the field. It takes three days to fail a day, or a field that each record before had.
    """
    lacking = {name: found.records for name, found in fields.items() if found.records and not found.present}
    if not lacking:
        return []
    before = list(islice(_read_cleaned(workspace, date), MEDIAN_OF))
    found = []
    for name, number in lacking.items():
        days = [day.fields[name] for day in before if name in day.fields and day.fields[name].records]
        records, had = sum(day.records for day in days), sum(day.present for day in days)
        # By the rule of succession: where all of 30 records had it, the next one may lack it all the same.
        lack = (records - had + 1) / (records + 2)
        usual = 2 * sum(day.present > 0 for day in days) > len(days)
        if usual and records >= FIELDS_FROM and lack**number < CHANCE:
            found.append(Absent(name, had, records, len(days), len(days) >= MEDIAN_FROM or had == records))
    return found


def _read_cleaned(workspace: Workspace, date: dt.date) -> Iterator[Cleaned]:
    """The cleaned days before `date`, the nearest first."""
    data_dir = workspace.history_dir
    for day in list_days(data_dir, "clean", workspace.name):
        folder = DayFolder(data_dir, "clean", workspace.name, day)
        if day < date and folder.exists():
            try:
                yield folder.read_manifest(Cleaned)
            except FolderError as error:
                logger.warning("%s: the day %s is not compared with: %s", workspace.name, day, error)


def list_new_fields(workspace: Workspace, date: dt.date, unknown: Iterable[str]) -> list[str]:
    """Those of the `unknown` fields of a day that no day shortly before it had."""
    data_dir, known = workspace.history_dir, set[str]()
    before = (day for day in list_days(data_dir, "raw", workspace.name) if day < date)
    for day in islice(before, MEDIAN_OF):
        folder = DayFolder(data_dir, "raw", workspace.name, day)
        with suppress(FolderError):  # it only narrows a hint
            known.update(folder.read_manifest(Unknown).unknown_fields)
    return [name for name in unknown if name not in known]


class Unknown(msgspec.Struct):
    """The fields of a day that the record class does not name."""

    unknown_fields: list[str]
