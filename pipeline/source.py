"""Every record of an API for one day, page by page, or an error.

Owns the order of pages: what is asked for first and next, and when all has come. Refuses to take a page twice,
to go on through empty pages for ever, to guess that there is no more, and to end short of the total that the
source declares: the day fails with one line instead.
"""

import datetime as dt
import hashlib
from collections.abc import Iterator

import msgspec

from pipeline.auth import strip_userinfo
from pipeline.client import Client
from pipeline.config import Source
from pipeline.errors import ConfigError
from pipeline.paginators import (
    LinkHeader,
    Page,
    PageNumber,
    Paginator,
    Request,
    Single,
    find_next_link,
    find_sign,
    find_total,
)
from pipeline.placeholders import EPOCH, find_placeholders, render, render_all

MAX_EMPTY = 100  # empty pages in a row


class Reading:
    """One reading of a source for one day; iterating it fetches the pages in turn, each a list of records.

    A record is the source's own bytes, on one line. `watermark` (UTC) is None where nothing was loaded before.
    Raises ConfigError when made, and SourceError when iterated: an error on any page means that none is to be used.
    """

    url: str
    """The first page's, without secrets."""
    paginator: str
    """How pages follow each other; for `auto` what was decided and why, once the first page has been read."""
    pages: int
    records: int

    def __init__(self, config: Source, date: dt.date, watermark: dt.datetime | None = None) -> None:
        find_placeholders(config)
        window = config.window(date)
        values = {
            "date": date,
            "day_start": window.start - config.lookback,
            "day_stop": window.stop,
            "watermark": EPOCH if watermark is None else watermark - config.lookback,
        }
        self._config = config
        self._client = Client(config, date)
        self._paginator = _make_paginator(config)
        self._first = self._paginator.first(
            Request(
                strip_userinfo(render(config.url, values, quote=True)),
                {**render_all(config.params, values), **_ask_for_size(config)},
                {name: str(value) for name, value in render_all(config.headers, values).items()},
            )
        )
        self.url = self._client.mask(self._first.target)
        self.paginator = config.paginator
        self.pages = self.records = 0

    def __iter__(self) -> Iterator[list[msgspec.Raw]]:
        self.pages = self.records = 0
        total = empty = 0
        seen: dict[bytes, str] = {}
        request: Request | None = self._first
        with self._client.open():
            while request is not None:
                self._check_new(seen, request.target.encode(), request, "was asked for before, as")
                page, content = self._client.fetch(request)
                if page.records:
                    self._check_new(seen, content, request, "has the same records as")
                self.pages += 1
                self.records += len(page.records)
                total, empty = find_total(page.headers) or total, 0 if page.records else empty + 1
                if empty > MAX_EMPTY:
                    raise self._client.fail(f"{empty} pages in a row are empty, and each says that there is more")
                if 0 < self._config.ceiling <= self.records:
                    raise self._client.fail(
                        f"{self.records} records came, and ceiling is {self._config.ceiling}: there may be more behind "
                        "it; ask for less at a time, or set ceiling higher"
                    )
                following = self._find_next(request, page)
                yield list(page.records)
                request = following
        if self.records < total and self._config.paginator != "single":
            raise self._client.fail(
                f"{self.url}: the source declares {total} records, and {self.records} came on {self.pages} pages: "
                "check paginator and its keys"
            )

    def _check_new(self, seen: dict[bytes, str], content: bytes, request: Request, what: str) -> None:
        """Fail where `content`, a page's URL or records, came before in this reading."""
        key = hashlib.blake2b(content, digest_size=16).digest()
        name = f"page {self.pages + 1}"
        if key in seen:
            raise self._client.fail(
                f"{name} ({request.target}) {what} {seen[key]}: the source repeats itself; check paginator and its keys"
            )
        seen[key] = name

    def _find_next(self, request: Request, page: Page) -> Request | None:
        if self._config.paginator == "auto" and self.pages == 1:
            self._decide(request, page)
        try:
            return self._paginator.next(request, page)
        except ValueError as error:
            raise self._client.fail(f"the link to page {self.pages + 1} cannot be read: {error}") from None

    def _decide(self, request: Request, page: Page) -> None:
        """Settle on a paginator by the first page, or fail where it shows that there is more but not how to get it."""
        if find_next_link(page.headers.get("Link", "")) is not None:
            self._paginator, self.paginator = LinkHeader(), "link_header: the first page has a Link to the next"
        elif sign := find_sign(page, request.target, self._config.page_size):
            raise self._client.fail(
                f"GET {request.target}: there seems to be more than this page: {sign}; set paginator "
                "(to single, if this is all)"
            )
        else:
            self.paginator = "single: nothing in the first page says that there is more"


def _make_paginator(config: Source) -> Paginator:
    """The configured one; for `auto` the one that it is until the first page says otherwise."""
    match config.paginator:
        case "page":
            return PageNumber(config.page_param, config.page_start, config.size_param, config.keep_params)
        case "link_header":
            return LinkHeader()
        case _:
            return Single()


def _ask_for_size(config: Source) -> dict[str, int]:
    if config.size_param and config.page_size <= 0:
        raise ConfigError(f"[{config.section}] size_param = {config.size_param} says nothing without page_size: set it")
    return {config.size_param: config.page_size} if config.size_param else {}
