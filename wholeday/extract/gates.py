"""The gates between a source and the warehouse, judged once: when a day has been read, and before it exists.

Owns what a day is compared with, and what is said of it. Refuses nothing itself: whoever reads the day fails it by
the first verdict that it did not pass, or lets it through where that was asked for, and keeps all of them.
"""

import datetime as dt
import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from wholeday.config.settings import SNAPSHOT, Pipeline, Source
from wholeday.errors import FolderError
from wholeday.load.warehouse import SOURCE_GATE, KnownSource
from wholeday.log import count, logger
from wholeday.schema.records import Census, hash_keys
from wholeday.storage.lines import unpack
from wholeday.storage.targets import DayFolder, Part, Presence, Verdict, list_days
from wholeday.tasks.dataset import Dataset

if TYPE_CHECKING:
    import pandas as pd

    from wholeday.schema.records import Keys
    from wholeday.transform.rows import Reject

MEDIAN_OF = 7  # days
MEDIAN_FROM = 3  # days; fewer say nothing of what is usual
NOISE = 3  # standard deviations of a number of independent events, which is its square root
FIELDS_FROM = 30  # records; fewer say nothing of how often a field is missing
CHANCE = 0.001
FEW_DELETIONS = 5  # fewer in a day's records are no accident, however few users are known


class Manifest(msgspec.Struct):
    """What is asked of the manifest of a day that was read before."""

    mode: str
    as_of: dt.datetime
    records: int
    parts: list[Part]


class Earlier(NamedTuple):
    """A day that was read before."""

    folder: DayFolder
    manifest: Manifest


class Known(Protocol):
    """The users that the warehouse knows."""

    def count(self) -> int: ...
    def read_keys(self) -> Iterable[tuple[Any, ...]]: ...


def judge(
    date: dt.date,
    settings: Source,
    census: Census,
    as_of: dt.datetime,
    known: Known,
    count_cleaned: Callable[[], Census],
) -> list[Verdict]:
    """Judge `date`, all of whose records are in `census`, by the gates of a dataset's section.

    The day is compared with the dataset's other days in raw, of the same mode, and with the `known` users. A day whose
    manifest cannot be read is left out. `count_cleaned` counts the keys of the same records after `clean`; it is
    called only if a snapshot seems to lack too many users. A gate at 1, or with nothing to compare with, gives no
    verdict. Raises FolderError, WarehouseError.
    """
    before = _list_earlier(date, settings, as_of)
    if settings.mode == SNAPSHOT:
        gone = _judge_vanished(settings, census, before, known, count_cleaned)
    else:
        gone = _judge_deletions(settings, census, known.count)
    verdicts = [_judge_number(settings, census), _judge_drop(settings, census, before), gone]
    return [verdict for verdict in verdicts if verdict]


def judge_source(source: str, known: KnownSource | None) -> Verdict | None:
    """Judge whether the table that holds the source `known` may take records of `source`; None if it may."""
    refusal = known.refuse(source) if known else None
    if not known or not refusal:
        return None
    return Verdict(gate=SOURCE_GATE, value=1, limit=0, reference=known.source, passed=False, description=refusal)


def _list_earlier(date: dt.date, settings: Source, as_of: dt.datetime) -> list[Earlier]:
    """The days to compare with, nearest first: snapshots by when they were read, else the few days before `date`."""
    data_dir = Pipeline().data_dir

    def read() -> Iterator[Earlier]:
        for day in list_days(data_dir, "raw", settings.section):
            if day < date or (day > date and settings.mode == SNAPSHOT):
                folder = DayFolder(data_dir, "raw", settings.section, day)
                try:
                    manifest = folder.read_manifest(Manifest) if folder.exists() else None
                except FolderError as error:
                    logger.warning("%s: the day %s is not compared with: %s", settings.section, day, error)
                    continue
                if manifest and manifest.mode == settings.mode:
                    yield Earlier(folder, manifest)

    if settings.mode != SNAPSHOT:
        return list(islice(read(), MEDIAN_OF))
    snapshots = [earlier for earlier in read() if earlier.manifest.as_of < as_of]
    return sorted(snapshots, key=lambda earlier: earlier.manifest.as_of, reverse=True)


