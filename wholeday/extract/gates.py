"""Judge an extracted day by the quality gates of its section, before the day exists.

Responsibilities: compare a day with earlier days and with the users of the warehouse.
Non-goals: failing the day (`extract_day`), and the gates of transform (`fields`, `max_reject_ratio`).
"""

import datetime as dt
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from wholeday.config.days import SNAPSHOT
from wholeday.config.source import Source
from wholeday.errors import FolderError
from wholeday.log import count, logger
from wholeday.schema.census import Census, hash_keys
from wholeday.schema.columns import PARENT
from wholeday.storage.day_folder import DayFolder, list_days
from wholeday.storage.known_source import SOURCE_GATE, KnownSource
from wholeday.storage.lines import unpack
from wholeday.storage.manifest import MEDIAN_FROM, MEDIAN_OF, Part, Verdict
from wholeday.storage.parents import add_parents, read_runs

if TYPE_CHECKING:
    from wholeday.schema.raw_fields import Keys

OF_PARENT = f"{PARENT}."  # begins the path of a column of the parent
NOISE = 3  # standard deviations; for a number of independent events, one is the square root of the number
FEW_DELETIONS = 5  # fewer deletions never fail a day, however few users are known


class Manifest(msgspec.Struct):
    """The part of a raw manifest that the gates need of an earlier day."""

    mode: str
    as_of: dt.datetime
    records: int
    parts: list[Part]
    parents: Part | None = None


@dataclass(frozen=True)
class Earlier:
    """A day that was extracted before."""

    folder: DayFolder
    manifest: Manifest


class Known(Protocol):
    """Answer the questions of the gates about the warehouse."""

    def read_known_source(self) -> KnownSource | None: ...
    def watermark_before(self, date: dt.date) -> dt.datetime | None: ...
    def count(self) -> int: ...
    def read_keys(self) -> Iterable[tuple[Any, ...]]: ...


def judge(
    data_dir: str,
    date: dt.date,
    settings: Source,
    census: Census,
    as_of: dt.datetime,
    known: Known,
    count_cleaned: Callable[[], Census],
) -> list[Verdict]:
    """Judge the records of `date`, counted in `census`, by the gates of the section.

    The gates compare the day with the raw days of the same mode, and with the `known` users. They skip a day whose
    manifest is unreadable. `count_cleaned` counts the keys of the same records after `clean`. It is called only if a
    snapshot seems to lack too many users. A ratio of 1 switches a gate off, and a gate with nothing to compare gives no
    verdict. Raises FolderError, WarehouseError.
    """
    before = _list_earlier(data_dir, date, settings, as_of)
    if settings.mode == SNAPSHOT:
        missing = _judge_vanished(settings, census, before, known, count_cleaned)
    else:
        missing = _judge_deletions(settings, census, known.count)
    verdicts = [_judge_number(settings, census), _judge_drop(settings, census, before), missing]
    return [verdict for verdict in verdicts if verdict]


def judge_source(source: str, known: KnownSource | None) -> Verdict | None:
    """Return the failed verdict of the gate `source`; None if the table may take records of `source`."""
    refusal = known.refuse(source) if known else None
    if not known or not refusal:
        return None
    return Verdict(gate=SOURCE_GATE, value=1, limit=0, reference=known.source, passed=False, description=refusal)


def _list_earlier(data_dir: str, date: dt.date, settings: Source, as_of: dt.datetime) -> list[Earlier]:
    """List the days to compare with, nearest first: snapshots by their time, else the few days before `date`."""

    def read() -> Iterator[Earlier]:
        for day in list_days(data_dir, "raw", settings.section):
            if day < date or (day > date and settings.mode == SNAPSHOT):
                folder = DayFolder(data_dir, "raw", settings.section, day)
                try:
                    manifest = folder.read_manifest(Manifest) if folder.exists() else None
                except FolderError as error:
                    logger.warning("%s: cannot compare with the day %s: %s", settings.section, day, error)
                    continue
                if manifest and manifest.mode == settings.mode:
                    yield Earlier(folder, manifest)

    if settings.mode != SNAPSHOT:
        return list(islice(read(), MEDIAN_OF))
    snapshots = [earlier for earlier in read() if earlier.manifest.as_of < as_of]
    return sorted(snapshots, key=lambda earlier: earlier.manifest.as_of, reverse=True)


def _judge_number(settings: Source, census: Census) -> Verdict:
    """Judge the number of records by `min_records`. An empty snapshot fails, unless the key allows it."""
    number, least = census.records, settings.min_records
    least = int(settings.mode == SNAPSHOT) if least is None else least
    fact = f"{count(number, 'record')} came"
    return _build_verdict("min_records", number, least, None, fact, passed=number >= least)


