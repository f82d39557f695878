"""A reading, against a real server that behaves as servers do."""

import datetime as dt
import itertools
import json
import logging
import re
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import client, config, pages, source
from pipeline.auth import Mask
from pipeline.config import Source
from pipeline.errors import ConfigError, SourceError
from pipeline.pages import split_list
from pipeline.placeholders import find_placeholders, render
from pipeline.source import Reading
from server import Answer, Request, Server

DAY = dt.date(2026, 10, 31)
START = dt.datetime(2026, 10, 31, tzinfo=dt.UTC)
SECRET = "s3cr3t/+tok&n"


class People(Source):
    section = "people"


@pytest.fixture(autouse=True)
def _calm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BACKOFF", 0.01)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def read(url: str, **keys: Any) -> list[Any]:
    """The records of a reading, decoded."""
    return [json.loads(bytes(record)) for page in Reading(People(url=url, **keys), DAY) for record in page]


def fail(url: str, **keys: Any) -> str:
    """The line with which a reading fails."""
    with pytest.raises(SourceError) as caught:
        read(url, **{"retries": 0} | keys)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"people {DAY}: ")
    return line


# -- placeholders


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{date}", "2026-10-31"),
        ("{day_start}", "2026-10-30T23:59:59Z"),
        ("{day_start:iso}", "2026-10-30T23:59:59Z"),
        ("{day_start:date}", "2026-10-30"),
        ("{day_start:epoch}", "1793404799"),
        ("{day_start:epoch_ms}", "1793404799999"),
        ("{day_stop}", "2026-11-01T00:00:00Z"),
        ("{day_stop:epoch_ms}", "1793491200000"),
        ("{watermark}", "2026-10-31T12:00:00Z"),
        ("{watermark:epoch_ms}", "1793448001233"),
        ('{"gt": "{date}"} {}', '{"gt": "2026-10-31"} {}'),
    ],
)
def test_a_lower_bound_is_rounded_down_less_one_unit_and_nothing_else_is(text: str, shown: str) -> None:
    """No comparison at the source loses what lies on a bound."""
    values = {
        "date": DAY,
        "day_start": START,
        "day_stop": START + dt.timedelta(days=1),
        "watermark": START + dt.timedelta(hours=12, seconds=1, microseconds=234_500),
    }
    assert render(text, values) == shown
    assert render("{day_stop}", values, quote=True) == "2026-11-01T00%3A00%3A00Z"


def test_an_upper_bound_that_its_format_cannot_hold_is_rounded_up() -> None:
    """A day that ends at 22:00 UTC ends, as a date, on the next."""
    assert render("{day_stop:date}", {"day_stop": START + dt.timedelta(hours=22)}) == "2026-11-01"


@pytest.mark.parametrize("text", ["{day}", "{day_start:rfc}", "{day_start:}", "{date:epoch}", "{Date}"])
def test_an_unknown_placeholder_or_format_is_named(text: str) -> None:
    """A typing error is an error before anything is sent."""
    with pytest.raises(ConfigError, match=re.escape(text)):
        find_placeholders(People(url="http://a/", params={"deep": [{"er": f"x{text}"}]}))


def test_placeholders_are_found_wherever_they_stand() -> None:
    """The caller learns which values a reading needs."""
    people = People(url="http://a/{date}", params={"q": {"a": ["{watermark:epoch}"]}}, headers={"X": "{day_stop}"})
    assert find_placeholders(people) == {"date", "watermark", "day_stop"}


@pytest.mark.parametrize("name", ["day_start", "day_stop", "watermark"])
def test_a_snapshot_refuses_a_filter(name: str) -> None:
    """Whoever a filter leaves out of a snapshot would look gone."""
    with pytest.raises(ConfigError, match="snapshot"):
        Reading(People(url="http://a/", mode="snapshot", params={"since": f"{{{name}}}"}), DAY)


def test_placeholders_land_encoded_where_they_are_used(server: Server) -> None:
    """Path, query and headers each get the value, less lookback where it is a lower bound."""
    server.on("/users/2026-10-31", Answer([]))
    people = People(
        url=server.url + "/users/{date}?to={day_stop}",
        params={"from": "{day_start}", "after": "{watermark:epoch}"},
        headers={"X-From": "{day_start}"},
        lookback=dt.timedelta(hours=1),
    )
    list(Reading(people, DAY, START))
    assert server.requests[0].target == (
        "/users/2026-10-31?to=2026-11-01T00%3A00%3A00Z&from=2026-10-30T22%3A59%3A59Z&after=1793401199"
    )
    assert server.requests[0].headers["X-From"] == "2026-10-30T22:59:59Z"


