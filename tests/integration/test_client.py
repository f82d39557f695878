"""Test the HTTP client: origins, redirects, headers, secrets, retries and waits."""

import datetime as dt
import itertools
import json
import logging
import re
import time
from email.utils import format_datetime
from pathlib import Path
from unittest.mock import Mock
from urllib.parse import urljoin

import pytest
import requests

from tests.support.reading import DAY, People, make_pages, read, read_error
from tests.support.server import Answer, Request, Server
from tests.support.wire import Raw, Wire
from wholeday import clock
from wholeday.errors import ConfigError
from wholeday.extract.http import retries, waits
from wholeday.extract.http.waits import parse_wait
from wholeday.extract.reader import Reader

SECRET = "s3cr3t/+tok&n"


@pytest.mark.parametrize(
    "target",
    [
        "http://localhost:{port}/users",
        "https://127.0.0.1:{port}/users",
        "//localhost:{port}/users",
        "file:///etc/passwd",
    ],
)
@pytest.mark.parametrize("how", ["link", "next", "redirect", "redirect of a link"])
def test_other_origin_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch, target: str, how: str) -> None:
    """A link or redirect to another origin would send the token there."""
    monkeypatch.setenv("PEOPLE_TOKEN", SECRET)
    away = target.format(port=server.url.rpartition(":")[2])
    redirect = Answer(status=307, headers={"Location": away})
    link = Answer([{"id": 1}], headers={"Link": f"<{away if how == 'link' else '/two'}>; rel=next"})
    first = {"next": Answer({"users": [{"id": 1}], "next": away}), "redirect": redirect}.get(how, link)
    url = server.on("/users", first)
    server.on("/two", redirect)
    keys = {"paginator": "next_url", "cursor_path": "next"} if how == "next" else {}
    line = read_error(url, auth="bearer:PEOPLE_TOKEN", **keys)
    assert re.search(f"leads to {urljoin(url, away).partition('/users')[0].partition('/etc')[0]}", line)
    assert f"another origin than {server.url}" in line
    assert len(server.requests) == (2 if how == "redirect of a link" else 1)


@pytest.mark.parametrize("origin", ["http://api-svc:8001", "https://api.example.com", "//internal", ""])
@pytest.mark.parametrize("kind", ["link_header", "next_url", "auto"])
def test_next_link_path_keeps_the_origin(server: Server, origin: str, kind: str) -> None:
    """The client uses path and query of a link, and scheme, host and port of url."""

    def respond(request: Request) -> Answer:
        at = int(request.query.get("cursor", "0"))
        link = f"{origin}/users?cursor={at + 1}&x=%2Fy#top" if at < 3 else None
        if kind == "link_header":
            return Answer([{"id": at}], headers={"Link": f'<{link}>; rel="next"'} if link else {})
        return Answer({"results": [{"id": at}], "next": link})

    keys = {"paginator": kind, "next_link": "path", "cursor_path": "next" if kind == "next_url" else ""}
    records = read(server.on("/users", respond), params={"team": "7"}, **keys)
    assert [record["id"] for record in records] == [0, 1, 2, 3]
    assert server.requests[-1].target == "/users?cursor=3&x=%2Fy"
    if origin.startswith("http"):
        assert "another origin" in read_error(server.on("/users", respond), **keys | {"next_link": "whole"})


def test_next_link_path_refuses_redirect_to_other_origin(server: Server) -> None:
    """The redirect may lead to a login page."""
    away = server.url.replace("127.0.0.1", "localhost")
    server.on("/two", Answer(status=302, headers={"Location": f"{away}/users"}))
    link = Answer([{"id": 1}], headers={"Link": "<http://api-svc/two>; rel=next"})
    line = read_error(server.on("/users", link), next_link="path")
    assert "a redirect from" in line
    assert "another origin" in line
    assert "next_link" not in line


