"""How a source says that there is more: one class a paginator, on plain values, without HTTP.

A paginator is asked for the first request and, after each page, for the next one or None. It never
sends anything and never judges where a link leads: whoever sends the request does. What it cannot know,
it does not guess: a word of the source that there is more, and no way to get it, is an error.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Protocol, Self
from urllib.parse import urljoin, urlsplit, urlunsplit

from wholeday.config.settings import Source
from wholeday.errors import ConfigError
from wholeday.extract.http.page import Page
from wholeday.extract.http.request import Request, join_query, parse_param_name, split_query, to_text
from wholeday.schema.paths import Unreadable, find, has, is_true, load

ENDS = (None, "", False, 0, "0")  # a cursor that is one of these leads nowhere


class Paginator(Protocol):
    """Makes the requests of a reading, one after the other."""

    positional: ClassVar[bool]
    """Whether pages are counted off, so that only the source's totals and an empty page say where they end."""

    def first(self, request: Request) -> Request:
        """The first request, made of the configured one."""

    def next(self, request: Request, page: Page, more: bool | None) -> Request | None:
        """The request after `request`, which was answered with `page`; None where that was the last.

        `more` is what the source says of it, None where it says nothing. Raises ValueError where it says that
        there is more and not how to get it.
        """

    def foresee(self, request: Request, size: int) -> Request | None:
        """The request after `request` if that is answered with `size` records; None where only its page tells."""


@dataclass(frozen=True)
class Single:
    """One page, and no other."""

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
    """Whether only path and query of a link count."""

    def next(self, request: Request, page: Page, more: bool | None) -> Request | None:
        header = page.headers.get("Link", "")
        link = None if more is False else find_next_link(header)
        if link is None and (more or (more is None and is_garbled(header))):
            raise ValueError(f"the source says that there is more, and no Link header leads to it: {header[:80]!r}")
        return None if link is None else replace(request, url=_resolve(page.url, link, self.keep_origin), params={})


@dataclass(frozen=True)
class NextUrl(Single):
    """The field at `path` names the next page, by an absolute or relative URL."""

    path: str
    keep_origin: bool = False
    """Whether only path and query of that URL count."""

    def next(self, request: Request, page: Page, more: bool | None) -> Request | None:
        link = None if more is False else _find_cursor(page, self.path, more)
        return None if link is None else replace(request, url=_resolve(page.url, link, self.keep_origin), params={})


@dataclass(frozen=True)
class Param:
    """Where the place of a page is sent: a parameter, a field of the body or a header."""

    name: str
    where: str = "query"
    size_param: str = ""
    keep_params: bool = True

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
    """The field at `path`, or the header of that name, is sent with the next request."""

    path: str
    param: Param

    def next(self, request: Request, page: Page, more: bool | None) -> Request | None:
        cursor = None if more is False else _find_cursor(page, self.path, more)
        return None if cursor is None else self.param.put(request, cursor)


@dataclass(frozen=True)
class LastId(Single):
    """The last record's field at `path` is sent with the next request; the first empty page is the end."""

    path: str
    param: Param

    def next(self, request: Request, page: Page, more: bool | None) -> Request | None:
        if more is False or (not page.records and not more):
            return None
        last = find(load(page.records[-1]), self.path) if page.records else None
        if not isinstance(last, (str, int)):
            raise ValueError(f"the last record of this page has no '{self.path}' to go on from: set cursor_path")
        return self.param.put(request, last)


@dataclass(frozen=True)
class PageNumber:
    """Pages are numbered from `start`; the first empty one is the end, where the source does not say it."""

    param: Param
    start: int
    positional: ClassVar[bool] = True

    def first(self, request: Request) -> Request:
        return request.put(self.param.where, self.param.name, self.start)

    def next(self, request: Request, page: Page, more: bool | None) -> Request | None:
        return self.foresee(request, len(page.records)) if _goes_on(page, more) else None

    def foresee(self, request: Request, size: int) -> Request | None:  # noqa: ARG002 - the protocol's
        return self.param.put(request, self.param.get(request) + 1)


