"""Remember for a moment that a source cannot be reached, so that the next days of a run do not wait for it, too.

Responsibilities: one note, shared with the worker processes that a run forks.
Non-goals: other runs. A run starts without a note, and a spawned process has a note of its own.
"""

import contextlib
import datetime as dt
import mmap
import time
from collections.abc import Iterator

import msgspec

from wholeday.errors import NotRunError, UnreachableError

PAUSE = 30.0  # seconds until the next day tries again
SIZE = 4096  # bytes

_note = mmap.mmap(-1, SIZE)


class Note(msgspec.Struct):
    """An outage of a source: the day that failed, when (seconds of the epoch), and the error."""

    dataset: str
    date: dt.date
    at: float
    line: str


@contextlib.contextmanager
def watch(dataset: str, date: dt.date) -> Iterator[None]:
    """Raise NotRunError if another day has just found that the source cannot be reached; note such an outage."""
    note = _read()
    if note and (note.dataset, note.date != date) == (dataset, True) and abs(time.time() - note.at) < PAUSE:
        raise NotRunError(f"{dataset} {date}: not run, as the source cannot be reached: {note.line}")
    try:
        yield
    except UnreachableError as error:
        _note[:] = msgspec.json.encode(Note(dataset, date, time.time(), str(error)[:800])).ljust(SIZE, b"\0")
        raise


def forget() -> None:
    """Clear the note, so that the next day tries again."""
    _note[:] = bytes(SIZE)


def _read() -> Note | None:
    with contextlib.suppress(msgspec.DecodeError):  # it is empty, or another process is writing it
        return msgspec.json.decode(_note[:].rstrip(b"\0"), type=Note)
    return None
