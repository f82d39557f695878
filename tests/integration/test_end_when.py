"""Test `end_when`: it names the answers that end a list, or that mean a day without records."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.users import USERS
from tests.support.project import query, run_stages
from tests.support.reading import DAY, People, make_user, read, read_error
from tests.support.server import Answer, Request, Server
from wholeday.commands.check import check_source
from wholeday.commands.check.questions import OK
from wholeday.errors import SourceError
from wholeday.extract.http import retries
from wholeday.extract.paging import parse_next_link
from wholeday.extract.reader import Reader
from wholeday.tasks.stages import read_workspace

ENDS = {
    "204": Answer(status=204),
    "404": Answer({"detail": "Invalid page."}, status=404),
    "400": Answer({"code": "invalid_page_number"}, status=400),
    "missing_list": Answer({"kind": "users"}),
}
EMPTY = {
    "left out": Answer({"kind": "users"}),
    "empty object": Answer({}),
    "empty body of PHP": Answer([]),
    "object for a list": Answer({"users": {}}),
    "false for a list": Answer({"users": False}),
    "text for a list": Answer({"users": ""}),
    "null above it": Answer({"data": None}),
}


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry at once."""
    monkeypatch.setattr(retries, "BACKOFF", 0.001)


def serve_pages(server: Server, last: Answer, sizes: tuple[int, ...] = (10, 4), **beside: Any) -> str:
    """Serve pages of these sizes, then `last`."""

    def respond(request: Request) -> Answer:
        page = int(request.query.get("page", 1))
        if page > len(sizes):
            return last
        first = sum(sizes[: page - 1])
        return Answer({"users": [{"id": first + number} for number in range(sizes[page - 1])], **beside})

    return server.on("/users", respond)


@pytest.mark.parametrize("paginator", ["page", "auto"])
@pytest.mark.parametrize("end", ENDS)
def test_configured_end_after_the_last_page(server: Server, end: str, paginator: str) -> None:
    """The client requests the end twice to confirm it. Without `end_when`, the error suggests the value to set."""
    url = serve_pages(server, ENDS[end])
    keys = {"data_selector": "users", "paginator": paginator}
    reading = Reader(People(url=url, end_when=f" {end} ,same_cursor", **keys), DAY)
    assert sum(len(page) for page in reading) == 14
    if paginator == "page":
        assert len(server.requests) == 4
    line = read_error(url, retries=1, **keys)
    assert "failed after 2 attempts: " in line
    assert line.endswith(f"if this answer means that there are no more records, set end_when = {end}")


@pytest.mark.parametrize("end", ENDS)
def test_end_must_repeat_on_retry(server: Server, end: str) -> None:
    """One such answer in the middle does not end the list, although `end_when` names it."""
    odd = [ENDS[end]]

    def respond(request: Request) -> Answer:
        page = int(request.query["page"])
        if page == 3 and odd:
            return odd.pop()
        return Answer({"users": [{"id": page}] if page <= 5 else []})

    url = server.on("/users", respond)
    assert len(read(url, data_selector="users", paginator="page", end_when=end)) == 5


@pytest.mark.parametrize("end", ["404", "400"])
def test_error_on_the_first_page_fails(server: Server, end: str) -> None:
    """A wrong URL is not a day without records."""
    assert f": {end} " in read_error(server.on("/users", ENDS[end]), paginator="page", end_when=end, retries=3)
    assert len(server.requests) == 1


@pytest.mark.parametrize("keys", [{}, {"paginator": "page"}, {"paginator": "cursor"}, {"more_path": "more"}], ids=str)
@pytest.mark.parametrize("total", ["", "total"])
@pytest.mark.parametrize("end", ["204", "missing_list"])
def test_first_page_without_records(server: Server, end: str, total: str, keys: dict[str, str]) -> None:
    """The day has no records, even if other keys expect a cursor or a total on each page."""
    keys = {"data_selector": "users", "cursor_path": "next", "cursor_param": "c", "total_path": total, **keys}
    if keys.get("more_path") and end == "missing_list":
        keys["paginator"] = "page"
    assert read(server.on("/users", ENDS[end]), end_when=end, **keys) == []
    assert f"set end_when = {end}" in read_error(f"{server.url}/users", **keys)


