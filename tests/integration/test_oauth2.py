"""OAuth 2.0 client credentials: tokens are fetched, cached, renewed and never printed."""

import base64
import datetime as dt
import itertools
import logging
import threading
import traceback
from collections.abc import Callable
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import requests

from tests.support.reading import People, make_pages, read, read_error
from tests.support.server import Answer, Request, Server
from tests.support.tokens import ID, SECRET, Caller
from wholeday.errors import SourceError
from wholeday.extract.http import oauth2
from wholeday.extract.http.auth import Auth
from wholeday.extract.http.failures import RecoverableError
from wholeday.extract.http.session import Session
from wholeday.redaction import Mask

BASIC = base64.b64encode(b"our%3Aid:s3cr3t%2F%2Btok%26n+%C3%A9").decode()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables that auth names."""
    monkeypatch.setenv("PEOPLE_ID", ID)
    monkeypatch.setenv("PEOPLE_SECRET", SECRET)


def issue(**fields: Any) -> Callable[[Request], Answer]:
    """Return an endpoint that issues token-1, token-2 and so on, with further fields."""
    count = itertools.count(1)
    return lambda _: Answer({"access_token": f"token-{next(count)}", "token_type": "Bearer"} | fields)


def refuse(code: str, status: int = 401, **fields: Any) -> Answer:
    return Answer({"error": code} | fields, status=status)


def test_token_request_follows_the_standard(server: Server) -> None:
    """A form, with id and secret URL-encoded in HTTP basic. It is sent with the first request, not before."""
    caller = Caller(server, issue())
    assert not server.requests
    assert caller.fetch_token() == "token-1"
    request = server.requests[0]
    assert (request.method, request.body) == ("POST", b"grant_type=client_credentials")
    assert request.headers["Authorization"] == f"Basic {BASIC}"
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert request.headers["Accept"] == "application/json"
    assert server.requests[1].headers["Authorization"] == "Bearer token-1"


def test_scope_of_token_url_is_sent_in_body(server: Server) -> None:
    """The rest of the query stays in the URL."""
    scope = "https://graph.example/.default"
    caller = Caller(server, issue(), query=f"?tenant=a/b&scope={scope}&scope=more+still")
    assert caller.fetch_token() == "token-1"
    assert server.requests[0].query == {"tenant": "a/b"}
    assert caller.asked == [{"grant_type": "client_credentials", "scope": f"{scope} more still"}]


@pytest.mark.parametrize("refusal", [refuse("invalid_client"), refuse("invalid_request", 400)])
def test_secret_in_the_body_after_a_refused_header(server: Server, refusal: Answer) -> None:
    """Later requests send it in the body at once."""
    answer = issue(expires_in=1)
    caller = Caller(server, lambda request: answer(request) if b"secret" in request.body else refusal)
    assert [caller.fetch_token(), caller.fetch_token()] == ["token-1", "token-2"]
    inside = {"grant_type": "client_credentials", "client_id": ID, "client_secret": SECRET}
    assert caller.asked == [{"grant_type": "client_credentials"}, inside, inside]
    sent = [each.headers["Authorization"] for each in server.requests if each.path == "/token"]
    assert sent == [f"Basic {BASIC}", None, None]
    server.on("/token", refusal)
    caller.fetch_error()
    assert len(caller.asked) == 4


@pytest.mark.parametrize(
    ("said", "fetches"),
    [
        ({}, 1),
        ({"expires_in": None}, 1),
        ({"expires_in": 0}, 1),
        ({"expires_in": 3600}, 1),
        ({"expires_in": "3600"}, 1),
        ({"expires_in": 3600.5}, 1),
        ({"expires_in": 10**400}, 1),
        ({"expires_in": 9}, 3),
        ({"expires_in": -1}, 3),
    ],
    ids=str,
)
def test_token_is_replaced_shortly_before_its_end(server: Server, said: dict[str, Any], fetches: int) -> None:
    """A token is replaced ten seconds before it expires. A token without an expiry is never replaced."""
    caller = Caller(server, issue(**said))
    assert [caller.fetch_token() for _ in range(3)] == (
        [f"token-{n}" for n in (1, 2, 3)] if fetches == 3 else ["token-1"] * 3
    )
    assert len(caller.asked) == fetches


def test_lifetime_begins_with_the_request(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A late answer does not extend it."""
    now, give = [100.0], issue(expires_in=30)
    monkeypatch.setattr(oauth2, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def answer_late(request: Request) -> Answer:
        now[0] += 5
        return give(request)

    caller = Caller(server, answer_late)
    assert caller.fetch_token() == "token-1"
    now[0] = 120.0
    assert caller.fetch_token() == "token-1"
    now[0] = 120.1
    assert caller.fetch_token() == "token-2"


def test_refused_token_is_renewed_once(server: Server) -> None:
    """Only for the request that sent it, and only with another token."""
    caller = Caller(server, issue())
    with Session(caller.auth) as session:
        first = session.get(server.url + "/users").request
        assert caller.auth.renew(first)
        second = session.get(server.url + "/users").request
        assert second.headers["Authorization"] == "Bearer token-2"
        assert caller.auth.renew(first)  # another thread has already renewed the token
        assert len(caller.asked) == 2
        server.on("/token", Answer({"access_token": "token-2", "token_type": "bearer"}))
        assert not caller.auth.renew(second)
    assert not Auth(People(url="http://127.0.0.1/users"), Mask()).renew(first)


@pytest.mark.slow
def test_threads_share_a_token(server: Server) -> None:
    """One fetch at the start, and one for all refused requests."""
    give = issue()
    caller = Caller(server, lambda request: Answer(give(request).body, wait=0.1))
    tokens: list[str] = []
    barrier = threading.Barrier(8)

    def ask() -> None:
        with Session(caller.auth) as session:
            barrier.wait()
            request = session.get(server.url + "/users").request
            barrier.wait()
            renewed = caller.auth.renew(request)
            tokens.append(f"{request.headers['Authorization']} {renewed}")

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tokens == ["Bearer token-1 True"] * 8
    assert len(caller.asked) == 2


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            refuse("unauthorized_client", error_description=f"no such client, {SECRET}"),
            "401 Unauthorized: 'unauthorized_client'",
        ),
        (refuse("invalid_scope", 400), "400 Bad Request: 'invalid_scope"),
        (refuse("invalid_client"), "; with id and secret in the body: 401 Unauthorized: 'invalid_client"),
        (refuse("slow_down", 200), "200 OK: 'slow_down"),
        (refuse("x" * 10_000), "401 Unauthorized: its reason is not shown, as it may contain the secret"),
        (refuse("x" * 10_000, 400), "x" * 150),
        (refuse("invalid_grant", 400, error_description=f"not {SECRET}"), "400 Bad Request: 'invalid_grant: not ***'"),
        (refuse(["a", {}]), "401"),  # type: ignore[arg-type]
        (Answer({"detail": "Not Found"}, status=404), "404 Not Found: 'missing_token"),
        (Answer("<html>Sign in</html>"), "200 OK: the body is not an OAuth 2.0 answer"),
        (Answer("<html>Nothing</html>", status=404), "404 Not Found: the body is not an OAuth 2.0 answer"),
        (Answer("access_token=abc&token_type=bearer"), "not an OAuth 2.0 answer"),
        (Answer(["access_token"]), "not an OAuth 2.0 answer"),
        (Answer(b""), "not an OAuth 2.0 answer"),
        (Answer(b"\xff\xfe"), "200 OK: the body is not UTF-8"),
        (Answer("[" * 100_000), "not an OAuth 2.0 answer"),
        (Answer({"access_token": "abcd", "token_type": "mac"}), "the type 'mac', only bearer"),
        (Answer({"access_token": 7, "token_type": "bearer"}), "no token that a header can carry"),
        (Answer({"access_token": "two\nlines", "token_type": "bearer"}), "no token that a header can carry"),
        (Answer({"access_token": "", "token_type": "bearer"}), "no token that a header can carry"),
        (Answer({"access_token": "abcd", "token_type": "bearer"}, status=400), "no token that a header can carry"),
        (Answer({"access_token": "abcd", "expires_in": "soon"}), "not an OAuth 2.0 answer"),
        (Answer({"access_token": "abcd", "scope": 7}), "not an OAuth 2.0 answer"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_endpoint_without_a_token_fails_with_one_line(server: Server, answer: Answer, says: str) -> None:
    """The line names the endpoint, its answer and the next step. The API receives no request.

    The endpoint receives a second request only if it expects the id in the body.
    """
    caller = Caller(server, answer)
    line = caller.fetch_error()
    assert says in line
    assert len(caller.asked) == (2 if "in the body" in says else 1)
    assert len(line) < 1000
    assert {request.path for request in server.requests} == {"/token"}


def test_redirect_of_token_endpoint_is_refused(server: Server) -> None:
    """Within the origin too. The line names the target."""
    caller = Caller(server, Answer("x" * 10, status=307, headers={"Location": "/elsewhere?key=hidden"}))
    line = caller.fetch_error()
    assert "307 Temporary Redirect: a redirect to /elsewhere?key=***, which would receive id and secret" in line
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=500),
        Answer(status=503, headers={"Retry-After": "7"}),
        refuse("slow_down", 429, error_description=SECRET),
        Answer(status=403, headers={"Retry-After": "7"}),
        Answer(reset=True),
        Answer({"access_token": "abcd"}, cut=5),
        Answer(wait=60),
    ],
)
def test_temporary_failure_of_endpoint_is_recoverable(server: Server, answer: Answer) -> None:
    """With the wait that the endpoint asks for. The next attempt fetches a token."""
    caller = Caller(server, answer, issue(), timeout=1.0 if answer.wait else 30.0)
    with pytest.raises(RecoverableError) as caught:
        caller.fetch_token()
    assert str(caught.value).startswith(f"POST {caller.url}: ")
    assert SECRET not in str(caught.value)
    assert caught.value.wait == (7 if "Retry-After" in answer.headers else 0)
    assert caller.fetch_token() == "token-1"


