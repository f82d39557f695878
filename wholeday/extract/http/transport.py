"""Send requests to the origin of one URL, and follow redirects within it.

Responsibilities: every request goes through here, at the pace of the source. A link or redirect to another
origin is refused before anything is sent, as it would take the secret along.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

from wholeday.config.source import Source
from wholeday.errors import UnreachableError
from wholeday.extract.http.auth import Auth
from wholeday.extract.http.deadline import pause
from wholeday.extract.http.failures import RecoverableError, explain
from wholeday.extract.http.page import Request
from wholeday.extract.http.retries import Fail
from wholeday.extract.http.session import Session, find_tls_problem, is_unreachable

MAX_REDIRECTS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})
KEEP_METHOD = frozenset({307, 308})  # redirects that repeat a POST


class Transport:
    """Sends requests to the origin of the first request, with the authentication of a section."""

    def __init__(self, config: Source, auth: Auth, fail: Fail, keep_pace: Callable[[], None]) -> None:
        """`keep_pace` waits until the next request may begin."""
        self._config, self._auth, self._fail, self._keep_pace = config, auth, fail, keep_pace

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Keep connections open within the block."""
        self._origin: str | None = None
        with Session(self._auth, self._config.concurrency) as self._session:
            if urlsplit(self._config.url).scheme == "demo":
                from wholeday.extract.http.demo import DemoAdapter

                self._session.mount("demo://", DemoAdapter())
            yield

    def send(self, request: Request) -> requests.Response:
        """Return the answer to a request. If the source refuses the token, try once more with a new one.

        Raises RecoverableError if another attempt may succeed, else SourceError.
        """
        response = self._follow(request)
        if response.status_code == 401 and self._auth.renew(response.request):
            response.close()
            response = self._follow(request)
        return response

    def _follow(self, request: Request) -> requests.Response:
        """Return the answer to a request, through redirects within the origin."""
        came_from, is_link = f"the link to {request.target}", True
        step = replace(request, url=request.target, params={})
        for _ in range(MAX_REDIRECTS + 1):
            response = self._send_once(step, came_from, is_link)
            location = response.headers.get("Location")
            if response.status_code not in REDIRECTS or location is None:
                return response
            response.close()
            came_from, is_link = f"a redirect from {step.url}", False
            if request.method != "GET" and response.status_code not in KEEP_METHOD:
                raise self._fail(
                    f"{came_from} ({response.status_code}) would drop the body of the {request.method}: check url"
                )
            try:
                step = replace(step, url=urljoin(step.url, decode_header(location)))
            except ValueError as error:
                raise self._fail(f"{came_from} leads to an invalid URL ({error}): check url") from None
        raise self._fail(
            f"{request.method} {request.target}: more than {MAX_REDIRECTS} redirects, the last to {step.url}: check url"
        )

    def _send_once(self, request: Request, came_from: str, is_link: bool) -> requests.Response:
        """Send a request if requests itself would send it to the origin of the first one."""
        with pause():
            self._keep_pace()
        what = f"{request.method} {request.url}"
        headers = {**({"Content-Type": "application/json"} if request.content else {}), **request.headers}
        try:
            prepared = self._session.prepare_request(
                requests.Request(request.method, request.url, headers=headers, data=request.content)
            )
            target = prepared.url or ""
            origin = _get_origin(target)
            if self._origin is None:
                self._origin = origin
                self._session.fix_settings(target)
            if origin == self._origin:
                return self._session.send(prepared, timeout=self._config.timeout, allow_redirects=False)
        except (requests.ConnectionError, requests.Timeout) as error:
            failure: Exception = RecoverableError(f"{what}: {explain(error)}", unreachable=is_unreachable(error))
            if problem := find_tls_problem(error):
                failure = self._fail(f"{what}: {problem.what}: {problem.hint}", UnreachableError)
        except (OSError, ValueError, HTTPError) as error:
            failure = self._fail(f"{what} cannot be sent: {error}: check url, headers, proxies and REQUESTS_CA_BUNDLE")
        else:
            failure = self._fail(
                f"{came_from} leads to {origin}, another origin than {self._origin}: refused, and nothing was sent "
                f"there; {_suggest_way(self._origin, origin, is_link)}"
            )
        raise failure


def decode_header(text: str) -> str:
    """Decode a header that is UTF-8: http.client decodes all headers as Latin-1."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


def _suggest_way(own: str, other: str, is_link: bool) -> str:
    """Say how to read a source that leads to another origin, without ways that would send a secret unencrypted."""
    ways = []
    if is_link and other.startswith(("http://", "https://")):
        ways.append("if the same source answers behind a proxy, set next_link = path")
    if other.startswith("https://") or (own.startswith("http://") and other.startswith("http://")):
        ways.append("if that host is the one to read, set url to it")
    if not ways:
        ways.append("check paginator and its keys" if is_link else "set url to the address that needs no redirect")
    return "; ".join(ways)


def _get_origin(url: str) -> str:
    """Return scheme, host and port of a URL. Raises ValueError for an invalid URL."""
    parts = urlsplit(url)
    port = parts.port if parts.port is not None else {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{parts.hostname or ''}" + (f":{port}" if port is not None else "")