@pytest.mark.parametrize("answer", EMPTY.values(), ids=EMPTY)
def test_missing_list(server: Server, answer: Answer) -> None:
    """The field is missing, an empty object, false or "". Any other value in its place is an error."""
    selector = "data.users" if answer.body == {"data": None} else "users"
    url = server.on("/users", answer)
    assert read(url, data_selector=selector, end_when="missing_list") == []
    assert "set end_when = missing_list" in read_error(url, data_selector=selector)
    for body in ({"users": {"id": 1}}, {"users": "maintenance"}, {"users": 7}):
        server.on("/users", Answer(body))
        line = read_error(url, data_selector=selector if selector == "users" else "users", end_when="missing_list")
        assert "no list at 'users'" in line


def test_missing_list_with_another_list_is_unclear(server: Server) -> None:
    """With `data_selector = auto`, a list in another place is an error."""
    url = server.on("/users", Answer({"data": {"people": [{"id": 1}]}}))
    assert "not clear which list" in read_error(url, end_when="missing_list")
    assert read(server.on("/users", Answer({"kind": "users"})), end_when="missing_list") == []


def test_missing_list_with_a_cursor_continues(server: Server) -> None:
    """Google omits an empty list in the middle too, and its token leads to the next page."""
    pages = [{"users": [{"id": 1}], "nextPageToken": "a"}, {"nextPageToken": "b"}, {"users": [{"id": 2}]}]

    def respond(request: Request) -> Answer:
        return Answer(pages[["", "a", "b"].index(request.query.get("pageToken", ""))])

    keys = {"paginator": "cursor", "cursor_path": "nextPageToken", "cursor_param": "pageToken"}
    url = server.on("/users", respond)
    assert read(url, data_selector="users", end_when="missing_list", **keys) == [{"id": 1}, {"id": 2}]


@pytest.mark.parametrize("users", [[], [{"id": 2}]], ids=["empty", "with records"])
def test_same_cursor(server: Server, users: list[Any]) -> None:
    """A page whose cursor points to the same page is the last."""

    def respond(request: Request) -> Answer:
        if "after" not in request.query:
            return Answer({"users": [{"id": 1}], "next": "x"})
        return Answer({"users": users, "next": "x"})

    keys = {"paginator": "cursor", "cursor_path": "next", "cursor_param": "after"}
    url = server.on("/users", respond)
    assert read(url, end_when="same_cursor", **keys) == [{"id": 1}, *users]
    assert re.search("repeats the request of page 2.*set end_when = same_cursor", read_error(url, **keys))


def test_same_cursor_must_repeat_on_retry(server: Server) -> None:
    """One such answer in the middle does not end the list, although `end_when` names it."""
    odd = [Answer({"users": [], "next": 2})]

    def respond(request: Request) -> Answer:
        after = int(request.query.get("after", 1))
        if after == 2 and odd:
            return odd.pop()
        return Answer({"users": [{"id": after}], "next": min(after + 1, 3)})

    keys = {"paginator": "cursor", "cursor_path": "next", "cursor_param": "after"}
    assert read(server.on("/users", respond), end_when="same_cursor", **keys) == [{"id": 1}, {"id": 2}, {"id": 3}]
    assert len(server.requests) == 5  # the odd page and the last one twice


def test_cursor_of_an_earlier_page_is_a_cycle(server: Server) -> None:
    """`same_cursor` accepts only a cursor that points to its own page."""

    def respond(request: Request) -> Answer:
        after = int(request.query.get("after", 0))
        return Answer({"users": [{"id": after}], "next": after % 3 + 1})

    keys = {"paginator": "cursor", "cursor_path": "next", "cursor_param": "after"}
    line = read_error(server.on("/users", respond), end_when="same_cursor", **keys)
    assert "repeats the request of page 2" in line
    assert "same_cursor" not in line


@pytest.mark.parametrize("first", [False, True], ids=["last page", "first page"])
def test_repeated_page(server: Server, first: bool) -> None:
    """After the end the source repeats its last page or its first."""
    bodies = [[{"id": 1}, {"id": 2}], [{"id": 3}]]
    url = server.on("/users", lambda r: Answer([*bodies, bodies[0 if first else 1]][min(3, int(r.query["page"])) - 1]))
    assert read(url, paginator="page", end_when="repeated_page") == [{"id": 1}, {"id": 2}, {"id": 3}]
    assert len(server.requests) == 4
    assert re.search("has the same records as page .*set end_when = repeated_page", read_error(url, paginator="page"))


