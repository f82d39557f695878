"""Test the next request of each paginator, on plain values."""

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from tests.support.reading import People, read_error
from tests.support.server import Answer, Server
from wholeday.errors import ConfigError
from wholeday.extract.http.page import Page, Request
from wholeday.extract.paging import Paging, parse_next_link

URL = "https://api.example/users"
RECORD = msgspec.Raw(b'{"id":1}')


def make_page(records: int = 2, headers: dict[str, str] | None = None, **fields: object) -> Page:
    return Page(URL, CaseInsensitiveDict(headers or {}), [RECORD] * records, fields)


def test_params_are_encoded_and_replace_url_query() -> None:
    """A list repeats its name. A parameter replaces the value of the same name in the URL."""
    request = Request(URL + "?page=1&all=%20x&flag", {"page": 2, "at": "a b&c+d", "id": [1, "x"], "on": True})
    assert request.target == URL + "?all=%20x&flag&page=2&at=a%20b%26c%2Bd&id=1&id=x&on=true"


def test_nested_param_is_sent_as_json() -> None:
    assert Request(URL, {"where": {"a": {"b": 1}}}).target == URL + "?where=%7B%22a%22%3A%7B%22b%22%3A1%7D%7D"


def test_single_ignores_link_to_next_page() -> None:
    assert Paging("single").next(Request(URL), make_page(headers={"Link": f'<{URL}?page=2>; rel="next"'}), None) is None


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ("", None),
        ('<https://a/?p=2>; rel="next"', "https://a/?p=2"),
        ("<?p=2>;rel=next", "?p=2"),
        ("<?p=1>; rel=prev, <?p=3>; rel=next", "?p=3"),
        ('<?p=2>; title="a, b; rel=next"', None),
        ('<?p=2&x=a,b>; title="say \\"hi\\""; REL="last Next"', "?p=2&x=a,b"),
        ('<?p=9>; rel="last"', None),
        ('<?p=9>; rel="nextish"', None),
        ("no link at all", None),
    ],
)
def test_next_link_follows_rfc_8288(header: str, target: str | None) -> None:
    """The target belongs to the link with the relation `next`, in any spelling that the RFC allows."""
    assert parse_next_link(header) == target


def test_link_header_uses_link_unchanged() -> None:
    """The paginator resolves a relative link against the page, keeps headers and does not add params again."""
    request = Request(URL, {"per_page": 5}, {"X-A": "1"})
    following = Paging("link_header").next(
        request, make_page(0, {"link": '<users?page=2&per_page=5>; rel="next"'}), None
    )
    assert following == Request(URL + "?page=2&per_page=5", {}, {"X-A": "1"})


def follow(paging: Paging, answer: Callable[[Request], Page], **start: Any) -> list[Request]:
    """Return the requests that a paginator sends until its last page."""
    request: Request | None = paging.first(Request(URL, **start))
    asked = []
    while request is not None:
        asked.append(request)
        page = answer(request)
        request = paging.next(request, page, paging.read_more(page))
    return asked


@settings(deadline=None)
@given(st.integers(0, 3), st.integers(1, 20), st.booleans())
def test_page_numbers_grow_until_empty_page(start: int, pages: int, keep: bool) -> None:
    paging = Paging("page", page_start=start, size_param="per_page", page_size=2, keep_params=keep)
    last = start + pages - 1
    asked = follow(paging, lambda r: make_page(2 if r.params["page"] < last else 0), params={"city": "Oslo"})
    assert [request.params["page"] for request in asked] == list(range(start, start + pages))
    assert all(request.params["per_page"] == 2 for request in asked)
    assert [request for request in asked if "city" in request.params] == (asked if keep else asked[:1])


@settings(deadline=None)
@given(st.integers(0, 1), st.lists(st.integers(1, 3), max_size=5))
def test_offset_grows_by_received_records(start: int, sizes: list[int]) -> None:
    """A short page is not the end, and the next offset skips no record. A page of several records overlaps the next."""
    places = list(itertools.accumulate((max(1, size - 1) for size in sizes), initial=start))
    answers = dict(zip(places, [*sizes, 0], strict=True))
    paging = Paging("offset", offset_param="skip", page_start=start, size_param="limit", page_size=3)
    asked = follow(paging, lambda r: make_page(answers[r.params["skip"]]))
    assert [(r.params["skip"], r.params["limit"]) for r in asked] == [(place, 3) for place in places]


def test_offset_skips_empty_page_by_page_size() -> None:
    """The source announced more records. Without `page_size` the next offset is unknown."""
    counts = iter([3, 0, 1])
    paging = Paging("offset", size_param="limit", page_size=3, more_path="more")
    asked = follow(paging, lambda r: make_page(next(counts), more=r.params["offset"] < 4))
    assert [request.params["offset"] for request in asked] == [0, 2, 4]
    with pytest.raises(ValueError, match="set page_size"):
        follow(Paging("offset", more_path="more"), lambda _: make_page(0, more=True))


