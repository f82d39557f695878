"""Describe a request for one page, and the page that answers it."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, unquote_plus, urlsplit, urlunsplit

import msgspec

from wholeday.schema.paths import Number, Unreadable, find, put

LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Request:
    """A request for one page. `params` are added to the query of `url`; a POST sends `body` as JSON."""

    url: str
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "GET"
    body: Mapping[str, Any] | Sequence[Any] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """The percent-encoded URL with its parameters. A parameter replaces parameters of the same name in `url`.

        Strings are sent unchanged, a list repeats its name, and any other value is sent as JSON.
        """
        if not self.params:
            return self.url
        own = [pair for pair in split_query(self.url) if parse_param_name(pair) not in self.params]
        added = [
            f"{quote(name, safe='')}={quote(to_text(item), safe='')}"
            for name, value in self.params.items()
            for item in (value if isinstance(value, (list, tuple)) else [value])
        ]
        return join_query(self.url, own + added)

    @property
    def content(self) -> bytes | None:
        """The bytes of the body; None unless the method is POST."""
        return to_text(self.body).encode() if self.method == "POST" else None

    @property
    def identity(self) -> bytes:
        """Bytes that are equal for equal requests only."""
        return "\n".join([self.target, to_text(self.body), to_text(self.headers)]).encode()

    def __str__(self) -> str:
        """Show the request in an error message, without its headers."""
        return f"{self.method} {self.target}" + (f" {to_text(self.body)}" if self.method == "POST" else "")

    def put(self, where: str, name: str, value: object) -> "Request":
        """Return a copy with a value in its `query`, `body` (`name` is a dotted path) or `header`.

        Raises ValueError if the value cannot be sent.
        """
        if isinstance(value, Unreadable) or (isinstance(value, str) and LONE_SURROGATE.search(value)):
            raise ValueError(f"{ascii(value)[:80]} cannot be sent as '{name}': it is not valid text")
        match where:
            case "body":
                assert isinstance(self.body, Mapping)  # noqa: S101 - the section refuses cursor_in = body with a list
                return replace(self, body=put(self.body, name, value))
            case "header":
                text = to_text(value).encode().decode("latin-1")  # http.client sends one byte per character
                return replace(self, headers={**self.headers, name: text})
            case _:
                return replace(self, params={**self.params, name: value})

    def get(self, where: str, name: str) -> Any:
        """Return the value that `put` stored under the same place and name."""
        return find(self.body, name) if where == "body" else {"header": self.headers}.get(where, self.params)[name]


@dataclass(frozen=True)
class Page:
    """The answer to a request for one page."""

    url: str
    """The URL that answered, after redirects."""
    headers: Mapping[str, str]
    """The headers. Their names match in any case."""
    records: Sequence[msgspec.Raw]
    """The records, each as the bytes that the source sent."""
    fields: Mapping[str, object] = field(default_factory=dict)
    """The object around the records, without its lists other than links and errors; empty if the page is a list.

    A header about paging whose value is an object, such as X-Pagination, is a field too.
    """
    content: bytes = b""
    """The bytes of the list of records."""
    digest: str = ""
    """The SHA-256 of `content`, to recognise the records if they come again; empty if the answer has no list."""
    may_be_deep: bool = True
    """False if no record can be nested more than MAX_DEPTH levels deep; see wholeday/schema/depth.py."""
    end: str = ""
    """The word of `end_when` that makes this answer the end of the data; empty if the answer has a list."""
    overlap: int = 0
    """How many records of the list are left out of `records`, as the page before ended with them."""
    asked_at: float = 0.0
    came_at: float = 0.0
    """When the request was sent, and when its answer was there, on the clock of `time.monotonic`."""

    @property
    def received(self) -> int:
        """The number of records in the list."""
        return len(self.records) + self.overlap


def digest(content: bytes) -> str:
    """Return the SHA-256 of bytes, to recognise them if they come again."""
    return hashlib.sha256(content).hexdigest()


def split_query(url: str) -> list[str]:
    """Split the query of a URL into its `name=value` pairs, still percent-encoded."""
    return [pair for pair in urlsplit(url).query.split("&") if pair]


def join_query(url: str, pairs: Sequence[str]) -> str:
    """Replace the query of a URL by percent-encoded pairs."""
    return urlunsplit(urlsplit(url)._replace(query="&".join(pairs)))


def parse_param_name(pair: str) -> str:
    """Return the decoded name of a `name=value` pair."""
    return unquote_plus(pair.partition("=")[0])


def to_text(value: object) -> str:
    """Return the text to send for a value: strings and numbers unchanged, any other value as JSON."""
    if isinstance(value, (str, Number)):
        return str(value)
    return json.dumps(value, separators=(",", ":"), default=dict)
