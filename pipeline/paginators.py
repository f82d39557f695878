"""How a source says that there is more: one class a paginator, on plain values, without HTTP.

A paginator is asked for the first request and, after each page, for the next one or None. It never
sends anything and never judges where a link leads: whoever sends the request does. What it cannot know,
it does not guess: `find_sign` tells whether a page says that it is not the last.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol
from urllib.parse import parse_qsl, quote, unquote_plus, urljoin, urlsplit, urlunsplit

import msgspec


@dataclass(frozen=True)
class Request:
    """A GET to be made: its URL, the query parameters added to it, its headers."""

    url: str
    params: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """The whole URL, percent-encoded. A parameter replaces those of its name in the URL's own query.

        A string is sent as it is, a list repeats its name, anything else is sent as JSON.
        """
        if not self.params:
            return self.url
        parts = urlsplit(self.url)
        own = [
            pair for pair in parts.query.split("&") if pair and unquote_plus(pair.partition("=")[0]) not in self.params
        ]
        added = [
            f"{quote(name, safe='')}={quote(_to_text(item), safe='')}"
            for name, value in self.params.items()
            for item in (value if isinstance(value, (list, tuple)) else [value])
        ]
        return urlunsplit(parts._replace(query="&".join(own + added)))


@dataclass(frozen=True)
class Page:
    """What a source answered: from which URL, its headers (names in any case), its records, and the rest of its object.

    `fields` is the page's object without its lists, but for those of links; empty where the page is the list itself.
    """

    url: str
    headers: Mapping[str, str]
    records: Sequence[msgspec.Raw]
    fields: Mapping[str, object] = field(default_factory=dict)


class Paginator(Protocol):
    """Makes the requests of a reading, one after the other."""

    def first(self, request: Request) -> Request:
        """The first request, made of the configured one."""

    def next(self, request: Request, page: Page) -> Request | None:
        """The request after `request`, which was answered with `page`; None where that was the last."""


class Single:
    """One page, and no other."""

    def first(self, request: Request) -> Request:
        return request

    def next(self, request: Request, page: Page) -> Request | None:  # noqa: ARG002 - the protocol's
        return None


class LinkHeader:
    """The Link header names the next page (RFC 8288, `rel="next"`); its URL is taken as it is."""

    def first(self, request: Request) -> Request:
        return request

    def next(self, request: Request, page: Page) -> Request | None:
        link = find_next_link(page.headers.get("Link", ""))
        return None if link is None else Request(urljoin(page.url, link), headers=request.headers)


@dataclass(frozen=True)
class PageNumber:
    """Pages are numbered from `start` in the parameter `param`, and the first empty one is the end."""

    param: str
    start: int
    size_param: str = ""
    keep_params: bool = True

    def first(self, request: Request) -> Request:
        return replace(request, params={**request.params, self.param: self.start})

    def next(self, request: Request, page: Page) -> Request | None:
        if not page.records and not says_more(page):
            return None
        number = int(str(request.params[self.param])) + 1
        kept = {name: value for name, value in request.params.items() if self.keep_params or name == self.size_param}
        return replace(request, params={**kept, self.param: number})


# One link of a Link header: <target>, then ;name=value pairs whose quoted values may hold , and ;
_LINK = re.compile(r'<([^<>]*)>((?:\s*;\s*[^\s=;,"]+\s*(?:=\s*(?:"(?:[^"\\]|\\.)*"|[^\s;,"]*))?)*)')
_LINK_PARAM = re.compile(r';\s*([^\s=;,"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))')


def find_next_link(header: str) -> str | None:
    """The target of the first link whose relation is `next`, as it stands in a Link header."""
    for target, params in _LINK.findall(header):
        for name, quoted, bare in _LINK_PARAM.findall(params):
            if name.lower() == "rel" and "next" in (quoted or bare).lower().split():
                return str(target)
    return None


# Names of headers, fields and parameters, as `_simplify` leaves them: small letters and digits.
_MORE = re.compile(r"has(more|next|nextpage)|more(results|available)?|(is)?truncated|incompleteresults")
_NEXT = re.compile(
    r"(x|odata)?next(page)?(url|uri|link|href|cursor|token|offset|key|number|recordsurl)?|after(cursor|url)|cursor"
    rf"|continuation(token)?|{_MORE.pattern}"
)
_END = re.compile(r"(is)?(last|lastpage|done|complete|endofstream)")
_TOTAL = re.compile(
    r"x?total(count|results|records|items|elements|size|hits|rows|users)?|(record|result|item|user)?count"
)
_PAGES = re.compile(r"(x?total|num)?pages|pagecount|lastpage")
_SIZE = re.compile(r"(page|max)?(limit|size|results|rows)|(page|max)count|x?perpage|itemsperpage|max|first|top|take")


def find_sign(page: Page, sent: str, page_size: int) -> str | None:
    """What in a first page says that it is not the last, or None.

    `sent` is the URL that was asked for, `page_size` the number of records that makes a page full (0: unknown).
    """
    got, all_came = len(page.records), find_total(page.headers) == len(page.records)
    for name, text in page.headers.items():
        key = _simplify(name)
        total = text.rpartition("/")[2] if key == "contentrange" else text if key in ("xtotal", "xtotalcount") else ""
        if _number(total) > got:
            return f"the header {name} is '{text}' and {got} records came"
        if (key == "xnextpage" and text.strip()) or (key == "xtotalpages" and _number(text) > 1):
            return f"the header {name} is '{text}'"
    fields = [(path, _simplify(path[-1]), value) for path, value in _walk(page.fields)]
    ended = any(
        (value is True and _END.fullmatch(key)) or (value is False and _MORE.fullmatch(key)) for _, key, value in fields
    )
    for path, key, value in fields:
        name = ".".join(path)
        all_came |= key.startswith("total") and 0 < _number(value) == got
        if _TOTAL.fullmatch(key) and _number(value) > got:
            return f"'{name}' is {value} and {got} records came"
        if (
            (not ended and _is_next(path, value))
            or (value is False and _END.fullmatch(key))
            or (_number(value) > 1 and _PAGES.fullmatch(key))
            or (value == "next" and key in ("rel", "relation"))
        ):
            return f"'{name}' is {str(value)[:80]!r}"
    return None if all_came or ended else _find_full(page, sent, page_size)


def _find_full(page: Page, sent: str, page_size: int) -> str | None:
    """What in the request or its answer says that as many records came as go into a page, or None."""
    sizes: list[tuple[str, str, object]] = [("page_size", "pagesize", page_size)]
    for name, text in parse_qsl(urlsplit(sent).query):
        # What is asked for as a `count` is a size; what is answered as one is how many came, or are there.
        sizes.append((name, "size" if name == "count" else _simplify(name), text))
    sizes += [(name, _simplify(name), text) for name, text in page.headers.items()]
    sizes += [(".".join(path), _simplify(path[-1]), value) for path, value in _walk(page.fields)]
    for name, key, size in sizes:
        if _SIZE.fullmatch(key) and 0 < _number(size) <= len(page.records):
            return f"{name} is {size} and {len(page.records)} records came: a full page"
    return None


def says_more(page: Page) -> bool:
    """Whether a page says in so many words that another one follows."""
    linked = find_next_link(page.headers.get("Link", "")) is not None
    return linked or any(_is_next(path, value) for path, value in _walk(page.fields))


def _is_next(path: tuple[str, ...], value: object) -> bool:
    """Whether a field holds what leads to a next page, or says that there is one."""
    return bool(value) and any(_NEXT.fullmatch(_simplify(step)) for step in path[-2:])


def find_total(headers: Mapping[str, str]) -> int:
    """How many records there are, as X-Total-Count or X-Total declares; 0 where neither does."""
    return max(_number(headers.get("X-Total-Count")), _number(headers.get("X-Total")))


def _walk(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """The values in `value` that hold no others, each with the names that lead to it."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _walk(item, (*path, name))
    elif isinstance(value, list):
        for item in value:
            yield from _walk(item, path)
    else:
        yield path, value


def _simplify(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _number(value: object) -> int:
    """The number that `value` is, or says in digits; 0 where it says none."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,18}\s*", value):
        return int(value)
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0


def _to_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), default=dict)
