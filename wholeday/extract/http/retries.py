"""Repeat requests that failed in a way that may pass."""

import datetime as dt
import threading
from collections.abc import Callable

import tenacity

from wholeday.errors import OutageError, UnreachableError
from wholeday.extract.http.failures import RecoverableError
from wholeday.extract.http.page import Page
from wholeday.log import count, logger
from wholeday.redaction import Mask

BACKOFF = 1.0  # seconds before the first retry, doubled for each further one
MAX_BACKOFF = 60.0


class OddAnswerError(RecoverableError):
    """An answer that fails at once on a first page. On a later page the client retries."""

    def __init__(self, what: str, hint: str, status: int = 0, *, is_refusal: bool = False) -> None:
        super().__init__(what, status=status)
        self.hint, self.is_refusal = hint, is_refusal


class DoubtfulPageError(RecoverableError):
    """A page that looks wrong and may be right. The last attempt is accepted."""

    def __init__(self, what: str, page: Page) -> None:
        super().__init__(what)
        self.page = page


class Retries:
    """Fetches a page up to `retries` more times, with growing pauses or the pause that the source asks for."""

    def __init__(self, name: str, mask: Mask, retries: int, max_wait: dt.timedelta) -> None:
        self._name, self._mask, self._retries, self._max_wait = name, mask, retries, max_wait
        self._closed = threading.Event()

    def open(self) -> None:
        """Allow pauses."""
        self._closed = threading.Event()

    def close(self) -> None:
        """End all pauses with an error, so that no thread that fetches ahead delays the process."""
        self._closed.set()

    def fetch(self, fetch: Callable[[], Page]) -> Page:
        """Return the page that `fetch` returns. Raises OutageError or UnreachableError after the last attempt."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(RecoverableError),
            stop=self._is_last,
            wait=self._choose_wait,
            sleep=self.sleep,
            before_sleep=self._log_retry,
            retry_error_callback=self._fail,
        )
        return retrying(fetch)

    def sleep(self, seconds: float) -> None:
        """Pause. Raises OutageError if the extraction ends meanwhile."""
        if self._closed.wait(seconds):
            raise OutageError(self._describe("the extraction has ended"))

    def _choose_wait(self, state: tenacity.RetryCallState) -> float:
        longest = min(MAX_BACKOFF, self._max_wait.total_seconds())
        grow = tenacity.wait_exponential(multiplier=BACKOFF, max=longest) + tenacity.wait_random(0, BACKOFF)
        return max(grow(state), _get_error(state).wait)

    def _log_retry(self, state: tenacity.RetryCallState) -> None:
        logger.info(
            "%s: %s; retry %d of %d in %.1f s",
            *(self._name, self._mask(str(_get_error(state))), state.attempt_number, self._retries),
            state.upcoming_sleep,
        )

    def _is_last(self, state: tenacity.RetryCallState) -> bool:
        return state.attempt_number > self._retries or self._is_wait_too_long(state)

    def _is_wait_too_long(self, state: tenacity.RetryCallState) -> bool:
        return _get_error(state).wait > self._max_wait.total_seconds()

    def _fail(self, state: tenacity.RetryCallState) -> Page:
        error = _get_error(state)
        if isinstance(error, DoubtfulPageError):
            return error.page
        if self._is_wait_too_long(state):
            wait = dt.timedelta(seconds=round(error.wait))
            raise OutageError(
                self._describe(
                    f"{error}: the source asks to wait {wait} (h:mm:ss), longer than max_wait {self._max_wait}: "
                    "run it again after that time, or increase max_wait"
                )
            )
        odd = error if isinstance(error, OddAnswerError) else None
        hint = odd.hint if odd else _suggest_fix(error.status)
        kind = UnreachableError if error.unreachable else OutageError
        failure = kind(self._describe(f"{error}; failed after {count(state.attempt_number, 'attempt')}: {hint}"))
        failure.is_refusal = odd is not None and odd.is_refusal
        raise failure

    def _describe(self, what: str) -> str:
        return f"{self._name}: {self._mask(what)}"


def _suggest_fix(status: int) -> str:
    """Return the next step after the last attempt. A status of 0 means that there was no answer."""
    if status == 429:
        return "the source is busy: run it again later, or lower requests_per_second"
    later = "run it again later, or increase retries"
    return f"the source is in trouble: {later}" if status else f"check url and the network, {later}"


def _get_error(state: tenacity.RetryCallState) -> RecoverableError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, RecoverableError)  # noqa: S101 - tenacity retries no other error
    return error