@pytest.mark.parametrize(
    ("where", "name", "place"),
    [
        ("query", "cursor", lambda request: request.params.get("cursor")),
        ("header", "X-After", lambda request: request.headers.get("X-After")),
        ("body", "page.after", lambda request: request.body.get("page", {}).get("after")),
    ],
)
@pytest.mark.parametrize("end", [None, "", False, 0, "0", "missing"])
def test_cursor_is_sent_in_configured_place(where: str, name: str, place: Any, end: Any) -> None:
    """The place is the query, a header or the body. A missing or empty cursor is the end."""
    paging = Paging("cursor", cursor_path="meta.next", cursor_param=name, cursor_in=where)
    nexts = iter(["a b", 7, end])

    def answer(_: Request) -> Page:
        value = next(nexts)
        return make_page(1, meta={} if value == "missing" else {"next": value})

    body = {"page": {"size": 2}, "filter": 1}
    asked = follow(paging, answer, params={"x": 1}, method="POST", body=body)
    assert [place(request) for request in asked] == [None, "a b", "7"]
    assert all(request.params["x"] == 1 and request.body["page"]["size"] == 2 for request in asked)


def test_cursor_path_may_name_a_header() -> None:
    """The header is used if the page has no such field."""
    pages = iter([make_page(1, {"x-next": "abc"}), make_page(1)])
    asked = follow(Paging("cursor", cursor_path="X-Next", cursor_param="c"), lambda _: next(pages))
    assert [request.params for request in asked] == [{}, {"c": "abc"}]


def test_without_keep_params_later_pages_drop_params() -> None:
    """The other params and the URL's own query belong to page one only."""
    pages = iter([make_page(1, next="abc"), make_page(1)])
    paging = Paging("cursor", cursor_path="next", cursor_param="c", keep_params=False, size_param="size", page_size=5)
    _, second = follow(paging, lambda _: next(pages), params={"since": 0})
    assert second.target == URL + "?size=5&c=abc"
    request = Request(URL + "?since=0&size=9&flag")
    following = paging.next(request, make_page(1, next="x"), None)
    assert following
    assert following.target == URL + "?size=9&c=x"


def test_end_flag_takes_precedence_over_cursor() -> None:
    """Some sources send a cursor with the last page too. `!` negates a flag for the end."""
    for more_path, last in [("has_more", {"has_more": False}), ("!meta.end", {"meta": {"end": True}})]:
        paging = Paging("cursor", cursor_path="next", cursor_param="c", more_path=more_path)
        assert len(follow(paging, lambda _, last=last: make_page(1, next="abc", **last))) == 1


@pytest.mark.parametrize(
    ("paging", "page", "words"),
    [
        (Paging("cursor", cursor_path="next", cursor_param="c"), {"next": ""}, "'next' leads nowhere"),
        (Paging("next_url", cursor_path="next"), {}, "'next' leads nowhere"),
        (Paging("link_header"), {}, "no Link header"),
        (Paging("last_id", cursor_path="key", cursor_param="after"), {}, "has no 'key'"),
        (Paging("cursor", cursor_path="next", cursor_param="c"), {"next": {"a": 1}}, 'is {"a":1}, neither a link'),
    ],
)
def test_announced_records_without_next_page_are_an_error(paging: Paging, page: Any, words: str) -> None:
    """A missing link or cursor does not prove the end of the list."""
    with pytest.raises(ValueError, match=words):
        follow(replace(paging, more_path="more"), lambda _: make_page(1, more=True, **page))


def test_missing_more_field_is_an_error() -> None:
    """Without the field of `more_path` the paginator does not guess."""
    with pytest.raises(ValueError, match="more_path = more, and the page has no such field"):
        follow(Paging("page", more_path="more"), lambda _: make_page(1))


@pytest.mark.parametrize("more_path", ["more", "pages.next"])
def test_null_more_field_is_false(more_path: str) -> None:
    """Many sources send null in place of the next page after the last one."""
    page = make_page(1, more=None, pages=None)
    assert Paging("page", more_path=more_path).read_more(page) is False
    assert Paging("page", more_path=f"!{more_path}").read_more(page) is True


@pytest.mark.parametrize("link", ["https://api.example/users?c=2", "/users?c=2", "?c=2"])
def test_next_url_uses_link_unchanged(link: str) -> None:
    """The link is absolute or relative to the page. Headers and method stay; params are not added again."""
    pages = iter([make_page(1, **{"@odata.nextLink": link}), make_page(1)])
    paging = Paging("next_url", cursor_path="@odata.nextLink")
    _, second = follow(paging, lambda _: next(pages), params={"top": 5}, headers={"X-A": "1"}, method="POST")
    assert second == Request(URL + "?c=2", {}, {"X-A": "1"}, "POST")


