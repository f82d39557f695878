"""Test how `paginator = auto` decides: from the evidence on page one, proven by page two."""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from wholeday.extract.detection import MAX_PROBES, Decision, decide
from wholeday.extract.evidence import UndecidedError, announces_more
from wholeday.extract.http.page import Page, Request
from wholeday.extract.paging import Paging

URL = "https://api.example/users"
Answer = Callable[[dict[str, str]], Page | None]
NUMBERS = itertools.count()


def make_page(ids: Sequence[Any], headers: dict[str, str] | None = None, /, **fields: object) -> Page:
    records = [msgspec.Raw(json.dumps({"id": each, "name": "Ada"}).encode()) for each in ids]
    return Page(URL, CaseInsensitiveDict(headers or {}), records, fields)


class Api:
    """An API that answers queries and records each of them."""

    def __init__(self, answer: Answer, url: str = URL, **request: Any) -> None:
        self.answer, self.request = answer, Request(url, **request)
        self.queries: list[dict[str, str]] = []

    def __call__(self, request: Request) -> Page | None:
        query = dict(parse_qsl(urlsplit(request.target).query)) | dict(request.body)
        self.queries.append(query)
        return self.answer(query)

    def decide(self, **keys: Any) -> Decision:
        page = self(self.request)
        assert page is not None
        self.queries.clear()
        decision = decide(Paging(**keys), self.request, page, self)
        assert len(self.queries) <= MAX_PROBES
        assert decision.why.startswith(f"{decision.keys['paginator']}: ")
        return decision

    def read(self, decision: Decision) -> list[Any]:
        """Return every id that the decided paginator fetches."""
        paging = replace(Paging(overlap=False), **decision.keys)
        request: Request | None = paging.first(self.request)
        ids: list[Any] = []
        while request is not None:
            assert len(self.queries) < 1000
            page = self(request)
            assert page is not None
            ids += [json.loads(bytes(record))["id"] for record in page.records]
            total, _ = paging.read_totals(page)
            more = paging.read_more(page)
            more = len(ids) < total if more is None and total is not None and paging.positional else more
            request = paging.next(request, page, more)
        return ids


def slice_by(
    param: str,
    size: int,
    count: int,
    start: int = 0,
    pages: bool = False,
    show: Callable[[int], dict[str, object]] = lambda _: {},
) -> Answer:
    """Build an API over `count` users with pages of `size`; `param` is the offset or the page number.

    `show` returns the other fields of a page for the value of `param`.
    """

    def answer(query: dict[str, str]) -> Page:
        asked = int(query.get(param, start))
        first = (asked - start) * (size if pages else 1)
        return make_page(range(count)[max(0, first) :][:size], **show(asked))

    return answer


MORE: list[dict[str, object]] = [
    {"next": "https://api.example/2"},
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
    {"info": {"more_records": True}},
    {"pagination": {"has_more_items": True}},
    {"more_items_in_collection": True},
    {"continue": {"cmcontinue": "page|4d|1"}},
]
TOTALS: list[dict[str, object]] = [
    {"total": 3},
    {"total": "3"},
    {"count": 3},
    {"totalResults": 3},
    {"meta": {"total_count": 3}},
    {"total_pages": 2},
    {"response": {"numFound": 3}},
    {"nbHits": 3, "nbPages": 2},
    {"total_entries": 3},
]


@pytest.mark.parametrize("fields", MORE + TOTALS)
def test_announced_records_without_next_page_are_undecided(fields: dict[str, object]) -> None:
    """The error names the field. Without a way to page two, `auto` does not guess."""
    assert announces_more(make_page([1, 2], **fields)) is (True if fields in MORE else None)
    with pytest.raises(UndecidedError, match=f"'.?{next(iter(fields))}.* none of .* leads to more: set paginator"):
        Api(lambda _: make_page([1, 2], **fields)).decide()


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ({}, None),
        ({"cursor": None}, None),
        ({"next": None}, False),
        ({"next": None, "has_more": False, "next_cursor": ""}, False),
        ({"next": None, "next_cursor": "abc"}, True),
        ({"links": {"next": None, "last": "/1"}}, False),
        ({"links": {"prev": "/1", "self": "/2"}}, None),
        ({"paging": {}}, None),
        ({"total": 2, "count": 2, "total_pages": 1, "page": 1, "per_page": 100}, None),
        ({"end_of_stream": True, "last": True}, False),
        ({"@odata.context": "https://api.example/$metadata#users"}, False),
        ({"message": "ok", "took": 31}, None),
    ],
)
def test_page_without_announced_records_is_complete(fields: dict[str, object], more: bool | None) -> None:
    """The decision needs no probe."""
    assert announces_more(make_page([1, 2], **fields)) is more
    if more is not True:
        api = Api(lambda _: make_page([1, 2], **fields))
        assert api.decide().keys["paginator"] == "single"
        assert api.queries == []


