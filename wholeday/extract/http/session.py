"""Create the HTTP sessions for sources, token endpoints and webhooks, and explain why a connection failed.

Responsibilities: the headers of every request, and the settings of the machine. Proxies and certificates come from the
environment; passwords in ~/.netrc are ignored.
"""

import base64
import ssl
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import ProtocolError

from wholeday.extract.http import deadline
from wholeday.extract.http.deadline import DeadlineAdapter, SlowError
from wholeday.redaction import hides_userinfo

USER_AGENT = "wholeday"
EXPIRED, NOT_YET, HOST, ADDRESS = 10, 9, 62, 64  # verify codes of OpenSSL
PASSING = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)  # an interrupted connection
PASSING_REASONS = ("internal error", "bad record mac")  # a server in trouble, a damaged packet


class TlsProblem(NamedTuple):
    """The reason why a TLS connection fails permanently, and the next step."""

    what: str
    hint: str


class Session(requests.Session):
    """A session that does not follow redirects, not even to look ahead, as requests does."""

    def __init__(
        self,
        auth: Callable[[requests.PreparedRequest], requests.PreparedRequest] = lambda request: request,
        connections: int = 1,
    ) -> None:
        super().__init__()
        self.mount("https://", DeadlineAdapter(pool_maxsize=connections))
        self.mount("http://", DeadlineAdapter(pool_maxsize=connections))
        self.auth = auth  # not None: requests would look for a password in ~/.netrc
        self.headers.update({"User-Agent": USER_AGENT, "Accept": "application/json", "Accept-Encoding": "gzip"})
        self.headers["Cache-Control"] = "no-cache"  # caches must ask the source

    def fix_settings(self, url: str) -> None:
        """Use the machine's settings for `url` for all requests. Reading them per page costs as much as the page.

        Raises OSError or ValueError for unusable settings.
        """
        for name, value in self.merge_environment_settings(url, {}, True, None, None).items():
            setattr(self, name, value)
        self.trust_env = False

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request. It ends, with its body, after MAX_SECONDS or at the deadline of an enclosing `limit`."""
        with deadline.limit(deadline.MAX_SECONDS):
            return super().send(request, **kwargs)

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Take proxies and certificates from the environment. Raises ValueError for an invalid proxy URL."""
        settings = super().merge_environment_settings(url, proxies, stream, verify, cert)
        for scheme, proxy in settings["proxies"].items():
            _check_proxy(scheme, proxy)
        return settings

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002 - overrides a method
        return None


def _check_proxy(scheme: str, proxy: str) -> None:
    try:
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        if parts.hostname and parts.port != -1 and not hides_userinfo(proxy):
            return
    except ValueError:  # its text quotes the URL
        pass
    raise ValueError(
        f"the proxy for {scheme} in the environment is not a URL: in user or password write / ? # @ as %2F %3F %23 %40"
    )


def is_unreachable(error: Exception) -> bool:
    """Return whether no server answered, or none in time. An interrupted connection does not count."""
    causes = list(_walk_causes(error))
    if isinstance(error, requests.Timeout) or any(isinstance(cause, SlowError) for cause in causes):
        return True
    return not any(
        isinstance(cause, (ConnectionError, ProtocolError)) and not isinstance(cause, ConnectionRefusedError)
        for cause in causes
    )


def find_tls_problem(error: Exception) -> TlsProblem | None:
    """Return the problem with a certificate or the TLS protocol; None for an interrupted connection."""
    causes = list(_walk_causes(error))
    problem = next((each for each in causes if isinstance(each, ssl.SSLError)), None)
    if problem is None or isinstance(problem, PASSING):
        return None
    by_proxy = any(isinstance(each, requests.exceptions.ProxyError) for each in causes)
    reason = (problem.reason or str(problem)).replace("_", " ").lower()
    if reason.endswith(PASSING_REASONS):
        return None
    if isinstance(problem, ssl.SSLCertVerificationError):
        subject = "the proxy's certificate" if by_proxy else "the certificate"
        return TlsProblem(f"{subject} is not trusted: {problem.verify_message}", _find_hint(problem.verify_code))
    if "certificate or crl" in reason:
        return TlsProblem("the CA certificates cannot be read", "REQUESTS_CA_BUNDLE must name a PEM file")
    peer = "the proxy" if by_proxy else "the server"
    return TlsProblem(
        f"the TLS handshake with {peer} failed: {reason}",
        f"check that {peer} speaks https on this port, and which TLS versions and client certificate it needs",
    )


def _find_hint(code: int) -> str:
    """Return the next step for a verify code of OpenSSL."""
    if code in (HOST, ADDRESS):
        return "use the host name in the certificate; REQUESTS_CA_BUNDLE does not help here"
    if code in (EXPIRED, NOT_YET):
        return (
            "check the clock of this machine; renew the certificate, or the certificate of its CA in the file that "
            "REQUESTS_CA_BUNDLE names"
        )
    return (
        "if a company or a proxy uses its own CA, set the environment variable REQUESTS_CA_BUNDLE to a PEM file with "
        "the certificate of that CA"
    )


def _walk_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error of requests or urllib3 and its causes, the outermost first."""
    found: list[BaseException] = [error]
    for each in found:
        inner = (each.__cause__, each.__context__, getattr(each, "reason", None), *each.args)
        found += [cause for cause in inner if isinstance(cause, BaseException) and cause not in found]
    yield from found


def encode_basic(user: str, password: str) -> str:
    """Encode a user and a password for HTTP basic authentication (RFC 7617)."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()