def test_without_a_watermark_everything_since_1970_is_asked_for(server: Server) -> None:
    """A first load begins at the epoch, neither before nor after it."""
    read(server.on("/users", Answer([])), params={"a": "{watermark}", "b": "{watermark:epoch_ms}"})
    assert server.requests[0].query == {"a": "1970-01-01T00:00:00Z", "b": "0"}


# -- shapes


def make_pages(count: int, size: int, server: Server, link: str) -> Callable[[Request], Answer]:
    """An API over `count` users: numbered pages of `size` or `per_page`; with a Link if `link` says how to write it."""

    def respond(request: Request) -> Answer:
        page, per_page = int(request.query.get("page", 1)), int(request.query.get("per_page", size))
        users = [{"id": number} for number in range(count)][(page - 1) * per_page : page * per_page]
        target = link.format(url=server.url, page=page + 1, per_page=per_page)
        headers = {"Link": target} if link and page * per_page < count else {}
        return Answer(users, headers=headers)

    return respond


@pytest.mark.parametrize(
    "link",
    [
        '<{url}/users?page={page}&per_page={per_page}>; rel="next"',
        '<{url}/users?page=1>; rel="first", </users?page={page}&per_page={per_page}>; rel="next"',
        "<?page={page}&per_page={per_page}>;rel=next",
    ],
)
def test_auto_follows_links(server: Server, link: str) -> None:
    """A Link to the next page, absolute or relative, is followed to the last, and the reading says why."""
    url = server.on("/users", make_pages(5, 2, server, link))
    reading = Reading(People(url=url), DAY)
    assert [len(page) for page in reading] == [2, 2, 1]
    assert reading.paginator == "link_header: the first page has a Link to the next"
    assert (reading.pages, reading.records) == (3, 5)


def test_auto_takes_a_page_without_a_sign_of_more_for_all(server: Server) -> None:
    """One page is enough where nothing speaks against it."""
    reading = Reading(People(url=server.on("/users", Answer({"users": [{"id": 1}], "total": 1}))), DAY)
    assert [len(page) for page in reading] == [1]
    assert reading.paginator == "single: nothing in the first page says that there is more"


def test_auto_does_not_guess(server: Server) -> None:
    """A first page that speaks of more fails the day, and names what it saw and the key to set."""
    url = server.on("/users", Answer({"users": [{"id": 1}], "meta": {"total": 7}}))
    assert re.search("'meta.total' is 7 and 1 records came; set paginator", fail(url))
    assert read(url, paginator="single") == [{"id": 1}]


@pytest.mark.parametrize("size", [{}, {"size_param": "per_page", "page_size": 3}])
def test_page_goes_on_until_an_empty_page(server: Server, size: dict[str, Any]) -> None:
    """Neither a short page nor a full one is the end; the size is asked for from the first request on."""
    url = server.on("/users", make_pages(7, 2, server, ""))
    assert read(url, paginator="page", **size) == [{"id": number} for number in range(7)]
    assert {request.query.get("per_page") for request in server.requests} == {"3" if size else None}


def test_a_link_is_followed_past_an_empty_page(server: Server) -> None:
    """An empty page is not the end where the source says that there is more."""
    url = server.on(
        "/users",
        Answer([{"id": 1}], headers={"Link": "</users?page=2>; rel=next"}),
        Answer([], headers={"Link": "</users?page=3>; rel=next"}),
        Answer([], headers={"Link": "</users?page=4>; rel=next"}),
        Answer([{"id": 2}]),
    )
    assert read(url) == [{"id": 1}, {"id": 2}]


def test_size_param_without_page_size_is_an_error() -> None:
    """A name without a number would ask for nothing."""
    with pytest.raises(ConfigError, match="page_size"):
        Reading(People(url="http://a/", size_param="limit"), DAY)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(0, 30), size=st.integers(1, 9), first=st.sampled_from(["page", "link_header", "auto"]))
def test_the_population_arrives_exactly(server: Server, count: int, size: int, first: str) -> None:
    """Whatever the number of users and the size of a page, each user comes once."""
    link = "" if first == "page" else '</users?page={page}&per_page={per_page}>; rel="next"'
    url = server.on("/users", make_pages(count, size, server, link))
    assert read(url, paginator=first) == [{"id": number} for number in range(count)]


def test_the_demo_is_a_source_like_any_other() -> None:
    """demo:// needs no server, and is read by the same code."""
    reading = Reading(People(url="demo://users", params={"updated_before": "{day_stop}", "per_day": 2}), DAY)
    assert sum(len(page) for page in reading) == reading.records > 1000
    assert reading.pages > 1


# -- bodies


