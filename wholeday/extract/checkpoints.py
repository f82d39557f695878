"""Save the progress of an extraction, so that an interrupted one resumes after its last stored page.

Responsibilities: the file `progress.jsonl` in the folder of a day. Its first line holds the digest of what is requested
and the time of the first request. Each further line says how far a window is stored: its newest part, finished or not,
and the position of its reader.
Non-goals: resuming an extraction with other settings, or one that began more than a day ago; both restart.
"""

import datetime as dt
import threading
from collections.abc import Callable, Sequence

import msgspec

from wholeday.errors import FolderError
from wholeday.extract.position import MovedError, Position
from wholeday.extract.reader import Reader
from wholeday.log import count, logger
from wholeday.schema.raw_fields import UNREADABLE
from wholeday.storage.day_folder import DayFolder
from wholeday.storage.lines import unpack, unpack_open
from wholeday.storage.manifest import Part
from wholeday.storage.part_writer import PartWriter

RESUME_WITHIN = dt.timedelta(days=1)


class Checkpoint(msgspec.Struct, frozen=True):
    """How far a window is stored: all pages before a position, and `taken` records of its page."""

    window: int
    part: Part | None
    """The newest part, finished or not; None if it has a checkpoint already."""
    is_finished: bool
    position: Position | None
    """None at the end of a window."""
    taken: int
    seen: list[str]
    """The digests that the reader has added since the checkpoint before."""
    end: tuple[int, int, int | None] | None = None
    """At the end of a window: its pages and records, and the total that the source declared."""


