"""Read realistic copies of public APIs by configuration alone."""

import datetime as dt
import json
import time
from typing import Any

import pytest

from tests.support.reading import DAY, People, read_error
from tests.support.server import Server
from tests.support.shapes import SHAPES, HubSpot, JsonServer, Keycloak
from tests.support.vendor import MORNING, Shape, find
from wholeday.errors import SourceError
from wholeday.extract.reader import Reader
from wholeday.schema.census import Census
from wholeday.schema.raw_fields import FieldReader

QUICK = {"page_size": 3, "requests_per_second": 0.0}  # small pages and no rate limit, for quick tests
HOUR = dt.timedelta(hours=1)


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the secrets of every vendor."""
    for shape in SHAPES.values():
        for name, value in shape.environment.items():
            monkeypatch.setenv(name, value)


def start(shape: Shape, watermark: dt.datetime | None = None, **keys: Any) -> Reader:
    """Return a reader of the shape's own section, overridden by `keys`."""
    source = People(**{**shape.section, **QUICK, **keys})
    return Reader(source, DAY, watermark, Census([FieldReader(shape.key)], source.deleted_when))


def read(shape: Shape, watermark: dt.datetime | None = None, **keys: Any) -> list[Any]:
    """Return the sorted keys of the extracted users."""
    pages = start(shape, watermark, **keys)
    return sorted(find(json.loads(bytes(record)), shape.key) for page in pages for record in page)


def refuse(shape: Shape, **keys: Any) -> str:
    """Return the error message of an extraction that must fail."""
    return read_error(**{**shape.section, **QUICK, **keys})


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1, 3, 4, 10])
@pytest.mark.parametrize("name", SHAPES)
def test_preset_extracts_every_user_once(server: Server, name: str, count: int) -> None:
    """Counts cover no user, one user, a full page, one user more, and several pages."""
    traits = {"largest": 3} if name == "graph" else {}  # Graph chooses its own page size
    shape = SHAPES[name](server, count, **traits)
    assert read(shape) == sorted(shape.keys)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        *(("jsonplaceholder", 100), ("dummyjson", 100), ("reqres", 100), ("github", 100), ("gitlab", 100)),
        *(("scim", 100), ("keycloak", 500), ("zendesk", 1000), ("stripe", 100), ("hubspot", 200)),
    ],
)
def test_preset_uses_the_largest_page(server: Server, name: str, count: int) -> None:
    """Larger pages need fewer requests."""
    for users, expected in ((count, 1), (count + 1, 2)):
        shape = SHAPES[name](server, users)
        pages = [len(page) for page in Reader(People(**shape.section, requests_per_second=0.0), DAY)]
        assert (sum(pages), len([size for size in pages if size])) == (users, expected)


@pytest.mark.slow
@pytest.mark.parametrize("pages", [0, 1, 1.5, 2.5])
@pytest.mark.parametrize("name", [name for name in SHAPES if name != "randomuser"])
def test_auto_paginator_extracts_every_user_without_preset(server: Server, name: str, pages: float) -> None:
    """Only the URL, auth and the vendor's mandatory parameters are configured."""
    shape = SHAPES[name](server, round(pages * min(20, SHAPES[name].size)), size=min(20, SHAPES[name].size), largest=20)
    needed: dict[str, dict[str, Any]] = {
        "zendesk": {"params": {"start_time": "0"}},
        "scim": {"headers": {"Accept": "application/scim+json"}},
        "hubspot": {"method": "POST", "cursor_in": "body"},
    }
    assert read(shape, preset="", page_size=0, **needed.get(name, {})) == sorted(shape.keys)


@pytest.mark.parametrize("name", ["reqres", "github", "gitlab", "scim", "zendesk"])
def test_smaller_pages_than_requested_are_complete(server: Server, name: str) -> None:
    """A short page is not mistaken for the last page."""
    shape = SHAPES[name](server, 7, largest=3)
    assert read(shape, page_size=100) == sorted(shape.keys)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["github", "gitlab", "scim", "zendesk", "stripe", "hubspot", "graph"])