@pytest.mark.parametrize(
    "answer",
    [
        Answer('\ufeff[{"id": 1}, {"id": 2}]'),
        Answer(' \r\n[{"id": 1}, {"id": 2}]\n'),
        Answer([{"id": 1}, {"id": 2}], compress=True),
        Answer([{"id": 1}, {"id": 2}], chunked=True),
        Answer([{"id": 1}, {"id": 2}], compress=True, chunked=True),
        Answer({"data": [{"id": 1}, {"id": 2}], "errors": [], "tags": ["a"]}),
        Answer({"data": [{"id": 1}, {"id": 2}], "took": float("nan")}),
    ],
)
def test_a_list_is_found_however_it_is_wrapped(server: Server, answer: Answer) -> None:
    """A byte-order mark, white space, gzip, chunks, an object around the list: the records are the same."""
    assert read(server.on("/users", answer)) == [{"id": 1}, {"id": 2}]


def test_several_gzip_members_are_one_body(server: Server) -> None:
    """A gzip stream may be made of several."""
    body = Answer("[1,", compress=True).encode() + Answer("2]", compress=True).encode()
    assert read(server.on("/users", Answer(body, headers={"Content-Encoding": "gzip"}))) == [1, 2]


def test_a_record_is_the_bytes_that_came_on_one_line(server: Server) -> None:
    """Nothing is re-serialised: order, numbers, escapes and spaces stay; line breaks become spaces."""
    body = '[\n {"b": 1.0,\r\n\t"a": "\\u00e9\\n", "big": 123456789012345678901234567890} ,\n 7, null]'
    (page,) = Reading(People(url=server.on("/users", Answer(body))), DAY)
    assert [bytes(record) for record in page] == [
        b'{"b": 1.0,  \t"a": "\\u00e9\\n", "big": 123456789012345678901234567890}',
        b"7",
        b"null",
    ]


@pytest.mark.parametrize("bad", ["NaN", "-Infinity", '"\\ud800"', "1" * 5000, "1e999"])
@pytest.mark.parametrize(
    "page", ['[{"id":1},{"x":%s},{"id":3}]', '{"n":{"m":%s},"users":[{"id":1},{"x":%s},{"id":3}]}']
)
def test_a_value_that_few_can_read_does_not_harm_its_neighbours(server: Server, bad: str, page: str) -> None:
    """What Python APIs emit beyond JSON, and numbers of any size, is passed on in its own record."""
    (records,) = Reading(People(url=server.on("/users", Answer(page.replace("%s", bad)))), DAY)
    assert [bytes(record).decode() for record in records] == ['{"id":1}', f'{{"x":{bad}}}', '{"id":3}']


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(JSON_VALUES, max_size=5), st.sampled_from([None, 1]))
def test_splitting_keeps_every_value(values: list[Any], indent: int | None) -> None:
    """The parts of a list, NaN and all, pretty or not, are its values in order, each on one line."""
    records = [bytes(record) for record in split_list(json.dumps(values, indent=indent).encode())]
    assert json.dumps([json.loads(record) for record in records]) == json.dumps(values)
    assert not any(b"\n" in record for record in records)


@pytest.mark.parametrize(
    ("body", "selector", "count"),
    [
        ({"data": {"users": [1, 2]}, "other": [{}]}, "data.users", 2),
        ({"users": [{}], "teams": [{}, {}]}, "teams", 2),
        ({"users": []}, "auto", 0),
        ({"users": [{}], "tags": ["x"]}, "auto", 1),
    ],
)
def test_the_list_is_selected(server: Server, body: object, selector: str, count: int) -> None:
    """A dotted path leads to the list; auto takes the only one that it can be."""
    assert len(read(server.on("/users", Answer(body)), data_selector=selector)) == count


@pytest.mark.parametrize(
    ("body", "selector", "words"),
    [
        ({"users": [{}], "teams": [{}]}, "auto", "'users', 'teams'.*set data_selector"),
        ({"data": {"users": [{}]}}, "auto", "'data.users'.*set data_selector"),
        ({"users": [], "teams": []}, "auto", "'users', 'teams'.*set data_selector"),
        ({"tags": ["x"]}, "auto", "'tags'.*set data_selector"),
        ({"errors": [{"code": 1}]}, "auto", "'errors'.*set data_selector"),
        ({"ok": False}, "auto", "none at all.*set data_selector"),
        ({"users": None}, "users", "no list at 'users'.*check"),
        ({"users": [{}]}, "data.users", "no list at 'data.users': there are 'users'"),
        ([{}], "users", "a list where an object with a list at 'users'"),
    ],
)
def test_a_list_that_is_not_clear_is_an_error(server: Server, body: object, selector: str, words: str) -> None:
    """Nothing is guessed: the candidates are named."""
    assert re.search(words, fail(server.on("/users", Answer(body)), data_selector=selector))


