"""Limit how many requests are in flight at a time, by how the source answers, and how many begin in a second.

The limit begins at one and doubles while the source answers, up to the key `concurrency`. A refusal (429, 503) or a
timeout halves it. From then on it grows to the number that the source bore, and tries one more after many good answers:
the more often it was refused, the later.

Responsibilities: the rules. Where the numbers are, in this process or shared with others, is the business of a board.
"""

import threading
import time

from wholeday.extract.http.board import Board

MOST_PATIENCE = 2**40


class Slot:
    """The place of one request among those in flight."""

    def __init__(self, limiter: "Limiter", beside: int, cuts: int) -> None:
        self._limiter, self.cuts = limiter, cuts
        self.beside = beside
        """How many other requests were in flight when this one began."""

    def __enter__(self) -> "Slot":
        return self

    def __exit__(self, *_: object) -> None:
        self._limiter.release()

    def confirm(self) -> None:
        """Note that the source answered."""
        self._limiter.raise_limit()

    def refuse(self) -> bool:
        """Note that the source is overloaded. Return whether that lowered the limit."""
        return self._limiter.cut(self)


class Limiter:
    """Lets at most `limit` requests begin before others have ended. Several threads may use it.

    Requests of all limiters with the same board count together.
    """

    def __init__(self, concurrency: int, requests_per_second: float = 0.0, board: Board | None = None) -> None:
        self._most, self._rate, self._board = concurrency, requests_per_second, board or Board()
        self.is_closed = False
        self._in_flight = 0
        self._changed = threading.Condition()
        self._turn = threading.Lock()

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        return min(self._board.state.limit, self._most)

    def open(self) -> None:
        """Join the board. Raises OSError."""
        self._board.join()

    def acquire(self) -> Slot | None:
        """Wait until a request may begin; None after `close`.

        One thread waits for the board, and the others for that thread: so a process stands in the queue only once.
        """
        with self._turn, self._changed:
            while not self.is_closed:
                with self._board as state:
                    if self._board.take(min(state.limit, self._most)):
                        self._in_flight += 1
                        return Slot(self, state.in_flight - 1, state.cuts)
                self._changed.wait(self._board.poll)
            return None

    def close(self) -> None:
        """Let nothing wait any longer. No further request may begin."""
        with self._changed:
            if not self.is_closed:
                self.is_closed = True
                self._changed.notify_all()
                with self._board:
                    self._board.withdraw()
                self._leave()

    def release(self) -> None:
        """End a request."""
        with self._changed:
            self._in_flight -= 1
            with self._board:
                self._board.give_back()
            self._changed.notify()
            self._leave()

    def raise_limit(self) -> None:
        """Allow one more, unless the source refused as many before."""
        with self._changed, self._board as state:
            state.good += 1
            if state.best < self._most and state.limit >= state.best and state.good >= state.patience * state.limit:
                state.best, state.good = state.best + 1, 0
            if state.limit < min(state.best, self._most):
                state.limit += 1
                self._changed.notify()

    def cut(self, slot: Slot) -> bool:
        """Halve the limit, once for all requests that began before. Return whether it is lower now."""
        with self._changed, self._board as state:
            if slot.cuts != state.cuts:
                return False
            before = state.limit
            state.cuts, state.good, state.patience = state.cuts + 1, 0, min(2 * state.patience, MOST_PATIENCE)
            state.best = max(1, min(state.best, slot.beside))
            state.limit = max(1, before // 2)
            return state.limit < before

    def reserve(self) -> float:
        """Reserve the next start that `requests_per_second` allows. Return the seconds until then."""
        if self._rate <= 0:
            return 0.0
        with self._changed, self._board as state:
            now = time.monotonic()
            if state.reserved_at > now:  # the machine has been started again, and with it the clock
                state.next_start = 0.0
            start = max(now, state.next_start)
            state.next_start, state.reserved_at = start + 1 / self._rate, now
            return start - now

    def _leave(self) -> None:
        """Leave the board after the last request."""
        if self.is_closed and self._in_flight == 0:
            self._board.leave()