class Checkpoints:
    """The stored parts of a day that is being extracted, and the time of its first request."""

    def __init__(
        self,
        folder: DayFolder,
        request_digest: str,
        now: dt.datetime,
        windows: int = 1,
        take: Callable[[int, Part], None] | None = None,
    ) -> None:
        """Read the checkpoints of a folder, if they can be resumed. Remove all other files of the folder.

        `take` is called with each finished part of the only window, and its number.
        """
        self.started_at = now
        self._take = take if windows == 1 else None
        self.folder, self._request_digest = folder, request_digest
        self._lines: list[bytes] = []
        self._lock = threading.Lock()
        lines = folder.read_checkpoints()
        try:
            found_digest, started_at = msgspec.json.decode(lines[0], type=tuple[str, dt.datetime])
            checkpoints = [msgspec.json.decode(line, type=Checkpoint) for line in lines[1:]]
        except (IndexError, *UNREADABLE):
            found_digest, started_at, checkpoints = "", now, []
        if found_digest == request_digest and dt.timedelta(0) <= now - started_at <= RESUME_WITHIN:
            self.started_at, self._lines = started_at, lines
        else:
            if folder.list_parts():
                why = "it had other settings, or began more than a day ago" if checkpoints else "it has no checkpoint"
                logger.info("%s: cannot resume the interrupted extraction, as %s; restarting", folder.day, why)
            checkpoints = []
        names = ["part-"] if windows == 1 else [f"part-{number:03d}-" for number in range(windows)]
        self.windows = [
            WindowFiles(self, number, name, [each for each in checkpoints if each.window == number])
            for number, name in enumerate(names)
        ]
        """The stored files of each window, in their order."""
        folder.clear(keep=[part.name for window in self.windows for part in window.list_kept()])
        if kept := sum(part.records for window in self.windows for part in window.list_kept()):
            logger.info("%s: resuming the interrupted extraction after %s", folder.day, count(kept, "record"))
        for number, part in enumerate(self.parts):
            self.hand_over(number, part)

    @property
    def parts(self) -> list[Part]:
        """The finished parts, in the order of the windows."""
        return [part for window in self.windows for part in window.parts]

    def hand_over(self, number: int, part: Part) -> None:
        """Hand over a finished part, to be transformed during the extraction."""
        if self._take:
            self._take(number, part)

    def add(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint. A finished part survives a power cut together with it."""
        with self._lock:
            head = [] if self._lines else [msgspec.json.encode((self._request_digest, self.started_at))]
            lines = [*head, msgspec.json.encode(checkpoint)]
            self.folder.add_checkpoints(lines, self._lines, durable=checkpoint.is_finished)
            self._lines += lines


class WindowFiles:
    """The parts of one window, and its checkpoints."""

    def __init__(self, day: Checkpoints, number: int, name: str, checkpoints: Sequence[Checkpoint]) -> None:
        self._day, self._number, self._name = day, number, name
        self._folder = day.folder
        self._writer: PartWriter | None = None
        self._content = b""
        last = checkpoints[-1] if checkpoints else None
        if last and last.part and not last.is_finished:
            try:
                self._content = self._folder.read_open(last.part)
            except FolderError:  # a power cut: go back to the last part that the disk has
                while checkpoints and not checkpoints[-1].is_finished:
                    checkpoints = checkpoints[:-1]
        self.parts = [each.part for each in checkpoints if each.part and each.is_finished]
        """The finished parts."""
        self._checkpoints = list(checkpoints)
        last = checkpoints[-1] if checkpoints else None
        self._known = last.position.seen if last and last.position else 0
        self._is_blocked = False

    def list_kept(self) -> list[Part]:
        """List the parts that stay, finished or not."""
        last = self._checkpoints[-1].part if self._content else None
        return [*self.parts, *([last] if last else [])]

    def resume(self, reader: Reader) -> None:
        """Move a new reader behind the last stored page, or to the end. Raises MovedError if a part cannot be read."""
        if not self._checkpoints:
            return
        last = self._checkpoints[-1]
        try:
            for part in self.parts:
                reader.census.add(unpack(self._folder.read(part)))
        except FolderError as error:  # restart instead of failing: the source still has all records
            raise MovedError(f"{self._folder.day}: {error}") from None
        if last.end:
            reader.pages, reader.records, reader.total = last.end
        if self._content and last.part:
            reader.census.add(unpack_open(self._content))
            self._writer = self._folder.open_part(last.part.name, self._content)
            self._content = b""
        if last.position:
            reader.resume(last.position, last.taken, [digest for each in self._checkpoints for digest in each.seen])

    def write(self, records: Sequence[msgspec.Raw], reader: Reader, size: int) -> None:
        """Append the records of the reader's page to parts of `size` records, with a checkpoint if more follow.

        A part that is not finished needs a storage that can continue it.
        """
        taken = reader.skipped
        while records:
            writer = self._writer = self._writer or self._open()
            fitting = records[: size - writer.records]
            writer.add(fitting)
            taken, records = taken + len(fitting), records[len(fitting) :]
            if writer.records == size:
                self._close_part()
                self._add(self.parts[-1], reader, taken, is_finished=True)
        if self._writer and reader.has_more and self._folder.can_continue:
            self._add(self._writer.describe(), reader, taken, is_finished=False)

    def finish(self, reader: Reader) -> None:
        """Finish the last part. The end of the only window has no checkpoint: small days need no such file."""
        part = self._close_part() if self._writer else None
        if self._day.windows[1:]:
            end = reader.pages, reader.records, reader.total
            self._day.add(Checkpoint(self._number, part, True, None, 0, [], end))

    @property
    def is_complete(self) -> bool:
        """Whether the window is stored to its end."""
        return bool(self._checkpoints and self._checkpoints[-1].end)

    def _close_part(self) -> Part:
        """Finish the part that is being written."""
        if self._writer:
            self.parts.append(self._writer.finish())
            self._writer = None
            self._day.hand_over(len(self.parts) - 1, self.parts[-1])
        return self.parts[-1]

    def close(self) -> None:
        """Close an unfinished part, for a later run to continue."""
        if self._writer:
            self._writer.abandon()

    def _open(self) -> PartWriter:
        return self._folder.open_part(f"{self._name}{len(self.parts):05d}.jsonl.gz")

    def _add(self, part: Part, reader: Reader, taken: int, *, is_finished: bool) -> None:
        """Add a checkpoint. A position that cannot be stored ends the checkpoints of the window."""
        position = reader.position
        if position is None and not self._is_blocked:
            why = reader.gap or "a link looks as if it held a secret"
            logger.info("%s: no further checkpoints, as %s", self._folder.day, why)
        self._is_blocked = self._is_blocked or position is None
        if position is None or self._is_blocked:
            return
        seen = reader.seen(self._known, position.seen)
        self._day.add(Checkpoint(self._number, part, is_finished, position, taken, seen))
        self._known = position.seen