@pytest.mark.parametrize("end", [{"end_of_stream": True}, {"has_more": False}, {"meta": {"last": True}}])
def test_end_flag_takes_precedence_over_cursor(end: dict[str, object]) -> None:
    """Some sources send a cursor with the last page too, to continue on another day."""
    assert announces_more(make_page([1, 2], after_url="/users?cursor=x", **end)) is False
    assert Api(lambda _: make_page([1, 2], after_url="/users?cursor=x", **end)).decide().keys["paginator"] == "single"


def test_empty_only_page_is_complete() -> None:
    """Some sources count an empty list as one page."""
    api = Api(lambda _: make_page([], {"X-Total-Pages": "1"}, total_pages=1, total=0))
    assert api.decide().keys == {"paginator": "single", "total_path": "total"}
    assert api.queries == []


@pytest.mark.parametrize("end", [{"has_more": False}, {"next": None}])
def test_total_takes_precedence_over_end_flag(end: dict[str, object]) -> None:
    """A source that contradicts itself fails the day."""
    with pytest.raises(UndecidedError, match="'total' is 3 and 2 records came"):
        Api(lambda _: make_page([1, 2], total=3, **end)).decide()


@pytest.mark.parametrize(
    ("name", "value", "more"),
    [
        ("X-Total-Count", "3", True),
        ("X-Total-Count", "2", False),
        ("x-total", "3", True),
        ("Total-Records", "3", True),
        ("X-Pagination-Total", "3", True),
        ("X-Pagination-Total-Count", "2", False),
        ("Pagination-Count", "3", True),
        ("X-WP-Total", "3", True),
        ("Recurly-Total-Records", "3", True),
        ("X-RateLimit-Total", "3", False),
        ("X-WP-TotalPages", "2", True),
        ("X-Pagination-Page-Count", "2", True),
        ("X-Has-More", "true", True),
        ("X-Has-More", "false", False),
        ("X-Next-Cursor", "abc", True),
        ("x-ms-continuation", "abc", True),
        ("X-Total-Pages", "2", True),
        ("X-Next-Page", "2", True),
        ("X-Next-Page", "", False),
        ("Content-Range", "items 0-1/3", True),
        ("Content-Range", "items 0-1/*", False),
        ("Link", '<https://api.example/users>; rel="first"', False),
    ],
)
def test_header_announces_more_records(name: str, value: str, more: bool) -> None:
    """A total or a next page counts in a header as in a field."""
    api = Api(lambda _: make_page([1, 2], {name: value}))
    if more:
        with pytest.raises(UndecidedError, match=name):
            api.decide()
    else:
        assert api.decide().keys["paginator"] == "single"


@pytest.mark.parametrize(
    ("url", "page_size", "headers", "fields", "full"),
    [
        ("?limit=2", 0, {}, {}, True),
        ("?limit=3", 0, {}, {}, False),
        ("?team=2", 0, {}, {}, False),
        ("", 2, {}, {}, True),
        ("", 3, {}, {}, False),
        ("", 0, {"X-Per-Page": "2"}, {}, True),
        ("", 0, {}, {"meta": {"pageSize": 2}}, True),
        ("?limit=2", 2, {}, {"total": 2, "pageSize": 2}, False),
        ("?limit=2", 2, {"X-Total-Count": "2"}, {}, False),
        ("?limit=2", 2, {}, {"next": None}, False),
        ("?$skip=2", 2, {}, {"@odata.context": "#users"}, False),
        ("?$top=2", 0, {}, {"@odata.context": "#users"}, True),
    ],
)
def test_full_page_may_precede_others(
    url: str, page_size: int, headers: dict[str, str], fields: dict[str, object], full: bool
) -> None:
    """A page with as many records as requested is complete only if the source says so."""
    api = Api(lambda _: replace(make_page([1, 2], headers, **fields), url=URL + url), URL + url)
    if full:
        with pytest.raises(UndecidedError, match="2 records came, a full page"):
            api.decide(page_size=page_size)
    else:
        assert api.decide(page_size=page_size).keys["paginator"] == "single"
        assert api.queries == []


