"""The HTTP session that everything is sent with, to a source and to a token endpoint alike.

Owns what every request says of us, and which settings of the machine hold: those for proxies and certificates do,
a password in ~/.netrc does not.
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
PASSING = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)  # a connection that broke off
PASSING_REASONS = ("internal error", "bad record mac")  # a server in trouble, a damaged packet


class TlsProblem(NamedTuple):
    """Why no TLS connection can be made, and the next step. Waiting does not help."""

    what: str
    hint: str


class Session(requests.Session):
    """A session that leaves redirects to its user: else requests reads ahead where one leads."""

    def __init__(
        self, auth: Callable[[requests.PreparedRequest], requests.PreparedRequest] = lambda request: request
    ) -> None:
        super().__init__()
        self.mount("https://", DeadlineAdapter())
        self.mount("http://", DeadlineAdapter())
        self.auth = auth  # never None: requests would look for a password in ~/.netrc
        self.headers.update({"User-Agent": USER_AGENT, "Accept": "application/json", "Accept-Encoding": "gzip"})
        self.headers["Cache-Control"] = "no-cache"  # a cache between is to ask the source

    def fix_settings(self, url: str) -> None:
        """Have what the machine's settings say of `url` hold for all: to read them for each page costs as much as it.

        Raises OSError or ValueError where they cannot be used.
        """
        for name, value in self.merge_environment_settings(url, {}, True, None, None).items():
            setattr(self, name, value)
        self.trust_env = False

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request that ends, with its body, after MAX_SECONDS or at the end of the `limit` around it."""
        with deadline.limit(deadline.MAX_SECONDS):
            return super().send(request, **kwargs)

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Take proxies and certificates from the environment. Raises ValueError for a proxy that is no URL."""
        settings = super().merge_environment_settings(url, proxies, stream, verify, cert)
        for scheme, proxy in settings["proxies"].items():
            _check_proxy(scheme, proxy)
        return settings

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002 - the overridden one's
        return None


def _check_proxy(scheme: str, proxy: str) -> None:
    try:
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        if parts.hostname and parts.port != -1 and not hides_userinfo(proxy):
            return
    except ValueError:  # which quotes the URL
        pass
    raise ValueError(
        f"the proxy for {scheme} in the environment is no URL: in a user or password write / ? # @ as %2F %3F %23 %40"
    )


def is_unreachable(error: Exception) -> bool:
    """Return whether a request met nobody, or waited in vain; a connection that broke does not count."""
    causes = list(_walk_causes(error))
    if isinstance(error, requests.Timeout) or any(isinstance(cause, SlowError) for cause in causes):
        return True
    return not any(
        isinstance(cause, (ConnectionError, ProtocolError)) and not isinstance(cause, ConnectionRefusedError)
        for cause in causes
    )


def find_tls_problem(error: Exception) -> TlsProblem | None:
    """Return the problem if a request failed by a certificate or the TLS protocol; None for a broken connection."""
    causes = list(_walk_causes(error))
    problem = next((each for each in causes if isinstance(each, ssl.SSLError)), None)
    if problem is None or isinstance(problem, PASSING):
        return None
    by_proxy = any(isinstance(each, requests.exceptions.ProxyError) for each in causes)
    reason = (problem.reason or str(problem)).replace("_", " ").lower()
    if reason.endswith(PASSING_REASONS):
        return None
    if isinstance(problem, ssl.SSLCertVerificationError):
        whose = "the proxy's certificate" if by_proxy else "the certificate"
        return TlsProblem(f"{whose} is not trusted: {problem.verify_message}", _find_hint(problem.verify_code))
    if "certificate or crl" in reason:
        return TlsProblem("no CA certificate can be read", "REQUESTS_CA_BUNDLE must name a PEM file")
    whom = "the proxy" if by_proxy else "the server"
    return TlsProblem(
        f"the TLS handshake with {whom} failed: {reason}",
        f"check that {whom} speaks https on this port, and which versions of TLS and which client certificate it wants",
    )


def _find_hint(code: int) -> str:
    """Return the next step for a verify code of OpenSSL."""
    if code in (HOST, ADDRESS):
        return "use the host that the certificate names; REQUESTS_CA_BUNDLE does not help here"
    if code in (EXPIRED, NOT_YET):
        return (
            "check the clock of this machine; have the certificate renewed, or the one of its CA in the file that "
            "REQUESTS_CA_BUNDLE names"
        )
    return (
        "if a company or a proxy signs with its own CA, set the environment variable REQUESTS_CA_BUNDLE to a PEM file "
        "with the certificate of that CA"
    )


def _walk_causes(error: BaseException) -> Iterator[BaseException]:
    """An error of requests or urllib3, and those that it was made from, the outermost first."""
    found: list[BaseException] = [error]
    for each in found:
        inner = (each.__cause__, each.__context__, getattr(each, "reason", None), *each.args)
        found += [cause for cause in inner if isinstance(cause, BaseException) and cause not in found]
    yield from found


def encode_basic(user: str, password: str) -> str:
    """What HTTP basic authentication (RFC 7617) sends for a user and a password."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()