@dataclass(frozen=True)
class Offset:
    """A page begins so many records from `start` as came before it; the first empty one is the end."""

    param: Param
    start: int
    page_size: int
    positional: ClassVar[bool] = True

    def first(self, request: Request) -> Request:
        return request.put(self.param.where, self.param.name, self.start)

    def next(self, request: Request, page: Page, more: bool | None) -> Request | None:
        if not _goes_on(page, more):
            return None
        # Not the size that was asked for: a source may give less than that, and a short page is not the end.
        if step := len(page.records) or self.page_size:
            return self.foresee(request, step)
        raise ValueError("the source says that there is more, and its page is empty: set page_size")

    def foresee(self, request: Request, size: int) -> Request | None:
        return self.param.put(request, self.param.get(request) + size)


@dataclass(frozen=True)
class Paging:
    """The keys of a section that say how pages follow each other."""

    paginator: str = "auto"
    next_link: str = "whole"
    cursor_path: str = ""
    cursor_param: str = ""
    cursor_in: str = "query"
    page_param: str = "page"
    page_start: int | None = None
    offset_param: str = "offset"
    size_param: str = ""
    page_size: int = 0
    keep_params: bool = True
    more_path: str = ""
    total_path: str = ""
    total_header: str = ""

    @classmethod
    def of(cls, config: Source) -> Self:
        """Those of `config`; raises ConfigError where one needs another."""
        needs = {"cursor": ("cursor_path", "cursor_param"), "next_url": ("cursor_path",), "last_id": ("cursor_param",)}
        for key in needs.get(config.paginator, ()):
            if not getattr(config, key):
                raise ConfigError(f"[{config.section}] paginator = {config.paginator} needs {key}: set it")
        if config.size_param and config.page_size <= 0:
            raise ConfigError(
                f"[{config.section}] size_param = {config.size_param} says nothing without page_size: set it"
            )
        if config.page_start is not None and config.page_start < 0:
            raise ConfigError(f"[{config.section}] page_start = {config.page_start} is negative: give 0, 1 or more")
        if config.method == "GET" and (config.body or config.cursor_in == "body"):
            raise ConfigError(f"[{config.section}] body and cursor_in = body need method = POST: set it")
        return cls(**{each.name: getattr(config, each.name) for each in fields(cls)})

    def make(self) -> Paginator:
        """The paginator; for `auto` the one that it is until the first page says otherwise."""

        def param(name: str) -> Param:
            return Param(name, self.cursor_in, self.size_param, self.keep_params)

        match self.paginator:
            case "link_header":
                return LinkHeader(self.next_link == "path")
            case "next_url":
                return NextUrl(self.cursor_path, self.next_link == "path")
            case "cursor":
                return Cursor(self.cursor_path, param(self.cursor_param))
            case "last_id":
                return LastId(self.cursor_path or "id", param(self.cursor_param))
            case "page":
                return PageNumber(param(self.page_param), 1 if self.page_start is None else self.page_start)
            case "offset":
                return Offset(param(self.offset_param), self.page_start or 0, self.page_size)
            case _:
                return Single()

    @property
    def pointer(self) -> str:
        """The field or header that leads to the next page; empty where pages are counted off, or there is one only."""
        own = {"next_url": self.cursor_path, "cursor": self.cursor_path, "link_header": "Link"}
        return own.get(self.paginator, "")

    def ask_for_size(self, request: Request) -> Request:
        """The request with the size of a page, where there is a parameter for it."""
        where = "body" if self.cursor_in == "body" else "query"
        return request.put(where, self.size_param, self.page_size) if self.size_param else request

    def says_more(self, page: Page) -> bool | None:
        """Whether the source says that there is more after `page`; None where no key names its word.

        Raises ValueError where the word is missing.
        """
        if not self.more_path:
            return None
        more, negated = is_true(page.fields, self.more_path), self.more_path.startswith("!")
        if more is None and not has(page.fields, self.more_path.removeprefix("!")):
            raise ValueError(f"more_path = {self.more_path}, and the page has no such field")
        return negated if more is None else more

    def find_total(self, page: Page, pages: int | None = None) -> tuple[int | None, int | None]:
        """How many records and how many pages (else `pages`) there are, as the source declares with `page`.

        None where it does not. Where no key says where it does, the headers X-Total-Count and X-Total do.
        """
        records = None
        for key, there in ((self.total_path, page.fields), (self.total_header, page.headers)):
            number = to_number(find(there, key.removeprefix("pages:")))
            if number is not None and key.startswith("pages:"):
                pages = number
            elif number is not None:
                records = number
        if not (self.total_path or self.total_header):
            records = next((n for name in TOTALS if (n := to_number(page.headers.get(name))) is not None), None)
        return records, pages


