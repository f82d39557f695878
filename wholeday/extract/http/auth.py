"""Authenticate requests: read secrets from the environment and send them as `auth` says.

Responsibilities: each secret is masked before it is used. A URL that cannot be split is refused, as the end of a
password in it is unknown.
"""

import os
import re
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import requests
from requests.auth import AuthBase

from wholeday.config.parameters import VARIABLE_NAME
from wholeday.config.placeholders import NAMES, PLACEHOLDER
from wholeday.config.source import Source
from wholeday.errors import ConfigError
from wholeday.extract.http.page import Request
from wholeday.extract.http.refresh import RefreshToken
from wholeday.extract.http.session import encode_basic
from wholeday.redaction import SHORTEST, Mask, hides_userinfo

if TYPE_CHECKING:
    from wholeday.extract.http.oauth2 import Tokens

SCHEMES = ("http://", "https://", "demo://")
PORTS = {"http": 80, "https": 443}


class Auth(AuthBase):
    """Adds the secrets of `auth`, or of the user info in the URL, to a request, and to `mask`."""

    def __init__(self, config: Source, mask: Mask) -> None:
        self._headers: dict[str, str] = {}
        self._param: dict[str, str] = {}
        self._tokens: Tokens | None = None
        self._mask = mask
        parts = _split_url(config, "url", config.url, *SCHEMES)
        if parts.username is not None:
            self._use_basic(unquote(parts.username), unquote(parts.password or ""))
        match config.auth.split(":"):
            case ["none"]:
                pass
            case ["bearer", variable]:
                token = _read_variable(config, variable, in_header=True)
                mask.add(token)
                self._headers["Authorization"] = f"Bearer {token}"
            case ["basic", user, password]:
                name, word = (_read_variable(config, each, may_be_empty=True) for each in (user, password))
                if not (name or word):
                    raise ConfigError(
                        f"[{config.section}] auth: the environment variables {user} and {password} are both empty: "
                        "export their values"
                    )
                self._use_basic(name, word)
            case ["header", name, variable] if re.fullmatch(r"[\w-]+", name, re.ASCII):
                value = _read_variable(config, variable, in_header=True)
                mask.add(value, *(word for word in value.split() if len(word) >= SHORTEST))
                self._headers[name] = value
            case ["query", name, variable] if re.fullmatch(r"[^\s&=#]+", name):
                value = _read_variable(config, variable)
                mask.add(value)
                self._param = {name: value}
            case ["oauth2", *pieces, client, secret] if pieces:
                self._use_oauth2(config, ":".join(pieces), client, secret)
            case ["oauth2_refresh", *pieces, client, secret, refresh] if pieces:
                self._use_oauth2(config, ":".join(pieces), client, secret, refresh)
            case _:  # the error does not show it: it may be the secret itself
                raise ConfigError(
                    f"[{config.section}] auth is invalid: write none, bearer:ENV, "
                    "basic:USER_ENV:PASSWORD_ENV, header:NAME:ENV, query:NAME:ENV, "
                    "oauth2:TOKEN_URL:ID_ENV:SECRET_ENV or "
                    "oauth2_refresh:TOKEN_URL:ID_ENV:SECRET_ENV:REFRESH_ENV, where ENV names the environment variable "
                    "that holds the secret"
                )
        if config.token_file and not config.auth.startswith("oauth2_refresh:"):
            raise ConfigError(f"[{config.section}] token_file needs auth = oauth2_refresh:…: set it, or leave it out")

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self._headers)
        if self._tokens is not None:
            request.headers["Authorization"] = f"Bearer {self._tokens.get()}"
        if self._param:
            request.url = Request(request.url or "", self._param).target
        return request

    def renew(self, request: requests.PreparedRequest) -> bool:
        """Replace the token in `request`, which the API refused. Return whether the new token differs."""
        if self._tokens is None:
            return False
        refused = request.headers["Authorization"].removeprefix("Bearer ")
        self._tokens.drop(refused)
        return self._tokens.get() != refused

    def _use_oauth2(self, config: Source, url: str, client: str, secret: str, refresh: str = "") -> None:
        from wholeday.extract.http.oauth2 import Tokens  # imports oauthlib, which few runs need

        if _split_url(config, "the token URL in auth", url, "http://", "https://").username is not None:
            raise ConfigError(f"[{config.section}] auth: the token URL contains a user: leave it out")
        values = _read_variable(config, client), _read_variable(config, secret, may_be_empty=bool(refresh))
        token = RefreshToken(config, self._mask, refresh, _read_variable(config, refresh)) if refresh else None
        names = f"{client}, {secret} and {refresh}" if refresh else f"{client} and {secret}"
        hint = f"check the token URL and the values of {names}"
        self._tokens = Tokens(config, self._mask, url, values, hint, token)

    def _use_basic(self, user: str, password: str) -> None:
        code = encode_basic(user, password)
        self._mask.add(password or user, code)
        self._headers["Authorization"] = f"Basic {code}"


def _split_url(config: Source, what: str, url: str, *schemes: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if not parts.scheme:
            problem = "it has no scheme"
        elif f"{parts.scheme}://" not in schemes:
            problem = "its scheme is not supported"
        elif hides_userinfo(url):
            problem = "write / ? # in a user or password as %2F %3F %23, and @ after the host as %40"
        elif parts.hostname and parts.port != -1:
            return parts
        else:
            problem = "it has no host"
    except ValueError:
        problem = "its host or port is invalid"
    # The error does not show the URL, as the end of a password in it is unknown.
    known = f"{', '.join(schemes[:-1])} or {schemes[-1]}"
    raise ConfigError(f"[{config.section}] {what} cannot be used: {problem}: write {known}, and a host")


def name_source(config: Source) -> str:
    """Return the name of a source: scheme, host, port and path of the configured `url`.

    Placeholders in the path stay as `{name}`. Query and user are left out, and secrets are masked. Raises ConfigError
    for an unusable URL.
    """
    parts = _split_url(config, "url", config.url, *SCHEMES)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = f":{parts.port}" if parts.port not in (None, PORTS.get(parts.scheme)) else ""
    path = PLACEHOLDER.sub(lambda found: f"{{{found[1]}}}" if found[1] in NAMES else found[0], parts.path)
    return Mask(config.secrets)(f"{parts.scheme}://{host}{port}{path.rstrip('/')}")


def strip_userinfo(url: str) -> str:
    """Remove user, password and fragment from a URL."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))


def _read_variable(config: Source, variable: str, in_header: bool = False, may_be_empty: bool = False) -> str:
    # A text that is not a name may be the secret itself, written in the wrong place.
    name = variable if VARIABLE_NAME.fullmatch(variable) else "that it names (not shown: it may be the secret)"
    value = os.environ.get(variable)
    if value is None:
        raise ConfigError(f"[{config.section}] auth: the environment variable {name} is not set: export it")
    if not value and not may_be_empty:
        raise ConfigError(f"[{config.section}] auth: the environment variable {name} is empty: export its value")
    if not value.isprintable() or value != value.strip() or (in_header and not value.isascii()):
        raise ConfigError(
            f"[{config.section}] auth: the environment variable {name} has a line break, a space at an end or "
            "another character that a header cannot carry: export it without"
        )
    return value
