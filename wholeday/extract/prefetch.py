"""Fetch the next pages in threads while the page before them is processed."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from wholeday.extract.http.page import Page, Request

Foresee = Callable[[Request, Request], Request | None]
"""Returns the request after the second of two requests, which followed the first; None if that is not known."""


class Prefetcher:
    """A queue of requests in flight or answered, in their order."""

    def __init__(self, pool: ThreadPoolExecutor, fetch: Callable[[Request], tuple[Request, Page]]) -> None:
        self._pool, self._fetch = pool, fetch
        self._queue: deque[tuple[Request, Future[tuple[Request, Page]]]] = deque()

    def schedule(self, request: Request, following: Request | None, foresee: Foresee, limit: int) -> None:
        """Send `following`, which follows `request`, and the requests foreseen behind it, until `limit` are there.

        If `following` is not the request foreseen, cancel the foreseen ones first.
        """
        if self._queue and self._queue[0][0] == following:
            before, last = [request, *(each for each, _ in self._queue)][-2:]
            following = foresee(before, last)
        else:
            self.cancel()
            last = request
        while following is not None and len(self._queue) < limit:
            self._queue.append((following, self._pool.submit(self._fetch, following)))
            last, following = following, foresee(last, following)

    def take(self) -> tuple[Request, Page]:
        """Wait for the first answer, and return it with its request. Raises the error of the request."""
        return self._queue.popleft()[1].result()

    def cancel(self) -> None:
        """Drop all requests. A request that no thread has begun is never sent."""
        for _, future in self._queue:
            future.cancel()
        self._queue.clear()