def test_later_pages_are_shaped_like_the_first(server: Server) -> None:
    """An error object with a list of its own does not pass for a page."""
    first = Answer([{"id": 1}], headers={"Link": "</users?page=2>; rel=next"})
    line = fail(server.on("/users", first, Answer({"details": [{"why": "busy"}]})))
    assert "an object where a list of records was expected" in line


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("<!doctype html>\n<title>Log in</title>", "HTML.*Log in"),
        ("", "empty"),
        ("  \n", "empty"),
        (b'[{"name": "\xff"}]', "not UTF-8"),
        ("[]".encode("utf-16"), "not UTF-8"),
        ("3", "no JSON list or object"),
        ('"x"', "no JSON list or object"),
        ("[{'id': 1}]", "no JSON"),
        ('[{"a": "line\nbreak"}]', "no JSON"),
        ("[1] [2]", "no JSON"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_body_that_is_no_page_fails_at_once(server: Server, body: str | bytes, words: str) -> None:
    """A good status does not make a page; the line shows what came, and nothing is retried."""
    line = fail(server.on("/users", Answer(body)), retries=3)
    assert re.search(words, line)
    assert f"GET {server.url}/users" in line
    assert "200 OK" in line
    assert len(server.requests) == 1


def test_a_body_beyond_the_bound_fails(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decompression bomb, plain or of endless empty members, and a large plain body end at the bound."""
    monkeypatch.setattr(pages, "MAX_BODY", 2**20)
    packed = {"Content-Encoding": "gzip"}
    bomb = Answer(Answer(b"[" + b" " * 2**26 + b"]", compress=True).encode(), headers=packed)
    empty = Answer(Answer(b"", compress=True).encode() * 2**16, headers=packed)
    for answer in (bomb, empty, Answer(b" " * (2**20 + 1))):
        url = server.on("/users", answer)
        tracemalloc.start()
        assert "larger than 1 MiB" in fail(url, retries=3)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
        tracemalloc.stop()
    assert len(server.requests) == 3


def test_a_redirect_is_not_read_ahead(server: Server) -> None:
    """The body of a redirect is nobody's business, however long it is."""
    url = server.on("/old", Answer(b" " * 2**26, status=302, headers={"Location": "/users"}))
    server.on("/users", Answer([{"id": 1}]))
    tracemalloc.start()
    assert read(url) == [{"id": 1}]
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()


# -- completeness


@pytest.mark.parametrize("cycle", [1, 2, 7])
def test_a_cycle_of_pages_fails_the_day(server: Server, cycle: int) -> None:
    """A page that was asked for before is not asked for again, however far back it lies."""

    def respond(request: Request) -> Answer:
        page = int(request.query.get("page", 0))
        return Answer([{"id": page}], headers={"Link": f"</users?page={(page + 1) % cycle}>; rel=next"})

    line = fail(server.on("/users", respond) + "?page=0")
    assert re.search(rf"page {cycle + 1} \(.*page=0\) was asked for before, as page 1", line)
    assert len(server.requests) == cycle


@pytest.mark.parametrize("cycle", [1, 2, 7])
def test_the_same_records_under_new_urls_fail_the_day(server: Server, cycle: int) -> None:
    """A source that ignores the page number, in whatever envelope, is found out."""

    def respond(request: Request) -> Answer:
        page = int(request.query["page"])
        return Answer({"users": [{"id": page % cycle}], "page": page, "at": time.time()})

    line = fail(server.on("/users", respond), paginator="page")
    assert re.search(rf"page {cycle + 1} \(.*\) has the same records as page 1", line)


# -- trust


@pytest.mark.parametrize(
    "target", ["http://localhost:{port}/users", "https://127.0.0.1:{port}/users", "file:///etc/passwd"]
)
@pytest.mark.parametrize("how", ["link", "redirect", "redirect of a link"])
def test_another_origin_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch, target: str, how: str) -> None:
    """Neither a link nor a redirect leads away, and the token goes nowhere."""
    monkeypatch.setenv("PEOPLE_TOKEN", SECRET)
    away = target.format(port=server.url.rpartition(":")[2])
    redirect = Answer(status=307, headers={"Location": away})
    link = Answer([{"id": 1}], headers={"Link": f"<{away if how == 'link' else '/two'}>; rel=next"})
    url = server.on("/users", redirect if how == "redirect" else link)
    server.on("/two", redirect)
    line = fail(url, auth="bearer:PEOPLE_TOKEN")
    assert re.search(f"leads to {away.partition('/users')[0].partition('/etc')[0]}", line)
    assert f"another origin than {server.url}" in line
    assert len(server.requests) == (2 if how == "redirect of a link" else 1)


@pytest.mark.parametrize("trick", ["http://{other}\\@{own}/users", "http://{own}@{other}/users", "//{other}/users"])
def test_the_origin_is_read_as_it_will_be_used(server: Server, trick: str) -> None:
    """A URL that two parsers read differently leads nowhere that the sender would go but the judge did not see."""
    with Server() as other:
        names = {"own": server.url.removeprefix("http://"), "other": other.url.removeprefix("http://")}
        link = {"Link": f"<{trick.format(**names)}>; rel=next"}
        fail(server.on("/users", Answer([{"id": 1}], headers=link)))
        assert not other.requests


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_within_the_origin_is_followed_with_the_token(
    server: Server, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """At home a redirect is followed, and what it leads to is asked for in our name."""
    monkeypatch.setenv("PEOPLE_TOKEN", SECRET)
    url = server.on("/old", Answer(status=status, headers={"Location": "v2/users?a=b"}))
    server.on("/v2/users", Answer([{"id": 1}]))
    assert read(url, auth="bearer:PEOPLE_TOKEN") == [{"id": 1}]
    assert [request.headers["Authorization"] for request in server.requests] == [f"Bearer {SECRET}"] * 2


def test_redirects_come_to_an_end(server: Server) -> None:
    """Ten redirects are followed, the eleventh is not."""
    line = fail(server.on("/users", Answer(status=302, headers={"Location": "/users"})))
    assert "more than 10 redirects" in line
    assert len(server.requests) == 11


# -- requests


def test_a_request_says_who_asks_and_for_what(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our name, JSON, gzip and the configured headers; a token where it belongs."""
    monkeypatch.setenv("PEOPLE_KEY", SECRET)
    read(server.on("/users", Answer([])), auth="header:X-Api-Key:PEOPLE_KEY", headers={"X-Tenant": "7"})
    headers = server.requests[0].headers
    assert headers["User-Agent"] == "users-pipeline"
    assert headers["Accept"] == "application/json"
    assert headers["Accept-Encoding"] == "gzip"
    assert headers["X-Tenant"] == "7"
    assert headers["X-Api-Key"] == SECRET
    assert "Authorization" not in headers


def test_a_password_in_the_url_is_sent_but_never_shown(server: Server) -> None:
    """The user and password of a URL become a header."""
    url = server.on("/users", Answer([])).replace("http://", "http://ann:hunter22@")
    reading = Reading(People(url=url), DAY)
    assert list(reading) == [[]]
    assert server.requests[0].headers["Authorization"] == "Basic YW5uOmh1bnRlcjIy"
    assert reading.url == server.url + "/users"


def test_netrc_is_left_alone(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A password that lies about for curl is not sent by us."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ann password hunter22\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    read(server.on("/users", Answer([])))
    assert "Authorization" not in server.requests[0].headers


def test_a_proxy_of_the_environment_is_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only a proxy leads out, it is asked."""
    monkeypatch.setenv("http_proxy", server.url)
    server.on("/users", Answer([{"id": 1}]))
    assert read("http://api.invalid/users") == [{"id": 1}]
    assert server.requests[0].target == "http://api.invalid/users"


def test_a_ca_bundle_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The certificates that the environment names are the ones that count."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "company.pem"))
    assert "company.pem" in fail("https://127.0.0.1:9/users")


def test_the_pace_is_kept(server: Server) -> None:
    """Four requests at ten a second take three tenths of one, and without a limit they do not."""
    url = server.on("/users", make_pages(3, 1, server, ""))
    lengths = []
    for rate in (10.0, 0.0):
        began = time.monotonic()
        read(url, paginator="page", requests_per_second=rate)
        lengths.append(time.monotonic() - began)
    assert len(server.requests) == 8
    assert lengths[0] > max(0.3, lengths[1])


@pytest.mark.parametrize(
    "auth", ["bearer", "bearer:", "basic:A:B", "eyJhbGciOi.secret", "header:X:", "header::A", "none:x"]
)
def test_an_auth_that_cannot_be_understood_is_an_error(auth: str) -> None:
    """It is not repeated in the error: it may be the secret itself."""
    with pytest.raises(ConfigError, match="auth") as caught:
        Reading(People(url="http://a/", auth=auth), DAY)
    assert "eyJ" not in str(caught.value)


@pytest.mark.parametrize("value", [None, "", "abc\n", " abc", "ab\x00c", "gehe\u00efm"])
def test_a_secret_that_cannot_be_sent_names_its_variable(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    """A variable that is unset, empty or no header is an error before the first request."""
    monkeypatch.setattr("os.environ", {} if value is None else {"PEOPLE_TOKEN": value})
    with pytest.raises(ConfigError, match="PEOPLE_TOKEN") as caught:
        Reading(People(url="http://a/", auth="bearer:PEOPLE_TOKEN"), DAY)
    assert not value or value.strip() not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["users", "ftp://a/users", "http:///users", "http://a:9x/", "http://ann:hunter/22@a/", "http://[a/"]
)
def test_a_url_that_cannot_be_used_is_an_error(url: str) -> None:
    """Nothing of it is shown: nobody knows where its password ends."""
    with pytest.raises(ConfigError, match="url") as caught:
        Reading(People(url=url), DAY)
    assert "hunter" not in str(caught.value)


# -- retries


@pytest.mark.parametrize(
    "trouble",
    [
        Answer(status=408),
        Answer(status=425),
        Answer(status=429),
        Answer(status=500),
        Answer(status=503, headers={"Retry-After": "0"}),
        Answer(status=403, headers={"X-RateLimit-Remaining": "0"}),
        Answer(reset=True),
        Answer([1] * 5000, cut=10),
        Answer([1] * 5000, cut=0),
        Answer([1] * 5000, chunked=True, cut=1005),
        Answer([1] * 5000, chunked=True, cut=1700),
        Answer([1] * 5000, compress=True, chunked=True, cut=20),
        Answer([1], length=100),
        Answer([1], length=2),
        Answer(Answer([1] * 5000, compress=True).encode()[:-9], headers={"Content-Encoding": "gzip"}),
        Answer(b"no gzip", headers={"Content-Encoding": "gzip"}),
        Answer([1], wait=0.4),
    ],
)
def test_what_may_pass_is_retried(server: Server, caplog: pytest.LogCaptureFixture, trouble: Answer) -> None:
    """A failure that may pass is retried, with a line each; one that does not fails with a line."""
    caplog.set_level(logging.INFO, "luigi-interface")
    url = server.on("/users", trouble, trouble, Answer([{"id": 1}]))
    assert read(url, timeout=0.2) == [{"id": 1}]
    assert len(server.requests) == 3
    assert [record.levelname for record in caplog.records] == ["INFO"] * 2
    assert "retry 2 of 5 in " in caplog.messages[1]
    server.on("/users", trouble)
    assert "given up after 2 attempts" in fail(url, timeout=0.2, retries=1)


def test_a_refused_connection_fails_with_its_cause() -> None:
    """Nobody listens: retried, then one line with the address."""
    with Server() as closed:
        url = closed.url
    line = fail(url, retries=1)
    assert re.search(r"GET http://127.0.0.1:\d+: Failed to establish a new connection.*refused; given up after 2", line)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418])
def test_what_cannot_pass_is_not_retried(server: Server, status: int) -> None:
    """Any other 4xx fails at once, and says what came and what to check."""
    url = server.on("/users", Answer({"error": "no\n  way" + " " * 300}, status=status))
    assert re.search(rf"{status} .*no\\n  way|{status} .*no.*way.*: check", fail(url, retries=3))
    assert len(server.requests) == 1


def test_waits_grow(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wait is about twice the one before."""
    monkeypatch.setattr(client, "BACKOFF", 0.05)
    fail(server.on("/users", Answer(status=500)), retries=4)
    times = [request.at for request in server.requests]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(wait > 0.05 * 2**number for number, wait in enumerate(waits))


def say_later(kind: str) -> dict[str, str]:
    """Headers that ask to come back in one to two seconds, seen from a server whose clock is three minutes ahead."""
    now = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(minutes=3)
    then = now + dt.timedelta(seconds=1)
    headers = {
        "seconds": {"Retry-After": "1"},
        "date": {"Retry-After": format_datetime(then, usegmt=True)},
        "reset epoch": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(then.timestamp()))},
        "reset milliseconds": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(then.timestamp() * 1000))},
        "reset seconds": {"RateLimit-Remaining": "0", "RateLimit-Reset": "1"},
    }[kind]
    return {"Date": format_datetime(now, usegmt=True)} | headers


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, "seconds"), (503, "date"), (403, "reset epoch"), (429, "reset milliseconds"), (403, "reset seconds")],
)
def test_the_source_is_waited_for_as_long_as_it_asks(server: Server, status: int, kind: str) -> None:
    """A wait in seconds, as a date or as an epoch is obeyed in full, by the source's own clock."""
    url = server.on("/users", Answer(status=status, headers=say_later(kind)), Answer([{"id": 1}]))
    assert read(url) == [{"id": 1}]
    assert 1.0 <= server.requests[1].at - server.requests[0].at < 2.0


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_a_wait_beyond_max_wait_fails_at_once(server: Server, status: int) -> None:
    """Nobody sits there for hours: the line says how long the source asked for."""
    line = fail(server.on("/users", Answer(status=status, headers={"Retry-After": "7200"})), retries=3)
    assert "asks to wait 2:00:00" in line
    assert "max_wait 0:10:00" in line
    assert len(server.requests) == 1


def test_a_limit_that_is_not_exhausted_is_not_waited_for(server: Server) -> None:
    """A reset in an hour is no reason to wait where the server merely failed."""
    headers = {"X-RateLimit-Remaining": "4999", "X-RateLimit-Reset": str(int(time.time()) + 3600)}
    assert read(server.on("/users", Answer(status=502, headers=headers), Answer([]))) == []


# -- clocks


@pytest.mark.parametrize(("offset", "age", "settle", "good"), [
    (0, 0, 0, True),
    (-600, 0, 900, True),
    (-1200, 0, 900, False),
    (1200, 0, 900, False),
    (-30, 0, 0, False),
    (-1200, 1190, 0, False),
    (-1200, 1199, 0, True),
])  # fmt: skip
def test_a_clock_that_settle_does_not_cover_fails_the_day(
    server: Server, monkeypatch: pytest.MonkeyPatch, offset: int, age: int, settle: int, good: bool
) -> None:
    """The source's Date, with the Age of a cache, may differ from our clock by settle and no more."""
    now = dt.datetime(2026, 11, 2, 12, tzinfo=dt.UTC)
    monkeypatch.setattr(config, "utc_now", lambda: now)
    date = format_datetime(now + dt.timedelta(seconds=offset), usegmt=True)
    url = server.on("/users", Answer([], headers={"Date": date, "Age": str(age)}))
    if good:
        assert read(url, settle=dt.timedelta(seconds=settle)) == []
    else:
        side = "ahead of" if offset > 0 else "behind"
        assert f"is {abs(offset + age)} s {side} ours" in fail(url, settle=dt.timedelta(seconds=settle))


# -- secrets


@pytest.mark.parametrize(
    "answer",
    [
        Answer([{"id": 1}]),
        Answer(status=500),
        Answer({"you sent": [SECRET, "p4ssw0rd!", "c00kie"]}, status=401),
        Answer(f"<{'x' * 112}{SECRET}"),
        Answer(reset=True),
        Answer([1], cut=1),
        Answer(status=302, headers={"Location": "/users?access_token=p4ssw0rd!&sig=p4ssw0rd!"}),
        Answer(status=302, headers={"Location": "http://ann:p4ssw0rd!@elsewhere.invalid/?api_key=p4ssw0rd!"}),
        Answer([{"id": 1}], headers={"Link": "<http://ann:p4ssw0rd!@[x/?api_key=p4ssw0rd!>; rel=next"}),
        Answer({"users": [{"id": 1}], "next": "/users?api_key=p4ssw0rd!"}),
        Answer([{"id": 1}], headers={"Link": "</users?api_key=p4ssw0rd!>; rel=next"}),
        Answer([{"id": 1}], noise="this is no header"),
    ],
)
def test_no_secret_is_printed(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, answer: Answer
) -> None:
    """Whatever goes wrong, no error, log record (of urllib3 too, at DEBUG) or URL holds a secret, whole or in part."""
    monkeypatch.setenv("PEOPLE_TOKEN", SECRET)
    caplog.set_level(logging.DEBUG)
    url = server.on("/users", answer).replace("http://", "http://ann:p4ssw0rd!@")
    people = People(
        url=url + "?password=p4ssw0rd!",
        params={"api_key": "p4ssw0rd!", "filter": [{"token": "p4ssw0rd!"}], "q": "oslo"},
        headers={"Cookie": "session c00kie"},
        auth="header:X-Token:PEOPLE_TOKEN",
        retries=1,
    )
    reading = Reading(people, DAY)
    trace = ""
    try:
        list(reading)
    except SourceError:
        trace = traceback.format_exc()
    assert any("urllib3" in record.name for record in caplog.records)
    text = "\n".join([reading.url, reading.paginator, trace, caplog.text])
    assert "oslo" in text
    for secret in (SECRET, "s3cr3t", "p4ssw0rd", "c00kie"):
        assert secret not in text


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("a/b c, a%2Fb%20c, a%2Fb+c.", "***, ***, ***."),
        ("abcdef abc", "*** ***"),
        ("GET http://ann:pw@h/?next_token=x1&q=2: no", "GET http://***@h/?next_token=***&q=2: no"),
        ("/?q=2&X-Amz-Signature=x1 and ?sig=x1", "/?q=2&X-Amz-Signature=*** and ?sig=***"),
        ("/?design=x1&code=x1&zipcode=x1", "/?design=x1&code=***&zipcode=x1"),
    ],
)
def test_secrets_are_masked_in_any_form(said: str, shown: str) -> None:
    """Those that are known however they are encoded, the longest first; those of a URL by their place."""
    assert Mask(["a/b c", "abc", "abcdef"])(said) == shown


