"""Real APIs, each read by configuration alone: every user once, or a line that says why not."""

import datetime as dt
import json
import time
from typing import Any

import pytest

from tests.support.reading import DAY, People, fail
from tests.support.server import Server
from tests.support.shapes import SHAPES, HubSpot, JsonServer, Keycloak
from tests.support.vendor import MORNING, Shape, find
from wholeday.errors import SourceError
from wholeday.extract.reader import Reader
from wholeday.schema.census import Census

QUICK = {"page_size": 3, "requests_per_second": 0.0}  # in small pages, without the pace that a vendor asks for
HOUR = dt.timedelta(hours=1)


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every vendor's secrets."""
    for shape in SHAPES.values():
        for name, value in shape.environment.items():
            monkeypatch.setenv(name, value)


def start(shape: Shape, watermark: dt.datetime | None = None, **keys: Any) -> Reader:
    """A reading by the shape's own section, and `keys` before it."""
    source = People(**{**shape.section, **QUICK, **keys})
    return Reader(source, DAY, watermark, Census(None, [shape.key], source.deleted_when))


def read(shape: Shape, watermark: dt.datetime | None = None, **keys: Any) -> list[Any]:
    """The keys of the users that such a reading brings, sorted."""
    pages = start(shape, watermark, **keys)
    return sorted(find(json.loads(bytes(record)), shape.key) for page in pages for record in page)


def refuse(shape: Shape, **keys: Any) -> str:
    """The line with which it fails."""
    return fail(**{**shape.section, **QUICK, **keys})


@pytest.mark.parametrize("count", [0, 1, 3, 4, 10])
@pytest.mark.parametrize("name", SHAPES)
def test_every_user_arrives_once(server: Server, name: str, count: int) -> None:
    """A preset, a url and a secret read an API: nobody, one user, a full page, one more, several pages."""
    traits = {"largest": 3} if name == "graph" else {}  # its pages are as large as it likes
    shape = SHAPES[name](server, count, **traits)
    assert read(shape) == sorted(shape.keys)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        *(("jsonplaceholder", 100), ("dummyjson", 100), ("reqres", 100), ("github", 100), ("gitlab", 100)),
        *(("scim", 100), ("keycloak", 500), ("zendesk", 1000), ("stripe", 100), ("hubspot", 200)),
    ],
)
def test_a_page_is_as_large_as_the_vendor_allows(server: Server, name: str, count: int) -> None:
    """Every request costs: so many users come on one page, and one user more on two."""
    for users, expected in ((count, 1), (count + 1, 2)):
        shape = SHAPES[name](server, users)
        pages = [len(page) for page in Reader(People(**shape.section, requests_per_second=0.0), DAY)]
        assert (sum(pages), len([size for size in pages if size])) == (users, expected)


@pytest.mark.parametrize("pages", [0, 1, 1.5, 2.5])
@pytest.mark.parametrize("name", [name for name in SHAPES if name != "randomuser"])
def test_without_a_preset_every_user_arrives_too(server: Server, name: str, pages: float) -> None:
    """What `auto` finds out is complete, though all that it is told is the url, the auth and what must be sent."""
    shape = SHAPES[name](server, round(pages * min(20, SHAPES[name].size)), size=min(20, SHAPES[name].size), largest=20)
    needed: dict[str, dict[str, Any]] = {
        "zendesk": {"params": {"start_time": "0"}},
        "scim": {"headers": {"Accept": "application/scim+json"}},
        "hubspot": {"method": "POST", "cursor_in": "body"},
    }
    assert read(shape, preset="", page_size=0, **needed.get(name, {})) == sorted(shape.keys)


@pytest.mark.parametrize("name", ["reqres", "github", "gitlab", "scim", "zendesk"])
def test_a_source_may_give_less_than_it_is_asked_for(server: Server, name: str) -> None:
    """A server with smaller pages than the vendor's largest is read all the same."""
    shape = SHAPES[name](server, 7, largest=3)
    assert read(shape, page_size=100) == sorted(shape.keys)


