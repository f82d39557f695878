"""The first stage of a day: from the source into its raw folder, so that the day exists only if all of it came.

Owns how pages become parts, and the gates. How an API is read is the business of source, and where a reading that
was broken off goes on that of journal.
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
from wholeday.extract.checkpoints import Journal
from wholeday.extract.http.auth import name_source
from wholeday.extract.reader import MovedError, Reader
from wholeday.extract.totals import WrongSourceError
from wholeday.log import count, logger, set_load
from wholeday.schema.census import Census
from wholeday.storage.day_folder import DayFolder
from wholeday.storage.known_source import describe_ways_out
from wholeday.storage.lines import pack
from wholeday.storage.manifest import Part, RawManifest, Verdict
from wholeday.storage.workspace import Workspace

# What may change while a reading goes on: how patient it is, what it takes for the end, and what is made of what came.
PATIENCE = {
    "auth",
    "token_file",
    "timeout",
    "retries",
    "max_wait",
    "requests_per_second",
    "accept",
    "end_when",
    "ok_when",
}

Tell = Callable[[Reader], None]
CountCleaned = Callable[[DayFolder, Iterable[Part]], Census]


def extract_day(
    workspace: Workspace, date: dt.date, known: gates.Known, count_cleaned: CountCleaned, *listeners: Tell
) -> None:
    """Read the source for `date` into its raw folder; the listeners hear of each page.

    The gates compare the day with what the warehouse knows (`known`). `count_cleaned` counts the keys of raw parts
    after `clean`; it is called only if a snapshot seems to lack too many users.

    An interrupted extraction resumes after its last finished part, where the source still gives the page at which that
    part ended. Finished parts are deleted only where what came is proven wrong.

    Raises DayNotClosedError, SourceError, QualityError, ConfigError, FolderError, DatasetError.
    """
    workspace.dataset.check()
    settings, folder = workspace.settings, workspace.folder("raw", date)
    started_at = clock.utc_now()
    settings.check_closed(date, started_at)
    _warn(settings, date, started_at)
    source = name_source(settings)
    another = gates.judge_source(source, known.read_known_source())
    verdicts = [another] if another else []
    # Before the first request: nothing is asked of a source whose answer cannot be used.
    _check_verdicts(workspace, date, verdicts, describe_ways_out(workspace.name))
    watermark = known.watermark_before(date) if "watermark" in find_placeholders(settings) else None
    question = _digest_question(settings, workspace.pipeline.part_records, watermark)
    journal = Journal.open(folder, question, started_at)
    try:
        try:
            reading = _read(workspace, date, watermark, journal, listeners)
        except MovedError as error:
            logger.info("%s: the reading that was broken off cannot be gone on with: it starts over", error)
            folder.sweep()
            journal = Journal.open(folder, question, started_at)
            reading = _read(workspace, date, watermark, journal, listeners)
        if problem := reading.census.explain_no_key():
            raise QualityError(f"{workspace.name} {date}: {problem}")
        if clock.is_future(journal.started_at):
            raise QualityError(
                f"{workspace.name} {date}: the clock of this machine was set back while the day was read, which began "
                f"at {journal.started_at:%Y-%m-%dT%H:%M:%SZ}: see that the clock is right, and run the day again"
            )
        as_of = journal.started_at - settings.settle
        judged = gates.judge(
            *(workspace.history_dir, date, settings, reading.census, as_of, known),
            lambda: count_cleaned(folder, journal.parts),
        )
        hint = f"find out where they went, or let this run through with --{workspace.name}-accept"
        _check_verdicts(workspace, date, judged, hint)
    except (WrongSourceError, QualityError):
        folder.sweep()  # no page of this reading can be used again
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
        started_at=journal.started_at,
        extracted_at=clock.utc_now(),
        as_of=as_of,
        pages=reading.pages,
        records=reading.records,
        keys=reading.census.distinct,
        declared=reading.total,
        unknown_fields=reading.census.unknown,
        gates=[*verdicts, *judged],
        parts=journal.parts,
    )
    folder.drop_journal()
    folder.publish(manifest)
    again = manifest.records - manifest.keys
    logger.info(
        "%s %s: extracted %s, %s%s",
        *(workspace.name, date, count(reading.records, "record"), count(reading.pages, "page")),
        f", {count(again, 'record')} with a key that came before" if again else "",
    )


def _read(
    workspace: Workspace, date: dt.date, watermark: dt.datetime | None, journal: Journal, listeners: Sequence[Tell]
) -> Reader:
    """Read the source to its end into parts, from where the journal ends."""
    settings, folder = workspace.settings, workspace.folder("raw", date)
    set_load(journal.started_at - settings.settle)
    reading = Reader(
        settings, date, watermark, Census(workspace.dataset.record_class, workspace.dataset.key, settings.deleted_when)
    )
    journal.resume(reading)
    with closing(iter(reading)) as pages:  # now, not when Python finds the time: a thread may be waiting for its page
        size, records = workspace.pipeline.part_records, _Records(reading, pages, listeners)
        while records.more():
            part = folder.write(f"part-{len(journal.parts):05d}.jsonl.gz", pack(records.take(size)))
            if part.records == size:
                journal.add(part, reading, records.taken)
            else:  # the last one: to note it would be one more file written and dropped on every small day
                journal.parts.append(part)
    return reading


class _Records:
    """The records of a reading, however many of them at a time."""

    def __init__(self, reading: Reader, pages: Iterator[Sequence[msgspec.Raw]], listeners: Sequence[Tell]) -> None:
        self._reading, self._pages, self._listeners = reading, pages, listeners
        self._page: Sequence[msgspec.Raw] = []
        self.taken = 0
        """How many of the page's are taken."""

    def more(self) -> bool:
        """Whether there is one more; turns the page where all of it is taken."""
        while self.taken == len(self._page):
            page = next(self._pages, None)
            if page is None:
                return False
            self._page, self.taken = page, self._reading.skipped
            for tell in self._listeners:
                tell(self._reading)
        return True

    def take(self, number: int) -> Iterator[list[Any]]:
        """The next `number` records, or what there is, in slices that do not cross a page."""
        while number and self.more():
            lines = self._page[self.taken : self.taken + number]
            self.taken += len(lines)
            number -= len(lines)
            yield list(lines)


