"""Fetches pages over HTTP from one origin, with patience and without a word of secrets.

Owns what is sent (once, or again after how long) and to whom; refuses to follow the source to another
origin, where it would carry the token along.
"""

import contextlib
import datetime as dt
import re
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import NoReturn
from urllib.parse import urljoin, urlsplit

import requests
import tenacity
from urllib3.exceptions import HTTPError

from pipeline import config as settings
from pipeline.auth import Auth, Mask, find_secrets
from pipeline.config import Source
from pipeline.errors import SourceError
from pipeline.logs import logger
from pipeline.pages import (
    START_BYTES,
    BadPageError,
    RecoverableError,
    explain,
    read_body,
    read_start,
    select_list,
    split_list,
)
from pipeline.paginators import Page, Request

USER_AGENT = "users-pipeline"
MAX_REDIRECTS = 10
BACKOFF = 1.0  # seconds before the first retry, doubled for each further one
MAX_BACKOFF = 60.0
EXCERPT = 120  # characters of a body in an error
CLOCK_TOLERANCE = dt.timedelta(seconds=5)  # a Date header has whole seconds, and the answer takes its time

WHOLE = frozenset({200, 203})  # the other 2xx say that this is not the answer, or not all of it
REDIRECTS = frozenset({301, 302, 303, 307, 308})
RECOVERABLE = frozenset({408, 425, 429})
HINTS = {
    400: "check url, params and headers",
    401: "check auth, and the secret it names",
    403: "check auth, and what its secret may read",
    404: "check url",
    410: "check url",
}


class Session(requests.Session):
    """A session that leaves redirects to its user: else requests reads ahead where one leads."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002 - the overridden one's
        return None


class Client:
    """Fetches pages from the origin of one URL, and from no other, with patience and without a word of secrets."""

    def __init__(self, config: Source, date: dt.date) -> None:
        self._config = config
        self._name = f"{config.section} {date}"
        self._auth = Auth(config)
        self.mask = Mask([*self._auth.secrets, *find_secrets(config)])
        self._selector = None if config.data_selector == "auto" else config.data_selector
        self._free_at = 0.0

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Hold the connections, and keep secrets out of what urllib3 logs meanwhile."""
        self._origin: str | None = None  # of the first request
        with Session() as self._session, self.mask.cover("urllib3.connection", "urllib3.connectionpool"):
            self._session.headers.update(
                {"User-Agent": USER_AGENT, "Accept": "application/json", "Accept-Encoding": "gzip"}
            )
            # Never None: requests would look for a password in ~/.netrc.
            self._session.auth = self._auth
            if urlsplit(self._config.url).scheme == "demo":
                from pipeline.demo import DemoAdapter

                self._session.mount("demo://", DemoAdapter())
            yield

    def fail(self, what: str) -> SourceError:
        """The error that `what` is, to be raised."""
        return SourceError(f"{self._name}: {self.mask(what)}")

    def fetch(self, request: Request) -> tuple[Page, bytes]:
        """The page that answers `request`, and the bytes of its list. Raises SourceError, if need be after retries."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(RecoverableError),
            stop=tenacity.stop_after_attempt(1 + self._config.retries),
            wait=self._choose_wait,
            before_sleep=self._log_retry,
            retry_error_callback=self._give_up,
        )
        return retrying(self._fetch_once, request)

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

    def _give_up(self, state: tenacity.RetryCallState) -> NoReturn:
        raise self.fail(
            f"{_get_error(state)}; given up after {state.attempt_number} attempts: check url and the network, "
            "run it again later, or set retries higher"
        )

    def _fetch_once(self, request: Request) -> tuple[Page, bytes]:
        what = f"GET {request.target}"
        with self._follow(request) as response:
            self._check_headers(what, response)
            self._check_status(what, response)
            self._check_clock(what, response)
            body = b""
            try:
                body = read_body(response)
                self._selector, content, fields = select_list(body, self._selector)
                return Page(response.url, response.headers, split_list(content), fields), content
            except RecoverableError as error:
                raise RecoverableError(f"{what}: {error}") from None
            except BadPageError as error:
                came = f"{response.status_code} {response.reason}: {self._quote(error.body or body)}"
                raise self.fail(f"{what}: {error} ({came}): {error.hint}") from None

    def _follow(self, request: Request) -> requests.Response:
        """The answer to `request`, through redirects within the origin."""
        url, came_from = request.target, "the link to it"
        for _ in range(MAX_REDIRECTS + 1):
            response = self._send(url, came_from, request.headers)
            location = response.headers.get("Location")
            if response.status_code not in REDIRECTS or location is None:
                return response
            response.close()
            came_from = f"a redirect from {url}"
            try:
                url = urljoin(url, location)
            except ValueError as error:
                raise self.fail(f"{came_from} leads to what is no URL ({error}): check url") from None
        raise self.fail(f"GET {request.target}: more than {MAX_REDIRECTS} redirects, the last to {url}: check url")

    def _send(self, url: str, came_from: str, headers: Mapping[str, str]) -> requests.Response:
        """The one place where anything is sent: to the first URL's origin, and `url` is read as requests will."""
        self._keep_pace()
        try:
            prepared = self._session.prepare_request(requests.Request("GET", url, headers=headers))
            target = prepared.url or ""
            origin = _find_origin(target)
            if origin == (self._origin or origin):
                self._origin = origin
                environment = self._session.merge_environment_settings(target, {}, True, None, None)
                return self._session.send(prepared, timeout=self._config.timeout, allow_redirects=False, **environment)
        except (requests.ConnectionError, requests.Timeout) as error:
            failure: Exception = RecoverableError(f"GET {url}: {explain(error)}")
        except (OSError, ValueError, HTTPError) as error:
            failure = self.fail(f"GET {url} cannot be sent: {error}: check url, headers and the proxy and CA settings")
        else:
            failure = self.fail(
                f"{came_from} leads to {origin}, another origin than {self._origin}: refused, and nothing was sent "
                "there; if it is right, set url to it"
            )
        raise failure

    def _keep_pace(self) -> None:
        if self._config.requests_per_second > 0:
            now = time.monotonic()
            time.sleep(max(0.0, self._free_at - now))
            self._free_at = max(now, self._free_at) + 1 / self._config.requests_per_second

    def _check_headers(self, what: str, response: requests.Response) -> None:
        """Have the request made again where a line of its headers is none: what followed it was dropped."""
        message = getattr(getattr(response.raw, "_original_response", None), "msg", None)
        if message is not None and message.defects:
            raise RecoverableError(f"{what}: a line in the headers of the answer is no header")

    def _check_status(self, what: str, response: requests.Response) -> None:
        status = response.status_code
        if status in WHOLE:
            return
        what = f"{what}: {status} {response.reason}: {self._quote(read_start(response))}"
        limited = status == 403 and is_limited(response.headers)
        if limited or status in RECOVERABLE or status >= 500:
            wait = find_wait(status, response.headers)
            if wait > self._config.max_wait.total_seconds():
                asked = dt.timedelta(seconds=round(wait))
                raise self.fail(
                    f"{what}: the source asks to wait {asked} (h:mm:ss), longer than max_wait {self._config.max_wait}: "
                    "run it again after that, or set max_wait higher"
                )
            raise RecoverableError(what, wait)
        raise self.fail(f"{what}: {HINTS.get(status, 'check url and params')}")

    def _check_clock(self, what: str, response: requests.Response) -> None:
        """Fail where the source's clock and ours are too far apart for `settle` to make up for it."""
        theirs, ours = find_time(response.headers), settings.utc_now()
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
        text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
        return f"'{text[:EXCERPT]}…'" if len(text) > EXCERPT else f"'{text}'"