def test_the_loggers_are_given_back(server: Server) -> None:
    """After a reading urllib3's loggers are as they were."""
    read(server.on("/users", Answer([])))
    assert not logging.getLogger("urllib3.connectionpool").filters


# -- speed


def test_a_page_is_split_at_the_speed_of_msgspec() -> None:
    """A record costs a view of the page, not an object of its fields: 200,000 in well under a fifth of a second."""
    page = b"[" + b",".join(b'{"id":%d,"name":"user"}' % number for number in range(200_000)) + b"]"
    started = time.perf_counter()
    records = split_list(page)
    assert time.perf_counter() - started < 0.2
    assert len(records) == 200_000
    assert isinstance(records[0], msgspec.Raw)


# -- all of it


def test_an_empty_list_beside_another_is_not_passed_over(server: Server) -> None:
    """On a day without users, another list of objects is not taken for theirs."""
    assert "not clear which list" in fail(server.on("/users", Answer({"users": [], "teams": [{"id": 7}]})))
    assert "not clear which list" in fail(server.on("/users", Answer({"users": [{"id": 7}], "teams": []})))
    url = server.on("/users", Answer({"users": [], "teams": [{"id": 7}]}))
    assert read(url, data_selector="users") == []


@pytest.mark.parametrize(
    "body", [{"schemas": ["urn:x"], "totalResults": 0, "Resources": []}, {"users": [], "links": [{"rel": "self"}]}]
)
def test_lists_of_text_and_of_links_are_no_records(server: Server, body: Any) -> None:
    """What is left is the list, though it is empty."""
    assert read(server.on("/users", Answer(body))) == []


