"""Fetches pages over HTTP from one origin, with patience and without a word of secrets.

Owns what is sent (once, or again after how long) and to whom; refuses to follow the source to another
origin, where it would carry the token along. Several threads may fetch at once.
"""

import contextlib
import datetime as dt
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http import HTTPStatus
from urllib.parse import urljoin, urlsplit

import requests
import tenacity
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import HTTPError

from wholeday import clock
from wholeday.config.source import Source
from wholeday.errors import OutageError, SourceError, UnreachableError
from wholeday.extract.http import pages
from wholeday.extract.http.auth import Auth
from wholeday.extract.http.bodies import unfold
from wholeday.extract.http.body_errors import BodyErrors
from wholeday.extract.http.deadline import limit, pause
from wholeday.extract.http.page import Page
from wholeday.extract.http.pages import (
    START_BYTES,
    BadPageError,
    MissingListError,
    RecoverableError,
    RefusedPageError,
    check_end,
    explain,
    read_body,
    read_start,
    refuse,
    select_list,
    split_list,
    suggest_end,
)
from wholeday.extract.http.request import Request
from wholeday.extract.http.session import Session, find_tls_problem, is_unreachable
from wholeday.extract.http.waits import find_time, find_wait, is_limited
from wholeday.log import count, logger
from wholeday.redaction import Mask
from wholeday.text import clean_line

MAX_REDIRECTS = 10
BACKOFF = 1.0  # seconds before the first retry, doubled for each further one
MAX_BACKOFF = 60.0
EXCERPT = 120  # characters of a body in an error
CLOCK_TOLERANCE = dt.timedelta(seconds=5)  # a Date header has whole seconds, and the answer takes its time

WHOLE = frozenset({200, 203, 206})  # a page is a part; the other 2xx say that this is not the answer
REDIRECTS = frozenset({301, 302, 303, 307, 308})
REPEATING = frozenset({307, 308})  # the redirects after which a POST is a POST still
BROKEN = frozenset({500, 501})  # what some answer to a parameter that they do not expect
RECOVERABLE = frozenset({408, 425, 429})
GONE = frozenset({400, 404, 410, 422})  # what an expired cursor is answered with
SILENT = frozenset({401, 403, 407})  # nothing that such an answer says is shown: many repeat what was sent
PROBLEM = re.compile(r"application/problem\+\w+", re.IGNORECASE)  # RFC 9457
HINTS = {
    400: "check url, params, body and headers",
    401: "check auth, and the secret it names",
    403: "check auth, and what its secret may read",
    404: "check url",
    407: "check the user and password in HTTP_PROXY or HTTPS_PROXY",
    410: "check url",
}


class AnswerError(SourceError):
    """An answer came that cannot be used, and would not be another time."""


class _OddAnswerError(RecoverableError):
    """An answer that fails at once on a first page, and is asked for again behind it."""

    def __init__(self, what: str, hint: str, status: int = 0, *, is_refusal: bool = False) -> None:
        super().__init__(what, status=status)
        self.hint, self.is_refusal = hint, is_refusal


class _DoubtfulPageError(RecoverableError):
    """A page that may be right, and is worth asking for again."""

    def __init__(self, what: str, page: Page) -> None:
        super().__init__(what)
        self.page = page