@pytest.mark.parametrize("count", [2, 3])
def test_full_page_before_empty_page_is_complete(count: int) -> None:
    """The probes prove the offset with known records, then read past them."""
    api = Api(slice_by("offset", 2, count), URL + "?limit=2")
    decision = api.decide()
    assert decision.keys["paginator"] == ("single" if count == 2 else "offset")
    assert api.read(decision) == list(range(count))


@pytest.mark.parametrize(
    ("param", "start", "url", "headers", "fields"),
    [
        ("page", 1, "", {}, {"page": 1}),
        ("page", 1, "", {}, {"meta": {"page": 1, "per_page": 100}}),
        ("page", 0, "", {}, {"number": 0}),
        ("page", 1, "", {"X-Page": "1"}, {}),
        ("page", 1, "?page=1", {}, {}),
        ("skip", 0, "", {}, {"skip": 0}),
        ("offset", 0, "", {"X-Offset": "0"}, {}),
        ("offset", 0, "?offset=0", {}, {}),
    ],
)
def test_numbered_page_may_precede_others(
    param: str, start: int, url: str, headers: dict[str, str], fields: dict[str, object]
) -> None:
    """The client probes the next page. New records prove paging, an empty page proves the end."""
    for count in (14, 9, 7, 3):
        answer = slice_by(param, 7, count, start, param == "page", lambda _: fields)
        api = Api(lambda query, answer=answer: replace(answer(query) or make_page([]), headers=headers), URL + url)
        decision = api.decide()
        assert decision.keys["paginator"] == ("single" if count <= 7 else "page" if param == "page" else "offset")
        assert api.read(decision) == list(range(count))


@pytest.mark.parametrize(
    ("url", "fields", "word"),
    [("", {"meta": {"page": 1}}, "meta.page"), ("", {"offset": 0}, "offset"), ("?page=1", {}, "page")],
)
def test_numbered_page_without_distinct_next_page_is_undecided(url: str, fields: Any, word: str) -> None:
    """The same users again, or a refusal, do not prove the end."""
    first = make_page(range(7), **fields)
    for later in (first, None):
        answers = itertools.chain([first], itertools.repeat(later))
        seen = f"'{word}' is . and 7 records came, which may be the first page of more, and none of .* leads to more"
        with pytest.raises(UndecidedError, match=seen):
            Api(lambda _, answers=answers: next(answers), URL + url).decide()


def test_short_numbered_page_without_next_page_is_complete() -> None:
    """Its size marks it as the last page, and a source may refuse to serve a page past the last one."""
    first = make_page(range(7), page=1, per_page=20)
    for later in (first, None):
        answers = itertools.chain([first], itertools.repeat(later))
        assert Api(lambda _, answers=answers: next(answers)).decide().keys["paginator"] == "single"


@pytest.mark.parametrize(
    ("records", "fields"),
    [
        (0, {"page": 1}),
        (7, {"page": 1, "has_more": False}),
        (7, {"page": 1, "total": 7}),
        (7, {"page": 1, "total_pages": 1}),
        (7, {"page": 3}),
        (7, {"pages": {"first": True}}),
        (7, {"took": 1, "version": 1, "status": 0}),
    ],
)
def test_complete_numbered_page_needs_no_probe(records: int, fields: dict[str, object]) -> None:
    """The page is empty, declared complete, or not the first one, or its numbers do not state a place."""
    api = Api(lambda _: make_page(range(records), **fields))
    assert api.decide().keys["paginator"] == "single"
    assert api.queries == []


