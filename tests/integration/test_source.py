"""The order of pages, and the end of an extraction."""

import re
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.reading import DAY, People, make_pages, read, read_error
from tests.support.server import Answer, Request, Server
from wholeday.errors import ConfigError, SourceError
from wholeday.extract import reader
from wholeday.extract.reader import Reader


@pytest.mark.parametrize(
    "link",
    [
        '<{url}/users?page={page}&per_page={per_page}>; rel="next"',
        '<{url}/users?page=1>; rel="first", </users?page={page}&per_page={per_page}>; rel="next"',
        "<?page={page}&per_page={per_page}>;rel=next",
    ],
)
def test_auto_follows_links(server: Server, link: str) -> None:
    """A Link to the next page may be absolute or relative. The reader reports why it chose the paginator."""
    url = server.on("/users", make_pages(5, 2, server, link))
    reading = Reader(People(url=url), DAY)
    assert [len(page) for page in reading] == [2, 2, 1]
    assert reading.paginator == "link_header: the Link header names the next page"
    assert (reading.pages, reading.records) == (3, 5)


def test_auto_accepts_a_single_page(server: Server) -> None:
    """The page gives no evidence of further pages."""
    reading = Reader(People(url=server.on("/users", Answer({"users": [{"id": 1}], "total": 1}))), DAY)
    assert [len(page) for page in reading] == [1]
    assert reading.paginator == "single: 1 record came, and nothing announces more; total 1 at 'total'"


def test_auto_does_not_guess(server: Server) -> None:
    """If the first page announces more, the error names the evidence and the key to set."""
    url = server.on("/users", Answer({"users": [{"id": 1}], "meta": {"total": 7}}))
    assert re.search(
        "'meta.total' is 7 and 1 record came, and none of .* leads to more: set paginator", read_error(url)
    )
    assert read(url, paginator="single") == [{"id": 1}]


@pytest.mark.parametrize("size", [{}, {"size_param": "per_page", "page_size": 3}])
def test_page_paginator_ends_at_an_empty_page(server: Server, size: dict[str, Any]) -> None:
    """Short and full pages are not the end. The first request already contains the page size."""
    url = server.on("/users", make_pages(7, 2, server, ""))
    assert read(url, paginator="page", **size) == [{"id": number} for number in range(7)]
    assert {request.query.get("per_page") for request in server.requests} == {"3" if size else None}


def test_link_is_followed_past_empty_pages(server: Server) -> None:
    url = server.on(
        "/users",
        Answer([{"id": 1}], headers={"Link": "</users?page=2>; rel=next"}),
        Answer([], headers={"Link": "</users?page=3>; rel=next"}),
        Answer([], headers={"Link": "</users?page=4>; rel=next"}),
        Answer([{"id": 2}]),
    )
    assert read(url) == [{"id": 1}, {"id": 2}]


def test_size_param_without_page_size_is_an_error() -> None:
    with pytest.raises(ConfigError, match="page_size"):
        Reader(People(url="http://a/", size_param="limit"), DAY)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(0, 30), size=st.integers(1, 9), first=st.sampled_from(["page", "link_header", "auto"]))
def test_each_user_arrives_exactly_once(server: Server, count: int, size: int, first: str) -> None:
    """The rule holds for any number of users and any page size."""
    link = "" if first == "page" else '</users?page={page}&per_page={per_page}>; rel="next"'
    url = server.on("/users", make_pages(count, size, server, link))
    assert read(url, paginator=first) == [{"id": number} for number in range(count)]


def test_demo_source_needs_no_server() -> None:
    """The reader handles demo:// like any other source."""
    reading = Reader(People(url="demo://users", params={"updated_before": "{day_stop}", "per_day": 2}), DAY)
    assert sum(len(page) for page in reading) == reading.records > 1000
    assert reading.pages > 1


@pytest.mark.parametrize("cycle", [1, 2, 7])
def test_cycle_of_pages_fails_the_day(server: Server, cycle: int) -> None:
    """A request is never repeated, however many pages lie between."""

    def respond(request: Request) -> Answer:
        page = int(request.query.get("page", 0))
        return Answer([{"id": page}], headers={"Link": f"</users?page={(page + 1) % cycle}>; rel=next"})

    line = read_error(server.on("/users", respond) + "?page=0")
    assert re.search(rf"page {cycle + 1} \(GET .*page=0\) repeats the request of page 1", line)
    assert len(server.requests) == cycle


