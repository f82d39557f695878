"""Build the first request and the paginator from the keys of a section.

Responsibilities: check the keys of paging; read totals and the flag `more_path` from a page.
Non-goals: `paginator = auto`, which `detection` turns into other keys.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

from wholeday.config.placeholders import render, render_all
from wholeday.config.source import Source
from wholeday.errors import ConfigError
from wholeday.extract.http.auth import strip_userinfo
from wholeday.extract.http.page import Page
from wholeday.extract.http.request import Request
from wholeday.extract.paginators import (
    Cursor,
    LastId,
    LinkHeader,
    NextUrl,
    Offset,
    PageNumber,
    Paginator,
    Param,
    Single,
)
from wholeday.schema.paths import find, has, is_true, to_integer

TOTAL_HEADERS = ("X-Total-Count", "X-Total")


@dataclass(frozen=True)
class Paging:
    """The keys of a section that describe paging."""

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
        """Read the keys of `config`. Raises ConfigError if a key lacks another that it needs."""
        needs = {"cursor": ("cursor_path", "cursor_param"), "next_url": ("cursor_path",), "last_id": ("cursor_param",)}
        for key in needs.get(config.paginator, ()):
            if not getattr(config, key):
                raise ConfigError(f"[{config.section}] paginator = {config.paginator} needs {key}: set it")
        if config.size_param and config.page_size <= 0:
            raise ConfigError(f"[{config.section}] size_param = {config.size_param} needs page_size: set it")
        if config.page_start is not None and config.page_start < 0:
            raise ConfigError(f"[{config.section}] page_start = {config.page_start} is negative: give 0, 1 or more")
        if config.method == "GET" and (config.body or config.cursor_in == "body"):
            raise ConfigError(f"[{config.section}] body and cursor_in = body need method = POST: set it")
        return cls(**{each.name: getattr(config, each.name) for each in fields(cls)})

    def build(self) -> Paginator:
        """Build the paginator. For `auto` build Single, until detection knows better."""

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
        """The field or header that leads to the next page; empty if the paginator uses none."""
        own = {"next_url": self.cursor_path, "cursor": self.cursor_path, "link_header": "Link"}
        return own.get(self.paginator, "")

    def add_size(self, request: Request) -> Request:
        """Return the request with `page_size` in `size_param`, if that is set."""
        where = "body" if self.cursor_in == "body" else "query"
        return request.put(where, self.size_param, self.page_size) if self.size_param else request

    def read_more(self, page: Page) -> bool | None:
        """Return the flag at `more_path`: whether a page follows `page`. None without `more_path`.

        Raises ValueError if the page has no such field.
        """
        if not self.more_path:
            return None
        more, negated = is_true(page.fields, self.more_path), self.more_path.startswith("!")
        if more is None and not has(page.fields, self.more_path.removeprefix("!")):
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


def build_request(config: Source, values: Mapping[str, dt.datetime | dt.date]) -> Request:
    """Build the request that the section describes, with `values` for its placeholders."""
    return Request(
        strip_userinfo(render(config.url, values, quote=True)),
        render_all(config.params, values),
        {name: str(value) for name, value in render_all(config.headers, values).items()},
        config.method,
        render_all(config.body, values),
    )
