"""Read the records of each parent as one series of requests, several side by side.

Responsibilities: the order of the parents in the parts; where an interrupted day resumes; the sums over all parents.
Non-goals: who is asked (`parents`), and the pages of one parent (`reader`).
"""

import datetime as dt
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import msgspec

from wholeday.config.days import Window
from wholeday.config.placeholders import EPOCH
from wholeday.config.source import Source
from wholeday.errors import SourceError
from wholeday.extract.checkpoints import Ended, WindowFiles
from wholeday.extract.http.client import AnswerError, Client
from wholeday.extract.position import Standing
from wholeday.extract.reader import AHEAD, AHEAD_BYTES, Reader
from wholeday.extract.windows import Listener
from wholeday.log import count
from wholeday.schema.census import Census
from wholeday.storage.manifest import Verdict
from wholeday.storage.parents import Parent

GONE = (404, 410)  # what a source answers for a parent that it no longer has
SHOWN = 3  # missing parents that a line names
BLOCK = 10_000  # stored lines that are counted at once

MakeCensus = Callable[[Mapping[str, Any] | None], Census]
"""Makes a census of the records of a parent with these values, or of all parents."""


def name_values(dataset: str, parent: Parent) -> dict[str, Any]:
    """Return the values of a parent by the names of their placeholders, as in `repos.owner`."""
    return {f"{dataset}.{name}": value for name, value in parent.values.items()}


@dataclass
class _Batch:
    """The records of a page that a reader has read ahead."""

    records: Sequence[msgspec.Raw]
    standing: Standing
    bytes: int


@dataclass
class _Series:
    """The requests for one parent. A thread reads its pages, and the caller takes them."""

    reader: Reader
    batches: deque[_Batch] = field(default_factory=deque)
    bytes: int = 0
    """The size of `batches`."""
    is_read: bool = False
    error: Exception | None = None