@pytest.mark.parametrize("trick", ["http://{other}\\@{own}/users", "http://{own}@{other}/users", "//{other}/users"])
def test_origin_is_parsed_as_requests_parses_it(server: Server, trick: str) -> None:
    """Two parsers may disagree about a URL: the check must see the host that requests would use."""
    with Server() as other:
        names = {"own": server.url.removeprefix("http://"), "other": other.url.removeprefix("http://")}
        link = {"Link": f"<{trick.format(**names)}>; rel=next"}
        read_error(server.on("/users", Answer([{"id": 1}], headers=link)))
        assert not other.requests


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_within_origin_keeps_the_token(server: Server, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setenv("PEOPLE_TOKEN", SECRET)
    url = server.on("/old", Answer(status=status, headers={"Location": "v2/users?a=b"}))
    server.on("/v2/users", Answer([{"id": 1}]))
    assert read(url, auth="bearer:PEOPLE_TOKEN") == [{"id": 1}]
    assert [request.headers["Authorization"] for request in server.requests] == [f"Bearer {SECRET}"] * 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_of_post_keeps_its_body(server: Server, status: int) -> None:
    """Statuses 307 and 308 repeat the body. The others would drop the filter in it, and are refused."""
    url = server.on("/old", Answer(status=status, headers={"Location": "/users"}))
    server.on("/users", Answer([{"id": 1}]))
    if status in (307, 308):
        assert read(url, method="POST", body={"team": 7}) == [{"id": 1}]
        assert [(request.method, request.body) for request in server.requests] == [("POST", b'{"team":7}')] * 2
    else:
        assert f"a redirect from {url} ({status}) would drop the body of the POST" in read_error(url, method="POST")
        assert len(server.requests) == 1


def garble(text: str) -> str:
    """Return UTF-8 as http.client and http.server represent it."""
    return text.encode().decode("latin-1")


CITY = "M%C3%BCnchen"  # München


@pytest.mark.parametrize("header", [garble("München"), "München", CITY], ids=["UTF-8", "Latin-1", "ASCII"])
def test_utf_8_in_the_link_header_is_accepted(server: Server, header: str) -> None:
    """Many frameworks copy the query into the Link header as UTF-8, although HTTP specifies Latin-1."""
    link = Answer([{"id": 1}], headers={"Link": f'</users?city={header}&page=2>; rel="next"'})
    assert read(server.on("/users", link, Answer([{"id": 2}]))) == [{"id": 1}, {"id": 2}]
    assert server.requests[1].target == f"/users?city={CITY}&page=2"


@pytest.mark.parametrize("header", [garble("/Straße/Москва"), "/Stra%C3%9Fe/%D0%9C%D0%BE%D1%81%D0%BA%D0%B2%D0%B0"])
def test_utf_8_in_a_redirect_is_accepted(server: Server, header: str) -> None:
    """Browsers follow such a redirect too."""
    target = "/Stra%C3%9Fe/%D0%9C%D0%BE%D1%81%D0%BA%D0%B2%D0%B0"
    server.on(target, Answer([{"id": 1}]))
    assert read(server.on("/users", Answer(status=302, headers={"Location": header}))) == [{"id": 1}]


@pytest.mark.parametrize("cursor", ["Jürgen", "Ångström", "Київ", "a b"])
@pytest.mark.parametrize("where", ["query", "header", "body"])
def test_cursor_header_returns_the_same_bytes(server: Server, cursor: str, where: str) -> None:
    url = server.on("/users", Answer([{"id": 1}], headers={"X-Next": garble(cursor)}), Answer([]))
    keys = {"paginator": "cursor", "cursor_path": "X-Next", "cursor_param": "after", "cursor_in": where}
    assert read(url, method="POST", **keys) == [{"id": 1}]
    sent = server.requests[1]
    found = {"query": sent.query, "header": sent.headers, "body": json.loads(sent.body)}[where]
    assert found["after"] == (garble(cursor) if where == "header" else cursor)


def test_at_most_ten_redirects_are_followed(server: Server) -> None:
    line = read_error(server.on("/users", Answer(status=302, headers={"Location": "/users"})))
    assert "more than 10 redirects" in line
    assert len(server.requests) == 11


def test_request_headers(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request has the user agent, JSON, gzip, the configured headers and the token."""
    monkeypatch.setenv("PEOPLE_KEY", SECRET)
    read(server.on("/users", Answer([])), auth="header:X-Api-Key:PEOPLE_KEY", headers={"X-Tenant": "7"})
    headers = server.requests[0].headers
    assert headers["User-Agent"] == "wholeday"
    assert headers["Accept"] == "application/json"
    assert headers["Accept-Encoding"] == "gzip"
    assert headers["X-Tenant"] == "7"
    assert headers["X-Api-Key"] == SECRET
    assert "Authorization" not in headers


@pytest.mark.parametrize("own", [{}, {"cache-control": "max-age=60"}])
def test_caches_are_bypassed(server: Server, own: dict[str, str]) -> None:
    """Every page and redirect target asks for a fresh answer, unless a header of the section says otherwise."""
    answers = [Answer([{"id": 1}], headers={"Link": "</old>; rel=next"}), Answer([])]
    server.on("/old", Answer(status=302, headers={"Location": "/users"}))
    read(server.on("/users", *answers), headers=own)
    sent = [request.headers.get_all("Cache-Control") for request in server.requests]
    assert sent == [[own.get("cache-control", "no-cache")]] * 3


def test_password_in_url_is_sent_and_masked(server: Server) -> None:
    """User and password of a URL become a header."""
    url = server.on("/users", Answer([])).replace("http://", "http://ann:hunter22@")
    reading = Reader(People(url=url), DAY)
    assert list(reading) == [[]]
    assert server.requests[0].headers["Authorization"] == "Basic YW5uOmh1bnRlcjIy"
    assert reading.url == server.url + "/users"


def test_netrc_is_ignored(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A password that curl uses is not meant for this program."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ann password hunter22\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    read(server.on("/users", Answer([])))
    assert "Authorization" not in server.requests[0].headers


def test_proxy_of_environment_is_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    server.on("/users", Answer([{"id": 1}]))
    assert read("http://api.invalid/users") == [{"id": 1}]
    assert server.requests[0].target == "http://api.invalid/users"


def test_environment_is_read_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the environment takes as long as fetching a page."""
    ask = Mock(wraps=requests.utils.getproxies)
    monkeypatch.setattr(requests.utils, "getproxies", ask)
    assert len(read(server.on("/users", make_pages(5, 1, server, "")), paginator="page")) == 5
    assert ask.call_count == 1


def test_ca_bundle_of_environment_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "company.pem"))
    assert "company.pem" in read_error("https://127.0.0.1:9/users")


