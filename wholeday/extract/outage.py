"""Remember for a moment that a source cannot be reached, so that the next days of a run do not each wait for it.

Responsibilities: one note, shared with the worker processes that a run forks.
Non-goals: other runs. A run begins without a note. A process that is spawned has a note of its own.
"""

import contextlib
import datetime as dt
import mmap
import time
from collections.abc import Iterator

import msgspec

from wholeday.errors import NotRunError, UnreachableError

PAUSE = 30.0  # seconds for which the note holds; then one day tries again
SIZE = 4096  # bytes

_note = mmap.mmap(-1, SIZE)


class Note(msgspec.Struct):
    """An outage of a source: the day that met it, when (seconds of the clock), and its line."""

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
        _write(Note(dataset, date, time.time(), str(error)[:1000]))
        raise


def forget() -> None:
    """Let the next day try again."""
    _note[:] = bytes(SIZE)


def _read() -> Note | None:
    text = _note[:].rstrip(b"\0")
    with contextlib.suppress(msgspec.DecodeError):  # another process may be writing it
        return msgspec.json.decode(text, type=Note) if text else None
    return None


def _write(note: Note) -> None:
    text = msgspec.json.encode(note)
    if len(text) <= SIZE:
        _note[:] = text.ljust(SIZE, b"\0")
