"""What is finished of a day that does not exist yet: by it a reading that was broken off goes on.

Owns the file `progress.jsonl` beside the parts. Its first line says what was asked for, and when; each further one
is a finished part, with where the reading stood then. Another question, or one too long ago, is a new reading.
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


class Step(msgspec.Struct, frozen=True):
    """A finished part, and where its reading stood then: at a page, after so many of its records."""

    part: Part
    position: Position
    taken: int
    seen: list[str]
    """The digests that the reading had seen since the step before."""


class Journal:
    """The parts of a day as they are finished, and since when they are read."""

    def __init__(self, folder: DayFolder, question: str, started_at: dt.datetime) -> None:
        """Empty, for an empty folder."""
        self.parts: list[Part] = []
        self.started_at = started_at
        self._folder, self._question = folder, question
        self._steps: list[Step] = []
        self._lines: list[bytes] = []
        self._seen = 0

    @classmethod
    def open(cls, folder: DayFolder, question: str, now: dt.datetime) -> "Journal":
        """What there is to go on from; whatever else lies in the folder is swept away."""
        journal = cls(folder, question, now)
        lines = folder.read_journal()
        try:
            asked, started_at = msgspec.json.decode(lines[0], type=tuple[str, dt.datetime])
            steps = [msgspec.json.decode(line, type=Step) for line in lines[1:]]
        except (IndexError, *UNREADABLE):
            asked, started_at, steps = "", now, []
        if asked == question and dt.timedelta(0) <= now - started_at <= RESUME_WITHIN:
            journal.started_at = started_at
            journal._lines, journal._steps, journal.parts = lines, steps, [step.part for step in steps]
            journal._seen = sum(len(step.seen) for step in steps)
        elif folder.has_parts():
            why = "was asked for otherwise, or a day ago" if steps else "holds no place to go on from"
            logger.info("%s: what was read before %s: it starts over", folder.day, why)
        folder.sweep(keep=[part.name for part in journal.parts])
        return journal

    def resume(self, reading: Reader) -> None:
        """Bring a new reading to where the last finished part ends."""
        if not self._steps:
            return
        try:
            for part in self.parts:
                reading.census.add(unpack(self._folder.read(part)))
        except FolderError as error:  # nobody needs to mend it: the source has it all
            raise MovedError(f"{self._folder.day}: {error}") from None
        last = self._steps[-1]
        reading.resume(last.position, last.taken, [digest for step in self._steps for digest in step.seen])
        logger.info(
            "%s: goes on after %s of a reading that was broken off", self._folder.day, count(len(self.parts), "part")
        )

    def add(self, part: Part, reading: Reader, taken: int) -> None:
        """Note a finished part, which ends after `taken` records of the page that came last.

        Behind one whose position cannot be kept there is nothing to go on from.
        """
        self.parts.append(part)
        position = reading.position if len(self._steps) == len(self.parts) - 1 else None
        if position is None:
            if len(self._steps) == len(self.parts) - 1:
                why = reading.gap or "a link looks as if it held a secret"
                logger.info("%s: an interruption from here on costs more requests, as %s", self._folder.day, why)
            return
        step = Step(part, position, taken, reading.seen(self._seen, position.seen))
        head = [] if self._steps else [msgspec.json.encode((self._question, self.started_at))]
        lines = [*head, msgspec.json.encode(step)]
        self._folder.add_to_journal(lines, self._lines)
        self._lines += lines
        self._steps.append(step)
        self._seen = position.seen