@pytest.mark.slow
def test_requests_per_second_is_kept(server: Server) -> None:
    """At five per second, four requests start a fifth of a second apart."""
    url, began = server.on("/users", make_pages(3, 1, server, "")), time.monotonic()
    read(url, paginator="page", requests_per_second=5.0)
    assert len(server.requests) == 4
    assert all(request.at - began >= number / 5 for number, request in enumerate(server.requests))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("auth", auth) for auth in ("bearer", "bearer:", "basic:A:B", "eyJhbGciOi.hunter", "header:X:", "none:x")),
        *(("auth", "header::A"), ("url", "users"), ("url", "ftp://a/users"), ("url", "http:///users")),
        *(("url", "http://a:9x/"), ("url", "http://ann:hunter/22@a/"), ("url", "http://[a/")),
    ],
)
def test_unusable_auth_or_url_is_refused(key: str, value: str) -> None:
    """The error does not show it, as it may be a secret, or contain one whose end is unknown."""
    with pytest.raises(ConfigError, match=key) as caught:
        Reader(People(**{"url": "http://a/", key: value}), DAY)
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize("value", [None, "", "abc\n", " abc", "ab\x00c", "gehe\u00efm"])
def test_unusable_secret_names_its_variable(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    """An unset, empty or unprintable variable is refused before the first request."""
    monkeypatch.setattr("os.environ", {} if value is None else {"PEOPLE_TOKEN": value})
    with pytest.raises(ConfigError, match="PEOPLE_TOKEN") as caught:
        Reader(People(url="http://a/", auth="bearer:PEOPLE_TOKEN"), DAY)
    assert not value or value.strip() not in str(caught.value)


@pytest.mark.slow
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
        pytest.param(Answer([1], wait=60), marks=pytest.mark.slow),
    ],
)
def test_temporary_failure_is_retried(server: Server, caplog: pytest.LogCaptureFixture, trouble: Answer) -> None:
    """Each retry is logged. A failure that stays fails with one line."""
    caplog.set_level(logging.INFO, "luigi-interface")
    url = server.on("/users", trouble, trouble, Answer([{"id": 1}]))
    timeout = 1.0 if trouble.wait else 30.0
    assert read(url, timeout=timeout) == [{"id": 1}]
    assert len(server.requests) == 3
    assert [record.levelname for record in caplog.records] == ["INFO"] * 2
    assert "retry 2 of 5 in " in caplog.messages[1]
    server.on("/users", trouble)
    assert "failed after 2 attempts" in read_error(url, timeout=timeout, retries=1)