def follow(field: Callable[[int], dict[str, object]], param: str, size: int = 2, count: int = 5) -> Answer:
    """Build an API whose pages, except the last, carry `field(start of the next page)`."""

    def answer(query: dict[str, str]) -> Page:
        start = int(query.get(param, "0").removeprefix("t"))
        more = start + size < count
        return make_page(range(count)[start:][:size], **(field(start + size) if more else {}))

    return answer


@pytest.mark.parametrize(
    ("path", "param", "probes", "field"),
    [
        ("next", None, 1, lambda n: {"next": f"{URL}?x={n}"}),
        ("next", None, 1, lambda n: {"next": f"/users?x={n}"}),
        ("links.next", None, 1, lambda n: {"links": {"next": f"?x={n}"}}),
        ("_links.next.href", None, 1, lambda n: {"_links": {"self": {"href": "/"}, "next": {"href": f"?x={n}"}}}),
        ("@odata.nextLink", None, 1, lambda n: {"@odata.nextLink": f"{URL}?x={n}"}),
        ("paging.next.link", None, 1, lambda n: {"paging": {"next": {"after": f"t{n}", "link": f"{URL}?x={n}"}}}),
        ("next_cursor", "cursor", 1, lambda n: {"next_cursor": f"t{n}"}),
        ("nextPageToken", "pageToken", 1, lambda n: {"nextPageToken": f"t{n}"}),
        ("meta.next_token", "next_token", 2, lambda n: {"meta": {"next_token": f"t{n}"}}),
        ("paging.next.after", "after", 1, lambda n: {"paging": {"next": {"after": f"t{n}"}}}),
        ("response_metadata.next_cursor", "cursor", 1, lambda n: {"response_metadata": {"next_cursor": f"t{n}"}}),
        ("pageInfo.endCursor", "after", 3, lambda n: {"pageInfo": {"hasNextPage": True, "endCursor": f"t{n}"}}),
        ("offset", "offset", 1, lambda n: {"offset": f"t{n}"}),
        (
            "pages.next.starting_after",
            "starting_after",
            2,
            lambda n: {"pages": {"next": {"page": 2, "starting_after": f"t{n}"}, "page": 1}},
        ),
        ("next_cursor", "start_cursor", 4, lambda n: {"has_more": True, "next_cursor": f"t{n}"}),
        ("next_offset", "offset", 1, lambda n: {"next_offset": n}),
        ("next", "offset", 12, lambda n: {"next": f"t{n}", "hasNext": True}),
        ("meta.next_token", "pagination_token", 13, lambda n: {"meta": {"next_token": f"t{n}"}}),
        ("continue.cmcontinue", "cmcontinue", 1, lambda n: {"continue": {"cmcontinue": f"t{n}"}}),
    ],
)
def test_page_two_proves_next_url_or_cursor(
    path: str, param: str | None, probes: int, field: Callable[[int], dict[str, object]]
) -> None:
    """The number of probes is small. A link needs no parameter."""
    api = Api(follow(field, param or "x", count=4))
    decision = api.decide()
    keys = {"paginator": "cursor", "cursor_param": param} if param else {"paginator": "next_url"}
    assert decision.keys.items() >= {**keys, "cursor_path": path}.items()
    assert len(api.queries) == probes
    assert api.read(Decision({**decision.keys, "more_path": ""}, "")) == list(range(4))


@pytest.mark.parametrize("flag", [{"has_more": False}, {"truncated": False}, {"last": True}], ids=str)
def test_next_link_takes_precedence_over_end_flag(flag: dict[str, object]) -> None:
    """Such a flag means something else, so it does not become `more_path`."""
    api = Api(follow(lambda n: {"next": f"?x={n}", **flag}, "x"))
    decision = api.decide()
    assert decision.keys == {"paginator": "next_url", "cursor_path": "next"}
    assert len(api.queries) == 1
    assert api.read(decision) == list(range(5))


def test_link_header_needs_no_probe() -> None:
    """The header has no other purpose."""
    api = Api(lambda _: make_page([1, 2], {"Link": '</users?page=2>; rel="next"'}, next_cursor="abc"))
    assert api.decide() == Decision({"paginator": "link_header"}, "link_header: the Link header names the next page")
    assert api.queries == []


