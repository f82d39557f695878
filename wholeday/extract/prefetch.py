"""Fetch the next pages in threads while the page before them is processed."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from wholeday.extract.http.page import Page, Request


class Prefetcher:
    """A queue of requests in flight, in their order."""

    def __init__(self, pool: ThreadPoolExecutor, fetch: Callable[[Request], Page]) -> None:
        self._pool, self._fetch = pool, fetch
        self._queue: deque[tuple[Request, Future[Page]]] = deque()

    def schedule(self, following: Request | None, foresee: Callable[[Request], Request | None], limit: int) -> None:
        """Send `following`, and the requests that `foresee` derives from it, until `limit` are in flight.

        If `following` is not the request foreseen, cancel the foreseen ones first.
        """
        if self._queue and self._queue[0][0] == following:
            following = foresee(self._queue[-1][0])
        else:
            self.cancel()
        while following is not None and len(self._queue) < limit:
            self._queue.append((following, self._pool.submit(self._fetch, following)))
            following = foresee(following)

    def take(self) -> tuple[Request, Page]:
        """Wait for the first answer. Raises the error of its request."""
        request, future = self._queue.popleft()
        return request, future.result()

    def cancel(self) -> None:
        """Drop all requests. A request that no thread has begun is never sent."""
        for _, future in self._queue:
            future.cancel()
        self._queue.clear()
