"""Build the request for the next page from the page before it: one class for each way of paging.

Responsibilities: plain values in, a request out.
Non-goals: sending requests, and judging where a link leads; the client does both. A paginator never guesses: if the
source announces more and gives no way to get it, the paginator raises ValueError.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

from wholeday.extract.http.page import Page
from wholeday.extract.http.request import Request, join_query, parse_param_name, split_query, to_text
from wholeday.extract.links import is_malformed, parse_next_link, resolve_link
from wholeday.schema.paths import Unreadable, find, load

EMPTY_CURSORS = (None, "", False, 0, "0")  # cursors that mean: no further page


class Paginator(Protocol):
    """Build the requests of an extraction, one after the other."""

    positional: ClassVar[bool]
    """Whether requests count pages or records, so that only totals or an empty page show the end."""

    def first(self, request: Request) -> Request:
        """Return the first request, made from the configured one."""

    def next(self, request: Request, page: Page, more: bool | None) -> Request | None:
        """Return the request after `request`, whose answer is `page`; None after the last page.

        `more` is what the source says about further pages, None if it says nothing. Raises ValueError if the source
        announces more and does not say how to get it.
        """

    def foresee(self, request: Request, size: int) -> Request | None:
        """Return the request after `request` if its answer has `size` records; None if that depends on the answer."""


@dataclass(frozen=True)
class Single:
    """One page only."""

    positional: ClassVar[bool] = False

    def first(self, request: Request) -> Request:
        return request

    def next(self, request: Request, page: Page, more: bool | None) -> Request | None:  # noqa: ARG002 - the protocol's
        return None

    def foresee(self, request: Request, size: int) -> Request | None:  # noqa: ARG002 - the protocol's
        return None


@dataclass(frozen=True)
class LinkHeader(Single):
    """The Link header names the next page (RFC 8288, `rel="next"`)."""

    keep_origin: bool = False
    """Whether to use only path and query of the link."""

    def next(self, request: Request, page: Page, more: bool | None) -> Request | None:
        header = page.headers.get("Link", "")
        link = None if more is False else parse_next_link(header)
        if link is None and (more or (more is None and is_malformed(header))):
            raise ValueError(f"the source announces more, and no Link header leads to it: {header[:80]!r}")
        return None if link is None else _follow(request, page, link, self.keep_origin)


@dataclass(frozen=True)
class NextUrl(Single):
    """The field at `path` holds the URL of the next page, absolute or relative."""

    path: str
    keep_origin: bool = False
    """Whether to use only path and query of that URL."""

    def next(self, request: Request, page: Page, more: bool | None) -> Request | None:
        link = None if more is False else _read_cursor(page, self.path, more)
        return None if link is None else _follow(request, page, link, self.keep_origin)


@dataclass(frozen=True)
class Param:
    """The place for a page number, an offset or a cursor: a query parameter, a field of the body or a header."""

    name: str
    where: str = "query"
    size_param: str = ""
    keep_params: bool = True
    """Whether the other parameters are sent with it; `size_param` always is."""

    def put(self, request: Request, value: object) -> Request:
        if not self.keep_params:
            own = [pair for pair in split_query(request.url) if parse_param_name(pair) == self.size_param]
            params = {name: value for name, value in request.params.items() if name == self.size_param}
            request = replace(request, url=join_query(request.url, own), params=params)
        return request.put(self.where, self.name, value)

    def get(self, request: Request) -> int:
        return int(str(request.get(self.where, self.name)))


@dataclass(frozen=True)
class Cursor(Single):
    """The next request repeats the value of the field at `path`, or of the header of that name."""

    path: str
    param: Param

    def next(self, request: Request, page: Page, more: bool | None) -> Request | None:
        cursor = None if more is False else _read_cursor(page, self.path, more)
        return None if cursor is None else self.param.put(request, cursor)


@dataclass(frozen=True)
class LastId(Single):
    """The next request repeats the field at `path` of the last record; the first empty page is the end."""

    path: str
    param: Param

    def next(self, request: Request, page: Page, more: bool | None) -> Request | None:
        if more is False or (not page.records and not more):
            return None
        last = find(load(page.records[-1]), self.path) if page.records else None
        if not isinstance(last, (str, int)):
            raise ValueError(f"the last record of this page has no '{self.path}' to continue after: set cursor_path")
        return self.param.put(request, last)


@dataclass(frozen=True)
class PageNumber:
    """Pages are numbered from `start`. Unless the source says otherwise, the first empty page is the end."""

    param: Param
    start: int
    positional: ClassVar[bool] = True

    def first(self, request: Request) -> Request:
        return request.put(self.param.where, self.param.name, self.start)

    def next(self, request: Request, page: Page, more: bool | None) -> Request | None:
        return self.foresee(request, len(page.records)) if _has_next(page, more) else None

    def foresee(self, request: Request, size: int) -> Request | None:  # noqa: ARG002 - the protocol's
        return self.param.put(request, self.param.get(request) + 1)


@dataclass(frozen=True)
class Offset:
    """A page starts at `start` plus the number of records before it; the first empty page is the end."""

    param: Param
    start: int
    page_size: int
    positional: ClassVar[bool] = True

    def first(self, request: Request) -> Request:
        return request.put(self.param.where, self.param.name, self.start)

    def next(self, request: Request, page: Page, more: bool | None) -> Request | None:
        if not _has_next(page, more):
            return None
        # Count the records received: a source may send fewer than requested, and a short page is not the end.
        if step := len(page.records) or self.page_size:
            return self.foresee(request, step)
        raise ValueError("the source announces more, and its page is empty: set page_size")

    def foresee(self, request: Request, size: int) -> Request | None:
        return self.param.put(request, self.param.get(request) + size)


def _has_next(page: Page, more: bool | None) -> bool:
    return bool(page.records) if more is None else more


def _follow(request: Request, page: Page, link: str, keep_origin: bool) -> Request:
    return replace(request, url=resolve_link(page.url, link, keep_origin), params={})


def _read_cursor(page: Page, path: str, more: bool | None) -> str | None:
    """Return the cursor or link at `path`; None if there is none. Raises ValueError if `more` requires one."""
    cursor = find(page.fields, path)
    cursor = page.headers.get(path) if cursor is None else cursor
    if cursor in EMPTY_CURSORS:
        if more:
            raise ValueError(f"the source announces more, and '{path}' leads nowhere: check cursor_path")
        return None
    if not isinstance(cursor, (str, int, float)) or isinstance(cursor, Unreadable):
        raise ValueError(f"'{path}' is {to_text(cursor)[:80]}, neither a link nor a cursor: check cursor_path")
    return to_text(cursor)
