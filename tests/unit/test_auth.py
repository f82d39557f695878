"""Secrets are sent with requests, and are not shown anywhere."""

import base64
import logging
import re
import traceback
from typing import Any

import pytest
import requests

from tests.support.reading import DAY, People, read
from tests.support.server import Answer, Request, Server
from wholeday.errors import ConfigError, SourceError
from wholeday.extract.http.auth import Auth
from wholeday.extract.http.session import Session
from wholeday.extract.reader import Reader
from wholeday.redaction import Mask

SECRET = "s3cr3t/+tok&n"


def send(server: Server, auth: str, path: str = "/users", **keys: Any) -> Request:
    """Return the request that reaches the server with the given auth."""
    url = server.on(path.partition("?")[0], Answer([]))
    people = People(**{"url": url, "auth": auth} | keys)
    with Session(Auth(people, Mask())) as session:
        session.get(server.url + path)
    return server.requests[-1]


def fail(**keys: Any) -> str:
    """Return the error for a section. Nothing is sent."""
    with pytest.raises(ConfigError) as caught:
        Auth(People(**{"url": "http://127.0.0.1/users"} | keys), Mask())
    assert str(caught.value).startswith("[people] ")
    return str(caught.value)


def test_bearer_and_header_send_the_secret(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEOPLE_TOKEN", SECRET)
    assert send(server, "bearer:PEOPLE_TOKEN").headers["Authorization"] == f"Bearer {SECRET}"
    request = send(server, "header:X-Token:PEOPLE_TOKEN")
    assert (request.headers["X-Token"], request.headers["Authorization"]) == (SECRET, None)


@pytest.mark.parametrize(
    ("user", "password"), [("ann/token", "pässwörd:東京"), ("key-of-nobody", ""), ("", "pass-of-nobody")]
)
def test_basic_encodes_user_and_password(
    server: Server, monkeypatch: pytest.MonkeyPatch, user: str, password: str
) -> None:
    """In UTF-8, and with any colon in the password. One half may be empty: many APIs take a key as the user."""
    monkeypatch.setenv("PEOPLE_USER", user)
    monkeypatch.setenv("PEOPLE_PASSWORD", password)
    sent = send(server, "basic:PEOPLE_USER:PEOPLE_PASSWORD").headers["Authorization"]
    assert base64.b64decode(sent.removeprefix("Basic ")).decode() == f"{user}:{password}"
    mask = Mask()
    Auth(People(url="http://h/users", auth="basic:PEOPLE_USER:PEOPLE_PASSWORD"), mask)
    assert mask(f"{password or user} {sent}") == "*** Basic ***"


def test_basic_with_two_empty_halves_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEOPLE_USER", "")
    monkeypatch.setenv("PEOPLE_PASSWORD", "")
    assert "PEOPLE_USER and PEOPLE_PASSWORD are both empty" in fail(auth="basic:PEOPLE_USER:PEOPLE_PASSWORD")


def test_query_secret_replaces_its_parameter(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is percent-encoded and comes last. Other parameters stay unchanged."""
    monkeypatch.setenv("PEOPLE_TOKEN", SECRET)
    request = send(server, "query:api_key:PEOPLE_TOKEN", "/users?a=%2Fx,y&api%5Fkey=old&b&a=2")
    assert request.target == "/users?a=%2Fx,y&b&a=2&api_key=s3cr3t%2F%2Btok%26n"
    assert send(server, "query:k[1]:PEOPLE_TOKEN").query == {"k[1]": SECRET}


def test_query_secret_is_sent_to_redirect_target(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stored position of an extraction does not contain it."""
    monkeypatch.setenv("PEOPLE_TOKEN", SECRET)
    url = server.on("/old", Answer(status=302, headers={"Location": "/users?api_key=&x=1"}))
    server.on("/users", Answer([{"id": 1}], headers={"Link": '</two>; rel="next"'}))
    server.on("/two", Answer([{"id": 2}]))
    reading = Reader(People(url=url, auth="query:api_key:PEOPLE_TOKEN", paginator="link_header"), DAY)
    assert sum(len(page) for page in reading) == 2
    assert [request.query.get("api_key") for request in server.requests] == [SECRET] * 3
    assert "api_key" not in reading.url


def test_password_in_url_is_basic_authentication(server: Server) -> None:
    """It is sent together with the secret of auth, unless both use the same header."""
    url = server.url.replace("http://", "http://ann:p%40ss@") + "/users"
    sent = send(server, "none", url=url).headers["Authorization"]
    assert sent == f"Basic {base64.b64encode(b'ann:p@ss').decode()}"


def test_auth_ignores_netrc(server: Server, monkeypatch: pytest.MonkeyPatch, home: Any) -> None:
    (home / "netrc").write_text("machine 127.0.0.1 login ann password hunter2")
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    assert requests.get(server.on("/users", Answer([]))).request.headers["Authorization"]
    assert send(server, "none").headers["Authorization"] is None


FORMS = ("none", "bearer:", "basic:", "header:", "query:", "oauth2:")


WRONG = ["", "hunter2", "bearer", "bearer:A:B", "basic:A", "header:A B:C", "query:A", "query:a=b:C", "query::C"]


@pytest.mark.parametrize("auth", [*WRONG, "oauth2:A:B"])
def test_invalid_auth_is_not_shown(auth: str) -> None:
    """It may be the secret itself. The line lists every form."""
    line = fail(auth=auth)
    assert "hunter2" not in line
    assert all(form in line for form in FORMS)


@pytest.mark.parametrize(
    "auth",
    [
        *("bearer:{}", "basic:{}:SET", "basic:SET:{}", "header:X:{}", "query:x:{}"),
        *("oauth2:http://127.0.0.1/t:{}:SET", "oauth2:http://127.0.0.1/t:SET:{}"),
    ],
)
@pytest.mark.parametrize("value", [None, "", "two\nlines", " before", "after ", "\x07"])
def test_unusable_variable_is_named(monkeypatch: pytest.MonkeyPatch, auth: str, value: str | None) -> None:
    """Before anything is sent, and without its value."""
    monkeypatch.setenv("SET", "" if auth.startswith("basic") and value == "" else "something")
    if value is not None:
        monkeypatch.setenv("PEOPLE_TOKEN", value)
    line = fail(auth=auth.format("PEOPLE_TOKEN"))
    assert re.search(r"the environment variables? .*PEOPLE_TOKEN", line)
    assert ("not set" in line, "empty" in line) == (value is None, value == "")
    assert "lines" not in line


@pytest.mark.parametrize("auth", ["bearer:PEOPLE_TOKEN", "header:X-Token:PEOPLE_TOKEN"])
def test_secret_in_header_must_be_ascii(monkeypatch: pytest.MonkeyPatch, auth: str) -> None:
    """Servers decode other characters in different ways."""
    monkeypatch.setenv("PEOPLE_TOKEN", "tökén")
    assert "PEOPLE_TOKEN has a line break" in fail(auth=auth)


@pytest.mark.parametrize(
    ("keys", "echoes"),
    [
        ({"auth": "bearer:PEOPLE_TOKEN"}, ["Token s3cr3t"]),
        ({"auth": "header:X:PEOPLE_TOKEN"}, ["Token s3cr3t", "s3cr3t"]),
        ({"auth": "query:x:PEOPLE_TOKEN"}, ["Token s3cr3t", "Token%20s3cr3t", "Token+s3cr3t"]),
        ({"auth": "basic:PEOPLE_USER:PEOPLE_TOKEN"}, ["Token s3cr3t", base64.b64encode(b"ann:Token s3cr3t").decode()]),
        ({"url": "http://ann:p%40ss@h/users"}, ["p@ss", "p%40ss", base64.b64encode(b"ann:p@ss").decode()]),
        ({"url": "http://p%40ss@h/users"}, ["p@ss", "p%40ss", base64.b64encode(b"p@ss:").decode()]),
    ],
    ids=str,
)
def test_secret_is_masked_before_it_is_sent(
    monkeypatch: pytest.MonkeyPatch, keys: dict[str, str], echoes: list[str]
) -> None:
    """In every form that the source could repeat. The user counts only without a password."""
    monkeypatch.setenv("PEOPLE_TOKEN", "Token s3cr3t")
    monkeypatch.setenv("PEOPLE_USER", "ann")
    mask = Mask()
    Auth(People(**{"url": "http://h/users"} | keys), mask)
    assert [mask(echo) for echo in echoes] == ["***"] * len(echoes)
    assert mask("ann") == "ann"


def test_secret_in_place_of_name_is_not_shown() -> None:
    assert "sk-live-hunter2" not in fail(auth="bearer:sk-live-hunter2")


@pytest.mark.parametrize(
    "url", ["users", "ftp://h/t", "http:///t", "http://h:port/t", "http://[h/t", "//h/t", "http://ann:hunter2@h/t"]
)
def test_unusable_token_url_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """It needs http or https and a host, and must not contain id and secret."""
    monkeypatch.setenv("SET", "something")
    line = fail(auth=f"oauth2:{url}:SET:SET")
    assert "the token URL" in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("hunter2", "it has no scheme"),
        ("ftp://ann:hunter2@h/x", "its scheme is not supported"),
        ("localhost:8080/hunter2", "its scheme is not supported"),
        ("http:///hunter2", "it has no host"),
        ("http://h:hunter2/", "its host or port is invalid"),
    ],
)
def test_unusable_url_names_the_problem(url: str, problem: str) -> None:
    """The line says what to write instead, and does not show the URL."""
    line = f"[people] url cannot be used: {problem}: write http://, https:// or demo://, and a host"
    assert fail(url=url) == line