def test_reset_within_the_body_is_retried() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
    with Wire() as wire:
        wire.show({"/users": [Raw(head + b'[{"id"', then="reset", slow=0.05), Raw(head + b'[{"id":1}]')]})
        assert read(f"{wire.url}/users", retries=1) == [{"id": 1}]
        assert len(wire.targets) == 2


def test_refused_connection_names_its_cause() -> None:
    """After the retries, one line names the address."""
    with Server() as closed:
        url = closed.url
    line = read_error(url, retries=1)
    assert re.search(r"GET http://127.0.0.1:\d+: Failed to establish a new connection.*refused; failed after 2", line)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418])
def test_permanent_failure_is_not_retried(server: Server, status: int) -> None:
    """Any other 4xx fails at once, and quotes the answer and the next step."""
    url = server.on("/users", Answer({"error": "no\n  way" + " " * 300}, status=status))
    line = read_error(url, retries=3)
    quoted = "no" in line.partition(f": {status} ")[2]
    assert quoted == (status not in (401, 403))  # answers to a wrong secret often repeat it
    assert ": check " in line
    assert len(server.requests) == 1


@pytest.mark.slow
def test_wait_doubles_with_each_retry(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "BACKOFF", 0.05)
    read_error(server.on("/users", Answer(status=500)), retries=4)
    times = [request.at for request in server.requests]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(wait > 0.05 * 2**number for number, wait in enumerate(waits))


