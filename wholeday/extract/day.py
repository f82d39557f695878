"""Extract a day: read its records from the source into its raw folder. The day exists only if all records came.

Responsibilities: write parts, resume an interrupted extraction, judge the quality gates, publish the manifest.
Non-goals: how the source is read (`reader`), and how far a checkpoint reaches (`checkpoints`).
"""

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from wholeday import clock
from wholeday.config.days import SNAPSHOT
from wholeday.config.placeholders import find_placeholders
from wholeday.config.source import Source
from wholeday.errors import QualityError
from wholeday.extract import gates
from wholeday.extract.checkpoints import Checkpoints
from wholeday.extract.http.auth import name_source
from wholeday.extract.parents import Asking, check_parents, freeze
from wholeday.extract.position import MovedError
from wholeday.extract.reader import WrongSourceError
from wholeday.extract.series import ParentsReading
from wholeday.extract.windows import Listener, Reading
from wholeday.log import count, logger, set_load
from wholeday.schema.census import Census
from wholeday.storage.day_folder import DayFolder
from wholeday.storage.known_source import describe_ways_out
from wholeday.storage.manifest import Part, RawManifest, Verdict
from wholeday.storage.parents import PARENTS, Parent, pack_parents
from wholeday.storage.workspace import Workspace

# Keys that may change before an extraction is resumed: credentials, patience, what counts as the end or as an error.
PATIENCE = {
    *("auth", "token_file", "timeout", "retries", "max_wait", "concurrency", "requests_per_second"),
    *("source", "accept", "end_when", "ok_when", "missing_parent"),
}

CountCleaned = Callable[[DayFolder, Sequence[Part], Sequence[Parent]], Census]


class Follower(Protocol):
    """Works with the parts of a day while it is extracted."""

    def add(self, number: int, part: Part) -> None:
        """Take a finished part."""

    def restart(self) -> None:
        """Forget the parts: the extraction begins again."""

    def stop(self) -> None:
        """Hear that all parts are finished. The checks of the day need the memory now."""


def extract_day(
    workspace: Workspace,
    date: dt.date,
    known: gates.Known,
    count_cleaned: CountCleaned,
    *listeners: Listener,
    follower: Follower | None = None,
    asking: Asking | None = None,
) -> None:
    """Extract the records of `date` from the source into its raw folder.

    Each of `listeners` is called after each page, and `follower` takes each finished part. The quality gates compare
    the day with the warehouse (`known`). `count_cleaned` counts the keys of raw parts after `clean`. It is called only
    if a snapshot seems to lack too many users.

    An interrupted extraction resumes after its last stored page, if the source still sends that page. Stored pages are
    deleted only if the answers are proven wrong. `asking` knows the parents, if the source is asked for each of them.

    Raises DayNotClosedError, SourceError, QualityError, ConfigError, FolderError, DatasetError.
    """
    _ = workspace.dataset.declared  # no request for a dataset that cannot be loaded
    settings, folder = workspace.settings, workspace.folder("raw", date)
    started_at = clock.utc_now()
    settings.check_closed(date, started_at)
    _warn(settings, date, started_at)
    source = name_source(settings)
    another = gates.judge_source(source, known.read_known_source())
    verdicts = [another] if another else []
    # Before the first request: do not ask a source whose answer could not be used.
    _check_verdicts(workspace, date, verdicts, describe_ways_out(workspace.name))
    has_watermark = "watermark" in find_placeholders(settings) and asking is None  # each parent has one of its own
    watermark = known.watermark_before(date) if has_watermark else None
    request_digest = _digest_request(settings, workspace.pipeline.part_records, watermark)
    take = follower.add if follower and asking is None else None
    checkpoints = Checkpoints(folder, request_digest, started_at, settings.split, take)
    try:
        try:
            reading = _read(workspace, date, watermark, asking, checkpoints, *listeners)
        except MovedError as error:
            logger.info("%s: cannot resume the interrupted extraction; restarting", error)
            folder.clear()
            if follower:
                follower.restart()
            checkpoints = Checkpoints(folder, request_digest, started_at, settings.split, take)
            reading = _read(workspace, date, watermark, asking, checkpoints, *listeners)
        if follower:
            follower.stop()
        census = reading.take_census()
        if problem := census.explain_no_key():
            raise QualityError(f"{workspace.name} {date}: {problem}")
        if clock.is_future(checkpoints.started_at):
            raise QualityError(
                f"{workspace.name} {date}: the clock of this machine was set back during the extraction, which began "
                f"at {checkpoints.started_at:%Y-%m-%dT%H:%M:%SZ}. Correct the clock and run the day again"
            )
        as_of = checkpoints.started_at - settings.settle
        judged = reading.judge() + gates.judge(
            *(workspace.history_dir, date, settings, census, as_of, known),
            lambda: count_cleaned(folder, checkpoints.parts, reading.parents),
        )
        hint = f"find the cause, or let this run through with --{workspace.name}-accept"
        _check_verdicts(workspace, date, judged, hint)
    except (WrongSourceError, QualityError):
        folder.clear()  # no page of this extraction can be used again
        raise
    window = settings.window(date)
    manifest = RawManifest(
        dataset=workspace.name,
        date=date,
        mode=settings.mode,
        window_start=window.start,
        window_stop=window.stop,
        watermark=watermark,
        url=reading.url,
        source=source,
        paginator=reading.paginator,
        started_at=checkpoints.started_at,
        extracted_at=clock.utc_now(),
        as_of=as_of,
        pages=reading.pages,
        records=reading.records,
        keys=census.distinct,
        declared=reading.total,
        unknown_fields=census.unknown,
        gates=[*verdicts, *judged],
        parts=checkpoints.parts,
        parents=_write_parents(folder, reading),
    )
    folder.remove_checkpoints()
    folder.publish(manifest)
    repeated = manifest.records - manifest.keys
    logger.info(
        "%s %s: extracted %s, %s%s",
        *(workspace.name, date, count(reading.records, "record"), count(reading.pages, "page")),
        f", {count(repeated, 'record')} with a repeated key" if repeated else "",
    )
    if isinstance(reading, ParentsReading) and reading.missing:
        logger.warning("%s %s: %s", workspace.name, date, reading.describe_missing())