def test_last_id_sends_id_of_last_record() -> None:
    """`cursor_path` may name another field. An empty page is the end, a short page is not."""
    pages = iter([[b'{"id":1,"a":{"b":"x"}}', b'{"id":2,"a":{"b":"y"}}'], [b'{"id":9,"a":{"b":"z"}}'], []])
    raws = [[msgspec.Raw(record) for record in page] for page in pages]
    for path, sent in (("", [None, 2, 9]), ("a.b", [None, "y", "z"])):
        pages = iter(raws)
        paging = Paging("last_id", cursor_path=path, cursor_param="after")
        asked = follow(paging, lambda _, pages=pages: Page(URL, {}, next(pages)))
        assert [request.params.get("after") for request in asked] == sent


def test_more_flag_takes_precedence_for_last_id() -> None:
    """A false flag saves a request. A true flag on an empty page is an error."""
    paging = Paging("last_id", cursor_param="after", more_path="more")
    assert len(follow(paging, lambda _: make_page(1, more=False))) == 1
    with pytest.raises(ValueError, match="the last record of this page has no 'id' to continue after: set cursor_path"):
        follow(paging, lambda _: make_page(0, more=True))


@pytest.mark.parametrize(
    ("paging", "headers", "fields", "total"),
    [
        (Paging(), {"X-Total-Count": "7"}, {"total": 9}, (7, None)),
        (Paging(), {"x-total": "7"}, {}, (7, None)),
        (Paging(), {}, {"total": 9}, (None, None)),
        (Paging(total_path="meta.total"), {"X-Total": "7"}, {"meta": {"total": "9"}}, (9, None)),
        (Paging(total_path="pages:meta.total"), {}, {"meta": {"total": 9}}, (None, 9)),
        (Paging(total_path="pages:p", total_header="T"), {"T": "7"}, {"p": 2}, (7, 2)),
        (Paging(total_path="total"), {}, {"total": None}, (None, None)),
        (Paging(total_path="total"), {}, {"total": True}, (None, None)),
    ],
)
def test_declared_total_is_read(paging: Paging, headers: Any, fields: Any, total: Any) -> None:
    """The total counts records or pages. Without a configured field or header, the usual headers apply."""
    assert paging.read_totals(make_page(1, headers, **fields)) == total


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"paginator": "cursor", "cursor_param": "c"}, "needs cursor_path"),
        ({"paginator": "cursor", "cursor_path": "c"}, "needs cursor_param"),
        ({"paginator": "next_url"}, "needs cursor_path"),
        ({"paginator": "last_id"}, "needs cursor_param"),
        ({"size_param": "limit"}, "page_size"),
        ({"page_start": -1}, "negative"),
        ({"cursor_in": "body"}, "method = POST"),
        ({"body": {"a": 1}}, "method = POST"),
    ],
)
def test_incomplete_keys_are_an_error(keys: dict[str, Any], words: str) -> None:
    """The check runs before the first request."""
    with pytest.raises(ConfigError, match=words):
        Paging.of(People(url=URL, **keys))


def test_hostile_link_header_is_parsed_quickly() -> None:
    """The parser does not backtrack."""
    assert parse_next_link("<" * 65_000) is None


@pytest.mark.parametrize("value", ['"\\ud800"', "NaN"])
@pytest.mark.parametrize(
    ("paginator", "words"),
    [("last_id", "last record|cannot be sent"), ("cursor", "a cursor"), ("next_url", "a link")],
)
@pytest.mark.parametrize("where", ["query", "header", "body"])
def test_unsendable_cursor_is_an_error(server: Server, value: str, paginator: str, words: str, where: str) -> None:
    """A request can contain neither half a surrogate pair nor NaN."""
    url = server.on("/users", Answer(f'{{"users":[{{"id":{value}}}],"next":{value}}}'))
    keys = {"cursor_param": "after", "cursor_in": where, "cursor_path": "id" if paginator == "last_id" else "next"}
    line = read_error(url, method="POST", data_selector="users", paginator=paginator, **keys)
    assert re.search(words, line)
    assert line.isascii()
    assert len(server.requests) == 1


@pytest.mark.parametrize("records", [1, 3])
def test_auto_never_sends_half_surrogate_pair(server: Server, records: int) -> None:
    """A probe must not end in a traceback."""
    users = ",".join(f'{{"id":"\\udfff{number}"}}' for number in range(records))
    url = server.on("/users", Answer(f'{{"users":[{users}],"has_more":true,"next_cursor":"\\ud800"}}'))
    assert read_error(url).isascii()


def test_page_with_half_surrogate_name_is_refused(server: Server) -> None:
    line = read_error(server.on("/users", Answer('{"\\ud800":[{"id":1}]}')))
    assert "the name '\\ud800' in the page contains half a surrogate pair" in line