def test_rate_limited_request_is_retried(server: Server, name: str) -> None:
    """The client waits as long as the vendor says, for status 429 and for GitHub's 403."""
    shape = SHAPES[name](server, 4, largest=3, busy=[2])
    says_when = {"Retry-After", "X-RateLimit-Reset"} & shape.refuse().headers.keys()
    started = time.monotonic()
    assert read(shape) == sorted(shape.keys)
    assert shape.asked == 3
    assert time.monotonic() - started >= (1 if says_when else 0)


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape.environment])
def test_wrong_secret_fails_without_retry(server: Server, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = SHAPES[name](server, 4)
    for variable in shape.environment:
        monkeypatch.setenv(variable, "wrong-secret")
    with pytest.raises(SourceError, match="401") as caught:
        read(shape)
    assert "wrong-secret" not in str(caught.value)
    assert shape.asked == 0
    assert len(server.requests) <= 2


@pytest.mark.parametrize("name", ["jsonplaceholder", "dummyjson", "reqres", "scim", "hubspot"])
def test_fewer_users_than_declared_fail(server: Server, name: str) -> None:
    """The error message has both numbers."""
    line = refuse(SHAPES[name](server, 7, hidden=1))
    assert "declares 8 records" in line
    assert "7 came" in line


def test_json_server_limit_without_page_fails(server: Server) -> None:
    """json-server sends no link if the request has a limit but no page."""
    shape = SHAPES["jsonplaceholder"](server, 7)
    for paginator in ("single", "link_header"):
        line = refuse(shape, paginator=paginator, params={"_limit": "3"}, size_param="")
        assert "declares 7 records, and 3 came" in line
    assert read(shape, paginator="single", params={}, size_param="") == shape.keys


def test_json_server_filter_covers_the_day(server: Server) -> None:
    """Its upper bound is inclusive, so the first record of the next day arrives too."""
    shape = JsonServer(server, 60, moments=lambda number: MORNING - 24 * HOUR + number * HOUR)
    params = {"_page": "1", "updated_at_gte": "{day_start}", "updated_at_lte": "{day_stop}"}
    in_the_day = [number + 1 for number in range(60) if shape.moments(number).date() == DAY]
    assert read(shape, mode="incremental", params=params) == [*in_the_day, in_the_day[-1] + 1]


@pytest.mark.parametrize("paginator", ["single", "auto"])
def test_dummyjson_limit_0_returns_all_users(server: Server, paginator: str) -> None:
    shape = SHAPES["dummyjson"](server, 31)
    assert read(shape, paginator=paginator, params={"limit": "0"}, size_param="") == shape.keys


def test_dummyjson_without_limit_fails(server: Server) -> None:
    """DummyJSON sends 30 users by default, which is fewer than it declares."""
    shape = SHAPES["dummyjson"](server, 31)
    assert "declares 31 records, and 30 came" in refuse(shape, paginator="single", size_param="")


def test_reqres_page_0_repeats_page_1(server: Server) -> None:
    """A wrong page_start fails instead of loading page 1 twice."""
    shape = SHAPES["reqres"](server, 7)
    assert "has the same records as page 1" in refuse(shape, page_start=0)


def test_randomuser_endless_pages_fail(server: Server) -> None:
    """The ceiling stops the page paginator; the auto paginator refuses an endless source."""
    shape = SHAPES["randomuser"](server, 3)
    assert "ceiling is 20" in refuse(shape, paginator="page", ceiling=20)
    assert "never end" in refuse(shape, paginator="auto")


def test_randomuser_error_with_status_200_fails(server: Server) -> None:
    """The body of the page reports the error."""
    assert "Uh oh" in refuse(SHAPES["randomuser"](server, 3, busy=[1]))


@pytest.mark.parametrize("keys", [{}, {"params": {}}, {"params": {}, "paginator": "auto"}])
def test_gitlab_without_totals_follows_links(server: Server, keys: dict[str, Any]) -> None:
    """GitLab omits totals for large lists. Keyset and page links both work."""
    shape = SHAPES["gitlab"](server, 10, counted=5)
    assert read(shape, **keys) == shape.keys


def test_gitlab_offset_limit_fails_the_day(server: Server) -> None:
    """GitLab refuses pages beyond its offset limit; keyset links have no limit."""
    shape = SHAPES["gitlab"](server, 10, reach=6)
    assert "405" in refuse(shape, params={})
    assert read(shape) == shape.keys


@pytest.mark.parametrize(("filters", "expected"), [(True, 4), (False, 10)])
def test_scim_server_may_ignore_filter(server: Server, filters: bool, expected: int) -> None:
    """A server that ignores the filter sends all users, so no change is lost."""
    shape = SHAPES["scim"](server, 10, filters=filters, moments=lambda number: MORNING + number * HOUR)
    assert read(shape, MORNING + 6 * HOUR) == sorted(shape.keys[-expected:])


def test_scim_server_may_omit_empty_list(server: Server) -> None:
    """RFC 7644 requires `Resources` only if there are any."""
    assert read(SHAPES["scim"](server, 0, omits=True)) == []


def test_keycloak_default_limit_is_detected(server: Server) -> None:
    """Keycloak sends 100 users by default and declares no total."""
    shape = SHAPES["keycloak"](server, 150)
    assert read(shape, paginator="auto", size_param="", page_size=0) == sorted(shape.keys)


@pytest.mark.slow
@pytest.mark.parametrize("promise", [1, 300])
def test_keycloak_token_is_renewed_during_extraction(server: Server, promise: int) -> None:
    """The token may also expire earlier than promised."""
    shape = Keycloak(server, 10, lifetime=3.0, promise=promise, wait=0.9)
    assert read(shape) == sorted(shape.keys)
    assert len(shape.tokens) > 1


def test_zendesk_stops_at_end_of_stream(server: Server) -> None:
    """Zendesk sends a cursor on the last page too. The last minute belongs to the next day."""
    now = dt.datetime.now(dt.UTC)
    shape = SHAPES["zendesk"](server, 8, moments=lambda number: now - dt.timedelta(seconds=150 - 20 * number))
    assert read(shape) == shape.keys[:5]
    assert [sorted(request.query) for request in server.requests] == [
        ["per_page", "start_time"],
        ["cursor", "per_page"],
    ]


def test_zendesk_inactive_user_is_a_deletion(server: Server) -> None:
    shape = SHAPES["zendesk"](server, 8, deleted=[6], moments=lambda number: MORNING + number * HOUR)
    reading = start(shape, MORNING + 5 * HOUR)
    assert sum(len(page) for page in reading) == 3
    assert (reading.census.distinct, reading.census.deleted) == (3, 1)


def test_hubspot_search_covers_the_day(server: Server) -> None:
    shape = SHAPES["hubspot"](server, 60, moments=lambda number: MORNING - 24 * HOUR + number * HOUR)
    in_the_day = [key for number, key in enumerate(shape.keys) if shape.moments(number).date() == DAY]
    assert len(in_the_day) == 24
    assert read(shape) == sorted(in_the_day)


def test_hubspot_search_limit_fails_the_day(server: Server) -> None:
    """With the preset's ceiling the first page fails; without it HubSpot refuses a later page."""
    line = refuse(SHAPES["hubspot"](server, 10_001), page_size=200)
    assert "10001 records, and ceiling is 10000" in line
    assert "400" in refuse(SHAPES["hubspot"](server, 10, reach=6), ceiling=0)


def test_hubspot_list_snapshot_for_first_load(server: Server) -> None:
    """A few keys turn the preset's search into a snapshot without a ceiling."""
    shape = HubSpot(server, 7, reach=3, moments=lambda number: MORNING - number * 99 * HOUR)
    snapshot: dict[str, Any] = {"mode": "snapshot", "method": "GET", "body": {}, "cursor_in": "query", "ceiling": 0}
    snapshot |= {"total_path": ""}  # the list declares no total
    assert read(shape, url=shape.list_url, **snapshot) == shape.keys


def test_graph_empty_pages_and_removed_users(server: Server) -> None:
    """The reader follows the link of an empty page. A removed user arrives as a deletion."""
    shape = SHAPES["graph"](server, 10, largest=3, holes=[2, 3, 7], removed=[1, 8])
    reading = start(shape)
    assert [len(page) for page in reading] == [3, 0, 0, 3, 3, 1, 0]
    assert (reading.census.distinct, reading.census.deleted) == (10, 2)