@pytest.mark.slow
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
@pytest.mark.parametrize("auth", ["bearer:", "basic:PEOPLE_USER:", "header:X-Token:", "query:code_word:"])
def test_no_secret_is_printed(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, answer: Answer, auth: str
) -> None:
    """No error, log record (of urllib3 at DEBUG too) or URL contains a part of a secret."""
    monkeypatch.setenv("PEOPLE_TOKEN", SECRET)
    monkeypatch.setenv("PEOPLE_USER", "ann")
    caplog.set_level(logging.DEBUG)
    url = server.on("/users", answer).replace("http://", "http://ann:p4ssw0rd!@")
    people = People(
        url=url + "?password=p4ssw0rd!",
        params={"api_key": "p4ssw0rd!", "filter": [{"token": "p4ssw0rd!"}], "q": "oslo"},
        headers={"Cookie": "session c00kie"},
        auth=f"{auth}PEOPLE_TOKEN",
        retries=1,
    )
    reading = Reader(people, DAY)
    trace = ""
    try:
        list(reading)
    except SourceError:
        trace = traceback.format_exc()
    assert any("urllib3" in record.name for record in caplog.records)
    text = "\n".join([reading.url, reading.paginator, trace, caplog.text])
    assert "oslo" in text
    for secret in (SECRET, "s3cr3t", "p4ssw0rd", "c00kie", base64.b64encode(f"ann:{SECRET}".encode()).decode()):
        assert secret not in text


def test_loggers_are_restored(server: Server) -> None:
    """The filters of urllib3's loggers are removed after an extraction."""
    read(server.on("/users", Answer([])), paginator="single")
    assert not logging.getLogger("urllib3.connectionpool").filters
