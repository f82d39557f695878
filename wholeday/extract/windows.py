"""Read a day as windows side by side, each with pages of its own (the key `split`).

Responsibilities: the bounds of the windows; one reader and one series of parts for each; the sums over all.
Non-goals: how a window is read (`reader`) and stored (`checkpoints`). Usually a day is one window.
"""

import datetime as dt
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing

from wholeday.config.days import Window
from wholeday.config.placeholders import find_placeholders, find_units
from wholeday.config.source import Source
from wholeday.errors import ConfigError
from wholeday.extract.checkpoints import WindowFiles
from wholeday.extract.http.client import Client
from wholeday.extract.reader import Counts, Reader, WrongSourceError
from wholeday.schema.census import Census
from wholeday.storage.manifest import Verdict
from wholeday.storage.parents import Parent

Listener = Callable[[Counts], None]


def check_split(config: Source) -> None:
    """Raise ConfigError if the source cannot be read in `split` windows."""
    if config.split == 1:
        return
    names, where = find_placeholders(config), f"[{config.section}] split = {config.split}"
    if not {"day_start", "day_stop"} <= names:
        raise ConfigError(f"{where} needs {{day_start}} and {{day_stop}} in url, params or body: add both")
    if "watermark" in names:
        raise ConfigError(f"{where} cannot be used with {{watermark}}, one time for all windows: leave one out")
    if config.paginator == "auto":
        raise ConfigError(f"{where} needs paginator: `wholeday doctor` finds it out")
    shortest = dt.timedelta(days=1) / config.split
    for text, unit in find_units(config):
        if unit >= shortest:
            raise ConfigError(
                f"{where}: {text} is not finer than a window of {shortest}: use a finer format, or a smaller split"
            )


def split_window(window: Window, number: int) -> list[Window]:
    """Split a window into equal ones."""
    length = (window.stop - window.start) / number
    starts = [window.start + length * at for at in range(number)]
    return [Window(*bounds) for bounds in zip(starts, [*starts[1:], window.stop], strict=True)]


class Reading:
    """The extraction of one day: the readers of its windows, and their sums."""

    done: tuple[int, int] | None = None
    parents: Sequence[Parent] = ()

    def __init__(
        self, config: Source, date: dt.date, watermark: dt.datetime | None, make_census: Callable[[], Census]
    ) -> None:
        """Prepare a reader for each window. `lookback` lowers the first one only. Raises ConfigError."""
        check_split(config)
        self._config, self._make_census = config, make_census
        self._client = Client(config, date)
        windows = split_window(config.window(date), config.split)
        windows[0] = Window(windows[0].start - config.lookback, windows[0].stop)
        self._readers = [
            Reader(config, date, watermark, make_census(), window, self._client if config.split > 1 else None)
            for window in windows
        ]
        self._lock = threading.Lock()
        self._first_pages: dict[str, int] = {}

    @property
    def url(self) -> str:
        """The URL of the first page, without secrets."""
        return self._readers[0].url

    @property
    def paginator(self) -> str:
        """The paginator, and how it was found."""
        return self._readers[0].paginator

    @property
    def pages(self) -> int:
        """The number of pages that came."""
        return sum(reader.pages for reader in self._readers)

    @property
    def records(self) -> int:
        """The number of records that came."""
        return sum(reader.records for reader in self._readers)

    @property
    def total(self) -> int | None:
        """How many records the source declares; None unless it does so for every window."""
        totals = [reader.total for reader in self._readers]
        return None if None in totals else sum(total or 0 for total in totals)

    def judge(self) -> list[Verdict]:
        """Return no verdict: each window that could not be read has failed the day."""
        return []

    def take_census(self) -> Census:
        """Return the keys of all windows, in their order."""
        first, *others = (reader.census for reader in self._readers)
        for other in others:
            first.absorb(other)
        return first

    def read(self, files: Sequence[WindowFiles], part_records: int, listeners: Sequence[Listener]) -> None:
        """Read all windows to their ends into parts, from their checkpoints on.

        Raises the first error of a window; the others end then.
        """

        def read(reader: Reader, file: WindowFiles) -> None:
            # Both are closed now, not at garbage collection: a thread may be waiting.
            with closing(file), closing(iter(reader)) as pages:
                for lines in file.read_stored():
                    reader.census.add(lines)
                if file.end:
                    reader.pages, reader.records, reader.total = file.end
                    return
                file.resume(reader)
                for records in pages:
                    with self._lock:
                        self._compare(reader)
                        for listener in listeners:
                            listener(self)
                    file.write(records[reader.skipped :], reader.describe_standing(), part_records)
                # Small days need no checkpoint file, so the end of the only window is not noted.
                file.finish(reader if len(self._readers) > 1 else None)

        if len(self._readers) == 1:
            read(self._readers[0], files[0])
            return
        # The client closes before the pool, so that no thread goes on after an error.
        with ThreadPoolExecutor(self._config.concurrency, "window") as pool, self._client.open():
            futures = [pool.submit(read, *each) for each in zip(self._readers, files, strict=True)]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                for future in futures:
                    future.cancel()
            for future in done:
                future.result()

    def _compare(self, reader: Reader) -> None:
        """Raise WrongSourceError if two windows begin with the same records: the source ignores the bounds."""
        if reader.pages != 1 or not reader.records or len(self._readers) == 1:
            return
        number = self._readers.index(reader)
        other = self._first_pages.setdefault(reader.page_digest, number)
        if other != number:
            raise reader.fail(
                f"windows {other + 1} and {number + 1} of {len(self._readers)} begin with the same records: the source "
                "ignores {day_start} and {day_stop}, or rounds them; check its filter, or leave split out",
                WrongSourceError,
            )
