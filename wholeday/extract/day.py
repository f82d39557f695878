"""Extract a day: read its records from the source into its raw folder. The day exists only if all records came.

Responsibilities: write parts, resume an interrupted extraction, judge the quality gates, publish the manifest.
Non-goals: how the source is read (`reader`), and how far a checkpoint reaches (`checkpoints`).
"""

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

import msgspec

from wholeday import clock
from wholeday.config.days import SNAPSHOT
from wholeday.config.placeholders import find_placeholders
from wholeday.config.source import Source
from wholeday.errors import QualityError
from wholeday.extract import gates
from wholeday.extract.checkpoints import Checkpoints
from wholeday.extract.http.auth import name_source
from wholeday.extract.reader import MovedError, Reader, WrongSourceError
from wholeday.log import count, logger, set_load
from wholeday.schema.census import Census
from wholeday.storage.day_folder import DayFolder
from wholeday.storage.known_source import describe_ways_out
from wholeday.storage.lines import pack
from wholeday.storage.manifest import Part, RawManifest, Verdict
from wholeday.storage.workspace import Workspace

# Keys that may change before an extraction is resumed: credentials, patience, what counts as the end or as an error.
PATIENCE = {
    *("auth", "token_file", "timeout", "retries", "max_wait", "requests_per_second", "accept", "end_when", "ok_when")
}

Listener = Callable[[Reader], None]
CountCleaned = Callable[[DayFolder, Iterable[Part]], Census]


def extract_day(
    workspace: Workspace, date: dt.date, known: gates.Known, count_cleaned: CountCleaned, *listeners: Listener
) -> None:
    """Extract the records of `date` from the source into its raw folder.

    Each of `listeners` is called after each page. The quality gates compare the day with the warehouse (`known`).
    `count_cleaned` counts the keys of raw parts after `clean`. It is called only if a snapshot seems to lack too many
    users.

    An interrupted extraction resumes after its last finished part, if the source still sends the page at which that
    part ended. Finished parts are deleted only if the answers are proven wrong.

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
    watermark = known.watermark_before(date) if "watermark" in find_placeholders(settings) else None
    request_digest = _digest_request(settings, workspace.pipeline.part_records, watermark)
    checkpoints = Checkpoints(folder, request_digest, started_at)
    try:
        try:
            reader = _read(workspace, date, watermark, checkpoints, *listeners)
        except MovedError as error:
            logger.info("%s: cannot resume the interrupted extraction; restarting", error)
            folder.clear()
            checkpoints = Checkpoints(folder, request_digest, started_at)
            reader = _read(workspace, date, watermark, checkpoints, *listeners)
        if problem := reader.census.explain_no_key():
            raise QualityError(f"{workspace.name} {date}: {problem}")
        if clock.is_future(checkpoints.started_at):
            raise QualityError(
                f"{workspace.name} {date}: the clock of this machine was set back during the extraction, which began "
                f"at {checkpoints.started_at:%Y-%m-%dT%H:%M:%SZ}. Correct the clock and run the day again"
            )
        as_of = checkpoints.started_at - settings.settle
        judged = gates.judge(
            *(workspace.history_dir, date, settings, reader.census, as_of, known),
            lambda: count_cleaned(folder, checkpoints.parts),
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
        url=reader.url,
        source=source,
        paginator=reader.paginator,
        started_at=checkpoints.started_at,
        extracted_at=clock.utc_now(),
        as_of=as_of,
        pages=reader.pages,
        records=reader.records,
        keys=reader.census.distinct,
        declared=reader.total,
        unknown_fields=reader.census.unknown,
        gates=[*verdicts, *judged],
        parts=checkpoints.parts,
    )
    folder.remove_checkpoints()
    folder.publish(manifest)
    repeated = manifest.records - manifest.keys
    logger.info(
        "%s %s: extracted %s, %s%s",
        *(workspace.name, date, count(reader.records, "record"), count(reader.pages, "page")),
        f", {count(repeated, 'record')} with a repeated key" if repeated else "",
    )


def _read(
    workspace: Workspace, date: dt.date, watermark: dt.datetime | None, checkpoints: Checkpoints, *listeners: Listener
) -> Reader:
    """Read the source to its end into parts, from the last checkpoint on."""
    settings, folder = workspace.settings, workspace.folder("raw", date)
    set_load(checkpoints.started_at - settings.settle)
    reader = Reader(settings, date, watermark, workspace.conversion.make_census())
    checkpoints.resume(reader)
    with closing(iter(reader)) as pages:  # closes now, not at garbage collection: a thread may be waiting for a page
        size, records = workspace.pipeline.part_records, _Records(reader, pages, listeners)
        while records.more():
            part = folder.write(f"part-{len(checkpoints.parts):05d}.jsonl.gz", pack(records.take(size)))
            if part.records == size:
                checkpoints.add(part, reader, records.taken)
            else:  # no checkpoint for the last part: it would cost every small day one more file
                checkpoints.parts.append(part)
    return reader


class _Records:
    """The records of a reader, any number at a time, across pages."""

    def __init__(self, reader: Reader, pages: Iterator[Sequence[msgspec.Raw]], listeners: Sequence[Listener]) -> None:
        self._reader, self._pages, self._listeners = reader, pages, listeners
        self._page: Sequence[msgspec.Raw] = []
        self.taken = 0
        """How many records of the current page are taken."""

    def more(self) -> bool:
        """Return whether another record follows; fetch the next page if the current one is taken."""
        while self.taken == len(self._page):
            page = next(self._pages, None)
            if page is None:
                return False
            self._page, self.taken = page, self._reader.skipped
            for listener in self._listeners:
                listener(self._reader)
        return True

    def take(self, number: int) -> Iterator[list[Any]]:
        """Yield the next `number` records, or the rest, in slices that do not cross a page."""
        while number and self.more():
            lines = self._page[self.taken : self.taken + number]
            self.taken += len(lines)
            number -= len(lines)
            yield list(lines)


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