@pytest.mark.slow
def test_max_wait_limits_each_pause(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jitter comes on top."""
    monkeypatch.setattr(retries, "BACKOFF", 0.2)
    read_error(server.on("/users", Answer(status=500)), retries=9, max_wait=dt.timedelta(0))
    assert server.requests[-1].at - server.requests[0].at < 50  # without max_wait it would be 102


def say_later(kind: str) -> dict[str, str]:
    """Return headers that ask for a wait of one to two seconds, from a server with a clock three minutes ahead."""
    now = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(minutes=3)
    then = now + dt.timedelta(seconds=1)
    headers = {
        "seconds": {"Retry-After": "1"},
        "date": {"Retry-After": format_datetime(then, usegmt=True)},
        "reset epoch": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(then.timestamp()))},
        "reset milliseconds": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(then.timestamp() * 1000))},
        "reset seconds": {"RateLimit-Remaining": "0", "RateLimit-Reset": "1"},
        "ISO": {"Retry-After": then.isoformat().replace("+00:00", "Z")},
        "reset ISO": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": then.replace(tzinfo=None).isoformat(" ")},
        "twice": {"Retry-After": "1, 0, 1"},
    }[kind]
    return {"Date": format_datetime(now, usegmt=True)} | headers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *[(429, "seconds"), (503, "date"), (403, "reset epoch"), (429, "reset milliseconds"), (403, "reset seconds")],
        *[(429, "ISO"), (403, "reset ISO"), (503, "twice")],
    ],
)
def test_source_may_ask_for_a_wait(server: Server, status: int, kind: str) -> None:
    """The wait may be in seconds, a date or an epoch. Times are relative to the clock of the source."""
    url = server.on("/users", Answer(status=status, headers=say_later(kind)), Answer([{"id": 1}]))
    assert read(url) == [{"id": 1}]
    assert 1.0 <= server.requests[1].at - server.requests[0].at < 60  # by our clock it would be three minutes


DATE, ISO = "Sun, 29 Nov 2026 14:14:02 GMT", "2026-11-29T14:14:02"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("2", 2), (" 2.5 ", 2.5), ("2, 2", 2), ("2,7,5", 7), ("7, soon", 7)],
        *[("soon", 0), ("", 0), (",", 0), ("-5", 0)],
        *[(DATE, 60), (f"{DATE}, {DATE}", 60), (f"30, {DATE}", 60), (f"{DATE}, 90", 90)],
        *[("Sunday, 29-Nov-26 14:14:02 GMT", 60), ("Sun Nov 29 14:14:02 2026", 60)],
        *[(ISO, 60), (f"{ISO}Z", 60), (f"{ISO}.250Z", 60.25), (f"{ISO}+00:00, {ISO}Z", 60), (f"5, {ISO}Z", 60)],
        *[("2026-11-29T15:14:02+01:00", 60), ("2026-11-29 14:14:02Z", 60), ("2026-11-29T14:00:00Z", 0)],
        *[("1795961642", 60), ("1795961642000", 60), ("0001-01-01T00:00:00+01:00", 0), ("2026-02-30T00:00:00Z", 0)],
    ],
)
def test_formats_of_waits(text: str, seconds: float) -> None:
    """A wait is in seconds, an epoch, or an HTTP or ISO time. The longest counts; a past time means no wait."""
    clock = {"Date": "Sun, 29 Nov 2026 14:13:02 GMT"}
    assert parse_wait(503, clock | {"Retry-After": text}) == seconds
    assert parse_wait(429, clock | {"X-RateLimit-Reset": text}) == seconds


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_wait_beyond_max_wait_fails_at_once(server: Server, status: int) -> None:
    """The error names the requested wait and the limit."""
    line = read_error(server.on("/users", Answer(status=status, headers={"Retry-After": "7200"})), retries=3)
    assert "asks to wait 2:00:00" in line
    assert "max_wait 0:10:00" in line
    assert len(server.requests) == 1


def test_remaining_requests_need_no_wait(server: Server) -> None:
    """A server error while the rate limit is not exhausted does not wait for its reset."""
    headers = {"X-RateLimit-Remaining": "4999", "X-RateLimit-Reset": str(int(time.time()) + 3600)}
    assert read(server.on("/users", Answer(status=502, headers=headers), Answer([]))) == []


@pytest.mark.parametrize(("offset", "age", "settle", "good"), [
    (0, 0, 0, True),
    (-600, 0, 900, True),
    (-1200, 0, 900, False),
    (1200, 0, 900, False),
    (-30, 0, 0, False),
    (-1200, 1190, 0, False),
    (-1200, 1199, 0, True),
])  # fmt: skip
def test_clock_difference_beyond_settle_fails(
    server: Server, monkeypatch: pytest.MonkeyPatch, offset: int, age: int, settle: int, good: bool
) -> None:
    """The source's Date, plus the Age of a cache, may differ from our clock by settle at most."""
    now = dt.datetime(2026, 11, 2, 12, tzinfo=dt.UTC)
    monkeypatch.setattr(clock, "utc_now", lambda: now)
    date = format_datetime(now + dt.timedelta(seconds=offset), usegmt=True)
    url = server.on("/users", Answer([], headers={"Date": date, "Age": str(age)}))
    if good:
        assert read(url, settle=dt.timedelta(seconds=settle)) == []
    else:
        side = "ahead of" if offset > 0 else "behind"
        assert f"is {abs(offset + age)} s {side} ours" in read_error(url, settle=dt.timedelta(seconds=settle))


def test_malformed_header_line_is_retried(server: Server) -> None:
    """The headers after it, such as Link, are lost."""
    link = {"Link": '</users?page=2>; rel="next"'}
    url = server.on("/users", Answer([{"id": 1}], headers=link, noise="no header"), Answer([{"id": 1}]))
    assert read(url, retries=1) == [{"id": 1}]
    assert len(server.requests) == 2
    assert "a header line of the answer is malformed" in read_error(
        server.on("/users", Answer([{"id": 1}], headers=link, noise="no header"))
    )


@pytest.mark.parametrize("status", [201, 202, 204])
def test_other_2xx_statuses_fail(server: Server, status: int) -> None:
    """The page of a 202 is not ready, and a 204 has none."""
    assert f": {status} " in read_error(server.on("/users", Answer([{"id": 1}], status=status)))


def test_unreadable_date_header_is_ignored() -> None:
    assert waits.parse_time({"Date": "Fri, 31 Dec 9999 23:59:59 GMT", "Age": "99999999"}) is None
    assert waits.parse_time({"Date": "Nov +9999 99999999999999 00:00:00"}) is None