@pytest.mark.parametrize("name", ["github", "gitlab", "scim", "zendesk", "stripe", "hubspot", "graph"])
def test_one_request_too_many_is_made_again(server: Server, name: str) -> None:
    """A rate limit, as a 429 or as GitHub's 403, is waited for as long as the vendor says, and nobody is missing."""
    shape = SHAPES[name](server, 4, largest=3, busy=[2])
    says_when = {"Retry-After", "X-RateLimit-Reset"} & shape.refuse().headers.keys()
    started = time.monotonic()
    assert read(shape) == sorted(shape.keys)
    assert shape.asked == 3
    assert time.monotonic() - started >= (1 if says_when else 0)


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape.environment])
def test_a_wrong_secret_fails_at_once(server: Server, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not let in says so, and does not ask again and again."""
    shape = SHAPES[name](server, 4)
    for variable in shape.environment:
        monkeypatch.setenv(variable, "wrong-secret")
    with pytest.raises(SourceError, match="401") as caught:
        read(shape)
    assert "wrong-secret" not in str(caught.value)
    assert shape.asked == 0
    assert len(server.requests) <= 2


@pytest.mark.parametrize("name", ["jsonplaceholder", "dummyjson", "reqres", "scim", "hubspot"])
def test_who_is_counted_and_not_listed_is_missed(server: Server, name: str) -> None:
    """Fewer users than the vendor declares fail the day, with both numbers."""
    line = refuse(SHAPES[name](server, 7, hidden=1))
    assert "declares 8 records" in line
    assert "7 came" in line


def test_json_server_without_a_page_has_no_link(server: Server) -> None:
    """A limit without a page is not taken for everybody, and no limit brings everybody."""
    shape = SHAPES["jsonplaceholder"](server, 7)
    for paginator in ("single", "link_header"):
        line = refuse(shape, paginator=paginator, params={"_limit": "3"}, size_param="")
        assert "declares 7 records, and 3 came" in line
    assert read(shape, paginator="single", params={}, size_param="") == shape.keys


def test_the_changes_of_a_json_server_are_read(server: Server) -> None:
    """Its filters take the day's bounds; what lies on one may come twice, and nothing is left out."""
    shape = JsonServer(server, 60, moments=lambda number: MORNING - 24 * HOUR + number * HOUR)
    params = {"_page": "1", "updated_at_gte": "{day_start}", "updated_at_lte": "{day_stop}"}
    in_the_day = [number + 1 for number in range(60) if shape.moments(number).date() == DAY]
    assert read(shape, mode="incremental", params=params) == [*in_the_day, in_the_day[-1] + 1]


@pytest.mark.parametrize("paginator", ["single", "auto"])
def test_dummyjson_gives_everybody_for_a_limit_of_0(server: Server, paginator: str) -> None:
    """All of them on one page are all of them."""
    shape = SHAPES["dummyjson"](server, 31)
    assert read(shape, paginator=paginator, params={"limit": "0"}, size_param="") == shape.keys


def test_dummyjson_without_a_limit_is_not_everybody(server: Server) -> None:
    """Thirty of thirty-one are not everybody."""
    shape = SHAPES["dummyjson"](server, 31)
    assert "declares 31 records, and 30 came" in refuse(shape, paginator="single", size_param="")


def test_reqres_counts_from_1(server: Server) -> None:
    """Page 0 is page 1, and so the same page comes twice."""
    shape = SHAPES["reqres"](server, 7)
    assert "has the same records as page 1" in refuse(shape, page_start=0)


def test_randomuser_never_ends(server: Server) -> None:
    """Page after page of it is stopped at the ceiling, and refused where nobody said that one page is all."""
    shape = SHAPES["randomuser"](server, 3)
    assert "ceiling is 20" in refuse(shape, paginator="page", ceiling=20)
    assert "never end" in refuse(shape, paginator="auto")


def test_randomuser_fails_with_status_200(server: Server) -> None:
    """A page that says itself that it is an error is one."""
    assert "Uh oh" in refuse(SHAPES["randomuser"](server, 3, busy=[1]))


@pytest.mark.parametrize("keys", [{}, {"params": {}}, {"params": {}, "paginator": "auto"}])
def test_gitlab_does_not_count_many_users(server: Server, keys: dict[str, Any]) -> None:
    """Where totals are left out the links are followed, by cursor or by page."""
    shape = SHAPES["gitlab"](server, 10, counted=5)
    assert read(shape, **keys) == shape.keys


def test_gitlab_cannot_be_read_far_by_page(server: Server) -> None:
    """Beyond its reach the vendor refuses, and the day fails; by cursor everybody arrives."""
    shape = SHAPES["gitlab"](server, 10, reach=6)
    assert "405" in refuse(shape, params={})
    assert read(shape) == shape.keys


@pytest.mark.parametrize(("filters", "expected"), [(True, 4), (False, 10)])
def test_a_scim_server_may_ignore_the_filter(server: Server, filters: bool, expected: int) -> None:
    """Of ten users those arrive who changed since the watermark, or everybody: nobody who changed is missing."""
    shape = SHAPES["scim"](server, 10, filters=filters, moments=lambda number: MORNING + number * HOUR)
    assert read(shape, MORNING + 6 * HOUR) == sorted(shape.keys[-expected:])


def test_a_scim_server_may_leave_out_an_empty_list(server: Server) -> None:
    """RFC 7644 asks for `Resources` only where there are some."""
    assert read(SHAPES["scim"](server, 0, omits=True)) == []


def test_keycloak_shows_a_hundred_in_silence(server: Server) -> None:
    """A hundred users and no word on the rest are not taken for everybody where nobody said how pages follow."""
    shape = SHAPES["keycloak"](server, 150)
    assert read(shape, paginator="auto", size_param="", page_size=0) == sorted(shape.keys)


@pytest.mark.parametrize("promise", [1, 300])
def test_a_token_of_keycloak_is_renewed_on_the_way(server: Server, promise: int) -> None:
    """A run that outlives its token asks for another one, even where it was to live longer, and nobody is missing."""
    shape = Keycloak(server, 10, lifetime=1.0, promise=promise, wait=0.3)
    assert read(shape) == sorted(shape.keys)
    assert len(shape.tokens) > 1


def test_zendesk_ends_where_it_says_so(server: Server) -> None:
    """A cursor that is there at the end too is not followed, and the last minute is left to the next day."""
    now = dt.datetime.now(dt.UTC)
    shape = SHAPES["zendesk"](server, 8, moments=lambda number: now - dt.timedelta(seconds=150 - 20 * number))
    assert read(shape) == shape.keys[:5]
    assert [sorted(request.query) for request in server.requests] == [
        ["per_page", "start_time"],
        ["cursor", "per_page"],
    ]


def test_zendesk_lists_who_was_deleted_as_not_active(server: Server) -> None:
    """The users who changed since the watermark arrive, and one of them is a deletion."""
    shape = SHAPES["zendesk"](server, 8, deleted=[6], moments=lambda number: MORNING + number * HOUR)
    reading = start(shape, MORNING + 5 * HOUR)
    assert sum(len(page) for page in reading) == 3
    assert (reading.census.distinct, reading.census.deleted) == (3, 1)


def test_hubspot_is_asked_for_the_day(server: Server) -> None:
    """Contacts that were changed on another day do not arrive."""
    shape = SHAPES["hubspot"](server, 60, moments=lambda number: MORNING - 24 * HOUR + number * HOUR)
    in_the_day = [key for number, key in enumerate(shape.keys) if shape.moments(number).date() == DAY]
    assert len(in_the_day) == 24
    assert read(shape) == sorted(in_the_day)


def test_hubspot_searches_only_so_far(server: Server) -> None:
    """A day that the search cannot show fails on its first page; without the preset's ceiling, when it is reached."""
    line = refuse(SHAPES["hubspot"](server, 10_001), page_size=200)
    assert "10001 records, and ceiling is 10000" in line
    assert "400" in refuse(SHAPES["hubspot"](server, 10, reach=6), ceiling=0)


def test_hubspot_lists_everybody_for_a_first_load(server: Server) -> None:
    """A few keys before those of the preset turn its search, which is for a day, into a snapshot without a ceiling."""
    shape = HubSpot(server, 7, reach=3, moments=lambda number: MORNING - number * 99 * HOUR)
    snapshot: dict[str, Any] = {"mode": "snapshot", "method": "GET", "body": {}, "cursor_in": "query", "ceiling": 0}
    snapshot |= {"total_path": ""}  # the list declares none
    assert read(shape, url=shape.list_url, **snapshot) == shape.keys


def test_the_pages_of_graph_may_be_empty_and_its_users_gone(server: Server) -> None:
    """An empty page with a link is read on, at the end too, and who is gone arrives as a deletion."""
    shape = SHAPES["graph"](server, 10, largest=3, holes=[2, 3, 7], removed=[1, 8])
    reading = start(shape)
    assert [len(page) for page in reading] == [3, 0, 0, 3, 3, 1, 0]
    assert (reading.census.distinct, reading.census.deleted) == (10, 2)