@pytest.mark.parametrize(
    ("header", "param", "end"),
    [
        ("X-Next-Page", "page", ""),
        ("Next-Page", "page", None),
        ("X-Next-Cursor", "cursor", None),
        ("X-Continuation-Token", "continuation_token", None),
        ("X-Continuation-Token", "continuationToken", None),
        ("x-ms-continuationtoken", "continuationToken", None),
        ("X-Pagination-Next-Page", "page", None),
    ],
)
def test_cursor_in_header_is_detected(header: str, param: str, end: str | None) -> None:
    """`cursor_path` is the name of the header. The last page sends it empty, or not at all."""

    def answer(query: dict[str, str]) -> Page:
        page = int(query.get(param, 1))
        text = str(page + 1) if page < 3 else end
        return make_page(range(5)[2 * page - 2 :][:2], {} if text is None else {header: text})

    api = Api(answer)
    decision = api.decide()
    assert decision.keys == {"paginator": "cursor", "cursor_path": header, "cursor_param": param}
    assert api.read(decision) == list(range(5))


def test_cursor_may_return_in_its_header() -> None:
    """As the services of Azure expect it."""
    pages = [make_page([1, 2], {"x-ms-continuation": "t1"}), make_page([3, 4])]
    request = Request(URL)
    decision = decide(Paging(), request, pages[0], lambda sent: pages["x-ms-continuation" in sent.headers])
    where = {"cursor_param": "x-ms-continuation", "cursor_in": "header"}
    assert decision.keys == {"paginator": "cursor", "cursor_path": "x-ms-continuation", **where}


def test_flag_in_header_is_detected() -> None:
    """It says where the pages end."""

    def answer(query: dict[str, str]) -> Page:
        page = int(query.get("page", 1))
        return make_page(range(6)[2 * page - 2 :][:2], {"X-Has-More": "true" if page < 3 else "false"})

    api = Api(answer)
    decision = api.decide()
    assert decision.keys["more_path"] == "X-Has-More"
    probes = len(api.queries)
    assert api.read(decision) == list(range(6))
    assert len(api.queries) == probes + 3


def test_post_sends_cursor_in_body() -> None:
    api = Api(follow(lambda n: {"paging": {"next": {"after": f"t{n}"}}}, "after"), method="POST", body={"sort": "id"})
    decision = api.decide()
    assert decision.keys["cursor_in"] == "body"
    assert api.read(decision) == list(range(5))


def test_configured_cursor_keys_are_kept() -> None:

    def answer(query: dict[str, str]) -> Page:
        start = int(query.get("weiter", 0))
        return make_page(range(6)[start:][:2], next_cursor="no", next=start + 2 if start < 4 else None)

    api = Api(answer)
    decision = api.decide(cursor_path="next", cursor_param="weiter")
    assert decision.keys == {"paginator": "cursor", "cursor_path": "next", "cursor_param": "weiter"}
    assert len(api.queries) == 1


def test_announced_records_without_cursor_use_last_id() -> None:

    def answer(query: dict[str, str]) -> Page:
        ids = [f"cus_{number}" for number in range(7)]
        start = ids.index(query["starting_after"]) + 1 if "starting_after" in query else 0
        return make_page(ids[start:][:3], object="list", url="/v1/customers", has_more=start + 3 < 7)

    api = Api(answer)
    decision = api.decide()
    last_id = {"paginator": "last_id", "cursor_path": "id", "cursor_param": "starting_after", "more_path": "has_more"}
    assert decision.keys == last_id
    assert len(api.queries) == 1
    assert len(api.read(decision)) == 7


@pytest.mark.parametrize("count", [7, 30, 60])
def test_last_id_is_probed_without_other_evidence(count: int) -> None:
    """A request after the last but one id must return the last record: the parameter takes an id, not a time."""

    def answer(query: dict[str, str]) -> Page:
        since = int(query.get("since", -1))
        return make_page([number for number in range(count) if number > since][:30])

    api = Api(answer)
    if count == 30:
        with pytest.raises(
            UndecidedError
        ):  # no record follows the last: indistinguishable from a parameter without effect
            api.decide()
    else:
        decision = api.decide()
        assert decision.keys["paginator"] == ("single" if count == 7 else "last_id")
        assert api.read(decision) == list(range(count))