def _judge_number(settings: Source, census: Census) -> Verdict:
    """`min_records`: a snapshot of nobody is none, unless the key says so."""
    least = settings.min_records if settings.min_records is not None else int(settings.mode == SNAPSHOT)
    fact = f"{count(census.records, 'record')} came"
    return _decide("min_records", census.records, least, None, fact, passed=census.records >= least)


def _judge_drop(settings: Source, census: Census, before: Sequence[Earlier]) -> Verdict | None:
    """`max_drop_ratio`: how far the number of records lies below what is usual.

    A few changes a day are noise: where 9 are usual, a day without any is no accident. So a day fails only where
    it lies further below the median than chance would take it.
    """
    nearest = before[:MEDIAN_OF]
    if settings.max_drop_ratio == 1 or len(nearest) < MEDIAN_FROM:
        return None
    median = statistics.median(earlier.manifest.records for earlier in nearest)
    drop = max(0.0, (median - census.records) / median) if median else 0.0
    usual = median - census.records <= NOISE * math.sqrt(median)
    days = ", ".join(str(earlier.folder.date) for earlier in nearest)
    fact = f"{count(census.records, 'record')} came, and {median:,g} is the median of those before ({days})"
    limit = settings.max_drop_ratio
    return _decide("max_drop_ratio", drop, limit, median, fact, passed=drop <= limit or usual)


def _judge_vanished(
    settings: Source,
    census: Census,
    before: Sequence[Earlier],
    known: Known,
    count_cleaned: Callable[[], Census],
) -> Verdict | None:
    """Judge a snapshot by `max_delete_ratio`: the share of the known users whom it does not list.

    The table has the keys after `clean`, and the census those before. Where they are the same, as they usually are,
    nothing needs cleaning. Rejected records list their users, as the load takes these for neither present nor absent.
    """
    limit = settings.max_delete_ratio
    if limit == 1 or not census.key:
        return None
    keys = hash_keys(known.read_keys())
    if not len(keys):
        return _judge_by_snapshot(settings, census, before)
    missing = _count_missing(keys, census)
    if missing / len(keys) > limit:
        missing = _count_missing(keys, count_cleaned())
    share = missing / len(keys)
    fact = f"{missing:,} of {count(len(keys), 'user')} in the warehouse are missing"
    return _decide("max_delete_ratio", share, limit, len(keys), fact, passed=share <= limit)


def _count_missing(keys: "Keys", census: Census) -> int:
    """How many of these distinct keys are not present in a census."""
    import numpy as np

    return len(keys) - int(np.isin(keys, census.present_keys(), assume_unique=True).sum())


def count_cleaned(dataset: Dataset, folder: DayFolder, parts: Iterable[Part]) -> Census:
    """Count the keys that rows and rejects of raw parts have after `clean`. Raises DatasetError, FolderError."""
    import sqlalchemy as sa

    from wholeday.transform.rows import transform

    key = [column.name for column in dataset.table(sa.MetaData()).primary_key]
    settings, census = dataset.config(), Census()
    rules = settings.deleted_when, settings.timezone
    for part in parts:
        add_cleaned(
            census, *transform(unpack(folder.read(part)), dataset.record_class, dataset.clean, key, *rules), key
        )
    return census


def add_cleaned(census: Census, rows: "pd.DataFrame", rejects: Sequence["Reject"], key: list[str]) -> None:
    """Add the keys of rows and rejects to a census; a row says more of its user than a reject."""
    import pyarrow as pa

    refused = [json.loads(reject.key) for reject in rejects if reject.key]
    census.add_keys(hash_keys(refused).tolist(), [False] * len(refused))
    columns = pa.Table.from_pandas(rows[key], preserve_index=False).columns
    gone = rows["deleted"].tolist() if "deleted" in rows else [False] * len(rows)
    census.add_keys(hash_keys(zip(*(column.to_pylist() for column in columns), strict=True)).tolist(), gone)


