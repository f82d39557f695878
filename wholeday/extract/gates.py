"""Judge a day that was extracted, before it exists: the quality gates of a section."""

import datetime as dt
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from wholeday.config.days import SNAPSHOT
from wholeday.config.source import Source
from wholeday.errors import FolderError
from wholeday.log import count, logger
from wholeday.schema.census import Census, hash_keys
from wholeday.storage.day_folder import DayFolder, list_days
from wholeday.storage.known_source import SOURCE_GATE, KnownSource
from wholeday.storage.lines import unpack
from wholeday.storage.manifest import MEDIAN_FROM, MEDIAN_OF, Part, Verdict

if TYPE_CHECKING:
    from wholeday.schema.raw_fields import Keys


NOISE = 3  # standard deviations of a number of independent events, which is its square root


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
    """The warehouse, as far as a day is compared with it."""

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
    """Judge `date`, all of whose records are in `census`, by the gates of a dataset's section.

    The day is compared with the dataset's other days in raw, of the same mode, and with the `known` users. A day whose
    manifest cannot be read is left out. `count_cleaned` counts the keys of the same records after `clean`; it is
    called only if a snapshot seems to lack too many users. A gate at 1, or with nothing to compare with, gives no
    verdict. Raises FolderError, WarehouseError.
    """
    before = _list_earlier(data_dir, date, settings, as_of)
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


def _list_earlier(data_dir: str, date: dt.date, settings: Source, as_of: dt.datetime) -> list[Earlier]:
    """The days to compare with, nearest first: snapshots by when they were read, else the few days before `date`."""

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


def _decide(
    gate: str, value: float, limit: float, reference: str | float | None, fact: str, *, passed: bool
) -> Verdict:
    """A verdict with its line: what came, what it was compared with, and the limit."""
    line = f"{fact}; {gate} is {limit:g}"
    return Verdict(gate=gate, value=value, limit=limit, reference=reference, passed=passed, description=line)
