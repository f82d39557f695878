"""Keep the numbers of a limiter: in this process, or in a file that all processes of a source on this machine share.

Responsibilities: the requests in flight, the queue of the processes that wait, and the end of a killed process. The
kernel releases its locks, so the others take its requests off the board.
Non-goals: the rules of the limits, which `limiter` has.
"""

import contextlib
import ctypes
import hashlib
import mmap
import os
import time
from io import FileIO
from pathlib import Path
from urllib.parse import urlsplit

from wholeday.storage import files

SEATS = 64  # processes that may share a board
MOST = 64  # requests in flight: the largest value of `concurrency`
TRY_MORE_AFTER = 4  # good answers for each request in flight, doubled with each refusal
POLL = 0.005  # seconds between two questions of a process that waits
ABSENT = 2.0  # seconds without a question, after which others need not wait for a process, which may be stopped


class Seat(ctypes.Structure):
    """What one process has on the board."""

    _fields_ = (("in_flight", ctypes.c_int64), ("ticket", ctypes.c_int64), ("asked_at", ctypes.c_double))

    in_flight: int
    ticket: int
    """Its place in the queue; 0 if it does not wait."""
    asked_at: float


class Numbers(ctypes.Structure):
    """The numbers of a board. Times are those of the monotonic clock."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("limit", "best", "cuts", "good", "patience")),
        *((name, ctypes.c_int64) for name in ("in_flight", "waiting", "tickets")),
        *((name, ctypes.c_double) for name in ("next_start", "reserved_at")),
        ("seats", Seat * SEATS),
    )

    limit: int
    best: int
    """The number of requests that the source bears; MOST until it refuses one."""
    cuts: int
    good: int
    patience: int
    in_flight: int
    waiting: int
    tickets: int
    next_start: float
    reserved_at: float
    seats: "ctypes.Array[Seat]"

    def begin(self) -> None:
        """Forget all but the pace."""
        self.limit, self.best, self.patience = 1, MOST, TRY_MORE_AFTER
        self.cuts = self.good = self.in_flight = self.waiting = self.tickets = 0
        ctypes.memset(self.seats, 0, ctypes.sizeof(self.seats))

    def count(self) -> None:
        """Count the seats again."""
        self.in_flight = sum(seat.in_flight for seat in self.seats)
        self.waiting = sum(seat.ticket > 0 for seat in self.seats)


class Board:
    """The numbers of one limiter, in this process. The caller keeps other threads out."""

    poll: float | None = None
    """Seconds until a process that waits must ask again; None if a change wakes it."""

    def __init__(self) -> None:
        self.state = Numbers()
        self.state.begin()

    def __enter__(self) -> Numbers:
        """Let no other process change the numbers within the block."""
        return self.state

    def __exit__(self, *_: object) -> None:
        pass

    def join(self) -> None:
        """Take part. Raises OSError."""

    def leave(self) -> None:
        """Take part no longer."""

    def take(self, limit: int) -> bool:
        """Begin a request if fewer than `limit` are in flight, or queue for it. Return whether it has begun."""
        if self.state.in_flight >= limit:
            return False
        self.state.in_flight += 1
        return True

    def give_back(self) -> None:
        """End a request."""
        self.state.in_flight -= 1

    def withdraw(self) -> None:
        """Leave the queue."""


class SharedBoard(Board):
    """The numbers of all limiters with the same folder."""

    poll = POLL

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._number = 0
        self._file: FileIO | None = None
        self._chair: FileIO | None = None
        """The open file whose lock shows that this process is alive."""

    def __enter__(self) -> Numbers:
        if self._file is not None:
            files.lock(self._file)
        return self.state

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            files.unlock(self._file)

    def join(self) -> None:
        """Take a seat. The first process begins with the smallest limit, as without a board."""
        files.make_folder(self._folder, private=True)
        size = ctypes.sizeof(Numbers)
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(self._open("limits"))
            files.lock(file)
            if os.fstat(file.fileno()).st_size < size:
                files.write_all(file, bytes(size))  # on the disk: with a hole, a full disk would kill the process
            state = Numbers.from_buffer(mmap.mmap(file.fileno(), size))
            seats = [self._sit(number) for number in range(SEATS)]
            free = next((number for number, seat in enumerate(seats) if seat), None)
            for number, seat in enumerate(seats):
                if seat and number != free:
                    seat.close()
            if free is None:
                raise OSError(f"{SEATS} processes share {self._folder} already")
            if all(seats) or state.limit < 1:
                state.begin()
            ctypes.memset(ctypes.byref(state.seats[free]), 0, ctypes.sizeof(Seat))
            state.count()
            files.unlock(file)
            self._file, self._chair, self._number, self.state = file, seats[free], free, state
            stack.pop_all()

    def leave(self) -> None:
        if self._file is None or self._chair is None:
            return
        with self as state:
            ctypes.memset(ctypes.byref(state.seats[self._number]), 0, ctypes.sizeof(Seat))
            state.count()
            self.state = Numbers.from_buffer_copy(state)
        self._file.close()
        self._chair.close()
        self._file = None

    def take(self, limit: int) -> bool:
        state, seat = self.state, self.state.seats[self._number]
        if state.in_flight < limit and (not state.waiting or self._is_first(seat)):
            seat.in_flight += 1
            state.in_flight += 1
            self.withdraw()
            return True
        if not seat.ticket:
            state.tickets += 1
            seat.ticket = state.tickets
        seat.asked_at = time.monotonic()
        self._sweep()
        return False

    def give_back(self) -> None:
        self.state.in_flight -= 1
        self.state.seats[self._number].in_flight -= 1

    def withdraw(self) -> None:
        seat = self.state.seats[self._number]
        if seat.ticket:
            seat.ticket = 0
            self.state.waiting -= 1

    def _is_first(self, own: Seat) -> bool:
        """Return whether no process that still asks has waited longer."""
        since = time.monotonic() - ABSENT
        place = own.ticket or self.state.tickets + 1
        return not any(0 < seat.ticket < place and seat.asked_at > since for seat in self.state.seats)

    def _sweep(self) -> None:
        """Clear the seats of processes that have ended."""
        for number, seat in enumerate(self.state.seats):
            if number != self._number and (seat.in_flight or seat.ticket) and (file := self._sit(number)):
                ctypes.memset(ctypes.byref(seat), 0, ctypes.sizeof(Seat))
                file.close()
        self.state.count()

    def _sit(self, number: int) -> FileIO | None:
        """Return the locked file of a seat; None if another process has it."""
        file = self._open(f"seat-{number}")
        try:
            files.lock(file, wait=False)
        except OSError as error:
            file.close()
            if isinstance(error, BlockingIOError):
                return None
            raise
        return file

    def _open(self, name: str) -> FileIO:
        path = self._folder / name
        files.make_file(path, private=True)
        return path.open("r+b", buffering=0)


def find_folder(name: str, base: str) -> Path:
    """Return the folder of the board of a source: all processes of this user on this machine find the same one.

    Not in data_dir, as several projects may read one source, and as data_dir may be a bucket.
    """
    parts = urlsplit(base)
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
    key = hashlib.sha256(f"{name} {address}".encode()).hexdigest()[:16]
    cache = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(cache, "wholeday", "sources", key)