def _judge_by_snapshot(settings: Source, census: Census, before: Sequence[Earlier]) -> Verdict | None:
    """Judge a snapshot, if the warehouse knows nobody, by the share of the keys of the one read before that it lacks.

    A snapshot whose parts are damaged or missing is passed over with a warning, and the one before it compared with:
    today's cannot be read again tomorrow, and must not be lost for an old file; the gate stays shut all the same.
    """
    for earlier in before:
        try:
            keys = _read_keys(earlier, census)
        except FolderError as error:
            logger.warning(
                "%s: the snapshot of %s is not compared with: %s", settings.section, earlier.folder.date, error
            )
            continue
        if not len(keys):
            return None
        missing = _count_missing(keys, census)
        share, date = missing / len(keys), str(earlier.folder.date)
        fact = f"{missing:,} of {count(len(keys), 'key')} of the snapshot read before ({date}) are missing"
        limit = settings.max_delete_ratio
        return _decide("max_delete_ratio", share, limit, date, fact, passed=share <= limit)
    if before:
        fact = f"of the {count(len(before), 'snapshot')} read before none can be read again"
        return _decide("max_delete_ratio", 1.0, settings.max_delete_ratio, None, fact, passed=False)
    return None


def _read_keys(earlier: Earlier, census: Census) -> "Keys":
    """The keys that are present in a snapshot, read again part by part."""
    again = Census(None, census.key, census.deleted_when)
    for part in earlier.manifest.parts:
        again.add(unpack(earlier.folder.read(part)))
    return again.present_keys()


def _judge_deletions(settings: Source, census: Census, count_known: Callable[[], int]) -> Verdict | None:
    """`max_delete_ratio` of records: how many keys they delete, as a share of the users that the warehouse knows.

    Whether it knows these very users is not asked: a source that names some again is let through by hand.
    """
    if settings.max_delete_ratio == 1 or not census.deleted or not (known := count_known()):
        return None
    share, limit = census.deleted / known, settings.max_delete_ratio
    fact = f"{count(census.deleted, 'key')} came as deleted, and {known:,} are known"
    passed = share <= limit or census.deleted < FEW_DELETIONS
    return _decide("max_delete_ratio", share, limit, known, fact, passed=passed)


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


def find_absent(dataset: Dataset, date: dt.date, fields: Mapping[str, Presence]) -> list[Absent]:
    """Find the fields that records of the seven cleaned days before `date` usually had, and that none of it has.

    `fields` counts the records of the day. Chance must not explain it, by the share of the records before that lack
    the field. It takes three days to fail a day, or a field that each record before had.
    """
    lacking = {name: found.records for name, found in fields.items() if found.records and not found.present}
    if not lacking:
        return []
    before = list(islice(_read_cleaned(dataset, date), MEDIAN_OF))
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


def _read_cleaned(dataset: Dataset, date: dt.date) -> Iterator[Cleaned]:
    """The cleaned days before `date`, the nearest first."""
    data_dir = Pipeline().data_dir
    for day in list_days(data_dir, "clean", dataset.name):
        folder = DayFolder(data_dir, "clean", dataset.name, day)
        if day < date and folder.exists():
            try:
                yield folder.read_manifest(Cleaned)
            except FolderError as error:
                logger.warning("%s: the day %s is not compared with: %s", dataset.name, day, error)


def list_new_fields(dataset: Dataset, date: dt.date, unknown: Iterable[str]) -> list[str]:
    """Those of the `unknown` fields of a day that no day shortly before it had."""
    data_dir, known = Pipeline().data_dir, set[str]()
    before = (day for day in list_days(data_dir, "raw", dataset.name) if day < date)
    for day in islice(before, MEDIAN_OF):
        folder = DayFolder(data_dir, "raw", dataset.name, day)
        with suppress(FolderError):  # it only narrows a hint
            known.update(folder.read_manifest(Unknown).unknown_fields)
    return [name for name in unknown if name not in known]


class Unknown(msgspec.Struct):
    """The fields of a day that the record class does not name."""

    unknown_fields: list[str]


def _decide(
    gate: str, value: float, limit: float, reference: str | float | None, fact: str, *, passed: bool
) -> Verdict:
    """A verdict with its line: what came, what it was compared with, and the limit."""
    line = f"{fact}; {gate} is {limit:g}"
    return Verdict(gate=gate, value=value, limit=limit, reference=reference, passed=passed, description=line)