def test_a_line_among_the_headers_that_is_none_is_retried_and_then_fails(server: Server) -> None:
    """What stood after it, as a Link, is lost: the answer cannot be believed."""
    link = {"Link": '</users?page=2>; rel="next"'}
    url = server.on("/users", Answer([{"id": 1}], headers=link, noise="no header"), Answer([{"id": 1}]))
    assert read(url, retries=1) == [{"id": 1}]
    assert len(server.requests) == 2
    assert "no header" in fail(server.on("/users", Answer([{"id": 1}], headers=link, noise="no header")))


@pytest.mark.parametrize("status", [201, 202, 204, 206])
def test_a_success_that_is_not_the_whole_answer_fails(server: Server, status: int) -> None:
    """206 is a part of it, 202 is not there yet, 204 is nothing."""
    assert f": {status} " in fail(server.on("/users", Answer([{"id": 1}], status=status)))


def test_fewer_records_than_the_source_declares_fail_with_both_numbers(server: Server) -> None:
    """As where a Link was lost on the way."""
    link = {"Link": '</users?page=2>; rel="next"', "X-Total-Count": "9"}
    url = server.on("/users", lambda r: Answer([{"id": len(r.query)}], headers={} if r.query else link))
    assert "the source declares 9 records, and 2 came on 2 pages" in fail(url)
    assert "declares 9" in fail(url, paginator="link_header")
    server.on("/users", Answer([{"id": 1}], headers={"X-Total-Count": "9"}))
    assert read(url, paginator="single") == [{"id": 1}]