@pytest.mark.parametrize("cycle", [1, 2, 7])
def test_repeated_records_under_new_urls_fail_the_day(server: Server, cycle: int) -> None:
    """A source may ignore the page number. The rest of the page does not count."""

    def respond(request: Request) -> Answer:
        page = int(request.query["page"])
        return Answer({"users": [{"id": page % cycle}], "page": page, "at": time.time()})

    line = read_error(server.on("/users", respond), paginator="page")
    assert re.search(rf"page {cycle + 1} \(.*\) has the same records as page 1", line)


def test_fewer_records_than_declared_fail_the_day(server: Server) -> None:
    """A Link header may be lost on the way."""
    link = {"Link": '</users?page=2>; rel="next"', "X-Total-Count": "9"}
    url = server.on("/users", lambda r: Answer([{"id": len(r.query)}], headers={} if r.query else link))
    assert "the source declares 9 records, and 2 came on 2 pages" in read_error(url)
    assert "declares 9" in read_error(url, paginator="link_header")
    server.on("/users", Answer([{"id": 1}], headers={"X-Total-Count": "9"}))
    assert read(url, paginator="single") == [{"id": 1}]


def test_fewer_pages_than_declared_fail_the_day(server: Server) -> None:
    def respond(request: Request) -> Answer:
        link = {} if request.query else {"Link": '</users?page=2>; rel="next"'}
        return Answer({"users": [{"id": len(request.query)}], "total_pages": 3}, headers=link)

    line = read_error(server.on("/users", respond), paginator="link_header", total_path="pages:total_pages")
    assert "the source declares 3 pages, and 2 came" in line