class ParentsReading:
    """The extraction of one day from a source that is asked for each parent."""

    def __init__(
        self, config: Source, date: dt.date, dataset: str, parents: Sequence[Parent], make_census: MakeCensus
    ) -> None:
        """Prepare to ask `parents`, rows of `dataset`. Raises ConfigError."""
        self._config, self._date, self._dataset, self._make_census = config, date, dataset, make_census
        self._client = Client(config, date)
        self.parents = list(parents)
        """The parents, each with its outcome and counts once it is read."""
        self._results: list[Ended] = []
        self._current: Reader | None = None
        self._census = make_census(None)
        self._pages = self._distinct = 0
        self._most_bytes = AHEAD_BYTES // (AHEAD * config.concurrency)
        self._changed = threading.Condition()
        self._is_over = False
        self.url = self._make_reader(self.parents[0]).url if self.parents else ""
        """The URL of the first page, without secrets."""
        self.paginator = config.paginator
        """The configured paginator."""

    @property
    def pages(self) -> int:
        """The number of pages that came."""
        return self._pages + (self._current.pages if self._current else 0)

    @property
    def records(self) -> int:
        """The number of records that came."""
        return self._census.records + (self._current.census.records if self._current else 0)

    @property
    def total(self) -> int | None:
        """How many records the source declares; None unless it does so for every parent."""
        totals = [each.total for each in self._results if each.outcome == "read"]
        is_whole = len(self._results) == len(self.parents) and None not in totals
        return sum(total or 0 for total in totals) if is_whole and totals else None

    @property
    def done(self) -> tuple[int, int]:
        """How many parents are read, and of how many."""
        return len(self._results), len(self.parents)

    @property
    def missing(self) -> list[Parent]:
        """The parents that the source no longer has."""
        return [parent for parent in self.parents if parent.outcome == "missing"]

    def describe_missing(self) -> str:
        """Name the parents that the source no longer has."""
        names = [", ".join(str(value) for value in parent.values.values()) for parent in self.missing]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        shown = "; ".join(names[:SHOWN])
        return f"the source does not have {len(names)} of {count(len(self.parents), 'parent')}: {shown}{more}"

    def judge(self) -> list[Verdict]:
        """Fail the gate `missing_parent` if the source has none of several parents: the URL may be wrong."""
        if len(self.parents) < 2 or len(self.missing) < len(self.parents):
            return []
        fact = (
            f"none of {count(len(self.parents), 'parent')} in {self._dataset} exists at the source, such as "
            f"{self.url}; the url may be wrong, or the secret may lack a permission"
        )
        return [Verdict(gate="missing_parent", value=1, limit=1, reference=None, passed=False, description=fact)]

    def take_census(self) -> Census:
        """Return the keys of all parents, in their order. Raises SourceError for a key of two parents."""
        if self._census.distinct != self._distinct:
            raise self._client.fail(
                f"{count(self._distinct - self._census.distinct, 'key')} came for two rows of {self._dataset}: if that "
                "is right, make a column of the parent part of the primary key, as in name: str = Field(parent=…, "
                "primary_key=True); else check the placeholders"
            )
        return self._census

    def read(self, files: Sequence[WindowFiles], part_records: int, listeners: Sequence[Listener]) -> None:
        """Read all parents to their ends into the parts of the only window, from its checkpoints on.

        The parts hold all records of one parent, then all of the next, so they do not depend on the concurrency.
        Raises the error of the first parent, by their order, that cannot be read.
        """
        (file,) = files
        with closing(file):
            resumed = self._restore(file)
            ahead = AHEAD * self._config.concurrency
            running: deque[_Series] = deque()
            # The client closes before the pool, so that no thread goes on after an error.
            with ThreadPoolExecutor(self._config.concurrency, "parent") as pool, self._client.open():
                try:
                    for number in range(len(self._results), len(self.parents)):
                        for parent in self.parents[number + len(running) : number + ahead]:
                            series, resumed = _Series(resumed or self._make_reader(parent)), None
                            pool.submit(self._fill, series)
                            running.append(series)
                        self._drain(running.popleft(), file, part_records, listeners)
                finally:
                    with self._changed:
                        self._is_over = True
                        self._changed.notify_all()
            file.finish()
        self.parents = [
            msgspec.structs.replace(parent, outcome=each.outcome, pages=each.pages, records=each.records)
            for parent, each in zip(self.parents, self._results, strict=True)
        ]

    def _make_reader(self, parent: Parent) -> Reader:
        """Make the reader of a parent. One that is late is read from its beginning."""
        config, window = self._config, self._config.window(self._date)
        start = EPOCH if parent.is_late else window.start - config.lookback
        values = name_values(self._dataset, parent)
        census = self._make_census(parent.values)
        whole = Window(start, window.stop)
        return Reader(config, self._date, parent.watermark, census, whole, self._client, values)

    def _restore(self, file: WindowFiles) -> Reader | None:
        """Count what is stored. Return the reader of a parent that is stored in part, at its position."""
        lines = chain.from_iterable(file.read_stored())
        for parent, ended in zip(self.parents, file.ended, strict=False):
            census = self._make_census(parent.values)
            for start in range(0, ended.records, BLOCK):
                census.add(list(islice(lines, min(BLOCK, ended.records - start))))
            self._add(ended, census)
        if len(self._results) == len(self.parents):
            return None
        reader = self._make_reader(self.parents[len(self._results)])
        while block := list(islice(lines, BLOCK)):
            reader.census.add(block)
        file.resume(reader)
        return reader

    def _fill(self, series: _Series) -> None:
        """Read the pages of a parent ahead, in a thread, as far as they fit."""
        reader = series.reader
        try:
            with closing(iter(reader)) as pages:
                for records in pages:
                    new = records[reader.skipped :]
                    batch = _Batch(new, reader.describe_standing(), sum(map(len, new)))
                    with self._changed:
                        series.batches.append(batch)
                        series.bytes += batch.bytes
                        self._changed.notify_all()
                        self._changed.wait_for(lambda: self._is_over or series.bytes <= self._most_bytes)
                        if self._is_over:
                            return
        except Exception as error:  # noqa: BLE001 - the caller raises it, once it has come to this parent
            series.error = error
        finally:
            with self._changed:
                series.is_read = True
                self._changed.notify_all()

    def _drain(self, series: _Series, file: WindowFiles, part_records: int, listeners: Sequence[Listener]) -> None:
        """Write the pages of a parent as they come, to its end."""
        self._current = series.reader
        while (batch := self._take(series)) is not None:
            for listener in listeners:
                listener(self)
            file.write(batch.records, batch.standing, part_records)
        ended = self._judge(series)
        self._current = None
        self._add(ended, series.reader.census)
        file.end_parent(ended)

    def _take(self, series: _Series) -> _Batch | None:
        """Wait for the next page of a parent; None behind the last."""
        with self._changed:
            self._changed.wait_for(lambda: series.batches or series.is_read)
            if not series.batches:
                return None
            batch = series.batches.popleft()
            series.bytes -= batch.bytes
            self._changed.notify_all()
            return batch

    def _judge(self, series: _Series) -> Ended:
        """Return how the reading of a parent ended. Raises its error."""
        reader, error = series.reader, series.error
        is_gone = isinstance(error, AnswerError) and error.status in GONE and not reader.pages
        if error and not is_gone:
            raise error
        if error and self._config.missing_parent != "skip":
            raise SourceError(f"{error}; if a row of {self._dataset} may be gone there, set missing_parent = skip")
        return Ended("missing" if error else "read", reader.pages, reader.records, reader.total)

    def _add(self, ended: Ended, census: Census) -> None:
        """Add a parent that is read to the sums."""
        self._results.append(ended)
        self._pages += ended.pages
        self._distinct += census.distinct
        self._census.absorb(census)