def test_an_empty_page_is_not_the_end_where_the_source_says_that_there_is_more(server: Server) -> None:
    """Read on, whatever the paginator; an empty page that says nothing is the end."""
    pages = {"1": [{"id": 1}], "2": [], "3": [{"id": 3}], "4": []}
    url = server.on(
        "/users", lambda r: Answer({"data": pages[r.query["page"]], "has_more": r.query["page"] in ("1", "2")})
    )
    assert read(url, paginator="page") == [{"id": 1}, {"id": 3}]


def test_empty_pages_without_end_fail(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that says for ever that there is more, and sends nothing, is given up."""
    monkeypatch.setattr(source, "MAX_EMPTY", 5)
    url = server.on("/users", lambda r: Answer({"data": [], "has_more": True, "page": r.query["page"]}))
    assert "6 pages in a row are empty" in fail(url, paginator="page")
    assert len(server.requests) == 6


def test_a_body_that_comes_too_slowly_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte may be in time, and the whole never come."""
    monkeypatch.setattr(pages, "MAX_SECONDS", -1)
    assert "was not all there after -1 seconds" in fail(server.on("/users", Answer([{"id": 1}])))


def test_a_date_beyond_all_dates_is_no_clock() -> None:
    """A source that says no time that can be read says none."""
    assert client.find_time({"Date": "Fri, 31 Dec 9999 23:59:59 GMT", "Age": "99999999"}) is None
    assert client.find_time({"Date": "Nov +9999 99999999999999 00:00:00"}) is None