@pytest.mark.parametrize("name", ["total_pages", "pageCount", "X-Total-Pages"])
@pytest.mark.parametrize(
    ("paginator", "link"),
    [("page", ""), ("link_header", "Link"), ("next_url", "next"), ("auto", ""), ("auto", "Link"), ("auto", "next")],
)
def test_falling_page_count_fails_the_day(server: Server, paginator: str, link: str, name: str) -> None:
    """A deleted user moves the others up, so one is missed, though the page count is correct at the end."""

    def respond(request: Request) -> Answer:
        page = int(request.query.get("page", 1))
        users = [{"id": number} for number in range(1, 6)][page > 1 :]
        pages = -(-len(users) // 2)
        fields: dict[str, Any] = {"users": users[2 * page - 2 : 2 * page], name: pages}
        headers = {name: str(pages)} if "-" in name else {}
        if link and page < pages:
            following = {"next": f"/users?page={page + 1}", "Link": f'</users?page={page + 1}>; rel="next"'}[link]
            (headers if link == "Link" else fields)[link] = following
        return Answer({key: fields[key] for key in fields if key not in headers}, headers=headers)

    keys = {"total_header" if "-" in name else "total_path": f"pages:{name}", "cursor_path": "next"}
    line = read_error(server.on("/users", respond), **({"paginator": paginator, **keys} if paginator != "auto" else {}))
    assert "page 2: the source declared 3 pages, and now 2: its list became shorter during the extraction" in line


def test_empty_page_announcing_more_is_not_the_end(server: Server) -> None:
    """An empty page without such a flag is the end."""
    pages = {"1": [{"id": 1}], "2": [], "3": [{"id": 3}], "4": []}
    url = server.on(
        "/users", lambda r: Answer({"data": pages[r.query["page"]], "has_more": r.query["page"] in ("1", "2")})
    )
    assert read(url, paginator="page") == [{"id": 1}, {"id": 3}]


def test_endless_empty_pages_fail_the_day(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source always announces more, and sends no records."""
    monkeypatch.setattr(reader, "MAX_EMPTY", 5)
    url = server.on("/users", lambda r: Answer({"data": [], "has_more": True, "page": r.query["page"]}))
    assert "6 pages in a row are empty" in read_error(url, paginator="page")
    assert len(server.requests) == 6


def test_ceiling_fails_the_day(server: Server) -> None:
    """The source may have stopped there, or may be endless."""
    url = server.on("/users", lambda request: Answer([{"id": int(request.query["page"])}]))
    assert "5 records came, and ceiling is 5" in read_error(url, paginator="page", ceiling=5)
    assert len(server.requests) == 5
    server.on("/users", Answer([{"id": 1}, {"id": 2}]))
    assert len(read(url, ceiling=3)) == 2


def test_page_size_overrides_params(server: Server) -> None:
    read(server.on("/users", Answer([])), params={"per_page": 50}, size_param="per_page", page_size=2)
    assert server.requests[0].query == {"per_page": "2"}


@pytest.mark.parametrize("cursor", ["[7]", "NaN", '"\\ud800x"', "9" * 5000], ids=["list", "NaN", "surrogate", "huge"])
@pytest.mark.parametrize("paginator", ["cursor", "auto"])
def test_unreadable_cursor_is_not_the_end(server: Server, cursor: str, paginator: str) -> None:
    """The extraction follows the cursor, or fails the day."""

    def respond(request: Request) -> Answer:
        if request.query:
            return Answer({"users": [{"id": 2}]})
        return Answer(f'{{"users": [{{"id": 1}}], "next": {cursor}}}')

    try:
        came = read(server.on("/users", respond), paginator=paginator, cursor_path="next", cursor_param="c")
    except SourceError:
        return
    assert came == [{"id": 1}, {"id": 2}]


def test_capped_total_fails_the_day(server: Server) -> None:
    """After a full last page one more is requested: a source may stop counting at a limit."""
    respond = make_pages(6, 2, server, "")
    url = server.on("/users", lambda request: Answer(respond(request).body, headers={"X-Total-Count": "4"}))
    assert "4 records came, as many as the source declares, and there are more" in read_error(url, paginator="page")


def test_missing_cursor_with_more_announced_fails_the_day(server: Server) -> None:
    """The cursor_path may be misspelt."""
    url = server.on("/users", Answer({"users": [{"id": 1}], "next": "x", "has_more": True}))
    line = read_error(url, paginator="cursor", cursor_path="nxt", cursor_param="c")
    assert "is the last that cursor leads to, and 'has_more' announces more" in line


@pytest.mark.parametrize(
    "keys",
    [
        {"paginator": "cursor", "cursor_path": "meta.nxt", "cursor_param": "c"},
        {"paginator": "next_url", "cursor_path": "nxt"},
        {"paginator": "link_header"},
    ],
    ids=lambda keys: keys["paginator"],
)
def test_missing_pointer_with_another_fails_the_day(server: Server, keys: dict[str, str]) -> None:
    """If the page has the configured field, even empty, it is the last page."""
    page = {"users": [{"id": 1}], "meta": {"next": "x"}}
    line = read_error(server.on("/users", Answer(page)), **keys)
    assert f"is the last that {keys['paginator']} leads to, and 'meta.next' announces more" in line
    there = {"meta": {"next": "x", "nxt": None}, "nxt": ""}
    server.on("/users", Answer(page | there, headers={"Link": '</users>; rel="first"'}))
    assert read(f"{server.url}/users", **keys) == [{"id": 1}]
    server.on("/users", Answer(page | {"meta": {"cursor": "this page's own"}}))
    assert read(f"{server.url}/users", **keys) == [{"id": 1}]


@pytest.mark.parametrize(
    "link", ['/users?page=2; rel="next"', '</users?page=2> rel="next"', '</users?page=2>; rel="next']
)
def test_malformed_link_is_not_the_end(server: Server, link: str) -> None:
    """The header mentions a next page, so the day fails with link_header and with auto."""
    url = server.on("/users", Answer([{"id": 1}], headers={"Link": link}))
    assert "next" in read_error(url, paginator="link_header")
    assert read_error(url)


def test_misspelt_total_path_fails_the_day(server: Server) -> None:
    """Otherwise the number of records would not be checked."""
    url = server.on("/users", Answer({"users": [{"id": 1}], "meta": {"total": 5}}))
    assert "total_path = meta.totl, and the page has no number there" in read_error(url, total_path="meta.totl")