@pytest.mark.slow
@settings(deadline=None)
@given(
    count=st.integers(1, 60),
    size=st.integers(1, 30),
    param=st.sampled_from(["page", "_page", "offset", "skip", "first", "start", "startIndex"]),
    start=st.integers(0, 1),
    shown=st.sampled_from(["total", "echo", "more", "size", "nothing"]),
)
def test_auto_fetches_each_user_once_or_fails(count: int, size: int, param: str, start: int, shown: str) -> None:
    """Pages and offsets have any name and start at 0 or 1, with and without declared totals."""
    pages = "page" in param

    def show(asked: int) -> dict[str, object]:
        place = asked - start
        fields: dict[str, dict[str, object]] = {
            "total": {"total": count},
            "echo": {"total": count, param: asked, "limit": size},
            "more": {"has_more": max(0, place * size if pages else place) + size < count},
            "size": {"limit": size},
            "nothing": {},
        }
        return fields[shown]

    api = Api(slice_by(param, size, count, start, pages, show))
    try:
        decision = api.decide()
    except UndecidedError:
        assert (
            shown in ("total", "more") or size == 1
        )  # pages of one record look as if the source ignored the parameter
        assert count >= size
        return
    arrived = api.read(decision)
    if shown == "nothing" and size < 10:
        assert arrived == list(range(count))[: len(arrived)]  # a few records without evidence: undetectable
    elif shown != "nothing" or size in (10, 15, 16, 20, 25, 30):
        assert arrived == list(range(count))


def number_pages(start: int, total_path: str, **keys: str) -> dict[str, Any]:
    """Return the keys of pages that are numbered from `start`."""
    return {"paginator": "page", "page_param": "page", "page_start": start, "total_path": total_path, **keys}


def count_records(param: str, start: int, size: int, **keys: str) -> dict[str, Any]:
    """Return the keys of an offset that counts from `start`."""
    return {"paginator": "offset", "offset_param": param, "page_start": start, "page_size": size, **keys}


@pytest.mark.parametrize(
    ("answer", "keys", "probes"),
    [
        (
            slice_by("skip", 30, 100, show=lambda n: {"total": 100, "skip": n, "limit": 30}),
            count_records("skip", 0, 30, total_path="total"),
            1,
        ),
        (
            slice_by("page", 6, 12, 1, True, lambda n: {"page": n, "per_page": 6, "total": 12, "total_pages": 2}),
            number_pages(1, "total"),
            2,
        ),
        (
            slice_by(
                *("page", 20, 50, 0, True),
                lambda n: {
                    "number": n,
                    "size": 20,
                    "first": n == 0,
                    "last": n == 2,
                    "totalElements": 50,
                    "totalPages": 3,
                },
            ),
            number_pages(0, "totalElements", more_path="!last"),
            2,
        ),
        (
            slice_by("startIndex", 20, 50, 1, show=lambda n: {"totalResults": 50, "startIndex": n, "itemsPerPage": 20}),
            count_records("startIndex", 1, 20, total_path="totalResults"),
            1,
        ),
        (
            slice_by(
                *("page", 15, 40, 1, True),
                lambda n: {"current_page": n, "last_page": 3, "per_page": 15, "to": 15, "total": 40},
            ),
            number_pages(1, "total"),
            2,
        ),
        (
            slice_by("startAt", 50, 120, show=lambda n: {"startAt": n, "maxResults": 50}),
            count_records("startAt", 0, 50),
            3,
        ),
    ],
    ids=["dummyjson", "reqres", "Spring", "SCIM", "Laravel", "Jira"],
)
def test_probe_uses_parameter_names_from_page(answer: Answer, keys: dict[str, Any], probes: int) -> None:
    """With a total, an offset needs one probe. A page number needs two: responses may count from another start."""
    api = Api(answer)
    assert api.decide().keys == keys
    assert len(api.queries) == probes


