"""Transform the parts of a large day while the source is still read.

Responsibilities: which parts are transformed early, and the note that says so. The clean parts stay unpublished: the
transform takes over those whose raw part and version are the same, and alone publishes the day. A failed extraction
leaves none.
Non-goals: days under a bucket, on Spark, in several windows, or in a process of one task. They are transformed later.
"""

import contextlib
import datetime as dt
import functools
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

import msgspec

from wholeday.errors import FolderError, PipelineError
from wholeday.schema.raw_fields import UNREADABLE
from wholeday.storage.day_folder import DayFolder
from wholeday.storage.manifest import Part
from wholeday.storage.workspace import Workspace
from wholeday.transform import executor
from wholeday.transform.parts import PartJob, PartResult, check_clean, list_imports, transform_part

if TYPE_CHECKING:
    from wholeday.extract.reader import Counts


class Note(msgspec.Struct):
    """The clean parts that are there before the transform begins, by the number and the sha256 of their raw parts."""

    version: str
    parts: dict[str, PartResult]


class Ahead:
    """Listens to an extraction, and transforms its finished parts in other processes once the day is large."""

    def __init__(self, workspace: Workspace, date: dt.date) -> None:
        self._workspace, self._settings = workspace, workspace.pipeline
        self._raw, self._clean = workspace.folder("raw", date), workspace.folder("clean", date)
        self._check = functools.partial(check_clean, workspace.conversion)
        self._raise_error: Callable[[], None] | None = None
        self._is_large = False
        self._can_work = (
            self._clean.can_continue
            and self._settings.engine == "local"
            and workspace.settings.split == 1
            and multiprocessing.parent_process() is None
        )
        self._parts: list[tuple[int, Part]] = []
        self._pool: ProcessPoolExecutor | None = None
        self._stack = contextlib.ExitStack()
        self._futures: dict[str, Future[PartResult]] = {}

    def update(self, counts: "Counts") -> None:
        """Check `clean` after the first page, and prepare as soon as the day proves large.

        A process of its own checks `clean`, so that this one, which needs its memory for the load, imports no pandas.
        """
        records = max(counts.records, counts.total or 0)
        parts = -(-records // self._settings.part_records)
        if not self._is_large and executor.count_workers(self._settings.engine_workers, parts) > 1:
            executor.prepare(list_imports(self._workspace.conversion))
            self._is_large = True
        if self._raise_error is None:
            self._raise_error = executor.start(self._check) if self._is_large else self._check
        self._raise_error()

    def add(self, number: int, part: Part) -> None:
        """Take a finished raw part."""
        self._parts.append((number, part))
        if not (self._is_large and self._can_work):
            return
        if self._pool is None:
            self._stack.enter_context(self._clean.lock())
            self._clean.begin_rewrite()
            workers = executor.count_workers(self._settings.engine_workers, executor.MIN_PARTS)
            self._pool = self._stack.enter_context(executor.open_pool(workers - 1))  # this process needs a core
        for number, part in self._parts:
            job = PartJob(self._workspace.conversion, self._raw, self._clean, number, part)
            self._futures[_name(number, part)] = self._pool.submit(transform_part, job)
        self._parts.clear()

    def restart(self) -> None:
        """Forget all parts: the extraction begins again."""
        self._cancel()
        self._parts.clear()
        self._futures.clear()

    def stop(self) -> None:
        """Begin no further part. Each process ends after its current part."""
        self._cancel()
        if self._pool is not None:
            self._pool.shutdown()

    def finish(self) -> None:
        """Note the parts that are transformed. The others, and their errors, are left to the transform."""
        if self._pool is None:
            return
        self.stop()
        done = {}
        for name, future in self._futures.items():
            with contextlib.suppress(PipelineError, BrokenProcessPool, CancelledError):
                done[name] = future.result()
        self._clean.write_note(msgspec.json.encode(Note(self._workspace.version, done)))

    def discard(self) -> None:
        """Remove the clean parts: the extraction has failed."""
        if self._pool is not None:
            self._cancel()
            self._clean.begin_rewrite()

    def close(self) -> None:
        """End the processes."""
        self._stack.close()

    def _cancel(self) -> None:
        for future in self._futures.values():
            future.cancel()
        for future in self._futures.values():
            if not future.cancelled():
                future.exception()


@contextlib.contextmanager
def transform_ahead(workspace: Workspace, date: dt.date) -> Iterator[Ahead]:
    """Yield a listener for an extraction. The clean parts stay if the block succeeds, and are removed if it fails."""
    ahead = Ahead(workspace, date)
    with contextlib.closing(ahead):
        try:
            yield ahead
        except BaseException:
            ahead.discard()
            raise
        ahead.finish()


def read_ready(clean: DayFolder, version: str, parts: list[Part]) -> Mapping[int, PartResult]:
    """Return the results of the raw `parts` that were transformed ahead by this version, by their number."""
    try:
        note = msgspec.json.decode(clean.read_note(), type=Note)
    except (FolderError, *UNREADABLE):
        return {}
    stored = clean.list_parts()
    found = {number: note.parts.get(_name(number, part)) for number, part in enumerate(parts)}
    return {
        number: result
        for number, result in found.items()
        if result and note.version == version and {part.name for part in result.list_files()} <= stored
    }


def _name(number: int, part: Part) -> str:
    return f"{number}:{part.sha256}"
