"""Limit how many requests are in flight at a time, by how the source answers.

The limit begins at one and doubles while the source answers, up to the key `concurrency`. A refusal (429, 503) or a
timeout halves it. From then on it grows to the number that the source bore, and tries one more after many good answers:
the more often it was refused, the later.
"""

import threading

TRY_MORE_AFTER = 4  # good answers for each request in flight, doubled with each refusal


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
    """Lets at most `limit` requests begin before others have ended. Several threads may use it."""

    def __init__(self, concurrency: int) -> None:
        self.limit = 1
        """How many requests may be in flight now."""
        self._most, self._best = concurrency, concurrency
        self.is_closed = False
        self._in_flight = self._cuts = self._good = 0
        self._patience = TRY_MORE_AFTER
        self._changed = threading.Condition()

    def acquire(self) -> Slot:
        """Wait until a request may begin, or until `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_closed or self._in_flight < self.limit)
            self._in_flight += 1
            return Slot(self, self._in_flight - 1, self._cuts)

    def close(self) -> None:
        """Let nothing wait any longer. No further request may begin."""
        with self._changed:
            self.is_closed = True
            self._changed.notify_all()

    def release(self) -> None:
        """End a request."""
        with self._changed:
            self._in_flight -= 1
            self._changed.notify()

    def raise_limit(self) -> None:
        """Allow one more, unless the source refused as many before."""
        with self._changed:
            self._good += 1
            if self._best < self._most and self.limit >= self._best and self._good >= self._patience * self.limit:
                self._best, self._good = self._best + 1, 0
            if self.limit < self._best:
                self.limit += 1
                self._changed.notify()

    def cut(self, slot: Slot) -> bool:
        """Halve the limit, once for all requests that began before. Return whether it is lower now."""
        with self._changed:
            if slot.cuts != self._cuts:
                return False
            before = self.limit
            self._cuts, self._good, self._patience = self._cuts + 1, 0, 2 * self._patience
            self._best = max(1, min(self._best, slot.beside))
            self.limit = max(1, self.limit // 2)
            return self.limit < before