class Client:
    """Fetches pages from the origin of one URL, and from no other, with patience and without a word of secrets."""

    def __init__(self, config: Source, date: dt.date) -> None:
        self._config = config
        self._name = f"{config.section} {date}"
        self.mask = Mask(config.secrets)
        self._auth = Auth(config, self.mask)
        self.selector = None if config.data_selector == "auto" else config.data_selector
        self._errors, self._ends = BodyErrors(config.error_path, config.ok_when), config.ends
        self._pace = threading.Lock()
        self._free_at = 0.0

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Hold the connections, and keep secrets out of what urllib3 logs meanwhile."""
        self._origin: str | None = None  # of the first request
        self._closed = threading.Event()
        with Session(self._auth) as self._session, self.mask.cover():
            if urlsplit(self._config.url).scheme == "demo":
                from wholeday.extract.http.demo import DemoAdapter

                self._session.mount("demo://", DemoAdapter())
            try:
                yield
            finally:
                self._closed.set()

    def fail(self, what: str, kind: type[SourceError] = SourceError) -> SourceError:
        """The error that `what` is, to be raised."""
        return kind(self._describe(what))

    def _describe(self, what: str) -> str:
        return f"{self._name}: {self.mask(what)}"

    def fetch(self, request: Request, *, is_first: bool = False) -> Page:
        """The page that answers `request`. Raises SourceError, if need be after retries.

        On a first page an answer that cannot be used is an AnswerError at once. Behind it the client retries such an
        answer as it retries a 503.
        """

        def fetch() -> Page:
            try:
                return self._fetch_once(request, is_first=is_first)
            except _OddAnswerError as error:
                if is_first:
                    raise self._refuse(error) from None
                raise

        return self._retry(fetch)

    def ask_again(self, request: Request, page: Page, doubt: Callable[[Page], str]) -> Page:
        """Ask for a page again while `doubt` names what is wrong with it, as often as after a 503; the last that came.

        Raises SourceError.
        """
        came = [page]

        def fetch() -> Page:
            page = came.pop() if came else self._fetch_once(request)
            if what := doubt(page):
                raise _DoubtfulPageError(f"{request}: {what}", page)
            return page

        return self._retry(fetch)

    def probe(self, request: Request) -> Page | None:
        """The page that answers `request`; None where the source refuses it, breaks on it or sends what is no page."""
        try:
            return self._fetch_once(request)
        except _OddAnswerError:
            return None
        except RecoverableError as error:
            if error.status in BROKEN:
                return None
        try:
            return self.fetch(request, is_first=True)
        except AnswerError:
            return None

    def _retry(self, fetch: Callable[[], Page]) -> Page:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(RecoverableError),
            stop=self._is_enough,
            wait=self._choose_wait,
            sleep=self._sleep,
            before_sleep=self._log_retry,
            retry_error_callback=self._give_up,
        )
        return retrying(fetch)

    def _refuse(self, error: _OddAnswerError) -> SourceError:
        return self.fail(f"{error}: {error.hint}", AnswerError)

    def _sleep(self, seconds: float) -> None:
        """Wait, but not for a reading that is over: a thread that fetched ahead would hold up the process."""
        if self._closed.wait(seconds):
            raise self.fail("the reading was given up", OutageError)

    def _choose_wait(self, state: tenacity.RetryCallState) -> float:
        longest = min(MAX_BACKOFF, self._config.max_wait.total_seconds())
        grow = tenacity.wait_exponential(multiplier=BACKOFF, max=longest) + tenacity.wait_random(0, BACKOFF)
        return max(grow(state), _get_error(state).wait)

    def _log_retry(self, state: tenacity.RetryCallState) -> None:
        logger.info(
            "%s: %s; retry %d of %d in %.1f s",
            *(self._name, self.mask(str(_get_error(state))), state.attempt_number, self._config.retries),
            state.upcoming_sleep,
        )

    def _is_enough(self, state: tenacity.RetryCallState) -> bool:
        """Whether it is not to be asked again: it was often enough, or is to be later than is waited for."""
        return state.attempt_number > self._config.retries or self._is_too_long(state)

    def _is_too_long(self, state: tenacity.RetryCallState) -> bool:
        return _get_error(state).wait > self._config.max_wait.total_seconds()

    def _give_up(self, state: tenacity.RetryCallState) -> Page:
        error = _get_error(state)
        if isinstance(error, _DoubtfulPageError):
            return error.page
        if self._is_too_long(state):
            asked = dt.timedelta(seconds=round(error.wait))
            raise self.fail(
                f"{error}: the source asks to wait {asked} (h:mm:ss), longer than max_wait {self._config.max_wait}: "
                "run it again after that, or set max_wait higher",
                OutageError,
            )
        odd = error if isinstance(error, _OddAnswerError) else None
        hint = odd.hint if odd else _find_hint(error.status)
        kind = UnreachableError if error.unreachable else OutageError
        failure = kind(self._describe(f"{error}; failed after {count(state.attempt_number, 'attempt')}: {hint}"))
        failure.is_refusal = odd is not None and odd.is_refusal
        raise failure

    def _fetch_once(self, request: Request, *, is_first: bool = False) -> Page:
        """The answer to `request`; one that `end_when` takes for the end is asked for twice before it is believed."""
        page = self._ask(request, is_first=is_first)
        return self._ask(request, is_first=is_first) if page.end else page

    def _ask(self, request: Request, *, is_first: bool) -> Page:
        """The answer to `request`. Redirects, a renewed token and the body share one deadline."""
        with limit(pages.MAX_SECONDS):
            return self._read_answer(request, is_first=is_first)

    def _read_answer(self, request: Request, *, is_first: bool) -> Page:
        what = f"{request.method} {request.target}"
        with self._authorised(request) as response:
            self._check_headers(what, response)
            if end := self._check_status(what, response, is_first=is_first):
                return Page(response.url, {}, [], end=end)
            self._check_clock(what, response)
            body = b""
            try:
                body = read_body(response)
                if PROBLEM.match(response.headers.get("Content-Type", "")):
                    raise RefusedPageError("the body is a problem report (RFC 9457)", "find out why")
                unfolded = unfold(body, self.selector, response.headers.get("Content-Type", ""))
                if unfolded.is_lines:
                    check_end(response)
                refuse(self._errors.find_in_object(unfolded.said))
                selector, content, fields = select_list(
                    *(unfolded.body, unfolded.selector, self._errors),
                    *(self._config.total_path, self._config.section),
                )
                if self.selector is None:
                    self.selector = selector
                headers = CaseInsensitiveDict({name: _read_header(text) for name, text in response.headers.items()})
                return Page(response.url, headers, split_list(content), fields, content)
            except RecoverableError as error:
                raise RecoverableError(f"{what}: {error}") from None
            except BadPageError as error:
                if isinstance(error, MissingListError) and "missing_list" in self._ends:
                    return Page(response.url, response.headers, [], error.fields, end="missing_list")
                came = f"{response.status_code} {response.reason}: {self._quote(error.body or body)}"
                refused = isinstance(error, RefusedPageError)
                raise _OddAnswerError(f"{what}: {error} ({came})", error.hint, is_refusal=refused) from None

    def _authorised(self, request: Request) -> requests.Response:
        """The answer to `request`, asked for once more with a new token where the one that was sent has run out."""
        response = self._follow(request)
        if response.status_code == 401 and self._auth.renew(response.request):
            response.close()
            response = self._follow(request)
        return response

    def _follow(self, request: Request) -> requests.Response:
        """The answer to `request`, through redirects within the origin."""
        came_from, is_link = f"the link to {request.target}", True
        step = replace(request, url=request.target, params={})
        for _ in range(MAX_REDIRECTS + 1):
            response = self._send(step, came_from, is_link)
            location = response.headers.get("Location")
            if response.status_code not in REDIRECTS or location is None:
                return response
            response.close()
            came_from, is_link = f"a redirect from {step.url}", False
            if request.method != "GET" and response.status_code not in REPEATING:
                raise self.fail(
                    f"{came_from} ({response.status_code}) would drop what {request.method} sends: check url"
                )
            try:
                step = replace(step, url=urljoin(step.url, _read_header(location)))
            except ValueError as error:
                raise self.fail(f"{came_from} leads to what is no URL ({error}): check url") from None
        raise self.fail(
            f"{request.method} {request.target}: more than {MAX_REDIRECTS} redirects, the last to {step.url}: check url"
        )

    def _send(self, request: Request, came_from: str, is_link: bool) -> requests.Response:
        """The one place where anything is sent: to the first URL's origin, and the URL is read as requests will."""
        with pause():
            self._keep_pace()
        what = f"{request.method} {request.url}"
        headers = {**({"Content-Type": "application/json"} if request.content else {}), **request.headers}
        try:
            prepared = self._session.prepare_request(
                requests.Request(request.method, request.url, headers=headers, data=request.content)
            )
            target = prepared.url or ""
            origin = _find_origin(target)
            if self._origin is None:
                self._origin = origin
                self._session.settle(target)
            if origin == self._origin:
                return self._session.send(prepared, timeout=self._config.timeout, allow_redirects=False)
        except (requests.ConnectionError, requests.Timeout) as error:
            failure: Exception = RecoverableError(f"{what}: {explain(error)}", unreachable=is_unreachable(error))
            if problem := find_tls_problem(error):
                failure = self.fail(f"{what}: {problem.what}: {problem.hint}", UnreachableError)
        except (OSError, ValueError, HTTPError) as error:
            failure = self.fail(f"{what} cannot be sent: {error}: check url, headers, proxies and REQUESTS_CA_BUNDLE")
        else:
            failure = self.fail(
                f"{came_from} leads to {origin}, another origin than {self._origin}: refused, and nothing was sent "
                f"there; {_find_way(self._origin, origin, is_link)}"
            )
        raise failure

    def _keep_pace(self) -> None:
        if self._config.requests_per_second > 0:
            with self._pace:
                now = time.monotonic()
                start = max(now, self._free_at)
                self._free_at = start + 1 / self._config.requests_per_second
            self._sleep(start - now)

    def _check_headers(self, what: str, response: requests.Response) -> None:
        """Have the request made again where a line of its headers is none: what followed it was dropped."""
        message = getattr(getattr(response.raw, "_original_response", None), "msg", None)
        if message is not None and message.defects:
            raise RecoverableError(f"{what}: a line in the headers of the answer is no header")

    def _check_status(self, what: str, response: requests.Response, *, is_first: bool) -> str:
        """Fail where a status says that this is not the page; the word of `end_when` by which it is the end, if any."""
        status = response.status_code
        if status in WHOLE:
            return ""
        end = str(status) if status == 204 or (status in (400, 404) and not is_first) else ""
        if end in self._ends:
            return end
        said = f"{status} {response.reason}: {self._quote(read_start(response))}"
        what = f"{what}: {f'{status} {HTTPStatus(status).phrase}' if status in SILENT else said}"
        limited = status == 403 and is_limited(response.headers)
        if limited or status in RECOVERABLE or status >= 500:
            raise RecoverableError(what, find_wait(status, response.headers), status)
        hint = HINTS.get(status, "check url and params")
        if status in (401, 403):
            raise self.fail(f"{what}: {hint}", OutageError)
        hint += f"; {suggest_end(end)}" if end else ""
        raise _OddAnswerError(what, hint, status, is_refusal=status in GONE)

    def _check_clock(self, what: str, response: requests.Response) -> None:
        """Fail where the source's clock and ours are too far apart for `settle` to make up for it."""
        theirs, ours = find_time(response.headers), clock.utc_now()
        allowed = max(self._config.settle, CLOCK_TOLERANCE)
        if theirs is not None and abs(theirs - ours) > allowed:
            seconds = (theirs - ours).total_seconds()
            raise self.fail(
                f"{what}: the source's clock (Date: {response.headers['Date']}) is {abs(seconds):.0f} s "
                f"{'ahead of' if seconds > 0 else 'behind'} ours, more than settle {allowed} covers: set the clock "
                "of this machine, or settle higher"
            )

    def _quote(self, body: bytes) -> str:
        """The first characters of a body, fit for a line."""
        text = self.mask(body[:START_BYTES].decode("utf-8", "replace"))
        text = clean_line(text)
        return f"'{text[:EXCERPT]}…'" if len(text) > EXCERPT else f"'{text}'"