@pytest.mark.parametrize("total", ["total", "pages:pages"])
@pytest.mark.parametrize("end", [*ENDS, "repeated_page"])
def test_totals_are_checked_with_end_when(server: Server, end: str, total: str) -> None:
    """An end before the declared total is a failure, not a shorter list."""
    beside = {"total": 20, "pages": 4}
    last = ENDS.get(end) or Answer({"users": [{"id": 10 + number} for number in range(4)], **beside})
    url = serve_pages(server, last, **beside)
    keys = {"data_selector": "users", "paginator": "page", "total_path": total, "end_when": end}
    line = read_error(url, retries=1, **keys)
    assert "the source declares" in line
    assert "page 3 " in line
    complete = serve_pages(server, last, total=14, pages=2)
    assert len(read(complete, **keys)) == 14


@pytest.mark.parametrize("more_path", ["", "has_more"])
def test_announced_page_is_required_with_end_when(server: Server, more_path: str) -> None:
    """The page before announces another page."""
    url = serve_pages(server, ENDS["404"], has_more=True)
    line = read_error(url, data_selector="users", paginator="page", end_when="404", more_path=more_path)
    assert "the end by end_when = 404, and 'has_more' of the page before announces more" in line


def test_pages_with_status_206(server: Server) -> None:
    """Some sources send 206 because a page is a part of the list."""
    link = {"Link": '</users?page=2>; rel="next"'}
    url = server.on("/users", Answer([{"id": 1}], status=206, headers=link), Answer([{"id": 2}], status=206))
    assert read(url) == [{"id": 1}, {"id": 2}]


SENTRY = (
    '<{url}/users?cursor=0:0:1>; rel="previous"; results="false"; cursor="0:0:1", '
    '<{url}/users?cursor=0:{at}:0>; rel="next"; results="{more}"; cursor="0:{at}:0"'
)


@pytest.mark.parametrize("paginator", ["link_header", "auto"])
def test_link_without_results_is_the_end(server: Server, paginator: str) -> None:
    """Sentry always links to a next page. The parameter `results` says whether the page has records."""

    def respond(request: Request) -> Answer:
        at = int(request.query.get("cursor", "0:0:0").split(":")[1])
        more = str(at < 2).lower()
        return Answer([{"id": at}], headers={"Link": SENTRY.format(url=server.url, at=at + 1, more=more)})

    assert read(server.on("/users", respond), paginator=paginator) == [{"id": 0}, {"id": 1}, {"id": 2}]
    assert len(server.requests) == 3


def test_full_page_may_be_the_last(server: Server) -> None:
    """With `auto`, a round number of records is accepted if the link says `results="false"`."""
    users = [{"id": number} for number in range(100)]
    headers = {"Link": SENTRY.format(url=server.url, at=1, more="false")}
    assert len(read(server.on("/users", Answer(users, headers=headers)))) == 100
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ('</a>; rel="next"; results="false", </b>; rel="next"; results="true"', "/b"),
        ("</a>; results=false; rel=next", None),
        ('</a>; rel="next"; results="true"', "/a"),
        ('</a>; rel="prev"; results="false", </b>; rel="next"', "/b"),
    ],
)
def test_results_of_a_link(header: str, target: str | None) -> None:
    assert parse_next_link(header) == target


def test_quiet_day_is_loaded(server: Server, configure: Callable[..., None]) -> None:
    """With `end_when`, a day without records gets its marker. Without it, the run fails."""
    configure("users", url=server.on("/users", ENDS["204"]))
    with pytest.raises(SourceError, match="set end_when = 204"):
        run_stages(USERS, DAY)
    configure("users", end_when="204")
    run_stages(USERS, DAY)
    assert query("select extracted, inserted from loads") == [(0, 0)]


def test_check_reads_with_end_when(server: Server, configure: Callable[..., None]) -> None:
    """`check` applies `end_when` as an extraction does."""

    def respond(request: Request) -> Answer:
        page = int(request.query["page"])
        return Answer({"users": [make_user(page)]}) if page <= 2 else ENDS["404"]

    keys = {"mode": "snapshot", "paginator": "page", "data_selector": "users", "end_when": "404"}
    configure("users", url=server.on("/users", respond), **keys)
    findings = check_source(read_workspace(USERS))
    assert findings["paging"].verdict == OK, findings
    assert findings["repeatability"].verdict == OK, findings


def test_unconfigured_end_is_an_error(server: Server) -> None:
    """Each answer fails unless `end_when` names it."""
    for end, answer in ENDS.items():
        others = ",".join(word for word in ENDS if word != end)
        with pytest.raises(SourceError):
            read(serve_pages(server, answer), data_selector="users", paginator="page", end_when=others, retries=0)