TOTALS = ("X-Total-Count", "X-Total")

# One link of a Link header: <target>, then ;name=value pairs whose quoted values may hold , and ;
_LINK = re.compile(r'<([^<>]*)>((?:\s*;\s*[^\s=;,"]+\s*(?:=\s*(?:"(?:[^"\\]|\\.)*"|[^\s;,"]*))?)*)')
_LINK_PARAM = re.compile(r';\s*([^\s=;,"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))')


def find_next_link(header: str) -> str | None:
    """The target of the first link whose relation is `next`, as it stands in a Link header.

    A link with the parameter `results="false"`, as Sentry sends it, leads to an empty page and is none.
    """
    return next((target for target, results in _find_next_links(header) if results != "false"), None)


def is_last_link(header: str) -> bool:
    """Return whether a Link header says that its link to the next page leads to nothing."""
    found = [results for _, results in _find_next_links(header)]
    return bool(found) and set(found) == {"false"}


def _find_next_links(header: str) -> Iterator[tuple[str, str]]:
    """Yield the target of each link whose relation is `next`, and its parameter `results`."""
    for target, text in _LINK.findall(header):
        params: dict[str, str] = {}
        for name, quoted, bare in _LINK_PARAM.findall(text):
            params.setdefault(name.lower(), (quoted or bare.strip("'")).lower())
        if "next" in params.get("rel", "").split():
            yield str(target), params.get("results", "")


def is_garbled(header: str) -> bool:
    """Whether a Link header speaks of a next page in what is no link by RFC 8288."""
    return bool(re.search(r"\bnext\b", _LINK.sub("", header), re.IGNORECASE))


def to_number(value: object) -> int | None:
    """The whole number that `value` is, or says in digits; None where it says none."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,18}\s*", value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _goes_on(page: Page, more: bool | None) -> bool:
    return bool(page.records) if more is None else more


def _find_cursor(page: Page, path: str, more: bool | None) -> str | None:
    """The text that leads to the next page; None where there is none. Raises ValueError where there should be one."""
    cursor = find(page.fields, path)
    cursor = page.headers.get(path) if cursor is None else cursor
    if cursor in ENDS:
        if more:
            raise ValueError(f"the source says that there is more, and '{path}' leads nowhere: check cursor_path")
        return None
    if not isinstance(cursor, (str, int, float)) or isinstance(cursor, Unreadable):
        raise ValueError(f"'{path}' is {to_text(cursor)[:80]}, which is no link and no cursor: check cursor_path")
    return to_text(cursor)


def _resolve(base: str, link: str, keep_origin: bool) -> str:
    """Return the URL that `link` means on the page `base`; with `keep_origin`, at the origin of that page.

    Raises ValueError where the link is no URL.
    """
    url = urljoin(base, link)
    parts = urlsplit(url)
    if not keep_origin or parts.scheme not in ("http", "https"):  # whoever sends the request refuses other schemes
        return url
    own = urlsplit(base)
    return urlunsplit(parts._replace(scheme=own.scheme, netloc=own.netloc, path=parts.path or "/"))
