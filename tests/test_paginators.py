"""What a paginator asks for next, on plain values."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from pipeline.paginators import LinkHeader, Page, PageNumber, Request, Single, find_next_link, find_sign

URL = "https://api.example/users"
RECORD = msgspec.Raw(b'{"id":1}')


def make_page(records: int = 2, headers: dict[str, str] | None = None, **fields: object) -> Page:
    return Page(URL, CaseInsensitiveDict(headers or {}), [RECORD] * records, fields)


def test_params_are_percent_encoded_and_replace_those_of_the_url() -> None:
    """A parameter lands encoded in the query, a list repeats its name, and what the URL said of it goes."""
    request = Request(URL + "?page=1&all=%20x&flag", {"page": 2, "at": "a b&c+d", "id": [1, "x"], "on": True})
    assert request.target == URL + "?all=%20x&flag&page=2&at=a%20b%26c%2Bd&id=1&id=x&on=true"


def test_a_nested_param_is_sent_as_json() -> None:
    """What the query has no form for is JSON in it."""
    assert Request(URL, {"where": {"a": {"b": 1}}}).target == URL + "?where=%7B%22a%22%3A%7B%22b%22%3A1%7D%7D"


def test_single_has_no_next() -> None:
    """The paginator single is obeyed, whatever a page says."""
    assert Single().next(Request(URL), make_page(headers={"Link": f'<{URL}?page=2>; rel="next"'})) is None


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
def test_the_next_link_is_read_as_rfc_8288_writes_it(header: str, target: str | None) -> None:
    """The target of the link whose relations name next, in any spelling that the RFC allows."""
    assert find_next_link(header) == target


def test_link_header_takes_a_link_as_it_is() -> None:
    """A relative link is resolved against the page, params are not added again, headers stay."""
    request = Request(URL, {"per_page": 5}, {"X-A": "1"})
    following = LinkHeader().next(request, make_page(0, {"link": '<users?page=2&per_page=5>; rel="next"'}))
    assert following == Request(URL + "?page=2&per_page=5", {}, {"X-A": "1"})


@given(st.integers(0, 3), st.integers(1, 20), st.booleans())
def test_page_counts_until_an_empty_page(start: int, pages: int, keep: bool) -> None:
    """Pages are numbered one after the other from the first, and the first empty one is the last."""
    paginator = PageNumber("page", start, "per_page", keep)
    request: Request | None = paginator.first(Request(URL, {"city": "Oslo", "per_page": 2}))
    asked = []
    while request is not None:
        asked.append(request.params)
        request = paginator.next(request, make_page(2 if len(asked) < pages else 0))
    assert [params["page"] for params in asked] == list(range(start, start + pages))
    assert all(params["per_page"] == 2 for params in asked)
    assert [params for params in asked if "city" in params] == (asked if keep else asked[:1])


@pytest.mark.parametrize(
    "fields",
    [
        {"next": "https://a/2"},
        {"next_page": 2},
        {"next_url": "/2"},
        {"nextLink": "/2"},
        {"@odata.nextLink": "/2"},
        {"next_cursor": "abc"},
        {"nextPageToken": "abc"},
        {"paging": {"next": {"after": "abc"}}},
        {"links": {"next": "/2"}},
        {"_links": {"next": {"href": "/2"}}},
        {"link": [{"relation": "next", "url": "/2"}]},
        {"has_more": True},
        {"hasMore": True},
        {"pageInfo": {"hasNextPage": True}},
        {"end_of_stream": False},
        {"last": False},
        {"incomplete_results": True},
        {"total": 3},
        {"total": "3"},
        {"count": 3},
        {"totalResults": 3},
        {"meta": {"total_count": 3}},
        {"total_pages": 2},
    ],
)
def test_a_field_that_speaks_of_more_is_a_sign(fields: dict[str, object]) -> None:
    """Whatever APIs call it, a word on what follows is found and named."""
    sign = find_sign(make_page(2, **fields), URL, 0)
    assert sign is not None
    assert str(next(iter(fields))) in sign


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"next": None, "has_more": False, "next_cursor": ""},
        {"links": {"next": None, "last": "/1"}},
        {"paging": {}},
        {"total": 2, "count": 2, "total_pages": 1, "page": 1, "per_page": 100},
        {"end_of_stream": True, "last": True},
        {"message": "ok", "took": 31},
    ],
)
def test_a_field_that_does_not_is_none(fields: dict[str, object]) -> None:
    """A page that says that it is all is not mistaken for a first of many."""
    assert find_sign(make_page(2, **fields), URL, 0) is None


@pytest.mark.parametrize(
    ("name", "value", "more"),
    [
        ("X-Total-Count", "3", True),
        ("X-Total-Count", "2", False),
        ("x-total", "3", True),
        ("X-Total-Pages", "2", True),
        ("X-Next-Page", "2", True),
        ("X-Next-Page", "", False),
        ("Content-Range", "items 0-1/3", True),
        ("Content-Range", "items 0-1/*", False),
    ],
)
def test_a_header_that_speaks_of_more_is_a_sign(name: str, value: str, more: bool) -> None:
    """Totals and next pages are as good in a header."""
    sign = find_sign(make_page(2, {name: value}), URL, 0)
    assert (sign is not None and name in sign) == more


@pytest.mark.parametrize(
    ("query", "page_size", "more"),
    [("?limit=2", 0, True), ("?limit=3", 0, False), ("?team=2", 0, False), ("", 2, True), ("", 3, False)],
)
def test_a_full_page_is_a_sign(query: str, page_size: int, more: bool) -> None:
    """As many records as were asked for may be the first of more."""
    assert (find_sign(make_page(2), URL + query, page_size) is not None) == more


def test_a_full_page_is_no_sign_where_the_source_declares_that_this_is_all() -> None:
    """A total equal to what came is the source's own word; a larger one is a sign as ever."""
    assert find_sign(make_page(2, {"X-Total-Count": "2"}), URL + "?limit=2", 2) is None
    assert find_sign(make_page(2, {"X-Total-Count": "3"}), URL + "?limit=2", 2) is not None


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({}, {"skip": 0, "limit": 2}),
        ({}, {"page": 1, "per_page": 2}),
        ({"X-Per-Page": "2"}, {}),
        ({}, {"meta": {"pageSize": 2}}),
    ],
)
def test_a_page_as_full_as_the_source_says_it_gets_is_a_sign(
    headers: dict[str, str], fields: dict[str, object]
) -> None:
    """The size stands in its answer, if not in the request; with a total that has all come it is none."""
    assert find_sign(make_page(2, headers, **fields), URL, 0) is not None
    assert find_sign(make_page(1, headers, **fields), URL, 0) is None
    assert find_sign(make_page(2, headers, **fields, total=2), URL, 0) is None


@pytest.mark.parametrize("end", [{"end_of_stream": True}, {"has_more": False}, {"meta": {"last": True}}])
def test_the_source_s_word_for_the_end_outranks_a_cursor(end: dict[str, object]) -> None:
    """Some send a cursor with the last page too, to go on from another day."""
    assert find_sign(make_page(2, after_url="/users?cursor=x", **end), URL + "?limit=2", 0) is None
    assert find_sign(make_page(2, after_url="/users?cursor=x"), URL, 0) is not None


def test_a_hostile_header_takes_no_time() -> None:
    """Its links are found, or none, without going back over it again and again."""
    assert find_next_link("<" * 65_000) is None
