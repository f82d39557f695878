"""Secrets: out of the environment, into the headers of a request, and out of every text that is printed or kept."""

import base64
import contextlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import SplitResult, parse_qsl, quote_plus, unquote, urlsplit, urlunsplit
from urllib.parse import quote as percent_encode

import requests
from requests.auth import AuthBase

from pipeline.config import Source
from pipeline.errors import ConfigError
from pipeline.placeholders import walk_texts

SECRETIVE = "(?:token|key|secret|passw|pwd|signature|credential|auth|session|jwt|cookie)"
SECRET_NAME = re.compile(rf"{SECRETIVE}|^(?:sig|pass|code)$", re.IGNORECASE)
# The lengths are bounded because a hostile body would else take the pattern a long time.
SECRET_PARAM = re.compile(
    rf"([?&;](?:[^=&?;\s]{{0,80}}{SECRETIVE}[^=&?;\s]{{0,80}}|sig|pass|code)=)[^&#\s]*(?<![:,;.)'\"])", re.IGNORECASE
)
USERINFO = re.compile(r"(//)[^/?#\s]*@")
SHORTEST = 4  # characters; what is shorter is no secret, and masking it would garble every line


class Auth(AuthBase):
    """Puts the secrets that `auth` names, or the URL carries, into the headers of a request."""

    def __init__(self, config: Source) -> None:
        self.headers: dict[str, str] = {}
        self.secrets: list[str] = []
        parts = _split_url(config)
        if parts.username is not None:
            user, password = unquote(parts.username), unquote(parts.password or "")
            code = base64.b64encode(f"{user}:{password}".encode()).decode()
            self.headers["Authorization"] = f"Basic {code}"
            self.secrets += [password or user, code]
        match config.auth.split(":"):
            case ["none"]:
                pass
            case ["bearer", variable]:
                self.secrets.append(_read_secret(config, variable))
                self.headers["Authorization"] = f"Bearer {self.secrets[-1]}"
            case ["header", name, variable] if re.fullmatch(r"[\w-]+", name, re.ASCII):
                self.secrets.append(_read_secret(config, variable))
                self.headers[name] = self.secrets[-1]
            case _:  # not shown: it may be the secret itself
                raise ConfigError(
                    f"[{config.section}] auth cannot be understood: write none, bearer:ENV or header:NAME:ENV, "
                    "where ENV is the name of the environment variable that holds the secret"
                )

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self.headers)
        return request


class Mask:
    """Puts *** in the place of secrets in a text: of those it knows, of userinfo, of parameters named like one."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {
            form
            for secret in secrets
            for form in (secret, percent_encode(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1])
        }
        longest_first = sorted(filter(None, forms), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def __call__(self, text: str) -> str:
        text = self._known.sub("***", text.encode("utf-8", "backslashreplace").decode())
        return SECRET_PARAM.sub(r"\1***", USERINFO.sub(r"\1***@", text))

    @contextlib.contextmanager
    def cover(self, *names: str) -> Iterator[None]:
        """Mask what the loggers `names` say."""
        loggers = [logging.getLogger(name) for name in names]
        for each in loggers:
            each.addFilter(self._rewrite)
        try:
            yield
        finally:
            for each in loggers:
                each.removeFilter(self._rewrite)

    def _rewrite(self, record: logging.LogRecord) -> bool:
        record.msg, record.args, record.exc_info = self(record.getMessage()), (), None
        return True


def _split_url(config: Source) -> SplitResult:
    try:
        parts = urlsplit(config.url)
        if parts.scheme in ("http", "https", "demo") and parts.hostname and parts.port != -1:
            return parts
        problem = "it has no host" if parts.scheme else "it has no scheme"
    except ValueError:
        problem = "its host or port cannot be read"
    # The URL is not shown: where it cannot be taken apart, nobody knows where a password in it ends.
    raise ConfigError(
        f"[{config.section}] url cannot be used: {problem}: write http://, https:// or demo://, and a host"
    )


def strip_userinfo(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))


def _read_secret(config: Source, variable: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        raise ConfigError(f"[{config.section}] auth: the environment variable {variable} is not set: export it")
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise ConfigError(
            f"[{config.section}] auth: the environment variable {variable} holds a line break, a space at an end or "
            "another character that a header cannot carry: export it without"
        )
    return value


def find_secrets(config: Source) -> Iterator[str]:
    """The texts that `url`, `params` and `headers` hold under names that look secret."""
    pairs: list[tuple[str, object]] = [*parse_qsl(_split_url(config).query), *_walk_names(config.params)]
    pairs += [(name, [value, *str(value).split()]) for name, value in config.headers.items()]
    for name, value in pairs:
        if SECRET_NAME.search(name):
            yield from (text for text in walk_texts(value) if len(text) >= SHORTEST)


def _walk_names(value: object) -> Iterator[tuple[str, object]]:
    """Every name in nested objects, with what stands under it."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield name, item
            yield from _walk_names(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _walk_names(item)
