"""Describe where an extraction stands, so that a later run can resume it."""

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Standing:
    """Where a reader stands: at a page whose records the caller has."""

    position: Position | None
    """The position of the page; None if it cannot be stored, because a link holds a secret or records are missing."""
    digests: tuple[str, ...]
    """The digests of requests and pages that came before the page and after the page of the last description."""
    has_more: bool
    """Whether another page follows."""
    gap: str
    """The first page without records although the source declares more."""
    skipped: int
    """How many records of the page an interrupted extraction has stored already."""
