"""Save the progress of an extraction, so that an interrupted one resumes after its last stored page.

Responsibilities: the file `progress.jsonl` in the folder of a day. Its first line holds the digest of what is
requested, the time of the first request, and the frozen list of parents. Each further line says how far a window is
stored: its newest parts, and the position of its reader. With parents, the day is one window, which holds all
records of one parent, then all of the next.
Non-goals: resuming an extraction with other settings, or one that began more than a day ago; both restart.
"""

import datetime as dt
import threading
from collections.abc import Callable, Iterator, Sequence

import msgspec

from wholeday.errors import FolderError
from wholeday.extract.position import MovedError, Position, Standing
from wholeday.extract.reader import Reader
from wholeday.log import count, logger
from wholeday.schema.raw_fields import UNREADABLE
from wholeday.storage.day_folder import CHECKPOINTS, DayFolder
from wholeday.storage.lines import unpack, unpack_open
from wholeday.storage.manifest import Part
from wholeday.storage.parents import FROZEN, Outcome, Parent, pack_parents, unpack_parents
from wholeday.storage.part_writer import PartWriter

RESUME_WITHIN = dt.timedelta(days=1)


class Header(msgspec.Struct, frozen=True):
    """The extraction that the checkpoints of a day belong to."""

    request: str
    """The digest of what is requested."""
    started_at: dt.datetime
    parents: Part | None = None
    """The frozen list of parents."""


class Ended(msgspec.Struct, frozen=True):
    """A parent that is stored to its end, and the total that the source declared for it."""

    outcome: Outcome
    pages: int
    records: int
    total: int | None