def test_wait_of_endpoint_is_handed_on(server: Server) -> None:
    """The client waits as it does for the source, or fails if the wait is too long."""
    caller = Caller(server, Answer(status=429, headers={"Retry-After": "7200"}))
    with pytest.raises(RecoverableError) as caught:
        caller.fetch_token()
    assert caught.value.wait == 7200


def test_refused_connection_to_endpoint_is_recoverable() -> None:
    people = People(url="http://127.0.0.1/users", auth="oauth2:http://127.0.0.1:9/token:PEOPLE_ID:PEOPLE_SECRET")
    with pytest.raises(RecoverableError, match=r"^POST http://127\.0\.0\.1:9/token: .*Connection refused"):
        requests.get(people.url, auth=Auth(people, Mask()))


def test_endless_token_answer_fails(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wholeday.extract.http.body.MAX_BODY", 1000)
    assert "the body is larger than" in Caller(server, Answer("x" * 5000)).fetch_error()


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    [
        issue(expires_in=5),
        lambda request: refuse(
            "invalid_client", error_description=f"{request.headers['Authorization']} {request.body!r}"
        ),
        lambda request: refuse(request.headers["Authorization"] or request.body.decode()),
        refuse("access_denied", error_description="x" * (oauth2.EXCERPT - 25) + SECRET),
        Answer({"access_token": "token-1", "token_type": "token-1"}),
        Answer({"access_token": "token-1", "error": "token-1", "error_description": "token-1"}),
        Answer({"access_token": ["token-1"]}),
        lambda request: Answer(f"<a>{request.headers['Authorization']} {SECRET}"),
        Answer(status=302, headers={"Location": f"http://{quote(SECRET)}:{BASIC}@h/{quote_plus(SECRET)}?x={BASIC}"}),
        Answer(status=500),
        Answer({"access_token": "token-1"}, noise=f"{BASIC} is no header"),
    ],
)
def test_no_secret_and_no_token_is_printed(server: Server, caplog: pytest.LogCaptureFixture, answer: Any) -> None:
    """Not in an error, its traceback, a repr, or the log of urllib3 at DEBUG."""
    caplog.set_level(logging.DEBUG)
    caller = Caller(server, answer, query="?api_key=in-the-url")
    trace = ""
    with caller.mask.cover():
        for _ in range(2):
            try:
                caller.fetch_token()
            except (SourceError, RecoverableError):
                trace += traceback.format_exc()
    assert "POST /token?api_key=***" in caplog.text
    text = "\n".join([trace, caplog.text, repr(caller.auth), repr(caller.auth._tokens), repr(caller.mask)])
    for secret in (SECRET, "s3cr3t", "token-", "in-the-url", BASIC, BASIC.rstrip("=")):
        assert secret not in text