def _read(
    workspace: Workspace,
    date: dt.date,
    watermark: dt.datetime | None,
    asking: Asking | None,
    checkpoints: Checkpoints,
    *listeners: Listener,
) -> Reading | ParentsReading:
    """Read the source to its end into parts, from the checkpoints on."""
    settings, make_census = workspace.settings, workspace.conversion.make_census
    set_load(checkpoints.started_at - settings.settle)
    reading: Reading | ParentsReading
    if asking is None:
        reading = Reading(settings, date, watermark, make_census)
    else:
        check_parents(settings)
        parents = checkpoints.freeze_parents(lambda: freeze(settings, date, asking))
        reading = ParentsReading(settings, date, asking.name, parents, make_census)
    reading.read(checkpoints.windows, workspace.pipeline.part_records, listeners)
    return reading


def _write_parents(folder: DayFolder, reading: Reading | ParentsReading) -> Part | None:
    """Write the list of parents with what came of them; None without parents."""
    if isinstance(reading, Reading):
        return None
    return folder.write(PARENTS, pack_parents(reading.parents))


def _warn(settings: Source, date: dt.date, now: dt.datetime) -> None:
    """Warn if the section extracts other records than the date suggests."""
    if settings.mode == SNAPSHOT and date < settings.last_closed_day(now):
        logger.warning(
            "%s %s: a snapshot shows all records as of now, not as of that day. The day is stored as of now",
            *(settings.section, date),
        )
    elif settings.mode != SNAPSHOT and not find_placeholders(settings):
        logger.warning(
            "%s %s: url, params, body and headers ask for no day, so all records are extracted. Add the "
            "source's filter with {day_start}, or set mode = snapshot",
            *(settings.section, date),
        )


def _digest_request(settings: Source, part_records: int, watermark: dt.datetime | None) -> str:
    """Digest the settings that decide on records and parts. Only an extraction with the same digest can be resumed."""
    asked = {name: value for name, value in settings.param_kwargs.items() if name not in PATIENCE}
    text = json.dumps([asked, part_records, watermark], default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_verdicts(workspace: Workspace, date: dt.date, verdicts: Iterable[Verdict], hint: str) -> None:
    """Raise QualityError for the first failed gate. With `--…-accept` log a warning for each instead."""
    failed = [verdict for verdict in verdicts if not verdict.passed]
    if failed and not workspace.settings.accept:
        raise QualityError(f"{workspace.name} {date}: {failed[0]}: {hint}")
    for verdict in failed:
        logger.warning("%s %s: let through by --%s-accept: %s", workspace.name, date, workspace.name, verdict)
