"""Describe where an extraction stands, so that a later run can resume it."""

from typing import Any

import msgspec

from wholeday.errors import SourceError


class MovedError(SourceError):
    """An interrupted extraction cannot resume at its position; it has to restart."""


class Position(msgspec.Struct, frozen=True):
    """The page at which an extraction stands, and the state before this page. It never holds a secret."""

    request: dict[str, Any]
    headers: dict[str, str]
    """The headers that the first request did not have, or had with another value."""
    digest: str
    """The digest of the page's records."""
    pages: int
    records: int
    totals: tuple[int | None, int | None]
    paging: dict[str, Any]
    decision: str
    overlap: int = 0
    """How many records at the start of the page also ended the page before."""
