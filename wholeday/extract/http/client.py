"""Fetch pages over HTTP: send a request, retry it, and turn its answer into a page.

Responsibilities: which answers are pages, which are failures, and which failures are retried. No error shows a secret.
Several threads may fetch at once.
"""

import contextlib
import datetime as dt
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http import HTTPStatus

import requests
from requests.structures import CaseInsensitiveDict

from wholeday import clock
from wholeday.config.source import Source
from wholeday.errors import ConfigError, OutageError, SourceError
from wholeday.extract.http import deadline, failures
from wholeday.extract.http.auth import Auth
from wholeday.extract.http.board import SharedBoard, find_folder
from wholeday.extract.http.body import START_BYTES, check_end, read_body, read_start
from wholeday.extract.http.envelope import read_header_objects, split_list
from wholeday.extract.http.limiter import Limiter
from wholeday.extract.http.page import Page, Request, digest
from wholeday.extract.http.record_list import ListFinder
from wholeday.extract.http.retries import Retries
from wholeday.extract.http.transport import Transport, decode_header
from wholeday.extract.http.waits import may_pass, parse_time, parse_wait
from wholeday.log import logger
from wholeday.redaction import Mask
from wholeday.schema.depth import may_be_deep
from wholeday.text import clean_line

EXCERPT = 120  # characters of a body in an error
CLOCK_TOLERANCE = dt.timedelta(seconds=5)  # a Date header has whole seconds, and the answer takes time to arrive

PAGES = frozenset({200, 203, 206})  # 206: a page is a part of the data
SERVER_BUGS = frozenset({500, 501})  # the answer of some sources to an unexpected parameter
OVERLOADED = (429, 503)
REFUSALS = frozenset({400, 404, 410, 422})  # the answers to an expired cursor
SILENT = frozenset({401, 403, 407})  # errors do not quote these answers, as many repeat the secret
PROBLEM = re.compile(r"application/problem\+\w+", re.IGNORECASE)  # RFC 9457
HINTS = {
    400: "check url, params, body and headers",
    401: "check auth, and the secret it names",
    403: "check auth, and the permissions of its secret",
    404: "check url",
    407: "check the user and password in HTTP_PROXY or HTTPS_PROXY",
    410: "check url",
}


class AnswerError(SourceError):
    """The source sent an unusable answer, and would send it again."""