@pytest.mark.parametrize(("shown", "start"), [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("field", ["has_more", "total", "size", ""])
def test_response_and_parameter_may_count_pages_differently(shown: int, start: int, field: str) -> None:
    """A page labelled 1 may be requested as 0, or the reverse. A probe that returns page one again decides."""

    def show(asked: int) -> dict[str, object]:
        place = asked - start
        fields = {"has_more": 10 * place + 10 < 35, "total": 35, "size": 10}
        return {"page": place + shown} | ({field: fields[field]} if field else {})

    api = Api(slice_by("page", 10, 35, start, True, show))
    decision = api.decide()
    assert decision.keys["page_start"] == start
    assert api.read(decision) == list(range(35))


def test_requested_page_number_takes_precedence_over_label() -> None:
    """No probe requests the first page again."""
    answer = slice_by("page", 10, 35, 0, True, lambda n: {"page": n + 1, "has_more": 10 * n + 10 < 35})
    api = Api(answer, URL + "?page=0")
    decision = api.decide()
    assert {"page": "0"} not in api.queries
    assert api.read(decision) == list(range(35))


@pytest.mark.parametrize("count", [100, 250])
def test_undeclared_default_page_size_is_detected(count: int) -> None:
    """After 100 records without evidence, `auto` probes the usual parameters."""
    api = Api(slice_by("first", 100, count))
    decision = api.decide()
    assert decision.keys["paginator"] == ("single" if count == 100 else "offset")
    assert api.read(decision) == list(range(count))


def test_full_list_differs_from_first_page() -> None:
    """json-server returns all records without `_page` and ten with it; the page after the last ten is empty."""

    def answer(query: dict[str, str]) -> Page:
        page = int(query.get("_page", 0))
        return make_page(range(100)[10 * page - 10 :][:10] if page else range(100))

    decision = Api(answer).decide()
    assert decision == Decision({"paginator": "single"}, decision.why)
    assert "_page=11 it gave nothing" in decision.why


def test_round_count_without_paging_parameter_is_undecided() -> None:
    """Neither the end nor a next page is proven. Any other number of records is complete, without a probe."""
    with pytest.raises(UndecidedError, match=r"100 records came, a round number .* set paginator .*single, if this is"):
        Api(lambda _: make_page(range(100))).decide()
    api = Api(lambda _: make_page(range(97)))
    assert api.decide().keys == {"paginator": "single"}
    assert api.queries == []


def test_filtering_cursor_parameter_proves_nothing() -> None:
    """An empty page proves the end only if a wrong cursor does not return one too."""
    last, first = make_page([]), make_page(range(7), next_cursor="abc")
    with pytest.raises(UndecidedError):
        Api(lambda query: last if query else first).decide()
    for fields in ({"total": 9}, {"next_cursor": "def"}):
        empty = make_page([], **fields)
        with pytest.raises(UndecidedError):
            Api(
                lambda q, e=empty, f=fields: e if q.get("cursor") == "abc" else make_page([1], **{"next": "abc"} | f)
            ).decide()
    api = Api(lambda query: last if query.get("cursor") == "abc" else make_page(range(7), next_cursor="abc"))
    assert api.decide().keys["cursor_param"] == "cursor"


@pytest.mark.parametrize(
    ("answer", "url"),
    [
        # a filter by the parameter
        (lambda q: make_page([] if q else range(100)), URL),
        # a filter, though the source names its page
        (lambda q: make_page([]) if q else make_page([1, 2], page=1, per_page=2), URL),
        # all users, then a part of them, and a total above both
        (lambda q: make_page(range(20)[2 * int(q["_page"]) - 2 :][:2] if "_page" in q else range(10), total=20), URL),
        # a page two that has some of page one, and others
        (lambda q: make_page(range(5 * int(q.get("page", 1)) - 5, 5 * int(q.get("page", 1)) + 5)), URL),
        # an empty page two, and a total above page one
        (lambda q: make_page([1, 2] if q.get("page", "1") == "1" else [], total=9), URL),
        # other users since then, but not since an id
        (lambda q: make_page(range(500, 510) if "since" in q else range(10)), URL),
        # other users each time
        (lambda _: make_page([next(NUMBERS) for _ in range(100)]), URL),
        # an offset that counts pages and would skip records
        (slice_by("offset", 20, 1000, pages=True), URL),
    ],
)
def test_ambiguous_probe_is_undecided(answer: Answer, url: str) -> None:
    with pytest.raises(UndecidedError):
        Api(answer, url).decide()


def test_flag_inside_list_is_ignored() -> None:
    """No path can address it."""
    assert announces_more(make_page([1], links=[{"has_more": False}])) is None


def test_endless_pages_are_undecided() -> None:
    """Without a declared end, a page far out must be empty."""
    answer = slice_by("page", 10, 10**9, 1, True, lambda n: {"info": {"results": 10, "page": n}})
    with pytest.raises(UndecidedError, match="page=1000000 has records too, so they never end: set paginator = single"):
        Api(answer).decide()


def test_refused_parameter_costs_one_probe() -> None:
    """A 400 for an unknown name does not fail the day."""
    answer = slice_by("skip", 2, 5, show=lambda _: {"total": 5})
    api = Api(lambda query: answer(query) if query.keys() <= {"skip"} else None)
    assert api.read(api.decide()) == list(range(5))


@pytest.mark.parametrize(
    ("show", "taken"),
    [
        (lambda _: {"total": 5}, {"total_path": "total"}),
        (lambda _: {"meta": {"totalCount": 5}}, {"total_path": "meta.totalCount"}),
        (lambda _: {"hits": {"total": {"value": 5}}}, {"total_path": "hits.total.value"}),
        (lambda _: {"count": 5}, {"total_path": "count"}),
        (lambda _: {"total_pages": 3}, {"total_path": "pages:total_pages"}),
        (lambda _: {"total": 2}, {}),
        (lambda _: {"total": 3}, {}),
        (lambda _: {"count": 2}, {}),
        (lambda _: {"total_time": 5}, {}),
        (lambda n: {"total": 11 - n}, {}),  # a total that changes counts something else
    ],
)
def test_total_is_used_if_two_pages_agree(show: Callable[[int], dict[str, object]], taken: dict[str, str]) -> None:
    """The total is at least the records of both pages; a lower number would fail good days."""
    keys = Api(follow(lambda n: {"next": f"?x={n}", **show(n)}, "x")).decide().keys
    assert {name: value for name, value in keys.items() if name.startswith("total")} == taken


@pytest.mark.parametrize(
    ("name", "numbers", "taken"),
    [
        ("total_pages", (3, 2), True),
        ("total_pages", (3, 4), False),
        ("page_count", (3, 2), True),
        ("page_count", (2, 1), False),
    ],
)
def test_falling_number_of_pages_is_used(name: str, numbers: tuple[int, int], taken: bool) -> None:
    """The list changes between pages. A number equal to the records on the page may count those records."""

    def answer(query: dict[str, str]) -> Page:
        start = int(query.get("x", 0))
        return make_page(range(3)[start:][:2], next=f"?x={start + 2}", **{name: numbers[start > 0]})

    assert ("total_path" in Api(answer).decide().keys) == taken


def test_remaining_pages_are_no_total() -> None:
    """Beside a total that falls by the records of page one, the pages are those that remain."""

    def answer(query: dict[str, str]) -> Page:
        start = int(query.get("x", 0))
        return make_page(range(6)[start:][:2], next=f"?x={start + 2}", total_items=6 - start, page_count=3 - start // 2)

    assert "total_path" not in Api(answer).decide().keys


def test_flag_is_used_if_page_two_has_it() -> None:
    """A field that is sometimes missing would fail the last page."""
    for fields, taken in (({"has_more": True}, "has_more"), ({"done": False}, "!done"), ({}, None)):
        api = Api(lambda q, fields=fields: make_page([len(q)], next="?x=1", **fields))
        assert api.decide().keys.get("more_path") == taken
    api = Api(lambda q: make_page([len(q)], next="?x=1", **({} if q else {"has_more": True})))
    assert "more_path" not in api.decide().keys


def test_number_of_probes_is_limited() -> None:
    """A source that ignores every parameter stays undecided."""
    api = Api(lambda _: make_page(range(100), next_cursor="abc", has_more=True))
    with pytest.raises(UndecidedError):
        api.decide()
    assert len(api.queries) == MAX_PROBES