def _judge_drop(settings: Source, census: Census, before: Sequence[Earlier]) -> Verdict | None:
    """Judge by `max_drop_ratio` how far the number of records is below the median of the days before.

    Small numbers vary by chance: if 9 records are usual, a day without any proves nothing. So a day fails only if
    chance does not explain the drop.
    """
    nearest = before[:MEDIAN_OF]
    if settings.max_drop_ratio == 1 or len(nearest) < MEDIAN_FROM:
        return None
    median = statistics.median(earlier.manifest.records for earlier in nearest)
    drop = max(0.0, (median - census.records) / median) if median else 0.0
    is_usual = median - census.records <= NOISE * math.sqrt(median)
    days = ", ".join(str(earlier.folder.date) for earlier in nearest)
    fact = f"{count(census.records, 'record')} came, and the median of the days before is {median:,g} ({days})"
    passed = drop <= settings.max_drop_ratio or is_usual
    return _build_verdict("max_drop_ratio", drop, settings.max_drop_ratio, median, fact, passed=passed)


def _judge_vanished(
    settings: Source, census: Census, before: Sequence[Earlier], known: Known, count_cleaned: Callable[[], Census]
) -> Verdict | None:
    """Judge a snapshot by `max_delete_ratio`: the share of the known users that it does not list.

    The table holds keys after `clean`, the census holds keys before it. They are usually equal, so the records are
    cleaned only if too many users seem to be missing. A reject counts as present, as the load does not remove its user.
    """
    if settings.max_delete_ratio == 1 or not census.key:
        return None
    keys = hash_keys(known.read_keys())
    if not len(keys):
        return _judge_by_snapshot(settings, census, before)
    missing = _count_missing(keys, census)
    if missing / len(keys) > settings.max_delete_ratio:
        missing = _count_missing(keys, count_cleaned())
    fact = f"{missing:,} of {count(len(keys), 'user')} in the warehouse are missing"
    return _judge_share(settings, missing / len(keys), len(keys), fact)


def _count_missing(keys: "Keys", census: Census) -> int:
    """Count the distinct `keys` that are not present in a census."""
    import numpy as np

    return len(keys) - int(np.isin(keys, census.present_keys(), assume_unique=True).sum())


def _judge_by_snapshot(settings: Source, census: Census, before: Sequence[Earlier]) -> Verdict | None:
    """Judge a snapshot by the share of the keys of an earlier snapshot that it lacks, if the warehouse is empty.

    A snapshot with damaged or missing parts is skipped with a warning, and the one before it is used: today's snapshot
    cannot be fetched again tomorrow, and must not be lost because of an old file. If no snapshot is readable, the gate
    fails.
    """
    for earlier in before:
        try:
            keys = _read_keys(earlier, census)
        except FolderError as error:
            logger.warning(
                "%s: cannot compare with the snapshot of %s: %s", settings.section, earlier.folder.date, error
            )
            continue
        if not len(keys):
            return None
        missing = _count_missing(keys, census)
        date = str(earlier.folder.date)
        fact = f"{missing:,} of {count(len(keys), 'key')} of the earlier snapshot ({date}) are missing"
        return _judge_share(settings, missing / len(keys), date, fact)
    if before:
        return _judge_share(settings, 1.0, None, f"{count(len(before), 'earlier snapshot')} found, none readable")
    return None


def _read_keys(earlier: Earlier, census: Census) -> "Keys":
    """Read the keys that are present in an earlier snapshot, part by part."""
    census_before = Census(census.key, census.deleted_when)
    names = [reader.path.removeprefix(OF_PARENT) for reader in census.key if reader.path.startswith(OF_PARENT)]
    runs = read_runs(earlier.folder, earlier.manifest) if names else [()] * len(earlier.manifest.parts)
    for part, runs_of_part in zip(earlier.manifest.parts, runs, strict=True):
        census_before.add(add_parents(unpack(earlier.folder.read(part)), runs_of_part, names))
    return census_before.present_keys()


def _judge_deletions(settings: Source, census: Census, count_known: Callable[[], int]) -> Verdict | None:
    """Judge the deletions of an incremental day by `max_delete_ratio`: their share of the known users.

    The deleted keys need not be known users: a person lets a source that repeats old deletions through.
    """
    if settings.max_delete_ratio == 1 or not census.deleted or not (known := count_known()):
        return None
    fact = f"{count(census.deleted, 'key')} came as deleted, and the warehouse has {count(known, 'user')}"
    return _judge_share(settings, census.deleted / known, known, fact, is_small=census.deleted < FEW_DELETIONS)


def _judge_share(
    settings: Source, share: float, reference: str | int | None, fact: str, *, is_small: bool = False
) -> Verdict:
    """Judge a share of deleted or missing users by `max_delete_ratio`."""
    limit = settings.max_delete_ratio
    return _build_verdict("max_delete_ratio", share, limit, reference, fact, passed=share <= limit or is_small)


def _build_verdict(
    gate: str, value: float, limit: float, reference: str | float | None, fact: str, *, passed: bool
) -> Verdict:
    """Build a verdict and its line: the fact, then the limit."""
    line = f"{fact}; {gate} is {limit:g}"
    return Verdict(gate=gate, value=value, limit=limit, reference=reference, passed=passed, description=line)