def _get_error(state: tenacity.RetryCallState) -> RecoverableError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, RecoverableError)  # noqa: S101 - nothing else is retried
    return error


def _find_origin(url: str) -> str:
    """Scheme, host and port of a URL. Raises ValueError where it is none."""
    parts = urlsplit(url)
    port = parts.port if parts.port is not None else {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{parts.hostname or ''}" + (f":{port}" if port is not None else "")


REMAINING = ("X-RateLimit-Remaining", "RateLimit-Remaining", "X-Rate-Limit-Remaining")
RESET = ("X-RateLimit-Reset", "RateLimit-Reset", "X-Rate-Limit-Reset")
FIRST_EPOCH = 1e9  # a number from here on is a point in time, and from a hundred times that on in milliseconds


def is_limited(headers: Mapping[str, str]) -> bool:
    """Whether an answer is about too many requests: it says when to come back, or that none are left."""
    return "Retry-After" in headers or any(headers.get(name, "").strip() == "0" for name in REMAINING)


def find_wait(status: int, headers: Mapping[str, str]) -> float:
    """The seconds to wait after a refusal: Retry-After, else until an exhausted rate limit is reset; 0: not said."""
    texts = [headers.get("Retry-After")]
    if is_limited(headers) or (status == 429 and not any(name in headers for name in REMAINING)):
        texts += [headers.get(name) for name in RESET]
    now = find_time(headers) or settings.utc_now()
    for text in texts:
        if text is None:
            continue
        if re.fullmatch(r"\d{1,15}(\.\d+)?", text.strip()):
            number = float(text)
            if number >= FIRST_EPOCH:
                number = (number / 1000 if number >= 100 * FIRST_EPOCH else number) - now.timestamp()
            return max(0.0, number)
        moment = _parse_http_date(text)
        if moment is not None:
            return max(0.0, (moment - now).total_seconds())
    return 0.0


def find_time(headers: Mapping[str, str]) -> dt.datetime | None:
    """The source's clock when it answered: the Date header, and the Age that a cache adds; None if it does not say."""
    moment = _parse_http_date(headers.get("Date", ""))
    age = headers.get("Age", "").strip()
    try:
        return moment + dt.timedelta(seconds=int(age)) if moment and re.fullmatch(r"\d{1,9}", age) else moment
    except OverflowError:
        return None


def _parse_http_date(text: str) -> dt.datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
