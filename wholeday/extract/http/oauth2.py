"""Fetch OAuth 2.0 access tokens with client credentials or a refresh token (RFC 6749, 4.4 and 6).

Responsibilities: requests to a token endpoint. Redirects are refused, as they would take id and secret along, and so
are tokens other than bearer tokens.
Non-goals: the authorisation by a person. The environment supplies the first refresh token.
"""

import contextlib
import re
import threading
import time
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode, urlsplit

import msgspec
import requests
from oauthlib.oauth2 import BackendApplicationClient, OAuth2Error
from urllib3.exceptions import HTTPError

from wholeday.config.source import Source
from wholeday.errors import SourceError
from wholeday.extract.http.body import read_body, read_start
from wholeday.extract.http.failures import BadPageError, RecoverableError, explain
from wholeday.extract.http.refresh import RefreshToken
from wholeday.extract.http.session import Session, encode_basic, find_tls_problem, is_unreachable
from wholeday.extract.http.waits import may_pass, parse_wait
from wholeday.redaction import Mask

MARGIN = 10.0  # seconds: a token is replaced this long before it expires
LONGEST = 10**9  # seconds, if the endpoint does not say when a token expires
EXCERPT = 200  # characters of the endpoint's answer in an error
UNSEEN = frozenset({"invalid_client", "invalid_request"})  # from an endpoint that expects the id in the body
CODES = UNSEEN | {"invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "access_denied"}
SILENT = frozenset({401, 403})


class _RefusedError(Exception):
    """The endpoint refused a token. `code` is its error code, if any."""

    def __init__(self, what: str, code: str = "") -> None:
        super().__init__(what)
        self.code = code


class Tokens:
    """Keeps the access token of a client at one endpoint, and replaces it before it expires. Thread-safe.

    The query of `url` may hold a scope (`?scope=https://graph.microsoft.com/.default`), which is sent in the body.
    `hint` says what to check after a refusal. Without a refresh token, the client uses its own credentials. A client
    with an empty secret is public, and sends only its id.
    """

    def __init__(
        self, config: Source, mask: Mask, url: str, client: tuple[str, str], hint: str, refresh: RefreshToken | None
    ) -> None:
        parts = urlsplit(url)
        params = parse_qsl(parts.query, keep_blank_values=True)
        self._scope = " ".join(value for name, value in params if name == "scope")
        self._url = parts._replace(query=urlencode([pair for pair in params if pair[0] != "scope"])).geturl()
        self._config, self._mask, self._hint, self._refresh = config, mask, hint, refresh
        self._id, self._secret = client
        self._basic = encode_basic(quote_plus(self._id), quote_plus(self._secret))  # RFC 6749, 2.3.1
        mask.add(self._secret, self._basic)
        self._in_body = not self._secret
        self._lock = threading.Lock()
        self._token, self._ends = "", 0.0

    def get(self) -> str:
        """Return a valid token. Raises RecoverableError if another attempt may succeed, else SourceError."""
        with self._lock:
            if not self._token or time.monotonic() > self._ends - MARGIN:
                self._token, self._ends = self._fetch()
            return self._token

    def drop(self, token: str) -> None:
        """Forget a token that the API refused."""
        with self._lock:
            if token == self._token:
                self._token = ""

    def _fetch(self) -> tuple[str, float]:
        """Fetch a token and its end: with id and secret in a header, or in the body if the endpoint wants that."""
        try:
            return self._ask(self._in_body)
        except _RefusedError as refused:
            if self._in_body or refused.code not in UNSEEN:
                raise self._fail(str(refused), self._find_hint(refused)) from None
            first = refused
        try:
            answer = self._ask(in_body=True)
        except _RefusedError as refused:
            raise self._fail(f"{first}; with id and secret in the body: {refused}", self._find_hint(refused)) from None
        self._in_body = True
        return answer

    def _ask(self, in_body: bool) -> tuple[str, float]:
        started_at = time.monotonic()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if not in_body:
            headers["Authorization"] = f"Basic {self._basic}"
        with contextlib.ExitStack() as stack:
            held = stack.enter_context(self._refresh.hold()) if self._refresh else None
            session = stack.enter_context(Session())
            response = stack.enter_context(self._post(session, self._write_body(in_body, held), headers))
            self._check_status(response)
            token, seconds = self._read(response)
        return token, started_at + seconds

    def _write_body(self, in_body: bool, refresh: str | None) -> str:
        client = BackendApplicationClient(self._id)
        secret = (self._secret or None) if in_body else None
        if refresh is None:
            body = client.prepare_request_body(scope=self._scope, include_client_id=in_body, client_secret=secret)
        else:
            own = {"client_id": self._id, "client_secret": secret} if in_body else {}
            body = client.prepare_refresh_body(refresh_token=refresh, scope=self._scope, **own)
        return str(body)

    def _find_hint(self, refused: _RefusedError) -> str:
        """Return the next step after a refusal; empty for the usual hint."""
        if self._refresh is None or refused.code != "invalid_grant":
            return ""
        variable = self._refresh.variable
        return (
            f"the refresh token has expired or was used before: authorise the application again and export the new one "
            f"as {variable}" + ("" if self._config.token_file else "; if the endpoint replaces it, set token_file too")
        )

    def _post(self, session: Session, body: str, headers: dict[str, str]) -> requests.Response:
        timeout = self._config.timeout
        try:
            return session.post(self._url, body, headers=headers, timeout=timeout, allow_redirects=False, stream=True)
        except (requests.ConnectionError, requests.Timeout) as error:
            if problem := find_tls_problem(error):
                raise self._fail(problem.what, problem.hint) from None
            raise self._recover(explain(error), unreachable=is_unreachable(error)) from None
        except (OSError, ValueError, HTTPError) as error:
            raise self._fail(
                f"the request cannot be sent: {error}", "check the token URL, and the proxy and CA settings"
            ) from None

    def _check_status(self, response: requests.Response) -> None:
        status, headers = response.status_code, response.headers
        what = f"{status} {response.reason}"
        if 300 <= status < 400:
            raise self._fail(f"{what}: a redirect to {headers.get('Location')}, which would receive id and secret")
        if may_pass(status, headers):
            raise self._recover(what, parse_wait(status, headers))

    def _read(self, response: requests.Response) -> tuple[str, float]:
        """Return the token in an answer and its lifetime in seconds. Raises _RefusedError if there is none."""
        status = response.status_code
        what = f"{status} {HTTPStatus(status).phrase if status in SILENT else response.reason}"
        try:
            body = read_body(response) if response.ok else read_start(response)
            fields = msgspec.json.decode(body, type=dict[str, Any])
            token = fields.get("access_token")
            if isinstance(token, str):
                self._mask.add(token)  # first of all
            refresh = fields.get("refresh_token")
            if isinstance(refresh, str) and refresh:
                self._mask.add(refresh)
                if self._refresh is not None and response.ok:
                    self._refresh.replace(refresh)  # the endpoint may have revoked the old one
            seconds = BackendApplicationClient(self._id).parse_request_body_response(body.decode()).get("expires_in")
        except RecoverableError as error:
            raise self._recover(f"{what}: {error}") from None
        except OAuth2Error as error:
            raise _RefusedError(f"{what}: {self._quote_error(response, error)}", str(error.error)) from None
        except BadPageError as error:
            raise _RefusedError(f"{what}: {error}") from None
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            raise _RefusedError(f"{what}: the body is not an OAuth 2.0 answer") from None
        kind = str(fields.get("token_type") or "bearer")  # some endpoints leave it out
        if kind.lower() != "bearer":
            raise _RefusedError(f"{what}: the token has the type {self._quote(kind)}, only bearer is supported")
        if not (response.ok and isinstance(token, str) and re.fullmatch(r"[!-~]+", token)):
            raise _RefusedError(f"{what}: the answer has no token that a header can carry")
        return token, min(seconds or LONGEST, LONGEST)

    def _quote_error(self, response: requests.Response, error: OAuth2Error) -> str:
        """Quote the endpoint's error. For a 401 or 403 only a standard code, as the text may repeat the secret."""
        if response.status_code not in SILENT:
            return self._quote(f"{error.error}: {error.description}")
        return (
            f"'{error.error}'" if str(error.error) in CODES else "its reason is not shown, as it may contain the secret"
        )

    def _quote(self, text: str) -> str:
        return repr(self._mask(text)[:EXCERPT])

    def _recover(self, what: str, wait: float = 0.0, unreachable: bool = False) -> RecoverableError:
        return RecoverableError(self._mask(f"POST {self._url}: {what}"), wait, unreachable=unreachable)

    def _fail(self, what: str, hint: str = "") -> SourceError:
        return SourceError(self._mask(f"[{self._config.section}] auth: POST {self._url}: {what}: {hint or self._hint}"))
