"""Save the progress of an extraction, so that an interrupted one resumes after its last finished part.

Responsibilities: the file `progress.jsonl` in the folder of a day. Its first line holds the digest of what is requested
and the time of the first request. Each further line is a finished part with the position of the extraction.
Non-goals: resuming an extraction with other settings, or one that began more than a day ago; both restart.
"""

import datetime as dt

import msgspec

from wholeday.errors import FolderError
from wholeday.extract.reader import MovedError, Position, Reader
from wholeday.log import count, logger
from wholeday.schema.raw_fields import UNREADABLE
from wholeday.storage.day_folder import DayFolder
from wholeday.storage.lines import unpack
from wholeday.storage.manifest import Part

RESUME_WITHIN = dt.timedelta(days=1)


class Checkpoint(msgspec.Struct, frozen=True):
    """A finished part and the position after it: a page, and how many of its records are stored."""

    part: Part
    position: Position
    taken: int
    seen: list[str]
    """The digests that the reader has added since the checkpoint before."""


class Checkpoints:
    """The finished parts of a day that is being extracted, and the time of its first request."""

    def __init__(self, folder: DayFolder, request_digest: str, now: dt.datetime) -> None:
        """Read the checkpoints of a folder, if they can be resumed. Remove all other files of the folder."""
        self.parts: list[Part] = []
        self.started_at = now
        self._folder, self._request_digest = folder, request_digest
        self._checkpoints: list[Checkpoint] = []
        self._lines: list[bytes] = []
        lines = folder.read_checkpoints()
        try:
            found_digest, started_at = msgspec.json.decode(lines[0], type=tuple[str, dt.datetime])
            checkpoints = [msgspec.json.decode(line, type=Checkpoint) for line in lines[1:]]
        except (IndexError, *UNREADABLE):
            found_digest, started_at, checkpoints = "", now, []
        if found_digest == request_digest and dt.timedelta(0) <= now - started_at <= RESUME_WITHIN:
            self.started_at, self._lines, self._checkpoints = started_at, lines, checkpoints
            self.parts = [checkpoint.part for checkpoint in checkpoints]
        elif folder.list_parts():
            why = "it had other settings, or began more than a day ago" if checkpoints else "it has no checkpoint"
            logger.info("%s: cannot resume the interrupted extraction, as %s; restarting", folder.day, why)
        folder.clear(keep=[part.name for part in self.parts])

    def resume(self, reader: Reader) -> None:
        """Move a new reader behind the last finished part. Raises MovedError if a part cannot be read."""
        if not self._checkpoints:
            return
        try:
            for part in self.parts:
                reader.census.add(unpack(self._folder.read(part)))
        except FolderError as error:  # restart instead of failing: the source still has all records
            raise MovedError(f"{self._folder.day}: {error}") from None
        last = self._checkpoints[-1]
        seen = [digest for checkpoint in self._checkpoints for digest in checkpoint.seen]
        reader.resume(last.position, last.taken, seen)
        logger.info(
            "%s: resuming the interrupted extraction after %s", self._folder.day, count(len(self.parts), "part")
        )

    def add(self, part: Part, reader: Reader, taken: int) -> None:
        """Add a finished part, which ends after `taken` records of the current page.

        After a part whose position cannot be stored, no later part becomes a checkpoint.
        """
        self.parts.append(part)
        if len(self._checkpoints) < len(self.parts) - 1:
            return
        position = reader.position
        if position is None:
            why = reader.gap or "a link looks as if it held a secret"
            logger.info("%s: no further checkpoints, as %s", self._folder.day, why)
            return
        known = self._checkpoints[-1].position.seen if self._checkpoints else 0
        checkpoint = Checkpoint(part, position, taken, reader.seen(known, position.seen))
        head = [] if self._checkpoints else [msgspec.json.encode((self._request_digest, self.started_at))]
        lines = [*head, msgspec.json.encode(checkpoint)]
        self._folder.add_checkpoints(lines, self._lines)
        self._lines += lines
        self._checkpoints.append(checkpoint)