def _read_header(text: str) -> str:
    """A header in UTF-8, where it is: http.client takes each of its bytes for a character."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


def _find_hint(status: int) -> str:
    """What to do where a request was made in vain as often as it may be; a status of 0 is none."""
    if status == 429:
        return "the source is busy: run it again later, or set requests_per_second lower"
    later = "run it again later, or set retries higher"
    return f"the source is in trouble: {later}" if status else f"check url and the network, {later}"


def _find_way(own: str, other: str, is_link: bool) -> str:
    """Say how to read a source that leads to another origin, but not in a way that sends a secret unencrypted."""
    ways = []
    if is_link and other.startswith(("http://", "https://")):
        ways.append("if the same source answers behind a proxy, set next_link = path")
    if other.startswith("https://") or (own.startswith("http://") and other.startswith("http://")):
        ways.append("if that host is to be read, set url to it")
    if not ways:
        ways.append("check paginator and its keys" if is_link else "set url to the address that needs no redirect")
    return "; ".join(ways)


def _get_error(state: tenacity.RetryCallState) -> RecoverableError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, RecoverableError)  # noqa: S101 - nothing else is retried
    return error


def _find_origin(url: str) -> str:
    """Scheme, host and port of a URL. Raises ValueError where it is none."""
    parts = urlsplit(url)
    port = parts.port if parts.port is not None else {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{parts.hostname or ''}" + (f":{port}" if port is not None else "")
