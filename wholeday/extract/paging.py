"""Request one page after the other, by the keys of a section.

Responsibilities: check the keys of paging; build the first request, and the next one from a page; read totals and the
flag `more_path` from a page; read and resolve links to the next page (RFC 8288).
Non-goals: sending requests, and judging where a link leads; the client does both. `detection` turns `paginator = auto`
into other keys. Paging never guesses: if more is announced and nothing leads to it, `next` raises ValueError. The
parsers of requests and httpx keep one link for each relation, and report neither a malformed header nor the parameter
`results` that Sentry sends.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Self
from urllib.parse import urljoin, urlsplit, urlunsplit

from wholeday.config.placeholders import Values, render, render_all
from wholeday.config.source import Source
from wholeday.errors import ConfigError
from wholeday.extract.http.auth import strip_userinfo
from wholeday.extract.http.page import Page, Request, join_query, parse_param_name, split_query, to_text
from wholeday.schema.paths import Unreadable, find, has, is_true, load, to_integer

TOTAL_HEADERS = ("X-Total-Count", "X-Total")
EMPTY_CURSORS = (None, "", False, 0, "0")  # cursors that mean: no further page
# One link of a Link header: <target>, then ;name=value pairs whose quoted values may hold , and ;
_LINK = re.compile(r'<([^<>]*)>((?:\s*;\s*[^\s=;,"]+\s*(?:=\s*(?:"(?:[^"\\]|\\.)*"|[^\s;,"]*))?)*)')
_LINK_PARAM = re.compile(r';\s*([^\s=;,"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))')
NEEDS = {"cursor": ("cursor_path", "cursor_param"), "next_url": ("cursor_path",), "last_id": ("cursor_param",)}


@dataclass(frozen=True)
class Paging:
    """The keys of a section that describe paging. `auto` reads one page, until detection knows better."""

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
    overlap: bool = True
    """Whether a page of paginator `offset` begins with the last record of the page before."""

    @classmethod
    def of(cls, config: Source) -> Self:
        """Read the keys of `config`. Raises ConfigError if a key lacks another that it needs."""
        for key in NEEDS.get(config.paginator, ()):
            if not getattr(config, key):
                raise ConfigError(f"[{config.section}] paginator = {config.paginator} needs {key}: set it")
        if config.size_param and config.page_size <= 0:
            raise ConfigError(f"[{config.section}] size_param = {config.size_param} needs page_size: set it")
        if config.page_start is not None and config.page_start < 0:
            raise ConfigError(f"[{config.section}] page_start = {config.page_start} is negative: give 0, 1 or more")
        if config.method == "GET" and (config.body or config.cursor_in == "body"):
            raise ConfigError(f"[{config.section}] body and cursor_in = body need method = POST: set it")
        return cls(**{each.name: getattr(config, each.name) for each in fields(cls) if each.name != "overlap"})

    @property
    def positional(self) -> bool:
        """Whether requests count pages or records, so that only totals or an empty page show the end."""
        return self.paginator in ("page", "offset")

    @property
    def pointer(self) -> str:
        """The field or header that leads to the next page; empty if the paginator uses none."""
        own = {"next_url": self.cursor_path, "cursor": self.cursor_path, "link_header": "Link"}
        return own.get(self.paginator, "")

    def first(self, request: Request) -> Request:
        """Return the first request, made from the configured one: with the page size and the first position."""
        if self.size_param:
            request = request.put("body" if self.cursor_in == "body" else "query", self.size_param, self.page_size)
        if not self.positional:
            return request
        usual = 1 if self.paginator == "page" else 0
        return request.put(self.cursor_in, self._position_param, usual if self.page_start is None else self.page_start)

    def next(self, request: Request, page: Page, more: bool | None) -> Request | None:
        """Return the request after `request`, whose answer is `page`; None after the last page.

        `more` is what the source says about further pages, None if it says nothing. Raises ValueError if the source
        announces more and does not say how to get it.
        """
        if more is False:
            return None
        match self.paginator:
            case "link_header" | "next_url":
                link = self._read_link(page, more) if self.paginator == "link_header" else self._read_cursor(page, more)
                keep_origin = self.next_link == "path"
                return (
                    None if link is None else replace(request, url=resolve_link(page.url, link, keep_origin), params={})
                )
            case "cursor":
                cursor = self._read_cursor(page, more)
                return None if cursor is None else self._put(request, self.cursor_param, cursor)
            case "last_id" if page.records or more:
                return self._put(request, self.cursor_param, self._read_last_id(page))
            case "page" | "offset" if page.records or more:
                # Count the records received: a source may send fewer than requested, and a short page is not the end.
                step = page.received or self.page_size
                if not step and self.paginator == "offset":
                    raise ValueError("the source announces more, and its page is empty: set page_size")
                return self.foresee(request, step)
        return None

    def overlaps(self, size: int) -> bool:
        """Return whether the page after one of `size` records is to begin with the last of them."""
        return self.paginator == "offset" and self.overlap and size > 1

    def foresee(self, request: Request, size: int) -> Request | None:
        """Return the request after `request` if its answer has `size` records; None if that depends on the answer."""
        if not self.positional:
            return None
        position = int(str(request.get(self.cursor_in, self._position_param)))
        step = 1 if self.paginator == "page" else size - self.overlaps(size)
        return self._put(request, self._position_param, position + step)

    def read_more(self, page: Page) -> bool | None:
        """Return the flag at `more_path`: whether a page follows `page`. None without `more_path`.

        Raises ValueError if the page has no such field or header.
        """
        if not self.more_path:
            return None
        path, negated = self.more_path.removeprefix("!"), self.more_path.startswith("!")
        fields = page.headers if path in page.headers and not has(page.fields, path) else page.fields
        more = is_true(fields, self.more_path)
        if more is None and not has(fields, path):
            raise ValueError(f"more_path = {self.more_path}, and the page has no such field")
        return negated if more is None else more

    def read_totals(self, page: Page, pages: int | None = None) -> tuple[int | None, int | None]:
        """Return how many records and how many pages `page` declares; None, or the argument `pages`, if it does not.

        Without `total_path` and `total_header` the headers X-Total-Count and X-Total declare the records.
        """
        records = None
        for key, source in ((self.total_path, page.fields), (self.total_header, page.headers)):
            number = to_integer(find(source, key.removeprefix("pages:")))
            if number is not None and key.startswith("pages:"):
                pages = number
            elif number is not None:
                records = number
        if not (self.total_path or self.total_header):
            records = next((n for name in TOTAL_HEADERS if (n := to_integer(page.headers.get(name))) is not None), None)
        return records, pages

    @property
    def _position_param(self) -> str:
        return self.page_param if self.paginator == "page" else self.offset_param

    def _put(self, request: Request, name: str, value: object) -> Request:
        """Put the parameter that leads on into a request. Without `keep_params` only `size_param` stays beside it."""
        if not self.keep_params:
            own = [pair for pair in split_query(request.url) if parse_param_name(pair) == self.size_param]
            params = {name: value for name, value in request.params.items() if name == self.size_param}
            request = replace(request, url=join_query(request.url, own), params=params)
        return request.put(self.cursor_in, name, value)

    def _read_link(self, page: Page, more: bool | None) -> str | None:
        """Return the target of the Link header (RFC 8288, `rel="next"`); None if there is none."""
        header = page.headers.get("Link", "")
        link = parse_next_link(header)
        if link is None and (more or is_malformed(header)):
            raise ValueError(f"the source announces more, and no Link header leads to it: {header[:80]!r}")
        return link

    def _read_cursor(self, page: Page, more: bool | None) -> str | None:
        """Return the cursor or link at `cursor_path`, or None. Raises ValueError if `more` requires one."""
        cursor, path = find(page.fields, self.cursor_path), self.cursor_path
        cursor = page.headers.get(path) if cursor is None else cursor
        if cursor in EMPTY_CURSORS:
            if more:
                raise ValueError(f"the source announces more, and '{path}' leads nowhere: check cursor_path")
            return None
        if not isinstance(cursor, (str, int, float)) or isinstance(cursor, Unreadable):
            raise ValueError(f"'{path}' is {to_text(cursor)[:80]}, neither a link nor a cursor: check cursor_path")
        return to_text(cursor)

    def _read_last_id(self, page: Page) -> str | int:
        path = self.cursor_path or "id"
        last = find(load(page.records[-1]), path) if page.records else None
        if not isinstance(last, (str, int)):
            raise ValueError(f"the last record of this page has no '{path}' to continue after: set cursor_path")
        return last


def build_request(config: Source, values: Values) -> Request:
    """Build the request that the section describes, with `values` for its placeholders."""
    return Request(
        strip_userinfo(render(config.url, values, quote=True)),
        render_all(config.params, values),
        {name: str(value) for name, value in render_all(config.headers, values).items()},
        config.method,
        render_all(config.body, values),
    )


def parse_next_link(header: str) -> str | None:
    """Return the target of the first link with relation `next`, unresolved.

    Skip a link with `results="false"`: Sentry sends one with the last page, and it leads to an empty page.
    """
    return next((target for target, results in _parse_next_links(header) if results != "false"), None)


def is_last_link(header: str) -> bool:
    """Return whether all links to a next page carry `results="false"`."""
    found = [results for _, results in _parse_next_links(header)]
    return bool(found) and set(found) == {"false"}


def is_malformed(header: str) -> bool:
    """Return whether a Link header mentions `next` outside a valid link."""
    return bool(re.search(r"\bnext\b", _LINK.sub("", header), re.IGNORECASE))


def resolve_link(base: str, link: str, keep_origin: bool) -> str:
    """Return the absolute URL of `link` on the page `base`. `keep_origin` keeps scheme and host of `base`.

    Raises ValueError if the link is not a URL.
    """
    url = urljoin(base, link)
    parts = urlsplit(url)
    if not keep_origin or parts.scheme not in ("http", "https"):  # the client refuses other schemes
        return url
    own = urlsplit(base)
    return urlunsplit(parts._replace(scheme=own.scheme, netloc=own.netloc, path=parts.path or "/"))


def _parse_next_links(header: str) -> Iterator[tuple[str, str]]:
    """Yield target and parameter `results` of each link with relation `next`."""
    for target, text in _LINK.findall(header):
        params: dict[str, str] = {}
        for name, quoted, bare in _LINK_PARAM.findall(text):
            params.setdefault(name.lower(), (quoted or bare.strip("'")).lower())
        if "next" in params.get("rel", "").split():
            yield str(target), params.get("results", "")
