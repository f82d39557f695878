"""Describe a page: the answer to one request."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec


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
    """The object around the records, without its lists other than links and errors; empty if the page is a list."""
    content: bytes = b""
    """The bytes of the list of records."""
    end: str = ""
    """The word of `end_when` that makes this answer the end of the data; empty if the answer has a list."""


def digest(content: bytes) -> str:
    """Return the SHA-256 of a request or a list of records, to recognise it if it comes again."""
    return hashlib.sha256(content).hexdigest()