def test_token_is_masked_at_once(server: Server) -> None:
    """The API may repeat it at once. A replaced token stays masked."""
    caller = Caller(server, issue(expires_in=5))
    assert [caller.fetch_token(), caller.fetch_token()] == ["token-1", "token-2"]
    assert caller.mask("token-1 and token-2") == "*** and ***"


def test_auth_ignores_netrc(server: Server, monkeypatch: pytest.MonkeyPatch, home: Any) -> None:
    (home / "netrc").write_text("machine 127.0.0.1 login ann password hunter2")
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    assert requests.get(server.on("/users", Answer([]))).request.headers["Authorization"]
    Caller(server, refuse("invalid_client")).fetch_error()
    sent = [each.headers["Authorization"] for each in server.requests if each.path == "/token"]
    assert sent == [f"Basic {BASIC}", None]


def test_extraction_outlives_its_tokens(server: Server) -> None:
    """If the API refuses a token, the same page is requested again with a new one."""
    server.on("/token", issue())
    pages = make_pages(6, 1, server, '<{url}/users?page={page}>; rel="next"')
    sent: list[str] = []

    def respond(request: Request) -> Answer:
        sent.append(request.headers["Authorization"])
        # Every token is valid for two pages.
        return pages(request) if sent.count(sent[-1]) < 3 else Answer({"error": sent[-1]}, status=401)

    auth = f"oauth2:{server.url}/token:PEOPLE_ID:PEOPLE_SECRET"
    records = read(server.on("/users", respond), auth=auth, paginator="link_header", retries=0)
    assert [record["id"] for record in records] == list(range(6))
    assert sent == [f"Bearer token-{n}" for n in (1, 1, 1, 2, 2, 2, 3, 3)]


