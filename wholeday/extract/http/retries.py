"""Repeat requests that failed in a way that may pass."""

import contextlib
import datetime as dt
import random
import threading
from collections.abc import Callable, Iterator

from wholeday.config.source import Source
from wholeday.errors import OutageError, SourceError, UnreachableError
from wholeday.extract.http.failures import DoubtfulPageError, RecoverableError
from wholeday.extract.http.page import Page
from wholeday.log import count, logger

BACKOFF = 1.0  # seconds before the first retry, doubled for each further one
MAX_BACKOFF = 60.0
MAX_CROWDED = 8  # refusals that do not count as attempts, because other requests ran at the same time

Fail = Callable[..., SourceError]
"""Builds the error for a text, and optionally its class."""


class Retries:
    """Fetches a page up to `retries` more times, with growing pauses or the pause that the source asks for."""

    def __init__(self, config: Source, fail: Fail) -> None:
        self._retries, self._max_wait, self._fail = config.retries, config.max_wait, fail

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Allow pauses within the block. Its end ends them with an error, so that no thread delays the process."""
        self._closed = threading.Event()
        try:
            yield
        finally:
            self._closed.set()

    def fetch(self, fetch: Callable[[], Page]) -> Page:
        """Return the page that `fetch` returns. Raises OutageError or UnreachableError after the last attempt."""
        attempt, crowded = 1, 0
        while True:
            try:
                return fetch()
            except RecoverableError as error:
                if error.is_crowded and crowded < MAX_CROWDED and error.wait <= BACKOFF:
                    crowded += 1
                    self.sleep(error.wait)
                    continue
                is_too_long = error.wait > self._max_wait.total_seconds()
                if attempt > self._retries or is_too_long:
                    if isinstance(error, DoubtfulPageError):
                        return error.page
                    raise self._explain_wait(error) if is_too_long else self._explain_end(error, attempt) from None
                longest = min(MAX_BACKOFF, self._max_wait.total_seconds())
                grown = min(BACKOFF * 2 ** (attempt - 1), longest) + random.uniform(0, BACKOFF)  # noqa: S311 - no secret
                pause = max(grown, error.wait)
                logger.info("%s; retry %d of %d in %.1f s", self._fail(str(error)), attempt, self._retries, pause)
            self.sleep(pause)
            attempt += 1

    def sleep(self, seconds: float) -> None:
        """Pause. Raises OutageError if the extraction ends meanwhile."""
        if self._closed.wait(seconds):
            raise self._fail("the extraction has ended", OutageError)

    def _explain_wait(self, error: RecoverableError) -> SourceError:
        wait = dt.timedelta(seconds=round(error.wait))
        return self._fail(
            f"{error}: the source asks to wait {wait} (h:mm:ss), longer than max_wait {self._max_wait}: "
            "run it again after that time, or increase max_wait",
            OutageError,
        )

    def _explain_end(self, error: RecoverableError, attempts: int) -> SourceError:
        hint = error.hint or _suggest_fix(error.status)
        kind = UnreachableError if error.unreachable else OutageError
        failure = self._fail(f"{error}; failed after {count(attempts, 'attempt')}: {hint}", kind)
        failure.is_refusal = error.is_refusal
        return failure


def _suggest_fix(status: int) -> str:
    """Return the next step after the last attempt. A status of 0 means that there was no answer."""
    if status == 429:
        return "the source is busy: run it again later, or lower requests_per_second"
    later = "run it again later, or increase retries"
    return f"the source is in trouble: {later}" if status else f"check url and the network, {later}"