class Client:
    """Fetches pages from the origin of one URL."""

    def __init__(self, config: Source, date: dt.date) -> None:
        self._config = config
        self._name = f"{config.section} {date}"
        self.mask = Mask(config.secrets)
        self.lists = ListFinder(config)
        board = SharedBoard(find_folder(config.source, config.base)) if config.source else None
        self.limiter = Limiter(config.concurrency, config.requests_per_second, board)
        self._retries = Retries(config, self.fail)
        self._transport = Transport(config, Auth(config, self.mask), self.fail, self._keep_pace)

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Keep connections open within the block, and secrets out of the log of urllib3."""
        with self._transport.open(), self.mask.cover(), self._retries.open():
            try:
                self.limiter.open()
            except OSError as error:
                raise ConfigError(
                    f"[{self._config.section}] source = {self._config.source}: cannot share its limits with other "
                    f"processes: {error}: set the environment variable XDG_CACHE_HOME to a folder on a local disk that "
                    "this user can write to"
                ) from error
            try:
                yield
            finally:
                self.limiter.close()

    def fail(self, what: str, kind: type[SourceError] = SourceError) -> SourceError:
        """Build the error for a failure, without secrets."""
        return kind(f"{self._name}: {self.mask(what)}")

    def fetch(self, request: Request, *, is_first: bool = False) -> Page:
        """Fetch a page. Raises SourceError, if necessary after retries.

        An unusable answer to a first page raises AnswerError at once. On later pages it is retried like a 503.
        """

        def fetch() -> Page:
            try:
                return self._fetch_once(request, is_first=is_first)
            except failures.OddAnswerError as error:
                if not is_first:
                    raise
                failure = self.fail(f"{error}: {error.hint}", AnswerError)
                failure.status = error.status
                raise failure from None

        return self._retries.fetch(fetch)

    def ask_again(self, request: Request, page: Page, doubt: Callable[[Page], str]) -> Page:
        """Fetch a page again while `doubt` finds a problem in it, as often as after a 503. Return the last page.

        Raises SourceError.
        """
        received = [page]

        def fetch() -> Page:
            page = received.pop() if received else self._fetch_once(request)
            if what := doubt(page):
                raise failures.DoubtfulPageError(f"{request}: {what}", page)
            return page

        return self._retries.fetch(fetch)

    def probe(self, request: Request) -> Page | None:
        """Fetch a page that may not exist; None if the source refuses it, fails on it or sends something else."""
        try:
            return self._fetch_once(request)
        except failures.OddAnswerError:
            return None
        except failures.RecoverableError as error:
            if error.status in SERVER_BUGS:
                return None
        try:
            return self.fetch(request, is_first=True)
        except AnswerError:
            return None

    def fetch_unless_refused(self, request: Request) -> Page | None:
        """Fetch a page like `fetch`; None if the status says that the source does not accept the request."""

        def fetch() -> Page:
            try:
                return self._fetch_once(request)
            except failures.OddAnswerError as error:
                if error.status in REFUSALS:
                    raise self.fail(str(error), AnswerError) from None
                raise

        try:
            return self._retries.fetch(fetch)
        except AnswerError:
            return None

    def _fetch_once(self, request: Request, *, is_first: bool = False) -> Page:
        """Fetch a page without retries. An end by `end_when` is believed if the source repeats it."""
        page = self._ask(request, is_first=is_first)
        return self._ask(request, is_first=is_first) if page.end else page

    def _ask(self, request: Request, *, is_first: bool) -> Page:
        """Send a request as soon as the limiter lets it begin, and read its answer."""
        slot = self.limiter.acquire()
        if slot is None:
            raise self.fail("the extraction has ended", OutageError)
        with slot:
            asked_at = time.monotonic()
            try:
                page = self._read_answer(request, is_first=is_first)
            except failures.RecoverableError as error:
                if error.status in OVERLOADED or error.unreachable:
                    error.is_crowded = error.status in OVERLOADED and slot.beside > 0
                    if slot.refuse():
                        logger.info("%s; fewer requests at a time: %d", self.fail(str(error)), self.limiter.limit)
                raise
            slot.confirm()
            return replace(page, asked_at=asked_at, came_at=time.monotonic())

    def _keep_pace(self) -> None:
        """Wait until `requests_per_second` allows the next request."""
        if wait := self.limiter.reserve():
            self._retries.sleep(wait)

    def _read_answer(self, request: Request, *, is_first: bool) -> Page:
        """Send a request and read its answer. Redirects, a new token and the body share one deadline."""
        what = f"{request.method} {request.target}"
        with deadline.limit(deadline.MAX_SECONDS), self._transport.send(request) as response:
            self._check_headers(what, response)
            if end := self._check_status(what, response, is_first=is_first):
                return Page(response.url, {}, [], end=end)
            self._check_clock(what, response)
            return self._read_page(what, response)

    def _read_page(self, what: str, response: requests.Response) -> Page:
        body = b""
        try:
            body = read_body(response)
            if PROBLEM.match(response.headers.get("Content-Type", "")):
                raise failures.RefusedPageError("the body is a problem report (RFC 9457)", "find out why")
            found = self.lists.find(body, response.headers.get("Content-Type", ""))
            if found.is_lines:
                check_end(response)
            headers = CaseInsensitiveDict({name: decode_header(text) for name, text in response.headers.items()})
            fields = {**read_header_objects(headers), **found.fields}
            records = split_list(found.content)
            # These two look at every byte, so a thread that fetches calls them, and not the one that counts and stores.
            seen, is_suspect = digest(found.content), may_be_deep(found.content, records)
            return Page(response.url, headers, records, fields, found.content, seen, is_suspect)
        except failures.RecoverableError as error:
            raise failures.RecoverableError(f"{what}: {error}") from None
        except failures.BadPageError as error:
            if isinstance(error, failures.MissingListError) and "missing_list" in self._config.ends:
                return Page(response.url, response.headers, [], error.fields, end="missing_list")
            answer = f"{response.status_code} {response.reason}: {self._quote(error.body or body)}"
            is_refusal = isinstance(error, failures.RefusedPageError)
            raise failures.OddAnswerError(f"{what}: {error} ({answer})", error.hint, is_refusal=is_refusal) from None

    def _check_headers(self, what: str, response: requests.Response) -> None:
        """Raise RecoverableError for a malformed header line: http.client drops the headers after it."""
        message = getattr(getattr(response.raw, "_original_response", None), "msg", None)
        if message is not None and message.defects:
            raise failures.RecoverableError(f"{what}: a header line of the answer is malformed")

    def _check_status(self, what: str, response: requests.Response, *, is_first: bool) -> str:
        """Raise an error unless this is a page. Return the word of `end_when` if the answer is the end."""
        status = response.status_code
        if status in PAGES:
            return ""
        end = str(status) if status == 204 or (status in (400, 404) and not is_first) else ""
        if end in self._config.ends:
            return end
        answer = f"{status} {response.reason}: {self._quote(read_start(response))}"
        what = f"{what}: {f'{status} {HTTPStatus(status).phrase}' if status in SILENT else answer}"
        if may_pass(status, response.headers):
            raise failures.RecoverableError(what, parse_wait(status, response.headers), status)
        hint = HINTS.get(status, "check url and params")
        if status in (401, 403):
            raise self.fail(f"{what}: {hint}", OutageError)
        hint += f"; {failures.suggest_end(end)}" if end else ""
        raise failures.OddAnswerError(what, hint, status, is_refusal=status in REFUSALS)

    def _check_clock(self, what: str, response: requests.Response) -> None:
        """Raise SourceError if the source's clock and ours differ by more than the grace period `settle`."""
        theirs, ours = parse_time(response.headers), clock.utc_now()
        allowed = max(self._config.settle, CLOCK_TOLERANCE)
        if theirs is not None and abs(theirs - ours) > allowed:
            seconds = (theirs - ours).total_seconds()
            raise self.fail(
                f"{what}: the source's clock (Date: {response.headers['Date']}) is {abs(seconds):.0f} s "
                f"{'ahead of' if seconds > 0 else 'behind'} ours, more than settle {allowed} allows: set the clock of "
                "this machine, or increase settle"
            )

    def _quote(self, body: bytes) -> str:
        """Return the first characters of a body as one line without secrets."""
        text = clean_line(self.mask(body[:START_BYTES].decode("utf-8", "replace")))
        return f"'{text[:EXCERPT]}…'" if len(text) > EXCERPT else f"'{text}'"