class Checkpoint(msgspec.Struct, frozen=True):
    """How far a window is stored: all pages before a position, and `taken` records of its page.

    Lists hold what came since the checkpoint of the window before.
    """

    window: int
    finished: list[Part] = []
    """The parts that were finished."""
    open: Part | None = None
    """The part that is being written."""
    position: Position | None = None
    """None at the end of a window or of a parent."""
    taken: int = 0
    seen: list[str] = []
    """The digests of requests and pages."""
    ended: list[Ended] = []
    """The parents that were stored to their ends."""
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
        self.folder = folder
        self._take = take if windows == 1 else None
        self._header = Header(request_digest, now)
        self._lines: list[bytes] = []
        self._lock = threading.Lock()
        lines = folder.read_checkpoints()
        try:
            header = msgspec.json.decode(lines[0], type=Header)
            checkpoints = [msgspec.json.decode(line, type=Checkpoint) for line in lines[1:]]
        except (IndexError, *UNREADABLE):
            header, checkpoints = Header("", now), []
        if header.request == request_digest and dt.timedelta(0) <= now - header.started_at <= RESUME_WITHIN:
            self._header, self._lines = header, lines
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
        frozen = [self._header.parents.name] if self._header.parents else []
        parts = [part.name for window in self.windows for part in window.list_kept()]
        folder.clear(keep=[*([CHECKPOINTS] if self._lines else []), *frozen, *parts])
        if sum(len(window.checkpoints) for window in self.windows) < len(checkpoints):
            self._drop_lost(checkpoints)
        if kept := sum(part.records for window in self.windows for part in window.list_kept()):
            logger.info("%s: resuming the interrupted extraction after %s", folder.day, count(kept, "record"))
        for number, part in enumerate(self.parts):
            self.hand_over(number, part)

    def _drop_lost(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Drop the checkpoints that name bytes which a power cut took."""
        kept = [each for each in checkpoints if each in self.windows[each.window].checkpoints]
        self._lines = [msgspec.json.encode(line) for line in (self._header, *kept)]
        self.folder.remove_checkpoints()
        self.folder.add_checkpoints(self._lines)

    @property
    def started_at(self) -> dt.datetime:
        """The time of the first request."""
        return self._header.started_at

    @property
    def parts(self) -> list[Part]:
        """The finished parts, in the order of the windows."""
        return [part for window in self.windows for part in window.parts]

    def freeze_parents(self, list_parents: Callable[[], Sequence[Parent]]) -> list[Parent]:
        """Return the parents that this extraction asks. They are listed before its first request, and then kept.

        Raises MovedError if their list cannot be read.
        """
        if part := self._header.parents:
            try:
                return unpack_parents(self.folder.read(part))
            except (FolderError, *UNREADABLE) as error:
                raise MovedError(f"{self.folder.day}: {error}") from None
        parents = list(list_parents())
        part = self.folder.write(FROZEN, pack_parents(parents))
        self._header = msgspec.structs.replace(self._header, parents=part)
        return parents

    def hand_over(self, number: int, part: Part) -> None:
        """Hand over a finished part, to be transformed during the extraction."""
        if self._take:
            self._take(number, part)

    def add(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint. A finished part survives a power cut together with it."""
        with self._lock:
            head = [] if self._lines else [msgspec.json.encode(self._header)]
            lines = [*head, msgspec.json.encode(checkpoint)]
            self.folder.add_checkpoints(lines, self._lines, durable=bool(checkpoint.finished))
            self._lines += lines


class WindowFiles:
    """The parts of one window, and its checkpoints."""

    def __init__(self, day: Checkpoints, number: int, name: str, checkpoints: Sequence[Checkpoint]) -> None:
        self._day, self._number, self._name = day, number, name
        self._folder = day.folder
        self._writer: PartWriter | None = None
        self._content = b""
        if checkpoints and (part := checkpoints[-1].open):
            try:
                self._content = self._folder.read_open(part)
            except FolderError:  # a power cut: go back to the last part that the disk has
                while checkpoints and checkpoints[-1].open:
                    checkpoints = checkpoints[:-1]
        self.parts = [part for each in checkpoints for part in each.finished]
        """The finished parts."""
        self.ended = [ended for each in checkpoints for ended in each.ended]
        """The parents that are stored to their ends."""
        self.checkpoints = list(checkpoints)
        """The checkpoints that an earlier run has left."""
        self._is_blocked = False
        # These came since the last checkpoint.
        self._new_parts: list[Part] = []
        self._new_digests: list[str] = []
        self._new_ended: list[Ended] = []

    @property
    def _last(self) -> Checkpoint:
        return self.checkpoints[-1] if self.checkpoints else Checkpoint(self._number)

    def list_kept(self) -> list[Part]:
        """List the parts that stay, finished or not."""
        return [*self.parts, *([self._last.open] if self._content and self._last.open else [])]

    def read_stored(self) -> Iterator[list[bytes]]:
        """Yield the lines of each stored part, and open the last one to continue it.

        Raises MovedError if a part cannot be read.
        """
        for part in self.parts:
            try:
                yield unpack(self._folder.read(part))
            except FolderError as error:  # restart instead of failing: the source still has all records
                raise MovedError(f"{self._folder.day}: {error}") from None
        if self._content and self._last.open:
            yield unpack_open(self._content)
            self._writer = self._folder.open_part(self._last.open.name, self._content)
            self._content = b""

    def resume(self, reader: Reader) -> None:
        """Move a new reader to the last stored position, if there is one."""
        if self._last.position:
            start = max((at for at, each in enumerate(self.checkpoints) if each.ended), default=0)
            seen = [digest for each in self.checkpoints[start:] for digest in each.seen]
            reader.resume(self._last.position, self._last.taken, seen)

    def write(self, records: Sequence[msgspec.Raw], standing: Standing, size: int) -> None:
        """Append records of a page to parts of `size` records, with a checkpoint if more follow.

        A part that is not finished needs a storage that can continue it.
        """
        self._new_digests += standing.digests
        taken = standing.skipped
        while records:
            writer = self._writer = self._writer or self._open()
            fitting = records[: size - writer.records]
            writer.add(fitting)
            taken, records = taken + len(fitting), records[len(fitting) :]
            if writer.records == size:
                self._close_part()
                self._add_position(standing, taken)
        if self._writer and standing.has_more and self._folder.can_continue:
            self._add_position(standing, taken)

    def end_parent(self, ended: Ended) -> None:
        """Note that a parent is stored to its end, with a checkpoint if the storage can continue the part."""
        self._new_digests, self._is_blocked = [], False
        self._new_ended.append(ended)
        if self._folder.can_continue or (self._new_parts and not self._writer):
            self._add(Checkpoint(self._number))

    def finish(self, reader: Reader | None = None) -> None:
        """Finish the last part, and note the end of the `reader` of one window among several."""
        if self._writer:
            self._close_part()
        if reader:
            self._add(Checkpoint(self._number, end=(reader.pages, reader.records, reader.total)))

    @property
    def end(self) -> tuple[int, int, int | None] | None:
        """The pages, records and total of a window that is stored to its end; None for another one."""
        return self._last.end

    def close(self) -> None:
        """Close an unfinished part, for a later run to continue."""
        if self._writer:
            self._writer.abandon()

    def _close_part(self) -> None:
        """Finish the part that is being written."""
        if self._writer:
            part = self._writer.finish()
            self._writer = None
            self.parts.append(part)
            self._new_parts.append(part)
            self._day.hand_over(len(self.parts) - 1, part)

    def _open(self) -> PartWriter:
        return self._folder.open_part(f"{self._name}{len(self.parts):05d}.jsonl.gz")

    def _add_position(self, standing: Standing, taken: int) -> None:
        """Add a checkpoint. A position that cannot be stored ends the checkpoints of the window or parent."""
        if standing.position is None and not self._is_blocked:
            why = standing.gap or "a link looks as if it held a secret"
            logger.info("%s: no further checkpoints, as %s", self._folder.day, why)
        self._is_blocked = self._is_blocked or standing.position is None
        if not self._is_blocked:
            self._add(Checkpoint(self._number, position=standing.position, taken=taken, seen=self._new_digests))

    def _add(self, checkpoint: Checkpoint) -> None:
        """Add a checkpoint, with what came since the one before."""
        part = self._writer.describe() if self._writer else None
        news = {"finished": self._new_parts, "open": part, "ended": self._new_ended}
        self._day.add(msgspec.structs.replace(checkpoint, **news))
        self._new_parts, self._new_digests, self._new_ended = [], [], []