def test_refused_new_token_fails_at_once(server: Server) -> None:
    server.on("/token", issue())
    url = server.on("/users", lambda request: Answer({"error": request.headers["Authorization"]}, status=401))
    line = read_error(url, auth=f"oauth2:{server.url}/token:PEOPLE_ID:PEOPLE_SECRET", retries=3)
    assert line.endswith("401 Unauthorized: check auth, and the secret it names")
    assert [request.path for request in server.requests] == ["/token", "/users"] * 2


def test_short_outage_of_endpoint_is_retried(server: Server) -> None:
    server.on("/token", Answer(status=503), Answer(reset=True), issue())
    url = server.on("/users", Answer([{"id": 1}]))
    auth = f"oauth2:{server.url}/token:PEOPLE_ID:PEOPLE_SECRET"
    assert read(url, auth=auth, paginator="single", retries=2) == [{"id": 1}]
    server.on("/token", Answer(status=503))
    assert f"POST {server.url}/token: 503 Service Unavailable; failed after 1 attempt:" in read_error(url, auth=auth)


def test_date_in_retry_after_of_endpoint(server: Server) -> None:
    """The date is relative to the clock of the endpoint."""
    then = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=60)
    caller = Caller(server, Answer(status=503, headers={"Retry-After": format_datetime(then, usegmt=True)}))
    with pytest.raises(RecoverableError) as caught:
        caller.fetch_token()
    assert caught.value.wait == pytest.approx(60, abs=2)