def _warn(settings: Source, date: dt.date, now: dt.datetime) -> None:
    """Say what a day will be where its section makes it another thing than may be thought."""
    if settings.mode == SNAPSHOT and date < settings.last_closed_day(now):
        logger.warning(
            "%s %s: a snapshot shows everybody as of now, not as of that day: it is recorded as of now",
            *(settings.section, date),
        )
    elif settings.mode != SNAPSHOT and not find_placeholders(settings):
        logger.warning(
            "%s %s: url, params, body and headers ask for no day, so everybody is read: add the source's filter with "
            "{day_start}, or set mode = snapshot",
            *(settings.section, date),
        )


def _digest_question(settings: Source, part_records: int, watermark: dt.datetime | None) -> str:
    """What is asked of the source, and how: a reading that asks the same may go on with another's parts."""
    asked = {name: value for name, value in settings.param_kwargs.items() if name not in PATIENCE}
    text = json.dumps([asked, part_records, watermark], default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_verdicts(workspace: Workspace, date: dt.date, verdicts: Iterable[Verdict], hint: str) -> None:
    """Raise QualityError for the first gate that does not let the day through, unless this run is let through."""
    failed = [verdict for verdict in verdicts if not verdict.passed]
    if failed and not workspace.settings.accept:
        raise QualityError(f"{workspace.name} {date}: {failed[0]}: {hint}")
    for verdict in failed:
        logger.warning("%s %s: let through by --%s-accept: %s", workspace.name, date, workspace.name, verdict)
